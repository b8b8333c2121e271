//! The seeds of the fuzz target of queries, replayed.

use std::path::Path;

mod any_text;

#[test]
fn queries() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/influxql");
    let files: Vec<_> = std::fs::read_dir(&dir).expect("seeds").collect();
    assert!(!files.is_empty());
    for file in files {
        any_text::check_query(&std::fs::read(file.expect("seeds").path()).expect("a seed"));
    }
}
