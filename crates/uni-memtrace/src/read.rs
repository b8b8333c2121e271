//! A whole trace into an analysis, on two threads: one reads and decodes, the other sums up.
//!
//! Owns the way between them: a few batches that go round, so that neither runs far ahead. Knows no event.

use std::io::{ErrorKind, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use uni_wire::memtrace::{Decoder, Item, Mode};

use crate::analysis::{Analysis, Options};
use crate::batch::Batch;

/// Bytes read at once: two of the largest packets, few enough for a processor's cache.
const READ_BYTES: usize = 1 << 16;
/// Batches on their way in each direction.
const QUEUE: usize = 4;

/// Reads a whole trace. `progress` is told how many bytes were read so far.
///
/// # Errors
/// When reading fails, or no thread can be started. A damaged trace is read as far as possible: see
/// [`Analysis::faults`].
pub fn read(input: impl Read, options: &Options, progress: impl FnMut(u64)) -> std::io::Result<Analysis> {
    let (full, filled) = sync_channel(QUEUE);
    let (emptied, empty) = sync_channel(QUEUE);
    std::thread::scope(|scope| {
        let sum_up = move || sum_up(Analysis::new(options), &filled, &emptied);
        let adder = std::thread::Builder::new().name("heap-trace".into()).spawn_scoped(scope, sum_up)?;
        let decoded = Outlet { batch: Batch::default(), full, empty }.decode(input, progress);
        // the other thread ends with the channel
        let analysis = adder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        decoded.map(|()| analysis)
    })
}

/// Reads to the end, piece by piece. `progress` is told how many bytes were read so far.
pub(crate) fn each_piece(
    mut input: impl Read,
    mut progress: impl FnMut(u64),
    mut take: impl FnMut(&[u8]),
) -> std::io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut total = 0;
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        take(buffer.get(..count).unwrap_or_default());
        total += count as u64;
        progress(total);
    }
}

fn sum_up(mut analysis: Analysis, filled: &Receiver<Batch>, emptied: &SyncSender<Batch>) -> Analysis {
    for mut batch in filled {
        analysis.handle_batch(&mut batch);
        batch.clear();
        // whoever decodes may have ended
        let _ = emptied.try_send(batch);
    }
    analysis.finish();
    analysis
}

/// The decoding side.
struct Outlet {
    batch: Batch,
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
}

impl Outlet {
    fn decode(mut self, input: impl Read, progress: impl FnMut(u64)) -> std::io::Result<()> {
        let mut decoder = Decoder::new(Mode::Lenient);
        each_piece(input, progress, |bytes| {
            // a lenient reader has no errors
            let _none = decoder.handle_bytes(bytes, |item| self.put(&item));
        })?;
        let _none = decoder.finish(|item| self.put(&item));
        self.hand_on();
        Ok(())
    }

    #[expect(clippy::inline_always, reason = "else every event is written down and read back")]
    #[inline(always)]
    fn put(&mut self, item: &Item<'_>) {
        self.batch.push(item);
        if self.batch.is_full() {
            self.hand_on();
        }
    }

    /// Waits while the other thread has enough to do.
    #[cold]
    fn hand_on(&mut self) {
        let next = self.empty.try_recv().unwrap_or_default();
        // it ends after this one
        let _ = self.full.send(std::mem::replace(&mut self.batch, next));
    }
}
