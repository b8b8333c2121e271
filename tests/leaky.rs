//! A guest that loses memory is seen to do so from inside and from outside, at one rate.
//!
//! Owns nothing: drives `unid` and `uni` as a user does, and asks `/query`.

use anyhow::{Context as _, ensure};
use black_box::{Daemon, eventually, guest};

/// Bytes a second: enough to stand out from what else a process takes and gives back.
const RATE: u32 = 4 << 20;
/// The first points are left out: QEMU itself still grows.
const SKIPPED_POINTS: usize = 3;
/// Points of a series that are compared, a second apart.
const POINTS: usize = 9;
/// How far a measured rate may be off on a machine that runs other tests meanwhile. The host gives memory in pages
/// of up to 2 MiB.
const TOLERANCE: f64 = 0.15;

#[test]
fn memory_lost_inside_is_lost_outside_at_the_same_rate() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--interval", "1s"])?;
    let image = guest("leaky").display().to_string();
    let rate = format!("--leak-rate={RATE}");
    daemon.uni_ok(&["run", &image, "--name", "drip", "--memory", "128M", "--", "--interval=1", &rate])?;

    let inside = growth(&daemon, "heap_live_bytes", "heap")?;
    let outside = growth(&daemon, "rss_bytes", "kinfo_mem")?;
    for (what, per_second) in [("inside", inside), ("outside", outside)] {
        let off = (per_second / f64::from(RATE) - 1.0).abs();
        ensure!(off < TOLERANCE, "{what} grows by {per_second:.0} bytes a second, not by {RATE}");
    }
    daemon.uni_ok(&["stop", "drip"])?;
    Ok(())
}

/// Bytes a second by which a series grows, once it has enough points.
fn growth(daemon: &Daemon, field: &str, measurement: &str) -> anyhow::Result<f64> {
    let rows = eventually("enough points", || {
        let rows = daemon.rows(&format!("SELECT {field} FROM {measurement} WHERE vm = 'drip'"))?;
        ensure!(rows.len() >= SKIPPED_POINTS + POINTS, "{} points of {field}", rows.len());
        Ok(rows)
    })?;
    let point = |row: &Vec<serde_json::Value>| Some((row.first()?.as_f64()? / 1000.0, row.get(1)?.as_f64()?));
    let points: Option<Vec<_>> = rows.iter().skip(SKIPPED_POINTS).take(POINTS).map(point).collect();
    let points = points.with_context(|| format!("numbers: {rows:?}"))?;
    slope(&points).with_context(|| format!("at different times: {points:?}"))
}

/// The slope of the line that fits best, by least squares.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = f64::from(u32::try_from(points.len()).ok()?);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|p| p.0), mean(|p| p.1));
    let together: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let alone: f64 = points.iter().map(|(x, _)| (x - x_mean) * (x - x_mean)).sum();
    (alone > 0.0).then_some(together / alone)
}
