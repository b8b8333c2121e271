//! What a program under observation links.
//!
//! Owns the instruments ([`counter`], [`metrics`], [`sources`]), log levels and counts ([`logs`]), the command line
//! ([`args`]) and the agent that reports ([`agent`], [`control`], [`syslog`], [`sink`]). All of it is sans-IO: a driver (the
//! runtime of a unikernel, or a thread) hands in time, bytes and random numbers, and carries bytes out. Never opens
//! a socket, reads a clock or waits.
//!
//! One `Logs` and one `Agent` live on one thread of execution; a [`Counter`] may be counted from
//! anywhere. Counting, logging and collecting do not panic; counting does not allocate.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod agent;
pub mod args;
pub mod control;
pub mod counter;
mod link;
pub mod logs;
pub mod metrics;
mod ring;
pub mod sink;
pub mod sources;
pub mod syslog;

pub use agent::{Action, Agent, Config};
pub use args::{Arguments, ArgumentsError, OptionSpec};
pub use control::{Control, ControlProgress, ControlSession, Controlled, Token};
pub use counter::Counter;
pub use logs::{Log, Logs, Record};
pub use metrics::{Fields, Registry, Source};
pub use sink::SinkWatch;
pub use syslog::SyslogQueue;
pub use uni_wire::control::LogLevel;
