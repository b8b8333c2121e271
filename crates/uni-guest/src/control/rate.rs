//! How many commands a second are taken, on all connections together.
//!
//! Owns the count of what may still come: a bucket of tokens (RFC 2697 calls it so), one for each command. Never reads
//! a clock and never refuses; who asks does.

/// Commands a second that are taken in the long run.
pub const COMMANDS_PER_SECOND: u32 = 64;

/// Commands that may come at once after a silence: two connections full of them.
const BURST: u32 = 2 * super::MAX_COMMANDS;

const SECOND_NS: u64 = 1_000_000_000;

/// What one command costs.
const COMMAND_NS: u64 = SECOND_NS / COMMANDS_PER_SECOND as u64;

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// When the bucket will be full, as far as it is not: every command moves this on by its cost.
    full_at_ns: u64,
}

impl Rate {
    /// Takes one command at the monotonic time `now_ns`; says whether there was room for it.
    pub(super) const fn admits(&mut self, now_ns: u64) -> bool {
        let from_ns = if self.full_at_ns > now_ns { self.full_at_ns } else { now_ns };
        let full_at_ns = from_ns.saturating_add(COMMAND_NS);
        let has_room = full_at_ns - now_ns <= BURST as u64 * COMMAND_NS;
        if has_room {
            self.full_at_ns = full_at_ns;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_is_taken_and_then_so_many_a_second() {
        let mut rate = Rate::default();
        let mut taken = |now_ns| (0..1000).filter(|_| rate.admits(now_ns)).count();
        assert_eq!(taken(0), BURST as usize);
        assert_eq!(taken(SECOND_NS), COMMANDS_PER_SECOND as usize);
        assert_eq!(taken(3600 * SECOND_NS), BURST as usize, "a long silence saves up no more than a burst");
    }

    proptest! {
        /// Whenever they come, in no stretch of time are more taken than a burst and the rate allow.
        #[test]
        fn no_stretch_of_time_has_more(pauses in prop::collection::vec(0..SECOND_NS, 1..400)) {
            let mut rate = Rate::default();
            let mut now_ns = 0;
            let mut taken_ns = std::vec::Vec::new();
            for pause in pauses {
                now_ns += pause / 64;
                if rate.admits(now_ns) {
                    taken_ns.push(now_ns);
                }
            }
            for (n, from) in taken_ns.iter().enumerate() {
                for (m, to) in taken_ns.iter().enumerate().skip(n) {
                    let most = u64::from(BURST) + (to - from) / COMMAND_NS;
                    prop_assert!((m - n) as u64 <= most, "{} within {} ns", m - n + 1, to - from);
                }
            }
        }
    }
}
