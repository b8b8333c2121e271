//! The shim's own side: start QEMU, drain everything it writes, write down how it ended.
//!
//! One thread, one poll loop, one 64 KiB buffer: the process stays small because it does nothing else. It
//! never stops reading, whatever happens to the files it writes to, because a mirror or console that nobody
//! reads stops the guest.
//!
//! The console is a pipe, not a socket: QEMU writes it byte by byte, and a pipe joins small writes into pages
//! where a socket keeps (and charges for) each of them alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};

use super::{Launch, RunInfo, memory, remove_if_there, runs};
use crate::atomic;
use crate::console::{self, Reader, Writer};
use crate::exit::ExitReport;
use crate::links::{FrameCounter, Links};
use crate::paths::{ENV_FILE, EXIT_FILE, LINKS_FILE, LOCK_FILE, RESERVE_FILE, RUN_FILE, SOCKET_FILES};
use crate::process::{self, ProcessId};
use crate::qemu::ShimFds;

/// The buffer everything is read through, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;
/// How many full buffers are taken from one source before the others have their turn.
const READS_PER_TURN: usize = 16;
/// How long the console is left alone after it was read, so that a flood is taken in large pieces. It is the
/// most by which a byte is late on disk; the pipe (64 KiB) takes 6 MB/s meanwhile, more than a serial line of
/// QEMU's brings.
const CONSOLE_PAUSE: Duration = Duration::from_millis(10);
/// How long frame counters may wait before they are written.
const LINKS_DELAY: Duration = Duration::from_millis(20);
/// How often and how long apart the VM's lock is tried.
const LOCK_TRIES: u32 = 10;
const LOCK_RETRY: Duration = Duration::from_millis(5);
/// How much of the disk is kept for `exit.json`, in bytes: one block of a usual file system, and more than
/// the file takes.
const RESERVE_BYTES: usize = 8192;
/// How much of QEMU's messages goes into `exit.json`, in bytes.
const EXIT_MESSAGE_BYTES: usize = 2048;

/// Runs the shim to its end: returns when QEMU has ended and all is written down. The result is the process's
/// exit status: 0, or 1 if QEMU could not be started (the reason is in `exit.json` and on stderr).
#[must_use]
pub fn run(id: &str, dir: &Path) -> u8 {
    match supervise(id, dir) {
        Ok(()) => 0,
        Err(Failure { error, lock, generation }) => {
            eprintln!("shim of VM {id}: {error}");
            // Without the lock the directory belongs to another shim.
            if lock.is_some() {
                let report = ExitReport { generation, error: Some(error), ..ExitReport::default() };
                write_exit(dir, report);
            }
            1
        }
    }
}

struct Failure {
    error: String,
    lock: Option<File>,
    generation: u64,
}

fn supervise(id: &str, dir: &Path) -> Result<(), Failure> {
    detach();
    let lock = lock(dir).map_err(|error| Failure { error, lock: None, generation: 0 })?;
    let launch = match Launch::read(dir) {
        Ok(launch) => launch,
        Err(error) => {
            let error = format!("cannot read launch.json: {error}");
            return Err(Failure { error, lock: Some(lock), generation: 0 });
        }
    };
    let generation = launch.generation;
    let mut session = match Session::start(id, dir, &launch) {
        Ok(session) => session,
        Err(error) => return Err(Failure { error, lock: Some(lock), generation }),
    };
    memory::release_program_pages();
    let status = session.drain_until_exit();
    session.finish(dir, status);
    Ok(())
}

/// Leaves the starter's session and stops listening to its signals. Descriptors that were handed down by
/// accident are not handed on to QEMU.
fn detach() {
    // Fails only if this process already leads a group, which then is its own.
    let _ = rustix::process::setsid();
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        set_disposition(signal, SIG_IGN);
    }
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let inherited = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    for fd in inherited.filter(|fd| *fd > 2).collect::<Vec<_>>() {
        // SAFETY: the number was just listed as open; at worst it is the listing's own, closed since, and the
        // call fails.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
}

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

/// Sets how this process takes a signal. The standard library has no call for it.
fn set_disposition(number: Signal, disposition: usize) {
    unsafe extern "C" {
        fn signal(signum: std::ffi::c_int, handler: usize) -> usize;
    }
    // SAFETY: signal(2) of the C library that std links; both dispositions are constants, no handler is
    // installed.
    unsafe { signal(number.as_raw(), disposition) };
}

/// Takes the VM's lock; it is released when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File, String> {
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    // Who only asks whether it is taken holds it for a moment too: a shim holds it longer.
    for _ in 0..LOCK_TRIES {
        if file.try_lock().is_ok() {
            return Ok(file);
        }
        std::thread::sleep(LOCK_RETRY);
    }
    Err(format!("another shim holds {}: the VM is running already", path.display()))
}

/// A running QEMU and what is drained from it.
struct Session {
    generation: u64,
    child: Child,
    pidfd: OwnedFd,
    console: Source<io::PipeReader>,
    console_due: Option<Instant>,
    console_log: Writer,
    messages: Source<io::PipeReader>,
    messages_log: Writer,
    mirrors: [Source<UnixStream>; 4],
    counters: [FrameCounter; 4],
    links: LinksFile,
    buffer: Vec<u8>,
}

/// Something to read until it ends.
struct Source<T> {
    stream: T,
    open: bool,
    /// There may be bytes: poll said so, or the last turn did not come to the end.
    ready: bool,
}

impl<T: Read + AsFd> Source<T> {
    fn new(stream: T) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&stream)?;
        rustix::fs::fcntl_setfl(&stream, flags | OFlags::NONBLOCK)?;
        Ok(Self { stream, open: true, ready: true })
    }

    /// Passes on what is there now, at most [`READS_PER_TURN`] buffers. Says whether there may be more.
    fn drain(&mut self, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> bool {
        for _ in 0..READS_PER_TURN {
            if !self.ready || !self.open {
                return false;
            }
            match self.stream.read(buffer) {
                Ok(0) => self.open = false,
                Ok(read) => take(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.ready = false,
                // A reset is how a socket whose other end was killed ends.
                Err(_) => self.open = false,
            }
        }
        true
    }

    /// What to poll: the stream while it is open and `wanted`, else `instead`.
    fn poll_or<'a>(&'a self, wanted: bool, instead: BorrowedFd<'a>) -> PollFd<'a> {
        let fd = if self.open && wanted { self.stream.as_fd() } else { instead };
        PollFd::from_borrowed_fd(fd, PollFlags::IN)
    }
}

fn context<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

impl Session {
    fn start(id: &str, dir: &Path, launch: &Launch) -> Result<Self, String> {
        if launch.id.to_string() != id {
            return Err(format!("launch.json is of VM {}", launch.id));
        }
        context("cannot prepare the VM's directory", prepare(dir, launch))?;
        let console_log = context(
            "cannot open the console log",
            Writer::open(dir, console::CONSOLE, launch.console_limit_bytes),
        )?;
        let messages_log =
            context("cannot open QEMU's log", Writer::open(dir, console::QEMU, launch.qemu_log_limit_bytes))?;
        let links = context("cannot write the link counters", LinksFile::create(dir, launch.generation))?;
        let run = runs::Run {
            number: launch.generation,
            console_offset: console_log.end(),
            started_unix_ns: since_1970(),
        };
        context("cannot record where the run's console begins", runs::record(dir, run))?;
        let (console, console_end) = context("cannot make a pipe", console_pipe(ShimFds::INHERITED.console))?;
        let (mirrors, mirror_ends) = context("cannot make sockets", mirror_channels())?;
        let (reader, writer) = context("cannot make a pipe", io::pipe())?;
        let messages = context("cannot make a pipe", Source::new(reader))?;
        let child = spawn_qemu(launch, dir, writer);
        drop((console_end, mirror_ends));
        let child = context(&format!("cannot start {}", launch.program.display()), child)?;
        let pidfd = context("cannot watch QEMU", watch(&child))?;
        let mut session = Self {
            generation: launch.generation,
            child,
            pidfd,
            console,
            console_due: None,
            console_log,
            messages,
            messages_log,
            mirrors,
            counters: Default::default(),
            links,
            buffer: vec![0; BUFFER_BYTES],
        };
        if let Err(error) = session.announce(dir) {
            // A VM that cannot be found again must not run.
            let _ = session.child.kill();
            let _ = session.child.wait();
            return Err(format!("cannot write run.json: {error}"));
        }
        Ok(session)
    }

    fn announce(&self, dir: &Path) -> io::Result<()> {
        let info = RunInfo {
            generation: self.generation,
            boot_id: process::boot_id()?,
            shim: ProcessId::of(std::process::id())?,
            qemu: ProcessId::of(self.child.id())?,
        };
        atomic::write_for_this_boot(dir, RUN_FILE, &serde_json::to_vec(&info)?)
    }

    fn drain_until_exit(&mut self) -> io::Result<ExitStatus> {
        loop {
            let now = Instant::now();
            let more = self.drain(now);
            self.links.update(self.current_links(), now);
            if self.wait(now, more)?
                && let Some(status) = self.child.try_wait()?
            {
                self.drain_the_rest();
                return Ok(status);
            }
        }
    }

    /// Takes what every source has now. Says whether one has more.
    fn drain(&mut self, now: Instant) -> bool {
        let mut more = false;
        if self.console_due.is_none_or(|due| due <= now) && self.console.ready {
            let end = self.console_log.end();
            more |= self.console.drain(&mut self.buffer, |bytes| self.console_log.append(bytes));
            self.console_due = (self.console_log.end() > end && !more).then(|| now + CONSOLE_PAUSE);
        }
        more |= self.messages.drain(&mut self.buffer, |bytes| self.messages_log.append(bytes));
        for (mirror, counter) in self.mirrors.iter_mut().zip(&mut self.counters) {
            more |= mirror.drain(&mut self.buffer, |bytes| counter.push(bytes));
        }
        more
    }

    /// QEMU has ended: whatever it wrote is there now.
    fn drain_the_rest(&mut self) {
        self.console_due = None;
        self.console.ready = true;
        self.messages.ready = true;
        self.mirrors.iter_mut().for_each(|mirror| mirror.ready = true);
        while self.drain(Instant::now()) {}
    }

    fn current_links(&self) -> Links {
        Links {
            generation: self.generation,
            counts: self.counters.each_ref().map(FrameCounter::counts),
            console_dropped_bytes: self.console_log.dropped_bytes(),
            unframed_bytes: self.counters.iter().map(FrameCounter::unframed_bytes).sum(),
        }
    }

    /// Sleeps until a source has bytes, QEMU ends, the console's pause is over or counters are due; with
    /// `more`, only looks. Says whether QEMU has ended.
    fn wait(&mut self, now: Instant, more: bool) -> io::Result<bool> {
        let pause = self.console_due.map(|due| due.saturating_duration_since(now));
        let pause = pause.filter(|pause| !pause.is_zero());
        let timeout = if more { Some(Duration::ZERO) } else { earlier(pause, self.links.due_in(now)) };
        let timeout = timeout.and_then(|wait| Timespec::try_from(wait).ok());
        let qemu = self.pidfd.as_fd();
        let [a, b, c, d] = self.mirrors.each_ref().map(|mirror| mirror.poll_or(true, qemu));
        let console = self.console.poll_or(pause.is_none(), qemu);
        let messages = self.messages.poll_or(true, qemu);
        let mut fds = [a, b, c, d, console, messages, PollFd::from_borrowed_fd(qemu, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let [mirrors @ .., console, messages, ended] = fds.map(|fd| !fd.revents().is_empty());
        self.console.ready |= console;
        self.messages.ready |= messages;
        for (mirror, ready) in self.mirrors.iter_mut().zip(mirrors) {
            mirror.ready |= ready;
        }
        Ok(ended)
    }

    fn finish(mut self, dir: &Path, status: io::Result<ExitStatus>) {
        let links = self.current_links();
        self.links.write(links);
        let message = Reader::tail(dir, console::QEMU, EXIT_MESSAGE_BYTES).unwrap_or_default();
        let mut report = ExitReport {
            generation: self.generation,
            qemu_message: String::from_utf8_lossy(&message.bytes).trim().to_owned(),
            ..ExitReport::default()
        };
        match status {
            Ok(status) => (report.code, report.signal) = (status.code(), status.signal()),
            Err(error) => report.error = Some(format!("the shim lost sight of QEMU: {error}")),
        }
        write_exit(dir, report);
    }
}

/// Nanoseconds since the Unix epoch.
fn since_1970() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The shorter of two waits, where there are any.
fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn write_exit(dir: &Path, report: ExitReport) {
    let report = ExitReport { at_unix_ns: since_1970(), ..report };
    // Fails only where there is none, such as when QEMU was never started.
    let _ = std::fs::remove_file(dir.join(RESERVE_FILE));
    let written = serde_json::to_vec(&report)
        .map_err(io::Error::from)
        .and_then(|text| atomic::write(dir, EXIT_FILE, &text));
    if let Err(error) = written {
        eprintln!("cannot write {EXIT_FILE}: {error}");
    }
}

/// Removes what an earlier run left and writes the environment file.
fn prepare(dir: &Path, launch: &Launch) -> io::Result<()> {
    for stale in SOCKET_FILES.iter().chain(&[RUN_FILE, EXIT_FILE, ENV_FILE]) {
        remove_if_there(&dir.join(stale))?;
    }
    console::clear(dir, console::QEMU)?;
    atomic::write_for_this_boot(dir, RESERVE_FILE, &[b'\n'; RESERVE_BYTES])?;
    if launch.environment.is_empty() {
        Ok(())
    } else {
        atomic::write_for_this_boot(dir, ENV_FILE, launch.environment.as_bytes())
    }
}

/// A socket pair: our end, and QEMU's end at the descriptor number its command line names.
fn channel(number: RawFd) -> io::Result<(Source<UnixStream>, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((Source::new(ours)?, inherited(&theirs, number)?))
}

/// The console's pipe: our end, and QEMU's at descriptor `number`.
fn console_pipe(number: RawFd) -> io::Result<(Source<io::PipeReader>, OwnedFd)> {
    let (ours, theirs) = io::pipe()?;
    Ok((Source::new(ours)?, inherited(&theirs, number)?))
}

/// A copy of `end` at descriptor `number` that the child will have.
fn inherited(end: &impl AsFd, number: RawFd) -> io::Result<OwnedFd> {
    let end = rustix::io::fcntl_dupfd_cloexec(end, number)?;
    if end.as_raw_fd() != number {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("descriptor {number} is open already")));
    }
    // Nothing else is started by this process, so only QEMU can inherit it.
    rustix::io::fcntl_setfd(&end, FdFlags::empty())?;
    Ok(end)
}

fn mirror_channels() -> io::Result<([Source<UnixStream>; 4], Vec<OwnedFd>)> {
    let mut theirs = Vec::new();
    let mut make = |number| {
        let (ours, end) = channel(number)?;
        theirs.push(end);
        io::Result::Ok(ours)
    };
    let [a, b, c, d] = ShimFds::INHERITED.mirrors;
    let ours = [make(a)?, make(b)?, make(c)?, make(d)?];
    Ok((ours, theirs))
}

fn spawn_qemu(launch: &Launch, dir: &Path, messages: io::PipeWriter) -> io::Result<Child> {
    let mut command = Command::new(&launch.program);
    command.args(&launch.argv).current_dir(dir).stdin(Stdio::null());
    command.stdout(messages.try_clone()?).stderr(messages);
    let shim = std::process::id();
    // SAFETY: between fork and exec only system calls are made: prctl, getppid and signal, all safe there.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
                set_disposition(signal, SIG_DFL);
            }
            // If the shim died before the call above, nobody would ever end QEMU.
            let parent = rustix::process::getppid().map(Pid::as_raw_nonzero);
            if parent.is_some_and(|parent| u32::try_from(parent.get()) == Ok(shim)) {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
    command.spawn()
}

fn watch(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// The counters' file: written when they changed, but at most every [`LINKS_DELAY`].
struct LinksFile {
    file: File,
    written: Links,
    written_at: Option<Instant>,
    pending: bool,
}

impl LinksFile {
    fn create(dir: &Path, generation: u64) -> io::Result<Self> {
        let path = dir.join(LINKS_FILE);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let written = Links { generation, ..Links::default() };
        file.write_all_at(&written.emit(), 0)?;
        Ok(Self { file, written, written_at: None, pending: false })
    }

    fn update(&mut self, links: Links, now: Instant) {
        self.pending = links != self.written;
        if self.pending && self.due_in(now).is_some_and(|wait| wait.is_zero()) {
            self.write(links);
            self.written_at = Some(now);
        }
    }

    /// How long until pending counters are to be written; nothing when there are none.
    fn due_in(&self, now: Instant) -> Option<Duration> {
        let since = self.written_at.map_or(LINKS_DELAY, |at| now.saturating_duration_since(at));
        self.pending.then(|| LINKS_DELAY.saturating_sub(since))
    }

    /// A failed write leaves the reader with older counters; the next one is tried all the same.
    fn write(&mut self, links: Links) {
        if self.file.write_all_at(&links.emit(), 0).is_ok() {
            self.written = links;
        }
        self.pending = false;
    }
}
