//! Tokens of InfluxQL.
//!
//! Owns what a name, string, number, duration, pattern and comment look like, and where in the text an error is.
//! Never looks ahead more than the token it cuts; whether a `/` begins a pattern the parser knows.

use crate::ast::Op;
use crate::error::ParseError;
use crate::time::unit_nanos;
use regex::{Regex, RegexBuilder};

/// Most bytes a compiled pattern may take. A pattern past that is refused, not built.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// Most characters of a token repeated in an error.
const SHOWN_CHARS: usize = 40;

/// A token. Names keep whether they were quoted, for only bare ones can be keywords.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Eof,
    Bare(String),
    Quoted(String),
    Text(String),
    Integer(i64),
    Number(f64),
    /// Nanoseconds.
    Duration(i64),
    Op(Op),
    LeftParen,
    RightParen,
    Comma,
    Dot,
    Cast,
    Semicolon,
    /// A character that begins no token.
    Other(char),
}

/// A token and the bytes it was cut from.
#[derive(Debug, Clone)]
pub(crate) struct Spanned {
    pub(crate) token: Token,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Cuts tokens off a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

type Result<T> = std::result::Result<T, ParseError>;

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Goes (back) to a byte that a token began or ended at.
    pub(crate) fn seek(&mut self, at: usize) {
        self.at = at;
    }

    /// The next token; `Token::Eof` again and again at the end.
    pub(crate) fn next(&mut self) -> Result<Spanned> {
        self.skip_blank();
        let start = self.at;
        let token = match self.peek() {
            None => Token::Eof,
            Some('"') => Token::Quoted(self.quoted('"')?),
            Some('\'') => Token::Text(self.quoted('\'')?),
            Some(c) if c.is_ascii_digit() => self.number()?,
            Some('.') if self.peek_at(1).is_some_and(|c| c.is_ascii_digit()) => self.number()?,
            Some(c) if is_name_start(c) => Token::Bare(self.take_while(is_name_part).to_owned()),
            Some(c) => self.symbol(c),
        };
        Ok(Spanned { token, start, end: self.at })
    }

    /// A pattern `/.../`; the lexer stands at its first slash.
    pub(crate) fn pattern(&mut self) -> Result<Regex> {
        let start = self.at;
        self.at += 1;
        let mut source = String::new();
        loop {
            let Some(c) = self.bump() else {
                return Err(self.invalid("pattern without a closing slash", start));
            };
            match c {
                '/' => break,
                '\\' => match self.bump() {
                    Some('/') => source.push('/'),
                    escaped => {
                        source.push('\\');
                        source.extend(escaped);
                    }
                },
                c => source.push(c),
            }
        }
        build_pattern(&source).map_err(|reason| self.invalid(&reason, start))
    }

    /// The error "found this, expected that" for the bytes of a token.
    pub(crate) fn found(&self, spanned: &Spanned, expected: &str) -> ParseError {
        let (line, char) = self.place(spanned.start);
        match spanned.token {
            // InfluxDB counts the end as one further.
            Token::Eof => {
                ParseError::Found { found: "EOF".into(), expected: expected.into(), line, char: char + 1 }
            }
            _ => {
                let found = self.text[spanned.start..spanned.end].chars().take(SHOWN_CHARS).collect();
                ParseError::Found { found, expected: expected.into(), line, char }
            }
        }
    }

    /// The error of an ill-formed token at a byte.
    pub(crate) fn invalid(&self, reason: &str, start: usize) -> ParseError {
        let (line, char) = self.place(start);
        ParseError::Invalid { reason: reason.into(), line, char }
    }

    /// Line and character of a byte, both from 1.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let char = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, char)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn peek_at(&self, n: usize) -> Option<char> {
        self.rest().chars().nth(n)
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !wanted(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// Blanks, `-- comments` to the end of the line, `/* comments */`.
    fn skip_blank(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            let rest = self.rest();
            if rest.starts_with("--") {
                self.take_while(|c| c != '\n');
            } else if rest.starts_with("/*") {
                self.at += rest.find("*/").map_or(rest.len(), |end| end + 2);
            } else {
                return;
            }
        }
    }

    /// The inside of quotes. Escapes: backslash before a quote, a backslash, or `n`.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let start = self.at;
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                None | Some('\n') => return Err(self.invalid("text without a closing quote", start)),
                Some(c) if c == quote => return Ok(text),
                Some('\\') => text.push(self.escaped(start)?),
                Some(c) => text.push(c),
            }
        }
    }

    fn escaped(&mut self, start: usize) -> Result<char> {
        match self.bump() {
            Some('n') => Ok('\n'),
            Some(c @ ('\\' | '"' | '\'')) => Ok(c),
            _ => Err(self.invalid("unknown escape after a backslash in quotes", start)),
        }
    }

    fn number(&mut self) -> Result<Token> {
        let start = self.at;
        self.take_while(|c| c.is_ascii_digit());
        if self.peek() == Some('.') && self.peek_at(1).is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
            let number: f64 = self.text[start..self.at].parse().unwrap_or(f64::INFINITY);
            return self.finite(number, start);
        }
        if self.peek().is_some_and(is_unit_part) {
            self.at = start;
            return self.duration();
        }
        match self.text[start..self.at].parse::<i64>() {
            Ok(n) => Ok(Token::Integer(n)),
            Err(_) => self.finite(self.text[start..self.at].parse().unwrap_or(f64::INFINITY), start),
        }
    }

    fn finite(&self, number: f64, start: usize) -> Result<Token> {
        if number.is_finite() {
            Ok(Token::Number(number))
        } else {
            Err(self.invalid("unable to parse number", start))
        }
    }

    /// `1h30m`: digits and unit, as often as they follow each other.
    fn duration(&mut self) -> Result<Token> {
        let start = self.at;
        let mut total: i64 = 0;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            let count = self.take_while(|c| c.is_ascii_digit()).parse::<i64>().ok();
            let unit = unit_nanos(self.take_while(is_unit_part));
            let part = count.zip(unit).and_then(|(count, unit)| count.checked_mul(unit));
            let Some(sum) = part.and_then(|part| total.checked_add(part)) else {
                return Err(self.invalid("invalid duration", start));
            };
            total = sum;
        }
        Ok(Token::Duration(total))
    }

    fn symbol(&mut self, first: char) -> Token {
        self.bump();
        let (token, length) = match (first, self.peek()) {
            ('=', Some('~')) => (Token::Op(Op::Match), 1),
            ('!', Some('~')) => (Token::Op(Op::MatchNot), 1),
            ('!', Some('=')) | ('<', Some('>')) => (Token::Op(Op::Ne), 1),
            ('<', Some('=')) => (Token::Op(Op::Le), 1),
            ('>', Some('=')) => (Token::Op(Op::Ge), 1),
            (':', Some(':')) => (Token::Cast, 1),
            ('=', _) => (Token::Op(Op::Eq), 0),
            ('<', _) => (Token::Op(Op::Lt), 0),
            ('>', _) => (Token::Op(Op::Gt), 0),
            ('+', _) => (Token::Op(Op::Add), 0),
            ('-', _) => (Token::Op(Op::Sub), 0),
            ('*', _) => (Token::Op(Op::Mul), 0),
            ('/', _) => (Token::Op(Op::Div), 0),
            ('%', _) => (Token::Op(Op::Mod), 0),
            ('&', _) => (Token::Op(Op::BitAnd), 0),
            ('|', _) => (Token::Op(Op::BitOr), 0),
            ('^', _) => (Token::Op(Op::BitXor), 0),
            ('(', _) => (Token::LeftParen, 0),
            (')', _) => (Token::RightParen, 0),
            (',', _) => (Token::Comma, 0),
            ('.', _) => (Token::Dot, 0),
            (';', _) => (Token::Semicolon, 0),
            (other, _) => (Token::Other(other), 0),
        };
        self.at += length;
        token
    }
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn is_name_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_unit_part(c: char) -> bool {
    c.is_ascii_alphabetic() || c == 'µ'
}

fn build_pattern(source: &str) -> std::result::Result<Regex, String> {
    RegexBuilder::new(source).size_limit(MAX_PATTERN_BYTES).build().map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default();
        let shown: String = source.chars().take(SHOWN_CHARS).collect();
        format!("error parsing regexp: {}: `{shown}`", reason.trim_start_matches("error: "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        let mut lexer = Lexer::new(text);
        let mut found = Vec::new();
        loop {
            match lexer.next().expect("token").token {
                Token::Eof => return found,
                token => found.push(token),
            }
        }
    }

    #[test]
    fn numbers_and_durations() {
        assert_eq!(
            tokens("5 1.5 .5 1h30m 1600000000000ms 99999999999999999999"),
            [
                Token::Integer(5),
                Token::Number(1.5),
                Token::Number(0.5),
                Token::Duration(5_400_000_000_000),
                Token::Duration(1_600_000_000_000_000_000),
                Token::Number(1e20),
            ]
        );
        assert!(Lexer::new("5q").next().is_err());
        assert!(Lexer::new("9999999999w").next().is_err());
    }

    #[test]
    fn quotes_keep_what_they_escape() {
        assert_eq!(
            tokens(r#""a \"b" 'it\'s' a_1"#),
            [Token::Quoted("a \"b".into()), Token::Text("it's".into()), Token::Bare("a_1".into())]
        );
        assert!(Lexer::new("'open").next().is_err());
    }

    #[test]
    fn comments_are_blanks() {
        assert_eq!(tokens("a -- b\nc /* d */ /* e"), [Token::Bare("a".into()), Token::Bare("c".into())]);
    }

    #[test]
    fn a_pattern_ends_at_the_first_bare_slash() {
        let mut lexer = Lexer::new(r"/^a\/b\.c$/ x");
        let pattern = lexer.pattern().expect("pattern");
        assert!(pattern.is_match("a/b.c") && !pattern.is_match("a/bxc"));
        assert_eq!(lexer.next().expect("token").token, Token::Bare("x".into()));
    }

    #[test]
    fn a_pattern_too_large_is_refused() {
        let error = Lexer::new(r"/(\w{1000}){1000}/").pattern().expect_err("too large");
        assert!(error.to_string().contains("error parsing regexp"), "{error}");
    }
}
