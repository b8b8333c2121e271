//! Processor time against the kernel's own clock of this process, over threads that come and go.

use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use uni_host::sampler::start_ticks;
use uni_host::{Machine, ProcessSample, ProcessSampler};

/// The tests measure the process that they share.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn clock(id: ClockId) -> Duration {
    Duration::try_from(clock_gettime(id)).expect("after boot")
}

fn own_sampler() -> ProcessSampler {
    let pid = std::process::id();
    ProcessSampler::open(pid, start_ticks(pid).expect("it runs"), Machine::host())
}

fn sample(sampler: &mut ProcessSampler) -> ProcessSample {
    sampler.sample(clock(ClockId::Boottime)).expect("it runs")
}

/// Uses so much processor time in this thread.
fn spin(time: Duration) {
    let end = clock(ClockId::ThreadCPUTime) + time;
    while clock(ClockId::ThreadCPUTime) < end {
        std::hint::spin_loop();
    }
}

#[test]
fn less_than_a_clock_tick_is_seen() {
    let _alone = alone();
    let mut sampler = own_sampler();
    let (go, wait) = channel::<()>();
    let (done, finished) = channel();
    let thread = std::thread::spawn(move || {
        while wait.recv().is_ok() {
            spin(Duration::from_millis(2));
            done.send(()).unwrap();
        }
    });
    let mut deltas = Vec::new();
    for _ in 0..20 {
        // this thread's own time is brought up to date when it sleeps
        std::thread::sleep(Duration::from_millis(5));
        let before = sample(&mut sampler).cpu;
        go.send(()).unwrap();
        finished.recv().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        deltas.push(sample(&mut sampler).cpu - before);
    }
    drop(go);
    thread.join().unwrap();
    deltas.sort();
    let median = deltas[10];
    let expected = Duration::from_micros(1900)..Duration::from_micros(4000);
    assert!(expected.contains(&median), "2 ms were seen as {deltas:?}");
}

#[test]
fn threads_that_come_and_go_lose_no_time_and_add_none() {
    let _alone = alone();
    let mut sampler = own_sampler();
    let mut before = sample(&mut sampler);
    let used_before = clock(ClockId::ProcessCPUTime);
    for round in 0..30_u64 {
        let (stop, stopped) = channel::<()>();
        // one is seen alive, the others may live and die between two looks
        let long = std::thread::spawn(move || {
            spin(Duration::from_millis(2));
            let _until_dropped = stopped.recv();
        });
        let short: Vec<_> =
            (0..round % 4).map(|_| std::thread::spawn(|| spin(Duration::from_millis(3)))).collect();
        std::thread::sleep(Duration::from_millis(round % 7));
        let now = sample(&mut sampler);
        assert!(now.cpu >= before.cpu, "{before:?} then {now:?}");
        assert!(now.switches.voluntary >= before.switches.voluntary, "{before:?} then {now:?}");
        before = now;
        short.into_iter().for_each(|thread| thread.join().unwrap());
        drop(stop);
        long.join().unwrap();
    }
    std::thread::sleep(Duration::from_millis(20));
    let now = sample(&mut sampler);
    let used = clock(ClockId::ProcessCPUTime);
    assert!(now.cpu <= used, "{:?} of {used:?}", now.cpu);
    // What nobody saw is known to two clock ticks, what runs to the scheduler's tick.
    assert!(now.cpu + Duration::from_millis(40) >= used, "{:?} of {used:?}", now.cpu);
    assert!(used - used_before > Duration::from_millis(150), "the threads worked");
    assert!(now.cpu >= now.user + now.system);
}

#[test]
fn a_late_sampler_knows_the_time_of_threads_long_gone() {
    let _alone = alone();
    for _ in 0..10 {
        std::thread::spawn(|| spin(Duration::from_millis(10))).join().unwrap();
    }
    let used = clock(ClockId::ProcessCPUTime);
    let late = sample(&mut own_sampler());
    assert!(late.cpu + Duration::from_millis(40) >= used, "{:?} of {used:?}", late.cpu);
}
