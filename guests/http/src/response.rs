//! Makes answers: status line, the few header fields needed, body. Every answer closes its connection.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// An answer before it is written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code, 100 to 599.
    pub status: u16,
    /// The body, plain text.
    pub body: String,
}

impl Response {
    /// An answer whose body only names the status.
    #[must_use]
    pub fn bare(status: u16) -> Self {
        Self { status, body: format!("{status} {}\n", reason(status)) }
    }

    /// An answer with status 200.
    #[must_use]
    pub fn page(body: String) -> Self {
        Self { status: 200, body }
    }

    /// The bytes to send; `with_body` is false for HEAD.
    #[must_use]
    pub fn to_bytes(&self, with_body: bool) -> Vec<u8> {
        let allow = if self.status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{allow}\
             Connection: close\r\n\r\n",
            self.status,
            reason(self.status),
            self.body.len(),
        );
        let body = if with_body { self.body.as_bytes() } else { &[] };
        [head.as_bytes(), body].concat()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_that_of_the_body_and_head_leaves_the_body_out() {
        let response = Response::page("grüße\n".into());
        let text = String::from_utf8(response.to_bytes(true)).expect("text");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(text.contains("\r\nContent-Length: 8\r\n"));
        assert!(text.ends_with("\r\nConnection: close\r\n\r\ngrüße\n"));
        let head = String::from_utf8(response.to_bytes(false)).expect("text");
        assert!(text.starts_with(&head) && head.ends_with("\r\n\r\n"));
    }

    #[test]
    fn a_refused_method_names_those_allowed() {
        let text = String::from_utf8(Response::bare(405).to_bytes(true)).expect("text");
        assert!(text.contains("\r\nAllow: GET, HEAD\r\n"));
    }
}
