//! `uni stats`.

use std::time::{Duration, Instant};

use uni_api::rpc::method;
use uni_api::vm::{Stats, VmRef};

use crate::args::{Format, StatsArgs};
use crate::client::{ANSWER_WAIT, Client};
use crate::{output, render};

/// The daemon measures once a second: asking more often shows nothing new.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

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
    print_tick(&first, format)?;
    vm.id = first.id;
    let interval = args.interval.max(SHORTEST_INTERVAL);
    let mut next = Instant::now();
    loop {
        next = after(next, interval, Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let stats: Stats = client.call_patiently(method::VM_STATS, &vm, ANSWER_WAIT)?;
        print_tick(&stats, format)?;
    }
}

/// The next tick: an interval after the last, whatever the work took; ticks that were missed are left out.
fn after(last: Instant, interval: Duration, now: Instant) -> Instant {
    let next = last + interval;
    if next < now { now + interval } else { next }
}

/// A block and a blank line, or one object a line.
fn print_tick(stats: &Stats, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table => output::text(&(render::stats(stats) + "\n")),
        Format::Json => output::json_line(stats),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_their_distance_and_missed_ones_are_left_out() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(after(start, second, start + second / 2), start + second);
        assert_eq!(after(start, second, start + second * 5), start + second * 6);
    }
}
