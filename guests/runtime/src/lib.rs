//! Everything between a bare virtual machine and a guest's own program: boot, memory, clock, console, two
//! network links, and the loop that sleeps until something is due. It never decides what a guest serves.
//!
//! A guest is one type that implements [`App`], and one line: `guest_runtime::entry!("hello", Hello::new);`.
//! It is monitored if it asks for that, by [`System::monitor`].
//! There is one CPU, no thread and no preemption; interrupts only end a sleep.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod cmdline;
mod exchange;
pub mod roles;
pub mod unreachable;
pub mod wall;

// What touches the hardware is left out of tests, which run on the host.
#[cfg(not(test))]
mod boot;
#[cfg(not(test))]
mod clock;
#[cfg(not(test))]
mod config;
#[cfg(not(test))]
mod connections;
#[cfg(not(test))]
mod devices;
#[cfg(not(test))]
mod fault;
#[cfg(not(test))]
mod fw_cfg;
#[cfg(not(test))]
mod heap;
#[cfg(not(test))]
mod interrupts;
#[cfg(not(test))]
mod memtrace;
#[cfg(not(test))]
mod monitoring;
#[cfg(not(test))]
mod network;
#[cfg(not(test))]
mod nic;
#[cfg(not(test))]
mod pci;
#[cfg(not(test))]
mod port;
#[cfg(not(test))]
mod power;
#[cfg(not(test))]
mod random;
#[cfg(not(test))]
mod reporter;
#[cfg(not(test))]
mod rtc;
#[cfg(not(test))]
mod serial;
#[cfg(not(test))]
mod syslog_stream;
#[cfg(not(test))]
mod system;

#[cfg(not(test))]
pub use {
    clock::{monotonic_ns, time_stamp_khz, wall_ns},
    fault::report_panic,
    heap::{HeapStatistics, heap_statistics},
    network::{Address, Network, instant},
    power::{ExitCode, exit, power_off},
    random::random_seed,
    serial::console_line,
    system::{App, System, run},
};

pub use exchange::{Buffers, Exchange, Input, Progress};
pub use smoltcp;
