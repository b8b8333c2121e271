//! Columns of version 1: decoders.
//!
//! Owns the encodings of `docs/format/store-1.md`, section *Columns*. Decoders take any bytes and answer [`Damaged`].

use crate::bytes::{Damaged, Reader};
use uni_wire::{FieldType, FieldValue};

const TIMES_LINEAR: u8 = 0;
const TIMES_DELTA: u8 = 1;

const PRESENT_ALL: u8 = 0;
const PRESENT_SOME: u8 = 1;

const NUMBERS_CONSTANT: u8 = 0;
const NUMBERS_DELTA: u8 = 1;

const FLOATS_WHOLE: u8 = 0;
const FLOATS_XOR: u8 = 1;

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

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_without_panic(bytes: Vec<u8>, rows in 1usize..64) {
            let _ = times(&mut Reader::new(&bytes), rows);
            for code in 0..5 {
                let field_type = crate::types::type_of_code(code).unwrap();
                let _ = column(&mut Reader::new(&bytes), field_type, rows);
            }
        }
    }
}
