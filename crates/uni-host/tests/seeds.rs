//! The seeds of the fuzz target of the kernel's files, replayed.

use std::path::Path;

mod any_bytes;

#[test]
fn files_about_a_process() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/proc");
    let files: Vec<_> = std::fs::read_dir(&dir).expect("seeds").collect();
    assert!(!files.is_empty());
    for file in files {
        any_bytes::check_proc(&std::fs::read(file.expect("seeds").path()).expect("a seed"));
    }
}
