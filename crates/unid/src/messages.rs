//! `VM.Messages`: the syslog messages of a VM, from the store, a page at a time.
//!
//! Owns the filters, the order across series and the bounds of one answer. Never writes, and never sees a message before
//! the store has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::Semaphore;
use uni_api::messages::{Message, Messages, MessagesParams, Place};
use uni_store::{LogEntry, LogKind, LogPattern, LogSearch, Logs, Order};
use uni_wire::Timestamp;

use crate::clock;
use crate::ingest::Ingest;
use crate::log_points::SEVERITIES;
use crate::storage::Storage;
use crate::vms::Manager;

/// Messages in one answer, and bytes of them; who wants more asks for the next page.
const MAX_PAGE: usize = 1000;
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;
/// The longest `--tail`, and most messages of one moment that are told apart.
const MAX_TAIL: usize = 100_000;
/// Most words to look for, and the longest of them in bytes.
const MAX_WORDS: usize = 16;
const MAX_WORD_BYTES: usize = 1024;
/// Readings of the store at one time; more wait.
const MAX_READERS: usize = 4;
/// Most threads of one reading.
const MAX_THREADS: usize = 4;
/// A reading that takes longer is given up.
const READ_TIME: Duration = Duration::from_secs(20);
/// The longest wait for a message, and how often one is looked for.
const MAX_WAIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(250);

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
        let vm = if params.id.is_empty() { None } else { Some(self.manager.find(&params.id)) };
        let (id, name) = match &vm {
            None => (String::new(), None),
            Some(Ok(vm)) => (vm.id().to_owned(), Some(vm.name().to_owned())),
            // a host that is no VM may send all the same
            Some(Err(_)) if sends(self.storage.store().logs(), &params.id) => {
                (params.id.clone(), Some(params.id.clone()))
            }
            Some(Err(error)) => bail!("{error}"),
        };
        // asked before the messages are: what a VM said last is there once it is down
        let is_down = || matches!(&vm, Some(Ok(vm)) if vm.process().is_none());
        let Some(mut from) = params.arrived else {
            let (down, arrived) = (is_down(), self.ingest.recent_messages.next());
            let Page { messages, last, more } = self.read(name, &wanted).await?;
            let next = last.or(params.after);
            return Ok(Messages { id, messages, next, arrived, missed: 0, more, ended: down && !more });
        };
        let mut missed = 0;
        loop {
            let ended = is_down();
            let (arrived, next, gone) = self.ingest.recent_messages.from(from);
            (from, missed) = (next, missed + gone);
            let messages: Vec<_> = arrived
                .iter()
                .filter(|entry| wanted.has(entry, name.as_deref()))
                .map(|entry| message(entry))
                .collect();
            if !messages.is_empty() || ended || start.elapsed() >= wait {
                let next = params.after;
                return Ok(Messages { id, messages, next, arrived: from, missed, more: false, ended });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn read(&self, name: Option<String>, wanted: &Wanted) -> anyhow::Result<Page> {
        let slot = Arc::clone(&self.slots).acquire_owned().await?;
        let (storage, wanted) = (Arc::clone(&self.storage), wanted.clone());
        let reading = move || {
            let page = wanted.page(storage.store().logs(), name.as_deref());
            drop(slot);
            page
        };
        tokio::task::spawn_blocking(reading).await.context("read the messages")?
    }
}

/// Whether there are messages of `name`.
fn sends(logs: &Logs, name: &str) -> bool {
    logs.series().iter().any(|(_, series)| &*series.vm == name && series.kind == LogKind::Message)
}

/// Which messages are asked for.
#[derive(Clone, Debug)]
struct Wanted {
    from: Timestamp,
    to: Timestamp,
    /// Messages of the time `from` that were told already.
    told: usize,
    severity: u8,
    words: Vec<String>,
    pattern: Option<LogPattern>,
    tail: Option<usize>,
}

/// Some of the messages that are wanted.
#[derive(Debug, Default)]
struct Page {
    messages: Vec<Message>,
    /// Where the last of them stands.
    last: Option<Place>,
    more: bool,
}

impl Wanted {
    fn new(params: &MessagesParams, now: Timestamp) -> anyhow::Result<Self> {
        let ago = |ms: u64| {
            let nanos = i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
            Timestamp(now.nanos().saturating_sub(nanos))
        };
        let since = params.since_ms.map_or(Timestamp(i64::MIN), ago);
        let after = params.after.filter(|after| Timestamp(after.time) >= since);
        Ok(Self {
            from: after.map_or(since, |after| Timestamp(after.time)),
            to: params.until_ms.map_or(Timestamp(i64::MAX), ago),
            told: after.map_or(Ok(0), |after| told(after.nth))?,
            severity: severity(&params.level)?,
            words: words(&params.words)?,
            pattern: pattern(&params.grep)?,
            tail: params.tail.map(tail).transpose()?,
        })
    }

    /// Whether a message that has just come is of `vm` and passes the filters that are not about time.
    fn has(&self, entry: &LogEntry, vm: Option<&str>) -> bool {
        vm.is_none_or(|vm| vm == &*entry.vm)
            && entry.severity <= self.severity
            && self.words.iter().all(|word| entry.has_words(word))
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&entry.text))
    }

    /// The first messages, or those that `tail` asks for.
    fn page(&self, logs: &Logs, vm: Option<&str>) -> anyhow::Result<Page> {
        let deadline = Instant::now() + READ_TIME;
        let keep_going = || Instant::now() < deadline;
        let vm: Option<Vec<&str>> = vm.map(|vm| vec![vm]);
        let search = LogSearch {
            vms: vm.as_deref(),
            kind: Some(LogKind::Message),
            from: self.from,
            to: self.to,
            severity: self.severity,
            words: &self.words,
            pattern: self.pattern.as_ref(),
            threads: std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS),
            keep_going: &keep_going,
            ..LogSearch::default()
        };
        match self.tail {
            Some(0) => Ok(Page::default()),
            Some(messages) => {
                let (from, skip) = beginning_of_tail(logs, &search, messages)?;
                page_from(logs, &LogSearch { from, ..search }, skip)
            }
            None => page_from(logs, &search, self.told),
        }
    }
}

/// Where the last `messages` begin: a time, and how many messages of that time come before them.
fn beginning_of_tail(
    logs: &Logs,
    search: &LogSearch<'_>,
    messages: usize,
) -> anyhow::Result<(Timestamp, usize)> {
    let newest = LogSearch { order: Order::Newest, limit: messages, texts: false, ..*search };
    let (entries, more) = found(logs, &newest)?;
    let Some(first) = entries.last().filter(|_| more) else { return Ok((search.from, 0)) };
    let of_it = LogSearch { from: first.time, to: first.time, limit: MAX_TAIL, texts: false, ..*search };
    let kept = entries.iter().filter(|entry| entry.time == first.time).count();
    Ok((first.time, found(logs, &of_it)?.0.len().saturating_sub(kept)))
}

/// A page of messages, less the first `skip` ones of the time that the search begins with.
fn page_from(logs: &Logs, search: &LogSearch<'_>, skip: usize) -> anyhow::Result<Page> {
    let (entries, more) = found(logs, &LogSearch { limit: MAX_PAGE + skip, ..*search })?;
    let told = entries.iter().take(skip).take_while(|entry| entry.time == search.from).count();
    let mut page = Page { more, ..Page::default() };
    let (mut bytes, mut nth) = (0, told as u64);
    let mut time = search.from;
    for entry in entries.iter().skip(told) {
        bytes += entry.text.len() + entry.data.len();
        if bytes > MAX_PAGE_BYTES && !page.messages.is_empty() {
            page.more = true;
            break;
        }
        if entry.time != time {
            (time, nth) = (entry.time, 0);
        }
        page.last = Some(Place { time: time.nanos(), nth });
        nth += 1;
        page.messages.push(message(entry));
    }
    Ok(page)
}

/// What is found, and whether there is more of it.
fn found(logs: &Logs, search: &LogSearch<'_>) -> anyhow::Result<(Vec<LogEntry>, bool)> {
    let found = logs.search(search);
    if found.stopped {
        bail!("reading took longer than {} s; ask for less with --since", READ_TIME.as_secs());
    }
    found.fault.map_or(Ok(()), Err).context("read the messages from the store")?;
    Ok((found.entries, found.more))
}

/// How many messages of a time were told, the `nth` one (from 0) included.
fn told(nth: u64) -> anyhow::Result<usize> {
    let told = usize::try_from(nth)?.saturating_add(1);
    if told > MAX_TAIL {
        bail!("more than {MAX_TAIL} messages of one moment; ask for fewer with --level or --grep");
    }
    Ok(told)
}

/// The severity that `level` names; all where it is empty.
fn severity(level: &str) -> anyhow::Result<u8> {
    if level.is_empty() {
        return Ok(7);
    }
    let at = SEVERITIES.iter().position(|&severity| severity == level);
    at.and_then(|at| u8::try_from(at).ok())
        .with_context(|| format!("level {level:?}: write one of {}", SEVERITIES.join(", ")))
}

fn words(words: &[String]) -> anyhow::Result<Vec<String>> {
    if words.len() > MAX_WORDS || words.iter().any(|word| word.len() > MAX_WORD_BYTES) {
        bail!("at most {MAX_WORDS} words of {MAX_WORD_BYTES} bytes each are taken");
    }
    Ok(words.to_vec())
}

fn pattern(text: &str) -> anyhow::Result<Option<LogPattern>> {
    Ok(if text.is_empty() { None } else { Some(LogPattern::new(text)?) })
}

fn tail(messages: u32) -> anyhow::Result<usize> {
    let messages = usize::try_from(messages)?;
    if messages > MAX_TAIL {
        bail!("a tail of {messages} messages: at most {MAX_TAIL} are taken; leave it out to get all");
    }
    Ok(messages)
}

fn message(entry: &LogEntry) -> Message {
    Message {
        time: clock::rfc3339_millis(entry.time),
        time_ns: entry.time.nanos(),
        vm: entry.vm.to_string(),
        severity: SEVERITIES[usize::from(entry.severity) % SEVERITIES.len()].to_owned(),
        facility_code: entry.facility.into(),
        hostname: entry.host.to_string(),
        appname: entry.app.to_string(),
        procid: entry.process.to_string(),
        msgid: entry.id.to_string(),
        structured_data: entry.data.to_string(),
        message: entry.text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_means_itself_and_what_is_worse() {
        assert_eq!((severity("err").unwrap(), severity("").unwrap()), (3, 7));
        let refused = severity("loud").unwrap_err().to_string();
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
