//! The seeds of the fuzz targets, replayed; and inputs like them.

use std::path::Path;

use proptest::prelude::*;

mod any_proc;
mod properties;

/// Feeds every seed of a target to what the target checks.
fn replay(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let files: Vec<_> = std::fs::read_dir(&dir).expect("seeds").collect();
    assert!(!files.is_empty());
    for file in files {
        check(&std::fs::read(file.expect("seeds").path()).expect("a seed"));
    }
}

#[test]
fn control_sessions() {
    replay("control_session", properties::check_session);
}

#[test]
fn files_of_the_kernel() {
    replay("guest_proc", any_proc::check_proc);
}

proptest! {
    #[test]
    fn any_bytes_are_a_session(
        bytes in "(([LM](\\*:|a:|src:b:|tag:t:|x:)?(debug|info|on|off)(@[0-9][smhx])?|[lm][*ab,]{0,3}|h|T [a-z]{0,3}|[ -~]{0,5})(,b:(on|app)(@2m)?)?[\n\u{0}]?){0,9}",
    ) {
        properties::check_session(bytes.as_bytes());
    }

    #[test]
    fn any_text_is_a_file_of_the_kernel(
        text in "((lo|e h|Tcp|RssAnon|VmHWM|7 \\(a\\) S|,=)?[: ]?((ActiveOpens|CurrEstab|[0-9]{1,20}|-1|[ -~]{0,3})[ \t]){0,24}[\n]?){0,6}",
    ) {
        any_proc::check_proc(text.as_bytes());
    }
}
