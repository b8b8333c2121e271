//! Blocks of version 1.

use crate::block::{MAX_ROWS, checked};
use crate::bytes::{Damaged, Reader};
use crate::table::{Column, Table, Values};
use crate::types::type_of_code;
use crate::v1::column::{column, times};
use uni_wire::{FieldType, FieldValue};

/// Unpacks the times and those columns for which `wanted` names a field.
pub(crate) fn decode(bytes: &[u8], wanted: impl Fn(u32) -> Option<u32>) -> Result<Table, Damaged> {
    let mut reader = Reader::new(checked(bytes)?);
    let rows = reader.varint()?;
    if !(1..=MAX_ROWS as u64).contains(&rows) {
        return Err(Damaged("a number of rows out of range"));
    }
    let rows = rows as usize;
    let mut table = Table { times: times(&mut reader, rows)?, columns: Vec::new() };
    while !reader.is_empty() {
        let place = reader.varint_u32()?;
        let field_type = type_of_code(reader.u8()?)?;
        let packed = reader.bytes()?;
        if let Some(field) = wanted(place) {
            let values = column(&mut Reader::new(packed), field_type, rows)?;
            table.columns.push(column_of(field, field_type, values));
        }
    }
    Ok(table)
}

fn column_of(field: u32, field_type: FieldType, values: Vec<Option<FieldValue>>) -> Column {
    let present = values.iter().map(Option::is_some).collect::<Vec<_>>();
    let mut column = Column {
        field,
        present: present.contains(&false).then_some(present),
        values: Values::new(field_type),
    };
    for (row, value) in values.into_iter().enumerate() {
        match (&mut column.values, value) {
            (Values::Float(to), Some(FieldValue::Float(value))) => to.push(value),
            (Values::Integer(to), Some(FieldValue::Integer(value))) => to.push(value),
            (Values::Unsigned(to), Some(FieldValue::Unsigned(value))) => to.push(value),
            (Values::Text(to), Some(FieldValue::String(value))) => to.push(value),
            (Values::Boolean(to), Some(FieldValue::Boolean(value))) => to.push(value),
            (to, _) => to.pad(row + 1),
        }
    }
    column
}
