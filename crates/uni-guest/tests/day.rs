//! A day of reporting: time comes from outside, so it takes milliseconds.

use std::net::{Ipv4Addr, SocketAddrV4};

use uni_guest::report::{Kept, Memory};
use uni_guest::{Action, Agent, Config, Counter, Field, Histogram, Logs, Source, source};
use uni_wire::Timestamp;

static JOBS: Counter = Counter::new();
static WAITS: Histogram = Histogram::new();

source! {
    static QUEUE: Source =
        Source::new("queue").fields(&[Field::counter("jobs", &JOBS), Field::histogram("wait", &WAITS).unit("ns")]);
}

const SECOND_NS: u64 = 1_000_000_000;
const INTERVAL_NS: u64 = 60 * SECOND_NS;
const DAY_NS: u64 = 24 * 60 * 60 * SECOND_NS;

#[test]
fn a_day_goes_by_and_every_round_tells_of_its_own_time() {
    let monitor = Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8094));
    let config = Config { name: "web".into(), monitor, interval_seconds: 60, ring_bytes: 64 * 1024 };
    let mut agent = Agent::new(&config, &Logs::default());
    let (mut sent, mut now_ns, mut rounds) = (String::new(), 0, 0);
    while now_ns < DAY_NS {
        JOBS.increment();
        WAITS.record(now_ns / SECOND_NS);
        rounds += usize::from(agent.handle_tick(now_ns, i64::try_from(now_ns).expect("a day")) > 0);
        if agent.poll_action(now_ns) == Action::Connect {
            agent.handle_connected(now_ns);
        }
        while let Some(bytes) = agent.poll_transmit() {
            let taken = bytes.len();
            sent.push_str(core::str::from_utf8(bytes).expect("text"));
            agent.handle_sent(taken);
        }
        agent.handle_unacknowledged(0);
        now_ns = agent.next_deadline().expect("there is a collector");
    }
    assert_eq!(rounds as u64, DAY_NS / INTERVAL_NS);
    assert!(JOBS.get() >= DAY_NS / INTERVAL_NS);
    assert_eq!(agent.dropped_points(), 0);
    let last = sent.lines().rfind(|line| line.starts_with("queue,")).expect("a line");
    // The last wait was 86340; its bucket ends at 90111.
    assert!(last.contains(",wait_p50=90111i,wait_p90=90111i,wait_p99=90111i,wait_max=90111i,"), "{last}");
    assert!(last.ends_with(&format!(" {}", DAY_NS - INTERVAL_NS)), "{last}");

    let mut memory = Memory::default();
    memory.time = Timestamp(5);
    for _ in 0..2 {
        agent.registry_mut().report(&mut memory);
    }
    let points = memory.take();
    let queue: Vec<_> = points.iter().filter(|point| point.name == "queue").collect();
    assert_eq!((queue.len(), queue[0].time), (1, Timestamp(5)));
    assert_eq!(queue[0].fields[0], ("jobs".into(), Kept::Integer(i64::try_from(JOBS.get()).expect("few"))));
}
