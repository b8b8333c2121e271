//! PCI by its two configuration ports (PCI Local Bus Specification 3.0, 3.2.2.3.2). QEMU's q35 has them,
//! microvm has not. Finds devices and nothing more; firmware has given them their addresses and interrupts.

use crate::port::{in32, out32};
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;
const ENABLE: u32 = 0x8000_0000;
const IDENTITY: u8 = 0;
/// What is read where no device, or no PCI at all, answers.
const NOBODY: u32 = u32::MAX;
const INTERRUPT: u8 = 0x3c;

const HOST_BRIDGE: DeviceFunction = DeviceFunction { bus: 0, device: 0, function: 0 };
/// The bridge to old devices of Intel's ICH9, which q35 has at this place (Intel 316972, chapter 13).
const ICH9_LPC: DeviceFunction = DeviceFunction { bus: 0, device: 0x1f, function: 0 };
const ICH9_LPC_IDENTITY: u32 = 0x2918_8086;
/// Where the ports of its power management begin (PMBASE, bits 15 to 7).
const ICH9_POWER_BASE: u8 = 0x40;
const ICH9_POWER_BASE_MASK: u32 = 0xff80;

/// The configuration space, by ports. There is one CPU, so the pair of accesses is never torn apart.
pub(crate) struct ConfigurationPorts;

impl ConfigurationAccess for ConfigurationPorts {
    fn read_word(&self, device: DeviceFunction, register: u8) -> u32 {
        select(device, register);
        // SAFETY: the port of PCI, or nobody's; reading configuration touches no memory.
        unsafe { in32(DATA_PORT) }
    }

    fn write_word(&mut self, device: DeviceFunction, register: u8, value: u32) {
        select(device, register);
        // SAFETY: as above; the only devices allowed to use memory are the cards that `nic` drives.
        unsafe { out32(DATA_PORT, value) }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

fn select(device: DeviceFunction, register: u8) {
    let place =
        u32::from(device.bus) << 16 | u32::from(device.device) << 11 | u32::from(device.function) << 8;
    // SAFETY: the port of PCI, or nobody's.
    unsafe { out32(ADDRESS_PORT, ENABLE | place | u32::from(register & 0xfc)) }
}

/// Whether the machine has PCI.
pub(crate) fn is_present() -> bool {
    ConfigurationPorts.read_word(HOST_BRIDGE, IDENTITY) != NOBODY
}

/// The global interrupt number firmware gave to a device: its pin at the first interrupt controller.
pub(crate) fn interrupt_of(device: DeviceFunction) -> u32 {
    ConfigurationPorts.read_word(device, INTERRUPT) & 0xff
}

/// The first port of the ICH9's power management; `None` on a machine without that chip.
pub(crate) fn ich9_power_base() -> Option<u16> {
    let read = |register| ConfigurationPorts.read_word(ICH9_LPC, register);
    let base = (read(IDENTITY) == ICH9_LPC_IDENTITY).then(|| read(ICH9_POWER_BASE) & ICH9_POWER_BASE_MASK)?;
    u16::try_from(base).ok().filter(|base| *base != 0)
}
