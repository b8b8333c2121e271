//! A block: up to [`MAX_ROWS`] rows of one series, column by column, with its own checksum.
//!
//! Owns the layout of a block. Where blocks lie, and which series they belong to, the segment knows.

use crate::bytes::{Damaged, Reader, put_bytes, put_varint};
use crate::column::{column, put_column, put_times, times};
use crate::row::{type_code, type_of_code};
use uni_wire::{FieldType, FieldValue};

/// Most rows of a block: small enough that a short query reads little, large enough to pack well.
pub(crate) const MAX_ROWS: usize = 1024;
/// Most cells of a block that is written, so that a decoded block of a wide series stays below half a MiB.
const MAX_CELLS: usize = 16_384;
/// A block of texts is closed once its texts reach this size.
pub(crate) const MAX_TEXT_BYTES: usize = 1 << 18;

/// How many rows a block of a series with `columns` columns gets.
pub(crate) fn rows_for(columns: usize) -> usize {
    (MAX_CELLS / columns.max(1)).clamp(16, MAX_ROWS)
}

/// Rows being gathered for a block. Columns are numbered as in the series' entry of the index.
#[derive(Debug)]
pub(crate) struct Builder {
    times: Vec<i64>,
    types: Vec<FieldType>,
    columns: Vec<Vec<Option<FieldValue>>>,
    text_bytes: usize,
}

impl Builder {
    pub(crate) fn new(types: Vec<FieldType>) -> Self {
        let columns = types.iter().map(|_| Vec::new()).collect();
        Self { times: Vec::new(), types, columns, text_bytes: 0 }
    }

    /// Adds a row later than the one before; takes the values out of `row`.
    pub(crate) fn push(&mut self, time: i64, row: &mut [Option<FieldValue>]) {
        self.times.push(time);
        for (column, value) in self.columns.iter_mut().zip(row) {
            if let Some(FieldValue::String(text)) = value {
                self.text_bytes += text.len();
            }
            column.push(value.take());
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.times.len() >= rows_for(self.columns.len()) || self.text_bytes >= MAX_TEXT_BYTES
    }

    /// First and last time and the number of rows; `None` without rows.
    pub(crate) fn span(&self) -> Option<(i64, i64, usize)> {
        Some((*self.times.first()?, *self.times.last()?, self.times.len()))
    }

    /// The block's bytes; the builder is empty again. Call only with rows in it.
    pub(crate) fn seal(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.times.len() as u64);
        put_times(&mut out, &self.times);
        let mut packed = Vec::new();
        for (number, column) in self.columns.iter_mut().enumerate() {
            if column.iter().any(Option::is_some) {
                packed.clear();
                put_column(&mut packed, self.types[number], column);
                put_varint(&mut out, number as u64);
                out.push(type_code(self.types[number]));
                put_bytes(&mut out, &packed);
            }
            column.clear();
        }
        self.times.clear();
        self.text_bytes = 0;
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }
}

/// A column that was asked for: its number in the index entry, and a value or none for each row.
pub(crate) type Column = (u32, Vec<Option<FieldValue>>);

/// Unpacks the times and those columns for which `wanted` says yes.
pub(crate) fn decode(bytes: &[u8], wanted: impl Fn(u32) -> bool) -> Result<(Vec<i64>, Vec<Column>), Damaged> {
    let mut reader = Reader::new(checked(bytes)?);
    let rows = reader.varint()?;
    if !(1..=MAX_ROWS as u64).contains(&rows) {
        return Err(Damaged("a number of rows out of range"));
    }
    let rows = rows as usize;
    let times = times(&mut reader, rows)?;
    let mut columns = Vec::new();
    while !reader.is_empty() {
        let number = reader.varint_u32()?;
        let field_type = type_of_code(reader.u8()?)?;
        let packed = reader.bytes()?;
        if wanted(number) {
            columns.push((number, column(&mut Reader::new(packed), field_type, rows)?));
        }
    }
    Ok((times, columns))
}

fn checked(bytes: &[u8]) -> Result<&[u8], Damaged> {
    let (payload, checksum) = bytes.split_last_chunk::<4>().ok_or(Damaged("a block without checksum"))?;
    if crc32fast::hash(payload) == u32::from_le_bytes(*checksum) {
        Ok(payload)
    } else {
        Err(Damaged("a block whose checksum differs"))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut builder = Builder::new(vec![FieldType::Integer, FieldType::String, FieldType::Boolean]);
        for n in 0..10i64 {
            let text = (n % 2 == 0).then(|| FieldValue::String("up".into()));
            builder.push(n * 1000, &mut [Some(FieldValue::Integer(n * n)), text, None]);
        }
        assert_eq!(builder.span(), Some((0, 9000, 10)));
        builder.seal()
    }

    #[test]
    fn only_the_columns_asked_for_are_unpacked() {
        let (times, columns) = decode(&sample(), |number| number == 1).unwrap();
        assert_eq!((times.len(), columns.len(), columns[0].0), (10, 1, 1));
        assert_eq!(columns[0].1[2], Some(FieldValue::String("up".into())));
        assert_eq!(columns[0].1[3], None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = sample();
        for position in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[position / 8] ^= 1 << (position % 8);
            assert!(decode(&bad, |_| true).is_err());
        }
    }

    #[test]
    fn wide_series_get_fewer_rows() {
        assert_eq!((rows_for(1), rows_for(160), rows_for(100_000)), (1024, 102, 16));
    }
}
