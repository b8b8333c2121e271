//! What must hold for any bytes: shared by the property tests here, by the replay of seeds, and by the fuzz targets in
//! `fuzz/`.

use uni_intake::otlp::{self, Totals};
use uni_intake::remote_write::{self, Version};
use uni_wire::line::Point;
use uni_wire::{FieldValue, Timestamp};

/// Bytes of running totals; few, so that they run out.
const MAX_TOTALS_BYTES: usize = 10_000;

/// A point is one that the store could take: sorted tags, keys distinct, nothing empty, numbers finite.
fn check_point(point: &Point) {
    assert!(!point.measurement.is_empty() && !point.fields.is_empty());
    assert!(point.tags.windows(2).all(|pair| pair[0].0 < pair[1].0), "{point:?}");
    assert!(point.tags.iter().all(|(key, value)| !key.is_empty() && !value.is_empty() && &**key != "time"));
    let finite = |value: &FieldValue| matches!(value, FieldValue::Float(number) if number.is_finite());
    assert!(point.fields.iter().all(|(key, value)| !key.is_empty() && finite(value)), "{point:?}");
}

/// Either message of remote write, unpacked and packed: as many points as are said, each fit for the store.
pub(crate) fn check_remote_write(bytes: &[u8]) {
    for version in [Version::V1, Version::V2] {
        let mut points = 0;
        let decoded = remote_write::decode(version, bytes, &mut |point| {
            check_point(&point);
            points += 1;
        });
        if let Ok(summary) = decoded {
            // markers of staleness are understood, and no points
            assert!(points <= summary.samples + summary.histograms);
            assert_eq!(summary.dropped.samples > 0, summary.dropped.first_reason.is_some());
        }
    }
    if let Ok(message) = remote_write::unpack(bytes, 1 << 20) {
        assert!(message.len() <= 1 << 20);
    }
}

/// OTLP, sent twice: what is a delta is not counted twice, and the totals stay bounded.
pub(crate) fn check_otlp(bytes: &[u8]) {
    let mut totals = Totals::new(MAX_TOTALS_BYTES);
    for _ in 0..2 {
        let mut points = 0;
        let decoded = otlp::decode(bytes, Timestamp(1), &mut totals, &mut |point| {
            check_point(&point);
            points += 1;
        });
        if let Ok(summary) = decoded {
            assert_eq!(points, summary.points);
            assert!(!otlp::response(&summary.dropped).is_empty() || summary.dropped.samples == 0);
        }
    }
    assert!(totals.len() <= MAX_TOTALS_BYTES / 96);
    if let Ok(message) = otlp::protobuf_of_json(bytes) {
        let decoded = otlp::decode(&message, Timestamp(1), &mut totals, &mut |point| check_point(&point));
        assert!(!matches!(decoded, Err(uni_intake::Error::Json(_))));
    }
}
