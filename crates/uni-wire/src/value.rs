//! Time stamps and field values: the types every wire of Uni is turned into.
//!
//! Owns the meaning of a value (type, range, equality). Never owns text: escaping and number syntax belong
//! to the format that carries the value.

/// Nanoseconds since the Unix epoch, UTC. Range: 1677-09-21 to 2262-04-11, as in InfluxDB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// A whole number of seconds since the Unix epoch; saturates at the ends of the range.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }
}

/// The type of a field, as InfluxDB names it in `SHOW FIELD KEYS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldType {
    /// IEEE 754 binary64, finite.
    Float,
    /// Signed 64-bit integer (`5i`).
    Integer,
    /// Unsigned 64-bit integer (`5u`).
    Unsigned,
    /// UTF-8 text.
    String,
    /// `true` or `false`.
    Boolean,
}

impl FieldType {
    /// InfluxDB's word for the type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Integer => "integer",
            Self::Unsigned => "unsigned",
            Self::String => "string",
            Self::Boolean => "boolean",
        }
    }
}

/// A field value whose text, if it has any, is borrowed and not escaped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// See [`FieldType::Float`].
    Float(f64),
    /// See [`FieldType::Integer`].
    Integer(i64),
    /// See [`FieldType::Unsigned`].
    Unsigned(u64),
    /// See [`FieldType::String`].
    String(&'a str),
    /// See [`FieldType::Boolean`].
    Boolean(bool),
}

impl Value<'_> {
    /// The value's type.
    #[must_use]
    pub const fn field_type(&self) -> FieldType {
        match self {
            Self::Float(_) => FieldType::Float,
            Self::Integer(_) => FieldType::Integer,
            Self::Unsigned(_) => FieldType::Unsigned,
            Self::String(_) => FieldType::String,
            Self::Boolean(_) => FieldType::Boolean,
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $(impl From<$from> for Value<'_> {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

value_from! {
    f32 => Float, f64 => Float, i8 => Integer, i16 => Integer, i32 => Integer, i64 => Integer,
    u8 => Unsigned, u16 => Unsigned, u32 => Unsigned, u64 => Unsigned, bool => Boolean,
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::String(value)
    }
}

/// A field value that owns its text.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// See [`FieldType::Float`].
    Float(f64),
    /// See [`FieldType::Integer`].
    Integer(i64),
    /// See [`FieldType::Unsigned`].
    Unsigned(u64),
    /// See [`FieldType::String`].
    String(alloc::boxed::Box<str>),
    /// See [`FieldType::Boolean`].
    Boolean(bool),
}

#[cfg(feature = "alloc")]
impl FieldValue {
    /// The value's type.
    #[must_use]
    pub const fn field_type(&self) -> FieldType {
        match self {
            Self::Float(_) => FieldType::Float,
            Self::Integer(_) => FieldType::Integer,
            Self::Unsigned(_) => FieldType::Unsigned,
            Self::String(_) => FieldType::String,
            Self::Boolean(_) => FieldType::Boolean,
        }
    }

    /// The same value, borrowed.
    #[must_use]
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::Float(v) => Value::Float(*v),
            Self::Integer(v) => Value::Integer(*v),
            Self::Unsigned(v) => Value::Unsigned(*v),
            Self::String(v) => Value::String(v),
            Self::Boolean(v) => Value::Boolean(*v),
        }
    }
}

#[cfg(feature = "alloc")]
impl From<Value<'_>> for FieldValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Float(v) => Self::Float(v),
            Value::Integer(v) => Self::Integer(v),
            Value::Unsigned(v) => Self::Unsigned(v),
            Value::String(v) => Self::String(v.into()),
            Value::Boolean(v) => Self::Boolean(v),
        }
    }
}
