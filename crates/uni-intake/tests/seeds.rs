//! The seeds of the fuzz targets, replayed, and any bytes besides.

use std::path::Path;

use proptest::prelude::*;

mod properties;

/// Feeds every seed of a target, whole, cut short and with a byte changed, to what the target checks.
fn replay(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let files: Vec<_> = std::fs::read_dir(&dir).expect("seeds").collect();
    assert!(!files.is_empty());
    for file in files {
        let seed = std::fs::read(file.expect("seeds").path()).expect("a seed");
        check(&seed);
        for n in 0..seed.len() {
            check(&seed[..n]);
            let mut changed = seed.clone();
            changed[n] ^= 0x55;
            check(&changed);
        }
    }
}

#[test]
fn remote_write() {
    replay("remote_write", properties::check_remote_write);
}

#[test]
fn otlp() {
    replay("otlp", properties::check_otlp);
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        properties::check_remote_write(&bytes);
        properties::check_otlp(&bytes);
    }
}
