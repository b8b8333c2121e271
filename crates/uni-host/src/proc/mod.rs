//! Pure parsers of the files under `/proc/PID`, over bytes: the kernel puts names that are not UTF-8 there.
//!
//! Owns the text formats of proc(5). Never opens a file, never allocates.

mod io;
mod schedstat;
mod stat;
mod status;

pub use io::Io;
pub use schedstat::Schedstat;
pub use stat::Stat;
pub use status::Status;

/// A file under `/proc/PID` does not have the shape that proc(5) describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parsing /proc/PID/{file}: `{field}` is missing or not a number")]
pub struct ParseError {
    /// The file's name.
    pub file: &'static str,
    /// proc(5)'s name of the field.
    pub field: &'static str,
}

/// A decimal number and nothing else; `None` also when it exceeds 64 bits.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The words of a line: runs of anything but spaces, tabs and line ends.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// The lines `key: value` of a file; lines without a colon are passed over.
fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], &line[colon + 1..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_is_digits_only_and_fits_64_bits() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"-1", b"+1", b"1 ", b"0x1", b"18446744073709551616"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_parser_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Stat::parse(&bytes);
            let _ = Io::parse(&bytes);
            let _ = Status::parse(&bytes);
            let _ = Status::switches_in(&bytes);
            let _ = Schedstat::parse(&bytes);
        }

        #[test]
        fn no_parser_panics_on_text_that_looks_right(text in "([a-z_A-Z]{0,12}[:( )]{0,2}[0-9]{0,22}[ )\t\n]{0,2}){0,40}") {
            let _ = Stat::parse(text.as_bytes());
            let _ = Io::parse(text.as_bytes());
            let _ = Status::parse(text.as_bytes());
            let _ = Status::switches_in(text.as_bytes());
            let _ = Schedstat::parse(text.as_bytes());
        }

        #[test]
        fn numbers_read_back(n: u64) {
            prop_assert_eq!(number(n.to_string().as_bytes()), Some(n));
        }
    }
}
