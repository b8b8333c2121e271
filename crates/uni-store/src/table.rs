//! Rows as columns in memory: what chunks and blocks unpack to and what is packed into blocks.
//!
//! Owns the rule that later writes win, field by field. Never owns names, files or encodings.

use std::borrow::Cow;
use uni_wire::{FieldType, FieldValue};

/// The values of one field; where a row lacks the field there is a placeholder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    Float(Vec<f64>),
    Integer(Vec<i64>),
    Unsigned(Vec<u64>),
    Text(Vec<Box<str>>),
    Boolean(Vec<bool>),
}

/// One field of a table. `values` has one item for each row, and so has `present`, if it is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    pub(crate) field: u32,
    /// `None`: every row has a value.
    pub(crate) present: Option<Vec<bool>>,
    pub(crate) values: Values,
}

/// Rows of one series.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) times: Vec<i64>,
    pub(crate) columns: Vec<Column>,
}

impl Values {
    pub(crate) const fn new(field_type: FieldType) -> Self {
        match field_type {
            FieldType::Float => Self::Float(Vec::new()),
            FieldType::Integer => Self::Integer(Vec::new()),
            FieldType::Unsigned => Self::Unsigned(Vec::new()),
            FieldType::String => Self::Text(Vec::new()),
            FieldType::Boolean => Self::Boolean(Vec::new()),
        }
    }

    pub(crate) const fn field_type(&self) -> FieldType {
        match self {
            Self::Float(_) => FieldType::Float,
            Self::Integer(_) => FieldType::Integer,
            Self::Unsigned(_) => FieldType::Unsigned,
            Self::Text(_) => FieldType::String,
            Self::Boolean(_) => FieldType::Boolean,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Integer(values) => values.len(),
            Self::Unsigned(values) => values.len(),
            Self::Text(values) => values.len(),
            Self::Boolean(values) => values.len(),
        }
    }

    /// Room for more values.
    pub(crate) fn reserve(&mut self, rows: usize) {
        match self {
            Self::Float(values) => values.reserve(rows),
            Self::Integer(values) => values.reserve(rows),
            Self::Unsigned(values) => values.reserve(rows),
            Self::Text(values) => values.reserve(rows),
            Self::Boolean(values) => values.reserve(rows),
        }
    }

    /// Placeholders up to `rows`.
    pub(crate) fn pad(&mut self, rows: usize) {
        match self {
            Self::Float(values) => values.resize(rows, 0.0),
            Self::Integer(values) => values.resize(rows, 0),
            Self::Unsigned(values) => values.resize(rows, 0),
            Self::Text(values) => values.resize(rows, "".into()),
            Self::Boolean(values) => values.resize(rows, false),
        }
    }

    pub(crate) fn get(&self, row: usize) -> FieldValue {
        match self {
            Self::Float(values) => FieldValue::Float(values[row]),
            Self::Integer(values) => FieldValue::Integer(values[row]),
            Self::Unsigned(values) => FieldValue::Unsigned(values[row]),
            Self::Text(values) => FieldValue::String(values[row].clone()),
            Self::Boolean(values) => FieldValue::Boolean(values[row]),
        }
    }

    /// Adds values of the same type; others are a fault of the caller and add nothing.
    fn extend(&mut self, other: Self) {
        match (self, other) {
            (Self::Float(values), Self::Float(more)) => values.extend(more),
            (Self::Integer(values), Self::Integer(more)) => values.extend(more),
            (Self::Unsigned(values), Self::Unsigned(more)) => values.extend(more),
            (Self::Text(values), Self::Text(more)) => values.extend(more),
            (Self::Boolean(values), Self::Boolean(more)) => values.extend(more),
            _ => debug_assert!(false, "a field has one type"),
        }
    }

    fn push_from(&mut self, other: &Self, row: usize) {
        match (self, other) {
            (Self::Float(values), Self::Float(from)) => values.push(from[row]),
            (Self::Integer(values), Self::Integer(from)) => values.push(from[row]),
            (Self::Unsigned(values), Self::Unsigned(from)) => values.push(from[row]),
            (Self::Text(values), Self::Text(from)) => values.push(from[row].clone()),
            (Self::Boolean(values), Self::Boolean(from)) => values.push(from[row]),
            _ => debug_assert!(false, "a field has one type"),
        }
    }
}

impl Column {
    pub(crate) const fn new(field: u32, field_type: FieldType) -> Self {
        Self { field, present: None, values: Values::new(field_type) }
    }

    /// Makes the column `rows` long; what is added is absent.
    pub(crate) fn skip_to(&mut self, rows: usize) {
        let have = self.values.len();
        if have < rows {
            self.present.get_or_insert_with(|| vec![true; have]).resize(rows, false);
            self.values.pad(rows);
        }
    }

    pub(crate) fn is_present(&self, row: usize) -> bool {
        self.present.as_ref().is_none_or(|present| present[row])
    }

    /// To be called after a value has been pushed.
    pub(crate) fn mark_present(&mut self) {
        if let Some(present) = &mut self.present {
            present.push(true);
        }
    }

    pub(crate) fn get(&self, row: usize) -> Option<FieldValue> {
        self.is_present(row).then(|| self.values.get(row))
    }

    /// Those of a column's values that are not placeholders.
    pub(crate) fn there<'a, T: Copy>(&self, values: &'a [T]) -> Cow<'a, [T]> {
        match &self.present {
            None => Cow::Borrowed(values),
            Some(present) => {
                let there = values.iter().zip(present).filter(|(_, there)| **there);
                Cow::Owned(there.map(|(value, _)| *value).collect())
            }
        }
    }

    pub(crate) const fn texts(&self) -> Option<&Vec<Box<str>>> {
        if let Values::Text(values) = &self.values { Some(values) } else { None }
    }

    fn extend(&mut self, other: Self) {
        let have = self.values.len();
        if self.present.is_some() || other.present.is_some() {
            let rows = other.values.len();
            let more = other.present.unwrap_or_else(|| vec![true; rows]);
            self.present.get_or_insert_with(|| vec![true; have]).extend(more);
        }
        self.values.extend(other.values);
    }
}

impl Table {
    pub(crate) fn ascends(&self) -> bool {
        self.times.windows(2).all(|pair| pair[0] < pair[1])
    }

    pub(crate) fn span(&self) -> Option<(i64, i64)> {
        Some((*self.times.first()?, *self.times.last()?))
    }

    /// Where the column of a field is; a new one, with no value so far, if there is none.
    pub(crate) fn column(&mut self, field: u32, field_type: FieldType) -> usize {
        if let Some(at) = self.columns.iter().position(|column| column.field == field) {
            return at;
        }
        self.columns.push(Column::new(field, field_type));
        self.columns.len() - 1
    }

    /// Makes all columns as long as the times.
    pub(crate) fn level(&mut self) {
        let rows = self.times.len();
        self.columns.iter_mut().for_each(|column| column.skip_to(rows));
    }

    /// Appends rows that are all later.
    fn append(&mut self, other: Self) {
        for column in other.columns {
            let at = self.column(column.field, column.values.field_type());
            self.columns[at].skip_to(self.times.len());
            self.columns[at].extend(column);
        }
        self.times.extend(other.times);
        self.level();
    }

    /// The rows of all tables by ascending time, one for each time. Of rows with the same time, those of later
    /// tables win, and within a table later rows, field by field.
    pub(crate) fn merge(mut tables: Vec<Self>) -> Self {
        tables.retain(|table| !table.times.is_empty());
        let disjoint = tables.windows(2).all(|pair| pair[0].times.last() < pair[1].times.first());
        if disjoint && tables.iter().all(Self::ascends) {
            let mut tables = tables.into_iter();
            let mut merged = tables.next().unwrap_or_default();
            tables.for_each(|table| merged.append(table));
            return merged;
        }
        Self::interleave(&tables)
    }

    fn interleave(tables: &[Self]) -> Self {
        let mut rows: Vec<(i64, usize, usize)> = Vec::new();
        for (at, table) in tables.iter().enumerate() {
            rows.extend(table.times.iter().enumerate().map(|(row, time)| (*time, at, row)));
        }
        rows.sort_unstable();
        let mut merged = Self::default();
        for column in tables.iter().flat_map(|table| &table.columns) {
            merged.column(column.field, column.values.field_type());
        }
        for same in rows.chunk_by(|a, b| a.0 == b.0) {
            for column in &mut merged.columns {
                let newest = same.iter().rev().find_map(|&(_, at, row)| {
                    let from = tables[at].columns.iter().find(|from| from.field == column.field)?;
                    from.is_present(row).then_some((from, row))
                });
                if let Some((from, row)) = newest {
                    column.skip_to(merged.times.len());
                    column.values.push_from(&from.values, row);
                    column.mark_present();
                }
            }
            merged.times.push(same[0].0);
        }
        merged.level();
        merged
    }

    /// Keeps rows from `from` to `to`, both included, and only the fields that still have a value.
    pub(crate) fn between(&self, from: i64, to: i64) -> Self {
        let start = self.times.partition_point(|time| *time < from);
        let end = self.times.partition_point(|time| *time <= to);
        self.slice(start, end)
    }

    pub(crate) fn slice(&self, start: usize, end: usize) -> Self {
        let cut = |column: &Column| Column {
            field: column.field,
            present: column.present.as_ref().map(|present| present[start..end].to_vec()),
            values: match &column.values {
                Values::Float(values) => Values::Float(values[start..end].to_vec()),
                Values::Integer(values) => Values::Integer(values[start..end].to_vec()),
                Values::Unsigned(values) => Values::Unsigned(values[start..end].to_vec()),
                Values::Text(values) => Values::Text(values[start..end].to_vec()),
                Values::Boolean(values) => Values::Boolean(values[start..end].to_vec()),
            },
        };
        let columns =
            self.columns.iter().map(cut).filter(|c| c.present.as_ref().is_none_or(|p| p.contains(&true)));
        Self { times: self.times[start..end].to_vec(), columns: columns.collect() }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn table(rows: &[(i64, u32, i64)]) -> Table {
        let mut table = Table::default();
        for &(time, field, value) in rows {
            let at = table.column(field, FieldType::Integer);
            let column = &mut table.columns[at];
            column.skip_to(table.times.len());
            if let Values::Integer(values) = &mut column.values {
                values.push(value);
            }
            column.mark_present();
            table.times.push(time);
        }
        table.level();
        table
    }

    fn rows(table: &Table) -> Vec<(i64, Vec<(u32, FieldValue)>)> {
        let fields = |row: usize| {
            let mut fields: Vec<_> =
                table.columns.iter().filter_map(|column| Some((column.field, column.get(row)?))).collect();
            fields.sort_by_key(|(field, _)| *field);
            fields
        };
        table.times.iter().enumerate().map(|(row, time)| (*time, fields(row))).collect()
    }

    fn integer(field: u32, value: i64) -> (u32, FieldValue) {
        (field, FieldValue::Integer(value))
    }

    #[test]
    fn later_tables_and_later_rows_win_field_by_field() {
        let old = table(&[(1, 0, 10), (1, 1, 11), (2, 0, 20)]);
        let new = table(&[(3, 1, 31), (1, 0, 98), (1, 0, 99)]);
        let merged = Table::merge(vec![old, new]);
        assert_eq!(
            rows(&merged),
            [(1, vec![integer(0, 99), integer(1, 11)]), (2, vec![integer(0, 20)]), (3, vec![integer(1, 31)])]
        );
    }

    #[test]
    fn tables_one_after_the_other_are_joined() {
        let merged =
            Table::merge(vec![table(&[(1, 0, 1), (2, 0, 2)]), table(&[(5, 1, 3)]), table(&[(7, 0, 4)])]);
        assert_eq!(rows(&merged)[2..], [(5, vec![integer(1, 3)]), (7, vec![integer(0, 4)])]);
        assert_eq!(rows(&merged.between(2, 5)), [(2, vec![integer(0, 2)]), (5, vec![integer(1, 3)])]);
        assert_eq!(merged.between(6, 9).columns.len(), 1);
    }
}
