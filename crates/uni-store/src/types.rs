//! The numbers that field types have in files.

use crate::bytes::Damaged;
use uni_wire::FieldType;

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
