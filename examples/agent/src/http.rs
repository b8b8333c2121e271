//! As much of HTTP/1.1 as the example needs: the path of a GET, and an answer after which the connection is closed.
//!
//! Owns limits of length and time. Never decides what is answered.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const MAX_HEAD_BYTES: u64 = 4096;
/// How long a client may say or take nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a request; `None` if it is no GET or takes too long.
pub(crate) fn read_path(stream: &TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut head = Vec::new();
    let mut input = io::BufReader::new(stream).take(MAX_HEAD_BYTES).bytes();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(input.next()?.ok()?);
    }
    let line = head.split(|byte| *byte == b'\r').next()?;
    let target = std::str::from_utf8(line).ok()?.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")?;
    Some(target.split('?').next().unwrap_or_default().to_owned())
}

/// Answers.
pub(crate) fn answer(mut stream: &TcpStream, status: u16, body: &str) -> io::Result<()> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        500 => "Internal Server Error",
        _ => "Service Unavailable",
    };
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = body.len();
    stream.write_all(
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .as_bytes(),
    )
}
