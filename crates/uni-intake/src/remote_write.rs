//! Prometheus' remote write: `prometheus.WriteRequest` (1.0) and `io.prometheus.write.v2.Request` (2.0), each packed with
//! snappy.
//!
//! Owns what a series is called here: the label `__name__` is the measurement, the others are tags, a sample is the field
//! `value`, a native histogram the fields `count` and `sum` (its buckets are not kept). Markers that a series has ended
//! (staleness) are left out, since points have no end; exemplars and metadata (type, help, unit) too. NaN and infinite
//! samples have no place in the store and are dropped.

use uni_wire::line::{Point, Tag};
use uni_wire::{FieldValue, Timestamp};

use crate::protobuf::{Fields, Malformed};
use crate::{Dropped, Emitter, Error, sorted};

/// The bits of the NaN by which Prometheus says that a series has ended.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Which of the two messages a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// What became of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Samples handed on, markers of staleness counted with them: they were understood.
    pub samples: u64,
    /// Native histograms handed on.
    pub histograms: u64,
    /// What could not be handed on.
    pub dropped: Dropped,
}

/// Unpacks a body that takes at most `max_bytes` then.
///
/// # Errors
/// When it is not snappy's block format, or says that it is longer.
pub fn unpack(body: &[u8], max_bytes: usize) -> Result<Vec<u8>, Error> {
    let bytes = snap::raw::decompress_len(body)?;
    if bytes > max_bytes {
        return Err(Error::TooLong { bytes, max: max_bytes });
    }
    Ok(snap::raw::Decoder::new().decompress_vec(body)?)
}

/// Hands the samples of an unpacked message to `emit`.
///
/// # Errors
/// When the message is damaged, or too large as points.
pub fn decode(version: Version, message: &[u8], emit: &mut dyn FnMut(Point)) -> Result<Summary, Error> {
    let mut reader = Reader { out: Emitter::new(emit), symbols: Vec::new(), samples: 0, histograms: 0 };
    let (symbols, series) = match version {
        Version::V1 => (None, 1),
        Version::V2 => (Some(4), 5),
    };
    // a field may stand anywhere in its message, so that the symbols are looked for first
    if let Some(symbols) = symbols {
        for field in Fields(message) {
            let (number, value) = field?;
            if number == symbols {
                reader.symbols.push(value.text()?);
            }
        }
    }
    for field in Fields(message) {
        let (number, value) = field?;
        if number == series {
            reader.series(version, value.message()?)?;
        }
    }
    let Reader { out, samples, histograms, .. } = reader;
    Ok(Summary { samples, histograms, dropped: out.dropped })
}

struct Reader<'a, 'e> {
    out: Emitter<'e>,
    /// The texts of 2.0, by their numbers.
    symbols: Vec<&'a str>,
    samples: u64,
    histograms: u64,
}

impl<'a> Reader<'a, '_> {
    fn series(&mut self, version: Version, series: Fields<'a>) -> Result<(), Error> {
        let labels = match version {
            Version::V1 => labels_v1(series)?,
            Version::V2 => self.labels_v2(series)?,
        };
        let name = labels.iter().find(|(key, _)| *key == "__name__").map_or("", |(_, name)| name);
        let tags = labels.iter().copied().filter(|(key, _)| *key != "__name__").collect();
        let tags = match (sorted(tags), name) {
            (Err(reason), _) => Err(reason),
            (Ok(_), "") => Err("a series without the label __name__".to_owned()),
            (Ok(tags), _) => Ok(tags),
        };
        let histograms = match version {
            Version::V1 => 4,
            Version::V2 => 3,
        };
        for field in series {
            let (number, value) = field?;
            match &tags {
                Ok(tags) if number == 2 => self.sample(name, tags, value.message()?)?,
                Ok(tags) if number == histograms => self.histogram(name, tags, value.message()?)?,
                Err(reason) if number == 2 || number == histograms => self.out.dropped(1, || reason.clone()),
                _ => {}
            }
        }
        Ok(())
    }

    fn labels_v2(&self, series: Fields<'a>) -> Result<Vec<(&'a str, &'a str)>, Malformed> {
        let (mut labels, mut key, mut fault) = (Vec::new(), None, None);
        for field in series {
            let (1, value) = field? else { continue };
            value.each_varint(|number| {
                let symbol = usize::try_from(number).ok().and_then(|number| self.symbols.get(number));
                match (symbol, key.take()) {
                    (None, _) => fault = Some(Malformed("a label refers to a symbol that there is not")),
                    (Some(symbol), None) => key = Some(*symbol),
                    (Some(symbol), Some(key)) => labels.push((key, *symbol)),
                }
            })?;
        }
        match (fault, key) {
            (Some(fault), _) => Err(fault),
            (None, Some(_)) => Err(Malformed("a label without a value")),
            (None, None) => Ok(labels),
        }
    }

    fn sample(&mut self, name: &str, tags: &[Tag], sample: Fields<'a>) -> Result<(), Error> {
        let (mut number, mut millis) = (0.0_f64, 0);
        for field in sample {
            match field? {
                (1, value) => number = value.double()?,
                (2, value) => millis = value.int()?,
                _ => {}
            }
        }
        if number.to_bits() == STALE_BITS {
            self.samples += 1;
            return Ok(());
        }
        let Some(time) = instant(millis).filter(|_| number.is_finite()) else {
            self.out.dropped(1, || unfit(name, number, millis));
            return Ok(());
        };
        self.samples += 1;
        self.out.point(name, tags, vec![("value".into(), FieldValue::Float(number))], time)
    }

    fn histogram(&mut self, name: &str, tags: &[Tag], histogram: Fields<'a>) -> Result<(), Error> {
        let (mut count, mut sum, mut millis) = (0.0, 0.0_f64, 0);
        for field in histogram {
            match field? {
                // beyond 2^53 the last digits of a count are lost
                (1, value) => count = value.varint()? as f64,
                (2, value) => count = value.double()?,
                (3, value) => sum = value.double()?,
                (15, value) => millis = value.int()?,
                _ => {}
            }
        }
        if sum.to_bits() == STALE_BITS {
            self.histograms += 1;
            return Ok(());
        }
        let Some(time) = instant(millis).filter(|_| sum.is_finite() && count.is_finite()) else {
            self.out.dropped(1, || unfit(name, sum, millis));
            return Ok(());
        };
        self.histograms += 1;
        let fields = [("count", count), ("sum", sum)];
        let fields = fields.map(|(key, number)| (key.into(), FieldValue::Float(number)));
        self.out.point(name, tags, fields.into(), time)
    }
}

fn unfit(name: &str, number: f64, millis: i64) -> String {
    format!("a sample of {name:?}, {number} at {millis} ms, is not finite or its time is out of range")
}

fn instant(millis: i64) -> Option<Timestamp> {
    millis.checked_mul(1_000_000).map(Timestamp)
}

fn labels_v1(series: Fields<'_>) -> Result<Vec<(&str, &str)>, Malformed> {
    let mut labels = Vec::new();
    for field in series {
        let (1, label) = field? else { continue };
        let (mut key, mut text) = ("", "");
        for field in label.message()? {
            match field? {
                (1, value) => key = value.text()?,
                (2, value) => text = value.text()?,
                _ => {}
            }
        }
        labels.push((key, text));
    }
    Ok(labels)
}
