//! The line dialect of MirageOS's `metrics-influx` 0.5, byte for byte, its faults included.
//!
//! Owns the rules that differ from [`LineWriter`](super::LineWriter)'s: words of a query language get an `o` in
//! front, floats have six digits and may be `nan` or `inf`, strings are OCaml literals, unsigned values end in `i`,
//! other values go out raw, and there is no time stamp. What it writes may not be line protocol at all. For readers
//! that were built around it, and to check what such readers see; Uni's guests speak the strict dialect.

use core::fmt;

use crate::ocaml::{General, Literal};

/// A value as the original's fields and tags hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MirageValue<'a> {
    /// A literal as a field; escaped like a name as a tag.
    String(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// Six digits.
    Float(f64),
    /// `int`, `int32`, `int64`.
    Int(i64),
    /// `uint`, `uint32`, `uint64`.
    Uint(u64),
    /// Text of a printer of its own: a status, or the tag of a source. Nothing in it is escaped.
    Other(&'a str),
}

/// What the original takes for words of InfluxQL.
const KEYWORDS: [&str; 73] = [
    "ALL",
    "ALTER",
    "ANY",
    "AS",
    "ASC",
    "BEGIN",
    "BY",
    "CREATE",
    "CONTINUOUS",
    "DATABASE",
    "DATABASES",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DESTINATIONS",
    "DIAGNOSTICS",
    "DISTINCT",
    "DROP",
    "DURATION",
    "END",
    "EVERY",
    "EXPLAIN",
    "FIELD",
    "FOR",
    "FROM",
    "GRANT",
    "GRANTS",
    "GROUP",
    "GROUPS",
    "IN",
    "INF",
    "INSERT",
    "INTO",
    "KEY",
    "KEYS",
    "KILL",
    "LIMIT",
    "SHOW",
    "MEASUREMENT",
    "MEASUREMENTS",
    "NAME",
    "OFFSET",
    "ON",
    "ORDER",
    "PASSWORD",
    "POLICY",
    "POLICIES",
    "PRIVILEGES",
    "QUERIES",
    "QUERY",
    "READ",
    "REPLICATION",
    "RESAMPLE",
    "RETENTION",
    "REVOKE",
    "SELECT",
    "SERIES",
    "SET",
    "SHARD",
    "SHARDS",
    "SLIMIT",
    "SOFFSET",
    "STATS",
    "SUBSCRIPTION",
    "SUBSCRIPTIONS",
    "TAG",
    "TO",
    "USER",
    "USERS",
    "VALUES",
    "WHERE",
    "WITH",
    "WRITE",
];

/// Writes one line, the newline included, whatever it is given.
///
/// # Errors
/// Those of `out`.
///
/// ```
/// use uni_wire::line::{MirageValue as V, write_mirage_line};
/// let mut out = String::new();
/// let fields = [("duration", V::Uint(5)), ("x", V::Float(1234567.0)), ("status", V::Other("ok"))];
/// write_mirage_line(&mut out, "user", [("vm", V::String("my vm"))], fields)?;
/// assert_eq!(out, "ouser,vm=my\\ vm oduration=5i,x=1.23457e+06,status=ok\n");
/// # Ok::<(), core::fmt::Error>(())
/// ```
pub fn write_mirage_line<'a, W: fmt::Write + ?Sized>(
    out: &mut W,
    measurement: &str,
    tags: impl IntoIterator<Item = (&'a str, MirageValue<'a>)>,
    fields: impl IntoIterator<Item = (&'a str, MirageValue<'a>)>,
) -> fmt::Result {
    write_name(out, measurement, &[',', ' '])?;
    out.write_char(',')?;
    for (n, (key, value)) in tags.into_iter().enumerate() {
        write_key(out, n, key)?;
        match value {
            MirageValue::String(text) => write_name(out, text, &NAME_ESCAPES)?,
            value => write_value(out, value)?,
        }
    }
    out.write_char(' ')?;
    for (n, (key, value)) in fields.into_iter().enumerate() {
        write_key(out, n, key)?;
        write_value(out, value)?;
    }
    out.write_char('\n')
}

const NAME_ESCAPES: [char; 3] = [',', ' ', '='];

fn write_key<W: fmt::Write + ?Sized>(out: &mut W, place: usize, key: &str) -> fmt::Result {
    if place > 0 {
        out.write_char(',')?;
    }
    write_name(out, key, &NAME_ESCAPES)?;
    out.write_char('=')
}

fn write_name<W: fmt::Write + ?Sized>(out: &mut W, name: &str, escapes: &[char]) -> fmt::Result {
    if KEYWORDS.iter().any(|word| word.eq_ignore_ascii_case(name)) {
        out.write_char('o')?;
    }
    name.chars().try_for_each(|c| {
        if escapes.contains(&c) {
            out.write_char('\\')?;
        }
        out.write_char(c)
    })
}

fn write_value<W: fmt::Write + ?Sized>(out: &mut W, value: MirageValue<'_>) -> fmt::Result {
    match value {
        MirageValue::String(text) => write!(out, "{}", Literal(text)),
        MirageValue::Bool(value) => write!(out, "{value}"),
        MirageValue::Float(value) => write!(out, "{}", General(value)),
        MirageValue::Int(value) => write!(out, "{value}i"),
        MirageValue::Uint(value) => write!(out, "{value}i"),
        MirageValue::Other(text) => out.write_str(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn line<'a>(
        measurement: &str,
        tags: &[(&'a str, MirageValue<'a>)],
        fields: &[(&'a str, MirageValue<'a>)],
    ) -> String {
        let mut out = String::new();
        write_mirage_line(&mut out, measurement, tags.iter().copied(), fields.iter().copied())
            .expect("string");
        out
    }

    #[test]
    fn shapes_that_no_reader_takes_are_written_all_the_same() {
        assert_eq!(line("nohost", &[], &[("a", MirageValue::Int(1))]), "nohost, a=1i\n");
        assert_eq!(line("empty", &[("vm", MirageValue::String("x"))], &[]), "empty,vm=x \n");
    }

    #[test]
    fn an_equals_sign_is_escaped_in_keys_only() {
        let tags = [("a=b", MirageValue::String("c=d")), ("e", MirageValue::Other("f=g h"))];
        assert_eq!(
            line("m=1", &tags, &[("n o", MirageValue::Uint(u64::MAX))]),
            "m=1,a\\=b=c\\=d,e=f=g h n\\ o=18446744073709551615i\n"
        );
    }
}
