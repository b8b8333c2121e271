//! OTLP metrics: `ExportMetricsServiceRequest`, as protobuf or JSON.
//!
//! Owns what a metric is called here: its name is the measurement; the attributes of resource and data point are tags, the data
//! point's before the resource's. Gauges and sums are the field `value`; histograms `count`, `sum`, `min`, `max` and one
//! field for each bound (`0.5`, `+Inf`) with what lay at or below it; exponential histograms the same without bounds;
//! summaries `count`, `sum` and one field for each quantile. All values are floats, since a metric may change between whole
//! numbers and others. Deltas are added up by [`Totals`], so that what is stored is always cumulative. Descriptions, units,
//! scopes, exemplars and attributes that are lists or bytes are left out.

use hashbrown::HashMap;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;
use uni_wire::line::{Point, Tag};
use uni_wire::{FieldValue, Timestamp};

use crate::protobuf::{Fields, Malformed, Message, Value};
use crate::{Dropped, Emitter, Error, sorted};

/// `AGGREGATION_TEMPORALITY_DELTA`.
const DELTA: u64 = 1;
/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`: the series has ended.
const NO_VALUE: u64 = 1;

/// Most attributes of a resource or a data point.
const MAX_ATTRIBUTES: usize = 256;
/// Most buckets of a histogram: each is a field.
const MAX_BUCKETS: usize = 1024;
/// A series that was silent for so long makes room for others.
const IDLE_NANOS: i64 = 3_600_000_000_000;
/// Such series are looked for no more often than this.
const SWEEP_NANOS: i64 = 60_000_000_000;

type FieldList = Vec<(Box<str>, FieldValue)>;

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Data points handed on.
    pub points: u64,
    /// What could not be.
    pub dropped: Dropped,
}

/// Running totals of series that are sent as deltas. They live as long as the process, so that a new one begins at 0 again,
/// as a counter does whose program was started anew.
#[derive(Debug)]
pub struct Totals {
    series: HashMap<Box<[u8]>, Total, foldhash::fast::RandomState>,
    bytes: usize,
    max_bytes: usize,
    /// When idle series were last looked for.
    swept: Timestamp,
}

#[derive(Debug)]
struct Total {
    /// The end of the last delta: one that is not newer has been counted.
    until: Timestamp,
    /// When it came.
    seen: Timestamp,
    sums: Vec<(Box<str>, f64)>,
}

impl Total {
    fn bytes(&self, key: &[u8]) -> usize {
        key.len() + 96 + self.sums.iter().map(|(name, _)| name.len() + 24).sum::<usize>()
    }
}

impl Totals {
    /// Totals that take about `max_bytes` at most; series beyond are dropped, unless others have been silent for an hour.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { series: HashMap::default(), bytes: 0, max_bytes, swept: Timestamp(i64::MIN) }
    }

    /// How many series are added up.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Adds the deltas in `fields` up and puts the totals in their place. What is no sum (`min`, `max`) is taken out: it is
    /// true of one interval only.
    fn add(
        &mut self,
        key: Box<[u8]>,
        fields: &mut FieldList,
        time: Timestamp,
        now: Timestamp,
    ) -> Result<(), String> {
        fields.retain(|(name, _)| !matches!(&**name, "min" | "max"));
        let fresh = Total {
            until: Timestamp(i64::MIN),
            seen: now,
            sums: fields.iter().map(|(name, _)| (name.clone(), 0.0)).collect(),
        };
        let known = self.series.get(&key).map(|total| (total.until, total.is_of(fields)));
        if known.is_some_and(|(until, _)| time <= until) {
            return Err("a delta that ends no later than the one before it: counted already".to_owned());
        }
        // other buckets than before are a new beginning
        if !known.is_some_and(|(_, same)| same) {
            if let Some((key, old)) = self.series.remove_entry(&key) {
                self.bytes -= old.bytes(&key);
            }
            self.make_room(fresh.bytes(&key), now)?;
            self.bytes += fresh.bytes(&key);
        }
        let total = self.series.entry(key).or_insert(fresh);
        (total.until, total.seen) = (time, now);
        for ((_, sum), (_, value)) in total.sums.iter_mut().zip(fields) {
            if let FieldValue::Float(delta) = value {
                *sum += *delta;
                *delta = *sum;
            }
        }
        Ok(())
    }

    fn make_room(&mut self, bytes: usize, now: Timestamp) -> Result<(), String> {
        if self.bytes + bytes > self.max_bytes && now.nanos().saturating_sub(self.swept.nanos()) > SWEEP_NANOS
        {
            self.swept = now;
            let idle_since = Timestamp(now.nanos().saturating_sub(IDLE_NANOS));
            self.series.retain(|_, total| total.seen > idle_since);
            self.bytes = self.series.iter().map(|(key, total)| total.bytes(key)).sum();
        }
        if self.bytes + bytes > self.max_bytes {
            return Err(format!("more series are sent as deltas than fit in {} bytes", self.max_bytes));
        }
        Ok(())
    }
}

impl Total {
    fn is_of(&self, fields: &FieldList) -> bool {
        self.sums.len() == fields.len() && self.sums.iter().zip(fields).all(|((a, _), (b, _))| a == b)
    }
}

/// Hands the data points of a protobuf request to `emit`. `now` is the time of points without one.
///
/// # Errors
/// When the message is damaged, or too large as points.
pub fn decode(
    message: &[u8],
    now: Timestamp,
    totals: &mut Totals,
    emit: &mut dyn FnMut(Point),
) -> Result<Summary, Error> {
    let mut reader = Reader { out: Emitter::new(emit), totals, now, points: 0 };
    for field in Fields(message) {
        if let (1, resource_metrics) = field? {
            reader.resource_metrics(resource_metrics.message()?)?;
        }
    }
    Ok(Summary { points: reader.points, dropped: reader.out.dropped })
}

/// The protobuf form of a request in JSON.
///
/// # Errors
/// When it is not such a request.
pub fn protobuf_of_json(json: &[u8]) -> Result<Vec<u8>, Error> {
    let request: ExportMetricsServiceRequest = serde_json::from_slice(json)?;
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    // data that cannot be read is left out in silence there
    if scopes.flat_map(|scope| &scope.metrics).any(|metric| metric.data.is_none()) {
        return Err(Malformed("a metric in JSON without data points that can be read").into());
    }
    Ok(request.encode_to_vec())
}

/// The answer `ExportMetricsServiceResponse`: empty, or with what was dropped.
#[must_use]
pub fn response(dropped: &Dropped) -> Vec<u8> {
    if dropped.samples == 0 {
        return Vec::new();
    }
    let mut partial = Message::default();
    partial.varint(1, dropped.samples);
    partial.bytes(2, dropped.first_reason.as_deref().unwrap_or_default().as_bytes());
    let mut response = Message::default();
    response.bytes(1, &partial.0);
    response.0
}

/// `google.rpc.Status`, the body of an error.
#[must_use]
pub fn status(code: u8, message: &str) -> Vec<u8> {
    let mut status = Message::default();
    status.varint(1, code.into());
    status.bytes(2, message.as_bytes());
    status.0
}

struct Reader<'e> {
    out: Emitter<'e>,
    totals: &'e mut Totals,
    now: Timestamp,
    points: u64,
}

/// What the data points of a metric are, by the field of `Metric` that they stand in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Histogram,
    Exponential,
    Summary,
}

/// The attributes of a resource or a data point; one more than allowed tells that there were too many.
#[derive(Clone, Default)]
struct Attributes(Vec<(Box<str>, Box<str>)>);

/// One data point, read.
#[derive(Default)]
struct DataPoint {
    attributes: Attributes,
    fields: FieldList,
    nanos: u64,
    flags: u64,
}

impl Reader<'_> {
    fn resource_metrics(&mut self, message: Fields<'_>) -> Result<(), Error> {
        let mut resource = Attributes::default();
        for field in message {
            if let (1, value) = field? {
                for field in value.message()? {
                    if let (1, attribute) = field? {
                        resource.read(attribute.message()?)?;
                    }
                }
            }
        }
        for field in message {
            let (2, scope_metrics) = field? else { continue };
            for field in scope_metrics.message()? {
                if let (2, metric) = field? {
                    self.metric(&resource, metric.message()?)?;
                }
            }
        }
        Ok(())
    }

    fn metric(&mut self, resource: &Attributes, metric: Fields<'_>) -> Result<(), Error> {
        let mut name = "";
        for field in metric {
            if let (1, value) = field? {
                name = value.text()?;
            }
        }
        for field in metric {
            let (number, value) = field?;
            let kind = match number {
                5 | 7 => Kind::Number,
                9 => Kind::Histogram,
                10 => Kind::Exponential,
                11 => Kind::Summary,
                _ => continue,
            };
            self.data(resource, name, kind, value.message()?)?;
        }
        Ok(())
    }

    fn data(&mut self, resource: &Attributes, name: &str, kind: Kind, data: Fields<'_>) -> Result<(), Error> {
        let mut temporality = 0;
        for field in data {
            if let (2, value) = field? {
                temporality = value.varint()?;
            }
        }
        for field in data {
            let (1, value) = field? else { continue };
            let point = match kind {
                Kind::Number => number_point(value.message()?)?,
                Kind::Histogram => histogram_point(value.message()?)?,
                Kind::Exponential => exponential_point(value.message()?)?,
                Kind::Summary => summary_point(value.message()?)?,
            };
            if point.flags & NO_VALUE == 0 {
                self.point(resource, name, temporality == DELTA, point)?;
            }
        }
        Ok(())
    }

    fn point(
        &mut self,
        resource: &Attributes,
        name: &str,
        delta: bool,
        mut point: DataPoint,
    ) -> Result<(), Error> {
        let before = point.fields.len();
        point.fields.retain(|(_, value)| !matches!(value, FieldValue::Float(number) if !number.is_finite()));
        let time = match i64::try_from(point.nanos) {
            Ok(0) => Ok(self.now),
            Ok(nanos) => Ok(Timestamp(nanos)),
            Err(_) => Err("a time out of range".to_owned()),
        };
        let prepared = || {
            if name.is_empty() {
                return Err("a metric without a name".to_owned());
            }
            if point.fields.is_empty() {
                return Err(match before {
                    0 => format!("a data point of {name:?} without a value"),
                    _ => format!("a data point of {name:?} that is not finite"),
                });
            }
            let time = time?;
            let tags = point.attributes.over(resource)?;
            if delta {
                self.totals.add(series_key(name, &tags), &mut point.fields, time, self.now)?;
            }
            Ok((tags, time))
        };
        match prepared() {
            Ok((tags, time)) => {
                self.points += 1;
                self.out.point(name, &tags, point.fields, time)
            }
            Err(reason) => {
                self.out.dropped(1, || reason);
                Ok(())
            }
        }
    }
}

/// Names a series in [`Totals`]; lengths keep what is joined apart.
fn series_key(name: &str, tags: &[Tag]) -> Box<[u8]> {
    let mut key = Vec::new();
    let texts = tags.iter().flat_map(|(key, value)| [&**key, &**value]);
    for text in std::iter::once(name).chain(texts) {
        key.extend_from_slice(&text.len().to_le_bytes());
        key.extend_from_slice(text.as_bytes());
    }
    key.into()
}

impl Attributes {
    /// Reads a `KeyValue`; of a key that occurs twice the last counts.
    fn read(&mut self, attribute: Fields<'_>) -> Result<(), Malformed> {
        let (mut key, mut text) = ("", None);
        for field in attribute {
            match field? {
                (1, value) => key = value.text()?,
                (2, value) => text = simple_text(value.message()?)?,
                _ => {}
            }
        }
        let Some(text) = text.filter(|_| !key.is_empty() && self.0.len() <= MAX_ATTRIBUTES) else {
            return Ok(());
        };
        self.0.push((key.into(), text));
        Ok(())
    }

    /// The tags of a data point with these attributes; where the resource says otherwise, these count.
    fn over(&self, resource: &Self) -> Result<Vec<Tag>, String> {
        if self.0.len().max(resource.0.len()) > MAX_ATTRIBUTES {
            return Err(format!("more than {MAX_ATTRIBUTES} attributes"));
        }
        let mut tags: Vec<(&str, &str)> =
            resource.0.iter().chain(&self.0).map(|(k, v)| (&**k, &**v)).collect();
        // stable, so that of the same key the last is the point's own
        tags.sort_by_key(|(key, _)| *key);
        tags.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                *earlier = *later;
            }
            same
        });
        sorted(tags)
    }
}

/// The text of an `AnyValue` that is one value; `None` of lists, maps and bytes.
fn simple_text(value: Fields<'_>) -> Result<Option<Box<str>>, Malformed> {
    let mut text = None;
    for field in value {
        text = match field? {
            (1, value) => Some(value.text()?.into()),
            (2, value) => Some(if value.varint()? == 0 { "false" } else { "true" }.into()),
            (3, value) => Some(value.int()?.to_string().into()),
            (4, value) => Some(value.double()?.to_string().into()),
            _ => None,
        };
    }
    Ok(text)
}

fn float(name: impl Into<Box<str>>, number: f64) -> (Box<str>, FieldValue) {
    (name.into(), FieldValue::Float(number))
}

fn number_point(message: Fields<'_>) -> Result<DataPoint, Malformed> {
    let mut point = DataPoint::default();
    for field in message {
        match field? {
            (3, value) => point.nanos = value.fixed64()?,
            (4, value) => point.fields = vec![float("value", value.double()?)],
            // beyond 2^53 the last digits are lost
            (6, value) => point.fields = vec![float("value", value.fixed64()?.cast_signed() as f64)],
            (7, value) => point.attributes.read(value.message()?)?,
            (8, value) => point.flags = value.varint()?,
            _ => {}
        }
    }
    Ok(point)
}

fn histogram_point(message: Fields<'_>) -> Result<DataPoint, Malformed> {
    let mut point = DataPoint::default();
    let (mut counts, mut bounds) = (Vec::new(), Vec::new());
    for field in message {
        match field? {
            (3, value) => point.nanos = value.fixed64()?,
            (4, value) => point.fields.push(float("count", value.fixed64()? as f64)),
            (5, value) => point.fields.push(float("sum", value.double()?)),
            (6, value) => value.each_fixed64(|count| counts.push(count))?,
            (7, value) => value.each_fixed64(|bits| bounds.push(f64::from_bits(bits)))?,
            (9, value) => point.attributes.read(value.message()?)?,
            (10, value) => point.flags = value.varint()?,
            (11, value) => point.fields.push(float("min", value.double()?)),
            (12, value) => point.fields.push(float("max", value.double()?)),
            _ => {}
        }
    }
    if !counts.is_empty() && counts.len() != bounds.len() + 1 {
        return Err(Malformed("a histogram with more or fewer counts than bounds"));
    }
    if counts.len() > MAX_BUCKETS {
        return Err(Malformed("a histogram of more than 1024 buckets"));
    }
    let names = bounds.iter().map(f64::to_string).chain(std::iter::once("+Inf".to_owned()));
    let mut below = 0.0;
    for (name, count) in names.zip(counts) {
        below += count as f64;
        point.fields.push(float(name, below));
    }
    Ok(point)
}

fn exponential_point(message: Fields<'_>) -> Result<DataPoint, Malformed> {
    let mut point = DataPoint::default();
    for field in message {
        match field? {
            (1, value) => point.attributes.read(value.message()?)?,
            (3, value) => point.nanos = value.fixed64()?,
            (4, value) => point.fields.push(float("count", value.fixed64()? as f64)),
            (5, value) => point.fields.push(float("sum", value.double()?)),
            (10, value) => point.flags = value.varint()?,
            (12, value) => point.fields.push(float("min", value.double()?)),
            (13, value) => point.fields.push(float("max", value.double()?)),
            _ => {}
        }
    }
    Ok(point)
}

fn summary_point(message: Fields<'_>) -> Result<DataPoint, Malformed> {
    let mut point = DataPoint::default();
    for field in message {
        match field? {
            (3, value) => point.nanos = value.fixed64()?,
            (4, value) => point.fields.push(float("count", value.fixed64()? as f64)),
            (5, value) => point.fields.push(float("sum", value.double()?)),
            (6, value) => point.fields.push(quantile(value)?),
            (7, value) => point.attributes.read(value.message()?)?,
            (8, value) => point.flags = value.varint()?,
            _ => {}
        }
    }
    Ok(point)
}

fn quantile(value: Value<'_>) -> Result<(Box<str>, FieldValue), Malformed> {
    let (mut quantile, mut number) = (0.0, 0.0);
    for field in value.message()? {
        match field? {
            (1, value) => quantile = value.double()?,
            (2, value) => number = value.double()?,
            _ => {}
        }
    }
    Ok(float(quantile.to_string(), number))
}
