//! Text to statements: the parser's state and the choice of statement.
//!
//! Owns the grammar together with its children. Never checks names or functions: that needs a source.

mod change;
mod expr;
mod select;
mod show;

use crate::ast::Statement;
use crate::error::ParseError;
use crate::lex::{Lexer, Spanned, Token};
use crate::limits::Limits;

pub(crate) type Result<T> = std::result::Result<T, ParseError>;

/// The first words of InfluxDB's statements that this engine does not have.
const UNSUPPORTED: &[&str] = &["EXPLAIN", "GRANT", "REVOKE", "SET", "KILL"];
/// Most patterns in one text: each may take a MiB when compiled.
const MAX_PATTERNS: usize = 64;
const STATEMENTS: &str = "SELECT, DELETE, SHOW, CREATE, DROP, EXPLAIN, GRANT, REVOKE, ALTER, SET, KILL";

/// The statements of a text.
pub(crate) fn parse(text: &str, limits: &Limits<'_>) -> Result<Vec<Statement>> {
    if text.len() > limits.max_statement_bytes {
        return Err(ParseError::TooLong { bytes: text.len(), limit: limits.max_statement_bytes });
    }
    let mut parser = Parser::new(text, limits.max_nesting)?;
    let mut statements = Vec::new();
    loop {
        while parser.eat(&Token::Semicolon)? {}
        if parser.peek.token == Token::Eof {
            return Ok(statements);
        }
        statements.push(parser.statement()?);
        if !matches!(parser.peek.token, Token::Semicolon | Token::Eof) {
            return Err(parser.expected(";"));
        }
    }
}

/// A lexer and the token ahead.
pub(crate) struct Parser<'a> {
    lexer: Lexer<'a>,
    peek: Spanned,
    max_nesting: usize,
    /// How many more patterns the text may have.
    patterns_left: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, max_nesting: usize) -> Result<Self> {
        let mut lexer = Lexer::new(text);
        let peek = lexer.next()?;
        Ok(Self { lexer, peek, max_nesting, patterns_left: MAX_PATTERNS })
    }

    fn statement(&mut self) -> Result<Statement> {
        if self.eat_word("SELECT")? {
            return Ok(Statement::Select(Box::new(self.select()?)));
        }
        if self.eat_word("SHOW")? {
            return self.show();
        }
        if self.eat_word("CREATE")? {
            return self.create();
        }
        if self.eat_word("ALTER")? {
            return self.alter();
        }
        if self.eat_word("DROP")? {
            return self.drop_statement();
        }
        if self.eat_word("DELETE")? {
            return Ok(Statement::Delete(self.delete()?));
        }
        match &self.peek.token {
            Token::Bare(word) if UNSUPPORTED.iter().any(|known| word.eq_ignore_ascii_case(known)) => {
                self.unsupported("")
            }
            _ => Err(self.expected(STATEMENTS)),
        }
    }

    /// Skips the statement; `before` and its next two words name it.
    fn unsupported(&mut self, before: &str) -> Result<Statement> {
        let mut words = vec![before.to_owned()];
        while !matches!(self.peek.token, Token::Semicolon | Token::Eof) {
            if let Token::Bare(word) = self.take()?
                && words.len() < 3
            {
                words.push(word.to_uppercase());
            }
        }
        Ok(Statement::Unsupported(words.join(" ").trim().to_owned()))
    }

    /// The token ahead, and one further.
    fn take(&mut self) -> Result<Token> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.peek, next).token)
    }

    fn eat(&mut self, token: &Token) -> Result<bool> {
        let there = self.peek.token == *token;
        if there {
            self.take()?;
        }
        Ok(there)
    }

    fn expect(&mut self, token: &Token, name: &str) -> Result<()> {
        if self.eat(token)? { Ok(()) } else { Err(self.expected(name)) }
    }

    fn at_word(&self, word: &str) -> bool {
        matches!(&self.peek.token, Token::Bare(found) if found.eq_ignore_ascii_case(word))
    }

    fn eat_word(&mut self, word: &str) -> Result<bool> {
        let there = self.at_word(word);
        if there {
            self.take()?;
        }
        Ok(there)
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.eat_word(word)? { Ok(()) } else { Err(self.expected(word)) }
    }

    /// A name, bare or quoted.
    fn name(&mut self) -> Result<String> {
        match &self.peek.token {
            Token::Quoted(_) => {}
            Token::Bare(word) if !is_reserved(word) => {}
            _ => return Err(self.expected("identifier")),
        }
        match self.take()? {
            Token::Quoted(name) | Token::Bare(name) => Ok(name),
            _ => Err(self.expected("identifier")),
        }
    }

    fn expected(&self, what: &str) -> ParseError {
        self.lexer.found(&self.peek, what)
    }
}

/// The words that cannot be names without quotes. InfluxDB reserves more (`name`, `key`, `tag` and others), where
/// nothing could be mistaken.
pub(super) fn is_reserved(word: &str) -> bool {
    const WORDS: &[&str] = &[
        "SELECT", "INTO", "FROM", "WHERE", "GROUP", "BY", "ORDER", "LIMIT", "OFFSET", "SLIMIT", "SOFFSET",
        "AS", "AND", "OR", "ASC", "DESC", "IN", "WITH", "ON", "SHOW", "TRUE", "FALSE", "DISTINCT",
    ];
    WORDS.iter().any(|reserved| word.eq_ignore_ascii_case(reserved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, &Limits::default()).expect_err(text).to_string()
    }

    #[test]
    fn errors_name_what_was_found_and_where() {
        assert_eq!(
            error("SELECT"),
            "error parsing query: found EOF, expected identifier, string, number, bool at line 1, char 8"
        );
        assert_eq!(
            error("SELECT mean(x) FROM"),
            "error parsing query: found EOF, expected identifier at line 1, char 21"
        );
        assert_eq!(
            error("SHOW DATABASES;\n foo"),
            format!("error parsing query: found foo, expected {STATEMENTS} at line 2, char 2")
        );
    }

    #[test]
    fn words_may_have_any_case_and_statements_any_number() {
        let statements = parse("; show DATABASES ;; Select x from y;", &Limits::default()).expect("parses");
        assert_eq!(statements.len(), 2);
    }

    #[test]
    fn statements_that_are_not_supported_are_named_when_refused() {
        let statements = parse("drop shard 7; KILL QUERY 7", &Limits::default());
        let statements = statements.expect("parses");
        assert!(matches!(&statements[0], Statement::Unsupported(what) if what == "DROP SHARD"));
        assert!(matches!(&statements[1], Statement::Unsupported(what) if what == "KILL QUERY"));
    }

    #[test]
    fn chains_of_conditions_may_be_long() {
        let long = format!("SELECT x FROM y WHERE a = 1{}", " OR a = 1 AND b = 2".repeat(3000));
        assert!(parse(&long, &Limits::default()).is_ok());
    }

    #[test]
    fn length_and_nesting_are_bounded() {
        let limits = Limits { max_statement_bytes: 20, ..Limits::default() };
        assert!(matches!(parse("SELECT x FROM y WHERE z = 1", &limits), Err(ParseError::TooLong { .. })));
        let deep = format!("SELECT x FROM y WHERE {}a = 1{}", "(".repeat(20_000), ")".repeat(20_000));
        assert!(error(&deep).contains("nested"));
        let long = format!("SELECT x FROM y WHERE a = 1{}", " + 1".repeat(5000));
        assert!(error(&long).contains("nested"));
        let patterns = format!(
            "SELECT x FROM y WHERE a =~ /b/{}",
            "; SHOW MEASUREMENTS WITH MEASUREMENT =~ /b/".repeat(64)
        );
        assert!(error(&patterns).contains("more than 64 patterns"));
    }
}
