//! Taking line protocol in: whole bodies, line by line, without making points of them.
//!
//! Owns the two ways of a line. A line that looks like the last one of its series is
//! compared, not parsed; only its values are read. Every other line takes the way of a point, and teaches its route.
//! Never decides what a line means: that is `uni_wire`'s.

use crate::append::Session;
use crate::catalog::SeriesId;
use crate::error::AppendError;
use crate::point::{Point, RejectReason};
use crate::routes::{Layout, begins};
use crate::row::{RowWriter, put_time};
use crate::state::{partition_of, partition_span};
use crate::store::Store;
use uni_wire::line::{
    LineError, Mode, Precision, next_line, parse_line_with, parse_point, quick_boolean, quick_float,
    quick_integer, quick_text, quick_unsigned, quick_whole,
};
use uni_wire::{FieldType, Timestamp};

/// Bytes of a body that are stored together: all of their points, or, after a crash, none. Also what readers wait for
/// at most, some milliseconds.
const BATCH_BYTES: usize = 2 << 20;
/// So many lines that are not stored are looked at under the lock; the next ones before it is taken again. Rubbish, at
/// whatever speed it comes, must not keep others from storing.
const MAX_ODD_LINES: usize = 32;
/// A line longer than this always takes the way of a point, which checks lengths.
const MAX_QUICK_BYTES: usize = 32 << 10;
/// How the bytes of a body are to be understood.
#[derive(Clone, Copy, Debug)]
pub struct LineOptions<'a> {
    /// How forgiving the parser is.
    pub mode: Mode,
    /// The unit of time stamps.
    pub precision: Precision,
    /// The time of lines without a time stamp.
    pub now: Timestamp,
    /// A tag that every point gets, whatever the line says: key and value.
    pub tag: Option<(&'a str, &'a str)>,
    /// `Some`: every newline ends a line, as in a stream where a missing quote must not swallow what follows, and
    /// lines of more bytes than this are refused. `None`: a newline inside quotes is text, as in an HTTP body.
    pub max_line_bytes: Option<usize>,
    /// Lines whose time lies in here are reported as they are stored.
    pub watched: Option<(Timestamp, Timestamp)>,
}

/// What became of a line that is worth telling.
#[derive(Debug)]
pub enum LineEvent<'b> {
    /// Stored, with a time that is watched.
    Stored {
        /// The line.
        line: &'b [u8],
        /// Its time.
        time: Timestamp,
    },
    /// Stored, but it had claimed another value for the tag that it was given.
    Renamed,
    /// Not line protocol.
    Bad {
        /// The line.
        line: &'b [u8],
        /// What is wrong with it.
        error: LineError,
    },
    /// The point was refused.
    Refused(RejectReason),
    /// Longer than it may be.
    TooLong,
}

/// What became of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendedLines {
    /// Points stored.
    pub accepted: usize,
    /// Points refused.
    pub refused: usize,
    /// Lines that could not be parsed.
    pub bad: usize,
    /// How long the log is now; for [`Store::wait_durable`].
    written: u64,
}

/// One body on its way in.
struct Body<'b, 'o, 'r> {
    bytes: &'b [u8],
    at: usize,
    options: &'o LineOptions<'o>,
    report: &'r mut dyn FnMut(LineEvent<'b>),
    way: u32,
    outcome: AppendedLines,
    /// Lines looked at under the lock that were not stored.
    odd: usize,
}

impl Store {
    /// Stores the lines of a body in a database. Returns after the points are in the kernel's hands, as
    /// [`Store::append`] does; [`Store::wait_durable`] waits for the disk.
    ///
    /// Lines that cannot be stored are refused one by one, the others are stored. `report` is called while the store
    /// is locked: it must be quick and must not call the store.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_lines<'b>(
        &self,
        database: &str,
        body: &'b [u8],
        options: &LineOptions<'_>,
        report: &mut dyn FnMut(LineEvent<'b>),
    ) -> Result<AppendedLines, AppendError> {
        let outcome = AppendedLines::default();
        let mut body = Body { bytes: body, at: 0, options, report, way: 0, outcome, odd: 0 };
        self.check_space(database)?;
        loop {
            if body.odd >= MAX_ODD_LINES {
                body.odd = 0;
                body.skip_bad();
            }
            if body.at >= body.bytes.len() {
                break;
            }
            let mut session = Session::begin(self, database)?;
            body.way = session.writer.routes.way(database, options.tag);
            // The line before came by another connection: its successor is not ours.
            session.writer.routes.last = None;
            body.fill(&mut session);
            let (count, written) = session.commit()?;
            body.outcome.accepted += count;
            body.outcome.written = written;
        }
        self.count(body.outcome.accepted, body.outcome.refused);
        Ok(body.outcome)
    }

    /// Under [`crate::Durability::Always`] returns after what was appended is on the disk.
    ///
    /// # Errors
    /// See [`AppendError::Broken`].
    pub fn wait_durable(&self, appended: &AppendedLines) -> Result<(), AppendError> {
        if appended.accepted > 0 { self.make_durable(appended.written) } else { Ok(()) }
    }
}

impl<'b> Body<'b, '_, '_> {
    /// Puts lines into the session until its frame is full.
    fn fill(&mut self, session: &mut Session<'_>) {
        let end = self.at.saturating_add(BATCH_BYTES);
        let more = |body: &Self| body.at < body.bytes.len().min(end) && body.odd < MAX_ODD_LINES;
        while more(self) && !session.writer.is_full() {
            if self.quick(session).is_none() && !self.slow(session) {
                self.at = self.bytes.len();
            }
        }
    }

    /// Stores the next line if it looks like the last one of its series; `None`, and nothing is done, if not.
    fn quick(&mut self, session: &mut Session<'_>) -> Option<()> {
        let start = self.at + self.bytes.get(self.at..)?.iter().take_while(|b| **b == b'\n').count();
        let rest = self.bytes.get(start..)?;
        let (writer, state) = (&mut *session.writer, &mut *session.state);
        let (number, key_bytes) = writer.routes.route_of(self.way, rest)?;
        if let Some((next, after)) = writer.routes.expected(number) {
            state.head.prefetch(next, after);
        }
        let route = writer.routes.list.get(number as usize)?;
        let (id, renamed) = (route.series, route.renamed);
        let layout = writer.routes.layouts.get_mut(route.layout as usize)?;
        if layout.epoch != writer.epoch {
            layout.shape = state.head.intern(layout.measurement, &layout.fields);
            layout.epoch = writer.epoch;
        }
        let shape_number = layout.shape;
        let (shapes, series) = state.head.shapes_and_series(id);
        let shape = shapes.get(shape_number)?;
        let series_is_new = series.epoch != writer.epoch;
        let anew = series.must_begin(writer.epoch, shape_number);
        let (bytes, base, undo) = series.begin(id, anew);
        writer.scratch.clear();
        let mut row = RowWriter::new(&mut writer.scratch, base, shape, anew);
        let values = read_values(rest, key_bytes + 1, layout, &mut row);
        row.finish();
        let Some((time, length)) = values.and_then(|end| self.read_time(rest, end)) else {
            series.abandon(&undo);
            return None;
        };
        let known =
            writer.routes.span.as_ref().is_some_and(|(way, span)| *way == self.way && span.contains(&time));
        if !known || !put_time(bytes, base, time, anew.then_some(shape_number)) {
            series.abandon(&undo);
            return None;
        }
        bytes.extend_from_slice(&writer.scratch);
        series.end(time, writer.epoch);
        writer.frame.put_row(id.0, series.row(&undo));
        writer.undos.push(undo);
        state.head.count(1);
        if anew && let Some(known) = state.databases.get(session.database) {
            writer.define(session.database, &known.catalog, &state.head, id, shape_number, series_is_new);
        }
        writer.routes.follow(number);
        self.at = start + length + 1;
        self.tell(&rest[..length], time, renamed);
        Some(())
    }

    fn tell(&mut self, line: &'b [u8], time: i64, renamed: bool) {
        if renamed {
            (self.report)(LineEvent::Renamed);
        }
        let watched = |(from, to): (Timestamp, Timestamp)| (from.nanos()..=to.nanos()).contains(&time);
        if self.options.watched.is_some_and(watched) {
            (self.report)(LineEvent::Stored { line, time: Timestamp(time) });
        }
    }

    /// The time stamp at `at`, which is behind the last field, and where the line ends.
    #[inline]
    fn read_time(&self, rest: &[u8], at: usize) -> Option<(i64, usize)> {
        let (time, end) = match rest.get(at) {
            Some(b' ') => {
                let (stamp, end) = quick_whole(rest, at + 1)?;
                (self.options.precision.to_timestamp(stamp)?.nanos(), end)
            }
            _ => (self.options.now.nanos(), at),
        };
        let limit = self.options.max_line_bytes.unwrap_or(MAX_QUICK_BYTES).min(MAX_QUICK_BYTES);
        (matches!(rest.get(end), None | Some(b'\n')) && end <= limit).then_some((time, end))
    }

    /// Stores the next line by way of a point; `false` if there is none.
    fn slow(&mut self, session: &mut Session<'_>) -> bool {
        let Some(line) = self.next_line() else { return false };
        let Some(mut point) = self.parse(line) else {
            self.odd += 1;
            return true;
        };
        let renamed = self.options.tag.is_some_and(|(key, value)| give_tag(&mut point, key, value));
        match session.put_point(&point) {
            Ok(series) => {
                self.learn(session, line, &point, series, renamed);
                self.tell(line, point.time.nanos(), renamed);
            }
            Err(reason) => {
                self.odd += 1;
                self.outcome.refused += 1;
                (self.report)(LineEvent::Refused(reason));
            }
        }
        true
    }

    /// Passes over lines that no store is needed to refuse.
    fn skip_bad(&mut self) {
        loop {
            let before = self.at;
            let Some(line) = self.next_line() else {
                self.at = self.bytes.len();
                return;
            };
            if self.parse(line).is_some() {
                self.at = before;
                return;
            }
        }
    }

    /// The point of a line; if there is none, that is told.
    fn parse(&mut self, line: &'b [u8]) -> Option<Point> {
        if self.options.max_line_bytes.is_some_and(|most| line.len() > most) {
            self.outcome.bad += 1;
            (self.report)(LineEvent::TooLong);
            return None;
        }
        let options = self.options;
        match parse_point(line, options.mode, options.now, options.precision) {
            Ok(point) => Some(Point {
                measurement: point.measurement,
                tags: point.tags,
                fields: point.fields,
                time: point.time,
            }),
            Err(error) => {
                self.outcome.bad += 1;
                (self.report)(LineEvent::Bad { line, error });
                None
            }
        }
    }

    /// The next line that is neither blank nor a comment.
    fn next_line(&mut self) -> Option<&'b [u8]> {
        if self.options.max_line_bytes.is_none() {
            let (line, rest) = next_line(&self.bytes[self.at..])?;
            self.at = self.bytes.len() - rest.len();
            return Some(line);
        }
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            self.at += end + 1;
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]).trim_ascii_start();
            if !matches!(line.first(), None | Some(b'#')) {
                return Some(line);
            }
        }
        None
    }

    /// The next line of this key and these fields can be taken the quick way.
    fn learn(&self, session: &mut Session<'_>, line: &[u8], point: &Point, series: SeriesId, renamed: bool) {
        let (way, resolved) = (self.way, session.resolved());
        let (measurement, numbers) = (resolved.measurement, resolved.fields.clone());
        let Ok(parsed) = parse_line_with(line, self.options.mode) else { return };
        let (mut keys, mut ends) = (Vec::new(), Vec::new());
        let mut given = parsed.fields();
        for (name, value) in &point.fields {
            // A field that is doubled, or called `time`, is in one list and not in the other.
            let Some(field) = given.next().filter(|field| field.key.is(name)) else { return };
            keys.extend_from_slice(field.key.raw().as_bytes());
            keys.push(b'=');
            ends.push((keys.len() as u32, value.field_type()));
        }
        let known = session.state.databases.get(session.database);
        let strictest = known.map_or(i64::MIN, |known| known.cutoffs.strictest());
        let routes = &mut session.writer.routes;
        let partition_seconds = session.store.partition_seconds;
        let start_s = partition_of(point.time.nanos(), partition_seconds);
        let (first, last) = partition_span(start_s, partition_seconds);
        // Lines that some measurement may not have any more are looked at one by one.
        let first = first.max(strictest);
        routes.span = Some((way, first..=last));
        if given.next().is_none() && line.starts_with(parsed.series_key().as_bytes()) {
            let layout = routes.layout(keys, ends, measurement, &numbers);
            routes.learn(way, parsed.series_key().as_bytes(), series, renamed, layout);
        }
    }
}

/// Reads the values of a line that has the fields of the layout; returns where they end.
#[inline]
fn read_values(line: &[u8], from: usize, layout: &Layout, row: &mut RowWriter<'_>) -> Option<usize> {
    let mut at = from;
    let mut key_from = 0;
    for (index, (key_to, field_type)) in layout.ends.iter().enumerate() {
        if index > 0 {
            if line.get(at) != Some(&b',') {
                return None;
            }
            at += 1;
        }
        let key = layout.keys.get(key_from..*key_to as usize)?;
        if !begins(line.get(at..)?, key) {
            return None;
        }
        at += key.len();
        key_from = *key_to as usize;
        at = match field_type {
            FieldType::Integer => {
                let (value, end) = quick_integer(line, at)?;
                row.integer(value);
                end
            }
            FieldType::Float => {
                let (value, end) = quick_float(line, at)?;
                row.decimal(value.mantissa, value.scale);
                end
            }
            FieldType::Unsigned => {
                let (value, end) = quick_unsigned(line, at)?;
                row.integer(value.cast_signed());
                end
            }
            FieldType::Boolean => {
                let (value, end) = quick_boolean(line, at)?;
                row.integer(i64::from(value));
                end
            }
            FieldType::String => {
                let (value, end) = quick_text(line, at)?;
                row.text(value);
                end
            }
        };
    }
    matches!(line.get(at), None | Some(b' ' | b'\n')).then_some(at)
}

/// Sets a tag; true if the point had another value for it.
fn give_tag(point: &mut Point, key: &str, value: &str) -> bool {
    match point.tags.binary_search_by(|(known, _)| (**known).cmp(key)) {
        Ok(at) if &*point.tags[at].1 == value => false,
        Ok(at) => {
            point.tags[at].1 = value.into();
            true
        }
        Err(at) => {
            point.tags.insert(at, (key.into(), value.into()));
            false
        }
    }
}
