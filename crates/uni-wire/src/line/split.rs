//! Cutting a whole body into lines, as InfluxDB cuts a write request.
//!
//! Owns what a line's end is: a newline outside a quoted string. Never parses a line. For a stream, where a
//! missing quote must not swallow the lines after it, see `LineBuffer`.

/// The first line of `body` that is neither blank nor a comment, without its newline and leading blanks, and
/// the bytes after it; `None` when there is none.
#[must_use]
pub fn next_line(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = body;
    loop {
        rest = skip_blank(rest);
        let end = match rest.first()? {
            b'\n' => 0,
            b'#' => newline(rest),
            _ => {
                let end = line_end(rest);
                // Quotes left open swallow the body's last newline, which is not part of the line either way.
                let line = rest[..end].strip_suffix(b"\n").unwrap_or(&rest[..end]);
                return Some((line, rest.get(end + 1..).unwrap_or_default()));
            }
        };
        rest = rest.get(end + 1..).unwrap_or_default();
    }
}

/// All lines of `body`. See [`next_line`].
#[must_use]
pub const fn lines(body: &[u8]) -> Lines<'_> {
    Lines { rest: body }
}

/// The lines of a body. See [`lines`].
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (line, rest) = next_line(self.rest)?;
        self.rest = rest;
        Some(line)
    }
}

fn skip_blank(bytes: &[u8]) -> &[u8] {
    let blank = bytes.iter().take_while(|b| matches!(b, b' ' | b'\t' | 0)).count();
    &bytes[blank..]
}

/// The place of the first newline, else the length.
pub(crate) fn newline(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len())
}

/// The end of a line: the first newline that is not inside a field's quotes.
fn line_end(bytes: &[u8]) -> usize {
    let mut in_fields = false;
    let mut quoted = false;
    // A quote counts only in a value, that is when more `=` than `,` were seen.
    let (mut equals, mut commas) = (0_usize, 0_usize);
    let mut at = 0;
    while let Some(b) = bytes.get(at) {
        match b {
            // An escaped newline would join lines that a parser then sees as one: it ends the line.
            b'\\' if bytes.get(at + 1).is_some_and(|next| *next != b'\n' || quoted) => at += 1,
            b'\n' if !quoted => return at,
            b' ' => in_fields = true,
            b'=' if in_fields && !quoted => equals += 1,
            b',' if in_fields && !quoted => commas += 1,
            b'"' if in_fields && equals > commas => quoted = !quoted,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn split(body: &str) -> Vec<&str> {
        lines(body.as_bytes()).map(|l| core::str::from_utf8(l).expect("text")).collect()
    }

    #[test]
    fn blank_lines_and_comments_are_left_out() {
        assert_eq!(split("\n# hi \"\n\n  a x=5\n \t\nb x=1"), ["a x=5", "b x=1"]);
        assert_eq!(split(""), [""; 0]);
        assert_eq!(split("#"), [""; 0]);
    }

    #[test]
    fn a_newline_inside_quotes_belongs_to_the_line() {
        assert_eq!(split("m a=\"x\ny\",b=1\nn a=2"), ["m a=\"x\ny\",b=1", "n a=2"]);
        assert_eq!(split("m a=\"x\\\"\ny\"\nn a=2"), ["m a=\"x\\\"\ny\"", "n a=2"]);
    }

    #[test]
    fn quotes_in_names_do_not_count() {
        assert_eq!(split("m\"a,t=\"b f\"c=1\nn a=2"), ["m\"a,t=\"b f\"c=1", "n a=2"]);
    }

    #[test]
    fn a_carriage_return_stays_with_its_line() {
        assert_eq!(split("m a=1 5\r\nn a=2"), ["m a=1 5\r", "n a=2"]);
    }
}
