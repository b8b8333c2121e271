//! What the first version of the store wrote, for reading: a folder written by it opens like any other.
//!
//! Owns decoders of `docs/format/store-1.md`; nothing is written in these forms any more.

pub(crate) mod block;
pub(crate) mod column;
pub(crate) mod row;
