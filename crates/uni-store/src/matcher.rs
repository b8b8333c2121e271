//! Conditions on tags, as InfluxQL and PromQL have them.
//!
//! Owns the comparison. Anchoring of patterns differs between the two languages and is the caller's.

use crate::catalog::Tags;
use regex::{Regex, RegexBuilder};

/// Most bytes a compiled pattern may take; more is refused rather than built.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// How a tag is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The same text.
    Equal,
    /// Another text.
    NotEqual,
    /// The pattern is found somewhere in the text (use `^` and `$` for the whole of it).
    Regex,
    /// The pattern is not found in the text.
    NotRegex,
}

/// A condition on one tag. A tag that a series lacks counts as the empty text.
#[derive(Clone, Debug)]
pub struct Matcher {
    key: Box<str>,
    test: Test,
    /// What the test must answer.
    wanted: bool,
}

#[derive(Clone, Debug)]
enum Test {
    Text(Box<str>),
    Pattern(Regex),
}

/// A pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("pattern for tag \"{key}\" cannot be used")]
pub struct MatcherError {
    /// The tag.
    pub key: String,
    source: regex::Error,
}

impl Matcher {
    /// A condition `key op value`.
    ///
    /// # Errors
    /// For [`Op::Regex`] and [`Op::NotRegex`]: `value` is no pattern in the `regex` crate's syntax, or needs more
    /// than 1 MiB when compiled.
    pub fn new(key: &str, op: Op, value: &str) -> Result<Self, MatcherError> {
        let test = match op {
            Op::Equal | Op::NotEqual => Test::Text(value.into()),
            Op::Regex | Op::NotRegex => Test::Pattern(
                RegexBuilder::new(value)
                    .size_limit(MAX_PATTERN_BYTES)
                    .build()
                    .map_err(|source| MatcherError { key: key.to_owned(), source })?,
            ),
        };
        Ok(Self { key: key.into(), test, wanted: matches!(op, Op::Equal | Op::Regex) })
    }

    pub(crate) fn accepts(&self, tags: &Tags) -> bool {
        let found = tags.binary_search_by(|(key, _)| (**key).cmp(&self.key));
        let value = found.map_or("", |index| &tags[index].1);
        let answer = match &self.test {
            Test::Text(text) => **text == *value,
            Test::Pattern(pattern) => pattern.is_match(value),
        };
        answer == self.wanted
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn accepts(key: &str, op: Op, value: &str) -> bool {
        let tags: Vec<(Box<str>, Box<str>)> =
            vec![("host".into(), "h1".into()), ("vm".into(), "web-1".into())];
        Matcher::new(key, op, value).unwrap().accepts(&tags)
    }

    #[test]
    fn a_missing_tag_is_the_empty_text() {
        assert!(accepts("zone", Op::Equal, ""));
        assert!(!accepts("zone", Op::NotEqual, ""));
        assert!(accepts("zone", Op::Regex, "^$"));
        assert!(accepts("zone", Op::NotEqual, "eu"));
    }

    #[test]
    fn texts_and_patterns_select() {
        assert!(accepts("vm", Op::Equal, "web-1") && !accepts("vm", Op::Equal, "web"));
        assert!(accepts("vm", Op::Regex, "web") && !accepts("vm", Op::Regex, "^web$"));
        assert!(accepts("host", Op::NotRegex, "^h[2-9]") && !accepts("host", Op::NotRegex, "h"));
    }

    #[test]
    fn patterns_that_are_wrong_or_huge_are_refused() {
        assert!(Matcher::new("vm", Op::Regex, "(").is_err());
        let huge = Matcher::new("vm", Op::Regex, "(a{1000}){1000}").unwrap_err();
        assert_eq!(huge.to_string(), "pattern for tag \"vm\" cannot be used");
    }
}
