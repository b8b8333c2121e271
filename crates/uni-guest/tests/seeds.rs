//! The seeds of the fuzz target of the control session, replayed; and inputs like them.

use std::path::Path;

use proptest::prelude::*;

mod properties;

#[test]
fn control_sessions() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/control_session");
    let files: Vec<_> = std::fs::read_dir(&dir).expect("seeds").collect();
    assert!(!files.is_empty());
    for file in files {
        properties::check_session(&std::fs::read(file.expect("seeds").path()).expect("a seed"));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_session(
        bytes in "(([LM](\\*:|a:|src:b:|tag:t:|x:)?(debug|info|on|off)(@[0-9][smhx])?|[lm][*ab,]{0,3}|h|T [a-z]{0,3}|[ -~]{0,5})(,b:(on|app)(@2m)?)?[\n\u{0}]?){0,9}",
    ) {
        properties::check_session(bytes.as_bytes());
    }
}
