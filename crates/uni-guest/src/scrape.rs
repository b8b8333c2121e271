//! One connection from Prometheus: one request, one answer.
//!
//! Owns the head of a request that is not complete yet, and the answer to a complete one (HTTP/1.1, RFC 9112):
//! `GET /metrics`, or `HEAD`. Never owns the connection, which a driver closes after the answer.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::metrics::Registry;
use crate::prometheus::{CONTENT_TYPE, Prometheus};

/// Longest request head; Prometheus sends about 300 bytes.
pub const MAX_HEAD_BYTES: usize = 4096;

/// How long a driver waits for the rest of a request. In nanoseconds.
pub const REQUEST_NS: u64 = 5_000_000_000;

/// The state of one connection.
#[derive(Debug, Default)]
pub struct ScrapeSession {
    head: Vec<u8>,
}

impl ScrapeSession {
    /// Bytes came in. Returns the whole answer once the request is complete or can be none; the driver then closes.
    pub fn handle_input(&mut self, input: &[u8], registry: &mut Registry, vm: &str) -> Option<String> {
        let room = MAX_HEAD_BYTES.saturating_sub(self.head.len());
        self.head.extend_from_slice(input.get(..room).unwrap_or(input));
        if !self.head.windows(4).any(|end| end == b"\r\n\r\n") {
            return (self.head.len() == MAX_HEAD_BYTES)
                .then(|| refusal("431 Request Header Fields Too Large", "the request is too long\n"));
        }
        Some(match request(&self.head) {
            None => refusal("400 Bad Request", "this is no HTTP/1.1 request\n"),
            Some((_, path)) if path != "/metrics" => refusal("404 Not Found", "there is /metrics only\n"),
            Some(("GET", _)) => page(registry, vm, true),
            Some(("HEAD", _)) => page(registry, vm, false),
            Some(_) => refusal("405 Method Not Allowed\r\nAllow: GET, HEAD", "GET or HEAD\n"),
        })
    }
}

/// Method and path, without query.
fn request(head: &[u8]) -> Option<(&str, &str)> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = core::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let good = version.starts_with("HTTP/1.") && words.next().is_none();
    good.then(|| (method, target.split_once('?').map_or(target, |(path, _)| path)))
}

fn page(registry: &mut Registry, vm: &str, with_body: bool) -> String {
    let mut text = String::new();
    // Writing to a string does not fail; what is lost is for `agent` to tell, not for this answer.
    let _ = Prometheus::render(registry, vm, &mut text);
    let body = if with_body { text.as_str() } else { "" };
    answer("200 OK", CONTENT_TYPE, text.len(), body)
}

fn refusal(status: &str, why: &str) -> String {
    answer(status, "text/plain; charset=utf-8", why.len(), why)
}

fn answer(status: &str, content_type: &str, bytes: usize, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Periodic;
    use proptest::prelude::*;

    fn ask(pieces: &[&[u8]]) -> Option<String> {
        let mut registry = Registry::new();
        registry.register(Periodic::new("a", |fields| {
            fields.count("n", 1);
        }));
        let mut session = ScrapeSession::default();
        pieces.iter().find_map(|piece| session.handle_input(piece, &mut registry, "web"))
    }

    #[test]
    fn a_request_may_come_in_pieces() {
        let body = "# TYPE a_n untyped\na_n{vm=\"web\"} 1\n";
        let expected = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        let pieces: [&[u8]; 3] = [b"GET /metrics?x=", b"1 HTTP/1.1\r\nHost: a\r\n\r", b"\n"];
        assert_eq!(ask(&pieces), Some(expected));
        assert_eq!(ask(&pieces[..2]), None);
    }

    #[test]
    fn what_is_not_asked_rightly_is_refused() {
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.0\r\n\r\n", "405"),
            ("nonsense\r\n\r\n", "400"),
            ("GET /metrics HTTP/2\r\n\r\n", "400"),
        ] {
            let answer = ask(&[request.as_bytes()]).expect(request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
        let head = ask(&[b"HEAD /metrics HTTP/1.1\r\n\r\n"]).expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"));
        assert!(
            ask(&[&[b'x'; MAX_HEAD_BYTES + 1]]).is_some_and(|answer| answer.starts_with("HTTP/1.1 431 "))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..5)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            if let Some(answer) = ask(&pieces) {
                prop_assert!(answer.starts_with("HTTP/1.1 "));
            }
        }
    }
}
