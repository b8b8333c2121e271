//! A pattern that texts are searched with.
//!
//! Owns the bounds of a pattern, and how it is looked for in many texts at once: where no part of it looks at what stands
//! around (beginnings, ends, bounds of words), it finds in texts that lie behind each other, with a byte between them that
//! is no UTF-8, just what it finds in each. Without those parts it finds that and perhaps more.

use regex::{Regex, RegexBuilder, bytes};
use regex_syntax::hir::{Hir, HirKind, Repetition};

/// Most bytes that a compiled pattern may take.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// The longest pattern in bytes.
const MAX_PATTERN_BYTES: usize = 4096;

/// A regular expression in the syntax of the crate `regex`: it is found in time proportional to the texts.
#[derive(Clone, Debug)]
pub struct LogPattern {
    one: Regex,
    /// For texts behind each other; finds at least what `one` does.
    many: Option<bytes::Regex>,
    /// `many` finds just what `one` does.
    is_exact: bool,
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
        let hir = regex_syntax::parse(pattern).ok();
        let is_exact = hir.as_ref().is_some_and(|hir| hir.properties().look_set().is_empty());
        let many = hir.filter(|_| !is_exact).map(|hir| without_looks(&hir).to_string());
        let many = bytes::RegexBuilder::new(many.as_deref().unwrap_or(pattern))
            .size_limit(MAX_COMPILED_BYTES)
            .build()
            .ok();
        Ok(Self { one, many, is_exact })
    }

    /// Whether it is found in a text.
    pub fn is_match(&self, text: &str) -> bool {
        self.one.is_match(text)
    }

    /// For texts behind each other: finds at least what is found in each.
    pub(crate) const fn many(&self) -> Option<&bytes::Regex> {
        self.many.as_ref()
    }

    /// Whether [`LogPattern::many`] finds nothing else.
    pub(crate) const fn is_exact(&self) -> bool {
        self.is_exact
    }
}

/// The pattern without what looks at its surroundings: it is found wherever the pattern is.
fn without_looks(hir: &Hir) -> Hir {
    let all = |parts: &[Hir]| parts.iter().map(without_looks).collect();
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0.clone()),
        HirKind::Class(class) => Hir::class(class.clone()),
        HirKind::Repetition(repeated) => {
            let sub = Box::new(without_looks(&repeated.sub));
            Hir::repetition(Repetition { min: repeated.min, max: repeated.max, greedy: repeated.greedy, sub })
        }
        HirKind::Capture(capture) => without_looks(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
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
                "^a", "b$", "\\ba", "(^| )(a|b)+$", "(?m)^b", "\\Ba", "^$", "(a\\b ?){2}",
            ]),
        ) {
            let pattern = LogPattern::new(pattern).unwrap();
            let many = pattern.many().expect("a pattern");
            let mut joined = Vec::new();
            for text in &texts {
                joined.extend_from_slice(text.as_bytes());
                joined.push(0xff);
            }
            let mut start = 0;
            for text in &texts {
                let end = start + text.len() + 1;
                let found = many.find_at(&joined, start).is_some_and(|found| found.start() < end)
                    && (pattern.is_exact() || pattern.is_match(text));
                prop_assert_eq!(found, pattern.is_match(text), "{:?}", text);
                start = end;
            }
        }
    }

    #[test]
    fn patterns_that_look_around_are_told_from_those_that_do_not() {
        for pattern in ["^a", "a$", "\\ba", "(?m)^a", "\\Aa", "a\\z"] {
            let pattern = LogPattern::new(pattern).unwrap();
            assert!(!pattern.is_exact() && pattern.many().is_some_and(|many| many.as_str() == "a"));
        }
        assert!(LogPattern::new("a.b|[^c]+").unwrap().is_exact());
    }

    #[test]
    fn patterns_that_are_none_or_too_large_are_refused() {
        for bad in ["(", &"x".repeat(5000), r"(\pL{1000}){100}", r"(?-u:\xff)"] {
            assert!(LogPattern::new(bad).is_err(), "{bad}");
        }
        assert!(LogPattern::new("no (answer|name)").unwrap().is_match("there was no answer"));
    }
}
