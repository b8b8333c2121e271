//! What leaves the daemon on its own: measurements, sent on to somebody else's collector.
//!
//! Owns one module for each kind of collector, and what they share: the bounded buffer and the waits between tries.
//! Forwarders are given copies and never hold up the sampler, the store or a VM.

mod backoff;
mod buffer;
pub(crate) mod influx;
