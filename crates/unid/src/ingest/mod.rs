//! The one way into the store: whatever arrives by whichever wire becomes points here and goes through the
//! same naming, limits, log and counters.
//!
//! Owns the counters of what came in and what was refused, and the rate-limited complaints. Never opens a
//! socket: that is [`mod@line`]'s, [`mod@syslog`]'s, the management link's and the HTTP server's business.

pub(crate) mod line;
pub(crate) mod syslog;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uni_api::daemon;
use uni_store::{Appended, AppendedLines, LineEvent, LineOptions, LogEntry, LogRefusal, Point, RejectReason};
use uni_wire::Timestamp;
use uni_wire::line::{LineError, Mode, Precision, parse_point};

use crate::clock;
use crate::live::Live;
use crate::storage::{RefusedBatch, Storage, told};

/// Points that name no database go here.
pub(crate) const DEFAULT_DATABASE: &str = "uni";
/// The longest line of line protocol.
pub(crate) const MAX_LINE_BYTES: usize = 64 * 1024;
/// A point further ahead of the clock than a minute is stored, and not shown live.
const MAX_AHEAD_NANOS: i64 = 60_000_000_000;
/// An older point is stored, and not shown live: what a curve shows live is the last quarter of an hour.
const MAX_BEHIND_NANOS: i64 = 1_800_000_000_000;
/// Most complaints about one body that are kept for its sender or the log; the others are counted.
const MAX_COMPLAINTS: usize = 20;
/// A bad line is logged at most this often; the others are counted.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// Who sent a point.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// The VM of that name, over its own link: its `vm` tag is set by us.
    Vm(&'a str),
    /// Somebody else, named for the log; its tags are taken as they are.
    Peer(&'a str),
}

impl std::fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vm(name) => write!(f, "vm {name}"),
            Self::Peer(peer) => f.write_str(peer),
        }
    }
}

/// The way into the store.
#[derive(Debug)]
pub(crate) struct Ingest {
    storage: Arc<Storage>,
    live: Arc<Live>,
    pub(crate) counters: Counters,
    complaints: Mutex<Complaints>,
    /// Syslog messages for who follows them.
    pub(crate) recent_messages: syslog::Recent,
}

/// What came in and what was refused, since the daemon started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    points: AtomicU64,
    bad_lines: AtomicU64,
    refused_points: [AtomicU64; REASONS.len()],
    long_lines: AtomicU64,
    renamed_points: AtomicU64,
    pub(crate) refused_connections: AtomicU64,
    syslog_messages: AtomicU64,
    syslog_truncated: AtomicU64,
    syslog_refused_connections: AtomicU64,
    /// Frames of management links that found a queue full.
    pub(crate) dropped_frames: AtomicU64,
}

impl Counters {
    /// The counters as the contract shows them.
    pub(crate) fn snapshot(&self) -> daemon::Ingest {
        daemon::Ingest {
            points_total: self.points.load(Relaxed),
            bad_lines_total: self.bad_lines.load(Relaxed),
            refused_points_total: self.refused_points().map(|(_, count)| count).sum(),
            long_lines_total: self.long_lines.load(Relaxed),
            renamed_points_total: self.renamed_points.load(Relaxed),
            refused_connections_total: self.refused_connections.load(Relaxed),
            syslog_messages_total: self.syslog_messages.load(Relaxed),
            syslog_truncated_total: self.syslog_truncated.load(Relaxed),
            syslog_refused_connections_total: self.syslog_refused_connections.load(Relaxed),
        }
    }

    /// The points that the store refused, by reason.
    pub(crate) fn refused_points(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(&self.refused_points).map(|(reason, count)| (reason, count.load(Relaxed)))
    }

    fn refused_point(&self, reason: &RejectReason) {
        let n = match reason {
            RejectReason::FieldTypeConflict { .. } => 0,
            RejectReason::SeriesLimit { .. } => 1,
            RejectReason::FieldLimit { .. } => 2,
            RejectReason::VmSeriesLimit { .. } => 3,
            RejectReason::TooManyTags { .. } => 4,
            RejectReason::BeyondRetention => 5,
            _ => MALFORMED,
        };
        self.refused_points[n].fetch_add(1, Relaxed);
    }

    fn refused_entry(&self, refusal: LogRefusal) {
        let n = if refusal == LogRefusal::SeriesLimit { 1 } else { MALFORMED };
        self.refused_points[n].fetch_add(1, Relaxed);
    }

    /// Samples of a push that are no points here, before the store saw them.
    pub(crate) fn dropped_samples(&self, count: u64) {
        self.refused_points[MALFORMED].fetch_add(count, Relaxed);
    }

    /// A line could not be parsed.
    fn bad_line(&self) {
        self.bad_lines.fetch_add(1, Relaxed);
    }
}

/// Words for why the store refused a point.
const REASONS: [&str; 7] =
    ["type_conflict", "series_limit", "field_limit", "vm_series_limit", "tag_limit", "too_old", "malformed"];
/// The last of them: whatever else is wrong with a point.
const MALFORMED: usize = 6;

impl Ingest {
    /// A way into `storage` that shows what it takes in `live`.
    pub(crate) fn new(storage: Arc<Storage>, live: Arc<Live>) -> Self {
        Self {
            storage,
            live,
            counters: Counters::default(),
            complaints: Mutex::default(),
            recent_messages: syslog::Recent::default(),
        }
    }

    /// Stores points of the daemon's own making (samples, lifecycle events).
    pub(crate) fn append_own(&self, points: &[Point]) {
        if let Err(error) = self.append(DEFAULT_DATABASE, points, Durable::No) {
            self.complain("store", &told(&error));
        }
    }

    /// Stores points and shows them live.
    ///
    /// # Errors
    /// When the store could not write them; then none is stored.
    pub(crate) fn append(
        &self,
        database: &str,
        points: &[Point],
        durable: Durable,
    ) -> Result<Appended, RefusedBatch> {
        let appended = self.storage.append(database, points, durable)?;
        self.counters.points.fetch_add(appended.accepted as u64, Relaxed);
        appended.rejected.iter().for_each(|rejected| self.counters.refused_point(&rejected.reason));
        if database == DEFAULT_DATABASE {
            for point in points {
                self.show(point);
            }
        }
        Ok(appended)
    }

    fn show(&self, point: &Point) {
        let (from, to) = watched();
        if !(from..=to).contains(&point.time) {
            return;
        }
        if let Some((_, vm)) = point.tags.iter().find(|(key, _)| &**key == "vm") {
            self.live.observe_inside(vm, &point.measurement, &point.fields, point.time);
        }
    }

    /// Stores line protocol and shows it live.
    ///
    /// # Errors
    /// When the store could not write it; then a first part may be stored.
    pub(crate) fn append_lines(
        &self,
        database: &str,
        body: &[u8],
        options: &LineOptions<'_>,
        durable: Durable,
    ) -> Result<Lines, RefusedBatch> {
        let watched = (database == DEFAULT_DATABASE).then(watched);
        let options = LineOptions { watched, ..*options };
        let (mut shown, mut complaints) = (Vec::new(), Vec::new());
        let mut complain = |complaint: Complaint<'_>| {
            if complaints.len() < MAX_COMPLAINTS {
                complaints.push(complaint.to_string());
            }
        };
        let mut report = |event: LineEvent<'_>| self.note(event, options.mode, &mut complain);
        // What is shown is kept apart: it outlives the lock under which it is told.
        let mut report = |event| match event {
            LineEvent::Stored { line, .. } if Live::draws(line) => shown.push(line),
            other => report(other),
        };
        let outcome = self.storage.append_lines(database, body, &options, durable, &mut report);
        for line in shown {
            self.show_line(line, &options);
        }
        let appended = outcome?;
        self.counters.points.fetch_add(appended.accepted as u64, Relaxed);
        Ok(Lines { appended, complaints })
    }

    /// Counts what became of a line.
    fn note(&self, event: LineEvent<'_>, mode: Mode, complain: &mut impl FnMut(Complaint<'_>)) {
        match event {
            LineEvent::Stored { .. } => {}
            LineEvent::Renamed => {
                self.counters.renamed_points.fetch_add(1, Relaxed);
            }
            LineEvent::Bad { line, error } => {
                self.counters.bad_line();
                complain(if mode == Mode::Strict {
                    Complaint::Bad(line, error)
                } else {
                    Complaint::Logged(line, error)
                });
            }
            LineEvent::Refused(reason) => {
                self.counters.refused_point(&reason);
                complain(Complaint::Refused(reason));
            }
            LineEvent::TooLong => {
                self.counters.long_lines.fetch_add(1, Relaxed);
                complain(Complaint::TooLong);
            }
        }
    }

    fn show_line(&self, line: &[u8], options: &LineOptions<'_>) {
        let Ok(point) = parse_point(line, options.mode, options.now, options.precision) else { return };
        let mut point = stored(point);
        if let Some((_, name)) = options.tag {
            trust(&mut point, name);
        }
        self.show(&point);
    }

    /// Stores messages or events and complains about those that are refused; gives back what is stored.
    pub(crate) fn append_logs(
        &self,
        origin: impl std::fmt::Display,
        mut entries: Vec<LogEntry>,
    ) -> Option<Vec<LogEntry>> {
        if entries.is_empty() {
            return None;
        }
        match self.storage.append_logs(&entries) {
            Ok(appended) => {
                self.counters.points.fetch_add(appended.accepted as u64, Relaxed);
                for (at, refusal) in appended.refused.iter().rev() {
                    self.counters.refused_entry(*refusal);
                    self.complain(&origin, &refusal.to_string());
                    entries.remove(*at);
                }
                Some(entries)
            }
            Err(error) => {
                self.complain(&origin, &told(&error));
                None
            }
        }
    }

    /// Stores what a stream brought and complains about what was refused.
    fn append_stream(&self, origin: &Origin<'_>, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let options = LineOptions {
            mode: Mode::Lenient,
            precision: Precision::Nanoseconds,
            now: clock::now(),
            tag: if let Origin::Vm(name) = origin { Some(("vm", name)) } else { None },
            max_line_bytes: Some(MAX_LINE_BYTES),
            watched: None,
        };
        match self.append_lines(DEFAULT_DATABASE, lines, &options, Durable::No) {
            Ok(stored) => stored.complaints.iter().for_each(|complaint| self.complain(origin, complaint)),
            Err(error) => self.complain(origin, &told(&error)),
        }
    }

    fn complain(&self, origin: impl std::fmt::Display, what: &str) {
        self.complain_with(origin, || what.to_owned());
    }

    /// Logs at most once in [`COMPLAINT_INTERVAL`] and says how many went unsaid. `what` is asked only for what is
    /// logged: rubbish may come a million lines a second.
    fn complain_with(&self, origin: impl std::fmt::Display, what: impl FnOnce() -> String) {
        let admitted = self.complaints.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
        if let Some(unsaid) = admitted {
            tracing::warn!(from = origin.to_string(), unsaid, "refused: {}", what());
        }
    }
}

/// Whether an append waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Acknowledged once the kernel has it: survives the daemon, not the machine.
    No,
    /// Acknowledged as `--fsync` says.
    AsConfigured,
}

/// Lets one complaint in an interval through.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < COMPLAINT_INTERVAL) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Sets the `vm` tag to the name of the VM that owns the link; true if the point had claimed another.
fn trust(point: &mut Point, name: &str) -> bool {
    match point.tags.binary_search_by(|(key, _)| (**key).cmp("vm")) {
        Ok(at) if &*point.tags[at].1 == name => false,
        Ok(at) => {
            point.tags[at].1 = name.into();
            true
        }
        Err(at) => {
            point.tags.insert(at, ("vm".into(), name.into()));
            false
        }
    }
}

/// What became of a body of lines.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) appended: AppendedLines,
    /// The first complaints about it, in the order of its lines.
    pub(crate) complaints: Vec<String>,
}

/// Something about a line that was not stored.
enum Complaint<'a> {
    /// In InfluxDB's words, for a client.
    Bad(&'a [u8], LineError),
    /// With the place, for the log.
    Logged(&'a [u8], LineError),
    Refused(RejectReason),
    TooLong,
}

impl std::fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bad(line, error) => {
                let excerpt = String::from_utf8_lossy(&line[..line.len().min(200)]);
                write!(f, "unable to parse '{excerpt}': {}", error.reason(line))
            }
            Self::Logged(line, error) => {
                let excerpt = String::from_utf8_lossy(&line[..line.len().min(60)]);
                write!(f, "bad line {excerpt:?}: {error}")
            }
            Self::Refused(reason) => reason.fmt(f),
            Self::TooLong => write!(f, "a line longer than {MAX_LINE_BYTES} bytes"),
        }
    }
}

/// The times of points that are shown live. A point from the far future would end its curve: nothing after it would be
/// newer.
fn watched() -> (Timestamp, Timestamp) {
    let now = clock::now().nanos();
    (Timestamp(now.saturating_sub(MAX_BEHIND_NANOS)), Timestamp(now.saturating_add(MAX_AHEAD_NANOS)))
}

/// The lines of one connection: keeps the one that is not whole yet.
#[derive(Debug, Default)]
pub(crate) struct LineStream {
    partial: Vec<u8>,
    /// Inside a line that was too long; its rest is thrown away.
    skipping: bool,
}

impl LineStream {
    /// Takes bytes as they came; the lines they complete are stored together.
    pub(crate) fn feed(&mut self, ingest: &Ingest, origin: &Origin<'_>, bytes: &[u8]) {
        let mut rest = bytes;
        if self.skipping || !self.partial.is_empty() {
            let Some(end) = memchr::memchr(b'\n', rest) else { return self.keep(ingest, origin, rest) };
            self.keep(ingest, origin, &rest[..end]);
            ingest.append_stream(origin, &std::mem::take(&mut self.partial));
            self.skipping = false;
            rest = &rest[end + 1..];
        }
        let whole = memchr::memrchr(b'\n', rest).map_or(0, |end| end + 1);
        ingest.append_stream(origin, &rest[..whole]);
        self.keep(ingest, origin, &rest[whole..]);
    }

    /// The connection ended: a last line without a newline counts.
    pub(crate) fn finish(&mut self, ingest: &Ingest, origin: &Origin<'_>) {
        ingest.append_stream(origin, &std::mem::take(&mut self.partial));
        self.skipping = false;
    }

    /// Adds to the line that is not whole, if it does not get too long.
    fn keep(&mut self, ingest: &Ingest, origin: &Origin<'_>, bytes: &[u8]) {
        if !self.skipping && self.partial.len() + bytes.len() > MAX_LINE_BYTES {
            self.skipping = true;
            self.partial = Vec::new();
            ingest.counters.long_lines.fetch_add(1, Relaxed);
            ingest.complain(origin, &Complaint::TooLong.to_string());
        }
        if !self.skipping {
            self.partial.extend_from_slice(bytes);
        }
    }
}

/// The parsed point as the store takes it.
pub(crate) fn stored(point: uni_wire::line::Point) -> Point {
    Point { measurement: point.measurement, tags: point.tags, fields: point.fields, time: point.time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uni_wire::FieldValue;

    fn point(tags: &[(&str, &str)]) -> Point {
        Point {
            measurement: "m".into(),
            tags: tags.iter().map(|&(k, v)| (k.into(), v.into())).collect(),
            fields: vec![("f".into(), FieldValue::Integer(1))],
            time: Timestamp(0),
        }
    }

    #[test]
    fn a_point_on_a_vms_own_link_always_carries_that_vms_name() {
        for (tags, renamed) in [
            (vec![("vm", "web")], false),
            (vec![("vm", "other")], true),
            (vec![], false),
            (vec![("a", "1"), ("z", "2")], false),
        ] {
            let mut point = point(&tags);
            assert_eq!(trust(&mut point, "web"), renamed, "{tags:?}");
            let names: Vec<_> =
                point.tags.iter().filter(|(key, _)| &**key == "vm").map(|(_, v)| &**v).collect();
            assert_eq!(names, ["web"]);
            assert!(point.tags.is_sorted());
        }
    }

    #[test]
    fn complaints_are_rate_limited_and_the_unsaid_counted() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        assert_eq!(complaints.admit(start), Some(0));
        assert_eq!(complaints.admit(start), None);
        assert_eq!(complaints.admit(start), None);
        assert_eq!(complaints.admit(start + COMPLAINT_INTERVAL), Some(2));
    }
}
