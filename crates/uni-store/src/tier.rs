//! Tiers: what the rows of a partition add up to, by the minute and by the hour.
//!
//! Owns the widths, which columns a field has in a tier and how they are named (`docs/format/store.md`, section
//! *Tiers*), and what a window says. A tier file is a segment whose rows are windows; which rows it was made of,
//! `rollup` knows, when it may stand for them, `summed`.

use crate::files::Files;
use crate::segment::Segment;
use crate::state::SECOND_NS;
use crate::table::{Table, Values};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uni_wire::{FieldType, FieldValue, Timestamp};

/// How long the windows of a tier are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TierWidth {
    /// One minute.
    Minute,
    /// One hour.
    Hour,
}

impl TierWidth {
    /// All of them, the finest first.
    pub const ALL: [Self; 2] = [Self::Minute, Self::Hour];

    /// In nanoseconds.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        match self {
            Self::Minute => 60 * SECOND_NS,
            Self::Hour => 3600 * SECOND_NS,
        }
    }

    /// Of its files: while the rows are there, and after they are gone.
    const fn extensions(self) -> [&'static str; 2] {
        match self {
            Self::Minute => ["1m", "1m-kept"],
            Self::Hour => ["1h", "1h-kept"],
        }
    }
}

/// A tier of one partition.
#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) width: TierWidth,
    /// Its file; the number is that of the newest segment whose rows it has.
    pub(crate) segment: Arc<Segment>,
    /// The rows are gone: it stands by itself, and is never made again.
    pub(crate) kept: bool,
    /// Whether it may stay when its rows go.
    pub(crate) outlives: bool,
}

pub(crate) fn path(files: &Files, dir: &Path, number: u64, width: TierWidth, kept: bool) -> PathBuf {
    files.numbered(dir, number, width.extensions()[usize::from(kept)])
}

/// Number, width and whether it is kept, out of a file's name.
pub(crate) fn parse_path(path: &Path) -> Option<(u64, TierWidth, bool)> {
    let all = TierWidth::ALL.into_iter().flat_map(|width| [(width, false), (width, true)]);
    all.into_iter().find_map(|(width, kept)| {
        let number = crate::files::number_of(path, width.extensions()[usize::from(kept)])?;
        Some((number, width, kept))
    })
}

/// What is kept of a field in each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stat {
    Count,
    Least,
    Greatest,
    First,
    Last,
    /// The sum, where it does not depend on the order of adding.
    Sum,
    /// The sum in order of time, where it does.
    About,
    /// When the first and the last value came; of a field only where they differ from those of the window.
    FirstTime,
    LastTime,
}

const STATS: [(Stat, u8); 9] = [
    (Stat::Count, b'n'),
    (Stat::Least, b'l'),
    (Stat::Greatest, b'g'),
    (Stat::First, b'f'),
    (Stat::Last, b'z'),
    (Stat::Sum, b's'),
    (Stat::About, b'a'),
    (Stat::FirstTime, b'F'),
    (Stat::LastTime, b'Z'),
];
/// Codes of columns: the field's number times this, plus the statistic.
const CODES: u32 = 16;
/// Stands for the window itself, as if it were a field; its name is empty, which no field's is.
pub(crate) const WINDOW: u32 = u32::MAX / CODES;

/// The number by which a tier's table knows a column.
pub(crate) const fn code(field: u32, stat: Stat) -> u32 {
    field * CODES + stat as u32
}

/// The field that a column belongs to; none for those of the window.
pub(crate) fn field_of(code: u32) -> Option<u32> {
    Some(code / CODES).filter(|field| *field != WINDOW)
}

/// Whether fields of this number can be told apart in a tier; others, which do not occur, are left out.
pub(crate) const fn has_room(field: u32) -> bool {
    field < WINDOW
}

pub(crate) const fn is_number(field_type: FieldType) -> bool {
    matches!(field_type, FieldType::Float | FieldType::Integer | FieldType::Unsigned)
}

/// The columns of a tier for the fields of a series, by number, name and type.
pub(crate) fn columns(fields: &[(u32, Box<str>, FieldType)]) -> Vec<(u32, Box<str>, FieldType)> {
    let window = (WINDOW, "".into(), FieldType::Integer);
    let mut columns = Vec::new();
    for (number, name, field_type) in fields.iter().chain(std::iter::once(&window)) {
        for (stat, letter) in STATS {
            if *number != WINDOW || matches!(stat, Stat::FirstTime | Stat::LastTime) {
                let name = format!("{}{name}", char::from(letter)).into();
                columns.push((code(*number, stat), name, type_of(stat, *field_type)));
            }
        }
    }
    columns
}

const fn type_of(stat: Stat, field_type: FieldType) -> FieldType {
    match stat {
        Stat::Count | Stat::FirstTime | Stat::LastTime => FieldType::Integer,
        Stat::About => FieldType::Float,
        Stat::Least | Stat::Greatest | Stat::First | Stat::Last | Stat::Sum => field_type,
    }
}

/// The statistic and the field's name out of a column's name.
pub(crate) fn parse_column(name: &str) -> Option<(Stat, &str)> {
    let letter = *name.as_bytes().first()?;
    let (stat, _) = STATS.into_iter().find(|(_, known)| *known == letter)?;
    Some((stat, name.get(1..)?))
}

/// What a window says of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldSummary {
    /// Values there are, at least one.
    pub count: u64,
    /// The least value, in the field's type.
    pub min: FieldValue,
    /// The greatest.
    pub max: FieldValue,
    /// The earliest, with its time.
    pub first: (Timestamp, FieldValue),
    /// The latest, with its time.
    pub last: (Timestamp, FieldValue),
    /// All values added.
    pub sum: TierSum,
}

/// A sum of values.
#[derive(Clone, Debug, PartialEq)]
pub enum TierSum {
    /// The same in whatever order they are added: of integers, and of whole floats that stay below 2^53.
    Exact(FieldValue),
    /// As it comes out in order of time; not a number where that is not known, which it is where rows are gone.
    About(f64),
}

/// The rows of one series in a window, summed up.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowSummary {
    /// Where the window begins.
    pub start: Timestamp,
    /// The times of its first and last row.
    pub span: (Timestamp, Timestamp),
    /// Its rows are not there any more: there is nothing else to ask.
    pub is_all: bool,
    /// For each field asked for what it has; `None` where there is no value of a number.
    pub fields: Vec<Option<FieldSummary>>,
}

/// Reads the rows of a tier's table.
#[derive(Debug)]
pub(crate) struct Windows {
    table: Table,
    width: i64,
    is_all: bool,
    /// Where the columns of the window are, then of each field.
    window: Places,
    fields: Vec<Option<Places>>,
}

/// Where in a table the column of each statistic is.
type Places = [Option<usize>; STATS.len()];

fn places(table: &Table, field: u32) -> Places {
    STATS.map(|(stat, _)| table.columns.iter().position(|column| column.field == code(field, stat)))
}

impl Windows {
    /// `fields`: those that are asked for.
    pub(crate) fn new(table: Table, width: TierWidth, is_all: bool, fields: &[Option<u32>]) -> Self {
        let window = places(&table, WINDOW);
        let fields = fields.iter().map(|field| Some(places(&table, (*field)?))).collect();
        Self { table, width: width.nanos(), is_all, window, fields }
    }

    pub(crate) fn starts(&self) -> &[i64] {
        &self.table.times
    }

    fn value(&self, row: usize, places: &Places, stat: Stat) -> Option<FieldValue> {
        self.table.columns.get(places[stat as usize]?)?.get(row)
    }

    fn time(&self, row: usize, places: &Places, stat: Stat) -> Option<Timestamp> {
        match self.value(row, places, stat)? {
            FieldValue::Integer(after) if (0..self.width).contains(&after) => {
                Some(Timestamp(self.table.times[row].saturating_add(after)))
            }
            _ => None,
        }
    }

    /// The window of a row; `None` if it lacks what every window has.
    pub(crate) fn window(&self, row: usize) -> Option<WindowSummary> {
        let time = |stat| self.time(row, &self.window, stat);
        let span = (time(Stat::FirstTime)?, time(Stat::LastTime)?);
        let fields = self.fields.iter().map(|field| self.field(row, field.as_ref()?, span)).collect();
        Some(WindowSummary { start: Timestamp(self.table.times[row]), span, is_all: self.is_all, fields })
    }

    fn field(&self, row: usize, field: &Places, span: (Timestamp, Timestamp)) -> Option<FieldSummary> {
        let value = |stat| self.value(row, field, stat);
        let FieldValue::Integer(count) = value(Stat::Count)? else { return None };
        let sum = match (value(Stat::Sum), value(Stat::About)) {
            (Some(sum), _) => TierSum::Exact(sum),
            (_, Some(FieldValue::Float(sum))) => TierSum::About(sum),
            _ => return None,
        };
        Some(FieldSummary {
            count: count.cast_unsigned(),
            min: value(Stat::Least)?,
            max: value(Stat::Greatest)?,
            first: (self.time(row, field, Stat::FirstTime).unwrap_or(span.0), value(Stat::First)?),
            last: (self.time(row, field, Stat::LastTime).unwrap_or(span.1), value(Stat::Last)?),
            sum,
        })
    }
}

/// Adds a value to the end of a tier's column, which is looked for at `guess` first; that is then the one after it.
pub(crate) fn put(table: &mut Table, guess: &mut usize, code: u32, value: &FieldValue) {
    let at = match table.columns.get(*guess) {
        Some(column) if column.field == code => *guess,
        _ => table.column(code, value.field_type()),
    };
    *guess = at + 1;
    let rows = table.times.len();
    let column = &mut table.columns[at];
    column.skip_to(rows);
    match (&mut column.values, value) {
        (Values::Float(values), FieldValue::Float(value)) => values.push(*value),
        (Values::Integer(values), FieldValue::Integer(value)) => values.push(*value),
        (Values::Unsigned(values), FieldValue::Unsigned(value)) => values.push(*value),
        // A column has one type, which follows from that of its field.
        _ => return,
    }
    column.mark_present();
}

/// Tiers of a partition.
pub(crate) type Tiers = Vec<Arc<Tier>>;
