//! Text as OCaml's standard library prints it, where MirageOS's wires show it.
//!
//! Owns the spelling of string literals (`%S`) and of floats (`%g`). Never decides where they are used.

use core::fmt::{self, Write as _};

use crate::slice::SliceWriter;

/// Digits of a float that `%g` keeps.
const PRECISION: i32 = 6;

/// A string literal: quotes around it, escapes inside, every byte outside ASCII in decimal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Literal<'a>(pub(crate) &'a str);

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for byte in self.0.bytes() {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(byte)),
                b'\n' => f.write_str("\\n"),
                b'\t' => f.write_str("\\t"),
                b'\r' => f.write_str("\\r"),
                8 => f.write_str("\\b"),
                b' '..=b'~' => f.write_char(char::from(byte)),
                _ => write!(f, "\\{byte:03}"),
            }?;
        }
        f.write_char('"')
    }
}

/// A float as C's `%g`: six digits, no zeros at the end, an exponent of two digits or more where it is below -4 or
/// above 5.
#[derive(Clone, Copy, Debug)]
pub(crate) struct General(pub(crate) f64);

impl fmt::Display for General {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_nan() {
            return f.write_str("nan");
        }
        if value.is_sign_negative() {
            f.write_char('-')?;
        }
        if value.is_infinite() {
            return f.write_str("inf");
        }
        let mut space = [0; 16];
        let mut text = SliceWriter::new(&mut space);
        // `d.ddddde-xxx`: the digits are rounded here, and only moved about below.
        write!(text, "{:.5e}", value.abs())?;
        let text = core::str::from_utf8(text.as_bytes()).map_err(|_| fmt::Error)?;
        let (digits, exponent) = text.split_once('e').ok_or(fmt::Error)?;
        let (first, rest) = digits.split_once('.').ok_or(fmt::Error)?;
        let rest = rest.trim_end_matches('0');
        match exponent.parse().map_err(|_| fmt::Error)? {
            exponent @ -4..0 => {
                let places = exponent.unsigned_abs() as usize;
                write!(f, "0.{first:0>places$}{rest}")
            }
            exponent @ 0..PRECISION => write_plain(f, first, rest, exponent.unsigned_abs() as usize),
            exponent => {
                let sign = if exponent < 0 { '-' } else { '+' };
                let point = if rest.is_empty() { "" } else { "." };
                write!(f, "{first}{point}{rest}e{sign}{:02}", exponent.unsigned_abs())
            }
        }
    }
}

/// `first` and `rest` with the point `exponent` places further right.
fn write_plain(f: &mut fmt::Formatter<'_>, first: &str, rest: &str, exponent: usize) -> fmt::Result {
    let (whole, fraction) = rest.split_at(exponent.min(rest.len()));
    write!(f, "{first}{whole:0<exponent$}")?;
    if fraction.is_empty() { Ok(()) } else { write!(f, ".{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    #[test]
    fn floats_are_those_of_printf() {
        // what C prints for "%g"
        let known = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (10.0, "10"),
            (0.1, "0.1"),
            (-0.012_5, "-0.0125"),
            (0.000_1, "0.0001"),
            (0.000_099_999_4, "9.99994e-05"),
            (0.000_099_999_99, "0.0001"),
            (0.000_012_34, "1.234e-05"),
            (100_000.0, "100000"),
            (100_000.5, "100000"),
            (100_001.5, "100002"),
            (123_456.5, "123456"),
            (999_999.4, "999999"),
            (999_999.5, "1e+06"),
            (1_234_567.0, "1.23457e+06"),
            (12_000.5, "12000.5"),
            (2.5, "2.5"),
            (1e22, "1e+22"),
            (1e300, "1e+300"),
            (2.5e-310, "2.5e-310"),
            (5e-324, "4.94066e-324"),
            (f64::MAX, "1.79769e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (value, text) in known {
            assert_eq!(format!("{}", General(value)), text, "{value:?}");
        }
    }

    #[test]
    fn literals_are_those_of_ocaml() {
        assert_eq!(
            format!("{}", Literal("a\"\\\n\t\r\u{8}\u{1b}é\u{7f}")),
            r#""a\"\\\n\t\r\b\027\195\169\127""#
        );
    }

    proptest! {
        #[test]
        fn any_float_is_printed_to_six_digits(value in any::<f64>()) {
            let text = format!("{}", General(value));
            let read: f64 = text.parse().expect("a float");
            prop_assert!(value.is_nan() || (read - value).abs() <= value.abs() * 1e-5 || !value.is_finite());
        }
    }
}
