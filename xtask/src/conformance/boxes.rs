//! How OCaml's `Format` breaks a set of log tags into lines.
//!
//! Owns a model of that printer as far as log tags need it: text, break hints and boxes that break where they must.
//! What it prints depends on when it gets to know a length, so the model takes its text piece by piece too.

use std::collections::VecDeque;

const MARGIN: isize = 78;
const MAX_INDENT: isize = MARGIN - 10;

#[derive(Debug, Clone)]
enum Token {
    Text(String),
    /// So many blanks, or a new line.
    Break(isize),
    /// A box, indented by so much.
    Begin(isize),
    End,
}

struct Queued {
    token: Token,
    /// Of a break or box up to the next break or its end; unknown at first.
    size: Option<isize>,
    /// All that was printed or queued before it.
    before: isize,
    length: isize,
}

struct Open {
    fits: bool,
    /// What was left of the line where it began, without its indentation.
    width: isize,
}

/// The printer.
struct Boxes {
    queue: VecDeque<Queued>,
    /// Tokens taken from the queue, and all their lengths.
    taken: usize,
    taken_length: isize,
    queued_length: isize,
    /// Breaks and boxes of unknown size, counted from the first token of all.
    unknown: Vec<usize>,
    open: Vec<Open>,
    /// Columns; less than none where a text is longer than its line.
    left: isize,
    indent: isize,
    is_new_line: bool,
    out: String,
}

/// The set as the original prints it.
pub(super) fn tag_set(tags: &[(&str, &str)]) -> String {
    let mut boxes = Boxes::new();
    boxes.begin(1);
    boxes.text("{");
    for (n, (name, value)) in tags.iter().enumerate() {
        if n > 0 {
            boxes.hint(0);
        }
        boxes.begin(1);
        boxes.text("(");
        boxes.text(&format!("tag:{name}"));
        boxes.hint(1);
        boxes.begin(0);
        boxes.text(value);
        boxes.end();
        boxes.text(")");
        boxes.end();
    }
    boxes.text("}");
    boxes.end();
    boxes.advance(true);
    boxes.out
}

impl Boxes {
    fn new() -> Self {
        let mut boxes = Self {
            queue: VecDeque::new(),
            taken: 0,
            taken_length: 0,
            queued_length: 0,
            unknown: Vec::new(),
            open: Vec::new(),
            left: MARGIN,
            indent: 0,
            is_new_line: true,
            out: String::new(),
        };
        boxes.begin(0);
        boxes
    }

    fn text(&mut self, text: &str) {
        let length = text.len().cast_signed();
        self.push(Token::Text(text.to_owned()), length, Some(length));
        self.advance(false);
    }

    fn hint(&mut self, blanks: isize) {
        let at = self.push(Token::Break(blanks), blanks, None);
        self.measure(|token| matches!(token, Token::Break(_)));
        self.unknown.push(at);
    }

    fn begin(&mut self, indent: isize) {
        let at = self.push(Token::Begin(indent), 0, None);
        self.unknown.push(at);
    }

    fn end(&mut self) {
        self.push(Token::End, 0, Some(0));
        self.measure(|token| matches!(token, Token::Break(_)));
        self.measure(|token| matches!(token, Token::Begin(_)));
    }

    fn push(&mut self, token: Token, length: isize, size: Option<isize>) -> usize {
        self.queue.push_back(Queued { token, size, before: self.queued_length, length });
        self.queued_length += length;
        self.taken + self.queue.len() - 1
    }

    /// The last token of unknown size ends here, if it is one of those.
    fn measure(&mut self, ends: impl Fn(&Token) -> bool) {
        let Some(&at) = self.unknown.last() else { return };
        let Some(index) = at.checked_sub(self.taken) else { return self.unknown.clear() };
        if let Some(queued) = self.queue.get_mut(index).filter(|queued| ends(&queued.token)) {
            queued.size = Some(self.queued_length - queued.before);
            self.unknown.pop();
        }
    }

    /// Prints what is known to fit or known not to.
    fn advance(&mut self, all: bool) {
        while let Some(first) = self.queue.front() {
            let is_too_long = all || self.queued_length - self.taken_length >= self.left;
            if first.size.is_none() && !is_too_long {
                return;
            }
            let Some(Queued { token, size, length, .. }) = self.queue.pop_front() else { return };
            self.taken += 1;
            self.taken_length += length;
            self.print(token, size.unwrap_or(isize::MAX));
        }
    }

    fn print(&mut self, token: Token, size: isize) {
        match token {
            Token::Text(text) => {
                self.left -= size;
                self.out.push_str(&text);
                self.is_new_line = false;
            }
            Token::Begin(indent) => {
                if MARGIN - self.left > MAX_INDENT
                    && let Some(width) = self.open.last().filter(|open| !open.fits).map(|open| open.width)
                    && width > self.left
                {
                    self.break_line(width);
                }
                let (fits, width) = (size <= self.left, self.left - indent);
                self.open.push(Open { fits, width });
            }
            Token::End => drop(self.open.pop()),
            Token::Break(blanks) => {
                let Some(&Open { fits, width }) = self.open.last() else { return };
                let breaks = !fits && !self.is_new_line && (size > self.left || self.indent > MARGIN - width);
                if breaks {
                    self.break_line(width);
                } else {
                    self.left -= blanks;
                    self.blanks(blanks);
                }
            }
        }
    }

    fn break_line(&mut self, width: isize) {
        self.indent = (MARGIN - width).min(MAX_INDENT);
        self.left = MARGIN - self.indent;
        self.is_new_line = true;
        self.out.push('\n');
        self.blanks(self.indent);
    }

    fn blanks(&mut self, blanks: isize) {
        (0..blanks).for_each(|_| self.out.push(' '));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_one_line() {
        assert_eq!(tag_set(&[("a", "b"), ("c", "d e")]), "{(tag:a b)(tag:c d e)}");
        let set = tag_set(&[("k", &"v".repeat(68))]);
        assert_eq!((set.len(), set.contains('\n')), (78, false));
    }

    #[test]
    fn what_does_not_fit_is_broken_at_the_last_place_that_helps() {
        for length in [69, 70, 90] {
            let value = "v".repeat(length);
            assert_eq!(tag_set(&[("k", &value)]), format!("{{(tag:k\n  {value})}}"));
        }
        let (long, short) = ("v".repeat(40), "w".repeat(40));
        assert_eq!(tag_set(&[("a", &long), ("b", &short)]), format!("{{(tag:a {long})\n (tag:b {short})}}"));
    }
}
