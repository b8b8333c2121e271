//! The reader of one process: keeps its files under `/proc/PID` open and reads them again and again.
//!
//! Owns the files and the proof that they belong to the process meant (pid *and* start time). Never reads a
//! clock, never gives a process up for an error that may pass.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;

use crate::cpu::CpuTime;
use crate::proc::{Io, ParseError, Stat, Status};
use crate::sample::{Machine, ProcessSample};
use crate::threads::Threads;

/// Room for the longest file read; `status` has 1 to 3 KiB, more with hundreds of supplementary groups.
const BUFFER_BYTES: usize = 16 * 1024;

/// Why there is no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The process has ended, or its pid now belongs to another one. Final.
    #[error("process {pid} has ended")]
    Gone {
        /// The process looked for.
        pid: u32,
    },
    /// A file could not be read this time; ask again at the next tick.
    #[error("reading /proc/{pid}/{file}: {errno}; it is tried again at the next sample")]
    Unreadable {
        /// The process looked at.
        pid: u32,
        /// The file's name.
        file: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// A file was not understood this time; ask again at the next tick.
    #[error("process {pid}: {error}; it is tried again at the next sample")]
    Malformed {
        /// The process looked at.
        pid: u32,
        /// What was missing.
        error: ParseError,
    },
}

impl SampleError {
    /// No later sample of this process can succeed.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }
}

/// Samples one process. Holds four open files from the first sample on, and two more for each thread.
///
/// In the steady state a sample is three system calls (`stat`, `status`, `io`), one for each thread
/// (`schedstat`), and one more for each thread that ran since (its own `status`, for its context switches). It
/// allocates only when threads appear.
#[derive(Debug)]
pub struct ProcessSampler {
    pid: u32,
    start_ticks: u64,
    machine: Machine,
    files: Option<Files>,
    threads: Threads,
    cpu: CpuTime,
}

impl ProcessSampler {
    /// A sampler of the process that has this pid and started at `start_ticks` clock ticks after boot (field
    /// 22 of `/proc/PID/stat`). Nothing is opened yet, so this cannot fail.
    #[must_use]
    pub fn open(pid: u32, start_ticks: u64, machine: Machine) -> Self {
        Self { pid, start_ticks, machine, files: None, threads: Threads::default(), cpu: CpuTime::default() }
    }

    /// The pid.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Looks at the process. `now` is the time since boot (`CLOCK_BOOTTIME`), the clock of start times.
    ///
    /// # Errors
    /// [`SampleError::Gone`] for good when the process has ended or the pid is another's; the other errors
    /// may pass: call again at the next tick.
    pub fn sample(&mut self, now: Duration) -> Result<ProcessSample, SampleError> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER_BYTES];
        let pid = self.pid;
        let files = match &mut self.files {
            Some(files) => files,
            none => none.insert(Files::open(pid)?),
        };
        let stat = Stat::parse(files.read(pid, "stat", &files.stat, &mut buffer)?)
            .map_err(|error| SampleError::Malformed { pid, error })?;
        if stat.start_ticks != self.start_ticks || stat.has_ended() {
            return Err(SampleError::Gone { pid });
        }
        let status = Status::parse(files.read(pid, "status", &files.status, &mut buffer)?)
            .map_err(|error| SampleError::Malformed { pid, error })?;
        let used = self.threads.look(files.dir.as_fd(), u64::from(pid), stat.threads, &mut buffer);
        // `stat` was read before the threads, so what it says of them is never ahead of what they say.
        let at_least = self.machine.ticks(stat.utime_ticks.saturating_add(stat.stime_ticks));
        let cpu = self.cpu.advance(used.on_cpu, used.first_seen, at_least);
        let io = files.io(&mut buffer);
        Ok(ProcessSample::new(now, self.machine, &stat, &status, cpu, status.switches() + used.switches, io))
    }
}

/// When the process with this pid started, in clock ticks after boot: what [`ProcessSampler::open`] takes.
///
/// # Errors
/// As [`ProcessSampler::sample`]; a zombie is [`SampleError::Gone`].
pub fn start_ticks(pid: u32) -> Result<u64, SampleError> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER_BYTES];
    let files = Files::open(pid)?;
    let stat = Stat::parse(files.read(pid, "stat", &files.stat, &mut buffer)?)
        .map_err(|error| SampleError::Malformed { pid, error })?;
    if stat.has_ended() { Err(SampleError::Gone { pid }) } else { Ok(stat.start_ticks) }
}

/// A process's open files. All are opened relative to one `/proc/PID`, which the kernel binds to the process
/// and not to the number: they cannot come to show another process.
#[derive(Debug)]
struct Files {
    dir: OwnedFd,
    stat: OwnedFd,
    status: OwnedFd,
    /// Kept only once it could be opened: it needs the same user, or root.
    io: Option<OwnedFd>,
}

impl Files {
    fn open(pid: u32) -> Result<Self, SampleError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            open(format!("/proc/{pid}"), flags, Mode::empty()).map_err(|errno| failed(pid, "", errno))?;
        let file =
            |name: &'static str| open_file(&dir, name.as_bytes()).map_err(|errno| failed(pid, name, errno));
        Ok(Self { stat: file("stat")?, status: file("status")?, io: None, dir })
    }

    fn read<'b>(
        &self,
        pid: u32,
        name: &'static str,
        file: &OwnedFd,
        buffer: &'b mut [MaybeUninit<u8>],
    ) -> Result<&'b [u8], SampleError> {
        read_once(file, buffer).map_err(|errno| failed(pid, name, errno))
    }

    fn io(&mut self, buffer: &mut [MaybeUninit<u8>]) -> Option<Io> {
        if self.io.is_none() {
            self.io = open_file(&self.dir, b"io").ok();
        }
        Io::parse(read_once(self.io.as_ref()?, buffer).ok()?).ok()
    }
}

pub(crate) fn open_file(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The kernel answers ESRCH when the process behind an open file is gone, ENOENT when its directory is.
fn failed(pid: u32, file: &'static str, errno: Errno) -> SampleError {
    match errno {
        Errno::SRCH | Errno::NOENT => SampleError::Gone { pid },
        errno => SampleError::Unreadable { pid, file, errno },
    }
}

/// Reads a file of `/proc` from its start. The kernel makes such a file whole for one read, so one is enough
/// as long as the buffer is larger than the file. The buffer is never zeroed: that
/// would cost as much as a small file.
pub(crate) fn read_once<'b>(file: &OwnedFd, buffer: &'b mut [MaybeUninit<u8>]) -> Result<&'b [u8], Errno> {
    let (read, _) = rustix::io::pread(file, buffer, 0)?;
    Ok(read)
}
