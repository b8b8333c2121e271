//! What the log shows: a level for everything, and levels of their own for single targets.
//!
//! Owns the notation `info,unid::vms=debug`, where a target is a module's path and stands for what is below it
//! too. Never installs anything.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Targets with a level of their own.
const MAX_TARGETS: usize = 64;
/// The words for levels, as they are written.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// A level for everything, and for targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    default: LevelFilter,
    targets: BTreeMap<String, LevelFilter>,
}

impl Default for Levels {
    fn default() -> Self {
        Self { default: LevelFilter::INFO, targets: BTreeMap::new() }
    }
}

impl Levels {
    /// The same as the log's machinery takes it.
    pub(super) fn filter(&self) -> Targets {
        let targets = self.targets.iter().map(|(target, level)| (target.clone(), *level));
        Targets::new().with_default(self.default).with_targets(targets)
    }
}

/// Why a text names no levels.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLevels {
    /// A part is neither a level nor a target with a level.
    #[error(
        "log level {0:?}: write a level (error, warn, info, debug, trace or off) or TARGET=LEVEL, parted by commas, \
         such as info,unid::vms=debug"
    )]
    Part(String),
    /// Two parts say different things of the same.
    #[error("log level {0:?}: there is a level for the same already; leave one of them out")]
    Twice(String),
    /// No end of targets.
    #[error("log level: {0} targets are too many: at most {MAX_TARGETS}")]
    TooMany(usize),
}

impl FromStr for Levels {
    type Err = BadLevels;

    fn from_str(text: &str) -> Result<Self, BadLevels> {
        let mut default = None;
        let mut targets = BTreeMap::new();
        for part in text.split(',').map(str::trim) {
            let bad = || BadLevels::Part(part.to_owned());
            let known = match part.split_once('=') {
                Some((target, word)) => {
                    let level = level(word).filter(|_| is_target(target)).ok_or_else(bad)?;
                    targets.insert(target.to_owned(), level)
                }
                None => default.replace(level(part).ok_or_else(bad)?),
            };
            if known.is_some() {
                return Err(BadLevels::Twice(part.to_owned()));
            }
        }
        if targets.len() > MAX_TARGETS {
            return Err(BadLevels::TooMany(targets.len()));
        }
        Ok(Self { default: default.unwrap_or(LevelFilter::INFO), targets })
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(self.default))?;
        self.targets.iter().try_for_each(|(target, level)| write!(f, ",{target}={}", word(*level)))
    }
}

fn level(text: &str) -> Option<LevelFilter> {
    LEVELS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, level)| *level)
}

fn word(level: LevelFilter) -> &'static str {
    LEVELS.iter().find(|(_, of)| *of == level).map_or("off", |(word, _)| word)
}

/// A module's path.
fn is_target(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_:-.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_shown_in_one_way_however_they_were_written() {
        for (text, shown) in [
            ("info", "info"),
            ("INFO , unid::vms = debug", "bad"),
            ("DEBUG,b=warn,a=trace", "debug,a=trace,b=warn"),
            ("unid::vms=debug", "info,unid::vms=debug"),
            ("off", "off"),
        ] {
            let levels: Result<Levels, _> = text.parse();
            assert_eq!(
                levels.map_or_else(|_| "bad".to_owned(), |levels| levels.to_string()),
                shown,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("", "\"\""),
            ("loud", "\"loud\""),
            ("info,unid::vms=debgu", "\"unid::vms=debgu\""),
            ("info,=debug", "\"=debug\""),
            ("info,", "\"\""),
            ("unid", "\"unid\""),
            ("info,debug", "\"debug\""),
            ("a=info,a=warn", "\"a=warn\""),
            ("a[span]=info", "\"a[span]=info\""),
        ] {
            let error = text.parse::<Levels>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("log level {named}: ")), "{text}: {error}");
        }
        let many: Vec<_> = (0..=MAX_TARGETS).map(|n| format!("t{n}=info")).collect();
        assert_eq!(many.join(",").parse::<Levels>(), Err(BadLevels::TooMany(MAX_TARGETS + 1)));
    }
}
