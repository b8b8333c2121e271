//! A block: up to [`MAX_ROWS`] rows of one series, column by column, with its own checksum.
//!
//! Owns the layout of a block. Where blocks lie, and which series they belong to, the segment knows.

use crate::bytes::{Damaged, Reader, put_bytes, put_varint};
use crate::column::{Others, Summary, column, plain_numbers, put_column, put_summary, summary};
use crate::pack::{put_times, times};
use crate::table::{Column, Table};
use crate::types::{type_code, type_of_code};
use uni_wire::FieldType;

/// Most rows of a block: small enough that a short query reads little, large enough to pack well.
pub(crate) const MAX_ROWS: usize = 1024;
/// Most cells of a block that is written, so that a decoded block of a wide series stays below half a MiB.
const MAX_CELLS: usize = 16_384;
/// A block of texts is closed once its texts reach this size.
const MAX_TEXT_BYTES: usize = 1 << 18;
/// Smaller blocks carry no summaries: unpacking them costs less than keeping them would.
const SUMMARY_ROWS: usize = MAX_ROWS / 2;
/// With how many columns one of a tier is compared: the statistics of one field.
const NEIGHBOURS: usize = 6;
/// Set in a column's type when a summary follows.
const WITH_SUMMARY: u8 = 0x80;

/// How hard to try to make a block small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For the flush, which points wait for.
    Quick,
    /// For the merge, which comes once.
    Thorough,
    /// For tiers: as a merge, but with so many columns a field that each is compared with those beside it only.
    Tier,
}

/// How many rows a block of a series with `columns` columns gets.
pub(crate) fn rows_for(columns: usize) -> usize {
    (MAX_CELLS / columns.max(1)).clamp(16, MAX_ROWS)
}

/// How many rows from `start` on go into one block.
pub(crate) fn rows_from(table: &Table, start: usize) -> usize {
    let most = rows_for(table.columns.len()).min(table.times.len() - start);
    let mut text_bytes = 0;
    let texts: Vec<&Vec<Box<str>>> = table.columns.iter().filter_map(Column::texts).collect();
    if texts.is_empty() {
        return most;
    }
    let fits = |row: &usize| {
        text_bytes += texts.iter().map(|values| values[*row].len()).sum::<usize>();
        text_bytes <= MAX_TEXT_BYTES
    };
    (start..start + most).take_while(fits).count().max(1)
}

/// The bytes of a block of all rows of a table, which ascend. `place` gives each field its number in the series' entry.
pub(crate) fn seal(table: &Table, place: impl Fn(u32) -> Option<u32>, effort: Effort) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, table.times.len() as u64);
    put_times(&mut out, &table.times);
    let mut columns: Vec<(u32, &Column)> =
        table.columns.iter().filter_map(|column| Some((place(column.field)?, column))).collect();
    columns.sort_by_key(|(place, _)| *place);
    let mut others = Others::new();
    let mut packed = Vec::new();
    for (place, column) in columns {
        packed.clear();
        if effort == Effort::Tier && others.len() > NEIGHBOURS {
            others.remove(0);
        }
        put_column(&mut packed, place, column, (effort != Effort::Quick).then_some(&mut others));
        put_varint(&mut out, u64::from(place));
        let code = type_code(column.values.field_type());
        let summarized = table.times.len() >= SUMMARY_ROWS && effort != Effort::Tier;
        let summary = if summarized { Summary::of(column) } else { None };
        match summary {
            Some(summary) => {
                out.push(code | WITH_SUMMARY);
                put_summary(&mut out, &summary);
            }
            None => out.push(code),
        }
        put_bytes(&mut out, &packed);
    }
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// A column as it lies in a block.
#[derive(Clone, Copy, Debug)]
struct Packed<'a> {
    place: u32,
    field_type: FieldType,
    summary: Option<Summary>,
    bytes: &'a [u8],
}

/// The number of rows, the rest of the block from the times on.
fn open(bytes: &[u8]) -> Result<(usize, Reader<'_>), Damaged> {
    let mut reader = Reader::new(checked(bytes)?);
    let rows = reader.varint()?;
    if !(1..=MAX_ROWS as u64).contains(&rows) {
        return Err(Damaged("a number of rows out of range"));
    }
    Ok((rows as usize, reader))
}

fn columns<'a>(mut reader: Reader<'a>) -> Result<Vec<Packed<'a>>, Damaged> {
    let mut columns = Vec::new();
    while !reader.is_empty() {
        let place = reader.varint_u32()?;
        let code = reader.u8()?;
        let field_type = type_of_code(code & !WITH_SUMMARY)?;
        let summary = if code & WITH_SUMMARY == 0 { None } else { Some(summary(&mut reader)?) };
        columns.push(Packed { place, field_type, summary, bytes: reader.bytes()? });
    }
    Ok(columns)
}

/// Unpacks the times and those columns for which `wanted` names a field.
pub(crate) fn decode(bytes: &[u8], wanted: impl Fn(u32) -> Option<u32>) -> Result<Table, Damaged> {
    let (rows, mut reader) = open(bytes)?;
    let times = times(&mut reader, rows)?;
    let packed = columns(reader)?;
    let other = |place: u32| {
        let column =
            packed.iter().find(|column| column.place == place).ok_or(Damaged("a pair without the other"))?;
        plain_numbers(&mut Reader::new(column.bytes), rows)
    };
    let mut table = Table { times, columns: Vec::new() };
    for one in &packed {
        if let Some(field) = wanted(one.place) {
            table.columns.push(column(&mut Reader::new(one.bytes), field, one.field_type, rows, other)?);
        }
    }
    Ok(table)
}

/// What the block knows of one column without unpacking it.
pub(crate) fn summary_of(bytes: &[u8], place: u32) -> Result<Option<Summary>, Damaged> {
    let (rows, mut reader) = open(bytes)?;
    times(&mut reader, rows)?;
    Ok(columns(reader)?.into_iter().find(|column| column.place == place).and_then(|column| column.summary))
}

/// What is before the checksum at the end, if that is right.
pub(crate) fn checked(bytes: &[u8]) -> Result<&[u8], Damaged> {
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
    use crate::table::Values;
    use uni_wire::FieldValue;

    fn table(rows: i64) -> Table {
        let times = (0..rows).map(|n| n * 1000).collect();
        let present = (0..rows).map(|n| n % 2 == 0).collect();
        let texts = (0..rows).map(|n| if n % 2 == 0 { "up" } else { "" }.into()).collect();
        let columns = vec![
            Column { field: 70, present: None, values: Values::Integer((0..rows).map(|n| n * n).collect()) },
            Column { field: 71, present: Some(present), values: Values::Text(texts) },
            Column {
                field: 72,
                present: None,
                values: Values::Integer((0..rows).map(|n| 500 - n * n).collect()),
            },
        ];
        Table { times, columns }
    }

    fn place(field: u32) -> Option<u32> {
        field.checked_sub(70)
    }

    #[test]
    fn only_the_columns_asked_for_are_unpacked() {
        for effort in [Effort::Quick, Effort::Thorough] {
            let block = seal(&table(10), place, effort);
            let read = decode(&block, |place| (place == 1).then_some(5)).unwrap();
            assert_eq!((read.times.len(), read.columns.len(), read.columns[0].field), (10, 1, 5));
            assert_eq!(read.columns[0].get(2), Some(FieldValue::String("up".into())));
            assert_eq!(read.columns[0].get(3), None);
            assert_eq!(decode(&block, |place| Some(place + 70)).unwrap(), table(10));
            assert_eq!(summary_of(&block, 0).unwrap(), None);
        }
    }

    #[test]
    fn large_blocks_know_their_least_greatest_and_sum() {
        let block = seal(&table(1000), place, Effort::Thorough);
        let summary = summary_of(&block, 0).unwrap().unwrap();
        let sum: i64 = (0..1000).map(|n| n * n).sum();
        assert_eq!((summary.count, summary.min, summary.max), (1000, 0.0, 998_001.0));
        assert_eq!((summary.sum, summary.first, summary.last), (Some(sum as f64), 0.0, 998_001.0));
        assert_eq!(summary_of(&block, 1).unwrap(), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = seal(&table(10), place, Effort::Thorough);
        for position in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[position / 8] ^= 1 << (position % 8);
            assert!(decode(&bad, Some).is_err());
        }
    }

    #[test]
    fn wide_series_get_fewer_rows() {
        assert_eq!((rows_for(1), rows_for(160), rows_for(100_000)), (1024, 102, 16));
    }
}
