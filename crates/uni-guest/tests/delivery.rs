//! From the agent through a connection that breaks to the daemon's reader of lines.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;
use uni_guest::{Action, Agent, Config, Logs, Periodic};
use uni_wire::line::{LineBuffer, Mode, Point, Precision, parse_point};
use uni_wire::{FieldValue, Timestamp};

const SECOND_NS: u64 = 1_000_000_000;

/// What may happen between two ticks.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The transport takes up to so many bytes.
    Take(usize),
    /// The connection breaks; of what was taken, up to so many bytes were never acknowledged.
    Break(usize),
    /// The collector cannot be reached.
    Refuse,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1_usize..400).prop_map(Event::Take),
        1 => (0_usize..200).prop_map(Event::Break),
        1 => Just(Event::Refuse),
    ]
}

/// The driver's end and the collector's end of the connection.
#[derive(Default)]
struct Wire {
    connected: bool,
    /// Taken since the connection came up.
    taken: Vec<u8>,
    /// Points the collector has, by time stamp.
    stored: BTreeMap<i64, Point>,
}

impl Wire {
    /// The collector reads what arrived: all but the last `lost` bytes.
    fn arrive(&mut self, lost: usize) {
        let arrived = self.taken.len().saturating_sub(lost);
        LineBuffer::default().feed(&self.taken[..arrived], |line| {
            let point =
                parse_point(line, Mode::Strict, Timestamp(0), Precision::Nanoseconds).expect("a good line");
            self.stored.insert(point.time.nanos(), point);
        });
        self.taken.clear();
        self.connected = false;
    }
}

fn agent(ring_bytes: usize) -> Agent {
    let monitor = Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8094));
    let config = Config { name: "we b".into(), monitor, interval_seconds: 1, ring_bytes };
    let mut agent = Agent::new(&config, &Logs::default());
    let everything = uni_wire::control::MetricTarget::All;
    agent.registry_mut().set(everything, uni_wire::control::Switch::Off);
    let mut n = 0;
    agent.registry_mut().register(Periodic::new("tick", move |f| {
        n += 1;
        f.count("n", n).text("s", "a \"b\"\n");
    }));
    let tick = uni_wire::control::MetricTarget::Source("tick");
    agent.registry_mut().set(tick, uni_wire::control::Switch::On);
    agent
}

/// One round of a driver's loop.
fn drive(agent: &mut Agent, wire: &mut Wire, now: u64, event: Event) {
    let reachable = !matches!(event, Event::Refuse);
    match agent.poll_action(now) {
        Action::Connect if reachable => {
            wire.connected = true;
            agent.handle_connected(now);
        }
        Action::Connect => agent.handle_disconnected(now, "refused", 0, 0),
        Action::Close => {
            wire.arrive(0);
            agent.handle_disconnected(now, "stalled", 0, 0);
        }
        Action::None => {}
    }
    match event {
        Event::Take(room) => {
            if let Some(bytes) = agent.poll_transmit() {
                let taken = room.min(bytes.len());
                wire.taken.extend_from_slice(&bytes[..taken]);
                agent.handle_sent(taken);
                agent.handle_unacknowledged(wire.taken.len().min(room / 2));
            }
        }
        Event::Break(lost) if wire.connected => {
            let lost = lost.min(wire.taken.len());
            wire.arrive(lost);
            agent.handle_disconnected(now, "reset", lost, 0);
        }
        Event::Break(_) | Event::Refuse => {}
    }
}

proptest! {
    /// Every point made is stored with the value and time it was made with, or was counted as dropped.
    #[test]
    fn what_was_made_is_stored_or_counted(
        ring_bytes in prop_oneof![200_usize..600, Just(1 << 20)], events in prop::collection::vec(event(), 1..120),
    ) {
        let mut agent = agent(ring_bytes);
        let mut wire = Wire::default();
        let mut made = 0_u64;
        for (now, event) in (0_u64..).map(|n| n * SECOND_NS / 4).zip(events) {
            let wall = i64::try_from(now).expect("small");
            made += agent.handle_tick(now, wall) as u64;
            drive(&mut agent, &mut wire, now, event);
        }
        // In the end the network is well again.
        let end = 1_000_000 * SECOND_NS;
        for n in 0..4 {
            drive(&mut agent, &mut wire, end + n * 10 * SECOND_NS, Event::Take(usize::MAX));
        }
        wire.arrive(0);
        let stored = wire.stored.len() as u64;
        prop_assert!(stored + agent.dropped_points() >= made, "{stored} of {made}");
        if ring_bytes > 600 {
            prop_assert_eq!((stored, agent.dropped_points()), (made, 0));
        }
        for (time, point) in &wire.stored {
            let n = FieldValue::Integer(time / 1_000_000_000 + 1);
            prop_assert_eq!(point.field("n"), Some(&n));
            prop_assert_eq!(point.tag("vm"), Some("we b"));
            prop_assert_eq!(point.field("s"), Some(&FieldValue::String("a \"b\" ".into())));
        }
    }
}
