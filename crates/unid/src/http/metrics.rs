//! Prometheus' `/metrics` and `/health` on `--metrics-addr`.
//!
//! Owns the routes and the choice of format by `Accept`; what is shown is `crate::metrics`' business.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::time::timeout;

use super::App;
use crate::metrics::Format;

/// A scrape waits this long for its turn.
const WAIT: Duration = Duration::from_secs(5);

/// The routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route("/metrics", get(metrics)).route("/health", get(|| async { "ok" }))
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let Ok(Ok(turn)) = timeout(WAIT, app.limits.scrapes.acquire()).await else {
        let again = [(header::RETRY_AFTER, "1")];
        return (StatusCode::SERVICE_UNAVAILABLE, again, "too many scrapes at once; try again\n")
            .into_response();
    };
    let accepted: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|a| a.to_str().ok()).collect();
    let format = Format::negotiate(&accepted.join(","));
    // with a thousand VMs this is a long text: other tasks of this thread need not wait for it
    let text = tokio::task::block_in_place(|| app.registry.render(format));
    drop(turn);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.content_type())),
        // the form depends on what was asked for
        (header::VARY, HeaderValue::from_static("accept")),
    ];
    (headers, text).into_response()
}
