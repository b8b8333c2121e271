//! The seeds of the fuzz targets, replayed.

use std::path::{Path, PathBuf};

use uni_vmm::links::Links;
use uni_vmm::symbols::Symbols;

mod any_bytes;

fn seeds(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target)
}

/// Feeds every seed of a target to what the target checks.
fn replay(target: &str, check: fn(&[u8])) {
    let files: Vec<_> = std::fs::read_dir(seeds(target)).expect("seeds").collect();
    assert!(!files.is_empty());
    for file in files {
        check(&std::fs::read(file.expect("seeds").path()).expect("a seed"));
    }
}

#[test]
fn qemus_replies() {
    replay("qmp", any_bytes::check_reply);
}

#[test]
fn images_and_consoles() {
    replay("image", any_bytes::check_image);
    // one at least is good: the fuzzer has a way into the parser's depth
    let image = std::fs::read(seeds("image").join("elf_symbols")).expect("a seed");
    let symbols = Symbols::parse(&image, &image).expect("an image with symbols");
    assert_eq!(symbols.resolve(0x10_0004).first().map(|frame| frame.function.as_str()), Some("f"));
}

#[test]
fn blocks_of_counters() {
    replay("proc", any_bytes::check_links);
    let block = std::fs::read(seeds("proc").join("links")).expect("a seed");
    assert_eq!(Links::parse(&block).map(|links| links.generation), Some(7));
}
