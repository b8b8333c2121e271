//! One column of a block: times and values packed by type.
//!
//! Owns the encodings of `docs/format/store.md`, section *Columns*. Never owns rows, names or files. Encoders take
//! what is valid by construction; decoders take any bytes and answer [`Damaged`].

use crate::bytes::{Damaged, Reader, put_varint, put_zigzag};
use crate::row::whole;
use uni_wire::{FieldType, FieldValue};

const TIMES_LINEAR: u8 = 0;
const TIMES_DELTA: u8 = 1;

const PRESENT_ALL: u8 = 0;
const PRESENT_SOME: u8 = 1;

const NUMBERS_CONSTANT: u8 = 0;
const NUMBERS_DELTA: u8 = 1;

const FLOATS_WHOLE: u8 = 0;
const FLOATS_XOR: u8 = 1;

/// Packs times, strictly ascending and at least one: divided by their common factor, then the change of
/// each step against the step before; a steady rhythm takes a few bytes in all.
pub(crate) fn put_times(out: &mut Vec<u8>, times: &[i64]) {
    let steps: Vec<u64> =
        times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]).cast_unsigned()).collect();
    let factor = steps.iter().copied().fold(0, gcd).max(1);
    let steady = steps.windows(2).all(|pair| pair[0] == pair[1]);
    out.push(if steady { TIMES_LINEAR } else { TIMES_DELTA });
    put_zigzag(out, times[0]);
    if steady {
        put_varint(out, steps.first().copied().unwrap_or(1));
        return;
    }
    put_varint(out, factor);
    let mut last = 0u64;
    for step in steps.iter().map(|step| step / factor) {
        put_zigzag(out, step.wrapping_sub(last).cast_signed());
        last = step;
    }
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Unpacks `rows` times; refuses times that do not ascend.
pub(crate) fn times(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<i64>, Damaged> {
    let encoding = reader.u8()?;
    let mut time = reader.zigzag()?;
    let factor = reader.varint()?;
    let mut times = Vec::with_capacity(rows);
    times.push(time);
    let mut step = if encoding == TIMES_LINEAR { 1 } else { 0u64 };
    for _ in 1..rows {
        if encoding == TIMES_DELTA {
            step = step.wrapping_add(reader.zigzag()?.cast_unsigned());
        }
        let next = time.wrapping_add(step.wrapping_mul(factor).cast_signed());
        if next <= time {
            return Err(Damaged("times that do not ascend"));
        }
        time = next;
        times.push(time);
    }
    if encoding > TIMES_DELTA { Err(Damaged("an unknown encoding of times")) } else { Ok(times) }
}

/// Packs a column of values that are all of `field_type`; `None` where a row lacks the field.
pub(crate) fn put_column(out: &mut Vec<u8>, field_type: FieldType, column: &[Option<FieldValue>]) {
    if column.iter().all(Option::is_some) {
        out.push(PRESENT_ALL);
    } else {
        out.push(PRESENT_SOME);
        put_bits(out, column.iter().map(Option::is_some));
    }
    let values = column.iter().flatten();
    match field_type {
        FieldType::Float => put_floats(out, &values.filter_map(float).collect::<Vec<_>>()),
        FieldType::Integer | FieldType::Unsigned => {
            put_numbers(out, &values.filter_map(number).collect::<Vec<_>>());
        }
        FieldType::String => put_texts(out, values.filter_map(text)),
        FieldType::Boolean => put_bits(out, values.map(|value| *value == FieldValue::Boolean(true))),
    }
}

const fn float(value: &FieldValue) -> Option<f64> {
    if let FieldValue::Float(number) = value { Some(*number) } else { None }
}

const fn number(value: &FieldValue) -> Option<i64> {
    match value {
        FieldValue::Integer(number) => Some(*number),
        FieldValue::Unsigned(number) => Some(number.cast_signed()),
        _ => None,
    }
}

fn text(value: &FieldValue) -> Option<&str> {
    if let FieldValue::String(text) = value { Some(text) } else { None }
}

fn put_bits(out: &mut Vec<u8>, bits: impl Iterator<Item = bool>) {
    let mut byte = 0u8;
    let mut filled = 0;
    for bit in bits {
        byte |= u8::from(bit) << filled;
        filled += 1;
        if filled == 8 {
            out.push(byte);
            (byte, filled) = (0, 0);
        }
    }
    if filled > 0 {
        out.push(byte);
    }
}

fn put_numbers(out: &mut Vec<u8>, numbers: &[i64]) {
    let first = numbers.first().copied().unwrap_or(0);
    if numbers.iter().all(|number| *number == first) {
        out.push(NUMBERS_CONSTANT);
        put_zigzag(out, first);
        return;
    }
    out.push(NUMBERS_DELTA);
    let mut last = 0i64;
    for number in numbers {
        put_zigzag(out, number.wrapping_sub(last));
        last = *number;
    }
}

fn put_floats(out: &mut Vec<u8>, floats: &[f64]) {
    if let Some(numbers) = floats.iter().map(|float| whole(*float)).collect::<Option<Vec<_>>>() {
        out.push(FLOATS_WHOLE);
        put_numbers(out, &numbers);
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

/// Unpacks a column of `rows` values.
pub(crate) fn column(
    reader: &mut Reader<'_>,
    field_type: FieldType,
    rows: usize,
) -> Result<Vec<Option<FieldValue>>, Damaged> {
    let present = match reader.u8()? {
        PRESENT_ALL => vec![true; rows],
        PRESENT_SOME => bits(reader, rows)?,
        _ => return Err(Damaged("an unknown mark of presence")),
    };
    let count = present.iter().filter(|there| **there).count();
    let mut values = values(reader, field_type, count)?.into_iter();
    Ok(present.into_iter().map(|there| if there { values.next() } else { None }).collect())
}

fn values(reader: &mut Reader<'_>, field_type: FieldType, count: usize) -> Result<Vec<FieldValue>, Damaged> {
    Ok(match field_type {
        FieldType::Float => floats(reader, count)?.into_iter().map(FieldValue::Float).collect(),
        FieldType::Integer => numbers(reader, count)?.into_iter().map(FieldValue::Integer).collect(),
        FieldType::Unsigned => {
            numbers(reader, count)?.into_iter().map(|n| FieldValue::Unsigned(n.cast_unsigned())).collect()
        }
        FieldType::String => texts(reader, count)?,
        FieldType::Boolean => bits(reader, count)?.into_iter().map(FieldValue::Boolean).collect(),
    })
}

fn bits(reader: &mut Reader<'_>, count: usize) -> Result<Vec<bool>, Damaged> {
    let bytes = reader.take(count.div_ceil(8))?;
    Ok((0..count).map(|index| bytes[index / 8] >> (index % 8) & 1 == 1).collect())
}

fn numbers(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>, Damaged> {
    match reader.u8()? {
        NUMBERS_CONSTANT => Ok(vec![reader.zigzag()?; count]),
        NUMBERS_DELTA => {
            let mut last = 0i64;
            let mut next = || {
                last = last.wrapping_add(reader.zigzag()?);
                Ok(last)
            };
            (0..count).map(|_| next()).collect()
        }
        _ => Err(Damaged("an unknown encoding of numbers")),
    }
}

fn floats(reader: &mut Reader<'_>, count: usize) -> Result<Vec<f64>, Damaged> {
    match reader.u8()? {
        FLOATS_WHOLE => Ok(numbers(reader, count)?.into_iter().map(|number| number as f64).collect()),
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

fn texts(reader: &mut Reader<'_>, count: usize) -> Result<Vec<FieldValue>, Damaged> {
    let mut last = "";
    let mut next = || {
        let length = reader.varint()?;
        if length > 0 {
            let length = usize::try_from(length - 1).map_err(|_| Damaged("a length past the end"))?;
            last =
                std::str::from_utf8(reader.take(length)?).map_err(|_| Damaged("text that is not UTF-8"))?;
        }
        Ok(FieldValue::String(last.into()))
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    fn packed_times(times: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        put_times(&mut out, times);
        out
    }

    #[test]
    fn a_steady_rhythm_takes_a_few_bytes() {
        let steady: Vec<i64> = (0..1000).map(|n| 1_700_000_000_000_000_000 + n * 1_000_000_000).collect();
        assert!(packed_times(&steady).len() < 20);
        let mut gap = steady;
        gap.remove(500);
        assert!(packed_times(&gap).len() < 1020);
    }

    fn column_of(field_type: FieldType) -> BoxedStrategy<Vec<Option<FieldValue>>> {
        let value = match field_type {
            FieldType::Float => prop_oneof![
                any::<f64>().prop_map(FieldValue::Float),
                any::<i16>().prop_map(|n| FieldValue::Float(f64::from(n))),
            ]
            .boxed(),
            FieldType::Integer => any::<i64>().prop_map(FieldValue::Integer).boxed(),
            FieldType::Unsigned => any::<u64>().prop_map(FieldValue::Unsigned).boxed(),
            FieldType::String => "[a-c]{0,2}".prop_map(|text| FieldValue::String(text.into())).boxed(),
            FieldType::Boolean => any::<bool>().prop_map(FieldValue::Boolean).boxed(),
        };
        prop_oneof![
            prop::collection::vec(prop::option::weighted(0.9, value.clone()), 1..40),
            (value, 1usize..40).prop_map(|(value, count)| vec![Some(value); count]),
        ]
        .boxed()
    }

    fn any_column() -> impl Strategy<Value = (FieldType, Vec<Option<FieldValue>>)> {
        prop::sample::select(vec![
            FieldType::Float,
            FieldType::Integer,
            FieldType::Unsigned,
            FieldType::String,
            FieldType::Boolean,
        ])
        .prop_flat_map(|field_type| (Just(field_type), column_of(field_type)))
    }

    proptest! {
        #[test]
        fn times_are_read_back(times in prop::collection::btree_set(any::<i64>(), 1..50)) {
            let times: Vec<i64> = times.into_iter().collect();
            let bytes = packed_times(&times);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(super::times(&mut reader, times.len()), Ok(times));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn columns_are_read_back((field_type, values) in any_column()) {
            let mut bytes = Vec::new();
            put_column(&mut bytes, field_type, &values);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(column(&mut reader, field_type, values.len()), Ok(values));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_panic(bytes: Vec<u8>, rows in 1usize..64) {
            let _ = times(&mut Reader::new(&bytes), rows);
            for code in 0..5 {
                let field_type = crate::row::type_of_code(code).unwrap();
                let _ = column(&mut Reader::new(&bytes), field_type, rows);
            }
        }
    }
}
