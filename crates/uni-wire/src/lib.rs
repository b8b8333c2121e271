//! Byte formats shared by guest and host, and the small common types that live beside them.
//!
//! What it owns: [`value`] (time stamps and field values), [`mod@line`] (Influx line protocol), [`control`] (the
//! commands of a guest's control port), [`syslog`] (messages of RFC 3164 and RFC 5424), [`memtrace`] (heap traces),
//! [`civil`] (calendar dates) and [`mod@slice`] (text into a fixed buffer). What it never does: I/O, clocks, allocation (but for the owned values
//! behind the feature `alloc`).
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod civil;
pub mod control;
pub mod line;
pub mod memtrace;
mod ocaml;
pub mod slice;
pub mod syslog;
pub mod value;

#[cfg(feature = "alloc")]
pub use value::FieldValue;
pub use value::{FieldType, Timestamp, Value};
