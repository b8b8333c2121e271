//! What the hypervisor adds to a guest's command line: which devices are where. What the user's own words mean
//! is `uni-guest`'s business.

use alloc::string::String;
use alloc::vec::Vec;

/// QEMU adds one such word per device when the machine has no ACPI tables.
const VIRTIO_WORD: &str = "virtio_mmio.device=";

/// Where a device on the virtio-mmio bus is and which interrupt it raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioSlot {
    /// Address of its registers.
    pub address: usize,
    /// Global interrupt number.
    pub interrupt: u32,
}

/// Takes QEMU's `virtio_mmio.device=512@0xfeb00e00:12` words out and returns the devices they name. Such a
/// word that makes no sense is dropped: it is not the user's.
pub fn take_mmio_slots(words: &mut Vec<String>) -> Vec<MmioSlot> {
    let mut slots = Vec::new();
    words.retain(|word| match word.strip_prefix(VIRTIO_WORD) {
        Some(device) => {
            slots.extend(parse_slot(device));
            false
        }
        None => true,
    });
    slots
}

fn parse_slot(device: &str) -> Option<MmioSlot> {
    let (address, interrupt) = device.split_once('@')?.1.split_once(':')?;
    let address = usize::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    Some(MmioSlot { address, interrupt: interrupt.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn device_words_are_taken_out_and_read() {
        let line = "virtio_mmio.device=512@0xfeb00e00:12 --name=web virtio_mmio.device=nonsense";
        let mut words = line.split(' ').map(String::from).collect();
        let slots = take_mmio_slots(&mut words);
        assert_eq!(slots, vec![MmioSlot { address: 0xfeb0_0e00, interrupt: 12 }]);
        assert_eq!(words, ["--name=web"]);
    }

    proptest::proptest! {
        #[test]
        fn no_word_makes_it_panic(text in ".{0,40}") {
            let mut words = vec![String::from(VIRTIO_WORD) + &text];
            take_mmio_slots(&mut words);
            proptest::prop_assert!(words.is_empty());
        }
    }
}
