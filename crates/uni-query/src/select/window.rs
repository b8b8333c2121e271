//! Windows of `GROUP BY time(every, offset)`.
//!
//! Owns their alignment: to the epoch, moved by the offset. Windows include their start and not their end.

use crate::summary::Grid;

/// A grid of windows, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    every: i64,
    offset: i64,
}

impl Window {
    /// `every` is above zero, else there is no grid.
    pub(crate) fn new(every: i64, offset: i64) -> Option<Self> {
        (every > 0).then(|| Self { every, offset: offset.rem_euclid(every) })
    }

    pub(crate) fn every(self) -> i64 {
        self.every
    }

    pub(crate) const fn grid(self) -> Grid {
        Grid { every: self.every, offset: self.offset }
    }

    /// The start of the window that holds `time`; at the ends of the range of times, the end.
    pub(crate) fn start(self, time: i64) -> i64 {
        let time = i128::from(time);
        let start = time - (time - i128::from(self.offset)).rem_euclid(self.every.into());
        i64::try_from(start).unwrap_or(i64::MIN)
    }

    /// The start of the window after the one that starts at `start`.
    pub(crate) fn after(self, start: i64) -> i64 {
        start.saturating_add(self.every)
    }

    /// How many windows start from `first` to `last`, both of them starts.
    pub(crate) fn count(self, first: i64, last: i64) -> u128 {
        let span = i128::from(last) - i128::from(first);
        u128::try_from(span / i128::from(self.every) + 1).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn windows_start_at_multiples_of_their_length_moved_by_the_offset() {
        let window = |every, offset| Window::new(every, offset).expect("above zero");
        assert_eq!(window(10, 0).start(25), 20);
        assert_eq!(window(10, 0).start(-1), -10);
        assert_eq!(window(10, 3).start(22), 13);
        assert_eq!(window(10, -3).start(27), 27);
        assert_eq!(window(10, 0).count(0, 20), 3);
        assert_eq!(Window::new(0, 0), None);
    }

    proptest! {
        #[test]
        fn every_time_is_in_its_window(time in any::<i64>(), every in 1..i64::MAX, offset in any::<i64>()) {
            let window = Window::new(every, offset).expect("above zero");
            let start = window.start(time);
            prop_assert!(start <= time);
            prop_assert!(i128::from(time) - i128::from(start) < i128::from(every));
        }
    }
}
