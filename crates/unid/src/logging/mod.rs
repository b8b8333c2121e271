//! The daemon's log on stderr, as text or as JSON lines.
//!
//! Owns what becomes of an event: whether it is shown ([`level`]), its form ([`mod@line`]), its way out ([`writer`]);
//! panics too end here. Never decides what is logged, and never waits for whoever reads stderr.

mod level;
mod line;
mod writer;

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::Value;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::{Layer, Registry, reload};

use self::line::Fields;
use self::writer::Writer;
use crate::config::LogFormat;

pub(crate) use self::level::Levels;

/// The lines of a panic or of the daemon's end may take this long to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The log of this process.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    format: LogFormat,
    writer: Arc<Writer>,
    levels: Arc<Mutex<Levels>>,
    filter: reload::Handle<Targets, Registry>,
}

impl Log {
    /// Installs the log for the whole process, panics included.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub(crate) fn install(format: LogFormat, levels: Levels) -> anyhow::Result<Self> {
        // of its own: whoever writes to std's stderr would wait for its lock while the reader of ours sleeps
        let stderr = io::stderr().as_fd().try_clone_to_owned().context("duplicate stderr for the log")?;
        let (log, filter) = Self::new(format, levels, File::from(stderr))?;
        let subscriber = Registry::default().with(filter).with(Lines(log.clone()));
        tracing::subscriber::set_global_default(subscriber).context("install the log")?;
        let panics = log.clone();
        std::panic::set_hook(Box::new(move |panic| panics.panicked(panic)));
        Ok(log)
    }

    fn new(
        format: LogFormat,
        levels: Levels,
        out: impl io::Write + Send + 'static,
    ) -> anyhow::Result<(Self, reload::Layer<Targets, Registry>)> {
        let (layer, filter) = reload::Layer::new(levels.filter());
        let lost = move |lines: u64| {
            let mut fields = Fields::default();
            fields.push("lines", Value::from(lines));
            line::compose(format, Timestamp::now(), Level::WARN, "log lines were dropped", &fields)
        };
        let writer = Arc::new(Writer::start(out, lost).context("start the log's thread")?);
        Ok((Self { format, writer, levels: Arc::new(Mutex::new(levels)), filter }, layer))
    }

    /// Writes a line whatever the levels are.
    pub(crate) fn say(&self, level: Level, message: &str, fields: &[(&'static str, Value)]) {
        let mut all = Fields::default();
        fields.iter().for_each(|(key, value)| all.push(key, value.clone()));
        self.write(level, message, &all);
    }

    fn write(&self, level: Level, message: &str, fields: &Fields) {
        self.writer.write(line::compose(self.format, Timestamp::now(), level, message, fields));
    }

    /// Writes why the daemon cannot start or had to end.
    pub(crate) fn failed(&self, error: &anyhow::Error) {
        match self.format {
            LogFormat::Text => self.writer.write(format!("unid: {error:#}\n")),
            LogFormat::Json => {
                self.say(Level::ERROR, "start", &[("err", Value::from(format!("{error:#}")))]);
            }
        }
    }

    /// Tells where a listener is, so that scripts and people learn the free ports.
    pub(crate) fn listening(&self, what: &str, address: &str) {
        if self.format == LogFormat::Text {
            self.writer.write(format!("listening {what} {address}\n"));
            return;
        }
        match what {
            "control" => tracing::info!(what, socket = address, "listening"),
            "metrics" => tracing::info!(addr = address, "metrics server listening"),
            "ui" => tracing::info!(addr = address, "dashboard server listening"),
            _ => tracing::info!(what, addr = address, "listening"),
        }
    }

    /// What the log shows.
    pub(crate) fn levels(&self) -> String {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner).to_string()
    }

    /// Changes what the log shows, from now on.
    ///
    /// # Errors
    /// Names the part of `spec` that is no level; nothing is changed then.
    pub(crate) fn set_levels(&self, spec: &str) -> anyhow::Result<()> {
        let wanted: Levels = spec.parse()?;
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter.reload(wanted.filter()).context("change the log's levels")?;
        let (from, to) = (Value::from(levels.to_string()), Value::from(wanted.to_string()));
        *levels = wanted;
        // whatever the new levels are, the log tells why it changes
        self.say(Level::INFO, "log level changed", &[("from", from), ("to", to)]);
        Ok(())
    }

    /// Lines that nobody took in time.
    pub(crate) fn dropped_lines(&self) -> u64 {
        self.writer.dropped()
    }

    /// Waits for the last lines to be written, for a moment.
    pub(crate) fn flush(&self) {
        self.writer.flush(LAST_LINES);
    }

    /// A panic of any thread is one line; backtraces are a debugger's business.
    fn panicked(&self, panic: &PanicHookInfo<'_>) {
        let thread = std::thread::current();
        let fields = [
            ("err", Value::from(panic.payload_as_str().unwrap_or("a panic without a message"))),
            ("thread", Value::from(thread.name().unwrap_or("unnamed"))),
            ("location", Value::from(panic.location().map(ToString::to_string))),
        ];
        self.say(Level::ERROR, "panic", &fields);
        // the process may be about to end
        self.flush();
    }
}

/// Turns events into lines.
struct Lines(Log);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = std::mem::take(&mut fields.message);
        self.0.write(*event.metadata().level(), &message, &fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, seen from outside.
    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Out {
        fn lines(&self) -> Vec<Value> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    fn log() -> (Out, Log, reload::Layer<Targets, Registry>) {
        let out = Out::default();
        let (log, filter) = Log::new(LogFormat::Json, Levels::default(), out.clone()).unwrap();
        (out, log, filter)
    }

    #[test]
    fn a_panic_of_any_thread_is_one_line() {
        let (out, log, _filter) = log();
        let before = std::panic::take_hook();
        let panics = log.clone();
        std::panic::set_hook(Box::new(move |panic| panics.panicked(panic)));
        let thread = std::thread::Builder::new().name("worker".to_owned());
        let ended = thread.spawn(|| panic!("no {} left\nat all", "bytes")).unwrap().join();
        std::panic::set_hook(before);
        assert!(ended.is_err());
        let [line] = &out.lines()[..] else { panic!("{:?}", out.lines()) };
        assert_eq!(
            (&line["level"], &line["msg"], &line["thread"]),
            (&"ERROR".into(), &"panic".into(), &"worker".into())
        );
        assert_eq!(line["err"], "no bytes left\nat all");
        assert!(line["location"].as_str().unwrap().contains(file!()), "{line}");
    }

    #[test]
    fn levels_change_by_target_while_the_log_is_in_use() {
        let (out, log, filter) = log();
        let subscriber = Registry::default().with(filter).with(Lines(log.clone()));
        tracing::subscriber::with_default(subscriber, || {
            for spec in ["info", "warn,unid::vms=debug", "off"] {
                log.set_levels(spec).unwrap();
                tracing::debug!(target: "unid::vms::vm", "vms debug");
                tracing::debug!(target: "unid::ingest", "ingest debug");
                tracing::info!(target: "unid::ingest", "ingest info");
            }
        });
        assert!(log.set_levels("unid::vms=loud").is_err());
        assert_eq!(log.levels(), "off");
        log.flush();
        let messages: Vec<_> =
            out.lines().iter().map(|line| line["msg"].as_str().unwrap().to_owned()).collect();
        let change = "log level changed";
        assert_eq!(messages, [change, "ingest info", change, "vms debug", change]);
    }

    #[test]
    fn why_the_daemon_does_not_start_is_told_whatever_the_level_is() {
        let (out, log, _filter) = log();
        log.set_levels("off").unwrap();
        log.failed(&anyhow::anyhow!("no room").context("open the store"));
        log.flush();
        let last = out.lines().pop().unwrap();
        assert_eq!(
            (&last["level"], &last["msg"], &last["err"]),
            (&"ERROR".into(), &"start".into(), &"open the store: no room".into())
        );
    }
}
