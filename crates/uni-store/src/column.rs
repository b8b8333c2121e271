//! One column of a block: the values of a field packed by type, with what a query may want to know without unpacking.
//!
//! Owns the encodings of `docs/format/store.md`, section *Columns*. Never owns rows, names or files. Encoders take
//! what is valid by construction; decoders take any bytes and answer [`Damaged`].

use crate::bytes::{Damaged, Reader, put_varint, put_zigzag};
use crate::pack::{estimate_bits, numbers, put_numbers};
use crate::row::{MAX_SCALE, POWERS};
use crate::table::{Column, Values};
use uni_wire::FieldType;

const PRESENT_ALL: u8 = 0;
const PRESENT_SOME: u8 = 1;

/// Numbers as they are, or against another column of the block: its values added or subtracted. Used and free memory
/// are the usual pair: where their sum stands still, one of them costs nothing.
const ALONE: u8 = 0;
const MINUS_OTHER: u8 = 1;
const PLUS_OTHER: u8 = 2;

const FLOATS_XOR: u8 = 255;
/// Most places tried for floats as decimals.
const MAX_PLACES: u8 = 9;
/// A pair is looked for only where a column takes more bits a value than this.
const PAIR_BITS: usize = 3;

/// A column's numbers, for columns after it to be written against.
pub(crate) type Others = Vec<(u32, Vec<i64>)>;

/// Packs a column. `place`: its number in the block. `others`: numbers of the columns before it that have a value in
/// every row; `None` to not look for pairs.
pub(crate) fn put_column(out: &mut Vec<u8>, place: u32, column: &Column, others: Option<&mut Others>) {
    match &column.present {
        Some(present) if present.contains(&false) => {
            out.push(PRESENT_SOME);
            put_bits(out, present);
        }
        _ => out.push(PRESENT_ALL),
    }
    let others = others.filter(|_| column.present.is_none());
    match &column.values {
        Values::Integer(values) => put_paired(out, place, &column.there(values), others),
        Values::Unsigned(values) => {
            let signed: Vec<i64> = values.iter().map(|value| value.cast_signed()).collect();
            put_paired(out, place, &column.there(&signed), others);
        }
        Values::Boolean(values) => {
            let bits: Vec<i64> = values.iter().map(|value| i64::from(*value)).collect();
            put_numbers(out, &column.there(&bits));
        }
        Values::Float(values) => put_floats(out, &column.there(values)),
        Values::Text(values) => {
            let there = values.iter().enumerate().filter(|(row, _)| column.is_present(*row));
            put_texts(out, there.map(|(_, text)| &**text));
        }
    }
}

fn put_bits(out: &mut Vec<u8>, bits: &[bool]) {
    out.extend(
        bits.chunks(8)
            .map(|chunk| chunk.iter().enumerate().fold(0u8, |byte, (at, bit)| byte | u8::from(*bit) << at)),
    );
}

fn put_paired(out: &mut Vec<u8>, place: u32, values: &[i64], others: Option<&mut Others>) {
    let Some(others) = others else {
        out.push(ALONE);
        put_numbers(out, values);
        return;
    };
    let mut best = (estimate_bits(values), ALONE, 0, None);
    if best.0 > PAIR_BITS * values.len() {
        for (other, theirs) in others.iter().filter(|(_, theirs)| theirs.len() == values.len()) {
            for sign in [MINUS_OTHER, PLUS_OTHER] {
                let rest = against(values, theirs, sign);
                let bits = estimate_bits(&rest);
                if bits < best.0 {
                    best = (bits, sign, *other, Some(rest));
                }
            }
        }
    }
    out.push(best.1);
    match &best.3 {
        Some(rest) => {
            put_varint(out, u64::from(best.2));
            put_numbers(out, rest);
        }
        None => {
            put_numbers(out, values);
            // Only such columns are followed, so that no column needs more than one other.
            others.push((place, values.to_vec()));
        }
    }
}

/// What is left of `values` when the other column is subtracted, or added.
fn against(values: &[i64], theirs: &[i64], sign: u8) -> Vec<i64> {
    let pairs = values.iter().zip(theirs);
    match sign {
        MINUS_OTHER => pairs.map(|(own, other)| own.wrapping_sub(*other)).collect(),
        _ => pairs.map(|(own, other)| own.wrapping_add(*other)).collect(),
    }
}

/// All floats as decimals of one scale, where no bit is lost.
fn decimals(floats: &[f64]) -> Option<(u8, Vec<i64>)> {
    let exact = |float: f64, scale: u8| {
        let power = POWERS[usize::from(scale)];
        let mantissa = (float * power).round();
        let same =
            mantissa.abs() <= 9_007_199_254_740_992.0 && (mantissa / power).to_bits() == float.to_bits();
        // Minus zero would lose its sign.
        (same && !(float == 0.0 && float.is_sign_negative())).then_some(mantissa as i64)
    };
    let mut scale = 0;
    for float in floats {
        while exact(*float, scale).is_none() {
            scale += 1;
            if scale > MAX_PLACES {
                return None;
            }
        }
    }
    Some((scale, floats.iter().map(|float| exact(*float, scale)).collect::<Option<_>>()?))
}

fn put_floats(out: &mut Vec<u8>, floats: &[f64]) {
    if let Some((scale, mantissas)) = decimals(floats) {
        out.push(scale);
        put_numbers(out, &mantissas);
        return;
    }
    out.push(FLOATS_XOR);
    let mut last = 0u64;
    for bits in floats.iter().map(|float| float.to_bits()) {
        put_xor(out, bits ^ last);
        last = bits;
    }
}

/// One byte `significant * 16 + trailing` (both in bytes), then the significant bytes, lowest first.
fn put_xor(out: &mut Vec<u8>, xor: u64) {
    if xor == 0 {
        out.push(0);
        return;
    }
    let trailing = xor.trailing_zeros() / 8;
    let significant = 8 - trailing - xor.leading_zeros() / 8;
    out.push((significant << 4 | trailing) as u8);
    out.extend_from_slice(&(xor >> (trailing * 8)).to_le_bytes()[..significant as usize]);
}

/// Each text as its length plus one and its bytes; 0 repeats the text before (the first one: the empty text).
fn put_texts<'a>(out: &mut Vec<u8>, texts: impl Iterator<Item = &'a str>) {
    let mut last = "";
    for text in texts {
        if text == last {
            out.push(0);
        } else {
            put_varint(out, text.len() as u64 + 1);
            out.extend_from_slice(text.as_bytes());
            last = text;
        }
    }
}

/// Unpacks a column of `rows` values. `other` unpacks the numbers of another column of the block, which has a lower
/// place.
pub(crate) fn column(
    reader: &mut Reader<'_>,
    field: u32,
    field_type: FieldType,
    rows: usize,
    other: impl FnOnce(u32) -> Result<Vec<i64>, Damaged>,
) -> Result<Column, Damaged> {
    let present = match reader.u8()? {
        PRESENT_ALL => None,
        PRESENT_SOME => Some(bits(reader, rows)?),
        _ => return Err(Damaged("an unknown mark of presence")),
    };
    let count = present.as_ref().map_or(rows, |present| present.iter().filter(|there| **there).count());
    let values = values(reader, field_type, count, other)?;
    Ok(Column { field, values: spread(values, present.as_deref()), present })
}

/// The numbers of a column that is asked for by another one: of a whole type, alone, with a value in every row.
pub(crate) fn plain_numbers(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<i64>, Damaged> {
    if reader.u8()? != PRESENT_ALL {
        return Err(Damaged("a pair with a column that has gaps"));
    }
    if reader.u8()? != ALONE {
        return Err(Damaged("a pair with one of a pair"));
    }
    numbers(reader, rows)
}

fn bits(reader: &mut Reader<'_>, count: usize) -> Result<Vec<bool>, Damaged> {
    let bytes = reader.take(count.div_ceil(8))?;
    Ok((0..count).map(|index| bytes[index / 8] >> (index % 8) & 1 == 1).collect())
}

fn values(
    reader: &mut Reader<'_>,
    field_type: FieldType,
    count: usize,
    other: impl FnOnce(u32) -> Result<Vec<i64>, Damaged>,
) -> Result<Values, Damaged> {
    Ok(match field_type {
        FieldType::Float => Values::Float(floats(reader, count)?),
        FieldType::Integer => Values::Integer(paired(reader, count, other)?),
        FieldType::Unsigned => {
            Values::Unsigned(paired(reader, count, other)?.into_iter().map(i64::cast_unsigned).collect())
        }
        FieldType::String => Values::Text(texts(reader, count)?),
        FieldType::Boolean => {
            Values::Boolean(numbers(reader, count)?.into_iter().map(|bit| bit != 0).collect())
        }
    })
}

fn paired(
    reader: &mut Reader<'_>,
    count: usize,
    other: impl FnOnce(u32) -> Result<Vec<i64>, Damaged>,
) -> Result<Vec<i64>, Damaged> {
    let sign = reader.u8()?;
    if sign == ALONE {
        return numbers(reader, count);
    }
    if sign > PLUS_OTHER {
        return Err(Damaged("an unknown pairing"));
    }
    let theirs = other(reader.varint_u32()?)?;
    let rest = numbers(reader, count)?;
    if theirs.len() != rest.len() {
        return Err(Damaged("a pair of different lengths"));
    }
    Ok(against(&rest, &theirs, if sign == MINUS_OTHER { PLUS_OTHER } else { MINUS_OTHER }))
}

fn floats(reader: &mut Reader<'_>, count: usize) -> Result<Vec<f64>, Damaged> {
    match reader.u8()? {
        scale @ 0..=MAX_SCALE => {
            let power = POWERS[usize::from(scale)];
            Ok(numbers(reader, count)?.into_iter().map(|mantissa| mantissa as f64 / power).collect())
        }
        FLOATS_XOR => {
            let mut last = 0u64;
            let mut next = || {
                last ^= xor(reader)?;
                Ok(f64::from_bits(last))
            };
            (0..count).map(|_| next()).collect()
        }
        _ => Err(Damaged("an unknown encoding of floats")),
    }
}

fn xor(reader: &mut Reader<'_>) -> Result<u64, Damaged> {
    let control = reader.u8()?;
    let (significant, trailing) = (usize::from(control >> 4), usize::from(control & 15));
    if significant + trailing > 8 {
        return Err(Damaged("a float of more than eight bytes"));
    }
    if significant == 0 {
        return Ok(0);
    }
    let mut bytes = [0u8; 8];
    bytes[trailing..trailing + significant].copy_from_slice(reader.take(significant)?);
    Ok(u64::from_le_bytes(bytes))
}

fn texts(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Box<str>>, Damaged> {
    let mut last = "";
    let mut next = || {
        let length = reader.varint()?;
        if length > 0 {
            let length = usize::try_from(length - 1).map_err(|_| Damaged("a length past the end"))?;
            last =
                std::str::from_utf8(reader.take(length)?).map_err(|_| Damaged("text that is not UTF-8"))?;
        }
        Ok(last.into())
    };
    (0..count).map(|_| next()).collect()
}

/// Puts placeholders where values are absent.
fn spread(values: Values, present: Option<&[bool]>) -> Values {
    fn over<T: Clone>(values: Vec<T>, present: &[bool], empty: &T) -> Vec<T> {
        let mut values = values.into_iter();
        present
            .iter()
            .map(|there| if *there { values.next() } else { None }.unwrap_or_else(|| empty.clone()))
            .collect()
    }
    let Some(present) = present else { return values };
    match values {
        Values::Float(values) => Values::Float(over(values, present, &0.0)),
        Values::Integer(values) => Values::Integer(over(values, present, &0)),
        Values::Unsigned(values) => Values::Unsigned(over(values, present, &0)),
        Values::Boolean(values) => Values::Boolean(over(values, present, &false)),
        Values::Text(values) => Values::Text(over(values, present, &"".into())),
    }
}

/// What a block knows of a column's values without unpacking them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Values there are.
    pub(crate) count: u64,
    /// The least; NaN never occurs.
    pub(crate) min: f64,
    /// The greatest.
    pub(crate) max: f64,
    /// Their sum, if it is exact: whole numbers (or decimals of one scale) whose sum stays below 2^53.
    pub(crate) sum: Option<f64>,
    /// The value of the first row that has one.
    pub(crate) first: f64,
    /// The value of the last row that has one.
    pub(crate) last: f64,
}

impl Summary {
    /// Of a column of numbers that are not all absent; `None` for texts and booleans.
    pub(crate) fn of(column: &Column) -> Option<Self> {
        let number = |row: usize| match &column.values {
            Values::Float(values) => Some(values[row]),
            Values::Integer(values) => Some(values[row] as f64),
            Values::Unsigned(values) => Some(values[row] as f64),
            Values::Boolean(_) | Values::Text(_) => None,
        };
        let mut there = (0..column.values.len()).filter(|row| column.is_present(*row));
        let first = number(there.next()?)?;
        let start = Self { count: 1, min: first, max: first, sum: None, first, last: first };
        let mut summary = there.filter_map(number).fold(start, |so_far, value| Self {
            count: so_far.count + 1,
            min: so_far.min.min(value),
            max: so_far.max.max(value),
            last: value,
            ..so_far
        });
        summary.sum = exact_sum(column);
        Some(summary)
    }
}

fn exact_sum(column: &Column) -> Option<f64> {
    let mut sum = 0i128;
    for row in (0..column.values.len()).filter(|row| column.is_present(*row)) {
        sum += match &column.values {
            Values::Integer(values) => i128::from(values[row]),
            Values::Unsigned(values) => i128::from(values[row]),
            Values::Float(values) if values[row].fract() == 0.0 && values[row].abs() < 1e15 => {
                values[row] as i128
            }
            _ => return None,
        };
    }
    (sum.abs() < 1 << 53).then_some(sum as f64)
}

/// Appends a summary in the form that blocks have.
pub(crate) fn put_summary(out: &mut Vec<u8>, summary: &Summary) {
    put_varint(out, summary.count << 1 | u64::from(summary.sum.is_some()));
    for value in [Some(summary.min), Some(summary.max), summary.sum, Some(summary.first), Some(summary.last)]
    {
        let Some(value) = value else { continue };
        if value.fract() == 0.0 && value.abs() < 1e15 && !(value == 0.0 && value.is_sign_negative()) {
            out.push(0);
            put_zigzag(out, value as i64);
        } else {
            out.push(1);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
}

/// Reads what [`put_summary`] wrote.
pub(crate) fn summary(reader: &mut Reader<'_>) -> Result<Summary, Damaged> {
    let head = reader.varint()?;
    let mut next = || match reader.u8()? {
        0 => Ok(reader.zigzag()? as f64),
        1 => Ok(f64::from_bits(reader.u64()?)),
        _ => Err(Damaged("an unknown form of a number")),
    };
    let (min, max) = (next()?, next()?);
    let sum = if head & 1 == 1 { Some(next()?) } else { None };
    Ok(Summary { count: head >> 1, min, max, sum, first: next()?, last: next()? })
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    fn round(column: &Column) -> Result<Column, Damaged> {
        let mut bytes = Vec::new();
        put_column(&mut bytes, 0, column, None);
        let none = |_: u32| Err(Damaged("no other"));
        let read = super::column(
            &mut Reader::new(&bytes),
            column.field,
            column.values.field_type(),
            column.values.len(),
            none,
        )?;
        Ok(read)
    }

    fn any_values() -> impl Strategy<Value = Values> {
        let count = 1usize..80;
        prop_oneof![
            prop::collection::vec(any::<i64>(), count.clone()).prop_map(Values::Integer),
            prop::collection::vec(any::<u64>(), count.clone()).prop_map(Values::Unsigned),
            prop::collection::vec(any::<bool>(), count.clone()).prop_map(Values::Boolean),
            prop::collection::vec("[a-c]{0,2}".prop_map(Into::into), count.clone()).prop_map(Values::Text),
            prop::collection::vec(
                any::<f64>().prop_filter("bits are compared", |f| !f.is_nan()),
                count.clone()
            )
            .prop_map(Values::Float),
            prop::collection::vec((-99_999i64..99_999).prop_map(|n| n as f64 / 1000.0), count.clone())
                .prop_map(Values::Float),
            (any::<i64>(), count).prop_map(|(value, count)| Values::Integer(vec![value; count])),
        ]
    }

    fn bits_of(values: &Values) -> Vec<u64> {
        if let Values::Float(values) = values {
            values.iter().map(|v| v.to_bits()).collect()
        } else {
            Vec::new()
        }
    }

    proptest! {
        #[test]
        fn columns_are_read_back(values in any_values(), gaps: u64) {
            let all = Column { field: 7, present: None, values };
            let back = round(&all).unwrap();
            prop_assert_eq!(bits_of(&back.values), bits_of(&all.values));
            prop_assert_eq!(&back, &all);
            let present: Vec<bool> = (0..all.values.len()).map(|row| gaps >> (row % 64) & 1 == 1).collect();
            let some = Column { present: Some(present.clone()), ..all };
            let back = round(&some).unwrap();
            for row in 0..present.len() {
                prop_assert_eq!(back.get(row), some.get(row));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_panic(bytes: Vec<u8>, rows in 1usize..64) {
            for code in 0..5 {
                let field_type = crate::types::type_of_code(code).unwrap();
                let _ = column(&mut Reader::new(&bytes), 0, field_type, rows, |_| Ok(vec![0; rows]));
            }
        }

        #[test]
        fn a_column_that_follows_another_costs_little(values in prop::collection::vec(0i64..1_000_000, 64..200)) {
            let rest: Vec<i64> = values.iter().map(|value| 1_000_000 - value).collect();
            let mut others = Others::new();
            let (mut own, mut paired_bytes) = (Vec::new(), Vec::new());
            put_column(&mut own, 0, &Column { field: 0, present: None, values: Values::Integer(values.clone()) }, Some(&mut others));
            put_column(&mut paired_bytes, 1, &Column { field: 1, present: None, values: Values::Integer(rest.clone()) }, Some(&mut others));
            prop_assert!(paired_bytes.len() < 12);
            let back = column(&mut Reader::new(&paired_bytes), 1, FieldType::Integer, rest.len(), |_| Ok(values)).unwrap();
            prop_assert_eq!(back.values, Values::Integer(rest));
        }
    }
}
