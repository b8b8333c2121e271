//! The curves of one VM: history from the store by the same query engine that Grafana's queries go through,
//! the newest minutes at one point a second from memory.
//!
//! Owns the list of curves and the choice of the step. Never reads the store otherwise.

use std::collections::BTreeMap;

use uni_api::page::{Charts, Curve, Mark};
use uni_query::{Changes, Epoch, Limits, Request};

use super::App;
use crate::clock;
use crate::ingest::DEFAULT_DATABASE;

/// Points a curve has at most; more than a chart has pixels is of no use.
const MAX_POINTS: i64 = 600;
/// The longest range: a year.
const MAX_RANGE_SECONDS: i64 = 366 * 86_400;
/// Lifecycle events shown at most.
const MAX_MARKS: usize = 500;

/// A curve's key and the query that gives it. `$vm` is the VM's name, `$where` the time range, `$every` the
/// step; names of VMs hold no quote, so that they stand in a string literal as they are.
const CURVES: &[(&str, &str)] = &[
    (
        "cpu_pct",
        "SELECT non_negative_derivative(last(runtime), 1s) / 10000 FROM kinfo_mem $where $every fill(none)",
    ),
    ("host_memory_bytes", "SELECT last(rss_bytes) FROM kinfo_mem $where $every fill(none)"),
    ("guest_heap_bytes", "SELECT last(heap_bytes) FROM heap $where $every fill(none)"),
    ("guest_live_bytes", "SELECT last(heap_live_bytes) FROM heap $where $every fill(none)"),
    (
        "net_rx_bps:service",
        "SELECT non_negative_derivative(last(host_to_vm_bytes), 1s) * 8 FROM interface $where AND bridge = 'service' $every fill(none)",
    ),
    (
        "net_tx_bps:service",
        "SELECT non_negative_derivative(last(vm_to_host_bytes), 1s) * 8 FROM interface $where AND bridge = 'service' $every fill(none)",
    ),
    (
        "net_rx_bps:management",
        "SELECT non_negative_derivative(last(host_to_vm_bytes), 1s) * 8 FROM interface $where AND bridge = 'management' $every fill(none)",
    ),
    (
        "net_tx_bps:management",
        "SELECT non_negative_derivative(last(vm_to_host_bytes), 1s) * 8 FROM interface $where AND bridge = 'management' $every fill(none)",
    ),
    (
        "http_2xx",
        "SELECT non_negative_derivative(last(\"2xx\"), 1s) FROM http_response $where $every fill(none)",
    ),
    (
        "http_3xx",
        "SELECT non_negative_derivative(last(\"3xx\"), 1s) FROM http_response $where $every fill(none)",
    ),
    (
        "http_4xx",
        "SELECT non_negative_derivative(last(\"4xx\"), 1s) FROM http_response $where $every fill(none)",
    ),
    (
        "http_5xx",
        "SELECT non_negative_derivative(last(\"5xx\"), 1s) FROM http_response $where $every fill(none)",
    ),
    ("log_errors", "SELECT last(errors) FROM logs $where $every fill(none)"),
    ("log_warnings", "SELECT last(warnings) FROM logs $where $every fill(none)"),
];

/// The curves of the last `seconds` of `vm`.
pub(crate) fn charts(app: &App, vm: &str, seconds: i64) -> Charts {
    let range = seconds.clamp(60, MAX_RANGE_SECONDS);
    let to = clock::now().nanos().div_euclid(1_000_000);
    let from = to - range * 1000;
    let step = step_seconds(range, i64::try_from(app.interval.as_secs()).unwrap_or(i64::MAX));
    let mut newest = app.live.curves(vm, from);
    let mut series = BTreeMap::new();
    for (key, template) in CURVES {
        let newest = newest.remove(key).unwrap_or_default();
        // where there is a point a second in memory, history ends
        let until = newest.times.first().map_or(to, |first| first - 1);
        let mut curve = history(app, template, vm, from, until, step);
        curve.times.extend(newest.times);
        curve.values.extend(newest.values);
        if !curve.times.is_empty() {
            series.insert((*key).to_owned(), curve);
        }
    }
    Charts { from, to, step: step * 1000, series, marks: marks(app, vm, from, to) }
}

/// The least whole number of seconds that is no finer than the data and gives few enough points.
pub(super) fn step_seconds(range: i64, interval: i64) -> i64 {
    const STEPS: [i64; 14] = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 21_600, 86_400];
    let least = interval.max((range + MAX_POINTS - 1) / MAX_POINTS);
    STEPS.into_iter().find(|&step| step >= least).unwrap_or(86_400)
}

fn history(app: &App, template: &str, vm: &str, from: i64, to: i64, step: i64) -> Curve {
    if to <= from {
        return Curve::default();
    }
    let text = template
        .replace("$where", &condition(vm, from, to))
        .replace("$every", &format!("GROUP BY time({step}s)"));
    rows(app, &text).into_iter().filter_map(|row| Some((row.first()?.as_i64()?, row.get(1)?.as_f64()?))).fold(
        Curve::default(),
        |mut curve, (time, value)| {
            // a window's time is its start, which may lie before the range
            if time >= from {
                curve.times.push(time);
                curve.values.push(Some(value));
            }
            curve
        },
    )
}

fn condition(vm: &str, from: i64, to: i64) -> String {
    format!("WHERE vm = '{vm}' AND time >= {from}ms AND time <= {to}ms")
}

fn marks(app: &App, vm: &str, from: i64, to: i64) -> Vec<Mark> {
    let text = format!("SELECT event, text FROM lifecycle {} LIMIT {MAX_MARKS}", condition(vm, from, to));
    let mark = |row: Vec<serde_json::Value>| {
        let text = |at: usize| row.get(at).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        Some(Mark { time: row.first()?.as_i64()?, event: text(1), text: text(2) })
    };
    rows(app, &text).into_iter().filter_map(mark).collect()
}

/// The rows of the first series of the answer; none when the query gives none.
fn rows(app: &App, text: &str) -> Vec<Vec<serde_json::Value>> {
    let mut answer = answer(app, text);
    let rows =
        answer.pointer_mut("/results/0/series/0/values").map(serde_json::Value::take).unwrap_or_default();
    serde_json::from_value(rows).unwrap_or_default()
}

/// The answer to a query of the page's own; `null` when it fails.
pub(super) fn answer(app: &App, text: &str) -> serde_json::Value {
    let request = Request {
        text,
        db: Some(DEFAULT_DATABASE),
        now: clock::now(),
        limits: Limits::default(),
        changes: Changes::None,
    };
    let answer = match uni_query::execute(&*app.storage, &request) {
        Ok(response) => response.to_json(Some(Epoch::Milliseconds), false),
        Err(error) => {
            tracing::warn!(err = error.to_string(), "chart query");
            return serde_json::Value::Null;
        }
    };
    serde_json::from_str(&answer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_is_no_finer_than_the_data_and_bounds_the_points() {
        assert_eq!(step_seconds(300, 1), 1);
        assert_eq!(step_seconds(300, 10), 10);
        assert_eq!(step_seconds(900, 1), 2);
        assert_eq!(step_seconds(6 * 3600, 10), 60);
        for range in [60, 3600, 86_400, 7 * 86_400, MAX_RANGE_SECONDS] {
            assert!(range / step_seconds(range, 1) <= MAX_POINTS);
        }
    }
}
