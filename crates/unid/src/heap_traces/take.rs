//! Taking one trace: the guest's rate, the connection, and the bytes' way into a file.
//!
//! Owns when a trace ends: when its time is over, it is stopped, nobody reads it, it is long enough, or the guest is gone.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use uni_api::heap_trace::{MAX_BYTES, PORT, TraceEnd};
use uni_memtrace::Naming;

use super::{Running, Wish, files};
use crate::control_port::{Guest, sampling};
use crate::management::control::Fault;
use crate::management::stream::{self, Orders, Piece};
use crate::vms::Vm;

/// The guest's first word comes within this.
const FIRST_TIME: Duration = Duration::from_secs(8);
/// A trace without a time ends when it was not asked for so long.
const UNREAD_TIME: Duration = Duration::from_secs(30);
/// So much before the most that is kept, the guest is told to end: what it still has to say fits.
const SPARE_BYTES: u64 = 2 * 1024 * 1024;
/// Each packet begins so.
const MAGIC: [u8; 4] = 0xC1FC_1FC1_u32.to_le_bytes();
/// As much of a refusal as is shown.
const SHOWN_CHARS: usize = 200;

/// A trace under way.
struct Taking {
    vm: Arc<Vm>,
    link: Orders,
    pieces: mpsc::Receiver<Piece>,
    naming: Naming,
    file: File,
    until: Option<Instant>,
    ending: Option<&'static str>,
    running: Arc<Running>,
}

/// Whoever leaves without an end leaves a trace that is cut.
struct Place(Arc<Running>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.progress(|seen| {
            seen.end.get_or_insert_with(|| TraceEnd { whole: false, why: "it did not begin".to_owned() });
        });
    }
}

/// Begins a trace and leaves it to itself. `running` is over when it fails.
///
/// # Errors
/// When the guest gives none.
pub(super) async fn begin(vm: Arc<Vm>, wish: Wish, running: Arc<Running>) -> anyhow::Result<()> {
    let place = Place(Arc::clone(&running));
    let taking = with_rate(vm, wish, running).await?;
    tracing::info!(
        vm = taking.vm.name(),
        trace = taking.running.name,
        by = taking.running.by,
        "heap trace begun"
    );
    taking.running.figures.taken.fetch_add(1, Relaxed);
    tokio::spawn(async move {
        let _place = place;
        let (vm, figures) = (Arc::clone(&taking.vm), Arc::clone(&taking.running.figures));
        let guest = Guest::of(vm);
        let (before, ()) = tokio::join!(sampling::dropped_events(&guest), taking.run());
        if let Some(before) = before
            && let Some(after) = sampling::dropped_events(&guest).await
        {
            figures.dropped_events.fetch_add(after.saturating_sub(before), Relaxed);
        }
    });
    Ok(())
}

/// Sets the guest's rate for as long as it takes to begin: a trace that runs keeps its own.
async fn with_rate(vm: Arc<Vm>, wish: Wish, running: Arc<Running>) -> anyhow::Result<Taking> {
    let Some(rate) = wish.rate else { return connect(vm, &wish, running).await };
    let guest = Guest::of(Arc::clone(&vm)).with_token(wish.token.clone())?;
    let by = running.by.clone();
    let before = sampling::rate(&guest).await.context("set the rate")?;
    sampling::set_rate(&guest, rate, &by).await.context("set the rate")?;
    let connected = connect(vm, &wish, running).await;
    if let Err(error) = sampling::set_rate(&guest, before, "unid, the heap trace has its rate").await {
        tracing::warn!(err = format!("{error:#}"), "a guest keeps the rate of a heap trace");
    }
    connected
}

async fn connect(vm: Arc<Vm>, wish: &Wish, running: Arc<Running>) -> anyhow::Result<Taking> {
    let link = vm.streams().with_context(|| format!("it is {}; only a running VM has one", vm.state()))?;
    let mut pieces = stream::open(&link, port_of(vm.arguments()))?;
    let first = match timeout(FIRST_TIME, pieces.recv()).await {
        Err(_) => Err(Fault::Late),
        Ok(None) => Err(Fault::Broken),
        Ok(Some(Piece::End)) => Err(Fault::Silent),
        Ok(Some(Piece::Failed(fault))) => Err(fault),
        Ok(Some(Piece::Bytes(bytes))) => Ok(bytes),
    };
    let first = first.map_err(explained)?;
    if !first.iter().zip(MAGIC).all(|(byte, wanted)| *byte == wanted) {
        let said: String = String::from_utf8_lossy(&first).trim().chars().take(SHOWN_CHARS).collect();
        bail!("the guest says {said:?} instead of a trace");
    }
    let (dir, name) = (vm.heap_traces(), running.name.clone());
    let file = tokio::task::spawn_blocking(move || files::create(&dir, &name)).await?;
    let file = file.with_context(|| format!("make its file in {}", vm.heap_traces().display()))?;
    let of = Arc::clone(&vm);
    let naming = Naming::new(Box::new(move |address| of.frames(address).into_iter().map(place).collect()));
    let until = wish.time.map(|time| Instant::now() + time);
    let mut taking = Taking { vm, link, pieces, naming, file, until, ending: None, running };
    taking.keep(&first).map_err(|why| anyhow!("what the guest sends is no trace: {why}"))?;
    Ok(taking)
}

/// A place of the image as the trace has it.
fn place(frame: uni_vmm::symbols::Frame) -> uni_memtrace::Frame {
    let uni_vmm::symbols::Frame { function, file, line } = frame;
    uni_memtrace::Frame { function, file, line }
}

fn explained(fault: Fault) -> anyhow::Error {
    match fault {
        Fault::Refused(_) | Fault::Late => anyhow!(
            "{fault}; only a guest that links uni-guest with its heap gives traces there, unless it was started with \
             --memtrace-port=0; one that gives them elsewhere is named by --addr HOST:PORT"
        ),
        _ => fault.into(),
    }
}

/// The port that a guest was told, the last one counts; what is none is the guest's to refuse.
fn port_of(arguments: &[String]) -> u16 {
    let mut port = PORT;
    for (at, argument) in arguments.iter().enumerate() {
        let told = match argument.strip_prefix("--memtrace-port") {
            Some("") => arguments.get(at + 1).map(String::as_str),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        port = told.and_then(|text| text.parse().ok()).filter(|port| *port != 0).unwrap_or(port);
    }
    port
}

impl Taking {
    async fn run(mut self) {
        let end = self.until_end().await;
        let (name, bytes) = (self.vm.name(), self.running.seen().bytes);
        let (whole, why) = (end.whole, end.why.as_str());
        tracing::info!(vm = name, trace = self.running.name, bytes, whole, why, "heap trace ended");
        let figures = &self.running.figures;
        figures.cut.fetch_add(u64::from(!whole), Relaxed);
        figures.over.fetch_add(1, Relaxed);
        self.running.progress(|seen| seen.end = Some(end));
    }

    async fn until_end(&mut self) -> TraceEnd {
        let cut = |why: String| TraceEnd { whole: false, why };
        loop {
            let look = self.next_look();
            tokio::select! {
                piece = self.pieces.recv() => match piece {
                    Some(Piece::Bytes(bytes)) => if let Err(why) = self.keep(&bytes) { return cut(why) },
                    Some(Piece::End) => {
                        let why = self.ending.unwrap_or("the guest ended it");
                        return TraceEnd { whole: true, why: why.to_owned() };
                    }
                    Some(Piece::Failed(fault)) => return cut(fault.to_string()),
                    None => return cut(Fault::Broken.to_string()),
                },
                () = self.running.stop.notified(), if self.ending.is_none() => self.finish("it was stopped"),
                () = sleep_until(look), if self.ending.is_none() => self.look(),
            }
        }
    }

    fn next_look(&self) -> Instant {
        self.until.unwrap_or_else(|| self.running.seen().read + UNREAD_TIME)
    }

    /// Ends it when that is due.
    fn look(&mut self) {
        if Instant::now() >= self.next_look() {
            self.finish(if self.until.is_some() { "its time is over" } else { "nobody reads it" });
        }
    }

    fn finish(&mut self, why: &'static str) {
        self.ending = Some(why);
        if let Err(fault) = stream::finish(&self.link) {
            // the link is gone, and so the pieces end
            tracing::debug!(vm = self.vm.name(), err = fault.to_string(), "end a heap trace");
        }
    }

    /// Writes what came to the file.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (naming, file) = (&mut self.naming, &mut self.file);
        let before = self.running.seen().bytes;
        let written = tokio::task::block_in_place(|| {
            let named =
                naming.feed(bytes).map_err(|fault| format!("the guest's trace is damaged {fault}"))?;
            let length = named.len() as u64;
            if before + length > MAX_BYTES {
                return Err(format!("it has {MAX_BYTES} bytes, the most that is kept"));
            }
            file.write_all(&named).map_err(|error| format!("it cannot be written: {error}"))?;
            Ok(length)
        })?;
        let events = naming.events();
        let figures = &self.running.figures;
        figures.bytes.fetch_add(written, Relaxed);
        figures.events.fetch_add(events.saturating_sub(self.running.seen().events), Relaxed);
        self.running.progress(|seen| (seen.bytes, seen.events) = (before + written, events));
        if self.ending.is_none() && before + written > MAX_BYTES - SPARE_BYTES {
            self.finish("it is as long as traces may be");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_one_that_the_guest_was_told() {
        let port = |arguments: &[&str]| {
            port_of(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(port(&["--interval=1"]), 4242);
        assert_eq!(port(&["--memtrace-port=9100", "--memtrace-port", "9200"]), 9200);
        assert_eq!(port(&["--memtrace-port=0", "--memtrace-ports=7"]), 4242);
    }
}
