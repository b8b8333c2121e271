//! What samples and data points are called here, and how deltas are added up.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use uni_intake::otlp::{self, Totals};
use uni_intake::remote_write::{self, Version};
use uni_wire::line::Point;
use uni_wire::{FieldValue, Timestamp};

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

fn request(data: metric::Data) -> Vec<u8> {
    let metric = Metric { name: "m".into(), data: Some(data), ..Metric::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() };
    let resource =
        Resource { attributes: vec![text("a", "resource"), text("vm", "web")], ..Resource::default() };
    let resource = ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![scope],
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }.encode_to_vec()
}

fn decoded(message: &[u8], totals: &mut Totals) -> (Vec<Point>, otlp::Summary) {
    let mut points = Vec::new();
    let summary =
        otlp::decode(message, Timestamp(7), totals, &mut |point| points.push(point)).expect("a message");
    (points, summary)
}

fn number(nanos: u64, value: i64) -> NumberDataPoint {
    NumberDataPoint {
        time_unix_nano: nanos,
        value: Some(number_data_point::Value::AsInt(value)),
        ..NumberDataPoint::default()
    }
}

fn sum(nanos: u64, value: i64) -> Vec<u8> {
    request(metric::Data::Sum(Sum {
        data_points: vec![number(nanos, value)],
        aggregation_temporality: AggregationTemporality::Delta.into(),
        is_monotonic: true,
    }))
}

fn value(point: &Point, field: &str) -> f64 {
    match point.field(field) {
        Some(FieldValue::Float(number)) => *number,
        other => panic!("{field}: {other:?}"),
    }
}

#[test]
fn a_data_points_attributes_count_before_its_resources() {
    let mut point = number(0, 3);
    point.attributes = vec![
        text("a", "point"),
        attribute("n", any_value::Value::IntValue(-4)),
        attribute("b", any_value::Value::BoolValue(true)),
        attribute("bytes", any_value::Value::BytesValue(vec![1])),
    ];
    let message = request(metric::Data::Gauge(Gauge { data_points: vec![point] }));
    let (points, summary) = decoded(&message, &mut Totals::new(0));
    assert_eq!((summary.points, summary.dropped.samples), (1, 0));
    let tags: Vec<_> = points[0].tags.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(tags, [("a", "point"), ("b", "true"), ("n", "-4"), ("vm", "web")]);
    assert_eq!((value(&points[0], "value"), points[0].time), (3.0, Timestamp(7)));
}

#[test]
fn deltas_are_added_up_once() {
    let mut totals = Totals::new(10_000);
    for (nanos, delta, total) in
        [(10, 5, Some(5.0)), (20, 2, Some(7.0)), (20, 2, None), (15, 1, None), (30, 1, Some(8.0))]
    {
        let (points, summary) = decoded(&sum(nanos, delta), &mut totals);
        assert_eq!(points.first().map(|point| value(point, "value")), total, "{nanos}");
        assert_eq!(summary.dropped.samples, u64::from(total.is_none()));
    }
    assert_eq!(totals.len(), 1);
}

#[test]
fn totals_beyond_their_bytes_are_refused_until_others_are_idle() {
    let mut totals = Totals::new(200);
    assert_eq!(decoded(&sum(10, 1), &mut totals).1.points, 1);
    let other = {
        let mut point = number(10, 1);
        point.attributes = vec![text("a", "other")];
        request(metric::Data::Sum(Sum {
            data_points: vec![point],
            aggregation_temporality: AggregationTemporality::Delta.into(),
            is_monotonic: true,
        }))
    };
    let (points, summary) = decoded(&other, &mut totals);
    assert!(points.is_empty() && summary.dropped.first_reason.expect("a reason").contains("deltas"));
    let later = Timestamp(7 + 3_700_000_000_000);
    let summary = otlp::decode(&other, later, &mut totals, &mut |_| {}).expect("a message");
    assert_eq!((summary.points, totals.len()), (1, 1));
}

#[test]
fn a_histogram_says_what_lies_at_or_below_each_bound() {
    let histogram = |nanos, temporality: AggregationTemporality| {
        let point = HistogramDataPoint {
            time_unix_nano: nanos,
            count: 6,
            sum: Some(20.0),
            min: Some(0.1),
            bucket_counts: vec![1, 2, 3],
            explicit_bounds: vec![0.5, 10.0],
            ..HistogramDataPoint::default()
        };
        request(metric::Data::Histogram(Histogram {
            data_points: vec![point],
            aggregation_temporality: temporality.into(),
        }))
    };
    let mut totals = Totals::new(10_000);
    let (points, _) = decoded(&histogram(1, AggregationTemporality::Cumulative), &mut totals);
    let fields = ["count", "sum", "0.5", "10", "+Inf", "min"].map(|field| value(&points[0], field));
    assert_eq!(fields, [6.0, 20.0, 1.0, 3.0, 6.0, 0.1]);
    for (nanos, times) in [(2, 1.0), (3, 2.0)] {
        let (points, _) = decoded(&histogram(nanos, AggregationTemporality::Delta), &mut totals);
        let fields = ["count", "sum", "0.5", "10", "+Inf"].map(|field| value(&points[0], field));
        assert_eq!(fields, [6.0, 20.0, 1.0, 3.0, 6.0].map(|once| once * times));
        assert_eq!(points[0].field("min"), None, "the least of one interval is not that of all");
    }
}

/// `prometheus.WriteRequest`, spelled for prost.
mod prometheus {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(crate) timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(crate) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "4")]
        pub(crate) histograms: Vec<Histogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Label {
        #[prost(string, tag = "1")]
        pub(crate) name: String,
        #[prost(string, tag = "2")]
        pub(crate) value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Sample {
        #[prost(double, tag = "1")]
        pub(crate) value: f64,
        #[prost(int64, tag = "2")]
        pub(crate) timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Histogram {
        #[prost(uint64, tag = "1")]
        pub(crate) count_int: u64,
        #[prost(double, tag = "3")]
        pub(crate) sum: f64,
        #[prost(int64, tag = "15")]
        pub(crate) timestamp: i64,
    }
}

#[test]
fn remote_writes_labels_are_tags_and_its_samples_values() {
    use prometheus::{Histogram, Label, Sample, TimeSeries, WriteRequest};
    let labels = |labels: &[(&str, &str)]| {
        labels.iter().map(|&(name, value)| Label { name: name.into(), value: value.into() }).collect()
    };
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let sample = |value, timestamp| Sample { value, timestamp };
    let request = WriteRequest {
        timeseries: vec![
            TimeSeries {
                labels: labels(&[("vm", "web"), ("__name__", "up"), ("empty", ""), ("job", "é")]),
                samples: vec![sample(1.0, -5), sample(f64::INFINITY, 6), sample(stale, 7)],
                histograms: vec![Histogram { count_int: 3, sum: 4.5, timestamp: 8 }],
            },
            TimeSeries { labels: labels(&[("a", "1")]), samples: vec![sample(1.0, 1)], histograms: vec![] },
            TimeSeries {
                labels: labels(&[("__name__", "m"), ("a", "1"), ("a", "2")]),
                samples: vec![sample(1.0, 1)],
                histograms: vec![],
            },
        ],
    };
    let mut points = Vec::new();
    let summary =
        remote_write::decode(Version::V1, &request.encode_to_vec(), &mut |point| points.push(point))
            .expect("a message");
    assert_eq!((summary.samples, summary.histograms, summary.dropped.samples), (2, 1, 3));
    assert_eq!(points.len(), 2);
    let tags: Vec<_> = points[0].tags.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!((&*points[0].measurement, &tags[..]), ("up", &[("job", "é"), ("vm", "web")][..]));
    assert_eq!((value(&points[0], "value"), points[0].time), (1.0, Timestamp(-5_000_000)));
    assert_eq!((value(&points[1], "count"), value(&points[1], "sum")), (3.0, 4.5));
}

#[test]
fn a_body_may_not_become_thousands_of_times_its_size() {
    use prometheus::{Label, Sample, TimeSeries, WriteRequest};
    let label = |name: &str, value: String| Label { name: name.into(), value };
    let series = TimeSeries {
        labels: vec![label("__name__", "m".into()), label("long", "x".repeat(60_000))],
        samples: vec![Sample { value: 1.0, timestamp: 1 }; 100_000],
        histograms: vec![],
    };
    let message = WriteRequest { timeseries: vec![series] }.encode_to_vec();
    let mut bytes = 0;
    let outcome = remote_write::decode(Version::V1, &message, &mut |point| bytes += point.tags[0].1.len());
    assert!(matches!(outcome, Err(uni_intake::Error::TooMuch)));
    assert!(bytes <= uni_intake::MAX_POINTS_BYTES && message.len() < 3_000_000);
}
