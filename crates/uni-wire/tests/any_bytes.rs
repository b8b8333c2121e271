//! The parsers on bytes that no one would send.

use proptest::prelude::*;

mod properties;

/// Bytes that come near being a line.
fn almost_a_line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[mé,= \\\\\"0-9.eiuTf\n\r#-]{0,40}".prop_map(String::into_bytes),
        "m(,[ab]=[^\u{0}]{1,3}){0,3} f=(1|-2\\.5e3|7i|8u|t|\"[^\"]{0,5}\")(,g=\"\\\\\\\\\\\\\"\")? [0-9]{1,19}"
            .prop_map(String::into_bytes),
        "(#|\t|\\\\|é){0,3}[ab\u{7}\\\\,= ]{1,6},t=[ab\u{7}\\\\]{1,4} [c\u{1}\\\\ ]{1,4}=1".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..60),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_a_line_or_a_fault(bytes in almost_a_line()) {
        properties::check_line(&bytes);
    }

    #[test]
    fn any_bytes_are_a_command_or_get_a_reply(
        bytes in prop_oneof![
            "[lmLM][*:,a-z\n]{0,30}".prop_map(String::into_bytes),
            "[LM]((\\*|src|tag|a):){0,2}(on|OFF|debug|quiet)(,b:(on|info)){0,2}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..60),
        ],
    ) {
        properties::check_control(&bytes);
    }
}
