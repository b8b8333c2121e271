//! `/proc/PID/io`: bytes moved by a process. Readable by the same user and root only.

use super::{ParseError, number, pairs};

/// What is used of `/proc/PID/io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// Bytes that the process made the block layer read.
    pub read_bytes: u64,
    /// Bytes that the process made the block layer write, now or later.
    pub write_bytes: u64,
}

impl Io {
    /// Reads the file.
    ///
    /// # Errors
    /// `read_bytes` or `write_bytes` is missing or not a number.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        Ok(Self { read_bytes: value(text, "read_bytes")?, write_bytes: value(text, "write_bytes")? })
    }
}

fn value(text: &[u8], field: &'static str) -> Result<u64, ParseError> {
    pairs(text)
        .find(|(key, _)| *key == field.as_bytes())
        .and_then(|(_, value)| number(value.trim_ascii()))
        .ok_or(ParseError { file: "io", field })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"rchar: 323934931\nwchar: 323929600\nsyscr: 632687\nsyscw: 632675\n\
                          read_bytes: 4096\nwrite_bytes: 323932160\ncancelled_write_bytes: 0\n";

    #[test]
    fn block_layer_bytes_are_read_not_those_of_calls() {
        assert_eq!(Io::parse(TEXT).unwrap(), Io { read_bytes: 4096, write_bytes: 323_932_160 });
    }

    #[test]
    fn a_missing_line_is_named() {
        assert_eq!(Io::parse(b"rchar: 1\nread_bytes: 1\n").unwrap_err().field, "write_bytes");
    }
}
