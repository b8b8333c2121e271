//! Files the hypervisor leaves for the guest: QEMU's firmware configuration device, its port interface
//! (`docs/specs/fw_cfg` of QEMU). Only small numbers in plain text are read.

use crate::port::{in8, out16};

const SELECTOR_PORT: u16 = 0x510;
const DATA_PORT: u16 = 0x511;
const KEY_SIGNATURE: u16 = 0;
const KEY_DIRECTORY: u16 = 0x19;
const SIGNATURE: [u8; 4] = *b"QEMU";
const NAME_BYTES: usize = 56;
/// More files than QEMU has; a bound for a damaged count.
const MAX_FILES: u32 = 256;
/// Longest number: the digits of 2^64.
const MAX_DIGITS: u32 = 20;

/// The decimal number in the file called `name`, if there is such a file and nothing else in it.
pub(crate) fn read_number(name: &str) -> Option<u64> {
    select(KEY_SIGNATURE);
    if read_bytes() != SIGNATURE {
        return None;
    }
    let (key, size) = find(name)?;
    select(key);
    let digits: [u8; MAX_DIGITS as usize] = read_bytes();
    core::str::from_utf8(digits.get(..size as usize)?).ok()?.parse().ok()
}

/// Key and size in bytes of a file.
fn find(name: &str) -> Option<(u16, u32)> {
    select(KEY_DIRECTORY);
    let files = u32::from_be_bytes(read_bytes()).min(MAX_FILES);
    (0..files).find_map(|_| {
        let size = u32::from_be_bytes(read_bytes());
        let [key_high, key_low, _, _] = read_bytes();
        let found: [u8; NAME_BYTES] = read_bytes();
        let matches = found.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
        matches.then_some((u16::from_be_bytes([key_high, key_low]), size))
    })
}

fn select(key: u16) {
    // SAFETY: the device's port, or nobody's; choosing an item touches no memory.
    unsafe { out16(SELECTOR_PORT, key) };
}

/// The next bytes of the chosen item; zeroes past its end.
fn read_bytes<const N: usize>() -> [u8; N] {
    // SAFETY: as above; reading moves the device's own position only.
    core::array::from_fn(|_| unsafe { in8(DATA_PORT) })
}
