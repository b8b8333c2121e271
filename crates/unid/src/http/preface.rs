//! Which HTTP a connection in clear text speaks: gRPC clients begin with HTTP/2 at once.
//!
//! Owns the look at its first bytes, which stay where they are. Under TLS the handshake says it.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::HEAD_TIMEOUT;

/// How a connection preface of HTTP/2 begins (RFC 9113, section 3.4); no method of HTTP/1 does.
const PREFACE: &[u8; 4] = b"PRI ";
/// While only a part of it is there, it is looked for again after this.
const AGAIN: Duration = Duration::from_millis(20);

/// The version of HTTP that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// Waits for the first bytes; nothing if they do not come in time.
pub(super) async fn version(stream: &TcpStream) -> Option<Version> {
    timeout(HEAD_TIMEOUT, look(stream)).await.ok().flatten()
}

async fn look(stream: &TcpStream) -> Option<Version> {
    let mut first = [0; PREFACE.len()];
    loop {
        let n = stream.peek(&mut first).await.ok().filter(|n| *n > 0)?;
        match judge(&first[..n]) {
            Some(version) => return Some(version),
            // what is there is there at the next look too: there is no waiting for more
            None => sleep(AGAIN).await,
        }
    }
}

/// The version, as soon as the bytes tell it.
fn judge(first: &[u8]) -> Option<Version> {
    if !PREFACE.starts_with(first) {
        return Some(Version::Http1);
    }
    (first.len() == PREFACE.len()).then_some(Version::Http2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_four_bytes_tell() {
        for (first, version) in [
            (&b"P"[..], None),
            (b"PR", None),
            (b"PRI", None),
            (b"PRI ", Some(Version::Http2)),
            (b"PO", Some(Version::Http1)),
            (b"PROP", Some(Version::Http1)),
            (b"G", Some(Version::Http1)),
        ] {
            assert_eq!(judge(first), version, "{first:?}");
        }
    }
}
