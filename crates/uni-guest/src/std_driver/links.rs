//! The network links of the machine, as they come.
//!
//! Owns which links have a source. Never reports: the sources do.

use std::string::String;
use std::vec::Vec;

use crate::machine::{busy_links, register_link};
use crate::metrics::Registry;

/// Links that are reported; those beyond are not.
const MAX_LINKS: usize = 32;
/// How often new ones are looked for.
const LOOK_NS: u64 = 10_000_000_000;

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Links {
    known: Vec<String>,
    next_look_ns: u64,
}

impl Links {
    /// Registers those that have carried something since the last look, if it was a while ago. They are reported with
    /// the next round.
    pub(super) fn look(&mut self, registry: &mut Registry, now_ns: u64) {
        if now_ns < self.next_look_ns {
            return;
        }
        self.next_look_ns = now_ns + LOOK_NS;
        for name in busy_links(&read_dev()) {
            if self.known.len() < MAX_LINKS && !self.known.iter().any(|known| known == name) {
                self.known.push(name.into());
                register_link(registry, name, read_dev);
            }
        }
    }
}

fn read_dev() -> String {
    std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default()
}
