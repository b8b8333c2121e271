//! The built `uni`: what it asks, what it prints, how it ends.

mod against_daemon;
mod daemon;
mod memtrace;
mod without_daemon;
