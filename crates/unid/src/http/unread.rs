//! Bodies of requests that were answered without being read.
//!
//! A connection cannot go on before the request's body is off it. hyper closes it then, without a word in the answer, and
//! a client that keeps connections finds out by its next request failing. Owns the reading of what is left, if that is
//! little, and the word where it is much.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as _, Frame, SizeHint};

/// Up to this much is read only to be forgotten; of more, the client is told that the connection ends.
const MAX_FORGOTTEN_BYTES: usize = 256 * 1024;
/// And for no longer than this.
const FORGETTING_TIME: Duration = Duration::from_secs(1);

/// A body that its handler has while somebody else can have what it leaves.
struct Lent(Arc<Mutex<Body>>);

impl Lent {
    fn with<T>(&self, look: impl FnOnce(Pin<&mut Body>) -> T) -> T {
        look(Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|body| body.poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}

/// Runs the handlers and takes the rest of the body off the connection.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    // who waits for leave to send has sent nothing; reading would be the leave
    let waits = parts.headers.contains_key(header::EXPECT);
    let body = Arc::new(Mutex::new(body));
    let lent = Body::new(Lent(Arc::clone(&body)));
    let mut response = next.run(Request::from_parts(parts, lent)).await;
    if !forget(&Lent(body), waits).await {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Reads to the end; whether that was reached.
async fn forget(body: &Lent, only_look: bool) -> bool {
    if body.is_end_stream() || only_look {
        return body.is_end_stream();
    }
    let reading = async {
        let mut left = MAX_FORGOTTEN_BYTES;
        loop {
            match poll_fn(|context| body.with(|body| body.poll_frame(context))).await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    let Some(rest) = left.checked_sub(bytes) else { return false };
                    left = rest;
                }
            }
        }
    };
    tokio::time::timeout(FORGETTING_TIME, reading).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn lent(pieces: Vec<Result<Bytes, std::io::Error>>) -> Lent {
        Lent(Arc::new(Mutex::new(Body::from_stream(stream::iter(pieces)))))
    }

    #[tokio::test]
    async fn a_short_rest_is_read_and_a_long_one_is_not() {
        let piece = || Ok(Bytes::from(vec![b'x'; MAX_FORGOTTEN_BYTES / 2]));
        assert!(forget(&lent(vec![piece(), piece()]), false).await);
        assert!(!forget(&lent(vec![piece(), piece(), piece()]), false).await);
        assert!(forget(&lent(vec![]), false).await);
        assert!(!forget(&lent(vec![Err(std::io::Error::other("cut"))]), false).await);
    }

    #[tokio::test]
    async fn a_client_that_waits_for_leave_is_not_given_it() {
        assert!(!forget(&lent(vec![Ok(Bytes::from("x"))]), true).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_that_does_not_come_is_not_waited_for() {
        let never = stream::pending::<Result<Bytes, std::io::Error>>();
        assert!(!forget(&Lent(Arc::new(Mutex::new(Body::from_stream(never)))), false).await);
    }
}
