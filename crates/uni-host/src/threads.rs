//! The threads of one process: time on a processor and context switches. Linux counts both per thread and
//! forgets them with the thread, so this owns the memory of what ended threads had, and the open files of the
//! living. It never fails a sample: what cannot be read keeps its last value, so the sums never fall.

use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, RawDir, openat};
use rustix::io::Errno;

use crate::proc::{Schedstat, Status, number};
use crate::sample::ContextSwitches;
use crate::sampler::{open_file, read_once};

/// Threads followed per process; of further ones only the clock ticks of the whole process are counted. QEMU
/// has a handful: one per virtual CPU, its main loop, and at most 64 workers.
const MAX_THREADS: usize = 512;

/// What all threads of a process used since it started, as far as it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Time on a processor.
    pub(crate) on_cpu: Duration,
    /// Of that, what threads have that were seen for the first time just now.
    pub(crate) first_seen: Duration,
    /// Context switches of all threads but the first, whose own stand in `/proc/PID/status`.
    pub(crate) switches: ContextSwitches,
}

/// The threads of one process.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    live: Vec<Thread>,
    ended_on_cpu_ns: u64,
    ended_switches: ContextSwitches,
}

impl Threads {
    /// Looks at all threads, which are `count`. `dir` is `/proc/PID`.
    pub(crate) fn look(
        &mut self,
        dir: BorrowedFd<'_>,
        main_tid: u64,
        count: u64,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Used {
        // A thread that ended and was replaced leaves the count equal; but it cannot be read any more, is
        // dropped below, and the counts differ next time. So no look around is needed while they agree.
        let known = self.live.len();
        if known < MAX_THREADS && u64::try_from(known).is_ok_and(|known| known != count) {
            let _keeps_those_known = self.find_new(dir, main_tid);
        }
        let mut used = Used::default();
        self.live.retain_mut(|thread| {
            let is_new = thread.on_cpu_ns.is_none();
            let alive = thread.look(buffer);
            let on_cpu_ns = thread.on_cpu_ns.unwrap_or(0);
            if is_new {
                used.first_seen += Duration::from_nanos(on_cpu_ns);
            }
            if !alive {
                self.ended_on_cpu_ns = self.ended_on_cpu_ns.saturating_add(on_cpu_ns);
                self.ended_switches = self.ended_switches + thread.switches;
            }
            alive
        });
        let live = self.live.iter().filter_map(|thread| thread.on_cpu_ns);
        let on_cpu = live.fold(self.ended_on_cpu_ns, u64::saturating_add);
        used.on_cpu = Duration::from_nanos(on_cpu);
        used.switches = self.live.iter().fold(self.ended_switches, |sum, thread| sum + thread.switches);
        used
    }

    /// Adds the threads that are not yet followed.
    fn find_new(&mut self, dir: BorrowedFd<'_>, main_tid: u64) -> Result<(), Errno> {
        let tasks = openat(dir, "task", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
        let mut entries = RawDir::new(tasks, &mut buffer);
        while let Some(entry) = entries.next() {
            let Some(tid) = number(entry?.file_name().to_bytes()) else { continue };
            if self.live.len() >= MAX_THREADS {
                break;
            }
            // A dead thread's number that a new one has got stays "known" until the dead one is dropped.
            if !self.live.iter().any(|thread| thread.tid == tid) {
                self.live.extend(Thread::open(dir, tid, tid == main_tid).ok());
            }
        }
        Ok(())
    }
}

/// One thread and its open files, which the kernel binds to the thread and not to its number: once it has
/// ended, reading them fails, whoever has the number now.
#[derive(Debug)]
struct Thread {
    tid: u64,
    /// `None` where the kernel has no schedstats.
    schedstat: Option<OwnedFd>,
    /// `None` for the first thread.
    status: Option<OwnedFd>,
    /// `None` until it has been read.
    on_cpu_ns: Option<u64>,
    switches: ContextSwitches,
    /// What `schedstat` said before the switches were read.
    switches_as_of: Schedstat,
}

impl Thread {
    fn open(dir: BorrowedFd<'_>, tid: u64, is_main: bool) -> Result<Self, Errno> {
        let status = if is_main { None } else { Some(open_of(dir, tid, "status")?) };
        let schedstat = match open_of(dir, tid, "schedstat") {
            Err(Errno::NOENT) => None,
            file => Some(file?),
        };
        Ok(Self {
            tid,
            schedstat,
            status,
            on_cpu_ns: None,
            switches: ContextSwitches::default(),
            switches_as_of: Schedstat::default(),
        })
    }

    /// Reads the files; false when the thread has ended.
    fn look(&mut self, buffer: &mut [MaybeUninit<u8>]) -> bool {
        match self.read_schedstat(buffer) {
            Err(Errno::SRCH) => false,
            // It has not run since, so it has not been switched either: `status`, which the kernel takes ten
            // times as long to write, is left alone.
            Ok(Some(now)) if now == self.switches_as_of && !now.tells_nothing() => true,
            Ok(Some(now)) => {
                self.on_cpu_ns = self.on_cpu_ns.max(Some(now.on_cpu_ns));
                self.read_switches(now, buffer)
            }
            Ok(None) | Err(_) => self.read_switches(Schedstat::default(), buffer),
        }
    }

    fn read_schedstat(&self, buffer: &mut [MaybeUninit<u8>]) -> Result<Option<Schedstat>, Errno> {
        let Some(file) = &self.schedstat else { return Ok(None) };
        Ok(Schedstat::parse(read_once(file, buffer)?).ok())
    }

    /// Reads the switches; false when the thread has ended.
    fn read_switches(&mut self, as_of: Schedstat, buffer: &mut [MaybeUninit<u8>]) -> bool {
        let Some(file) = &self.status else { return true };
        match read_once(file, buffer).map(Status::switches_in) {
            Ok(Ok(switches)) => {
                self.switches = switches;
                self.switches_as_of = as_of;
                true
            }
            Err(Errno::SRCH) => false,
            Ok(Err(_)) | Err(_) => true,
        }
    }
}

/// Opens a file of one thread. Its path is put together on the stack.
fn open_of(dir: BorrowedFd<'_>, tid: u64, name: &str) -> Result<OwnedFd, Errno> {
    let mut path = [0_u8; 40];
    let mut rest = &mut path[..];
    write!(rest, "task/{tid}/{name}").map_err(|_| Errno::NAMETOOLONG)?;
    let unused = rest.len();
    open_file(dir, &path[..path.len() - unused])
}
