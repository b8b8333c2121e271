//! What the HTTP listeners count: connections, requests by route and code, refusals.
//!
//! Owns the counters and the middleware that feeds them. A route is one of a few classes, so that no client can make
//! up series.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::MAX_CONNECTIONS;
use crate::metrics::{Family, seconds};

/// The counters of all HTTP listeners.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    listeners: Mutex<Vec<Arc<ListenerFigures>>>,
    unauthorized: AtomicU64,
}

/// The counters of one listener.
#[derive(Debug)]
pub(super) struct ListenerFigures {
    /// What it serves: `api`, `ui`, `metrics`, or several joined by `+`.
    name: String,
    open: AtomicU64,
    refused: [AtomicU64; 3],
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    by_code: BTreeMap<(&'static str, u16), u64>,
    /// Time and number, by route.
    time: BTreeMap<&'static str, (Duration, u64)>,
}

/// Why a connection was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// All places were taken.
    Limit,
    /// A guest came over its service link.
    Guest,
    /// The TLS handshake failed or did not end in time.
    Handshake,
}

impl Refused {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Limit, "limit"), (Self::Guest, "guest"), (Self::Handshake, "handshake")];
}

impl Figures {
    /// A listener's counters.
    pub(super) fn listener(&self, name: &str) -> Arc<ListenerFigures> {
        let figures = Arc::new(ListenerFigures {
            name: name.to_owned(),
            open: AtomicU64::new(0),
            refused: Default::default(),
            requests: Mutex::default(),
        });
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&figures));
        figures
    }

    /// A request had no credentials, or wrong ones.
    pub(super) fn unauthorized(&self) {
        self.unauthorized.fetch_add(1, Relaxed);
    }

    /// The metrics of this moment.
    pub(crate) fn families(&self) -> [Family; 6] {
        let mut requests = Family::counter(
            "uni_http_requests_total",
            "HTTP requests answered, by listener, class of route and status code.",
        );
        let mut time = Family::summary(
            "uni_http_request_duration_seconds",
            "HTTP requests and the time until their answers began, by listener and class of route.",
        );
        let mut open = Family::gauge("uni_http_connections", "HTTP connections that are open, by listener.");
        let mut refused = Family::counter(
            "uni_http_refused_connections_total",
            "HTTP connections not served, by listener and reason: limit, guest, handshake.",
        );
        let mut most =
            Family::gauge("uni_http_max_connections", "HTTP connections that may be open, by listener.");
        for listener in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let name = ("listener", listener.name.as_str());
            open.add(&[name], listener.open.load(Relaxed));
            most.add(&[name], MAX_CONNECTIONS as u64);
            for (why, reason) in Refused::ALL {
                refused.add(&[name, ("reason", reason)], listener.refused[why as usize].load(Relaxed));
            }
            let counted = listener.requests.lock().unwrap_or_else(PoisonError::into_inner);
            for (&(route, code), &count) in &counted.by_code {
                requests.add(&[name, ("route", route), ("code", &code.to_string())], count);
            }
            for (&route, &(sum, count)) in &counted.time {
                let nanos = u64::try_from(sum.as_nanos()).unwrap_or(u64::MAX);
                time.add_sum(&[name, ("route", route)], seconds(nanos), count);
            }
        }
        let unauthorized = Family::counter(
            "uni_http_unauthorized_total",
            "HTTP requests refused because they gave no token or a wrong one.",
        )
        .with(&[], self.unauthorized.load(Relaxed));
        [requests, time, open, most, refused, unauthorized]
    }
}

impl ListenerFigures {
    /// A connection was not served.
    pub(super) fn refused(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    /// A connection is served until the result is dropped.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Relaxed);
        Open(Arc::clone(self))
    }

    fn answered(&self, route: &'static str, code: u16, time: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.by_code.entry((route, code)).or_default() += 1;
        let (sum, count) = requests.time.entry(route).or_default();
        *sum = sum.saturating_add(time);
        *count += 1;
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Open(Arc<ListenerFigures>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Counts each request when its answer begins.
pub(super) async fn count(
    State(figures): State<Arc<ListenerFigures>>,
    request: Request,
    next: Next,
) -> Response {
    let route = route(request.uri().path());
    let start = Instant::now();
    let response = next.run(request).await;
    figures.answered(route, response.status().as_u16(), start.elapsed());
    response
}

/// The class of route that a path belongs to.
fn route(path: &str) -> &'static str {
    match path {
        "/metrics" => "metrics",
        "/health" => "health",
        "/ping" => "ping",
        "/query" => "query",
        "/write" | "/api/v2/write" | "/api/v3/write_lp" => "write",
        "/api/v1/write" | "/api/v1/prom/write" => "remote_write",
        "/v1/metrics" | super::otlp::EXPORT => "otlp",
        "/" | "/ui" => "page",
        _ if path.starts_with("/ui/api/") && path.ends_with("/stream") => "page_stream",
        _ if path.starts_with("/ui/api/") => "page_api",
        _ if path.starts_with("/ui/") => "page",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_path_makes_no_series() {
        for (path, class) in [
            ("/ui/api/vm/web/stream", "page_stream"),
            ("/ui/api/vm/web/stats", "page_api"),
            ("/ui/vm/web", "page"),
            ("/ui/assets/x.js", "page"),
            ("/uix", "other"),
            ("/query/x", "other"),
        ] {
            assert_eq!(route(path), class, "{path}");
        }
    }
}
