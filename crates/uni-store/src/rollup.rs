//! Rows into windows: the least, the greatest, the first, the last, the count and the sum of every field of numbers.
//!
//! Owns this arithmetic. Rows come by ascending time; nothing is kept of them but the window that is open. Never owns
//! files.

use crate::table::{Column, Table, Values};
use crate::tier::{Stat, TierWidth, WINDOW, code, has_room, put};
use std::collections::BTreeMap;
use uni_wire::FieldValue;

/// Whole floats up to here are added as integers.
const WHOLE: f64 = 1e15;
/// Integers below this magnitude are floats too, and sums of them do not depend on the order of adding.
const EXACT: i128 = 1 << 53;

/// Nine places: more are not looked for when floats are packed.
const PLACES: f64 = 1e9;
/// Beyond the digits that adding some thousand floats leaves right.
const ROUNDING: f64 = 1e-13;

/// A value of a number.
#[derive(Clone, Copy, Debug)]
enum Number {
    Float(f64),
    Integer(i64),
    Unsigned(u64),
}

impl Number {
    fn of(values: &Values, row: usize) -> Option<Self> {
        match values {
            Values::Float(values) => Some(Self::Float(values[row])),
            Values::Integer(values) => Some(Self::Integer(values[row])),
            Values::Unsigned(values) => Some(Self::Unsigned(values[row])),
            Values::Text(_) | Values::Boolean(_) => None,
        }
    }

    /// In the order in which the least and the greatest are looked for: minus zero is less than zero.
    fn order(self, other: Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.total_cmp(&b),
            (Self::Integer(a), Self::Integer(b)) => a.cmp(&b),
            (Self::Unsigned(a), Self::Unsigned(b)) => a.cmp(&b),
            _ => std::cmp::Ordering::Equal,
        }
    }

    fn whole(self) -> Option<i128> {
        match self {
            Self::Float(n) => (n.fract() == 0.0 && n.abs() < WHOLE).then_some(n as i128),
            Self::Integer(n) => Some(n.into()),
            Self::Unsigned(n) => Some(n.into()),
        }
    }

    fn float(self) -> f64 {
        match self {
            Self::Float(n) => n,
            Self::Integer(n) => n as f64,
            Self::Unsigned(n) => n as f64,
        }
    }

    const fn value(self) -> FieldValue {
        match self {
            Self::Float(n) => FieldValue::Float(n),
            Self::Integer(n) => FieldValue::Integer(n),
            Self::Unsigned(n) => FieldValue::Unsigned(n),
        }
    }
}

/// What a field has in the window that is open.
#[derive(Clone, Copy, Debug)]
struct Sums {
    count: i64,
    least: Number,
    greatest: Number,
    first: (i64, Number),
    last: (i64, Number),
    /// The sum, as long as all values are whole.
    whole: Option<i128>,
    about: f64,
}

impl Sums {
    fn begin(time: i64, number: Number) -> Self {
        let (count, whole, about) = (0, Some(0), 0.0);
        let at = (time, number);
        let mut sums = Self { count, least: number, greatest: number, first: at, last: at, whole, about };
        sums.add(time, number);
        sums
    }

    fn add(&mut self, time: i64, number: Number) {
        self.count += 1;
        if number.order(self.least).is_lt() {
            self.least = number;
        }
        if number.order(self.greatest).is_gt() {
            self.greatest = number;
        }
        self.last = (time, number);
        self.whole = self.whole.zip(number.whole()).map(|(sum, more)| sum + more);
        self.about += number.float();
    }

    /// The sum of floats, without what was added by rounding if they are decimals of few places: it is then as short as
    /// they are.
    fn about(&self) -> f64 {
        let decimal = (self.about * PLACES).round() / PLACES;
        if (decimal - self.about).abs() <= self.about.abs() * ROUNDING { decimal } else { self.about }
    }

    /// The sum in the field's type, if it is exact and fits.
    fn sum(&self) -> Option<FieldValue> {
        let whole = self.whole?;
        match self.least {
            Number::Float(_) => (whole.abs() < EXACT).then_some(FieldValue::Float(whole as f64)),
            Number::Integer(_) => i64::try_from(whole).ok().map(FieldValue::Integer),
            Number::Unsigned(_) => u64::try_from(whole).ok().map(FieldValue::Unsigned),
        }
    }
}

/// Sums up the rows of one series by windows of one width.
#[derive(Debug)]
pub(crate) struct Rollup {
    width: i64,
    /// Start, first and last time of the window that is open.
    open: Option<(i64, i64, i64)>,
    fields: BTreeMap<u32, Sums>,
    done: Table,
}

impl Rollup {
    pub(crate) fn new(width: TierWidth) -> Self {
        Self { width: width.nanos(), open: None, fields: BTreeMap::new(), done: Table::default() }
    }

    /// Adds rows that are later than all before.
    pub(crate) fn push(&mut self, table: &Table) {
        let times = &table.times;
        let mut start = 0;
        while let Some(first) = times.get(start) {
            let window = first.saturating_sub(first.rem_euclid(self.width));
            let after = times[start..].partition_point(|time| time.saturating_sub(window) < self.width);
            // At the end of all times a window may have no end.
            let rows = start..start + after.max(1);
            self.enter(window, *first);
            if let Some((_, _, last)) = &mut self.open {
                *last = times[rows.end - 1];
            }
            for column in table.columns.iter().filter(|column| has_room(column.field)) {
                self.add(times, column, rows.clone());
            }
            start = rows.end;
        }
    }

    fn enter(&mut self, window: i64, first: i64) {
        if self.open.is_none_or(|(open, ..)| open != window) {
            self.close();
            self.open = Some((window, first, first));
        }
    }

    fn add(&mut self, times: &[i64], column: &Column, rows: std::ops::Range<usize>) {
        let mut sums = self.fields.remove(&column.field);
        for row in rows.filter(|row| column.is_present(*row)) {
            let Some(number) = Number::of(&column.values, row) else { break };
            match &mut sums {
                Some(sums) => sums.add(times[row], number),
                None => sums = Some(Sums::begin(times[row], number)),
            }
        }
        self.fields.extend(sums.map(|sums| (column.field, sums)));
    }

    fn close(&mut self) {
        let Some((window, first, last)) = self.open.take() else { return };
        let fields = std::mem::take(&mut self.fields);
        if fields.is_empty() {
            return;
        }
        let after = |time: i64| FieldValue::Integer(time.wrapping_sub(window));
        let mut at = 0;
        let table = &mut self.done;
        put(table, &mut at, code(WINDOW, Stat::FirstTime), &after(first));
        put(table, &mut at, code(WINDOW, Stat::LastTime), &after(last));
        for (field, sums) in fields {
            put(table, &mut at, code(field, Stat::Count), &FieldValue::Integer(sums.count));
            put(table, &mut at, code(field, Stat::Least), &sums.least.value());
            put(table, &mut at, code(field, Stat::Greatest), &sums.greatest.value());
            put(table, &mut at, code(field, Stat::First), &sums.first.1.value());
            put(table, &mut at, code(field, Stat::Last), &sums.last.1.value());
            match sums.sum() {
                Some(sum) => put(table, &mut at, code(field, Stat::Sum), &sum),
                None => put(table, &mut at, code(field, Stat::About), &FieldValue::Float(sums.about())),
            }
            if sums.first.0 != first {
                put(table, &mut at, code(field, Stat::FirstTime), &after(sums.first.0));
            }
            if sums.last.0 != last {
                put(table, &mut at, code(field, Stat::LastTime), &after(sums.last.0));
            }
        }
        table.times.push(window);
        table.level();
    }

    /// The windows that are closed, if they are at least so many.
    pub(crate) fn take(&mut self, at_least: usize) -> Option<Table> {
        (self.done.times.len() >= at_least).then(|| std::mem::take(&mut self.done))
    }

    /// The windows that have not been taken.
    pub(crate) fn finish(mut self) -> Table {
        self.close();
        self.done
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::tier::{TierSum, Windows};
    use uni_wire::{FieldType, Timestamp};

    const SECOND: i64 = 1_000_000_000;

    fn table(rows: &[(i64, Option<f64>, i64)]) -> Table {
        let mut table = Table::default();
        for (time, float, integer) in rows {
            if let Some(float) = float {
                put(&mut table, &mut 0, 3, &FieldValue::Float(*float));
            }
            put(&mut table, &mut 0, 5, &FieldValue::Integer(*integer));
            table.times.push(time * SECOND);
            table.level();
        }
        table
    }

    #[test]
    fn windows_say_what_their_rows_do() {
        let rows = [(0, None, 5), (10, Some(0.5), -7), (59, Some(-0.0), 9), (60, Some(2.0), i64::MAX)];
        let more = [(119, Some(3.0), i64::MAX), (7200, None, 1)];
        let mut rollup = Rollup::new(TierWidth::Minute);
        rollup.push(&table(&rows));
        rollup.push(&table(&more));
        let done = rollup.finish();
        let windows = Windows::new(done, TierWidth::Minute, false, &[Some(3), Some(5), None, Some(4)]);
        assert_eq!(windows.starts(), [0, 60 * SECOND, 7200 * SECOND]);
        let at = |seconds: i64| Timestamp(seconds * SECOND);
        let first = windows.window(0).unwrap();
        assert_eq!((first.start, first.span), (at(0), (at(0), at(59))));
        let [Some(float), Some(integer), None, None] = &first.fields[..] else { panic!("{first:?}") };
        assert_eq!((float.count, &float.sum), (2, &TierSum::About(0.5)));
        assert_eq!(float.min, FieldValue::Float(-0.0));
        assert_eq!((float.first.clone(), float.last.0), ((at(10), FieldValue::Float(0.5)), at(59)));
        assert_eq!(integer.sum, TierSum::Exact(FieldValue::Integer(7)));
        assert_eq!((&integer.min, &integer.max), (&FieldValue::Integer(-7), &FieldValue::Integer(9)));
        let second = windows.window(1).unwrap();
        let [Some(float), Some(integer), ..] = &second.fields[..] else { panic!("{second:?}") };
        assert_eq!(float.sum, TierSum::Exact(FieldValue::Float(5.0)));
        assert_eq!(integer.sum, TierSum::About(2.0 * i64::MAX as f64), "it does not fit");
        assert_eq!(windows.window(2).unwrap().fields[0], None);
    }

    #[test]
    fn names_of_columns_say_what_they_are() {
        let columns = crate::tier::columns(&[(7, "rss".into(), FieldType::Unsigned)]);
        assert_eq!(columns.len(), 11);
        assert_eq!(crate::tier::parse_column(&columns[1].1), Some((Stat::Least, "rss")));
        assert_eq!((columns[1].0, columns[1].2), (code(7, Stat::Least), FieldType::Unsigned));
        assert_eq!(crate::tier::parse_column(&columns[9].1), Some((Stat::FirstTime, "")));
        assert_eq!((crate::tier::parse_column(""), crate::tier::parse_column("éx")), (None, None));
    }
}
