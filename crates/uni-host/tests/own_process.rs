//! The sampler against real processes: this one and children.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use uni_host::sampler::start_ticks;
use uni_host::{Machine, ProcessSample, ProcessSampler, Rates, SampleError};

fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).expect("after boot")
}

/// A child that is killed when the test ends, however it ends.
struct Guarded(Child);

impl Guarded {
    fn shell(script: &str) -> Self {
        Self(Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().expect("sh runs"))
    }

    fn sampler(&self) -> ProcessSampler {
        ProcessSampler::open(self.0.id(), start_ticks(self.0.id()).expect("it runs"), Machine::host())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _already_dead = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn own_sampler() -> ProcessSampler {
    let pid = std::process::id();
    ProcessSampler::open(pid, start_ticks(pid).expect("it runs"), Machine::host())
}

fn own_sample() -> ProcessSample {
    own_sampler().sample(since_boot()).expect("it runs")
}

#[test]
fn own_process_is_seen_with_plausible_values() {
    let sample = own_sample();
    assert!(sample.rss_bytes > 100 * 1024 && sample.rss_bytes < sample.vsize_bytes);
    assert!(sample.peak_rss_kib * 1024 >= sample.rss_bytes);
    assert!(sample.text_bytes > 0 && sample.stack_bytes > 0 && sample.data_bytes > 0);
    assert!(sample.minflt > 0 && sample.threads >= 1);
    assert!(sample.uptime() < Duration::from_secs(3600), "started {:?} ago", sample.uptime());
    assert!(sample.io.is_some(), "the own /proc/self/io is readable");
}

#[test]
fn written_blocks_are_counted() {
    let before = own_sample().io.unwrap();
    let path = std::env::temp_dir().join(format!("uni-host-io-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut &file, &vec![7; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    std::fs::remove_file(&path).unwrap();
    let after = own_sample().io.unwrap();
    assert!(after.write_bytes >= before.write_bytes);
}

#[test]
fn uptime_counts_from_the_start_of_the_process() {
    let child = Guarded::shell("sleep 60");
    let mut sampler = child.sampler();
    std::thread::sleep(Duration::from_millis(200));
    let uptime = sampler.sample(since_boot()).unwrap().uptime();
    assert!((Duration::from_millis(190)..Duration::from_secs(10)).contains(&uptime), "{uptime:?}");
}

#[test]
fn a_busy_loop_uses_a_processor_and_a_sleeper_none() {
    let busy = Guarded::shell("while :; do :; done");
    let idle = Guarded::shell("exec sleep 60");
    let percent = |child: &Guarded| {
        let mut sampler = child.sampler();
        let before = sampler.sample(since_boot()).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        Rates::between(&before, &sampler.sample(since_boot()).unwrap()).unwrap().cpu_percent
    };
    let (busy, idle) = (percent(&busy), percent(&idle));
    // The machine may be shared, so the lower bound is loose; a loop of one thread cannot exceed one core.
    assert!(busy > 10.0 && busy < 105.0, "busy: {busy} %");
    assert!(idle < 5.0, "idle: {idle} %");
}

#[test]
fn a_process_that_ended_is_gone_as_a_zombie_and_afterwards() {
    let mut child = Guarded::shell("exec sleep 60");
    let (pid, mut sampler) = (child.0.id(), child.sampler());
    sampler.sample(since_boot()).unwrap();
    child.0.kill().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while sampler.sample(since_boot()).is_ok() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(sampler.sample(since_boot()), Err(SampleError::Gone { pid }));
    child.0.wait().unwrap();
    assert_eq!(sampler.sample(since_boot()), Err(SampleError::Gone { pid }));
    assert_eq!(start_ticks(pid), Err(SampleError::Gone { pid }));
}

#[test]
fn another_process_with_the_same_pid_is_not_taken_for_it() {
    let pid = std::process::id();
    let mut sampler = ProcessSampler::open(pid, start_ticks(pid).unwrap() + 1, Machine::host());
    assert_eq!(sampler.sample(since_boot()), Err(SampleError::Gone { pid }));
}

#[test]
fn switches_of_all_threads_count_and_do_not_vanish_with_their_thread() {
    let mut sampler = own_sampler();
    let start = sampler.sample(since_boot()).unwrap().switches.voluntary;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _until_dropped = stopped.recv();
    });
    std::thread::sleep(Duration::from_millis(500));
    let during = sampler.sample(since_boot()).unwrap().switches.voluntary;
    assert!(during >= start + 150, "{start} then {during}");
    drop(stop);
    thread.join().unwrap();
    let after = sampler.sample(since_boot()).unwrap().switches.voluntary;
    assert!(after >= during, "{during} fell to {after}");
}
