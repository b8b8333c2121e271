//! The seeds of the fuzz targets, which hold whatever fuzzing has found, go through the same checks with every test run:
//! as they are, cut off at every byte, and with every byte changed in some ways.

use std::path::Path;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("a folder of seeds").flatten() {
        let seed = std::fs::read(entry.path()).expect("a seed");
        check(&seed);
        for at in 0..seed.len() {
            check(&seed[..at]);
            for change in [0x01, 0x10, 0x80, 0xff] {
                let mut changed = seed.clone();
                changed[at] ^= change;
                check(&changed);
            }
        }
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}

#[test]
fn logs() {
    replay("store_log", uni_store::fuzz::check_log);
}

#[test]
fn blocks() {
    replay("store_block", uni_store::fuzz::check_block);
}

#[test]
fn notes() {
    replay("store_notes", uni_store::fuzz::check_notes);
}

#[test]
fn indexes() {
    replay("store_index", uni_store::fuzz::check_index);
}

#[test]
fn blocks_of_logs() {
    replay("store_logs", uni_store::fuzz::check_logs);
}
