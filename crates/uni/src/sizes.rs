//! Sizes in bytes as they are typed: a whole number, alone or with `K`, `M` or `G` (binary, any case).
//!
//! Owns that form and its limits. Guest memory has another one, which the daemon reads.

/// The greatest size, in bytes: what the daemon's records can hold.
const MAX_BYTES: u64 = i64::MAX as u64;

/// Reads a size.
///
/// # Errors
/// Says what was wrong and what would be right.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad =
        || format!("{text:?} is not a size; write a whole number of bytes, or with K, M or G: 512M, 1G");
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes <= MAX_BYTES)
        .ok_or_else(|| format!("{text} is more than {MAX_BYTES} bytes, the most there is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_and_bare_numbers_are_bytes() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("512M", 536_870_912), ("10m", 10_485_760), ("1G", 1 << 30), ("2k", 2048)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_or_too_much_is_refused() {
        for text in [
            "",
            "G",
            "10MB",
            "1.5G",
            "1T",
            "-1",
            "+1",
            " 1",
            "9223372036854775808",
            "99999999999G",
            "1\u{212a}",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
