//! The quick way through a line whose shape is known: values straight from the bytes.
//!
//! Owns numbers, booleans and time stamps in their plain forms. What is unusual in any way is left to the parser of
//! whole lines: whoever gets `None` here asks there, and what is accepted here is accepted there with the same
//! meaning (a property test holds the two together).

/// A float as the decimal it was written as: `mantissa / 10^scale`. With a mantissa of at most 2^53 and a scale of at
/// most 22 both are exact as binary64, so that one division gives the nearest float, as `str::parse` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// Magnitude at most 2^53; not minus zero.
    pub mantissa: i64,
    /// 0 to 22.
    pub scale: u8,
}

const MAX_MANTISSA: u64 = 1 << 53;
const MAX_SCALE: i32 = 22;
/// So many digits always fit in a `u64`.
const MAX_DIGITS: usize = 19;

/// 10^0 to 10^8.
const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The digits at the start of eight bytes as a number, and how many there are: all at once, whatever their count.
#[inline]
fn leading_digits(bytes: &[u8; 8]) -> (u64, usize) {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    let word = u64::from_le_bytes(*bytes);
    // A byte that is no digit leaves its highest bit in one of the two; what it borrows or carries goes to bytes after
    // it only.
    let others =
        (word.wrapping_sub(ZEROS) | word.wrapping_add(0x4646_4646_4646_4646)) & 0x8080_8080_8080_8080;
    let count = (others.trailing_zeros() / 8) as usize;
    if count == 0 {
        return (0, 0);
    }
    // The digits move to the end; the zeros before them change nothing.
    let digits = (word ^ ZEROS) << (64 - 8 * count);
    // Pairs, then fours, then all eight: three multiplications instead of eight.
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    (low.wrapping_add(high) >> 32, count)
}

/// The digits at `at` as a number, onto `value`, and where they end; at most 19 digits in all.
#[inline]
fn digits(bytes: &[u8], start: usize, mut value: u64, had: usize) -> Option<(u64, usize)> {
    let mut at = start;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let (number, count) = leading_digits(chunk);
        if at - start + had + count > MAX_DIGITS {
            return None;
        }
        value = value * POWERS[count] + number;
        at += count;
        if count < 8 {
            return Some((value, at));
        }
    }
    while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
        if at - start + had == MAX_DIGITS {
            return None;
        }
        value = value * 10 + u64::from(digit - b'0');
        at += 1;
    }
    Some((value, at))
}

#[inline]
fn sign(bytes: &[u8], at: usize) -> (bool, usize) {
    if bytes.get(at) == Some(&b'-') { (true, at + 1) } else { (false, at) }
}

#[inline]
fn signed(value: u64, negative: bool) -> Option<i64> {
    let value = i64::try_from(value).ok()?;
    Some(if negative { -value } else { value })
}

/// A whole number of at most 19 digits at `at`, and where it ends.
#[inline]
#[must_use]
pub fn quick_whole(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let (negative, start) = sign(bytes, at);
    let (value, end) = digits(bytes, start, 0, 0)?;
    if end == start {
        return None;
    }
    Some((signed(value, negative)?, end))
}

/// An integer field's value, `123i`, and where it ends.
#[inline]
#[must_use]
pub fn quick_integer(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let (value, end) = quick_whole(bytes, at)?;
    (bytes.get(end) == Some(&b'i')).then_some((value, end + 1))
}

/// An unsigned field's value, `123u`, and where it ends.
#[inline]
#[must_use]
pub fn quick_unsigned(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let (value, end) = digits(bytes, at, 0, 0)?;
    (end > at && bytes.get(end) == Some(&b'u')).then_some((value, end + 1))
}

/// A float field's value and where it ends.
#[inline]
#[must_use]
pub fn quick_float(bytes: &[u8], at: usize) -> Option<(Decimal, usize)> {
    let (negative, start) = sign(bytes, at);
    let (mut value, mut end) = digits(bytes, start, 0, 0)?;
    let whole_digits = end - start;
    let mut places = 0;
    if bytes.get(end) == Some(&b'.') {
        let from = end + 1;
        (value, end) = digits(bytes, from, value, whole_digits)?;
        places = end - from;
    }
    if whole_digits + places == 0 {
        return None;
    }
    let mut scale = i32::try_from(places).ok()?;
    if let Some(b'e' | b'E') = bytes.get(end) {
        let (power, after) = exponent(bytes, end + 1)?;
        scale -= power;
        end = after;
    }
    while scale < 0 {
        value = value.checked_mul(10).filter(|value| *value <= MAX_MANTISSA)?;
        scale += 1;
    }
    if scale > MAX_SCALE || value > MAX_MANTISSA || (negative && value == 0) {
        return None;
    }
    Some((Decimal { mantissa: signed(value, negative)?, scale: u8::try_from(scale).ok()? }, end))
}

/// `+08`: at most three digits.
fn exponent(bytes: &[u8], at: usize) -> Option<(i32, usize)> {
    let (negative, start) = match bytes.get(at) {
        Some(b'-') => (true, at + 1),
        Some(b'+') => (false, at + 1),
        _ => (false, at),
    };
    let mut end = start;
    let mut value = 0;
    while let Some(digit @ b'0'..=b'9') = bytes.get(end)
        && end - start < 4
    {
        value = value * 10 + i32::from(digit - b'0');
        end += 1;
    }
    (1..=3).contains(&(end - start)).then_some((if negative { -value } else { value }, end))
}

/// A boolean field's value and where it ends: `t`, `true` and their like.
#[must_use]
pub fn quick_boolean(bytes: &[u8], at: usize) -> Option<(bool, usize)> {
    let rest = bytes.get(at..)?;
    let words: [(&[u8], bool); 10] = [
        (b"true", true),
        (b"false", false),
        (b"True", true),
        (b"False", false),
        (b"TRUE", true),
        (b"FALSE", false),
        (b"t", true),
        (b"f", false),
        (b"T", true),
        (b"F", false),
    ];
    let (word, value) = words.iter().find(|(word, _)| rest.starts_with(word))?;
    Some((*value, at + word.len()))
}

/// The inside of a quoted string without escapes and newlines, and the place after its closing quote.
#[must_use]
pub fn quick_text(bytes: &[u8], at: usize) -> Option<(&str, usize)> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let inside = bytes.get(at + 1..)?;
    let length = inside.iter().position(|b| matches!(b, b'"' | b'\\' | b'\n'))?;
    if inside.get(length) != Some(&b'"') {
        return None;
    }
    Some((core::str::from_utf8(inside.get(..length)?).ok()?, at + length + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;
    use crate::line::{RawValue, parse_line};
    use proptest::prelude::*;
    use std::format;
    use std::string::String;

    fn by_parser(word: &str) -> Option<RawValue<'_>> {
        // the value must be the whole word: a separator in it would begin another field
        let line = format!("m f={word}");
        let ends = !word.contains([',', ' ', '\n']);
        let value = parse_line(line.as_bytes()).ok().filter(|_| ends)?.fields().next()?.value;
        match value {
            RawValue::Plain(Value::Float(v)) => Some(RawValue::Plain(Value::Float(v))),
            RawValue::Plain(Value::Integer(v)) => Some(RawValue::Plain(Value::Integer(v))),
            RawValue::Plain(Value::Unsigned(v)) => Some(RawValue::Plain(Value::Unsigned(v))),
            RawValue::Plain(Value::Boolean(v)) => Some(RawValue::Plain(Value::Boolean(v))),
            _ => None,
        }
    }

    fn check(word: &str) {
        let (bytes, whole) = (word.as_bytes(), |end: usize| end == word.len());
        if let Some((v, _)) = quick_integer(bytes, 0).filter(|v| whole(v.1)) {
            assert_eq!(by_parser(word), Some(RawValue::Plain(Value::Integer(v))), "{word}");
        }
        if let Some((v, _)) = quick_unsigned(bytes, 0).filter(|v| whole(v.1)) {
            assert_eq!(by_parser(word), Some(RawValue::Plain(Value::Unsigned(v))), "{word}");
        }
        if let Some((v, _)) = quick_boolean(bytes, 0).filter(|v| whole(v.1)) {
            assert_eq!(by_parser(word), Some(RawValue::Plain(Value::Boolean(v))), "{word}");
        }
        if let Some((v, _)) = quick_float(bytes, 0).filter(|v| whole(v.1)) {
            let float = v.mantissa as f64 / 10f64.powi(i32::from(v.scale));
            let Some(RawValue::Plain(Value::Float(parsed))) = by_parser(word) else { panic!("{word}") };
            assert_eq!(parsed.to_bits(), float.to_bits(), "{word}");
        }
    }

    #[test]
    fn plain_forms_are_taken() {
        assert_eq!(quick_integer(b"-1234567890123i,", 0), Some((-1_234_567_890_123, 15)));
        assert_eq!(quick_whole(b"1735689600000000000\n", 0), Some((1_735_689_600_000_000_000, 19)));
        assert_eq!(quick_float(b"12.345678", 0), Some((Decimal { mantissa: 12_345_678, scale: 6 }, 9)));
        assert_eq!(quick_float(b"1.23457e+08 ", 0), Some((Decimal { mantissa: 123_457_000, scale: 0 }, 11)));
        assert_eq!(quick_text(b"\"up\",", 0), Some(("up", 4)));
    }

    #[test]
    fn what_is_unusual_is_left_to_the_parser() {
        for word in
            ["", "-", ".", "-0", "-0.0", "1e", "1e5000", "99999999999999999999", "9007199254740993", "nan"]
        {
            assert_eq!(quick_float(word.as_bytes(), 0), None, "{word}");
        }
        assert_eq!(quick_integer(b"9223372036854775808i", 0), None);
        assert_eq!(quick_unsigned(b"-1u", 0), None);
        assert_eq!(quick_text(b"\"a\\\"b\"", 0), None);
    }

    proptest! {
        #[test]
        fn what_is_taken_means_the_same_to_the_parser(
            words in prop::collection::vec("-?[0-9]{0,20}(\\.[0-9]{0,9})?([eE][+-]?[0-9]{0,4})?[iu]?", 40),
            odd in "[-+.0-9eEiutf]{0,12}",
            float: f64,
        ) {
            words.iter().for_each(|word| check(word));
            check(&odd);
            check(&format!("{float}"));
            let short: String = format!("{:.3}", float % 1e9);
            check(&short);
        }
    }
}
