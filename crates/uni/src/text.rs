//! Text from guests and files, made harmless for a terminal and for one line of a table.
//!
//! Owns the escaping. Never changes what goes to a file or a pipe.

/// The text with control characters shown instead of obeyed: ESC as `^[`, U+009B as `<U+009B>`. Line ends and
/// tabs stay; carriage returns, which serial consoles send before each line end, are left out.
pub(crate) fn harmless(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// The same for a cell of a table: not even line ends and tabs stay.
pub(crate) fn one_line(text: &str) -> String {
    escaped(text, |_| false)
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if keep(c) => out.push(c),
            '\r' => {}
            '\0'..='\x1f' | '\x7f' => out.extend(['^', caret(c)]),
            _ if c.is_control() || reorders(c) => out.push_str(&format!("<U+{:04X}>", u32::from(c))),
            _ => out.push(c),
        }
    }
    out
}

/// `^[` for ESC, `^?` for DEL: the letter of the key that makes it.
fn caret(control: char) -> char {
    char::from_u32(u32::from(control) ^ 0x40).unwrap_or('?')
}

/// Characters that make later text appear before earlier text.
const fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The end of the text that has at most so many lines; a last line without an end counts.
pub(crate) fn last_lines(text: &str, lines: usize) -> &str {
    if lines == 0 {
        return "";
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    match body.rmatch_indices('\n').nth(lines - 1) {
        Some((at, _)) => &text[at + 1..],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escape_sequences_are_shown_not_obeyed() {
        assert_eq!(harmless("a\x1b[31mred\x1b]0;title\x07\r\n\tb\x7f\0"), "a^[[31mred^[]0;title^G\n\tb^?^@");
        assert_eq!(harmless("\u{9b}2J \u{202e}abc é 漢"), "<U+009B>2J <U+202E>abc é 漢");
    }

    #[test]
    fn a_cell_stays_on_its_line() {
        assert_eq!(one_line("a\nb\tc"), "a^Jb^Ic");
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(last_lines("a\nb\nc", 2), "b\nc");
        assert_eq!(last_lines("a\nb\n", 9), "a\nb\n");
        assert_eq!(last_lines("a\nb\n", 0), "");
        assert_eq!(last_lines("", 3), "");
    }

    proptest! {
        #[test]
        fn no_control_character_is_left(text in any::<String>()) {
            prop_assert!(!harmless(&text).contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
            prop_assert!(!one_line(&text).contains(char::is_control));
        }

        #[test]
        fn lines_are_never_more_than_asked(text in "[a\n]{0,30}", lines in 0_usize..9) {
            prop_assert!(last_lines(&text, lines).lines().count() <= lines);
        }
    }
}
