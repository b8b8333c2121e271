//! The wire format of protocol buffers, read where it lies.
//!
//! Owns tags, lengths and numbers. What a field means is the caller's business; fields that nobody asks for are passed over,
//! as the format wants it. Chosen over a generated tree because a tree takes some forty times the bytes of a hostile
//! message.

/// Not a message: it ends within a field, or a field is none that can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message of this kind: {0}")]
pub struct Malformed(pub(crate) &'static str);

/// What a field holds, as far as the format says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    /// In none of the messages here.
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(crate) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("a number where a text or message belongs")),
        }
    }

    pub(crate) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub(crate) fn message(self) -> Result<Fields<'a>, Malformed> {
        self.bytes().map(Fields)
    }

    pub(crate) fn double(self) -> Result<f64, Malformed> {
        self.fixed64().map(f64::from_bits)
    }

    pub(crate) fn fixed64(self) -> Result<u64, Malformed> {
        match self {
            Self::Fixed64(bits) => Ok(bits),
            _ => Err(Malformed("a field is not 8 bytes long")),
        }
    }

    pub(crate) fn varint(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(Malformed("a field is no variable number")),
        }
    }

    /// A signed number, as the types `int32` and `int64` are written.
    pub(crate) fn int(self) -> Result<i64, Malformed> {
        self.varint().map(u64::cast_signed)
    }

    /// A repeated number of 8 bytes: packed, or one of several fields.
    pub(crate) fn each_fixed64(self, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
        let Self::Bytes(bytes) = self else {
            each(self.fixed64()?);
            return Ok(());
        };
        let (numbers, rest) = bytes.as_chunks::<8>();
        numbers.iter().for_each(|number| each(u64::from_le_bytes(*number)));
        if rest.is_empty() { Ok(()) } else { Err(Malformed("a packed list ends within a number")) }
    }

    /// A repeated variable number: packed, or one of several fields.
    pub(crate) fn each_varint(self, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
        let Self::Bytes(bytes) = self else {
            each(self.varint()?);
            return Ok(());
        };
        let mut rest = Fields(bytes);
        while !rest.0.is_empty() {
            each(rest.take_varint()?);
        }
        Ok(())
    }
}

/// The fields of a message, in their order: number and value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("it ends within a field"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed("it ends within a number"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn take_varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take_array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed("a number is longer than ten bytes"))
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let key = self.take_varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.take_varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take_array()?)),
            2 => {
                let length =
                    usize::try_from(self.take_varint()?).map_err(|_| Malformed("a length is too large"))?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take_array::<4>().map(|_| Value::Fixed32)?,
            _ => return Err(Malformed("a field of a kind that there is not")),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// A message that is being written; only for answers, which are short.
#[derive(Debug, Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    pub(crate) fn varint(&mut self, field: u8, number: u64) {
        self.0.push(field << 3);
        self.number(number);
    }

    pub(crate) fn bytes(&mut self, field: u8, bytes: &[u8]) {
        self.0.push(field << 3 | 2);
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).unwrap_or_default());
    }
}
