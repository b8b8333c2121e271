//! The fields of one point as bytes: the form that rows have in the log and in the head alike.
//!
//! A row is a sequence of fields; each begins with a varint `field id * 8 + kind`, so that a reader can skip
//! what it does not want without knowing any schema. Owns kinds 0 to 6; never owns names.

use crate::bytes::{Damaged, Reader, put_bytes, put_varint, put_zigzag};
use uni_wire::{FieldType, FieldValue, Value};

const FLOAT: u64 = 0;
const INTEGER: u64 = 1;
const UNSIGNED: u64 = 2;
const STRING: u64 = 3;
const FALSE: u64 = 4;
const TRUE: u64 = 5;
/// A float that is a whole number: most measured floats are counts, and a varint is shorter than eight bytes.
const WHOLE_FLOAT: u64 = 6;

/// Beyond this magnitude a varint saves nothing; well below 2^53, up to which every whole number is exact.
const MAX_WHOLE: f64 = 281_474_976_710_656.0;

/// A float as an integer, where no bit is lost by it (minus zero would lose its sign).
pub(crate) fn whole(number: f64) -> Option<i64> {
    let fits =
        number.abs() < MAX_WHOLE && number.fract() == 0.0 && !(number == 0.0 && number.is_sign_negative());
    fits.then_some(number as i64)
}

/// Appends one field.
pub(crate) fn put_field(out: &mut Vec<u8>, field: u32, value: Value<'_>) {
    let tag = |kind: u64| u64::from(field) << 3 | kind;
    match value {
        Value::Float(number) => match whole(number) {
            Some(integer) => {
                put_varint(out, tag(WHOLE_FLOAT));
                put_zigzag(out, integer);
            }
            None => {
                put_varint(out, tag(FLOAT));
                out.extend_from_slice(&number.to_bits().to_le_bytes());
            }
        },
        Value::Integer(number) => {
            put_varint(out, tag(INTEGER));
            put_zigzag(out, number);
        }
        Value::Unsigned(number) => {
            put_varint(out, tag(UNSIGNED));
            put_varint(out, number);
        }
        Value::String(text) => {
            put_varint(out, tag(STRING));
            put_bytes(out, text.as_bytes());
        }
        Value::Boolean(truth) => put_varint(out, tag(if truth { TRUE } else { FALSE })),
    }
}

/// Iterates over the fields of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(Reader<'a>);

impl<'a> Fields<'a> {
    pub(crate) const fn of(row: &'a [u8]) -> Self {
        Self(Reader::new(row))
    }

    fn read(&mut self) -> Result<(u32, Value<'a>), Damaged> {
        let tag = self.0.varint()?;
        let field = u32::try_from(tag >> 3).map_err(|_| Damaged("a field number out of range"))?;
        let value = match tag & 7 {
            FLOAT => Value::Float(f64::from_bits(self.0.u64()?)),
            INTEGER => Value::Integer(self.0.zigzag()?),
            UNSIGNED => Value::Unsigned(self.0.varint()?),
            STRING => Value::String(self.0.text()?),
            FALSE => Value::Boolean(false),
            TRUE => Value::Boolean(true),
            WHOLE_FLOAT => Value::Float(self.0.zigzag()? as f64),
            _ => return Err(Damaged("an unknown kind of value")),
        };
        Ok((field, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.0 = Reader::new(&[]);
        }
        Some(read)
    }
}

/// The type's number in the log and in segments.
pub(crate) const fn type_code(field_type: FieldType) -> u8 {
    match field_type {
        FieldType::Float => 0,
        FieldType::Integer => 1,
        FieldType::Unsigned => 2,
        FieldType::String => 3,
        FieldType::Boolean => 4,
    }
}

/// The reverse of [`type_code`].
pub(crate) const fn type_of_code(code: u8) -> Result<FieldType, Damaged> {
    Ok(match code {
        0 => FieldType::Float,
        1 => FieldType::Integer,
        2 => FieldType::Unsigned,
        3 => FieldType::String,
        4 => FieldType::Boolean,
        _ => return Err(Damaged("an unknown type")),
    })
}

/// Where the wanted fields of a series go in the caller's row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Slot by field number; `None` where the field is not wanted.
    slots: Vec<Option<usize>>,
    /// Slots that repeat another one, because a name was asked for twice.
    copies: Vec<(usize, usize)>,
    width: usize,
}

impl Selection {
    /// `wanted[slot]` is the field to put there; `None` leaves the slot empty in every row.
    pub(crate) fn new(wanted: &[Option<u32>]) -> Self {
        let mut selection = Self { width: wanted.len(), ..Self::default() };
        for (slot, field) in wanted.iter().enumerate() {
            if let Some(field) = field {
                selection.add(*field as usize, slot);
            }
        }
        selection
    }

    fn add(&mut self, field: usize, slot: usize) {
        if self.slots.len() <= field {
            self.slots.resize(field + 1, None);
        }
        match self.slots[field] {
            Some(first) => self.copies.push((first, slot)),
            None => self.slots[field] = Some(slot),
        }
    }

    pub(crate) fn slot(&self, field: u32) -> Option<usize> {
        self.slots.get(field as usize).copied().flatten()
    }

    pub(crate) const fn width(&self) -> usize {
        self.width
    }

    /// Fills the slots that repeat another one.
    pub(crate) fn copy_repeats(&self, row: &mut [Option<FieldValue>]) {
        for &(from, to) in &self.copies {
            row[to] = row[from].clone();
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = FieldValue> {
        prop_oneof![
            any::<f64>().prop_map(FieldValue::Float),
            any::<i32>().prop_map(|n| FieldValue::Float(f64::from(n))),
            any::<i64>().prop_map(FieldValue::Integer),
            any::<u64>().prop_map(FieldValue::Unsigned),
            any::<String>().prop_map(|text| FieldValue::String(text.into())),
            any::<bool>().prop_map(FieldValue::Boolean),
        ]
    }

    /// Equality of bits: NaN equals itself, minus zero differs from zero.
    fn bits(value: &FieldValue) -> String {
        match value {
            FieldValue::Float(number) => format!("{:x}", number.to_bits()),
            other => format!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn a_row_is_read_back_bit_by_bit(fields in prop::collection::vec((0u32..5000, value()), 0..8)) {
            let mut row = Vec::new();
            for (field, value) in &fields {
                put_field(&mut row, *field, value.as_value());
            }
            let back: Vec<_> = Fields::of(&row).map(|read| read.unwrap()).collect();
            prop_assert_eq!(back.len(), fields.len());
            for ((field, value), (id, got)) in fields.iter().zip(back) {
                prop_assert_eq!(*field, id);
                prop_assert_eq!(bits(value), bits(&FieldValue::from(got)));
            }
        }

        #[test]
        fn any_bytes_end_without_panic(bytes: Vec<u8>) {
            prop_assert!(Fields::of(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn minus_zero_is_no_whole_number() {
        assert_eq!((whole(0.0), whole(-0.0), whole(3.0), whole(0.5)), (Some(0), None, Some(3), None));
    }

    #[test]
    fn a_field_asked_for_twice_fills_both_slots() {
        let selection = Selection::new(&[Some(3), None, Some(3)]);
        let mut row = vec![Some(FieldValue::Boolean(true)), None, None];
        selection.copy_repeats(&mut row);
        assert_eq!((selection.slot(3), selection.slot(2), selection.width()), (Some(0), None, 3));
        assert_eq!(row[2], Some(FieldValue::Boolean(true)));
    }
}
