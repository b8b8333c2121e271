//! How often VMs were created, started, stopped, killed and removed since the daemon started.
//!
//! Owns the counter `uni_vm_lifecycle_total`. What counts as success is decided where it happens, in `vms`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Family;

/// What happened to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// It was registered and recorded.
    Create,
    /// Its QEMU runs.
    Start,
    /// An operator's graceful stop is completed.
    Stop,
    /// An operator's kill is completed.
    Kill,
    /// It was removed.
    Remove,
}

impl Transition {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Create, "create"),
        (Self::Start, "start"),
        (Self::Stop, "stop"),
        (Self::Kill, "kill"),
        (Self::Remove, "remove"),
    ];
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle([AtomicU64; Transition::ALL.len()]);

impl Lifecycle {
    /// Counts a transition that succeeded.
    pub(crate) fn count(&self, transition: Transition) {
        self.0[transition as usize].fetch_add(1, Relaxed);
    }

    /// All of them, those that never happened too.
    pub(super) fn family(&self) -> Family {
        let mut family = Family::counter(
            "uni_vm_lifecycle_total",
            "Transitions of VMs that succeeded since unid started, by event: create, start, stop, kill, remove.",
        );
        for (transition, event) in Transition::ALL {
            family.add(&[("event", event)], self.0[transition as usize].load(Relaxed));
        }
        family
    }
}
