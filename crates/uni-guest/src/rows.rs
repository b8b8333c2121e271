//! Sources of several points: one for each value of a tag that is known only when they are collected.
//!
//! Owns what such a source says about itself. Never decides which rows there are.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::report::{Kind, Lost, Point, Reading, Reporter, Tags};
use crate::source::count;
use uni_wire::Timestamp;

type CollectFn = Box<dyn FnMut() -> Vec<Row>>;

/// One point of several: the tag's value, and what is counted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The value of the source's tag.
    pub label: Box<str>,
    /// Levels by name.
    pub fields: Vec<(&'static str, u64)>,
}

/// A source whose points differ in one tag; see [`Registry::register_rows`](crate::Registry::register_rows).
pub struct Rows {
    name: Box<str>,
    doc: Box<str>,
    /// Without a value: which rows there are is not known beforehand.
    tags: [(Box<str>, Box<str>); 1],
    collect: CollectFn,
}

impl Rows {
    /// A source called `name` whose points carry the tag `key`; `collect` makes them at every interval.
    #[must_use]
    pub fn new(name: &str, key: &str, collect: impl FnMut() -> Vec<Row> + 'static) -> Self {
        Self {
            name: name.into(),
            doc: "".into(),
            tags: [(key.into(), "".into())],
            collect: Box::new(collect),
        }
    }

    /// What it measures, in a few words.
    #[must_use]
    pub fn doc(mut self, doc: &str) -> Self {
        self.doc = doc.into();
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn description(&self) -> &str {
        &self.doc
    }

    pub(crate) fn tags(&self) -> Tags<'_> {
        Tags::Owned(self.tags.iter())
    }

    /// Hands every row to `reporter`; returns how many were lost.
    pub(crate) fn report(&mut self, reporter: &mut dyn Reporter, time: Timestamp) -> u64 {
        let Self { name, doc, tags: [(key, _)], collect } = self;
        let report_row = |row: Row| -> Result<(), Lost> {
            let tags = [(key.clone(), row.label)];
            let evaluate = &mut |each: &mut dyn FnMut(&Reading<'_>)| {
                for (key, level) in &row.fields {
                    each(&Reading {
                        key,
                        unit: "",
                        doc: "",
                        graph: None,
                        kind: Kind::Gauge,
                        sample: count(*level),
                    });
                }
            };
            let mut point = Point { name, doc, tags: Tags::Owned(tags.iter()), evaluate };
            reporter.report(&mut point, time)
        };
        collect().into_iter().map(report_row).filter(Result::is_err).count() as u64
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, doc, tags, .. } = self;
        f.debug_struct("Rows")
            .field("name", name)
            .field("doc", doc)
            .field("tags", tags)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;
    use alloc::string::String;
    use alloc::vec;
    use uni_wire::control::{MetricTarget, Switch};

    fn lines(registry: &mut Registry) -> String {
        let mut lines = String::new();
        assert_eq!(registry.collect("v", Timestamp(9), |l| lines.push_str(&String::from_utf8_lossy(l))), 0);
        lines
    }

    #[test]
    fn each_row_is_a_point_and_the_tag_switches_them_all() {
        let mut registry = Registry::new();
        registry.register_rows(
            Rows::new("held", "by", || {
                let row = |label: &str, n| Row { label: label.into(), fields: vec![("n", n), ("m", 1)] };
                vec![row("a b", 1), row("c", 2)]
            })
            .doc("what is held"),
        );
        let both = "held,vm=v,by=a\\ b n=1i,m=1i 9\nheld,vm=v,by=c n=2i,m=1i 9\n";
        assert_eq!(lines(&mut registry), both);
        assert_eq!(registry.doc("held"), Some("what is held"));
        registry.set(MetricTarget::All, Switch::Off);
        assert_eq!(lines(&mut registry), "");
        registry.set(MetricTarget::Tag("by"), Switch::On);
        assert_eq!(lines(&mut registry), both);
    }
}
