//! Access to I/O ports, to device registers in memory, and to the time stamp counter. Nothing here knows
//! what a port or register means; each caller says why its address is right.

use core::arch::asm;

/// Writes one byte to an I/O port.
///
/// # Safety
/// The write must not make a device touch memory that Rust code relies on.
pub(crate) unsafe fn out8(port: u16, value: u8) {
    // SAFETY: the caller vouches for the port.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) }
}

/// Reads one byte from an I/O port.
///
/// # Safety
/// As for [`out8`]: reading may change the device.
pub(crate) unsafe fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: the caller vouches for the port.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) }
    value
}

/// Writes a word to an I/O port.
///
/// # Safety
/// As for [`out8`].
pub(crate) unsafe fn out16(port: u16, value: u16) {
    // SAFETY: the caller vouches for the port.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) }
}

/// Reads a word from an I/O port.
///
/// # Safety
/// As for [`out8`]: reading may change the device.
pub(crate) unsafe fn in16(port: u16) -> u16 {
    let value;
    // SAFETY: the caller vouches for the port.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nostack, preserves_flags)) }
    value
}

/// Writes a double word to an I/O port.
///
/// # Safety
/// As for [`out8`].
pub(crate) unsafe fn out32(port: u16, value: u32) {
    // SAFETY: the caller vouches for the port.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) }
}

/// Reads a double word from an I/O port.
///
/// # Safety
/// As for [`out8`]: reading may change the device.
pub(crate) unsafe fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: the caller vouches for the port.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags)) }
    value
}

/// Reads a 32-bit device register.
///
/// # Safety
/// `address` must be a mapped, aligned device register.
pub(crate) unsafe fn read32(address: usize) -> u32 {
    // SAFETY: the caller vouches for the address.
    unsafe { core::ptr::with_exposed_provenance::<u32>(address).read_volatile() }
}

/// Writes a 32-bit device register.
///
/// # Safety
/// As for [`read32`], and the write must not make the device touch memory that Rust code relies on.
pub(crate) unsafe fn write32(address: usize, value: u32) {
    // SAFETY: the caller vouches for the address.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(address).write_volatile(value) }
}

/// Writes an 8-bit device register.
///
/// # Safety
/// As for [`write32`].
pub(crate) unsafe fn write8(address: usize, value: u8) {
    // SAFETY: the caller vouches for the address.
    unsafe { core::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(value) }
}

/// The time stamp counter, read after all earlier instructions.
pub(crate) fn time_stamp() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter, touches no memory.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) }
    u64::from(high) << 32 | u64::from(low)
}
