//! The way out of the log: a bounded queue and one thread that writes.
//!
//! Owns the promise that nobody who logs waits for whoever reads stderr: lines that find no room are counted
//! and left out, which is told once there is room again. Never looks into a line.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Lines that wait at most.
const QUEUE_LINES: usize = 4096;
/// How often a flush looks whether all is written.
const LOOK: Duration = Duration::from_millis(2);

/// Lines on their way.
#[derive(Debug)]
pub(super) struct Writer {
    queue: SyncSender<String>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicU64,
    dropped: AtomicU64,
}

impl Writer {
    /// Starts the thread that writes to `out`; `lost` makes a line of a number of dropped ones.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        lost: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let counts = Arc::new(Counts::default());
        let of_thread = Arc::clone(&counts);
        std::thread::Builder::new()
            .name("unid-log".to_owned())
            .spawn(move || write_all(out, &lines, &of_thread, lost))?;
        Ok(Self { queue, counts })
    }

    /// Queues a line, its end included.
    pub(super) fn write(&self, line: String) {
        self.counts.waiting.fetch_add(1, Relaxed);
        if self.queue.try_send(line).is_err() {
            self.counts.waiting.fetch_sub(1, Relaxed);
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }

    /// Waits until all is written, or `within` is over.
    pub(super) fn flush(&self, within: Duration) {
        let deadline = Instant::now() + within;
        while self.counts.waiting.load(Relaxed) > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }
}

fn write_all(mut out: impl Write, lines: &Receiver<String>, counts: &Counts, lost: impl Fn(u64) -> String) {
    let mut told = 0;
    for line in lines {
        // a closed stderr is no reason to end
        let _ = out.write_all(line.as_bytes());
        let dropped = counts.dropped.load(Relaxed);
        if dropped > told {
            let _ = out.write_all(lost(dropped - told).as_bytes());
            told = dropped;
        }
        counts.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    #[test]
    fn a_reader_that_sleeps_stalls_nobody_and_learns_how_much_it_missed() {
        let (read, write) = io::pipe().unwrap();
        let writer = Writer::start(write, |n| format!("lost {n}\n")).unwrap();
        let sent = 40_000;
        for n in 0..sent {
            writer.write(format!("line {n:>40}\n"));
        }
        let dropped = writer.dropped();
        assert!(dropped > 0);
        let mut lines = 0;
        let mut lost = 0;
        for line in BufReader::new(read).lines().map(Result::unwrap) {
            match line.strip_prefix("lost ") {
                Some(n) => lost += n.parse::<u64>().unwrap(),
                None => lines += 1,
            }
            if lines + lost == sent {
                break;
            }
        }
        assert_eq!(lost, dropped);
    }

    #[test]
    fn a_reader_that_left_is_no_reason_to_end() {
        let (read, write) = io::pipe().unwrap();
        drop(read);
        let writer = Writer::start(write, |n| n.to_string()).unwrap();
        for _ in 0..3 {
            writer.write("line\n".to_owned());
            writer.flush(Duration::from_secs(10));
        }
        assert_eq!((writer.counts.waiting.load(Relaxed), writer.dropped()), (0, 0));
    }
}
