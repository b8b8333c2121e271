//! Text into a buffer of fixed size.
//!
//! Owns the count of bytes written. Never splits a character and never allocates.

use core::fmt;

/// Writes into a byte slice. A write that does not fit is refused whole, so what is there is always UTF-8.
#[derive(Debug)]
pub struct SliceWriter<'a> {
    space: &'a mut [u8],
    len: usize,
}

impl<'a> SliceWriter<'a> {
    /// A writer that starts at the beginning of `space`.
    pub const fn new(space: &'a mut [u8]) -> Self {
        Self { space, len: 0 }
    }

    /// Bytes written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes back what was written beyond `len` bytes, for instance a line that did not fit.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// What was written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.space.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Write for SliceWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.space.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
