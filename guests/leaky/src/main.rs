//! A guest with a fault: from boot, unprompted, it loses memory at a steady rate, until none is left. It is there to
//! be found out: both its inside and its outside grow.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use guest_runtime::{App, ExitCode, System, console_line, entry, exit};
use uni_guest::OptionSpec;

/// What is lost in a second where `--leak-rate` says nothing: 256 MiB last for more than an hour.
const DEFAULT_RATE_BYTES: u64 = 64 * 1024;
/// Between two losses.
const STEP_NS: u64 = 250_000_000;
const SECOND_NS: u64 = 1_000_000_000;

const LEAK_RATE: OptionSpec = OptionSpec {
    name: "leak-rate",
    value: Some("BYTES"),
    help: "memory lost each second, 65536 if not given",
};

entry!("leaky", Leaky::new, [LEAK_RATE]);

/// Loses memory.
struct Leaky {
    rate_bytes: u64,
    begun_ns: u64,
    lost_bytes: u64,
    next_step_ns: u64,
}

impl Leaky {
    fn new(system: &mut System) -> Self {
        let rate_bytes = system.option(LEAK_RATE.name).map_or(DEFAULT_RATE_BYTES, parse_rate);
        let log = system.logs.source("leaky", "the program itself");
        log.app(format_args!("losing {rate_bytes} bytes a second"));
        system.monitor();
        let now_ns = system.now_ns();
        Self { rate_bytes, begun_ns: now_ns, lost_bytes: 0, next_step_ns: now_ns + STEP_NS }
    }

    /// All that should be lost by now.
    fn due_bytes(&self, now_ns: u64) -> u64 {
        let due = u128::from(now_ns - self.begun_ns) * u128::from(self.rate_bytes) / u128::from(SECOND_NS);
        u64::try_from(due).unwrap_or(u64::MAX)
    }
}

fn parse_rate(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| {
        console_line(format_args!("leaky: --leak-rate={text}: not a whole number of bytes"));
        exit(ExitCode::ARGUMENTS)
    })
}

/// The fault: memory is taken, written to, and never given back.
#[inline(never)]
fn leak_a_little(bytes: usize) {
    // A pattern and not zeros: the host gives memory to a page only once something is written there.
    vec![0xa5_u8; bytes].leak();
}

impl App for Leaky {
    fn turn(&mut self, system: &mut System) -> Option<u64> {
        let now_ns = system.now_ns();
        if now_ns >= self.next_step_ns {
            let step_bytes = self.due_bytes(now_ns) - self.lost_bytes;
            leak_a_little(usize::try_from(step_bytes).unwrap_or(usize::MAX));
            self.lost_bytes += step_bytes;
            self.next_step_ns = now_ns + STEP_NS;
        }
        Some(self.next_step_ns)
    }

    fn stop(&mut self, _system: &mut System) {}
}
