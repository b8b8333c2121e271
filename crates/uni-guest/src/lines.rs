//! The reporter that writes line protocol.
//!
//! Owns the form of a line: the tag `vm`, then the source's tags; one time stamp a round. Never sends or keeps: lines
//! go to the agent's ring, or whatever the caller has.

use alloc::string::String;
use core::fmt;

use uni_wire::Timestamp;
use uni_wire::line::LineWriter;

use crate::report::{Lost, Point, Reporter, Rounds, Tags};

/// Longest line one source may make, newline included.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// What is kept from one round to the next.
#[derive(Debug, Default)]
pub(crate) struct LineState {
    scratch: Scratch,
    rounds: Rounds,
}

/// Hands each line to `each`, newline included.
pub(crate) struct Lines<'a, F> {
    pub(crate) vm: &'a str,
    pub(crate) time: Timestamp,
    pub(crate) state: &'a mut LineState,
    pub(crate) each: F,
}

impl<F: FnMut(&[u8])> Reporter for Lines<'_, F> {
    fn now(&self) -> Timestamp {
        self.time
    }

    fn report(&mut self, point: &mut Point<'_>, time: Timestamp) -> Result<(), Lost> {
        let LineState { scratch, rounds } = &mut *self.state;
        scratch.0.clear();
        let tags = LineTags { vm: Some(self.vm), rest: point.tags() };
        let mut line = LineWriter::new(scratch, point.name(), tags);
        let (mut written, mut key) = (Ok(()), String::new());
        point.read(|reading| {
            reading.sample.expand(rounds, |suffix, value| {
                key.clear();
                key.push_str(reading.key);
                key.push_str(suffix);
                written = written.and_then(|()| line.field(&key, value));
            });
        });
        written?;
        if line.finish(Some(time))? {
            (self.each)(scratch.0.as_bytes());
        }
        Ok(())
    }
}

/// The tag `vm`, then those of the source.
#[derive(Clone, Debug)]
struct LineTags<'a> {
    vm: Option<&'a str>,
    rest: Tags<'a>,
}

impl<'a> Iterator for LineTags<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        match self.vm.take() {
            Some(vm) => Some(("vm", vm)),
            None => self.rest.next(),
        }
    }
}

/// Room for one line, reused; a line that does not fit is refused.
#[derive(Debug, Default)]
struct Scratch(String);

impl fmt::Write for Scratch {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_LINE_BYTES || self.0.try_reserve(text.len()).is_err() {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}
