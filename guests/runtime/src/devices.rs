//! Finds the network cards: on the virtio-mmio bus of QEMU's microvm, or on PCI where there is PCI (q35).

use crate::cmdline::MmioSlot;
use crate::console;
use crate::interrupts::{self, IOAPIC_PINS, Target};
use crate::nic::{Nic, OneToOne};
use crate::pci::{self, ConfigurationPorts};
use crate::port::read32;
use alloc::vec::Vec;
use core::fmt::Display;
use core::ptr::NonNull;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::pci::bus::{BarInfo, Command, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::transport::{DeviceType, SomeTransport, Transport};

/// Where QEMU's microvm lays the bus; it fills the slots from the top down.
const BUS: usize = 0xfeb0_0000;
const SLOTS: usize = 24;
const SLOT_BYTES: usize = 512;
/// "virt", the first register of every slot.
const MAGIC: u32 = 0x7472_6976;
const DEVICE_ID: usize = 8;
/// Interrupt number of slot 0, with and without the second interrupt controller.
const FIRST_INTERRUPT: u32 = 24;
const FIRST_INTERRUPT_ONE_IOAPIC: u32 = 16;
/// So much of the address space is mapped.
const MAPPED_BYTES: u64 = 4 << 30;

/// Starts every network card and routes its interrupt, in the order in which QEMU was told of them. `named` are
/// the slots the command line gave, used instead of a scan where there are any. A card that does not start is
/// reported and left out.
pub(crate) fn find_nics(named: Vec<MmioSlot>) -> Vec<Nic> {
    if pci::is_present() {
        return find_pci_nics();
    }
    let slots = if named.is_empty() { all_slots() } else { named };
    slots.into_iter().filter_map(start_mmio_nic).collect()
}

fn all_slots() -> Vec<MmioSlot> {
    let first = if interrupts::has_second_ioapic() { FIRST_INTERRUPT } else { FIRST_INTERRUPT_ONE_IOAPIC };
    let from_the_top = (0..SLOTS).rev().zip((first..first + SLOTS as u32).rev());
    from_the_top.map(|(slot, interrupt)| MmioSlot { address: BUS + slot * SLOT_BYTES, interrupt }).collect()
}

fn start_mmio_nic(slot: MmioSlot) -> Option<Nic> {
    // SAFETY: the slots lie in mapped device memory; where nothing answers, the magic is missing.
    let present = unsafe { read32(slot.address) == MAGIC && read32(slot.address + DEVICE_ID) != 0 };
    if !present {
        return None;
    }
    let header = NonNull::new(core::ptr::with_exposed_provenance_mut::<VirtIOHeader>(slot.address))?;
    // SAFETY: a virtio device is there (seen above), and each slot is taken once.
    let transport = unsafe { MmioTransport::new(header, SLOT_BYTES) }.ok()?;
    if transport.device_type() != DeviceType::Network {
        return None;
    }
    start_nic(transport.into(), slot.interrupt, &format_args!("{:#x}", slot.address))
}

/// Firmware has laid out the devices of the root bus, where QEMU puts them unless told otherwise.
fn find_pci_nics() -> Vec<Nic> {
    let mut root = PciRoot::new(ConfigurationPorts);
    let found: Vec<_> = root.enumerate_bus(0).collect();
    let cards = found.iter().filter(|(_, info)| virtio_device_type(info) == Some(DeviceType::Network));
    cards.filter_map(|(device, _)| start_pci_nic(&mut root, *device)).collect()
}

fn start_pci_nic(root: &mut PciRoot<ConfigurationPorts>, device: DeviceFunction) -> Option<Nic> {
    let interrupt = pci::interrupt_of(device);
    if interrupt == 0 || interrupt >= IOAPIC_PINS {
        console!("network card at {device} does not start: firmware gave it no interrupt");
        return None;
    }
    if !is_within_reach(root, device) {
        console!("network card at {device} does not start: its registers lie above 4 GiB");
        return None;
    }
    root.set_command(device, Command::MEMORY_SPACE | Command::BUS_MASTER);
    match PciTransport::new::<OneToOne, _>(root, device) {
        Ok(transport) => start_nic(transport.into(), interrupt, &device),
        Err(error) => {
            console!("network card at {device} does not start: {error}");
            None
        }
    }
}

fn is_within_reach(root: &mut PciRoot<ConfigurationPorts>, device: DeviceFunction) -> bool {
    let mapped = |bar: &BarInfo| {
        bar.memory_address_size().is_none_or(|(address, size)| address.saturating_add(size) <= MAPPED_BYTES)
    };
    root.bars(device).is_ok_and(|bars| bars.iter().flatten().all(mapped))
}

fn start_nic(transport: SomeTransport<'static>, interrupt: u32, place: &dyn Display) -> Option<Nic> {
    match Nic::new(transport) {
        Ok(nic) => {
            interrupts::route(interrupt, Target::Virtio);
            Some(nic)
        }
        Err(error) => {
            console!("network card at {place} does not start: {error:?}");
            None
        }
    }
}
