//! The view from outside: what Linux says about a VM's process and links.
//!
//! Owns the parsers of `/proc` ([`proc`]), the reader of one process ([`sampler`]), its result ([`sample`]),
//! the rates between two results ([`rates`]), what stands in where nothing can be read ([`source`]), the points made of them ([`points`]), and the counters of the
//! host's own network links ([`netlink`]). Never reads a clock (the time is passed in), never decides when to
//! sample, never talks to a hypervisor, never stores anything.

mod cpu;
pub mod netlink;
pub mod points;
pub mod proc;
pub mod rates;
pub mod sample;
pub mod sampler;
pub mod source;
mod threads;

pub use netlink::{HostLink, LinkTable};
pub use points::LinkCounters;
pub use rates::Rates;
pub use sample::{ContextSwitches, Machine, ProcessSample};
pub use sampler::{ProcessSampler, SampleError};
pub use source::{Fallback, Proc, StatsSource, Told, Usage};
