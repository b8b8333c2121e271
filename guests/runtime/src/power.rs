//! Leaving: exit codes by QEMU's isa-debug-exit, power off and the power button by the ICH9 of q35 or by the
//! generic event device of microvm. Never returns to the caller once asked to leave.

use crate::interrupts::{self, Target};
use crate::pci;
use crate::port::{in16, out16, out32, read32, write8};
use core::arch::asm;

/// `-device isa-debug-exit,iobase=0xf4,iosize=4`: QEMU ends with status `(code << 1) | 1`.
const DEBUG_EXIT_PORT: u16 = 0xf4;
/// QEMU's generic event device on microvm with ACPI; the event word is cleared by reading it.
const EVENTS: usize = 0xfea0_0000;
const EVENT_POWER_BUTTON: u32 = 2;
const SLEEP_CONTROL: usize = EVENTS + 0x200;
/// Sleep enable, sleep type 5 (soft off).
const SLEEP_SOFT_OFF: u8 = 0x20 | 5 << 2;
/// Ports of the ICH9's power management, from its base: what happened, what shall interrupt, and sleep (ACPI 6.5,
/// 4.8.3).
const PM1_STATUS: u16 = 0;
const PM1_ENABLE: u16 = 2;
const PM1_CONTROL: u16 = 4;
/// In status (cleared by writing it) and in enable.
const PM1_POWER_BUTTON: u16 = 1 << 8;
/// Sleep enable, and the sleep type that is soft off for QEMU's ICH9: 0.
const PM1_SOFT_OFF: u16 = 1 << 13;
/// The interrupt of both devices.
const POWER_INTERRUPT: u32 = 9;

/// How a guest says why it ended. 0 to 127; QEMU's own status is `(code << 1) | 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode(u8);

impl ExitCode {
    /// The arguments were not understood (QEMU status 129).
    pub const ARGUMENTS: Self = Self(64);
    /// A CPU exception (QEMU status 251).
    pub const FAULT: Self = Self(0x7d);
    /// A fault while reporting another (QEMU status 253).
    pub const FAULT_IN_REPORT: Self = Self(0x7e);
    /// A Rust panic (QEMU status 255).
    pub const PANIC: Self = Self(0x7f);

    /// A code of the guest's own; only the low 7 bits reach QEMU's status.
    #[must_use]
    pub const fn new(code: u8) -> Self {
        Self(code & 0x7f)
    }
}

/// Ends the guest with a code. Without the exit device the CPU halts for ever.
pub fn exit(code: ExitCode) -> ! {
    // SAFETY: the port belongs to the exit device or to nobody.
    unsafe { out32(DEBUG_EXIT_PORT, u32::from(code.0)) };
    halt()
}

/// Powers the machine off; QEMU ends with status 0.
pub fn power_off() -> ! {
    // QEMU serves the request after this instruction: `halt` must not race it with a reset.
    match pci::ich9_power_base() {
        // SAFETY: a port of the ICH9, which is there.
        Some(base) => unsafe { out16(base + PM1_CONTROL, PM1_SOFT_OFF) },
        // SAFETY: the event device of microvm.
        None => unsafe { write8(SLEEP_CONTROL, SLEEP_SOFT_OFF) },
    }
    halt()
}

/// Lets the power button wake the CPU. Until then q35 forgets that it was pressed; microvm keeps it.
pub(crate) fn listen_for_button() {
    if let Some(base) = pci::ich9_power_base() {
        // SAFETY: ports of the ICH9, which is there; events touch no memory.
        unsafe {
            out16(base + PM1_STATUS, u16::MAX);
            out16(base + PM1_ENABLE, PM1_POWER_BUTTON);
        }
    }
    interrupts::route(POWER_INTERRUPT, Target::Power);
}

/// Whether the power button was pressed since the last call.
pub(crate) fn button_pressed() -> bool {
    match pci::ich9_power_base() {
        Some(base) => ich9_button_pressed(base),
        None => microvm_button_pressed(),
    }
}

fn ich9_button_pressed(base: u16) -> bool {
    // SAFETY: ports of the ICH9, which is there.
    unsafe {
        let pressed = in16(base + PM1_STATUS) & PM1_POWER_BUTTON != 0;
        out16(base + PM1_STATUS, PM1_POWER_BUTTON);
        pressed
    }
}

fn microvm_button_pressed() -> bool {
    // SAFETY: the event device of microvm; where none is, the read gives all ones or zero.
    let events = unsafe { read32(EVENTS) };
    events != u32::MAX && events & EVENT_POWER_BUTTON != 0
}

fn halt() -> ! {
    loop {
        // SAFETY: stops this CPU with interrupts off, for good.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}
