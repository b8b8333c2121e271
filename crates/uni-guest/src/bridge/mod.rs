//! Bridges from the crates `metrics`, `log` and `tracing`, for programs whose libraries use those.
//!
//! Owns the way over: from any thread, through bounded queues, to the one thread that has the
//! [`Registry`](crate::Registry) and the [`Logs`](crate::Logs). What comes over is turned on and off, and its level
//! set, like all else, at run time. Names, tag sets and waiting messages are limited; what is beyond is dropped and
//! counted.

pub mod messages;
pub mod recorder;

pub use messages::{Messages, Pump};
pub use recorder::Recorder;
