//! `uni stats`.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use uni_api::rpc::method;
use uni_api::vm::{Stats, VmRef};

use crate::args::{Format, StatsArgs};
use crate::client::{ANSWER_WAIT, Client};
use crate::{output, render};

/// The daemon measures once a second: asking more often shows nothing new.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// To a terminal: clear it, then begin at its top.
const CLEAR: &str = "\x1b[2J\x1b[H";
/// To a terminal: begin at its top again; each line is cleared to its end, and what is below the last one.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Prints one measurement, or one an interval until something is wrong. A daemon that is away for a moment
/// is waited for; a VM that is not there ends it.
pub(super) fn stats(client: &mut Client, args: StatsArgs, format: Format) -> anyhow::Result<()> {
    let mut vm = VmRef { id: args.vm.vm };
    let first: Stats = client.call(method::VM_STATS, &vm, ANSWER_WAIT)?;
    if !args.watch {
        return match format {
            Format::Table => output::text(&render::stats(&first)),
            Format::Json => output::json(&first),
        };
    }
    let in_place = std::io::stdout().is_terminal();
    if in_place && format == Format::Table {
        output::text(CLEAR)?;
    }
    print_tick(&first, format, in_place)?;
    vm.id = first.id;
    let interval = args.interval.max(SHORTEST_INTERVAL);
    let mut next = Instant::now();
    loop {
        next = after(next, interval, Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let stats: Stats = client.call_patiently(method::VM_STATS, &vm, ANSWER_WAIT)?;
        print_tick(&stats, format, in_place)?;
    }
}

/// The next tick: an interval after the last, whatever the work took; ticks that were missed are left out.
fn after(last: Instant, interval: Duration, now: Instant) -> Instant {
    let next = last + interval;
    if next < now { now + interval } else { next }
}

/// A block over the one before, a block and a blank line, or one object a line.
fn print_tick(stats: &Stats, format: Format, in_place: bool) -> anyhow::Result<()> {
    match format {
        Format::Table if in_place => output::text(&over_the_last(&render::stats(stats))),
        Format::Table => output::text(&(render::stats(stats) + "\n")),
        Format::Json => output::json_line(stats),
    }
}

fn over_the_last(block: &str) -> String {
    format!("{HOME}{}{CLEAR_BELOW}", block.replace('\n', &format!("{CLEAR_LINE}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_covers_a_longer_one_before_it() {
        assert_eq!(over_the_last("ID  a\nCPU 1%\n"), "\x1b[HID  a\x1b[K\nCPU 1%\x1b[K\n\x1b[J");
    }

    #[test]
    fn ticks_keep_their_distance_and_missed_ones_are_left_out() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(after(start, second, start + second / 2), start + second);
        assert_eq!(after(start, second, start + second * 5), start + second * 6);
    }
}
