//! The lines in which a dying guest names addresses, and the same lines with function, file and line.
//!
//! Owns the form of these lines: `stack 0x<address>`, one call each, and `FAULT ... rip=0x<address> ...`.
//! Works on text; where names come from is the caller's business. Everything else passes unchanged.

use std::fmt::Write as _;

use crate::symbols::Frame;

/// The most lines with addresses that are named in one piece of text; of more, the last.
pub const MAX_NAMED_LINES: usize = 256;
const STACK: &str = "stack 0x";
const FAULT: &str = "FAULT ";
const RIP: &str = " rip=0x";
/// Hexadecimal digits of a 64-bit address.
const MAX_DIGITS: usize = 16;

/// Whether there is a line in `text` that [`name_addresses`] would ask about.
#[must_use]
pub fn has_addresses(text: &str) -> bool {
    (text.contains(STACK) || text.contains(RIP)) && text.split_inclusive('\n').any(is_named)
}

/// Adds names to each complete line that names an address: ` function at file:line` at its end, and a line more
/// for each function that the call was inlined into. A fault's address, where the stack does not begin with it,
/// gets a line of its own.
#[must_use]
pub fn name_addresses(text: &str, mut resolve: impl FnMut(u64) -> Vec<Frame>) -> String {
    let all = text.split_inclusive('\n').filter(|line| is_named(line)).count();
    let mut unnamed = all.saturating_sub(MAX_NAMED_LINES);
    let mut named = String::with_capacity(text.len() + 64 * (all - unnamed));
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        if unnamed > 0 || !is_named(line) {
            unnamed -= usize::from(unnamed > 0 && is_named(line));
            named.push_str(line);
        } else if let Some(address) = stack_address(line) {
            push_named(&mut named, line, &resolve(address));
        } else if let Some(address) = fault_address(line) {
            named.push_str(line);
            if lines.peek().and_then(|next| stack_address(next)) != Some(address) {
                push_named(&mut named, &format!("rip {address:#x}\n"), &resolve(address));
            }
        }
    }
    named
}

/// Where in `bytes` a line begins that is not complete yet and may become a `stack` line; its length if there
/// is none. Read from there on once more has come, and no line is missed.
#[must_use]
pub fn unfinished_from(bytes: &[u8]) -> usize {
    let start = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = &bytes[start..];
    let begins =
        STACK.as_bytes().starts_with(line) || line.strip_prefix(STACK.as_bytes()).is_some_and(is_digits);
    if begins { start } else { bytes.len() }
}

fn is_digits(bytes: &[u8]) -> bool {
    let digits = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    digits.len() <= MAX_DIGITS && digits.iter().all(u8::is_ascii_hexdigit)
}

fn is_named(line: &str) -> bool {
    stack_address(line).is_some() || fault_address(line).is_some()
}

/// A line without its end; nothing if it has none.
fn complete(line: &str) -> Option<&str> {
    let line = line.strip_suffix('\n')?;
    Some(line.strip_suffix('\r').unwrap_or(line))
}

fn stack_address(line: &str) -> Option<u64> {
    hex(complete(line)?.strip_prefix(STACK)?)
}

fn fault_address(line: &str) -> Option<u64> {
    let (_, rest) = complete(line)?.strip_prefix(FAULT)?.split_once(RIP)?;
    hex(rest.split(' ').next()?)
}

fn hex(digits: &str) -> Option<u64> {
    let form = !digits.is_empty() && is_digits(digits.as_bytes()) && !digits.ends_with('\r');
    form.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

fn push_named(named: &mut String, line: &str, frames: &[Frame]) {
    let Some((first, outer)) = frames.split_first() else { return named.push_str(line) };
    let bare = line.trim_end_matches(['\r', '\n']);
    // writing to a String cannot fail
    let _ = write!(named, "{bare} {first}");
    for frame in outer {
        let _ = write!(named, "\n  inlined into {frame}");
    }
    named.push_str(&line[bare.len()..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(address: u64) -> Vec<Frame> {
        let frame = |function: &str, line| Frame { function: function.into(), file: "a.rs".into(), line };
        match address {
            0x10 => vec![frame("leaf", 3)],
            0x20 => vec![frame("inner", 5), frame("outer", 9)],
            _ => Vec::new(),
        }
    }

    fn named(text: &str) -> String {
        name_addresses(text, frames)
    }

    #[test]
    fn stack_lines_are_named_and_nothing_else_changes() {
        assert_eq!(named("stack 0x10\r\n"), "stack 0x10 leaf at a.rs:3\r\n");
        let both = "PANIC a.rs:3: no\nstack 0x20\nstack 0x99\n";
        let expected =
            "PANIC a.rs:3: no\nstack 0x20 inner at a.rs:5\n  inlined into outer at a.rs:9\nstack 0x99\n";
        assert_eq!(named(both), expected);
        for other in
            ["stack 0x\n", "xstack 0x10\n", "stack 0x10 ?\n", "stack 0xg\n", "stack 0x+10\n", "stack 0x10"]
        {
            assert_eq!(named(other), other);
            assert!(!has_addresses(other), "{other}");
        }
    }

    #[test]
    fn a_faults_address_is_named_once() {
        let fault = "FAULT vector=14 (page fault) error=0x0 rip=0x10 cr2=0x0\n";
        assert!(has_addresses(fault));
        assert_eq!(named(&format!("{fault}stack 0x10\n")), format!("{fault}stack 0x10 leaf at a.rs:3\n"));
        assert_eq!(named(fault), format!("{fault}rip 0x10 leaf at a.rs:3\n"));
        let other = format!("{fault}rip 0x10 leaf at a.rs:3\nstack 0x99\n");
        assert_eq!(named(&format!("{fault}stack 0x99\n")), other);
    }

    #[test]
    fn of_too_many_lines_the_last_are_named() {
        let text = "stack 0x10\n".repeat(MAX_NAMED_LINES + 2);
        let named = named(&text);
        assert!(named.starts_with("stack 0x10\nstack 0x10\nstack 0x10 leaf"), "{}", &named[..60]);
        assert_eq!(named.matches("leaf").count(), MAX_NAMED_LINES);
    }

    #[test]
    fn an_unfinished_line_waits_only_if_it_may_be_a_stack_line() {
        for (text, from) in [
            ("a\nstack 0x12", 2),
            ("a\nst", 2),
            ("s", 0),
            ("stack 0x12\r", 0),
            ("a\nstack 0x12 ", 13),
            ("a\n", 2),
            ("", 0),
            ("login: ", 7),
            ("stack 0x00000000000000001", 25),
        ] {
            assert_eq!(unfinished_from(text.as_bytes()), from, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_cut_anywhere_are_named_as_the_whole_is(
            lines in proptest::collection::vec("(stack 0x(10|20|99)|a|stack|s|stack 0xx)\r?\n", 0..12), cut in 0usize..200,
        ) {
            let text = lines.concat();
            let (first, _) = text.split_at(cut.min(text.len()));
            let held = unfinished_from(first.as_bytes());
            prop_assert_eq!(named(&text[..held]) + &named(&text[held..]), named(&text));
        }

        #[test]
        fn any_text_passes_and_is_kept(text in "(stack 0x|FAULT | rip=0x|[0-9a-f]|\r|\n|.){0,60}") {
            let named = named(&text);
            prop_assert!(named.len() >= text.len());
            prop_assert_eq!(has_addresses(&text) || named == text, true);
            prop_assert!(unfinished_from(text.as_bytes()) <= text.len());
        }
    }
}
