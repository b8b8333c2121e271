//! Rows of one VM in memory: the texts in one piece, which is what is searched, and beside it what belongs to them.
//!
//! Owns the packed form of both parts (`docs/format/logs.md`, section *Blocks*), with checks that let no bytes stand for
//! more memory than they may. Never sorts by itself and never reads a file.

use crate::bytes::{Damaged, Reader, put_bytes, put_varint, put_zigzag};
use crate::logs::entry::{LogEntry, LogKind};
use hashbrown::HashMap;
use std::sync::Arc;
use uni_wire::Timestamp;

/// Stands after each text: no byte of UTF-8, so nothing that is looked for reaches over it.
pub(crate) const SEPARATOR: u8 = 0xff;
/// Most bytes of texts, and of what belongs to them, in a block: no packed bytes may stand for more.
pub(crate) const MAX_RAW_BYTES: usize = 8 << 20;
/// A block is closed at this size.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;
/// Most rows of a block.
pub(crate) const MAX_ROWS: usize = 64 << 10;

/// What many entries of a VM share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Origin {
    pub(crate) kind: LogKind,
    pub(crate) severity: u8,
    pub(crate) facility: u8,
    pub(crate) app: Box<str>,
    pub(crate) host: Box<str>,
}

impl Origin {
    pub(crate) fn of(entry: &LogEntry) -> Self {
        Self {
            kind: entry.kind,
            severity: entry.severity,
            facility: entry.facility,
            app: entry.app.clone(),
            host: entry.host.clone(),
        }
    }

    fn is_of(&self, entry: &LogEntry) -> bool {
        (self.kind, self.severity, self.facility) == (entry.kind, entry.severity, entry.facility)
            && self.app == entry.app
            && self.host == entry.host
    }
}

/// Where the parts of one entry are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) time: i64,
    own_time: Option<i64>,
    pub(crate) origin: u32,
    /// End of its text, separator included.
    pub(crate) text_end: u32,
    extra_end: u32,
}

/// What belongs to texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meta {
    pub(crate) origins: Vec<Origin>,
    pub(crate) rows: Vec<Row>,
    /// Process, id and data of each row that has one of them.
    extra: Vec<u8>,
}

/// Texts and what belongs to them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    pub(crate) meta: Meta,
    pub(crate) text: Vec<u8>,
    /// The origin of the row before is nearly always that of the next one; else this finds it.
    known: HashMap<Origin, u32>,
}

impl Meta {
    /// Where the text of a row begins.
    pub(crate) fn text_start(&self, row: usize) -> usize {
        row.checked_sub(1).map_or(0, |before| self.rows[before].text_end as usize)
    }

    /// The row in whose text (or separator) the byte at `place` is.
    pub(crate) fn row_at(&self, place: usize) -> usize {
        self.rows.partition_point(|row| row.text_end as usize <= place)
    }

    pub(crate) fn origin(&self, row: usize) -> &Origin {
        &self.origins[self.rows[row].origin as usize]
    }

    fn extras(&self, row: usize) -> [&str; 3] {
        let start = row.checked_sub(1).map_or(0, |before| self.rows[before].extra_end as usize);
        let mut reader = Reader::new(&self.extra[start..self.rows[row].extra_end as usize]);
        // checked when the bytes were read; a row without any has no bytes
        std::array::from_fn(|_| reader.text().unwrap_or_default())
    }

    /// The entry of a row; its text is `text`.
    pub(crate) fn entry(&self, vm: &str, row: usize, text: &[u8]) -> LogEntry {
        let (place, origin) = (&self.rows[row], self.origin(row));
        let [process, id, data] = self.extras(row);
        LogEntry {
            time: Timestamp(place.time),
            vm: vm.into(),
            kind: origin.kind,
            severity: origin.severity,
            facility: origin.facility,
            app: origin.app.clone(),
            host: origin.host.clone(),
            own_time: place.own_time.map(Timestamp),
            process: process.into(),
            id: id.into(),
            data: data.into(),
            text: String::from_utf8_lossy(text).into(),
        }
    }

    /// From what [`Meta::packed`] made. `texts` is how many bytes the texts have.
    pub(crate) fn unpack(bytes: &[u8], texts: usize) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        let count = reader.count()?;
        let origins = (0..count).map(|_| read_origin(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let count = reader.count()?;
        if count > MAX_ROWS {
            return Err(Damaged("a block of too many rows"));
        }
        let mut meta = Self { origins, rows: Vec::with_capacity(count), extra: Vec::new() };
        let (mut time, mut text_end) = (0i64, 0u64);
        for _ in 0..count {
            time = time.wrapping_add(reader.zigzag()?);
            let origin = reader.varint_u32()?;
            if origin as usize >= meta.origins.len() {
                return Err(Damaged("an origin that is not there"));
            }
            text_end = text_end.saturating_add(reader.varint()?).saturating_add(1);
            if text_end > texts as u64 {
                return Err(Damaged("texts longer than they are"));
            }
            let flags = reader.u8()?;
            let own_time = (flags & HAS_OWN_TIME > 0).then(|| reader.zigzag()).transpose()?;
            if flags & HAS_EXTRA > 0 {
                for _ in 0..3 {
                    put_bytes(&mut meta.extra, reader.text()?.as_bytes());
                }
            }
            let own_time = own_time.map(|difference| time.wrapping_add(difference));
            let extra_end = meta.extra.len() as u32;
            meta.rows.push(Row { time, own_time, origin, text_end: text_end as u32, extra_end });
        }
        if !reader.is_empty() || text_end != texts as u64 {
            return Err(Damaged("rows that do not fit their texts"));
        }
        Ok(meta)
    }

    /// As bytes.
    pub(crate) fn packed(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.rows.len() * 8 + self.extra.len());
        put_varint(&mut out, self.origins.len() as u64);
        self.origins.iter().for_each(|origin| put_origin(&mut out, origin));
        put_varint(&mut out, self.rows.len() as u64);
        let (mut time, mut text_start, mut extra_start) = (0i64, 0, 0);
        for row in &self.rows {
            put_zigzag(&mut out, row.time.wrapping_sub(time));
            put_varint(&mut out, u64::from(row.origin));
            put_varint(&mut out, u64::from(row.text_end - text_start - 1));
            let extra = &self.extra[extra_start..row.extra_end as usize];
            let own_time = if row.own_time.is_some() { HAS_OWN_TIME } else { 0 };
            out.push(own_time | if extra.is_empty() { 0 } else { HAS_EXTRA });
            if let Some(own_time) = row.own_time {
                put_zigzag(&mut out, own_time.wrapping_sub(row.time));
            }
            out.extend_from_slice(extra);
            (time, text_start, extra_start) = (row.time, row.text_end, row.extra_end as usize);
        }
        out
    }
}

const HAS_OWN_TIME: u8 = 1;
const HAS_EXTRA: u8 = 2;

fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    out.extend([origin.kind as u8, origin.severity, origin.facility]);
    put_bytes(out, origin.app.as_bytes());
    put_bytes(out, origin.host.as_bytes());
}

fn read_origin(reader: &mut Reader<'_>) -> Result<Origin, Damaged> {
    let kind = kind_of(reader.u8()?)?;
    let (severity, facility) = (severity_of(reader.u8()?)?, reader.u8()?);
    Ok(Origin { kind, severity, facility, app: reader.text()?.into(), host: reader.text()?.into() })
}

pub(crate) fn kind_of(code: u8) -> Result<LogKind, Damaged> {
    [LogKind::Message, LogKind::Event]
        .get(usize::from(code))
        .copied()
        .ok_or(Damaged("an unknown kind of entry"))
}

pub(crate) fn severity_of(code: u8) -> Result<u8, Damaged> {
    if code < 8 { Ok(code) } else { Err(Damaged("a severity above 7")) }
}

impl Rows {
    /// Adds an entry.
    pub(crate) fn push(&mut self, entry: &LogEntry) {
        let origin = self.origin_of(entry);
        self.text.extend_from_slice(entry.text.as_bytes());
        let extras = [&entry.process, &entry.id, &entry.data];
        if extras.iter().any(|extra| !extra.is_empty()) {
            extras.into_iter().for_each(|extra| put_bytes(&mut self.meta.extra, extra.as_bytes()));
        }
        let own_time = entry.own_time.map(Timestamp::nanos);
        self.end_row(entry.time.nanos(), own_time, origin);
    }

    fn end_row(&mut self, time: i64, own_time: Option<i64>, origin: u32) {
        self.text.push(SEPARATOR);
        let (text_end, extra_end) = (self.text.len() as u32, self.meta.extra.len() as u32);
        self.meta.rows.push(Row { time, own_time, origin, text_end, extra_end });
    }

    fn origin_of(&mut self, entry: &LogEntry) -> u32 {
        if let Some(last) = self.meta.rows.last()
            && self.meta.origins[last.origin as usize].is_of(entry)
        {
            return last.origin;
        }
        self.number(Origin::of(entry))
    }

    fn number(&mut self, origin: Origin) -> u32 {
        *self.known.entry(origin).or_insert_with_key(|origin| {
            self.meta.origins.push(origin.clone());
            (self.meta.origins.len() - 1) as u32
        })
    }

    /// Adds a row of others.
    fn push_row(&mut self, from: &Self, row: usize, numbers: &mut [Option<u32>]) {
        let place = &from.meta.rows[row];
        let number = &mut numbers[place.origin as usize];
        let origin = *number.get_or_insert_with(|| self.number(from.meta.origin(row).clone()));
        self.text.extend_from_slice(from.text(row));
        let start = row.checked_sub(1).map_or(0, |before| from.meta.rows[before].extra_end as usize);
        self.meta.extra.extend_from_slice(&from.meta.extra[start..place.extra_end as usize]);
        self.end_row(place.time, place.own_time, origin);
    }

    /// Joins what packed blocks had.
    pub(crate) fn joined(meta: Meta, text: Vec<u8>) -> Self {
        Self { meta, text, known: HashMap::new() }
    }

    /// The text of a row, without its separator.
    pub(crate) fn text(&self, row: usize) -> &[u8] {
        &self.text[self.meta.text_start(row)..self.meta.rows[row].text_end as usize - 1]
    }

    /// Bytes of memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + self.meta.extra.len() + self.meta.rows.len() * size_of::<Row>()
    }

    /// Earliest and latest time.
    pub(crate) fn span(&self) -> Option<(i64, i64)> {
        let times = || self.meta.rows.iter().map(|row| row.time);
        Some((times().min()?, times().max()?))
    }

    const fn is_full(&self) -> bool {
        self.text.len() >= BLOCK_BYTES
            || self.meta.extra.len() >= BLOCK_BYTES
            || self.meta.rows.len() >= MAX_ROWS
            || self.meta.origins.len() >= MAX_ORIGINS
    }
}

/// A block is closed at so many origins; each may take some KiB.
const MAX_ORIGINS: usize = 1_000;

/// Rows of one VM as full blocks by time; rows of the same time stay in their order.
pub(crate) fn sorted(parts: &[Arc<Rows>]) -> Vec<Rows> {
    let rows = |(part, rows): (usize, &Arc<Rows>)| {
        rows.meta.rows.iter().enumerate().map(move |(at, row)| (row.time, part, at)).collect::<Vec<_>>()
    };
    let mut order: Vec<_> = parts.iter().enumerate().flat_map(rows).collect();
    order.sort_unstable();
    let mut numbers: Vec<Vec<Option<u32>>> = Vec::new();
    let mut blocks: Vec<Rows> = Vec::new();
    for (_, part, at) in order {
        if blocks.last().is_none_or(Rows::is_full) {
            blocks.push(Rows::default());
            numbers = parts.iter().map(|part| vec![None; part.meta.origins.len()]).collect();
        }
        if let Some(block) = blocks.last_mut() {
            block.push_row(&parts[part], at, &mut numbers[part]);
        }
    }
    blocks
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn entry() -> impl Strategy<Value = LogEntry> {
        let names = ("[ab]{0,2}", "[xy]{0,2}");
        let extras = prop_oneof![3 => Just(["", "", ""].map(String::from)), 1 => ["\\PC{0,4}", "\\PC{0,4}", "\\PC{0,4}"]];
        let times = (prop_oneof![0..50i64, any::<i64>()], prop::option::of(any::<i64>()));
        (times, 0..8u8, 0..24u8, any::<bool>(), names, extras, "[a-c \\n]{0,12}|\\PC{0,9}").prop_map(
            |((time, own), severity, facility, event, (app, host), [process, id, data], text)| LogEntry {
                time: Timestamp(time),
                vm: "web".into(),
                kind: if event { LogKind::Event } else { LogKind::Message },
                severity,
                facility,
                app: app.into(),
                host: host.into(),
                own_time: own.map(Timestamp),
                process: process.into(),
                id: id.into(),
                data: data.into(),
                text: text.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn rows_are_packed_and_read_back(entries in prop::collection::vec(entry(), 0..40)) {
            let mut rows = Rows::default();
            entries.iter().for_each(|entry| rows.push(entry));
            let meta = Meta::unpack(&rows.meta.packed(), rows.text.len()).unwrap();
            for (row, entry) in entries.iter().enumerate() {
                prop_assert_eq!(&meta.entry("web", row, rows.text(row)), entry);
                prop_assert_eq!(meta.row_at(meta.text_start(row)), row);
            }
            let mut sorted_entries = entries.clone();
            sorted_entries.sort_by_key(|entry| entry.time);
            let blocks = sorted(&[Arc::new(rows)]);
            let all = blocks.iter().flat_map(|block| (0..block.meta.rows.len()).map(|row| block.meta.entry("web", row, block.text(row))));
            prop_assert_eq!(all.collect::<Vec<_>>(), sorted_entries);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, texts in 0..100usize) {
            if let Ok(meta) = Meta::unpack(&bytes, texts) {
                for row in 0..meta.rows.len() {
                    meta.entry("web", row, b"");
                }
            }
        }
    }
}
