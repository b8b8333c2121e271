//! The contract between the daemon `unid`, the CLI `uni` and the page.
//!
//! Owns the shapes of requests and answers ([`vm`], [`guest`], [`heap_trace`], [`messages`], [`store`], [`daemon`], [`page`]), the JSON-RPC frames that carry
//! them over the control socket ([`rpc`]) and the defaults both ends must agree on ([`defaults`]).
//! Never does I/O and never decides anything.

pub mod daemon;
pub mod defaults;
pub mod guest;
pub mod heap_trace;
pub mod messages;
pub mod page;
pub mod rpc;
pub mod store;
pub mod vm;
