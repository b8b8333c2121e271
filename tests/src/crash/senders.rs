//! Programs that write to `unid` as fast as it acknowledges.
//!
//! Owns what they send. A body has a number, and what is in it follows from that number and from who sends it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail, ensure};

use super::mix;
use crate::Daemon;

/// Who writes at one time.
pub(crate) const SENDERS: usize = 4;
/// The time of body 0, nanoseconds.
const START: u64 = 1_700_000_000_000_000_000;
/// From one body to the next: so a day, which is a partition, is full after some rounds.
const STEP: u64 = 20_000_000_000;

/// How many rows a body has, each of a series of its own.
pub(crate) const fn rows_of(sender: usize, body: u64) -> u64 {
    1 + mix(body << 8 | sender as u64) % 40
}

/// The time of the rows of a body, nanoseconds.
pub(crate) const fn time_of(body: u64) -> u64 {
    START + body * STEP
}

/// The body whose rows have this time.
pub(crate) const fn body_at(time: u64) -> u64 {
    time.saturating_sub(START) / STEP
}

fn text_of(sender: usize, body: u64) -> String {
    let mut text = String::new();
    for row in 0..rows_of(sender, body) {
        let noise = mix(body << 20 | row << 8 | sender as u64);
        let _ = writeln!(
            text,
            "crash,sender={sender},row={row} body={body}i,noise=\"{noise:016x}{:016x}\" {}",
            mix(noise),
            time_of(body)
        );
    }
    text
}

/// Writes so much that the log is full: within a second it is packed into segments.
pub(crate) fn fill_log(daemon: &Daemon, body: u64) -> anyhow::Result<()> {
    let (long, time) = ("x".repeat(30_000), time_of(body));
    let lines = (0..600).map(|row| format!("filler,row={row} text=\"{body} {long}\" {time}\n"));
    let url = format!("http://{}/write?db=uni&precision=ns", daemon.address("api")?);
    let answer = ureq::post(&url).send(lines.collect::<String>())?;
    ensure!(answer.status() == 204, "filling the log: {}", answer.status());
    Ok(())
}

/// What the senders of one round have sent: for each the first body of the round, and how many were acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) first: [u64; SENDERS],
    pub(crate) acknowledged: [u64; SENDERS],
}

/// Senders at work.
#[derive(Debug)]
pub(crate) struct Senders {
    first: [u64; SENDERS],
    acknowledged: Arc<[AtomicU64; SENDERS]>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Senders {
    /// Each begins with the body of the number given.
    pub(crate) fn start(daemon: &Daemon, first: [u64; SENDERS]) -> anyhow::Result<Self> {
        let url = format!("http://{}/write?db=uni&precision=ns", daemon.address("api")?);
        let acknowledged: Arc<[AtomicU64; SENDERS]> = Arc::default();
        let threads = (0..SENDERS).map(|sender| {
            let (url, acknowledged) = (url.clone(), Arc::clone(&acknowledged));
            std::thread::spawn(move || send(sender, &url, first[sender], &acknowledged[sender]))
        });
        Ok(Self { first, threads: threads.collect(), acknowledged })
    }

    /// Waits until all have noticed that `unid` is gone.
    pub(crate) fn end(self) -> anyhow::Result<Sent> {
        for thread in self.threads {
            thread.join().ok().context("a sender panicked")??;
        }
        let acknowledged = std::array::from_fn(|sender| self.acknowledged[sender].load(Ordering::SeqCst));
        Ok(Sent { first: self.first, acknowledged })
    }
}

/// Sends until the connection ends. An answer that is no acknowledgement is a fault.
fn send(sender: usize, url: &str, first: u64, acknowledged: &AtomicU64) -> anyhow::Result<()> {
    let agent = ureq::Agent::new_with_defaults();
    for body in first.. {
        match agent.post(url).send(text_of(sender, body)) {
            Ok(answer) if answer.status() == 204 => acknowledged.fetch_add(1, Ordering::SeqCst),
            Ok(answer) => bail!("body {body} of sender {sender}: {}", answer.status()),
            Err(ureq::Error::StatusCode(status)) => bail!("body {body} of sender {sender}: {status}"),
            Err(_) => return Ok(()),
        };
    }
    Ok(())
}
