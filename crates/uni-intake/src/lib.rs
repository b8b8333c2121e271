//! What others push as points: Prometheus' remote write (1.0 and 2.0) and OTLP metrics.
//!
//! Owns the two formats and what their samples are called here: [`remote_write`] and [`otlp`]. Never stores a point, opens a
//! socket or reads a clock. A message is read where it lies and handed on point by point, so that a small body cannot
//! become a large tree; what the points of one body may take together is bounded all the same, by [`MAX_POINTS_BYTES`].

pub mod otlp;
mod protobuf;
pub mod remote_write;

use uni_wire::line::{Point, Tag};
use uni_wire::{FieldValue, Timestamp};

pub use protobuf::Malformed;

/// Most bytes that the points of one body may take together, their names counted for each point anew. Labels are said once
/// for many samples, so that a body could otherwise become thousands of times its size.
pub const MAX_POINTS_BYTES: usize = 512 << 20;
/// Most bytes of the tags of one series; about as much as a line may have.
pub const MAX_TAGS_BYTES: usize = 64 << 10;

/// Why a body was given up. What came before the fault has been handed on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not what its `Content-Encoding` says.
    #[error("not snappy's block format: {0}")]
    Snappy(#[from] snap::Error),
    /// Unpacked it is too long.
    #[error("unpacked it has {bytes} bytes, {max} are allowed; send it in parts")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// It is no message of this kind.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is no JSON of this kind.
    #[error("not OTLP's JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// See [`MAX_POINTS_BYTES`].
    #[error("its points take more than {MAX_POINTS_BYTES} bytes; send it in parts")]
    TooMuch,
}

/// Where points go, and what a body has used up and left out so far.
struct Emitter<'a> {
    emit: &'a mut dyn FnMut(Point),
    left_bytes: usize,
    dropped: Dropped,
}

/// What was left out, with the first reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Samples or data points that became no point.
    pub samples: u64,
    /// Why the first of them did not.
    pub first_reason: Option<String>,
}

impl<'a> Emitter<'a> {
    fn new(emit: &'a mut dyn FnMut(Point)) -> Self {
        Self { emit, left_bytes: MAX_POINTS_BYTES, dropped: Dropped::default() }
    }

    fn point(
        &mut self,
        measurement: &str,
        tags: &[Tag],
        fields: Vec<(Box<str>, FieldValue)>,
        time: Timestamp,
    ) -> Result<(), Error> {
        let names = |text: &str| text.len() + 16;
        let bytes = names(measurement)
            + tags.iter().map(|(key, value)| names(key) + names(value)).sum::<usize>()
            + fields.iter().map(|(key, _)| names(key) + 32).sum::<usize>();
        self.left_bytes = self.left_bytes.checked_sub(bytes).ok_or(Error::TooMuch)?;
        let tags = tags.to_vec();
        (self.emit)(Point { measurement: measurement.into(), tags, fields, time, stamped: true });
        Ok(())
    }

    fn dropped(&mut self, samples: u64, reason: impl FnOnce() -> String) {
        if samples > 0 {
            self.dropped.samples += samples;
            self.dropped.first_reason.get_or_insert_with(reason);
        }
    }
}

/// Tags in the order the store wants, or what is wrong with them. Tags without a value say nothing.
fn sorted(mut tags: Vec<(&str, &str)>) -> Result<Vec<Tag>, String> {
    tags.retain(|(_, value)| !value.is_empty());
    tags.sort_unstable();
    if let Some(pair) = tags.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("label {:?} occurs twice", pair[0].0));
    }
    let bytes: usize = tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_TAGS_BYTES {
        return Err(format!("labels of {bytes} bytes, {MAX_TAGS_BYTES} are allowed"));
    }
    if let Some((key, _)) = tags.iter().find(|(key, _)| key.is_empty() || *key == "time") {
        return Err(format!("a label may not be called {key:?}"));
    }
    Ok(tags.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}
