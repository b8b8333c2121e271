//! The demo's visitors: a few requests a second to each web server, of every kind it answers.
//!
//! Owns its threads and their count of answers. Bounded in rate; ends when told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is asked for, in turn: mostly pages, now and then something slow, failing, hungry or missing.
const PATHS: [&str; 12] =
    ["/", "/about", "/", "/status", "/", "/slow", "/", "/alloc", "/", "/missing", "/", "/fail"];
/// Between two requests of one visitor.
const PAUSE: Duration = Duration::from_millis(60);
/// A guest that does not answer by then has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One visitor of one web server.
#[derive(Debug)]
pub(crate) struct Visitor {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Visitor {
    /// Starts asking the server on `port` of the loopback.
    pub(crate) fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (answers, failures) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (stopped, answered, failed) = (Arc::clone(&stop), Arc::clone(&answers), Arc::clone(&failures));
        let thread = std::thread::spawn(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(TIMEOUT))
                .build()
                .into();
            for path in PATHS.iter().cycle() {
                if stopped.load(Relaxed) {
                    return;
                }
                let answer = agent.get(format!("http://127.0.0.1:{port}{path}")).call();
                let read = answer.and_then(|mut answer| answer.body_mut().read_to_vec());
                let counter = if read.is_ok() { &answered } else { &failed };
                counter.fetch_add(1, Relaxed);
                std::thread::sleep(PAUSE);
            }
        });
        Self { stop, answers, failures, thread }
    }

    /// Answers so far.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Relaxed)
    }

    /// Requests without an answer so far.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Ends the visitor and waits for it.
    pub(crate) fn stop(self) {
        self.stop.store(true, Relaxed);
        let _ = self.thread.join();
    }
}
