//! Whether the syslog sink lives, as far as that can be known of a protocol without answers.
//!
//! Owns the signs of an outage and what is logged of it: once when it begins, once when it has ended. Never sends or
//! receives; a driver reports what it saw. Signs of death are ICMP messages that answer a datagram, and datagrams
//! that cannot leave. There is no sign of life; the absence of the others stands for it.
//!
//! ```text
//!              unreachable, or stuck for 5 s
//!   well ------------------------------------> away      a datagram that left (2 s or more after it was last said to
//!    ^                                          |        be unreachable), and no bad sign for 30 s: well again
//!    +------------------------------------------+
//! ```
//! Warnings are therefore at least 30 s apart. A sink that swallows datagrams in silence is not noticed.

use core::net::SocketAddrV4;

use crate::logs::{Log, Logs};

const SECOND_NS: u64 = 1_000_000_000;

/// The log source of what is said here.
pub(crate) const SOURCE: &str = "syslog";

/// How long datagrams may wait for their way to be found. Address resolution takes milliseconds.
const STUCK_NS: u64 = 5 * SECOND_NS;

/// Datagrams that leave so soon after an ICMP message prove nothing: hosts limit their ICMP messages, Linux to one a
/// second (`icmp_ratelimit`).
const RATE_LIMIT_NS: u64 = 2 * SECOND_NS;

/// How long nothing bad may be heard after a datagram has left, until the sink is taken for well.
const QUIET_NS: u64 = 30 * SECOND_NS;

/// See the module's page. All times are of one monotonic clock, in nanoseconds.
#[derive(Debug)]
pub struct SinkWatch {
    sink: SocketAddrV4,
    log: Log,
    /// Since when datagrams wait and none has left.
    stuck_since_ns: Option<u64>,
    outage: Option<Outage>,
    reported_drops: bool,
}

#[derive(Clone, Copy, Debug)]
struct Outage {
    since_ns: u64,
    /// From when on a datagram that leaves, and is not answered, proves something.
    proves_from_ns: u64,
    /// When such a datagram left.
    tried_ns: Option<u64>,
}

impl SinkWatch {
    /// Watches `sink`. Registers the log source `syslog`, whose warnings
    /// [`SyslogQueue::sink`](crate::SyslogQueue::sink) leaves out.
    #[must_use]
    pub fn new(sink: SocketAddrV4, logs: &Logs) -> Self {
        let log = logs.source(SOURCE, "whether the syslog sink takes messages");
        Self { sink, log, stuck_since_ns: None, outage: None, reported_drops: false }
    }

    /// The sink.
    #[must_use]
    pub const fn sink(&self) -> SocketAddrV4 {
        self.sink
    }

    /// The network says that datagrams do not reach the sink, for `reason`.
    pub fn handle_unreachable(&mut self, now_ns: u64, reason: &str) {
        self.bad_sign(now_ns, now_ns.saturating_add(RATE_LIMIT_NS), reason);
    }

    /// What became of the datagrams since the last call: whether one has `left`, and whether any are `waiting`. To be
    /// called in each round. `dropped`: messages lost for want of room since boot.
    pub fn handle_progress(&mut self, now_ns: u64, left: bool, waiting: bool, dropped: u64) {
        if left {
            self.stuck_since_ns = None;
            self.datagram_left(now_ns);
        }
        if waiting {
            let since = *self.stuck_since_ns.get_or_insert(now_ns);
            if now_ns >= since.saturating_add(STUCK_NS) {
                self.bad_sign(since, now_ns, "no way to it is found");
            }
        } else {
            self.stuck_since_ns = None;
        }
        self.end_outage(now_ns, dropped);
        self.report_drops(dropped);
    }

    /// When [`handle_progress`](Self::handle_progress) is to be called again if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        match self.outage {
            None => self.stuck_since_ns.map(|since| since.saturating_add(STUCK_NS)),
            Some(outage) => outage.tried_ns.map(|tried| tried.saturating_add(QUIET_NS)),
        }
    }

    fn bad_sign(&mut self, since_ns: u64, proves_from_ns: u64, reason: &str) {
        if let Some(outage) = &mut self.outage {
            outage.proves_from_ns = outage.proves_from_ns.max(proves_from_ns);
            outage.tried_ns = None;
            return;
        }
        self.outage = Some(Outage { since_ns, proves_from_ns, tried_ns: None });
        self.log.warning(format_args!(
            "syslog sink {} is not reachable: {reason}; messages may be lost",
            self.sink
        ));
    }

    fn datagram_left(&mut self, now_ns: u64) {
        if let Some(outage) = &mut self.outage
            && now_ns >= outage.proves_from_ns
        {
            outage.tried_ns.get_or_insert(now_ns);
        }
    }

    fn end_outage(&mut self, now_ns: u64, dropped: u64) {
        if let Some(Outage { since_ns, tried_ns: Some(tried_ns), .. }) = self.outage
            && now_ns >= tried_ns.saturating_add(QUIET_NS)
        {
            self.outage = None;
            let seconds = tried_ns.saturating_sub(since_ns) / SECOND_NS;
            self.log.info(format_args!(
                "syslog sink {} is back after {seconds} s; {dropped} messages dropped since boot",
                self.sink
            ));
        }
    }

    /// More was said at once than there is room for; an outage tells its drops at its end.
    fn report_drops(&mut self, dropped: u64) {
        if dropped > 0 && self.outage.is_none() && !self.reported_drops {
            self.reported_drops = true;
            self.log.warning(format_args!("more is logged than can be sent: messages are being dropped"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::rc::Rc;
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;
    use core::cell::RefCell;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn watch() -> (SinkWatch, Rc<RefCell<Vec<String>>>) {
        let logs = Logs::default();
        let heard = Rc::new(RefCell::new(Vec::new()));
        let ears = Rc::clone(&heard);
        logs.add_sink(move |r| ears.borrow_mut().push(r.message.to_string()));
        (SinkWatch::new(SocketAddrV4::new(Ipv4Addr::new(10, 0, 3, 2), 514), &logs), heard)
    }

    #[test]
    fn an_outage_is_reported_once_and_its_end_when_nothing_bad_is_heard() {
        let (mut watch, heard) = watch();
        (1..5).for_each(|n| watch.handle_unreachable(n * SECOND_NS, "port unreachable"));
        watch.handle_progress(5 * SECOND_NS, true, false, 0);
        assert_eq!(watch.next_deadline(), None, "too soon after the last sign to prove anything");
        watch.handle_progress(7 * SECOND_NS, true, false, 0);
        assert_eq!(watch.next_deadline(), Some(37 * SECOND_NS));
        watch.handle_progress(37 * SECOND_NS, false, false, 0);
        let expected = [
            "syslog sink 10.0.3.2:514 is not reachable: port unreachable; messages may be lost",
            "syslog sink 10.0.3.2:514 is back after 6 s; 0 messages dropped since boot",
        ];
        assert_eq!(*heard.borrow(), expected);
        assert_eq!(watch.next_deadline(), None);
    }

    #[test]
    fn datagrams_that_cannot_leave_for_5_s_are_an_outage() {
        let (mut watch, heard) = watch();
        watch.handle_progress(SECOND_NS, false, true, 0);
        assert_eq!(watch.next_deadline(), Some(6 * SECOND_NS));
        watch.handle_progress(5 * SECOND_NS, false, true, 0);
        assert!(heard.borrow().is_empty());
        watch.handle_progress(6 * SECOND_NS, false, true, 0);
        assert_eq!(heard.borrow().len(), 1);
        assert_eq!(watch.next_deadline(), None, "only a datagram that leaves makes a difference");
        watch.handle_progress(100 * SECOND_NS, false, true, 0);
        watch.handle_progress(100 * SECOND_NS, true, false, 0);
        watch.handle_progress(130 * SECOND_NS, false, false, 7);
        let back = "syslog sink 10.0.3.2:514 is back after 99 s; 7 messages dropped since boot";
        assert_eq!(heard.borrow().get(1).map(String::as_str), Some(back));
    }

    #[test]
    fn a_network_that_is_slow_but_moves_is_no_outage() {
        let (mut watch, heard) = watch();
        (0..20).for_each(|n| watch.handle_progress(n * 4 * SECOND_NS, n % 2 == 0, true, 0));
        assert!(heard.borrow().is_empty(), "{:?}", heard.borrow());
    }

    #[test]
    fn drops_of_a_sink_that_lives_are_reported_once() {
        let (mut watch, heard) = watch();
        (0..5).for_each(|n| watch.handle_progress(n, true, true, n));
        assert_eq!(*heard.borrow(), ["more is logged than can be sent: messages are being dropped"]);
    }

    proptest! {
        /// Whatever happens, beginnings and ends take turns, and two warnings are 30 s or more apart. No deadline
        /// makes a driver spin.
        #[test]
        fn reports_are_rare(steps in prop::collection::vec((0_u64..40, 0_u8..4), 0..200)) {
            let (mut watch, heard) = watch();
            let (mut now, mut warned, mut said) = (0, None::<u64>, 0);
            for (seconds, event) in steps {
                now += seconds * SECOND_NS;
                match event {
                    0 => watch.handle_unreachable(now, "port unreachable"),
                    _ => watch.handle_progress(now, event & 1 == 1, event & 2 == 2, 0),
                }
                let new: Vec<_> = heard.borrow().iter().skip(said).cloned().collect();
                prop_assert!(new.len() <= 2);
                for message in new {
                    prop_assert_eq!(message.contains("is not reachable"), said % 2 == 0);
                    if said % 2 == 0 {
                        prop_assert!(warned.is_none_or(|at| now - at >= QUIET_NS));
                        warned = Some(now);
                    }
                    said += 1;
                }
                if event != 0 {
                    prop_assert!(watch.next_deadline().is_none_or(|at| at > now));
                }
            }
        }
    }
}
