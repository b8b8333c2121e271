//! A guest that dies as it is told to: by a panic, a null pointer, an overflown stack, an invalid instruction or
//! for want of memory. Each happens a few calls deep, in functions that a stack trace should name.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::hint::black_box;
use guest_runtime::{App, ExitCode, System, console_line, entry, exit};
use uni_guest::OptionSpec;

const SECOND_NS: u64 = 1_000_000_000;
/// Taken at a time where memory is to run out.
const HOARD_BYTES: usize = 1 << 20;

const FAULT: OptionSpec =
    OptionSpec { name: "fault", value: Some("KIND"), help: "panic (if not given), null, stack, ud2 or oom" };
const AFTER: OptionSpec =
    OptionSpec { name: "after", value: Some("SECONDS"), help: "time from boot to the fault; 0 if not given" };

entry!("faulty", Faulty::new, [FAULT, AFTER]);

/// How to die.
#[derive(Clone, Copy)]
enum Fault {
    Panic,
    NullPointer,
    StackOverflow,
    InvalidOpcode,
    OutOfMemory,
}

/// Waits for its end.
struct Faulty {
    fault: Fault,
    at_ns: u64,
}

impl Faulty {
    fn new(system: &mut System) -> Self {
        let fault = parse_fault(system.option(FAULT.name).unwrap_or("panic"));
        let after_seconds = system.option(AFTER.name).map_or(0, parse_seconds);
        system.monitor();
        if after_seconds == 0 {
            // before the links send anything: nobody can take it for a guest that stays
            take_order(fault);
        }
        Self { fault, at_ns: system.now_ns().saturating_add(after_seconds * SECOND_NS) }
    }
}

fn parse_fault(text: &str) -> Fault {
    match text {
        "panic" => Fault::Panic,
        "null" => Fault::NullPointer,
        "stack" => Fault::StackOverflow,
        "ud2" => Fault::InvalidOpcode,
        "oom" => Fault::OutOfMemory,
        _ => refuse(FAULT, text),
    }
}

fn parse_seconds(text: &str) -> u64 {
    text.parse::<u32>().map_or_else(|_| refuse(AFTER, text), u64::from)
}

fn refuse(option: OptionSpec, text: &str) -> ! {
    console_line(format_args!("faulty: --{}={text}: {}", option.name, option.help));
    exit(ExitCode::ARGUMENTS)
}

impl App for Faulty {
    fn turn(&mut self, system: &mut System) -> Option<u64> {
        if system.now_ns() >= self.at_ns {
            take_order(self.fault);
        }
        Some(self.at_ns)
    }

    fn stop(&mut self, _system: &mut System) {}
}

// The results are looked at after each call, so that none becomes a jump, which leaves no trace.

#[inline(never)]
fn take_order(fault: Fault) {
    black_box(carry_out(black_box(fault)));
}

#[inline(never)]
fn carry_out(fault: Fault) -> u64 {
    black_box(match fault {
        Fault::Panic => divide_the_bill(black_box(0)),
        Fault::NullPointer => follow_null_pointer(black_box(0)),
        Fault::StackOverflow => descend(black_box(0)),
        Fault::InvalidOpcode => run_invalid_opcode(),
        Fault::OutOfMemory => hoard(),
    })
}

#[inline(never)]
fn divide_the_bill(guests: u64) -> u64 {
    match black_box(100_u64).checked_div(guests) {
        Some(share) => share,
        None => panic!("no guests to divide the bill by"),
    }
}

#[inline(never)]
fn follow_null_pointer(address: usize) -> u64 {
    // SAFETY: none: page 0 is not mapped, and the fault is what is wanted. A volatile read is made as it is written.
    black_box(unsafe { core::ptr::with_exposed_provenance::<u64>(address).read_volatile() })
}

#[inline(never)]
fn descend(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    // the end that is never reached keeps the compiler from calling it endless
    if depth == u64::MAX { 0 } else { black_box(descend(depth + 1)) + room[1] }
}

#[inline(never)]
fn run_invalid_opcode() -> u64 {
    // SAFETY: ends in the exception that is wanted.
    unsafe { core::arch::asm!("ud2", options(nomem, nostack)) };
    black_box(0)
}

#[inline(never)]
fn hoard() -> u64 {
    let mut hoarded: Vec<Vec<u8>> = Vec::new();
    loop {
        hoarded.push(black_box(Vec::with_capacity(HOARD_BYTES)));
    }
}
