//! Log sources, their levels, and counts of what was said.
//!
//! Owns the thresholds and the counters. Never writes anywhere: sinks (the console, a syslog queue) come from
//! outside and are called for what passes its source's threshold.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU8, Ordering};

use uni_wire::civil::Civil;
use uni_wire::control::{ControlError, LogItem, LogItems, LogLevel, LogTarget};

use crate::levels::Levels;
use crate::timeline::{Subject, Timeline, until};

/// One message on its way to the sinks.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its level; never `Quiet`.
    pub level: LogLevel,
    /// The name of its source.
    pub source: &'a str,
    /// The text.
    pub message: fmt::Arguments<'a>,
}

impl Record<'_> {
    /// Writes the message as MirageOS prints it: `TIME: [LEVEL] [source] text` and a newline. Control characters
    /// become spaces, so that no text can pass for a line of another source.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_console(&self, out: &mut dyn fmt::Write, unix_seconds: i64) -> fmt::Result {
        let time = Civil::from_unix_seconds(unix_seconds);
        let level = match self.level {
            LogLevel::Quiet | LogLevel::App => "",
            LogLevel::Error => "ERROR",
            LogLevel::Warning => "WARNING",
            LogLevel::Info => "INFO",
            LogLevel::Debug => "DEBUG",
        };
        let mut clean = OneLine(out);
        write!(clean, "{time}: [{level}] [{}] {}", self.source, self.message)?;
        out.write_char('\n')
    }
}

/// Keeps text on one line.
struct OneLine<'a>(&'a mut dyn fmt::Write);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (n, part) in text.split(char::is_control).enumerate() {
            if n > 0 {
                self.0.write_char(' ')?;
            }
            self.0.write_str(part)?;
        }
        Ok(())
    }
}

type SinkFn = Box<dyn FnMut(&Record<'_>)>;

/// How many messages were made of each level, whether shown or not. Since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Messages to the user.
    pub app: u64,
    /// Errors.
    pub errors: u64,
    /// Warnings.
    pub warnings: u64,
    /// Information.
    pub info: u64,
    /// Debugging.
    pub debug: u64,
    /// Messages that no sink saw because they were made while another was being written.
    pub nested_dropped: u64,
}

#[derive(Debug)]
struct LogSource {
    name: Box<str>,
    doc: Box<str>,
    level: SharedLevel,
}

/// A level that other threads may look at (see `bridge`).
#[derive(Clone, Debug)]
pub(crate) struct SharedLevel(Arc<AtomicU8>);

impl SharedLevel {
    pub(crate) fn new(level: LogLevel) -> Self {
        Self(Arc::new(AtomicU8::new(level as u8)))
    }

    pub(crate) fn get(&self) -> LogLevel {
        let level = usize::from(self.0.load(Ordering::Relaxed));
        LogLevel::ALL.get(level).copied().unwrap_or(LogLevel::Quiet)
    }

    fn set(&self, level: LogLevel) {
        self.0.store(level as u8, Ordering::Relaxed);
    }
}

struct Inner {
    default: SharedLevel,
    /// In the order of creation.
    sources: RefCell<Vec<Rc<LogSource>>>,
    /// What was said about levels, also of sources that do not exist yet.
    levels: RefCell<Timeline<Levels>>,
    sinks: RefCell<Vec<SinkFn>>,
    counts: Cell<LogCounts>,
}

/// All log sources of a program. Clones are the same.
#[derive(Clone)]
pub struct Logs(Rc<Inner>);

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs")
            .field("default", &self.0.default)
            .field("sources", &self.0.sources)
            .field("counts", &self.0.counts)
            .finish_non_exhaustive()
    }
}

/// The end of one source's log. Clones are the same source.
#[derive(Clone, Debug)]
pub struct Log {
    source: Rc<LogSource>,
    logs: Logs,
}

impl Default for Logs {
    fn default() -> Self {
        Self::new(LogLevel::Info)
    }
}

impl Logs {
    /// No sources, no sinks, and `default` as the level of sources to come.
    #[must_use]
    pub fn new(default: LogLevel) -> Self {
        Self(Rc::new(Inner {
            default: SharedLevel::new(default),
            sources: RefCell::default(),
            levels: RefCell::new(Timeline::new(Levels::new(default))),
            sinks: RefCell::default(),
            counts: Cell::default(),
        }))
    }

    /// Adds a sink. A sink must not add sinks, and what it logs itself is dropped and counted.
    pub fn add_sink(&self, sink: impl FnMut(&Record<'_>) + 'static) {
        if let Ok(mut sinks) = self.0.sinks.try_borrow_mut() {
            sinks.push(Box::new(sink));
        }
    }

    /// Adds a source and returns its end.
    #[must_use]
    pub fn source(&self, name: &str, doc: &str) -> Log {
        self.shared_source(name, doc, &SharedLevel::new(LogLevel::Quiet))
    }

    /// Adds a source whose level others look at; what it was does not matter.
    pub(crate) fn shared_source(&self, name: &str, doc: &str, level: &SharedLevel) -> Log {
        level.set(self.0.levels.borrow().now().of(name));
        let source = Rc::new(LogSource { name: name.into(), doc: doc.into(), level: level.clone() });
        self.0.sources.borrow_mut().push(Rc::clone(&source));
        Log { source, logs: self.clone() }
    }

    /// The level of sources that nothing else was said about.
    #[must_use]
    pub fn default_level(&self) -> LogLevel {
        self.0.default.get()
    }

    /// The same, for those that follow it.
    #[cfg(feature = "std")]
    pub(crate) fn shared_default(&self) -> SharedLevel {
        self.0.default.clone()
    }

    /// What was said so far.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        self.0.counts.get()
    }

    /// Calls `each` with name and level of every source, the newest first.
    pub fn for_each_level(&self, mut each: impl FnMut(&str, LogLevel)) {
        self.0.sources.borrow().iter().rev().for_each(|s| each(&s.name, s.level.get()));
    }

    /// Whether a source is called `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.sources.borrow().iter().any(|s| &*s.name == name)
    }

    /// What the source `name` is about.
    #[must_use]
    pub fn doc(&self, name: &str) -> Option<String> {
        self.0.sources.borrow().iter().rev().find(|s| &*s.name == name).map(|s| String::from(&*s.doc))
    }

    /// Executes an `L` command: first `*` (which resets every source), as said last, then sources in their order.
    /// What has a time limit ends with it: [`expire`](Self::expire).
    ///
    /// # Errors
    /// A source that does not exist, or too many time limits; then nothing has changed.
    pub fn apply<'a>(&self, items: &LogItems<'a>, now_ns: u64) -> Result<(), ControlError<'a>> {
        for item in items.limited() {
            if let LogTarget::Source(name) = item.target
                && !self.has(name)
            {
                return Err(ControlError::UnknownSource(name));
            }
        }
        self.apply_known(items, now_ns)
    }

    /// Takes the levels of `--logs`. Sources that do not exist yet get theirs when they are made.
    pub fn apply_at_boot(&self, items: &LogItems<'_>) {
        // Without time limits there are never too many.
        let _ = self.apply_known(items, 0);
    }

    /// When [`expire`](Self::expire) is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.0.levels.borrow().next_deadline()
    }

    /// Takes back what was said for a time that is over, as if it had never been said. Returns what is in force
    /// instead, in the words of a query's reply; nothing if nothing is over.
    pub fn expire(&self, now_ns: u64) -> Vec<String> {
        let over = self.0.levels.borrow_mut().expire(now_ns);
        self.spread();
        let levels = self.0.levels.borrow();
        let say = |subject: &Subject| match subject {
            Subject::Source(name) => format!("{name}:{}", levels.now().of(name).word()),
            Subject::All | Subject::Tag(_) => format!("*:{}", levels.now().default_level().word()),
        };
        over.iter().map(say).collect()
    }

    fn apply_known<'a>(&self, items: &LogItems<'a>, now_ns: u64) -> Result<(), ControlError<'a>> {
        let mut next = self.0.levels.borrow().clone();
        let items: Vec<LogItem<'a>> = items.limited().collect();
        let all = items.iter().rfind(|item| item.target == LogTarget::All);
        for item in all.into_iter().chain(items.iter().filter(|item| item.target != LogTarget::All)) {
            next.say(item.target.into(), item.level, until(now_ns, item.seconds));
        }
        self.0.levels.borrow_mut().replace(next)?;
        self.spread();
        Ok(())
    }

    /// Tells sources and their followers their levels.
    fn spread(&self) {
        let levels = self.0.levels.borrow();
        self.0.default.set(levels.now().default_level());
        self.0.sources.borrow().iter().for_each(|source| source.level.set(levels.now().of(&source.name)));
    }

    /// Counts messages that somebody else held back, whose level did not allow them.
    #[cfg(feature = "std")]
    pub(crate) fn count_hidden(&self, level: LogLevel, messages: u64) {
        self.count(level, messages);
    }

    fn count(&self, level: LogLevel, messages: u64) {
        let mut counts = self.0.counts.get();
        let place = match level {
            LogLevel::Quiet => return,
            LogLevel::App => &mut counts.app,
            LogLevel::Error => &mut counts.errors,
            LogLevel::Warning => &mut counts.warnings,
            LogLevel::Info => &mut counts.info,
            LogLevel::Debug => &mut counts.debug,
        };
        *place += messages;
        self.0.counts.set(counts);
    }

    fn show(&self, record: &Record<'_>) {
        if let Ok(mut sinks) = self.0.sinks.try_borrow_mut() {
            sinks.iter_mut().for_each(|sink| sink(record));
        } else {
            let mut counts = self.0.counts.get();
            counts.nested_dropped += 1;
            self.0.counts.set(counts);
        }
    }
}

impl Log {
    /// The source's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.source.name
    }

    /// Whether a message of `level` would be shown. For callers whose message is costly to make.
    #[must_use]
    pub fn shows(&self, level: LogLevel) -> bool {
        level != LogLevel::Quiet && level <= self.source.level.get()
    }

    /// Makes a message: it is counted, and shown if the source's level allows it.
    pub fn write(&self, level: LogLevel, message: fmt::Arguments<'_>) {
        self.logs.count(level, 1);
        if self.shows(level) {
            self.logs.show(&Record { level, source: &self.source.name, message });
        }
    }

    /// A message that was judged before it came here.
    #[cfg(feature = "std")]
    pub(crate) fn pass(&self, level: LogLevel, message: fmt::Arguments<'_>) {
        self.logs.count(level, 1);
        self.logs.show(&Record { level, source: &self.source.name, message });
    }

    /// A message to the user.
    pub fn app(&self, message: fmt::Arguments<'_>) {
        self.write(LogLevel::App, message);
    }

    /// An error.
    pub fn error(&self, message: fmt::Arguments<'_>) {
        self.write(LogLevel::Error, message);
    }

    /// A warning.
    pub fn warning(&self, message: fmt::Arguments<'_>) {
        self.write(LogLevel::Warning, message);
    }

    /// Information.
    pub fn info(&self, message: fmt::Arguments<'_>) {
        self.write(LogLevel::Info, message);
    }

    /// Something for debugging.
    pub fn debug(&self, message: fmt::Arguments<'_>) {
        self.write(LogLevel::Debug, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> LogItems<'_> {
        LogItems::parse(text).expect(text)
    }

    fn heard(logs: &Logs) -> Rc<RefCell<String>> {
        let heard = Rc::new(RefCell::new(String::new()));
        let ears = Rc::clone(&heard);
        logs.add_sink(move |record| record.write_console(&mut *ears.borrow_mut(), 0).expect("string"));
        heard
    }

    #[test]
    fn a_message_is_counted_even_when_it_is_not_shown() {
        let logs = Logs::new(LogLevel::Quiet);
        let log = logs.source("a", "");
        let heard = heard(&logs);
        log.error(format_args!("x"));
        log.warning(format_args!("x"));
        log.app(format_args!("x"));
        assert_eq!(*heard.borrow(), "");
        let counts = LogCounts { errors: 1, warnings: 1, app: 1, ..LogCounts::default() };
        assert_eq!(logs.counts(), counts);
    }

    #[test]
    fn the_console_shows_one_line_a_message() {
        let logs = Logs::default();
        let heard = heard(&logs);
        let log = logs.source("dns", "");
        log.info(format_args!("a\nb"));
        log.debug(format_args!("no"));
        assert_eq!(*heard.borrow(), "1970-01-01T00:00:00Z: [INFO] [dns] a b\n");
    }

    #[test]
    fn levels_of_the_command_line_wait_for_their_sources() {
        let logs = Logs::default();
        logs.apply_at_boot(&items("*:error,late:debug"));
        assert_eq!(logs.source("late", "").source.level.get(), LogLevel::Debug);
        assert_eq!(logs.source("other", "").source.level.get(), LogLevel::Error);
    }

    #[test]
    fn a_sink_that_logs_does_not_hang_or_panic() {
        let logs = Logs::default();
        let log = logs.source("a", "");
        let inner = log.clone();
        logs.add_sink(move |_| inner.info(format_args!("again")));
        log.info(format_args!("once"));
        assert_eq!(logs.counts().nested_dropped, 1);
    }

    #[test]
    fn an_unknown_source_changes_nothing() {
        let logs = Logs::default();
        let log = logs.source("a", "");
        assert_eq!(logs.apply(&items("a:debug,b:debug"), 0), Err(ControlError::UnknownSource("b")));
        assert_eq!(format!("{:?}", log.source.level.get()), "Info");
    }
}
