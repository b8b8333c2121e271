//! The names of addresses: those that a dying guest prints, and those of a heap trace.
//!
//! Owns the symbols of one VM's image, read when the first is asked for and let go when none has been for a
//! while. Never changes the console as it is kept.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use uni_vmm::symbols::{Frame, Symbols};
use uni_vmm::trace;
use uni_wire::Timestamp;

/// Symbols take about as much memory as the twin's file: they are kept this long after their last use.
const IDLE: Duration = Duration::from_secs(60);

/// The symbols of one VM, if they are in use.
#[derive(Debug)]
pub(super) struct Traces {
    image: PathBuf,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    /// Without symbols: there is no twin, or none that fits.
    symbols: Option<Symbols>,
    used: Instant,
    /// The start of the VM that these symbols are right for.
    started: Option<Timestamp>,
}

impl Traces {
    pub(super) fn new(image: &Path) -> Arc<Self> {
        Arc::new(Self { image: image.to_owned(), held: Mutex::default() })
    }

    /// `text` with the addresses in it named, as far as the image of a VM that was started at `started` has names.
    /// Reads files. Without a runtime the symbols stay.
    pub(super) fn name(self: &Arc<Self>, vm_id: &str, started: Option<Timestamp>, text: &str) -> String {
        let named = |symbols: &Symbols| trace::name_addresses(text, |address| symbols.resolve(address));
        self.with_symbols(vm_id, started, named).unwrap_or_else(|| text.to_owned())
    }

    /// The places of an address, innermost first; none that is not known. Otherwise as [`name`](Self::name).
    pub(super) fn frames(
        self: &Arc<Self>,
        vm_id: &str,
        started: Option<Timestamp>,
        address: u64,
    ) -> Vec<Frame> {
        self.with_symbols(vm_id, started, |symbols| symbols.resolve(address)).unwrap_or_default()
    }

    fn with_symbols<T>(
        self: &Arc<Self>,
        vm_id: &str,
        started: Option<Timestamp>,
        ask: impl FnOnce(&Symbols) -> T,
    ) -> Option<T> {
        let mut place = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = match place.take() {
            Some(held) if held.started == started => place.insert(held),
            _ => {
                self.let_go_later();
                place.insert(Held { symbols: self.load(vm_id, started), used: Instant::now(), started })
            }
        };
        held.used = Instant::now();
        held.symbols.as_ref().map(ask)
    }

    fn load(&self, vm_id: &str, started: Option<Timestamp>) -> Option<Symbols> {
        let loaded = is_as_started(&self.image, started)
            .and_then(|()| Symbols::load(&self.image).map_err(anyhow::Error::new));
        match loaded {
            Ok(symbols) => symbols,
            Err(error) => {
                tracing::warn!(vm_id, err = format!("{error:#}"), "a stack trace stays without names");
                None
            }
        }
    }

    /// Forgets the symbols once they have been idle.
    fn let_go_later(self: &Arc<Self>) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(let_go(Arc::downgrade(self)));
        }
    }

    /// Forgets symbols that were last used `idle` ago; says how long to wait else, nothing if there are none.
    fn let_go(&self, idle: Duration) -> Option<Duration> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = held.as_ref()?.used.elapsed();
        if unused < idle {
            return Some(idle - unused);
        }
        *held = None;
        None
    }
}

/// Waits until the symbols are idle. A VM that is removed takes them with it.
async fn let_go(traces: Weak<Traces>) {
    let mut wait = IDLE;
    loop {
        tokio::time::sleep(wait).await;
        match traces.upgrade().and_then(|traces| traces.let_go(IDLE)) {
            Some(longer) => wait = longer,
            None => return,
        }
    }
}

/// An image built anew under a running VM has other addresses than the one it booted. What puts a file in its place
/// sets its change time (inode(7)), which no program can set to what it likes.
fn is_as_started(image: &Path, started: Option<Timestamp>) -> anyhow::Result<()> {
    let Some(started) = started else { return Ok(()) };
    let metadata = std::fs::metadata(image).with_context(|| format!("look at {}", image.display()))?;
    let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
    ensure!(
        changed <= i128::from(started.nanos()),
        "{} was changed after the VM was started; names would be those of another program",
        image.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds_from_now: i64) -> Option<Timestamp> {
        Some(Timestamp(crate::clock::now().nanos() + seconds_from_now * 1_000_000_000))
    }

    #[test]
    fn an_image_changed_since_the_start_is_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("web.elf");
        assert!(is_as_started(&image, at(0)).is_err());
        std::fs::write(&image, "image").unwrap();
        assert!(is_as_started(&image, at(10)).is_ok() && is_as_started(&image, None).is_ok());
        assert!(is_as_started(&image, at(-10)).is_err());
    }

    #[test]
    fn what_cannot_be_named_is_shown_as_it_is_and_tried_again_after_a_new_start() {
        let traces = Traces::new(Path::new("/nowhere/web.elf"));
        let text = "stack 0x10\n";
        for started in [None, at(0), at(1)] {
            assert_eq!(traces.name("0", started, text), text);
            assert_eq!(traces.held.lock().unwrap().as_ref().unwrap().started, started);
        }
    }

    #[test]
    fn symbols_are_let_go_when_idle() {
        let traces = Traces::new(Path::new("/nowhere/web.elf"));
        assert_eq!(traces.let_go(IDLE), None);
        traces.name("0", None, "stack 0x10\n");
        assert!(traces.let_go(IDLE).is_some_and(|wait| wait <= IDLE));
        assert!(traces.held.lock().unwrap().is_some());
        assert_eq!(traces.let_go(Duration::ZERO), None);
        assert!(traces.held.lock().unwrap().is_none());
    }
}
