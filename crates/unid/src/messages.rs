//! `VM.Messages`: the syslog messages of a VM, from the store, a page at a time.
//!
//! Owns the filters, the order across series and the bounds of one answer. Never writes, and never sees a message before
//! the store has it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use regex::{Regex, RegexBuilder};
use tokio::sync::Semaphore;
use uni_api::messages::{Message, Messages, MessagesParams, Place};
use uni_query::{Series, Source as _, TagMatcher, TagOp};
use uni_store::Point;
use uni_wire::{FieldValue, Timestamp};

use crate::clock;
use crate::ingest::syslog::{MEASUREMENT, SEVERITIES};
use crate::ingest::{DEFAULT_DATABASE, Ingest};
use crate::storage::Storage;
use crate::vms::Manager;

/// Messages in one answer, and bytes of them; who wants more asks for the next page.
const MAX_PAGE: usize = 1000;
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;
/// The longest `--tail`.
const MAX_TAIL: usize = 100_000;
/// Most bytes a compiled pattern may take, and the longest text of one.
const MAX_COMPILED_BYTES: usize = 1 << 20;
const MAX_PATTERN_BYTES: usize = 4096;
/// Readings of the store at one time; more wait.
const MAX_READERS: usize = 4;
/// A reading that takes longer is given up.
const READ_TIME: Duration = Duration::from_secs(20);
/// The longest wait for a message, and how often one is looked for.
const MAX_WAIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(250);

/// Fields that the store is asked for.
const FIELDS: [&str; 6] = ["facility_code", "hostname", "message", "msgid", "procid", "structured_data"];
/// Where the text is among them.
const TEXT: usize = 2;

/// What reads messages.
#[derive(Debug)]
pub(crate) struct Reader {
    storage: Arc<Storage>,
    manager: Arc<Manager>,
    ingest: Arc<Ingest>,
    slots: Arc<Semaphore>,
}

impl Reader {
    /// A reader of what `storage` has of the VMs of `manager`.
    pub(crate) fn new(storage: Arc<Storage>, manager: Arc<Manager>, ingest: Arc<Ingest>) -> Self {
        Self { storage, manager, ingest, slots: Arc::new(Semaphore::new(MAX_READERS)) }
    }

    /// One page of messages, the oldest first; or those that arrived last, for which it waits if asked to.
    ///
    /// # Errors
    /// When nobody has that name, a filter is none, or the store cannot be read in time.
    pub(crate) async fn messages(&self, params: &MessagesParams) -> anyhow::Result<Messages> {
        let start = Instant::now();
        let wait = Duration::from_millis(params.wait_ms).min(MAX_WAIT);
        let wanted = Wanted::new(params, clock::now())?;
        let vm = self.manager.find(&params.id);
        let (id, name) = match &vm {
            Ok(vm) => (vm.id().to_owned(), vm.name().to_owned()),
            // a host that is no VM may send all the same
            Err(_) if !series(&self.storage, &params.id, &SEVERITIES).is_empty() => {
                (params.id.clone(), params.id.clone())
            }
            Err(error) => bail!("{error}"),
        };
        // asked before the messages are: what a VM said last is there once it is down
        let is_down = || vm.as_ref().is_ok_and(|vm| vm.process().is_none());
        let Some(mut from) = params.arrived else {
            let (down, arrived) = (is_down(), self.ingest.recent_messages.next());
            let Page { messages, last, more } = self.read(&name, &wanted).await?;
            let next = last.max(wanted.after);
            return Ok(Messages { id, messages, next, arrived, missed: 0, more, ended: down && !more });
        };
        let mut missed = 0;
        loop {
            let ended = is_down();
            let (arrived, next, gone) = self.ingest.recent_messages.from(from);
            (from, missed) = (next, missed + gone);
            let messages: Vec<_> = arrived
                .iter()
                .filter(|point| wanted.has(point, &name))
                .map(|point| of_point(point))
                .collect();
            if !messages.is_empty() || ended || start.elapsed() >= wait {
                let next = params.after;
                return Ok(Messages { id, messages, next, arrived: from, missed, more: false, ended });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn read(&self, name: &str, wanted: &Wanted) -> anyhow::Result<Page> {
        let slot = Arc::clone(&self.slots).acquire_owned().await?;
        let (storage, name, wanted) = (Arc::clone(&self.storage), name.to_owned(), wanted.clone());
        let reading = move || {
            let page = page(&storage, &name, &wanted);
            drop(slot);
            page
        };
        tokio::task::spawn_blocking(reading).await.context("read the messages")?
    }
}

/// Which messages are asked for.
#[derive(Clone, Debug)]
struct Wanted {
    /// Only messages after this place.
    after: Option<Place>,
    severities: &'static [&'static str],
    pattern: Option<Regex>,
    tail: Option<usize>,
}

impl Wanted {
    fn new(params: &MessagesParams, now: Timestamp) -> anyhow::Result<Self> {
        let since = params.since_ms.map(|ms| {
            let nanos = i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
            Place { time: now.nanos().saturating_sub(nanos), series: 0 }
        });
        Ok(Self {
            after: since.max(params.after),
            severities: at_least(&params.level)?,
            pattern: pattern(&params.grep)?,
            tail: params.tail.map(tail).transpose()?,
        })
    }

    /// Whether a message is of `vm` and passes the filters that are not about time.
    fn has(&self, point: &Point, vm: &str) -> bool {
        let tag = |key| of(&point.tags, key).map_or("", |value| &**value);
        let text = of(&point.fields, "message").map_or("", as_text);
        tag("vm") == vm && self.severities.contains(&tag("severity")) && self.has_text(text)
    }

    fn has_text(&self, text: &str) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
    }

    /// The earliest time that a message may have.
    fn from(&self) -> Timestamp {
        Timestamp(self.after.map_or(i64::MIN, |place| place.time))
    }
}

/// The severities that are as bad as `level`, or worse.
fn at_least(level: &str) -> anyhow::Result<&'static [&'static str]> {
    if level.is_empty() {
        return Ok(&SEVERITIES);
    }
    let at = SEVERITIES.iter().position(|&severity| severity == level);
    at.and_then(|at| SEVERITIES.get(..=at))
        .with_context(|| format!("level {level:?}: write one of {}", SEVERITIES.join(", ")))
}

fn pattern(text: &str) -> anyhow::Result<Option<Regex>> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_PATTERN_BYTES {
        bail!("the pattern has {} bytes; at most {MAX_PATTERN_BYTES} are taken", text.len());
    }
    let pattern = RegexBuilder::new(text).size_limit(MAX_COMPILED_BYTES).build();
    pattern.map(Some).with_context(|| format!("the pattern {text:?} cannot be used"))
}

fn tail(messages: u32) -> anyhow::Result<usize> {
    let messages = usize::try_from(messages)?;
    if messages > MAX_TAIL {
        bail!("a tail of {messages} messages: at most {MAX_TAIL} are taken; leave it out to get all");
    }
    Ok(messages)
}

/// Some of the messages that are wanted.
#[derive(Debug, Default)]
struct Page {
    messages: Vec<Message>,
    /// Up to here all was looked at.
    last: Option<Place>,
    more: bool,
}

/// The series that have messages of `name` of these severities.
fn series(storage: &Storage, name: &str, severities: &[&str]) -> Vec<Series> {
    let vm = TagMatcher { key: "vm".to_owned(), op: TagOp::Equal, value: name.to_owned() };
    let mut found = storage.series(DEFAULT_DATABASE, MEASUREMENT, &[vm]);
    found.retain(|series| tag(series, "vm") == name && severities.contains(&tag(series, "severity")));
    found
}

fn tag<'a>(series: &'a Series, key: &str) -> &'a str {
    series.tags.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
}

fn page(storage: &Storage, name: &str, wanted: &Wanted) -> anyhow::Result<Page> {
    let all = series(storage, name, wanted.severities);
    let deadline = Instant::now() + READ_TIME;
    let mut scan = Scan { storage, wanted, all: &all, deadline, last: None };
    let first = match wanted.tail {
        Some(messages) => scan.newest(messages)?,
        None => None,
    };
    if wanted.tail == Some(0) {
        return Ok(Page { last: scan.last, ..Page::default() });
    }
    scan.page_from(first)
}

/// Gets each wanted row; says whether it wants more.
type Each<'a> = dyn FnMut(Place, &[Option<FieldValue>]) -> ControlFlow<()> + 'a;

/// One walk over the series of a VM.
struct Scan<'a> {
    storage: &'a Storage,
    wanted: &'a Wanted,
    all: &'a [Series],
    deadline: Instant,
    /// The last place looked at, wanted or not.
    last: Option<Place>,
}

impl Scan<'_> {
    /// The place of the message that so many, itself included, come from on; of the first if there are fewer.
    fn newest(&mut self, messages: usize) -> anyhow::Result<Option<Place>> {
        let mut kept: BinaryHeap<Reverse<Place>> = BinaryHeap::new();
        for series in self.all {
            self.visit(series, self.wanted.from(), &mut |place, _| {
                kept.push(Reverse(place));
                if kept.len() > messages {
                    kept.pop();
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(kept.peek().map(|place| place.0))
    }

    /// The first messages, `first` included.
    fn page_from(&mut self, first: Option<Place>) -> anyhow::Result<Page> {
        let mut kept: BinaryHeap<Found> = BinaryHeap::new();
        let mut more = false;
        let from = first.map_or_else(|| self.wanted.from(), |place| Timestamp(place.time));
        for series in self.all {
            self.visit(series, from, &mut |place, values| {
                if first.is_some_and(|first| place < first) {
                    return ControlFlow::Continue(());
                }
                kept.push(Found { place, message: of_row(series, place, values) });
                if kept.len() <= MAX_PAGE {
                    return ControlFlow::Continue(());
                }
                more = true;
                // what follows in this series is later still
                if kept.pop().is_some_and(|last| last.place == place) {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
        }
        let mut page = Page { more, ..Page::default() };
        let mut told = None;
        let mut bytes = 0;
        for found in kept.into_sorted_vec() {
            bytes += found.message.message.len() + found.message.structured_data.len();
            if bytes > MAX_PAGE_BYTES && !page.messages.is_empty() {
                page.more = true;
                break;
            }
            told = Some(found.place);
            page.messages.push(found.message);
        }
        page.last = if page.more { told } else { self.last };
        Ok(page)
    }

    /// The rows of a series that are wanted, by time.
    fn visit(&mut self, series: &Series, from: Timestamp, each: &mut Each<'_>) -> anyhow::Result<()> {
        let mut late = false;
        let mut seen = self.last;
        let mut visit = |time: Timestamp, values: &[Option<FieldValue>]| {
            if Instant::now() > self.deadline {
                late = true;
                return ControlFlow::Break(());
            }
            let place = Place { time: time.nanos(), series: series.id };
            seen = seen.max(Some(place));
            let matches = || self.wanted.has_text(values[TEXT].as_ref().map_or("", as_text));
            if self.wanted.after.is_some_and(|after| place <= after) || !matches() {
                return ControlFlow::Continue(());
            }
            each(place, values)
        };
        let to = Timestamp(i64::MAX);
        self.storage
            .scan(DEFAULT_DATABASE, series.id, &FIELDS, from, to, &mut visit)
            .context("read the messages from the store")?;
        self.last = seen;
        if late {
            bail!("reading took longer than {} s; ask for less with --since", READ_TIME.as_secs());
        }
        Ok(())
    }
}

/// A message and where it stands, which alone is compared.
struct Found {
    place: Place,
    message: Message,
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Found {}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

fn of<'a, V>(pairs: &'a [(Box<str>, V)], key: &str) -> Option<&'a V> {
    pairs.iter().find(|(name, _)| &**name == key).map(|(_, value)| value)
}

fn as_text(value: &FieldValue) -> &str {
    if let FieldValue::String(text) = value { text } else { "" }
}

fn of_point(point: &Point) -> Message {
    let tag = |key: &str| of(&point.tags, key).map_or("", |value| &**value);
    message(point.time, tag, |key| of(&point.fields, key))
}

fn of_row(series: &Series, place: Place, values: &[Option<FieldValue>]) -> Message {
    let field = |key: &str| values.get(FIELDS.iter().position(|&name| name == key)?)?.as_ref();
    message(Timestamp(place.time), |key| tag(series, key), field)
}

fn message<'a>(
    time: Timestamp,
    tag: impl Fn(&str) -> &'a str,
    field: impl Fn(&str) -> Option<&'a FieldValue>,
) -> Message {
    let text = |key| field(key).map_or("", as_text).to_owned();
    Message {
        time: clock::rfc3339_millis(time),
        time_ns: time.nanos(),
        severity: tag("severity").to_owned(),
        facility_code: match field("facility_code") {
            Some(FieldValue::Integer(code)) => *code,
            _ => 0,
        },
        hostname: text("hostname"),
        appname: tag("appname").to_owned(),
        procid: text("procid"),
        msgid: text("msgid"),
        structured_data: text("structured_data"),
        message: text("message"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_means_itself_and_what_is_worse() {
        assert_eq!(at_least("err").unwrap(), ["emerg", "alert", "crit", "err"]);
        assert_eq!(at_least("").unwrap(), SEVERITIES);
        let refused = at_least("loud").unwrap_err().to_string();
        assert!(refused.contains("loud") && refused.contains("warning"), "{refused}");
    }

    #[test]
    fn patterns_that_are_none_or_too_large_are_refused() {
        for bad in ["(", &"x".repeat(5000), r"(\pL{1000}){100}"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
        assert!(pattern("no (answer|name)").unwrap().is_some());
    }
}
