//! Messages on a stream: how they are told apart (RFC 6587, and NUL bytes as MirageOS has it).
//!
//! Owns the bytes of the one message that is not complete yet, up to a limit. Never reads what is in a message.

use alloc::vec::Vec;

/// The longest message kept by default; RFC 5425 wants receivers to take 8192 bytes.
pub const DEFAULT_FRAME_LIMIT_BYTES: usize = 8192;

/// Digits of the longest length that is taken for one.
const MAX_COUNT_DIGITS: usize = 9;

/// How messages follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// One datagram is one message.
    #[default]
    Datagram,
    /// `LENGTH SP MESSAGE`; RFC 5425 demands it of TLS.
    OctetCounting,
    /// A line feed after each.
    Newline,
    /// A NUL byte after each.
    Nul,
}

/// Adds `message` to `out`. It must hold neither line feeds nor NUL bytes: [`Message`](super::Message) writes none.
pub fn write_frame(framing: Framing, message: &[u8], out: &mut Vec<u8>) {
    if framing == Framing::OctetCounting {
        let digits = message.len().checked_ilog10().unwrap_or(0);
        let digits = (0..=digits).rev().map(|place| b'0' + (message.len() / 10_usize.pow(place) % 10) as u8);
        out.extend(digits);
        out.push(b' ');
    }
    out.extend_from_slice(message);
    match framing {
        Framing::Newline => out.push(b'\n'),
        Framing::Nul => out.push(0),
        Framing::Datagram | Framing::OctetCounting => {}
    }
}

/// How far the current message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not at all.
    Start,
    /// What has come may be the length of one.
    Count,
    /// So many bytes are to come.
    Counted { left: usize },
    /// It ends at a line feed or a NUL byte.
    Delimited,
}

/// Cuts a stream into messages, each by its own start: digits, a space and `<` are a length and what it counts;
/// anything else goes to the next line feed or NUL byte.
#[derive(Debug)]
pub struct Deframer {
    state: State,
    partial: Vec<u8>,
    limit_bytes: usize,
    /// The rest of the current message is thrown away.
    cut: bool,
    cut_messages: u64,
}

impl Default for Deframer {
    fn default() -> Self {
        Self::new(DEFAULT_FRAME_LIMIT_BYTES)
    }
}

impl Deframer {
    /// A stream of messages of at most `limit_bytes` bytes. Longer ones are handed out cut.
    #[must_use]
    pub const fn new(limit_bytes: usize) -> Self {
        Self { state: State::Start, partial: Vec::new(), limit_bytes, cut: false, cut_messages: 0 }
    }

    /// Takes a segment and calls `each` for every message it completes, in order; empty ones are left out.
    pub fn feed(&mut self, segment: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = segment;
        while let Some(&byte) = rest.first() {
            let taken = match self.state {
                State::Start => self.start(byte),
                State::Count => self.count(byte),
                State::Counted { left } => self.take_counted(rest, left, &mut each),
                State::Delimited => self.take_delimited(rest, &mut each),
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// The stream has ended: what is left is the last message, as far as it came.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        if matches!(self.state, State::Counted { .. }) && !self.cut {
            self.cut_messages += 1;
        }
        self.hand_out(&mut each);
    }

    /// Messages of which only the beginning was handed out.
    #[must_use]
    pub const fn cut_messages(&self) -> u64 {
        self.cut_messages
    }

    /// Bytes held of a message that is not complete yet.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.partial.len()
    }

    fn start(&mut self, byte: u8) -> usize {
        match byte {
            b'\n' | b'\r' | 0 => 1,
            b'1'..=b'9' => {
                self.state = State::Count;
                0
            }
            _ => {
                self.state = State::Delimited;
                0
            }
        }
    }

    fn count(&mut self, byte: u8) -> usize {
        let spaced = self.partial.last() == Some(&b' ');
        let counts = match byte {
            b'0'..=b'9' => !spaced && self.partial.len() < MAX_COUNT_DIGITS,
            b' ' => !spaced,
            b'<' if spaced => {
                let digits = self.partial.trim_ascii_end();
                let left = digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
                self.partial.clear();
                self.state = State::Counted { left };
                return 0;
            }
            _ => false,
        };
        if counts {
            self.partial.push(byte);
        } else {
            // It was the start of a text after all.
            let text = core::mem::take(&mut self.partial);
            self.state = State::Delimited;
            self.keep(&text);
        }
        usize::from(counts)
    }

    fn take_counted(&mut self, rest: &[u8], left: usize, each: &mut impl FnMut(&[u8])) -> usize {
        let taken = left.min(rest.len());
        self.keep(rest.get(..taken).unwrap_or_default());
        self.state = State::Counted { left: left - taken };
        if left == taken {
            self.hand_out(each);
        }
        taken
    }

    fn take_delimited(&mut self, rest: &[u8], each: &mut impl FnMut(&[u8])) -> usize {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | 0));
        self.keep(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default());
        if end.is_some() {
            self.hand_out(each);
        }
        end.map_or(rest.len(), |end| end + 1)
    }

    fn keep(&mut self, part: &[u8]) {
        let room = self.limit_bytes.saturating_sub(self.partial.len());
        self.partial.extend_from_slice(part.get(..room).unwrap_or(part));
        if part.len() > room && !core::mem::replace(&mut self.cut, true) {
            self.cut_messages += 1;
        }
    }

    fn hand_out(&mut self, each: &mut impl FnMut(&[u8])) {
        let message = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        if !message.is_empty() {
            each(message);
        }
        self.partial.clear();
        self.cut = false;
        self.state = State::Start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;

    fn collect(limit: usize, segments: &[&[u8]]) -> (Vec<String>, u64) {
        let (mut deframer, mut out) = (Deframer::new(limit), Vec::new());
        let mut each = |message: &[u8]| out.push(String::from_utf8_lossy(message).into_owned());
        segments.iter().for_each(|segment| deframer.feed(segment, &mut each));
        deframer.finish(&mut each);
        (out, deframer.cut_messages())
    }

    #[test]
    fn each_message_is_framed_as_its_start_says() {
        let stream =
            b"<1>a\r\n5 <2>b\n4 <3>c<4>d\x00\n\x00no priority\n2026-06-08T09:05:07Z x\n12 monkeys\n007\n<5>e";
        let expected = [
            "<1>a",
            "<2>b\n",
            "<3>c",
            "<4>d",
            "no priority",
            "2026-06-08T09:05:07Z x",
            "12 monkeys",
            "007",
            "<5>e",
        ];
        assert_eq!(collect(100, &[stream]), (expected.map(String::from).to_vec(), 0));
    }

    #[test]
    fn a_message_too_long_is_cut_and_counted_and_spoils_no_other() {
        let expected = (["<1>abc", "<2>def", "<3>g", "123456", "<4>"].map(String::from).to_vec(), 4);
        assert_eq!(collect(6, &[b"<1>abcX\n", b"10 <2>defXXXX<3>g\n1234567 x\n9 <4>"]), expected);
    }

    proptest! {
        #[test]
        fn what_is_framed_is_cut_out_again(
            messages in prop::collection::vec(("[ -~é]{0,20}", 0_u8..3), 0..8),
            cut in 0_usize..200,
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for (text, framing) in messages {
                let framing = [Framing::OctetCounting, Framing::Newline, Framing::Nul][usize::from(framing)];
                let message = std::format!("<13>{text}");
                write_frame(framing, message.as_bytes(), &mut stream);
                expected.push(message);
            }
            let (first, second) = stream.split_at(cut.min(stream.len()));
            prop_assert_eq!(collect(1000, &[first, second]), (expected, 0));
        }

        #[test]
        fn any_stream_cut_anywhere_gives_the_same_messages(
            stream in "([0-9]{1,3} ?<?|<1>|[a\n\r\u{0}]){0,30}", limit in 1_usize..20, cut in 0_usize..100,
        ) {
            let (first, second) = stream.as_bytes().split_at(cut.min(stream.len()));
            prop_assert_eq!(collect(limit, &[first, second]), collect(limit, &[stream.as_bytes()]));
        }
    }
}
