//! Any text through the InfluxQL parser and engine, on an empty source: an answer or an error, never a panic.
#![no_main]

use uni_query::memory::MemorySource;
use uni_query::{Limits, Request, Timestamp};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let limits = Limits::default();
    let request = Request { text, db: Some("uni"), now: Timestamp(0), limits, read_only: true };
    if let Ok(response) = uni_query::execute(&MemorySource::new(), &request) {
        let _ = response.to_json(None, false);
    }
});
