//! A pattern that texts are searched with.
//!
//! Owns the bounds of a pattern, and when it may be looked for in many texts at once: where no part of it looks at the
//! beginning or the end of a text, it finds in texts that lie behind each other, with a byte between them that is no
//! UTF-8, just what it finds in each.

use regex::{Regex, RegexBuilder, bytes};

/// Most bytes that a compiled pattern may take.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// The longest pattern in bytes.
const MAX_PATTERN_BYTES: usize = 4096;

/// A regular expression in the syntax of the crate `regex`: it is found in time proportional to the texts.
#[derive(Clone, Debug)]
pub struct LogPattern {
    one: Regex,
    many: Option<bytes::Regex>,
}

/// Why a pattern cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogPatternError {
    /// It is too long.
    #[error("the pattern has {bytes} bytes; at most {MAX_PATTERN_BYTES} are taken")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is none, or takes too much memory.
    #[error("the pattern {pattern:?} cannot be used")]
    Bad {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        source: regex::Error,
    },
}

impl LogPattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`LogPatternError`].
    pub fn new(pattern: &str) -> Result<Self, LogPatternError> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(LogPatternError::TooLong { bytes: pattern.len() });
        }
        let bad = |source| LogPatternError::Bad { pattern: pattern.to_owned(), source };
        let one = RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build().map_err(bad)?;
        let looks = regex_syntax::parse(pattern).map(|hir| !hir.properties().look_set().is_empty());
        let many = if looks == Ok(false) {
            Some(bytes::RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build().map_err(bad)?)
        } else {
            None
        };
        Ok(Self { one, many })
    }

    /// Whether it is found in a text.
    pub fn is_match(&self, text: &str) -> bool {
        self.one.is_match(text)
    }

    /// For texts behind each other.
    pub(crate) const fn many(&self) -> Option<&bytes::Regex> {
        self.many.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_found_in_many_texts_is_what_is_found_in_each(
            texts in prop::collection::vec("[ab \\n\u{e9}]{0,5}", 1..8),
            pattern in prop::sample::select(vec![
                "a+b", "[^a]b", "(?s).b", "a.b", "b?", "(?i)A B", "\\W", "\\S+", "a|\u{e9}", "[^b]{2}", "\\pL",
            ]),
        ) {
            let pattern = LogPattern::new(pattern).unwrap();
            let many = pattern.many().expect("no look-around");
            let mut joined = Vec::new();
            for text in &texts {
                joined.extend_from_slice(text.as_bytes());
                joined.push(0xff);
            }
            let mut start = 0;
            for text in &texts {
                let end = start + text.len() + 1;
                let found = many.find_at(&joined, start).is_some_and(|found| found.start() < end);
                prop_assert_eq!(found, pattern.is_match(text), "{:?}", text);
                start = end;
            }
        }
    }

    #[test]
    fn patterns_that_look_at_ends_are_looked_for_in_each_text() {
        for pattern in ["^a", "a$", "\\ba", "(?m)^a", "\\Aa", "a\\z"] {
            assert!(LogPattern::new(pattern).unwrap().many().is_none(), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_are_none_or_too_large_are_refused() {
        for bad in ["(", &"x".repeat(5000), r"(\pL{1000}){100}", r"(?-u:\xff)"] {
            assert!(LogPattern::new(bad).is_err(), "{bad}");
        }
        assert!(LogPattern::new("no (answer|name)").unwrap().is_match("there was no answer"));
    }
}
