//! A trace as a flame graph, for the page.
//!
//! Owns what drawing may cost: one trace at a time, a deadline, bounded memory. What a trace means is `uni-memtrace`'s
//! business.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use uni_api::heap_trace::{Flame, FlameBox, MAX_BYTES};
use uni_memtrace::{Analysis, FlameGraph, Grouping, Options, ShortLived};

/// Waiting and reading take no longer, each.
const DEADLINE: Duration = Duration::from_secs(10);
/// What is kept of a trace while it is read: some 60 MB.
const OPTIONS: Options = Options {
    at_micros: None,
    steps: 2,
    stacks: 300_000,
    live_blocks: 1_000_000,
    frames: 100_000,
    name_bytes: 8 << 20,
    names: None,
    short_lived: None,
};

/// By what children are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    Live,
    Allocated,
}

impl Weight {
    /// The weight that a word names.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Live, Self::Allocated].into_iter().find(|weight| weight.word() == word)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Allocated => "allocated",
        }
    }
}

/// What is drawn of a trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) weight: Weight,
    /// So long after its start; the end if absent.
    pub(crate) at: Option<Duration>,
    /// Only blocks that lived as long.
    pub(crate) min_lifetime: Option<Duration>,
}

/// Why there is no flame graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undrawn {
    #[error("trace not found")]
    Missing,
    #[error("other traces are being drawn; try again")]
    Busy,
    #[error("nothing of the trace can be read yet")]
    Empty,
    #[error("the trace cannot be drawn: {0}")]
    Failed(String),
}

/// Draws what there is of a trace.
pub(super) async fn draw(
    drawing: &Arc<Semaphore>,
    file: File,
    view: View,
    is_running: bool,
) -> Result<Flame, Undrawn> {
    let place = tokio::time::timeout(DEADLINE, Arc::clone(drawing).acquire_owned()).await;
    let Ok(Ok(place)) = place else { return Err(Undrawn::Busy) };
    let drawn = tokio::task::spawn_blocking(move || {
        // as long as it works, even if nobody waits any more
        let _place = place;
        read(file, view).and_then(|analysis| made(&analysis, view.weight, is_running))
    });
    drawn.await.map_err(|error| Undrawn::Failed(error.to_string()))?
}

fn read(mut file: File, view: View) -> Result<Analysis, Undrawn> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let failed = |error: io::Error| Undrawn::Failed(error.to_string());
    // both readings are of the same bytes, even if it grows
    let size = file.metadata().map_err(failed)?.len().min(MAX_BYTES);
    let deadline = Instant::now() + DEADLINE;
    let mut options = Options { at_micros: view.at.map(micros), ..OPTIONS };
    if let Some(min) = view.min_lifetime {
        let input = Punctual { input: (&mut file).take(size), deadline };
        options.short_lived = Some(ShortLived::find(input, micros(min), |_| {}).map_err(failed)?);
        file.rewind().map_err(failed)?;
    }
    let input = Punctual { input: file.take(size), deadline };
    let analysis = uni_memtrace::read(input, &options, |_| {}).map_err(failed)?;
    if analysis.is_empty() { Err(Undrawn::Empty) } else { Ok(analysis) }
}

fn made(analysis: &Analysis, weight: Weight, running: bool) -> Result<Flame, Undrawn> {
    let FlameGraph { title, nodes } = FlameGraph::new(analysis);
    let duration_seconds = analysis.report(Grouping::Library, 1).totals.duration_seconds;
    let sizes: Vec<u64> = nodes
        .iter()
        .map(|node| match weight {
            Weight::Live => node.live,
            Weight::Allocated => node.allocated,
        })
        .collect();
    let nodes = nodes.into_iter().map(|mut node| {
        node.children.sort_by_key(|child| Reverse(sizes.get(*child)));
        let uni_memtrace::FlameNode { name, file, library, allocated, live, children } = node;
        FlameBox { name, file, library, allocated, live, children }
    });
    Ok(Flame { title, weight: weight.word().to_owned(), duration_seconds, running, nodes: nodes.collect() })
}

/// A reader that ends in time.
struct Punctual<R> {
    input: R,
    deadline: Instant,
}

impl<R: Read> Read for Punctual<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            let why = format!("reading it takes longer than {} s", DEADLINE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        self.input.read(buffer)
    }
}
