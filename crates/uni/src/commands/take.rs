//! `uni memtrace VM`: a heap trace of a running guest into a file.
//!
//! Owns the file, the progress, and the wish to end: Ctrl-C asks the guest for what it still holds, so that the file is
//! whole. From a VM the trace comes through the daemon; from an address straight ([`direct`](super::direct)).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use uni_api::daemon::Done;
use uni_api::heap_trace::{ReadParams, StartParams, Started, TraceEnd, TracePiece, TraceRef};
use uni_api::rpc::method;

use super::guest_control::read_token;
use crate::args::{Format, TakeArgs};
use crate::client::{ANSWER_WAIT, Client};
use crate::output;
use crate::render::bytes;
use crate::text::one_line;

/// Between two looks whether Ctrl-C was pressed.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// Takes a trace.
///
/// # Errors
/// What failed; what had come by then is kept and named.
pub(super) fn run(client: &mut Client, args: &TakeArgs, format: Format) -> anyhow::Result<()> {
    let Some(path) = args.file.as_deref() else {
        bail!("say where the trace goes: -o FILE, or -o - for stdout");
    };
    ensure!(args.vm.is_some() != args.addr.is_some(), "name either a VM or an address (--addr HOST:PORT)");
    ensure!(
        args.token_file.is_none() || args.rate.is_some(),
        "--token-file is for --rate; a trace itself wants no token"
    );
    ensure!(
        args.addr.is_none() || args.rate.is_none(),
        "--rate is for VMs of the daemon; how much a guest at an address samples, only that guest can be told"
    );
    let stop = Stop::watch()?;
    let mut sink = Sink::create(path)?;
    let taken = match &args.addr {
        Some(address) => super::direct::take(address, args.time, &stop, &mut sink),
        None => through_daemon(client, args, &stop, &mut sink),
    };
    let end = match taken {
        Ok(end) => end,
        Err(error) => return Err(sink.cut(error)),
    };
    if !end.whole {
        return Err(sink.cut(anyhow::anyhow!("the trace is cut: {}", one_line(&end.why))));
    }
    sink.finish(&end, format)
}

fn through_daemon(
    client: &mut Client,
    args: &TakeArgs,
    stop: &Stop,
    sink: &mut Sink,
) -> anyhow::Result<TraceEnd> {
    let for_ms = args.time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let id = args.vm.clone().unwrap_or_default();
    let params = StartParams { id, rate: args.rate, for_ms, token };
    let Started { id, name, .. } = client.call(method::VM_TRACE_START, &params, ANSWER_WAIT)?;
    let mut told = false;
    let mut from = 0;
    loop {
        if stop.is_wanted() && !told {
            told = true;
            let this = TraceRef { id: id.clone(), name: name.clone() };
            let _: Done = client.call(method::VM_TRACE_STOP, &this, ANSWER_WAIT)?;
        }
        let wait_ms = u64::try_from(LOOK.as_millis()).unwrap_or_default();
        let params = ReadParams { id: id.clone(), name: name.clone(), from, wait_ms };
        let piece: TracePiece = client.call(method::VM_TRACE_READ, &params, ANSWER_WAIT)?;
        let data = STANDARD.decode(&piece.data).context("the daemon's answer is no base64")?;
        if let Err(error) = sink.take(&data, piece.events) {
            let this = TraceRef { id, name };
            // it cannot be kept: the guest need not go on
            let _: Result<Done, _> = client.call(method::VM_TRACE_STOP, &this, ANSWER_WAIT);
            return Err(error);
        }
        from = piece.next;
        if let Some(end) = piece.end {
            return Ok(end);
        }
    }
}

/// The wish to end; a second one ends the program.
#[derive(Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let wanted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // in this order: the first sets what the second looks at
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&wanted))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&wanted)))
                .context("watch for Ctrl-C")?;
        }
        Ok(Self(wanted))
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Where the trace goes.
pub(super) struct Sink {
    path: PathBuf,
    out: Out,
    bytes: u64,
    events: u64,
    begun: Instant,
    bar: ProgressBar,
}

enum Out {
    Stdout,
    /// A pipe or a device: nothing to be renamed.
    Special(File),
    /// `part` becomes the file once it is whole.
    Beside {
        file: File,
        part: PathBuf,
    },
}

/// What was taken, for programs.
#[derive(Serialize)]
struct Taken<'a> {
    file: &'a Path,
    bytes: u64,
    events: u64,
    seconds: f64,
    why: &'a str,
}

impl Sink {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let is_special = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
        let open = |path: &Path| {
            // what a program has in memory is for its owner
            let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
            opened.with_context(|| format!("make {}", path.display()))
        };
        let out = if path == Path::new("-") {
            Out::Stdout
        } else if is_special {
            Out::Special(open(path)?)
        } else {
            let part = path.with_added_extension("part");
            Out::Beside { file: open(&part)?, part }
        };
        // drawn on a terminal only
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed}  {msg}  (Ctrl-C ends)") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(LOOK);
        Ok(Self { path: path.to_owned(), out, bytes: 0, events: 0, begun: Instant::now(), bar })
    }

    /// Writes what came; `events` is how many there are in all.
    pub(super) fn take(&mut self, data: &[u8], events: u64) -> anyhow::Result<()> {
        self.bytes += data.len() as u64;
        self.events = events;
        self.bar.set_message(format!("{}, {} events", bytes(self.bytes), self.events));
        match &mut self.out {
            Out::Stdout => output::bytes(data),
            Out::Special(file) | Out::Beside { file, .. } => {
                file.write_all(data).with_context(|| format!("write {}", self.path.display()))
            }
        }
    }

    /// All is there.
    fn finish(self, end: &TraceEnd, format: Format) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        match &self.out {
            Out::Stdout => return Ok(()),
            Out::Special(_) => {}
            Out::Beside { file, part } => {
                let renamed = file.sync_all().and_then(|()| std::fs::rename(part, &self.path));
                renamed.with_context(|| format!("the trace is whole, but stays in {}", part.display()))?;
            }
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        let taken =
            Taken { file: &self.path, bytes: self.bytes, events: self.events, seconds, why: &end.why };
        match format {
            Format::Json => output::json(&taken),
            Format::Table => output::text(&format!(
                "{}: {}, {} events in {seconds:.1} s; {}\n",
                one_line(&self.path.to_string_lossy()),
                bytes(self.bytes),
                self.events,
                one_line(&end.why)
            )),
        }
    }

    /// It failed; what there is of it stays and is named.
    fn cut(self, error: anyhow::Error) -> anyhow::Error {
        self.bar.finish_and_clear();
        let Out::Beside { part, .. } = &self.out else { return error };
        if self.bytes > 0 {
            return error.context(format!(
                "{} were taken and are kept in {}",
                bytes(self.bytes),
                part.display()
            ));
        }
        match std::fs::remove_file(part) {
            Err(left) if left.kind() != io::ErrorKind::NotFound => {
                error.context(format!("{} cannot be removed: {left}", part.display()))
            }
            _ => error,
        }
    }
}
