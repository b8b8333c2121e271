//! A real `rsyslogd`, started by hand with a configuration of its own.
//!
//! Owns the process; it ends with it. Never touches the system's own log.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context as _, ensure};

use crate::eventually;

/// A running `rsyslogd`, killed when dropped.
#[derive(Debug)]
pub struct Rsyslogd {
    child: Child,
    dir: PathBuf,
}

impl Rsyslogd {
    /// Starts one in `dir` with `config` (RainerScript; `DIR` in it stands for its directory) and waits until it runs.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path, config: &str) -> anyhow::Result<Self> {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let dir = dir.join(format!("rsyslog{}", STARTED.fetch_add(1, Relaxed)));
        std::fs::create_dir(&dir)?;
        let (file, pid) = (dir.join("rsyslog.conf"), dir.join("pid"));
        let at = dir.display().to_string();
        std::fs::write(&file, format!("global(workDirectory=\"{at}\")\n{}", config.replace("DIR", &at)))?;
        // no fork (-n), no file in /run (-i)
        let child = Command::new("rsyslogd")
            .arg("-n")
            .arg("-f")
            .arg(&file)
            .arg("-i")
            .arg(&pid)
            .stdin(Stdio::null())
            .spawn()
            .context("start rsyslogd (Debian package rsyslog)")?;
        let mut this = Self { child, dir };
        eventually("rsyslogd to run", || {
            ensure!(this.child.try_wait()?.is_none(), "it has ended; its configuration: {config}");
            ensure!(pid.exists(), "no {}", pid.display());
            Ok(())
        })?;
        Ok(this)
    }

    /// What it has written into `file` of its directory so far.
    #[must_use]
    pub fn written(&self, file: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join(file)).unwrap_or_default()).into_owned()
    }
}

impl Drop for Rsyslogd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
