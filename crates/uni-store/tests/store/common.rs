//! What the tests of the store share: short ways to make points and to read a whole store.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use uni_store::{Point, Store};
use uni_wire::{FieldValue, Timestamp};

pub(crate) const DB: &str = "uni";

/// Values of one series at one time, by field.
pub(crate) type Values = BTreeMap<String, FieldValue>;
/// Rows of a database by measurement, tags and time.
pub(crate) type Contents = BTreeMap<(String, String), BTreeMap<i64, Values>>;

pub(crate) fn integer(value: i64) -> FieldValue {
    FieldValue::Integer(value)
}

/// A point of the series `measurement,vm=<vm>`.
pub(crate) fn point(measurement: &str, vm: &str, fields: &[(&str, FieldValue)], time: i64) -> Point {
    Point {
        measurement: measurement.into(),
        tags: vec![("vm".into(), vm.into())],
        fields: fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect(),
        time: Timestamp(time),
    }
}

fn tag_text(tags: &[(Box<str>, Box<str>)]) -> String {
    tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Everything a database shows. Checks on the way that rows ascend in time and that no row is empty.
pub(crate) fn contents(store: &Store, database: &str) -> Contents {
    let mut all = Contents::new();
    for measurement in store.measurements(database) {
        let fields = store.fields(database, &measurement);
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        for series in store.series(database, &measurement, &[]) {
            let mut rows = BTreeMap::new();
            let mut last = None;
            let mut visit = |time: Timestamp, values: &[Option<FieldValue>]| {
                assert!(last < Some(time), "times must ascend");
                last = Some(time);
                let values = names.iter().zip(values);
                let values = values.filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
                rows.insert(time.nanos(), values.collect::<Values>());
                ControlFlow::Continue(())
            };
            let (from, to) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
            store.scan(database, series.id, &names, from, to, &mut visit).expect("an undamaged scan");
            assert!(rows.values().all(|row| !row.is_empty()), "an empty row");
            all.insert((measurement.clone(), tag_text(&series.tags)), rows);
        }
    }
    all
}

/// How many rows a database shows.
pub(crate) fn row_count(store: &Store, database: &str) -> usize {
    contents(store, database).values().map(BTreeMap::len).sum()
}

/// The files below a folder whose names end so, sorted.
pub(crate) fn folder_files(dir: &std::path::Path, extension: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(folder_files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}
