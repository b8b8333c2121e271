//! A sampler whose process cannot open files for a while. Alone in its program: the limit is the program's.

use std::os::fd::AsRawFd as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use uni_host::sampler::start_ticks;
use uni_host::{Machine, ProcessSampler, SampleError};

/// The limit is one for all threads, those of the tests included.
static LIMIT: Mutex<()> = Mutex::new(());

/// Does something while file numbers from `limit` on are refused.
fn with_limit<T>(limit: u64, act: impl FnOnce() -> T) -> T {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..before }).expect("a lower limit is allowed");
    let result = act();
    setrlimit(Resource::Nofile, before).expect("the hard limit was kept");
    result
}

fn own_sampler() -> ProcessSampler {
    let pid = std::process::id();
    ProcessSampler::open(pid, start_ticks(pid).expect("it runs"), Machine::host())
}

fn clock(id: ClockId) -> Duration {
    Duration::try_from(clock_gettime(id)).expect("after boot")
}

#[test]
fn a_passing_error_does_not_end_the_sampling() {
    let _alone = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut sampler = own_sampler();
    let error = with_limit(0, || sampler.sample(Duration::from_secs(1))).unwrap_err();
    assert!(matches!(error, SampleError::Unreadable { .. }) && !error.is_final(), "{error:?}");
    assert!(sampler.sample(Duration::from_secs(2)).is_ok());
}

#[test]
fn time_of_threads_that_could_not_be_opened_counts_by_ticks_and_later_not_twice() {
    let _alone = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
    let end = clock(ClockId::ProcessCPUTime) + Duration::from_millis(200);
    while clock(ClockId::ProcessCPUTime) < end {
        std::hint::spin_loop();
    }
    let mut sampler = own_sampler();
    // room for the four files of the process and none for those of its threads
    let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    let limited = with_limit(u64::try_from(next).unwrap() + 4, || sampler.sample(Duration::from_secs(1)));
    let limited = limited.unwrap();
    assert!(limited.io.is_some(), "the process's own files were opened");
    assert_eq!(limited.cpu, limited.user + limited.system);
    assert!(limited.cpu >= Duration::from_millis(150), "{limited:?}");
    std::thread::sleep(Duration::from_millis(10));
    let whole = sampler.sample(Duration::from_secs(2)).unwrap();
    let truth = clock(ClockId::ProcessCPUTime);
    assert!((limited.cpu..=truth).contains(&whole.cpu), "{limited:?} then {whole:?} of {truth:?}");
    assert!(whole.cpu > whole.user + whole.system, "nanoseconds are back: {whole:?}");
}
