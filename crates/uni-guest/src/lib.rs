//! What a program under observation links.
//!
//! Owns the instruments ([`Counter`], [`Gauge`], [`Histogram`], [`Timer`]), the sources they make up
//! ([`source`](mod@source), [`metrics`], [`sources`], [`process`], [`machine`]), the reporters ([`report`], [`prometheus`], [`scrape`]), log
//! levels and counts ([`logs`]), the command line ([`args`]) and the agent that reports ([`agent`], [`control`],
//! [`syslog`], [`sink`]). All of it is sans-IO: a driver (the runtime of a unikernel, or a thread) hands in time,
//! bytes and random numbers, and carries bytes out. Never opens a socket, reads a clock or waits; with the feature
//! `std`, only `gnuplot` writes files.
//!
//! One `Logs` and one `Agent` live on one thread of execution; instruments may be used from anywhere. Recording,
//! logging and collecting do not panic; recording does not allocate or lock.
#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod agent;
pub mod args;
#[cfg(feature = "std")]
pub mod bridge;
pub mod control;
pub mod conversation;
pub mod counter;
pub mod gauge;
#[cfg(feature = "std")]
pub mod gnuplot;
pub mod heap;
pub mod histogram;
mod levels;
mod lines;
mod link;
pub mod logs;
pub mod machine;
pub mod metrics;
pub mod process;
pub mod prometheus;
pub mod report;
mod ring;
pub mod rows;
pub mod scrape;
pub mod sink;
pub mod source;
pub mod sources;
#[cfg(feature = "std")]
pub mod std_driver;
mod stripe;
mod switches;
pub mod syslog;
pub mod syslog_stream;
mod timeline;
pub mod timer;

pub use agent::{Action, Agent, AgentFigures, Config};
pub use args::{Arguments, ArgumentsError, OptionSpec};
pub use control::{Control, ControlProgress, ControlSession, Controlled, Token};
pub use counter::{Counter, Tally};
pub use gauge::{FloatGauge, Gauge};
pub use histogram::Histogram;
pub use logs::{Log, Logs, Record};
pub use metrics::{Fields, Periodic, Registry};
pub use report::Reporter;
pub use scrape::ScrapeSession;
pub use sink::SinkWatch;
pub use source::{Field, Graph, SOURCES, Source};
pub use syslog::SyslogQueue;
pub use syslog_stream::SyslogStream;
pub use timeline::MAX_CHANGES_KEPT;
pub use timer::Timer;
pub use uni_wire::control::LogLevel;

/// For [`source!`] only.
#[doc(hidden)]
pub use linkme;
