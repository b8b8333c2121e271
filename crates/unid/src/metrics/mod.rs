//! What `/metrics` shows: the registry, and those who fill it at each scrape.
//!
//! A scrape reads memory only: VM states, the sampler's newest samples, counters; what costs a system call is read by
//! pollers beforehand. Owns no route (that is `http::metrics`) and counts nothing itself but what has no other home.
//! Every metric is listed once in `schema/prometheus.toml`, and is there from the first scrape, used or not.

mod daemon;
mod exposition;
mod lifecycle;
mod logs;
mod polled;
mod vms;

use std::sync::{Mutex, PoisonError};

pub(crate) use self::daemon::{Sources, register};
pub(crate) use self::exposition::{Family, Format};
pub(crate) use self::lifecycle::{Lifecycle, Transition};
pub(crate) use self::polled::{Polled, poll_host, poll_vms};

type Collector = Box<dyn Fn(&mut Vec<Family>) + Send + Sync>;

/// All who have something to show.
#[derive(Default)]
pub(crate) struct Registry(Mutex<Vec<Collector>>);

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// Shows a counter, which `read` reads at each scrape, most often from an atomic. The name begins with `uni_` and
    /// ends in `_total`.
    pub(crate) fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.collector(move |families| families.push(Family::counter(name, help).with(&[], read())));
    }

    /// Shows a gauge in the same way.
    pub(crate) fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.collector(move |families| families.push(Family::gauge(name, help).with(&[], read())));
    }

    /// Shows whatever `collect` adds: for families with labels.
    pub(crate) fn collector(&self, collect: impl Fn(&mut Vec<Family>) + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(collect));
    }

    /// The metrics of this moment.
    pub(crate) fn render(&self, format: Format) -> String {
        let mut families = Vec::new();
        for collect in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            collect(&mut families);
        }
        exposition::render(&families, format)
    }
}

/// A duration's nanoseconds, summed up in an atomic, as seconds.
#[expect(clippy::cast_precision_loss, reason = "a quarter of a microsecond is lost after 26 days")]
pub(crate) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
