//! Numbers and texts out of bytes. Owns nothing but the place where reading goes on.

/// The rest of what is read. Every reader gives `None` where the bytes end too early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A frame's code: the original keeps 63 bits with their sign.
    pub(super) fn code(&mut self) -> Option<u64> {
        self.u64().map(|code| ((code << 1).cast_signed() >> 1).cast_unsigned())
    }

    #[inline]
    pub(super) fn vint(&mut self) -> Option<i64> {
        match self.u8()? {
            small @ ..=252 => Some(i64::from(small)),
            form => self.wide(form),
        }
    }

    #[cold]
    fn wide(&mut self, form: u8) -> Option<i64> {
        match form {
            253 => self.u16().map(i64::from),
            254 => self.array().map(|bytes| i64::from(i32::from_le_bytes(bytes))),
            _ => self.array().map(i64::from_le_bytes),
        }
    }

    /// A text without the NUL byte at its end.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (text, rest) = (self.0.get(..end)?, self.0.get(end + 1..)?);
        self.0 = rest;
        Some(text)
    }
}
