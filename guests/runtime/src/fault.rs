//! The last words of a guest: CPU exceptions and panics are reported on the console, with the return
//! addresses on the stack (one `stack 0x...` line each, for `addr2line` on the unstripped image: a call is
//! named by its last byte, since what follows it may belong to another function), and leave
//! by an exit code of their own. Reports never allocate.

use crate::console;
use crate::power::{self, ExitCode};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

const MAX_STACK_LINES: usize = 24;
static REPORTING: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    static stack_bottom: u8;
    static stack_top: u8;
}

/// What the CPU and `trap.s` left on the stack.
#[repr(C)]
struct Frame {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Called by `trap.s` for every CPU exception; `rbp` as it was.
#[unsafe(no_mangle)]
extern "C" fn guest_fault(frame: &Frame, cr2: u64, rbp: usize) -> ! {
    if REPORTING.swap(true, Relaxed) {
        power::exit(ExitCode::FAULT_IN_REPORT);
    }
    console!(
        "FAULT vector={} ({}) error={:#x} rip={:#x} cr2={cr2:#x} rsp={:#x} rflags={:#x}",
        frame.vector,
        exception_name(frame.vector),
        frame.error,
        frame.rip,
        frame.rsp,
        frame.rflags
    );
    console!("stack {:#x}", frame.rip);
    print_stack(rbp);
    power::exit(ExitCode::FAULT)
}

fn exception_name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        3 => "breakpoint",
        6 => "invalid opcode",
        8 => "double fault",
        13 => "general protection",
        14 => "page fault",
        _ => "exception",
    }
}

/// Reports a panic and leaves. The panic handler that calls it is made by [`entry!`](crate::entry), in the
/// image itself.
pub fn report_panic(info: &PanicInfo<'_>) -> ! {
    if REPORTING.swap(true, Relaxed) {
        power::exit(ExitCode::FAULT_IN_REPORT);
    }
    match info.location() {
        Some(at) => console!("PANIC {}:{}: {}", at.file(), at.line(), info.message()),
        None => console!("PANIC {}", info.message()),
    }
    print_stack(frame_pointer());
    power::exit(ExitCode::PANIC)
}

#[inline(always)]
fn frame_pointer() -> usize {
    let rbp: usize;
    // SAFETY: copies a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) }
    rbp
}

/// Walks the frame pointers while they stay on the main stack and climb.
fn print_stack(mut rbp: usize) {
    let bottom = (&raw const stack_bottom).expose_provenance();
    let top = (&raw const stack_top).expose_provenance();
    for _ in 0..MAX_STACK_LINES {
        if rbp < bottom || rbp + 16 > top || !rbp.is_multiple_of(8) {
            return;
        }
        let frame = core::ptr::with_exposed_provenance::<usize>(rbp);
        // SAFETY: both words are on the mapped main stack, checked above.
        let (next, return_address) = unsafe { (frame.read(), frame.add(1).read()) };
        if return_address == 0 {
            return;
        }
        console!("stack {:#x}", return_address - 1);
        if next <= rbp {
            return;
        }
        rbp = next;
    }
}

/// Named by the precompiled core library, which is built to unwind. Nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    power::exit(ExitCode::FAULT_IN_REPORT)
}
