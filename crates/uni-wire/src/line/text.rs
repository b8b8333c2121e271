//! Raw text of a line and its unescaping.
//!
//! Owns the escape rules of names (`\,` `\ ` `\=`) and of quoted strings (`\"` `\\`). Never allocates unless
//! asked to by [`Text::to_cow`].

use core::fmt::{self, Write as _};
use core::str::Chars;

/// Which escapes a text may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Measurement, tag key, tag value, field key.
    Name,
    /// The inside of a quoted string.
    Quoted,
}

impl Rule {
    const fn escapes(self, c: char) -> bool {
        match self {
            Self::Name => matches!(c, ',' | ' ' | '='),
            Self::Quoted => matches!(c, '"' | '\\'),
        }
    }
}

/// A piece of a line as it was written, with its escapes still in it. `Display` prints it unescaped.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    raw: &'a str,
    rule: Rule,
}

impl<'a> Text<'a> {
    pub(crate) const fn name(raw: &'a str) -> Self {
        Self { raw, rule: Rule::Name }
    }

    pub(crate) const fn quoted(raw: &'a str) -> Self {
        Self { raw, rule: Rule::Quoted }
    }

    /// The text as written, escapes included; of a string without its quotes.
    #[must_use]
    pub const fn raw(&self) -> &'a str {
        self.raw
    }

    /// The characters meant.
    #[must_use]
    pub fn chars(&self) -> Unescaped<'a> {
        Unescaped { chars: self.raw.chars(), rule: self.rule }
    }

    /// Whether the text means `other`.
    #[must_use]
    pub fn is(&self, other: &str) -> bool {
        self.chars().eq(other.chars())
    }

    /// The text meant; borrowed when nothing was escaped.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn to_cow(&self) -> alloc::borrow::Cow<'a, str> {
        if self.raw.as_bytes().contains(&b'\\') {
            alloc::borrow::Cow::Owned(self.chars().collect())
        } else {
            alloc::borrow::Cow::Borrowed(self.raw)
        }
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chars().try_for_each(|c| f.write_char(c))
    }
}

/// Equal when the same text is meant.
impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.rule == other.rule && self.raw == other.raw) || self.chars().eq(other.chars())
    }
}

impl Eq for Text<'_> {}

/// The characters of a [`Text`], escapes undone.
#[derive(Clone, Debug)]
pub struct Unescaped<'a> {
    chars: Chars<'a>,
    rule: Rule,
}

impl Iterator for Unescaped<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c != '\\' {
            return Some(c);
        }
        let mut after = self.chars.clone();
        match after.next() {
            Some(next) if self.rule.escapes(next) => {
                self.chars = after;
                Some(next)
            }
            _ => Some('\\'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_backslash_before_an_ordinary_character_is_itself() {
        assert_eq!(Text::name(r"a\b\\c").to_string(), r"a\b\\c");
        assert_eq!(Text::name(r"a\ b\,c\=d").to_string(), "a b,c=d");
        assert_eq!(Text::name(r"a\\,b").to_string(), r"a\,b");
        assert_eq!(Text::quoted(r#"q\"b\\c\n"#).to_string(), r#"q"b\c\n"#);
    }

    #[test]
    fn texts_are_equal_when_they_mean_the_same() {
        assert_eq!(Text::name(r"a\ b"), Text::quoted("a b"));
        assert!(Text::name(r"a\=b").is("a=b"));
    }
}
