//! What the command line says, in the runtime's terms. A command line that cannot be used ends the guest here.

use crate::boot;
use crate::cmdline::{self, MmioSlot};
use crate::console;
use crate::network::Address;
use crate::power::{self, ExitCode};
use alloc::vec::Vec;
use smoltcp::wire::{Ipv4Address, Ipv4Cidr};
use uni_guest::args::{self, Cidr, DEFAULT_NAME};
use uni_guest::{Arguments, ArgumentsError, OptionSpec};

/// The address QEMU's user network gives to its first guest, for a service link that was given none.
const DEFAULT_SERVICE: Address = Address {
    cidr: Ipv4Cidr::new(Ipv4Address::new(10, 0, 2, 15), 24),
    gateway: Some(Ipv4Address::new(10, 0, 2, 2)),
};

/// Reads the command line. `default_name` is the image's own name, used where none is given; `options` are the
/// program's own.
pub(crate) fn read(default_name: &str, options: &[OptionSpec]) -> (Arguments, Vec<MmioSlot>) {
    let mut words = args::split_command_line(boot::command_line());
    let slots = cmdline::take_mmio_slots(&mut words);
    let read = args::parse(words.iter().map(|word| word.as_str()), options);
    match read.and_then(|arguments| arguments.refuse_tls().map(|()| arguments)) {
        Ok(mut arguments) => {
            if arguments.name == DEFAULT_NAME {
                arguments.name = default_name.into();
            }
            (arguments, slots)
        }
        Err(ArgumentsError::Help) => {
            args::usage(default_name, options).lines().for_each(|line| console!("{line}"));
            power::power_off()
        }
        Err(error) => {
            console!("{default_name}: {error}; --help lists the options");
            power::exit(ExitCode::ARGUMENTS)
        }
    }
}

/// The service link's address.
pub(crate) fn service_address(arguments: &Arguments) -> Address {
    match arguments.ipv4 {
        Some(cidr) => Address { cidr: to_cidr(cidr), gateway: arguments.ipv4_gateway },
        None => Address { gateway: arguments.ipv4_gateway.or(DEFAULT_SERVICE.gateway), ..DEFAULT_SERVICE },
    }
}

/// The management link's address. It has no gateway: monitoring stays on its own network.
pub(crate) fn management_address(arguments: &Arguments) -> Option<Address> {
    arguments.management_ipv4.map(|cidr| Address { cidr: to_cidr(cidr), gateway: None })
}

fn to_cidr(cidr: Cidr) -> Ipv4Cidr {
    Ipv4Cidr::new(cidr.address, cidr.prefix_len)
}
