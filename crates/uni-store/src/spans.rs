//! What blocks know of their values without being unpacked, in the form of windows.
//!
//! Owns the choice of blocks whose summary may stand for their rows: only where no other place has rows of the same
//! time, so that no later write has changed what the summary says; and where nothing of a value was lost on the way
//! into the summary, which has floats for all numbers.

use crate::column::Summary;
use crate::read::Places;
use crate::tier::{FieldSummary, TierSum, WindowSummary};
use uni_wire::{FieldType, FieldValue, Timestamp};

/// Integers below this magnitude are floats too.
const WHOLE: f64 = 9_007_199_254_740_992.0;
/// Smaller blocks have no summaries.
const SUMMARY_ROWS: u32 = 512;

/// A block whose time is its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoneBlock {
    pub(crate) first: i64,
    pub(crate) last: i64,
    rows: u32,
    /// Segment, series in it and block.
    place: (usize, usize, usize),
}

/// Rows of one place.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: i64,
    last: i64,
    /// `None` for rows in memory, and for blocks that have no summary.
    block: Option<LoneBlock>,
}

/// Fields by their number and type; `None` for those that do not exist.
pub(crate) type Wanted = [Option<(u32, FieldType)>];

impl Places {
    /// Blocks from `from` to `to` with whose time nothing else has to do, ascending.
    pub(crate) fn lone_blocks(&self, (from, to): (i64, i64)) -> Vec<LoneBlock> {
        let mut stretches = self.stretches((from, to));
        stretches.sort_unstable_by_key(|stretch| (stretch.first, stretch.last));
        let mut lone = Vec::new();
        let mut before = i64::MIN;
        for (at, stretch) in stretches.iter().enumerate() {
            let apart = (at == 0 || before < stretch.first)
                && stretches.get(at + 1).is_none_or(|next| stretch.last < next.first);
            let inside = from <= stretch.first && stretch.last <= to;
            lone.extend(stretch.block.filter(|_| apart && inside));
            before = before.max(stretch.last);
        }
        lone
    }

    fn stretches(&self, (from, to): (i64, i64)) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        for (at, (segment, series)) in self.segments.iter().enumerate() {
            for (block, place) in segment.series()[*series].blocks.iter().enumerate() {
                if place.first <= to && place.last >= from {
                    let (first, last, rows) = (place.first, place.last, place.rows);
                    let lone = LoneBlock { first, last, rows, place: (at, *series, block) };
                    stretches.push(Stretch {
                        first,
                        last,
                        block: Some(lone).filter(|_| rows >= SUMMARY_ROWS),
                    });
                }
            }
        }
        for (_, pieces, _) in &self.pieces {
            let spans = pieces.iter().map(|piece| piece.span());
            let spans = spans.filter(|(first, last)| *first <= to && *last >= from);
            stretches.extend(spans.map(|(first, last)| Stretch { first, last, block: None }));
        }
        stretches
    }

    /// What a block says of these fields, if it says all that its rows would.
    pub(crate) fn window_of(&self, block: &LoneBlock, wanted: &Wanted) -> Option<WindowSummary> {
        let (segment, series, number) = block.place;
        let (segment, _) = self.segments.get(segment)?;
        // What cannot be read here is met again as rows, and reported then.
        let file = segment.open().ok()?;
        let span = (Timestamp(block.first), Timestamp(block.last));
        let mut fields = Vec::with_capacity(wanted.len());
        for field in wanted {
            let known = field.filter(|(number, _)| segment.series()[series].fields.contains(number));
            fields.push(match known {
                Some((field, field_type)) => {
                    let summary = segment.summary(&*file, series, number, field).ok()??;
                    Some(translate(&summary, field_type, block.rows, span)?)
                }
                None => None,
            });
        }
        Some(WindowSummary { start: span.0, span, is_all: false, fields })
    }
}

/// `None` where the summary does not say exactly what the rows would.
fn translate(
    summary: &Summary,
    field_type: FieldType,
    rows: u32,
    span: (Timestamp, Timestamp),
) -> Option<FieldSummary> {
    let all = [summary.min, summary.max, summary.first, summary.last];
    let is_exact = match field_type {
        // Of a zero the sign may be lost.
        FieldType::Float => summary.min != 0.0 && summary.max != 0.0,
        _ => all.iter().all(|value| value.abs() < WHOLE),
    };
    // With gaps the times of the first and the last value are not those of the rows.
    if !is_exact || summary.count != u64::from(rows) {
        return None;
    }
    let value = |number: f64| match field_type {
        FieldType::Integer => FieldValue::Integer(number as i64),
        FieldType::Unsigned => FieldValue::Unsigned((number as i64).cast_unsigned()),
        _ => FieldValue::Float(number),
    };
    Some(FieldSummary {
        count: summary.count,
        min: value(summary.min),
        max: value(summary.max),
        first: (span.0, value(summary.first)),
        last: (span.1, value(summary.last)),
        sum: summary
            .sum
            .filter(|sum| sum.abs() < WHOLE)
            .map_or(TierSum::About(f64::NAN), |sum| TierSum::Exact(value(sum))),
    })
}
