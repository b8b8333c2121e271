//! How other threads get the agent's thread out of its sleep.
//!
//! Owns a pair of sockets and whether the bell has been rung already. Ringing never waits: a bell that rings is not
//! rung again.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module's page.
#[derive(Debug)]
pub(super) struct Wake {
    rung: AtomicBool,
    stop: AtomicBool,
    bell: UnixStream,
    ear: UnixStream,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok(Self { rung: AtomicBool::new(false), stop: AtomicBool::new(false), bell, ear })
    }

    /// What to poll for input.
    pub(super) const fn ear(&self) -> &UnixStream {
        &self.ear
    }

    /// Something is to be looked at. To be called after it was put where the thread looks.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Full only when it is ringing.
            let _ = (&self.bell).write(&[0]);
        }
    }

    /// Silences the bell. To be called before looking.
    pub(super) fn hear(&self) {
        let mut bytes = [0; 8];
        while (&self.ear).read(&mut bytes).is_ok_and(|bytes| bytes > 0) {}
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// The program is about to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}
