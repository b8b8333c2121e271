//! Guests of a few instructions each.

/// `cli; hlt` for ever.
pub(super) const IDLE: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfc];

/// A boot sector that writes `text` to COM1 and ends with `code` by the debug-exit device at 0x501.
pub(super) fn boot_sector(text: &str, code: u8) -> Vec<u8> {
    let mut sector = vec![
        0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x40, 0x7c, // cli; ds = 0; si = 0x7c40
        0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, // write until NUL
        0xba, 0x01, 0x05, 0xb0, code, 0xee, 0xf4, 0xeb, 0xfd, // exit
    ];
    sector.resize(64, 0);
    sector.extend_from_slice(text.as_bytes());
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    sector
}

/// The same without an end.
pub(super) fn endless_boot_sector(text: &str) -> Vec<u8> {
    let mut sector = boot_sector(text, 0);
    sector[24] = 0x90; // nop in place of the out that would end it
    sector
}

/// 32-bit `mov dword [address], value`, for guests made of stores.
fn store(address: u32, value: u32) -> Vec<u8> {
    [&[0xc7, 0x05], &address.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

/// Sends one frame of `len` bytes to the broadcast address by the legacy virtio-net device at `device`
/// (virtio 1.2, 4.2.4), with queue and buffer in the guest memory from `memory` on, which is still zero.
pub(super) fn send_frame(device: u32, memory: u32, len: u32) -> Vec<u8> {
    let header = 10;
    let buffer = memory + 0x4000;
    let mut stores = vec![
        (device + 0x70, 0), // status: reset, acknowledge, driver
        (device + 0x70, 1),
        (device + 0x70, 3),
        (device + 0x24, 0), // no features
        (device + 0x20, 0),
        (device + 0x28, 4096), // page size
        (device + 0x30, 1),    // queue 1 transmits
        (device + 0x38, 4),
        (device + 0x3c, 4096),
        (device + 0x40, memory / 4096),
        (device + 0x70, 7), // driver ok
    ];
    stores.extend([(memory, buffer), (memory + 8, header + len)]); // descriptor 0
    stores.extend([(buffer + 8, 0xffff_0000), (buffer + 12, 0xffff_ffff)]); // after the header: ff:ff:ff:ff:ff:ff
    stores.extend([(memory + 64, 0x0001_0000), (device + 0x50, 1)]); // available: 1; notify
    stores.into_iter().flat_map(|(address, value)| store(address, value)).collect()
}

/// `loop: mov eax, [0xfea00000]; test al, 2; jz loop`: the power button's bit in microvm's event register.
pub(super) fn await_power_button() -> [u8; 9] {
    [0xa1, 0x00, 0x00, 0xa0, 0xfe, 0xa8, 0x02, 0x74, 0xf7]
}
