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

    #[test]
    fn any_parts_are_written_as_one_line_or_none(bytes in prop_oneof![
        "[a-zé,= \\\\\"#\n\u{1f}]{0,40}".prop_map(String::into_bytes),
        "[a-z,]{1,4}\u{1f}[a-z=]{1,4}\u{1f}(?s).{0,6}\u{1f}(?s).{0,6}\u{1f}(?s).{0,9}\u{1f}-?[0-9.e]{1,6}"
            .prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..60),
    ]) {
        properties::check_emit(&bytes);
    }

    #[test]
    fn any_bytes_are_a_syslog_message(bytes in prop_oneof![
        "(<[0-9]{1,3}>)?((Jun|Feb|x) [ 0-9][0-9] [0-9:]{8}|[0-9T:.Z+-]{20,25})?:? ?[a-z.:\\[\\] -]{0,30}"
            .prop_map(String::into_bytes),
        "(-|2003-10-11T22:14:15(\\.[0-9]{1,9})?(Z|[+-][0-9:]{5})) ([a-z-]{1,3} ){4}(-|(\\[[a-z]{1,2}( [a-z=]{1,3}=\"[^\"]{0,4}\"){0,2}\\])) ?[^\u{0}]{0,9}"
            .prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..60),
    ]) {
        properties::check_rfc3164(&bytes);
        properties::check_rfc5424(&bytes);
        properties::check_syslog_emit(&bytes);
    }

    #[test]
    fn any_bytes_are_a_stream_of_messages(bytes in prop_oneof![
        "([0-9]{1,2} ?<?|<1>|[a\n\r\u{0}]){0,30}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..60),
    ]) {
        properties::check_framing(&bytes);
    }
}
