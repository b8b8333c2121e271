//! The connection to the collector, as a state machine.
//!
//! Owns when to connect, when to give up on a connection, when to trust one, and how long to wait before the next
//! try. Never touches a socket.
//!
//! ```text
//!   Waiting --time--> Connecting --connected--> Connected
//!      ^                  | timeout                 | stalled
//!      |                  v                         v
//!      +--disconnected-- Closing <-----------------+        (a disconnect leads to Waiting from anywhere)
//! ```
//! A connection is proved once it has lasted and the peer has acknowledged something on it. Only that ends the
//! growth of the waits: there are peers, proxies above all, that take every connection and close it at once.

use crate::agent::Action;

const MILLISECOND_NS: u64 = 1_000_000;

/// First wait after a connection was lost: a collector that restarts is found again at once.
const BACKOFF_FIRST_NS: u64 = 200 * MILLISECOND_NS;

/// Longest wait between two tries. One packet in five seconds burdens nobody.
pub(crate) const BACKOFF_LAST_NS: u64 = 5_000 * MILLISECOND_NS;

/// How long a connection has to last, with something acknowledged, before it is trusted.
pub(crate) const PROOF_NS: u64 = 10_000 * MILLISECOND_NS;

/// A connection that ends sooner is taken for one whose bytes nobody read, though they were acknowledged.
const UNREAD_NS: u64 = 1_000 * MILLISECOND_NS;

/// Longest wait for a connection to come up.
const CONNECT_TIMEOUT_NS: u64 = 10_000 * MILLISECOND_NS;

/// Longest time in which the transport may take no byte although some wait.
const STALL_TIMEOUT_NS: u64 = 30_000 * MILLISECOND_NS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { until_ns: u64 },
    Connecting { deadline_ns: u64 },
    Connected { since_ns: u64, stalled_since_ns: Option<u64>, trust: Trust },
    Closing,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Nothing was acknowledged yet.
    None,
    /// Something was acknowledged; it has to last.
    Acknowledged,
    Proved,
}

/// The state machine. All times are of one monotonic clock, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Link {
    state: State,
    /// Connections lost and tries that failed since a connection was last proved.
    failures: u32,
}

impl Link {
    pub(crate) const fn new() -> Self {
        Self { state: State::Waiting { until_ns: 0 }, failures: 0 }
    }

    pub(crate) const fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    pub(crate) const fn is_connecting(&self) -> bool {
        matches!(self.state, State::Connecting { .. })
    }

    /// Since when the connection is up, if it is proved.
    pub(crate) const fn proved_since(&self) -> Option<u64> {
        match self.state {
            State::Connected { since_ns, trust: Trust::Proved, .. } => Some(since_ns),
            _ => None,
        }
    }

    /// Whether the connection is so young that nobody may have read what was sent on it, should it end now.
    pub(crate) const fn is_unread(&self, now_ns: u64) -> bool {
        matches!(self.state, State::Connected { since_ns, .. } if now_ns.saturating_sub(since_ns) < UNREAD_NS)
    }

    /// What the driver has to do now. `waiting`: whether bytes wait to be sent.
    pub(crate) fn poll_action(&mut self, now_ns: u64, waiting: bool) -> Action {
        self.prove(now_ns);
        match &mut self.state {
            State::Waiting { until_ns } if now_ns >= *until_ns => {
                self.state = State::Connecting { deadline_ns: now_ns.saturating_add(CONNECT_TIMEOUT_NS) };
                Action::Connect
            }
            State::Connecting { deadline_ns } if now_ns >= *deadline_ns => self.close(),
            State::Connected { stalled_since_ns, .. } => match (waiting, *stalled_since_ns) {
                (false, _) => {
                    *stalled_since_ns = None;
                    Action::None
                }
                (true, None) => {
                    *stalled_since_ns = Some(now_ns);
                    Action::None
                }
                (true, Some(since)) if now_ns >= since.saturating_add(STALL_TIMEOUT_NS) => self.close(),
                (true, Some(_)) => Action::None,
            },
            _ => Action::None,
        }
    }

    pub(crate) const fn handle_connected(&mut self, now_ns: u64) {
        self.state = State::Connected { since_ns: now_ns, stalled_since_ns: None, trust: Trust::None };
    }

    /// The peer acknowledged something.
    pub(crate) const fn handle_acknowledged(&mut self) {
        if let State::Connected { trust: trust @ Trust::None, .. } = &mut self.state {
            *trust = Trust::Acknowledged;
        }
    }

    fn prove(&mut self, now_ns: u64) {
        if let State::Connected { since_ns, trust: trust @ Trust::Acknowledged, .. } = &mut self.state
            && now_ns >= since_ns.saturating_add(PROOF_NS)
        {
            *trust = Trust::Proved;
            self.failures = 0;
        }
    }

    /// The transport took some bytes.
    pub(crate) const fn handle_progress(&mut self) {
        if let State::Connected { stalled_since_ns, .. } = &mut self.state {
            *stalled_since_ns = None;
        }
    }

    /// The connection is gone, or did not come up. `random` spreads the next try over the second half of the wait,
    /// so that guests do not come back all at once.
    pub(crate) fn handle_disconnected(&mut self, now_ns: u64, random: u32) {
        let wait = (BACKOFF_FIRST_NS << self.failures.min(16)).min(BACKOFF_LAST_NS);
        let half = wait / 2;
        let jitter = (half * u64::from(random)) >> 32;
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until_ns: now_ns.saturating_add(half + jitter) };
    }

    /// When [`poll_action`](Self::poll_action) is to be called again if nothing else happens.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        match self.state {
            State::Waiting { until_ns } => Some(until_ns),
            State::Connecting { deadline_ns } => Some(deadline_ns),
            State::Connected { since_ns, stalled_since_ns, trust } => {
                let stall = stalled_since_ns.map(|since| since.saturating_add(STALL_TIMEOUT_NS));
                let proof = (trust == Trust::Acknowledged).then(|| since_ns.saturating_add(PROOF_NS));
                stall.into_iter().chain(proof).min()
            }
            State::Closing => None,
        }
    }

    const fn close(&mut self) -> Action {
        self.state = State::Closing;
        Action::Close
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_a_cap_and_shrink_again_after_a_connection_that_is_proved() {
        let mut link = Link::new();
        let mut waits = alloc::vec::Vec::new();
        for _ in 0..7 {
            link.handle_disconnected(0, u32::MAX);
            waits.push(link.next_deadline().expect("waiting") / (MILLISECOND_NS * 10) + 1);
        }
        assert_eq!(waits, [20, 40, 80, 160, 320, 500, 500]);
        link.handle_connected(0);
        link.handle_acknowledged();
        assert_eq!(link.next_deadline(), Some(PROOF_NS));
        link.poll_action(PROOF_NS, false);
        assert_eq!((link.proved_since(), link.next_deadline()), (Some(0), None));
        link.handle_disconnected(PROOF_NS, 0);
        assert_eq!(link.next_deadline(), Some(PROOF_NS + BACKOFF_FIRST_NS / 2));
    }

    #[test]
    fn a_connection_on_which_nothing_is_acknowledged_proves_nothing() {
        let mut link = Link::new();
        link.handle_disconnected(0, 0);
        link.handle_connected(0);
        assert_eq!((link.next_deadline(), link.poll_action(2 * PROOF_NS, false)), (None, Action::None));
        assert_eq!(link.proved_since(), None);
        link.handle_disconnected(2 * PROOF_NS, 0);
        assert_eq!(link.next_deadline(), Some(2 * PROOF_NS + BACKOFF_FIRST_NS));
    }

    #[test]
    fn a_connection_that_does_not_come_up_is_closed() {
        let mut link = Link::new();
        assert_eq!(link.poll_action(5, true), Action::Connect);
        assert_eq!(link.poll_action(5, true), Action::None);
        let deadline = link.next_deadline().expect("timeout");
        assert_eq!(link.poll_action(deadline, true), Action::Close);
        assert_eq!(link.poll_action(deadline, true), Action::None);
    }

    #[test]
    fn a_connection_that_takes_nothing_is_closed() {
        let mut link = Link::new();
        link.handle_connected(0);
        assert_eq!(link.poll_action(0, true), Action::None);
        link.handle_progress();
        assert_eq!(link.poll_action(STALL_TIMEOUT_NS, true), Action::None);
        assert_eq!(link.poll_action(2 * STALL_TIMEOUT_NS, true), Action::Close);
    }

    proptest! {
        /// However briefly or long the connections of a peer last that are never proved, tries become rare.
        #[test]
        fn connections_that_end_early_make_the_waits_grow(
            lives in prop::collection::vec((0_u64..PROOF_NS, any::<bool>(), any::<u32>()), 6..40),
        ) {
            let mut link = Link::new();
            let mut now = 0;
            for (n, (life, acknowledged, random)) in (0_u32..).zip(lives) {
                link.handle_connected(now);
                if acknowledged {
                    link.handle_acknowledged();
                }
                now += life;
                link.handle_disconnected(now, random);
                let until = link.next_deadline().expect("waiting");
                let least = (BACKOFF_FIRST_NS << n.min(16)).min(BACKOFF_LAST_NS) / 2;
                prop_assert!(until - now >= least, "try {n}: {} ns", until - now);
                now = until;
            }
        }

        #[test]
        fn a_wait_is_between_half_and_all_of_its_step(failures in 0_u32..40, random: u32) {
            let mut link = Link::new();
            (0..failures).for_each(|_| link.handle_disconnected(0, 0));
            link.handle_disconnected(0, random);
            let until = link.next_deadline().expect("waiting");
            prop_assert!((BACKOFF_FIRST_NS / 2..=BACKOFF_LAST_NS).contains(&until));
        }
    }
}
