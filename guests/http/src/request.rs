//! Reads the head of an HTTP/1.x request (RFC 9112) from the bytes received so far. Bodies are not read: no
//! page here takes one.

/// Longest request head accepted, its blank line included.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A method this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: as GET, without the body.
    Head,
    /// Any other well-formed method.
    Other,
}

/// A request head, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is to be done.
    pub method: Method,
    /// The path, without query.
    pub path: &'a str,
}

/// What the bytes received so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The head is not complete.
    Incomplete,
    /// A complete head.
    Complete(Request<'a>),
    /// Not an HTTP/1.x request (status 400).
    Malformed,
    /// Longer than [`MAX_HEAD_BYTES`] (status 431).
    TooLarge,
}

/// Reads a request head from all bytes received so far.
#[must_use]
pub fn parse(received: &[u8]) -> Parsed<'_> {
    let window = &received[..received.len().min(MAX_HEAD_BYTES)];
    if !window.windows(END_OF_HEAD.len()).any(|bytes| bytes == END_OF_HEAD) {
        return if received.len() >= MAX_HEAD_BYTES { Parsed::TooLarge } else { Parsed::Incomplete };
    }
    let line_end = window.iter().position(|byte| *byte == b'\r').unwrap_or_default();
    match parse_request_line(&window[..line_end]) {
        Some(request) => Parsed::Complete(request),
        None => Parsed::Malformed,
    }
}

fn parse_request_line(line: &[u8]) -> Option<Request<'_>> {
    let line = core::str::from_utf8(line).ok()?;
    let mut parts = line.split(' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let well_formed = parts.next().is_none()
        && version.strip_prefix("HTTP/1.").is_some_and(|minor| matches!(minor.as_bytes(), [b'0'..=b'9']))
        && !method.is_empty()
        && method.bytes().all(|byte| byte.is_ascii_uppercase())
        && target.starts_with('/')
        && !target.bytes().any(|byte| byte.is_ascii_control());
    let path = target.split_once('?').map_or(target, |(path, _query)| path);
    well_formed.then(|| Request { method: Method::from_name(method), path })
}

impl Method {
    fn from_name(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn complete(method: Method, path: &str) -> Parsed<'_> {
        Parsed::Complete(Request { method, path })
    }

    #[test]
    fn a_head_is_complete_at_its_blank_line() {
        let head = b"GET /about?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
        for length in 0..head.len() {
            assert_eq!(parse(&head[..length]), Parsed::Incomplete, "{length}");
        }
        assert_eq!(parse(head), complete(Method::Get, "/about"));
    }

    #[test]
    fn methods_are_told_apart() {
        assert_eq!(parse(b"HEAD / HTTP/1.0\r\n\r\n"), complete(Method::Head, "/"));
        assert_eq!(parse(b"POST / HTTP/1.1\r\n\r\n"), complete(Method::Other, "/"));
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        for head in [
            "\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.12\r\n\r\n",
            "get / HTTP/1.1\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET about HTTP/1.1\r\n\r\n",
            "GET /\u{7} HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(parse(head.as_bytes()), Parsed::Malformed, "{head:?}");
        }
        assert_eq!(parse(b"GET /\xff HTTP/1.1\r\n\r\n"), Parsed::Malformed);
    }

    #[test]
    fn a_head_may_be_as_long_as_the_limit_and_no_longer() {
        let head = |length: usize| {
            let start = "GET / HTTP/1.1\r\nX: ";
            format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - END_OF_HEAD.len())).into_bytes()
        };
        assert_eq!(parse(&head(MAX_HEAD_BYTES)), complete(Method::Get, "/"));
        assert_eq!(parse(&head(MAX_HEAD_BYTES + 1)), Parsed::TooLarge);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"GET ", &bytes[..], b" HTTP/1.1\r\n\r\n"].concat());
        }

        #[test]
        fn every_plain_path_is_read_as_it_was_written(path in "/[a-zA-Z0-9/._-]{0,40}") {
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            prop_assert_eq!(parse(head.as_bytes()), complete(Method::Get, &path));
        }
    }
}
