//! Names for what a trace leaves unnamed.
//!
//! Owns when they are asked for: of a frame whose only name is its own address, as programs that link `uni-guest` write
//! it. Who knows them, the symbols of the traced program's file, comes from outside.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use uni_wire::memtrace::{Locate, Position};

/// Who knows what addresses are called.
#[derive(Clone)]
pub struct Names(Arc<Mutex<dyn Locate + Send>>);

impl Names {
    /// Asks `names`: outermost function first, innermost last; nothing is told of an address that is not known.
    #[must_use]
    pub fn new(names: impl Locate + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(names)))
    }

    /// Asks for the names of a frame, unless the trace has one.
    pub(crate) fn locate(&self, code: u64, told: &[Position<'_>], mut each: impl FnMut(Position<'_>)) {
        let is_bare = match told {
            [] => true,
            [only] => only.name == format!("{code:#x}").as_bytes(),
            _ => false,
        };
        if is_bare {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).locate(code, &mut each);
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}
