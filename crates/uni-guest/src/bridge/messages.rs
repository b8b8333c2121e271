//! A logger for the crate `log` and a layer for `tracing`, whose messages end in [`Logs`].
//!
//! Owns the queue between the threads that log and the one that has the [`Logs`], and the level of each target, which
//! both sides see. Never writes a message itself; [`Pump::run`] gives it to the log sources.
//!
//! A target becomes a log source of that name, `::` written as `.`, so that it can be named in an `L` command. The
//! first message of a target is judged by the default level. `trace` counts as `debug`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{PoisonError, RwLock};

use tracing_core::field::{Field, Visit};
use tracing_core::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use uni_wire::control::LogLevel;

use crate::logs::{Log, Logs, SharedLevel};

/// Targets with a level of their own; those beyond are one source, [`OTHER`].
pub const MAX_TARGETS: usize = 256;
/// The source of targets beyond [`MAX_TARGETS`].
pub const OTHER: &str = "other";
/// Longest message; what is longer is cut.
pub const MAX_TEXT_BYTES: usize = 2048;

/// The end that libraries log to. Clones are the same.
///
/// ```
/// use uni_guest::{Logs, bridge::Messages};
/// let logs = Logs::default();
/// let (messages, mut pump) = Messages::new(&logs, 1024);
/// let _ = log::set_boxed_logger(Box::new(messages)).map(|()| log::set_max_level(log::LevelFilter::Trace));
/// log::warn!(target: "a::b", "careful");
/// pump.run();
/// assert!(logs.has("a.b"));
/// assert_eq!(logs.counts().warnings, 1);
/// ```
#[derive(Clone, Debug)]
pub struct Messages(Arc<Shared>);

struct Shared {
    targets: RwLock<HashMap<Box<str>, Arc<Target>>>,
    default: SharedLevel,
    to_pump: SyncSender<Message>,
    /// Called when a message waits.
    wake: Box<dyn Fn() + Send + Sync>,
    /// Messages that their level held back, by level.
    hidden: [AtomicU64; LogLevel::ALL.len()],
    dropped: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("targets", &self.targets)
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Target {
    name: Box<str>,
    level: SharedLevel,
}

#[derive(Debug)]
struct Message {
    target: Arc<Target>,
    level: LogLevel,
    text: String,
}

impl Messages {
    /// Both ends of a queue of at most `limit` messages.
    #[must_use]
    pub fn new(logs: &Logs, limit: usize) -> (Self, Pump) {
        Self::with_wake(logs, limit, || {})
    }

    /// The same. `wake` is called by whoever logs, when a message waits for the pump; it must be quick.
    #[must_use]
    pub fn with_wake(logs: &Logs, limit: usize, wake: impl Fn() + Send + Sync + 'static) -> (Self, Pump) {
        let (to_pump, from_threads) = sync_channel(limit);
        let shared = Arc::new(Shared {
            targets: RwLock::default(),
            default: logs.shared_default(),
            to_pump,
            wake: Box::new(wake),
            hidden: Default::default(),
            dropped: AtomicU64::new(0),
        });
        let pump = Pump {
            shared: Arc::clone(&shared),
            from_threads,
            limit,
            logs: logs.clone(),
            sources: HashMap::new(),
        };
        (Self(shared), pump)
    }

    /// Messages lost because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Sends a message if its target's level allows; `write` writes its text, and is not called otherwise.
    fn say(&self, target: &str, level: LogLevel, write: impl FnOnce(&mut Text)) {
        let target = self.0.target(target);
        if level > target.level.get() {
            if let Some(hidden) = self.0.hidden.get(level as usize) {
                hidden.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        let mut text = Text(String::new());
        write(&mut text);
        if self.0.to_pump.try_send(Message { target, level, text: text.0 }).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
        (self.0.wake)();
    }
}

impl Shared {
    fn target(&self, name: &str) -> Arc<Target> {
        let known = self.targets.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.unwrap_or_else(|| self.new_target(name))
    }

    fn new_target(&self, name: &str) -> Arc<Target> {
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        let name = if targets.len() < MAX_TARGETS { name } else { OTHER };
        let target = targets.entry(name.into()).or_insert_with(|| {
            let name = name.replace("::", ".").replace([',', ':'], "_");
            Arc::new(Target { name: name.into(), level: SharedLevel::new(self.default.get()) })
        });
        Arc::clone(target)
    }
}

/// A text of limited length.
struct Text(String);

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_TEXT_BYTES.saturating_sub(self.0.len());
        let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.0.push_str(text.get(..end).unwrap_or_default());
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The end that the thread with the [`Logs`] drives.
#[derive(Debug)]
pub struct Pump {
    shared: Arc<Shared>,
    from_threads: Receiver<Message>,
    limit: usize,
    logs: Logs,
    sources: HashMap<Box<str>, Log>,
}

impl Pump {
    /// Makes sources of new targets, and gives what waits to the sinks; at most as many messages as the queue holds,
    /// so that a sink that logs does not keep it busy for ever. Returns how many.
    pub fn run(&mut self) -> usize {
        self.adopt();
        for (level, hidden) in LogLevel::ALL.into_iter().zip(&self.shared.hidden) {
            self.logs.count_hidden(level, hidden.swap(0, Ordering::Relaxed));
        }
        let messages: Vec<Message> = self.from_threads.try_iter().take(self.limit.max(1)).collect();
        for message in &messages {
            let Message { target, level, text } = message;
            if !self.sources.contains_key(&target.name) {
                self.adopt();
            }
            if let Some(log) = self.sources.get(&target.name) {
                log.pass(*level, format_args!("{text}"));
            }
        }
        messages.len()
    }

    fn adopt(&mut self) {
        let targets = self.shared.targets.read().unwrap_or_else(PoisonError::into_inner);
        if targets.len() == self.sources.len() {
            return;
        }
        for target in targets.values() {
            let source = || self.logs.shared_source(&target.name, "messages of a library", &target.level);
            self.sources.entry(target.name.clone()).or_insert_with(source);
        }
    }
}

impl log::Log for Messages {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        level_of_log(metadata.level()) <= self.0.target(metadata.target()).level.get()
    }

    fn log(&self, record: &log::Record<'_>) {
        self.say(record.target(), level_of_log(record.level()), |text| {
            // Fails when the text is cut.
            let _ = text.write_fmt(*record.args());
        });
    }

    fn flush(&self) {}
}

const fn level_of_log(level: log::Level) -> LogLevel {
    match level {
        log::Level::Error => LogLevel::Error,
        log::Level::Warn => LogLevel::Warning,
        log::Level::Info => LogLevel::Info,
        log::Level::Debug | log::Level::Trace => LogLevel::Debug,
    }
}

impl<S: Subscriber> Layer<S> for Messages {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            tracing_core::Level::ERROR => LogLevel::Error,
            tracing_core::Level::WARN => LogLevel::Warning,
            tracing_core::Level::INFO => LogLevel::Info,
            _ => LogLevel::Debug,
        };
        self.say(metadata.target(), level, |text| event.record(&mut EventText(text)));
    }
}

/// The message of an event, and its fields as ` NAME=VALUE`.
struct EventText<'a>(&'a mut Text);

impl Visit for EventText<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Fails when the text is cut.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::rc::Rc;
    use core::cell::RefCell;
    use std::format;
    use std::thread;
    use tracing_subscriber::layer::SubscriberExt as _;
    use uni_wire::control::LogItems;

    fn heard(logs: &Logs) -> Rc<RefCell<Vec<String>>> {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let ears = Rc::clone(&heard);
        logs.add_sink(move |r| ears.borrow_mut().push(format!("{} {}", r.source, r.message)));
        heard
    }

    fn set(logs: &Logs, items: &str) {
        logs.apply(&LogItems::parse(items).expect(items), 0).expect(items);
    }

    fn log_to(messages: &Messages, target: &str, level: log::Level, text: &str) {
        let mut record = log::Record::builder();
        log::Log::log(messages, &record.target(target).level(level).args(format_args!("{text}")).build());
    }

    #[test]
    fn a_targets_level_changes_at_run_time_through_both() {
        let logs = Logs::default();
        let heard = heard(&logs);
        let (messages, mut pump) = Messages::new(&logs, 8);
        let mut round = || {
            log_to(&messages, "a::b", log::Level::Debug, "of log");
            let subscriber = tracing_subscriber::registry().with(messages.clone());
            tracing::subscriber::with_default(subscriber, || {
                tracing::debug!(target: "a::b", n = 1, "of tracing");
            });
            pump.run();
        };
        round();
        assert!(heard.borrow().is_empty());
        assert_eq!(logs.counts().debug, 2, "counted though not shown");
        set(&logs, "a.b:debug");
        round();
        assert_eq!(*heard.borrow(), ["a.b of log", "a.b of tracing n=1"]);
        set(&logs, "a.b:quiet");
        round();
        assert_eq!((heard.borrow().len(), logs.counts().debug), (2, 6));
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let logs = Logs::default();
        let heard = heard(&logs);
        let (messages, mut pump) = Messages::new(&logs, 2);
        thread::scope(|scope| {
            scope.spawn(|| (0..5).for_each(|_| log_to(&messages, "t", log::Level::Warn, "x")));
        });
        assert_eq!((pump.run(), messages.dropped(), heard.borrow().len()), (2, 3, 2));
    }

    #[test]
    fn targets_are_limited_and_long_texts_cut() {
        let logs = Logs::default();
        let heard = heard(&logs);
        let (messages, mut pump) = Messages::new(&logs, 2 * MAX_TARGETS);
        (0..MAX_TARGETS + 9).for_each(|n| log_to(&messages, &format!("t{n}"), log::Level::Error, "x"));
        log_to(&messages, "t0", log::Level::Error, &"é".repeat(MAX_TEXT_BYTES));
        pump.run();
        let mut sources = 0;
        logs.for_each_level(|_, _| sources += 1);
        assert_eq!(sources, MAX_TARGETS + 1);
        assert_eq!(heard.borrow().iter().filter(|line| line.starts_with(OTHER)).count(), 9);
        assert_eq!(heard.borrow().last().map(String::len), Some("t0 ".len() + MAX_TEXT_BYTES));
    }
}
