//! Coarse reading: what blocks know of their values without being unpacked.
//!
//! Owns the choice of blocks whose summary may stand for their rows: only where no other place has rows of the same
//! time, so that no later write has changed what the summary says.

use crate::catalog::SeriesId;
use crate::column::Summary;
use crate::error::ScanError;
use crate::read::Places;
use crate::store::Store;
use uni_wire::Timestamp;

/// A stretch of time of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The time of its first row, or the start of what was asked for.
    pub first: Timestamp,
    /// The time of its last row, or the end of what was asked for.
    pub last: Timestamp,
    /// What its rows add up to, where that is known without reading them.
    pub summary: Option<Summary>,
}

impl Store {
    /// Cuts `from..=to` into spans that hold all rows of a series, by ascending time and without overlap. A span with
    /// a summary need not be read: it says of the field exactly what a scan of the span would. The others have to be
    /// scanned, see [`Store::scan`]. Spans shorter than some hundred rows have no summary.
    ///
    /// # Errors
    /// [`ScanError`]: no such database, or a block could not be read.
    pub fn spans(
        &self,
        database: &str,
        series: SeriesId,
        field: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Span>, ScanError> {
        let range = (from.nanos(), to.nanos());
        let (places, number) = {
            let state = self.read_state();
            let known = state.databases.get(database);
            let known = known.ok_or_else(|| ScanError::NoDatabase { database: database.to_owned() })?;
            let Some(entry) = known.catalog.get(series) else { return Ok(Vec::new()) };
            let Some(number) = known.catalog.field_number(&entry.measurement, field) else {
                return Ok(Vec::new());
            };
            (Places::of(&state, known, series, range, self.partition_seconds), number)
        };
        let mut stretches = places.stretches(range);
        stretches.sort_unstable_by_key(|stretch| (stretch.first, stretch.last));
        let mut spans: Vec<Span> = Vec::new();
        let mut rest = stretches.as_slice();
        while let Some((first, later)) = rest.split_first() {
            let mut last = first.last;
            let shared = later.iter().take_while(|next| {
                let reaches = next.first <= last;
                last = if reaches { last.max(next.last) } else { last };
                reaches
            });
            let shared = shared.count();
            rest = &later[shared..];
            let alone = shared == 0 && range.0 <= first.first && first.last <= range.1;
            let summary = match first.block.filter(|_| alone) {
                Some((segment, at, block)) => {
                    let (segment, _) = &places.segments[segment];
                    segment.summary(&*segment.open()?, at, block, number)?
                }
                None => None,
            };
            let (first, last) = (Timestamp(first.first.max(range.0)), Timestamp(last.min(range.1)));
            spans.push(Span { first, last, summary });
        }
        Ok(spans)
    }
}

/// Rows of one place.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: i64,
    last: i64,
    /// Segment, series in it and block; `None` for rows in memory.
    block: Option<(usize, usize, usize)>,
}

impl Places {
    fn stretches(&self, (from, to): (i64, i64)) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        for (at, (segment, series)) in self.segments.iter().enumerate() {
            for (block, place) in segment.series()[*series].blocks.iter().enumerate() {
                if place.first <= to && place.last >= from {
                    let block = Some((at, *series, block));
                    stretches.push(Stretch { first: place.first, last: place.last, block });
                }
            }
        }
        for (_, pieces, _) in &self.pieces {
            let spans = pieces.iter().map(|piece| piece.span());
            stretches.extend(spans.map(|(first, last)| Stretch { first, last, block: None }));
        }
        stretches
    }
}
