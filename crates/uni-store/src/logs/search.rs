//! Finding entries by VM, time, severity, word, substring and pattern, on several threads.
//!
//! Owns the conditions and the order of the answer. Unpacks a block only if its index entry and its filter of words do
//! not rule it out, looks for the rarest condition in all texts of a block at once, and reads what belongs to a text only
//! where one is found.

use super::Logs;
use super::file::Scratch;
use super::filter;
use super::pattern::LogPattern;
use super::rows::Meta;
use super::units::{At, Unit, Wanted, units};
use crate::error::{FileError, ScanError};
use crate::logs::entry::{LogEntry, LogKind};
use memchr::memmem::Finder;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uni_wire::Timestamp;

/// Most bytes of entries that one answer holds; what goes past it is left to the next one.
const MAX_FOUND_BYTES: usize = 64 << 20;
/// Fewer places than this are not worth a thread.
const PLACES_OF_THREAD: usize = 4;

/// Which end of time an answer begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The oldest first.
    #[default]
    Oldest,
    /// The newest first.
    Newest,
}

/// What is looked for. All conditions have to hold.
#[derive(Clone, Copy)]
pub struct LogSearch<'a> {
    /// Of these VMs; `None` means of all, and nobody's.
    pub vms: Option<&'a [&'a str]>,
    /// Of this kind.
    pub kind: Option<LogKind>,
    /// From this time on.
    pub from: Timestamp,
    /// Up to this time, included.
    pub to: Timestamp,
    /// As bad as this or worse: 0 (emergency) to 7 (all).
    pub severity: u8,
    /// With all of these words, whole and in any case (of ASCII). A word is letters, digits, `_` and whatever is beyond
    /// ASCII; a text of several words stands for all of them.
    pub words: &'a [String],
    /// With this text in it, as it stands.
    pub contains: Option<&'a str>,
    /// With this pattern found in it.
    pub pattern: Option<&'a LogPattern>,
    /// Which end of time to begin with.
    pub order: Order,
    /// So many at most.
    pub limit: usize,
    /// Without it texts are empty in the answer.
    pub texts: bool,
    /// Threads that search; the caller's is one of them.
    pub threads: usize,
    /// Asked between blocks: whether to go on.
    pub keep_going: &'a (dyn Fn() -> bool + Sync),
}

impl std::fmt::Debug for LogSearch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogSearch")
            .field("vms", &self.vms)
            .field("words", &self.words)
            .finish_non_exhaustive()
    }
}

impl Default for LogSearch<'_> {
    /// Everything, the oldest first, a thousand.
    fn default() -> Self {
        Self {
            vms: None,
            kind: None,
            from: Timestamp(i64::MIN),
            to: Timestamp(i64::MAX),
            severity: 7,
            words: &[],
            contains: None,
            pattern: None,
            order: Order::Oldest,
            limit: 1000,
            texts: true,
            threads: 1,
            keep_going: &|| true,
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The entries in the order asked for; of the same time and VM as they came (or the other way round).
    pub entries: Vec<LogEntry>,
    /// There are more.
    pub more: bool,
    /// [`LogSearch::keep_going`] said no: some places were not looked at.
    pub stopped: bool,
    /// A place that could not be read; its entries are missing.
    pub fault: Option<ScanError>,
    /// Blocks and pieces that were unpacked, and those that filters of words ruled out.
    pub places_read: usize,
    /// See [`Found::places_read`].
    pub places_ruled_out: usize,
}

/// Where an entry stands: time, VM, place, row.
type Key = (i64, Arc<str>, u32, usize);

/// What is found so far.
#[derive(Debug, Default)]
struct Kept {
    entries: BTreeMap<Key, LogEntry>,
    bytes: usize,
    /// The first entry that found no room: none from it on is kept, so that what is kept has no gap.
    cut: Option<Key>,
    found: Found,
}

impl Logs {
    /// Looks for entries.
    pub fn search(&self, search: &LogSearch<'_>) -> Found {
        let search =
            &LogSearch { from: Timestamp(search.from.nanos().max(self.floor.load(Relaxed))), ..*search };
        let mut places = {
            let wanted = Wanted {
                vm: &|vm| search.vms.is_none_or(|vms| vms.contains(&vm)),
                from: search.from.nanos(),
                to: search.to.nanos(),
                series: &|kind, severity, _: &str| search.is_of(kind, severity),
            };
            units(&self.read_state(), &wanted)
        };
        match search.order {
            Order::Oldest => places.sort_by_key(|unit| unit.first),
            Order::Newest => places.sort_by_key(|unit| std::cmp::Reverse(unit.last)),
        }
        if search.limit == 0 {
            return Found { more: !places.is_empty(), ..Found::default() };
        }
        let threads = search.threads.clamp(1, places.len() / PLACES_OF_THREAD + 1);
        let conditions = Conditions::of(search);
        let run = Run {
            search,
            conditions: &conditions,
            places: &places,
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            kept: Mutex::default(),
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // where there is no thread to be had, the others do its work
                let _ =
                    std::thread::Builder::new().name("search".to_owned()).spawn_scoped(scope, || run.work());
            }
            run.work();
        });
        let Kept { entries, mut found, .. } = run.kept.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.stopped = run.stopped.into_inner();
        found.entries = match search.order {
            Order::Oldest => entries.into_values().collect(),
            Order::Newest => entries.into_values().rev().collect(),
        };
        self.counters.damaged_reads.fetch_add(u64::from(found.fault.is_some()), Relaxed);
        found
    }
}

impl LogSearch<'_> {
    fn is_of(&self, kind: LogKind, severity: u8) -> bool {
        severity <= self.severity && self.kind.is_none_or(|wanted| wanted == kind)
    }
}

/// What is looked for in texts, prepared.
struct Conditions<'a> {
    /// Hashes of words that a text has to have.
    hashes: Vec<u64>,
    /// Words in lower case, the longest first.
    words: Vec<Finder<'a>>,
    contains: Option<Finder<'a>>,
    pattern: Option<&'a LogPattern>,
}

/// The condition that is looked for in all texts at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    Contains,
    Word,
    Pattern,
    /// None: each row is looked at.
    Rows,
}

impl<'a> Conditions<'a> {
    fn of(search: &LogSearch<'a>) -> Self {
        let mut words: Vec<Vec<u8>> = search
            .words
            .iter()
            .flat_map(|words| filter::words(words.as_bytes()))
            .map(<[u8]>::to_ascii_lowercase)
            .collect();
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        let inner = search.contains.map_or(&b""[..], |text| inner_words(text.as_bytes()));
        Self {
            hashes: words.iter().map(Vec::as_slice).chain(filter::words(inner)).map(filter::hash).collect(),
            words: words.iter().map(|word| Finder::new(word).into_owned()).collect(),
            contains: search.contains.filter(|text| !text.is_empty()).map(Finder::new),
            pattern: search.pattern,
        }
    }

    fn driver(&self) -> Driver {
        if self.contains.is_some() {
            Driver::Contains
        } else if !self.words.is_empty() {
            Driver::Word
        } else if self.pattern.is_some_and(|pattern| pattern.many().is_some()) {
            Driver::Pattern
        } else {
            Driver::Rows
        }
    }

    /// The first place from `from` on where the driver's condition holds.
    fn next(&self, driver: Driver, text: &[u8], lower: &[u8], from: usize) -> Option<usize> {
        match driver {
            Driver::Contains => Some(from + self.contains.as_ref()?.find(text.get(from..)?)?),
            Driver::Word => find_word(self.words.first()?, lower, from),
            Driver::Pattern => {
                let pattern = self.pattern?.many()?;
                (from < text.len()).then(|| pattern.find_at(text, from))?.map(|found| found.start())
            }
            Driver::Rows => (from < text.len()).then_some(from),
        }
    }

    /// Whether all conditions hold for one text; `lower` is the same in lower case.
    fn hold(&self, driver: Driver, text: &[u8], lower: &[u8]) -> bool {
        self.words.iter().all(|word| find_word(word, lower, 0).is_some())
            && (driver == Driver::Contains
                || self.contains.as_ref().is_none_or(|part| part.find(text).is_some()))
            && (driver == Driver::Pattern && self.pattern.is_some_and(LogPattern::is_exact)
                || self
                    .pattern
                    .is_none_or(|pattern| std::str::from_utf8(text).is_ok_and(|text| pattern.is_match(text))))
    }
}

/// The part of a text between its first and its last byte that is of no word: words in there are whole.
fn inner_words(text: &[u8]) -> &[u8] {
    let outside = |byte: &u8| !filter::is_word(*byte);
    match (text.iter().position(outside), text.iter().rposition(outside)) {
        (Some(first), Some(last)) => &text[first..=last],
        _ => &[],
    }
}

/// Where a word stands alone.
fn find_word(word: &Finder<'_>, text: &[u8], mut from: usize) -> Option<usize> {
    let is_word =
        |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(|byte| filter::is_word(*byte));
    loop {
        let at = from + word.find(text.get(from..)?)?;
        if !is_word(at.checked_sub(1)) && !is_word(Some(at + word.needle().len())) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// One search at work.
struct Run<'a> {
    search: &'a LogSearch<'a>,
    conditions: &'a Conditions<'a>,
    /// Those that may have the first of what is wanted first.
    places: &'a [Unit],
    next: AtomicUsize,
    stopped: AtomicBool,
    kept: Mutex<Kept>,
}

/// Memory of one thread.
struct Worker {
    scratch: Scratch,
    lower: Vec<u8>,
}

impl Run<'_> {
    fn work(&self) {
        let scratch = match Scratch::new() {
            Ok(scratch) => scratch,
            Err(error) => {
                let fault = FileError::at("unpack", std::path::Path::new("blocks"))(error).into();
                self.lock().found.fault = Some(fault);
                return;
            }
        };
        let mut worker = Worker { scratch, lower: Vec::new() };
        while let Some(unit) = self.places.get(self.next.fetch_add(1, Relaxed)) {
            if !(self.search.keep_going)() {
                self.stopped.store(true, Relaxed);
                return;
            }
            let bound = self.bound();
            let best = if self.search.order == Order::Oldest { unit.first } else { unit.last };
            if self.is_past(best, bound) {
                // so are all that follow
                return;
            }
            match self.look(unit, bound, &mut worker) {
                Ok(entries) => self.keep(entries),
                Err(fault) => self.lock().found.fault = Some(fault),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of the first entry that found no room.
    fn bound(&self) -> Option<i64> {
        self.lock().cut.as_ref().map(|key| key.0)
    }

    fn is_past(&self, time: i64, bound: Option<i64>) -> bool {
        bound.is_some_and(|bound| match self.search.order {
            Order::Oldest => time > bound,
            Order::Newest => time < bound,
        })
    }

    fn keep(&self, entries: Vec<(Key, LogEntry)>) {
        let mut guard = self.lock();
        let kept = &mut *guard;
        for (key, entry) in entries {
            let is_cut = kept.cut.as_ref().is_some_and(|cut| match self.search.order {
                Order::Oldest => key > *cut,
                Order::Newest => key < *cut,
            });
            if is_cut {
                continue;
            }
            kept.bytes += bytes(&entry);
            kept.entries.insert(key, entry);
            while kept.entries.len() > self.search.limit
                || (kept.bytes > MAX_FOUND_BYTES && kept.entries.len() > 1)
            {
                let last = match self.search.order {
                    Order::Oldest => kept.entries.pop_last(),
                    Order::Newest => kept.entries.pop_first(),
                };
                let Some((key, entry)) = last else { break };
                kept.bytes -= bytes(&entry);
                kept.cut = Some(key);
                kept.found.more = true;
            }
        }
    }

    /// What a place has of what is wanted.
    fn look(
        &self,
        unit: &Unit,
        bound: Option<i64>,
        worker: &mut Worker,
    ) -> Result<Vec<(Key, LogEntry)>, ScanError> {
        match &unit.at {
            At::Memory(rows) => {
                self.lock().found.places_read += 1;
                self.in_texts(unit, &rows.text, &mut worker.lower, bound, || Ok(rows.meta.clone()))
            }
            At::Block(open, block) => {
                let (file, block) = (open.file(), open.block(*block));
                let Worker { scratch, lower } = worker;
                let fault = |error| open.fault(error);
                let reader = open.reader().map_err(fault)?;
                let may = file.may_have(reader, block, &self.conditions.hashes, scratch).map_err(fault)?;
                if !may {
                    self.lock().found.places_ruled_out += 1;
                    return Ok(Vec::new());
                }
                self.lock().found.places_read += 1;
                file.texts(reader, block, scratch).map_err(fault)?;
                let text = std::mem::take(&mut scratch.text);
                let found = self
                    .in_texts(unit, &text, lower, bound, || file.meta(reader, block, scratch).map_err(fault));
                scratch.text = text;
                found
            }
        }
    }

    /// Looks through the texts of a place; `meta` is read once something is found.
    fn in_texts(
        &self,
        unit: &Unit,
        text: &[u8],
        lower: &mut Vec<u8>,
        bound: Option<i64>,
        meta: impl FnOnce() -> Result<Meta, ScanError>,
    ) -> Result<Vec<(Key, LogEntry)>, ScanError> {
        let (conditions, driver) = (self.conditions, self.conditions.driver());
        lower.clear();
        if !conditions.words.is_empty() {
            lower.extend_from_slice(text);
            lower.make_ascii_lowercase();
        }
        let Some(mut place) = conditions.next(driver, text, lower, 0) else { return Ok(Vec::new()) };
        let meta = meta()?;
        let mut found = Vec::new();
        loop {
            let row = meta.row_at(place);
            let Some(at) = meta.rows.get(row) else { break };
            let (start, end) = (meta.text_start(row), at.text_end as usize);
            let origin = meta.origin(row);
            if (self.search.from.nanos()..=self.search.to.nanos()).contains(&at.time)
                && self.search.is_of(origin.kind, origin.severity)
                && !self.is_past(at.time, bound)
                && conditions.hold(
                    driver,
                    &text[start..end - 1],
                    lower.get(start..end - 1).unwrap_or_default(),
                )
            {
                let shown = if self.search.texts { &text[start..end - 1] } else { &[] };
                found.push((
                    (at.time, Arc::clone(&unit.vm), unit.rank, row),
                    meta.entry(&unit.vm, row, shown),
                ));
            }
            match conditions.next(driver, text, lower, end) {
                Some(next) => place = next,
                None => break,
            }
        }
        Ok(found)
    }
}

fn bytes(entry: &LogEntry) -> usize {
    size_of::<LogEntry>() + entry.text.len() + entry.data.len() + entry.process.len() + entry.id.len()
}
