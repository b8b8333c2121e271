//! All entries of one series by time, as a query language asks for them.
//!
//! Owns the order over places that reach into each other's time. Holds no more entries than such places have.

use super::Logs;
use super::file::Scratch;
use super::series::LogSeries;
use super::units::{At, Unit, Wanted, meta_of, units};
use crate::error::{FileError, ScanError};
use crate::logs::entry::LogEntry;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use uni_wire::Timestamp;

/// Gets each entry of a scan; says whether it wants more.
pub type LogVisitor<'a> = dyn FnMut(&LogEntry) -> ControlFlow<()> + 'a;

/// Entries that are read and not visited yet, by time, place and row.
type Pending = BTreeMap<(i64, u32, usize), LogEntry>;

impl Logs {
    /// Visits the entries of the series with this number from `from` to `to`, both included, by ascending time; those of
    /// the same time as they came. Without `texts` their texts are empty, and are not unpacked.
    ///
    /// # Errors
    /// [`ScanError`]: a block could not be read; then all entries from other blocks have been visited.
    pub fn scan(
        &self,
        series: u32,
        (from, to): (Timestamp, Timestamp),
        texts: bool,
        visit: &mut LogVisitor<'_>,
    ) -> Result<(), ScanError> {
        let from = from.nanos().max(self.floor.load(Relaxed));
        let (series, mut places) = {
            let state = self.read_state();
            let Some(series) = state.catalog.get(series) else { return Ok(()) };
            let is_it = |kind, severity, app: &str| {
                (kind, severity, app) == (series.kind, series.severity, &*series.app)
            };
            let wanted = Wanted { vm: &|vm| vm == &*series.vm, from, to: to.nanos(), series: &is_it };
            let places = units(&state, &wanted);
            (series, places)
        };
        places.sort_by_key(|unit| unit.first);
        let mut scratch = Scratch::new().map_err(FileError::at("unpack", self.files.root()))?;
        let (mut pending, mut fault) = (Pending::new(), None);
        for unit in &places {
            let later = pending.split_off(&(unit.first, 0, 0));
            if pending.values().any(|entry| visit(entry).is_break()) {
                return Ok(());
            }
            pending = later;
            if let Err(error) = read(unit, &series, (from, to.nanos()), texts, &mut scratch, &mut pending) {
                self.counters.damaged_reads.fetch_add(1, Relaxed);
                fault = Some(error);
            }
        }
        if pending.values().any(|entry| visit(entry).is_break()) {
            return Ok(());
        }
        fault.map_or(Ok(()), Err)
    }
}

fn read(
    unit: &Unit,
    series: &LogSeries,
    (from, to): (i64, i64),
    texts: bool,
    scratch: &mut Scratch,
    out: &mut Pending,
) -> Result<(), ScanError> {
    let meta = meta_of(&unit.at, scratch)?;
    if texts && let At::Block(open, block) = &unit.at {
        let read = open.reader().and_then(|reader| open.file().texts(reader, open.block(*block), scratch));
        read.map_err(|error| open.fault(error))?;
    }
    for (at, row) in meta.rows.iter().enumerate() {
        let origin = meta.origin(at);
        let is_it =
            (origin.kind, origin.severity, &origin.app) == (series.kind, series.severity, &series.app);
        if !is_it || !(from..=to).contains(&row.time) {
            continue;
        }
        let text = match &unit.at {
            _ if !texts => &[][..],
            At::Memory(rows) => rows.text(at),
            At::Block(..) => &scratch.text[meta.text_start(at)..row.text_end as usize - 1],
        };
        out.insert((row.time, unit.rank, at), meta.entry(&unit.vm, at, text));
    }
    Ok(())
}
