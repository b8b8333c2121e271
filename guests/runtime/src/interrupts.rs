//! The interrupt table, the routes from devices to it, and sleeping until one fires. Handlers (in `trap.s`)
//! only note the cause; all work is done by the loop.

use crate::port::{read32, write32};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Registers of the CPU's own interrupt controller, at their reset address.
const LAPIC: usize = 0xfee0_0000;
const LAPIC_TASK_PRIORITY: usize = LAPIC + 0x80;
const LAPIC_SPURIOUS: usize = LAPIC + 0xf0;
const LAPIC_TIMER: usize = LAPIC + 0x320;
const LAPIC_LINT0: usize = LAPIC + 0x350;
const LAPIC_LINT1: usize = LAPIC + 0x360;
const LAPIC_INITIAL_COUNT: usize = LAPIC + 0x380;
const LAPIC_CURRENT_COUNT: usize = LAPIC + 0x390;
const LAPIC_DIVIDE: usize = LAPIC + 0x3e0;
const MASKED: u32 = 0x1_0000;
const DIVIDE_BY_ONE: u32 = 0xb;

const IOAPIC: usize = 0xfec0_0000;
/// QEMU's microvm has a second controller for interrupt numbers from 24 on.
const IOAPIC_SECOND: usize = 0xfec1_0000;
/// Inputs of one controller.
pub(crate) const IOAPIC_PINS: u32 = 24;
const IOAPIC_WINDOW: usize = 0x10;
const IOAPIC_VERSION: u32 = 1;
const IOAPIC_VERSION_QEMU: u32 = 0x20;
const IOAPIC_REDIRECTION: u32 = 0x10;

const VECTOR_TIMER: u32 = 0x20;
const VECTOR_VIRTIO: u32 = 0x21;
const VECTOR_POWER: u32 = 0x22;
const VECTOR_SPURIOUS: u32 = 0xff;
const EXCEPTIONS: usize = 22;
const DOUBLE_FAULT: usize = 8;
const PAGE_FAULT: usize = 14;

/// Bit of `sleep`'s result: the power button's interrupt fired.
pub(crate) const WOKEN_BY_POWER: u32 = 4;

/// Causes noted by the handlers since the last look; the bits are set in `trap.s`.
#[unsafe(no_mangle)]
static IRQ_PENDING: AtomicU32 = AtomicU32::new(0);

/// Where a device's interrupt goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Virtio,
    Power,
}

#[repr(C, align(16))]
struct Gates([[u64; 2]; 256]);
static mut GATES: Gates = Gates([[0; 2]; 256]);

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

unsafe extern "C" {
    fn irq_timer();
    fn irq_virtio();
    fn irq_power();
    fn irq_spurious();
    static exc_table: [usize; EXCEPTIONS];
}

/// Fills and loads the table and silences every source. Interrupts stay off.
pub(crate) fn initialise() {
    // SAFETY: runs once with interrupts off; the addresses are those of the handlers in `trap.s`.
    unsafe {
        let table = &raw mut GATES;
        let gates = &mut (*table).0;
        for (vector, handler) in exc_table.iter().enumerate() {
            gates[vector] = gate(*handler, if matches!(vector, DOUBLE_FAULT | PAGE_FAULT) { 2 } else { 1 });
        }
        let handlers: [(u32, unsafe extern "C" fn()); 4] = [
            (VECTOR_TIMER, irq_timer),
            (VECTOR_VIRTIO, irq_virtio),
            (VECTOR_POWER, irq_power),
            (VECTOR_SPURIOUS, irq_spurious),
        ];
        for (vector, handler) in handlers {
            gates[vector as usize] = gate(handler as *const () as usize, 1);
        }
        let pointer = TablePointer { limit: 4095, base: gates.as_ptr().expose_provenance() as u64 };
        asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack, preserves_flags));
    }
    initialise_lapic();
}

fn initialise_lapic() {
    // SAFETY: the LAPIC is at its reset address, which is mapped.
    unsafe {
        write32(LAPIC_SPURIOUS, 0x100 | VECTOR_SPURIOUS);
        write32(LAPIC_LINT0, MASKED);
        write32(LAPIC_LINT1, MASKED);
        write32(LAPIC_TASK_PRIORITY, 0);
        write32(LAPIC_DIVIDE, DIVIDE_BY_ONE);
        write32(LAPIC_TIMER, MASKED | VECTOR_TIMER);
    }
}

/// An interrupt gate for ring 0 with a stack of the TSS.
fn gate(handler: usize, stack: u64) -> [u64; 2] {
    let handler = handler as u64;
    let low = (handler & 0xffff) | 8 << 16 | stack << 32 | 0x8e << 40 | ((handler >> 16) & 0xffff) << 48;
    [low, handler >> 32]
}

/// Sends a global interrupt to this CPU. Edge triggered, also where PCI devices share a line: the loop withdraws
/// all interrupts until none is raised, so the next one always makes an edge, and the CPU keeps that until it
/// sleeps. Level triggered, each interrupt would come twice.
pub(crate) fn route(global_interrupt: u32, target: Target) {
    let vector = match target {
        Target::Virtio => VECTOR_VIRTIO,
        Target::Power => VECTOR_POWER,
    };
    let (base, pin) = if global_interrupt >= IOAPIC_PINS {
        (IOAPIC_SECOND, global_interrupt - IOAPIC_PINS)
    } else {
        (IOAPIC, global_interrupt)
    };
    // SAFETY: callers route only interrupts of devices they found behind this controller.
    unsafe {
        write32(base, IOAPIC_REDIRECTION + pin * 2 + 1);
        write32(base + IOAPIC_WINDOW, 0);
        write32(base, IOAPIC_REDIRECTION + pin * 2);
        write32(base + IOAPIC_WINDOW, vector);
    }
}

/// Whether the machine has the second interrupt controller (microvm with ACPI, two IOAPICs).
pub(crate) fn has_second_ioapic() -> bool {
    // SAFETY: mapped; where no device answers, reads give all ones and writes are lost.
    unsafe {
        write32(IOAPIC_SECOND, IOAPIC_VERSION);
        read32(IOAPIC_SECOND + IOAPIC_WINDOW) & 0xff == IOAPIC_VERSION_QEMU
    }
}

/// Lets the LAPIC timer count down from its maximum without interrupting, for calibration.
pub(crate) fn start_count_down() {
    // SAFETY: the LAPIC, as above.
    unsafe { write32(LAPIC_INITIAL_COUNT, u32::MAX) }
}

/// The timer's present count.
pub(crate) fn count_down() -> u32 {
    // SAFETY: the LAPIC, as above.
    unsafe { read32(LAPIC_CURRENT_COUNT) }
}

/// Stops the timer.
pub(crate) fn stop_count_down() {
    // SAFETY: the LAPIC, as above.
    unsafe { write32(LAPIC_INITIAL_COUNT, 0) }
}

/// Sleeps until an interrupt, or until the timer has counted `ticks` (`None`: no timer). Returns the causes.
/// An interrupt that came since the last sleep ends it at once.
pub(crate) fn sleep(ticks: Option<u32>) -> u32 {
    // SAFETY: the table is loaded; handlers run on their own stacks and return with interrupts off.
    unsafe {
        write32(LAPIC_TIMER, if ticks.is_none() { MASKED | VECTOR_TIMER } else { VECTOR_TIMER });
        write32(LAPIC_INITIAL_COUNT, ticks.unwrap_or(0));
        asm!("sti", "hlt", "cli");
        write32(LAPIC_INITIAL_COUNT, 0);
    }
    IRQ_PENDING.swap(0, Relaxed)
}
