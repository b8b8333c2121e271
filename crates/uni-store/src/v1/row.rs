//! Rows of version 1: each field with its number and kind.

use crate::bytes::{Damaged, Reader};
use uni_wire::Value;

const FLOAT: u64 = 0;
const INTEGER: u64 = 1;
const UNSIGNED: u64 = 2;
const STRING: u64 = 3;
const FALSE: u64 = 4;
const TRUE: u64 = 5;
/// A float that is a whole number: most measured floats are counts, and a varint is shorter than eight bytes.
const WHOLE_FLOAT: u64 = 6;

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

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(bytes: Vec<u8>) {
            prop_assert!(Fields::of(&bytes).count() <= bytes.len());
        }
    }
}
