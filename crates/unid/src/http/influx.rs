//! InfluxDB 1.x's HTTP API on `--api-addr`: `/write`, `/query`, `/ping` and `/health`; also the writing of lines for the
//! later versions ([`super::lines`]).
//!
//! Owns parameters, status codes and error shapes, so that InfluxDB's clients and Grafana connect unmodified.
//! Parsing lines, storing and querying are the libraries' business.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::time::timeout;
use tower_http::decompression::RequestDecompressionLayer;
use uni_query::{Changes, Epoch, Limits, Request, Source as _};
use uni_store::LineOptions;
use uni_wire::line::{Mode, Precision};

use super::body::{MAX_BODY_BYTES, Refusal, WAIT, in_turn};
use super::{App, body, lines};
use crate::clock;
use crate::ingest::{Durable, Lines};
use crate::storage::told;

/// The version that clients and Grafana's health check are told; they choose their dialect by it.
const INFLUX_VERSION: &str = "1.8.10";
/// A query that runs longer is cut off.
const QUERY_SECONDS: u64 = 30;
/// Rows in each document of a chunked answer when the request names none, as in InfluxDB.
const DEFAULT_CHUNK_ROWS: usize = 10_000;

/// The routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/ping", get(ping).head(ping))
        .route("/query", get(query).post(query))
        .route("/write", post(write))
        .route("/api/v2/write", post(lines::write_v2))
        .route("/api/v3/write_lp", post(lines::write_v3))
        .layer(RequestDecompressionLayer::new())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// InfluxDB's `/health`, for a listener that has no other.
pub(super) fn health_route() -> Router<Arc<App>> {
    Router::new().route("/health", get(health))
}

async fn ping(RawQuery(raw): RawQuery) -> Response {
    let verbose = parameters(raw.as_deref().unwrap_or_default()).get("verbose").is_some_and(|v| v != "false");
    if verbose {
        return with_headers(Json(json!({ "version": INFLUX_VERSION })).into_response());
    }
    with_headers(StatusCode::NO_CONTENT.into_response())
}

async fn health() -> Response {
    let body = json!({
        "name": "influxdb", "message": "ready for queries and writes", "status": "pass", "version": INFLUX_VERSION,
    });
    with_headers(Json(body).into_response())
}

/// `q` and the other parameters may stand in the URL or in a form; the form's win, as in InfluxDB.
async fn query(
    State(app): State<Arc<App>>,
    method: Method,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Ok(body) = body else {
        let message = "the body cannot be read: too long, or not what its encoding says";
        return influx_error(StatusCode::BAD_REQUEST, message);
    };
    let mut parameters = parameters(raw.as_deref().unwrap_or_default());
    let form = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    if form {
        parameters.extend(self::parameters(&String::from_utf8_lossy(&body)));
    }
    let Some(text) = parameters.remove("q").filter(|q| !q.is_empty()) else {
        return influx_error(StatusCode::BAD_REQUEST, "missing required parameter \"q\"");
    };
    let Ok(Ok(turn)) = timeout(WAIT, app.limits.queries.acquire()).await else {
        return refused(&Refusal::busy("queries"));
    };
    // a page from elsewhere can make a browser send a GET: it may add, and not take away
    let changes = if method == Method::POST { Changes::All } else { Changes::Additions };
    // the engine is synchronous and may take seconds: never on a task that others wait for
    let worker = Arc::clone(&app);
    let answer = tokio::task::spawn_blocking(move || run_query(&worker, &text, &parameters, changes)).await;
    drop(turn);
    answer.unwrap_or_else(|_| {
        influx_error(StatusCode::INTERNAL_SERVER_ERROR, "the query failed inside unid; its log says why")
    })
}

fn run_query(app: &App, text: &str, parameters: &HashMap<String, String>, changes: Changes) -> Response {
    let started = Instant::now();
    let cancelled = || started.elapsed().as_secs() >= QUERY_SECONDS;
    let limits = Limits { cancelled: Some(&cancelled), ..Limits::default() };
    let request =
        Request { text, db: parameters.get("db").map(String::as_str), now: clock::now(), limits, changes };
    match uni_query::execute(&*app.storage, &request) {
        Ok(response) => {
            let epoch = parameters.get("epoch").and_then(|unit| Epoch::parse(unit));
            let pretty = parameters.get("pretty").is_some_and(|v| v == "true");
            let chunked = parameters.get("chunked").is_some_and(|v| v == "true");
            let rows =
                parameters.get("chunk_size").and_then(|n| n.parse().ok()).unwrap_or(DEFAULT_CHUNK_ROWS);
            let documents = match chunked {
                true => response.to_json_chunks(epoch, pretty, rows),
                false => vec![response.to_json(epoch, pretty)],
            };
            let body: String =
                documents.into_iter().flat_map(|document| [document, "\n".to_owned()]).collect();
            with_headers(([(header::CONTENT_TYPE, "application/json")], body).into_response())
        }
        Err(error) => influx_error(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn write(
    State(app): State<Arc<App>>,
    RawQuery(raw): RawQuery,
    request: axum::extract::Request,
) -> Response {
    let mut parameters = parameters(raw.as_deref().unwrap_or_default());
    let precision =
        parameters.get("precision").map_or(Precision::Nanoseconds, |unit| Precision::from_query(unit));
    let mut take = |name| parameters.remove(name).unwrap_or_default();
    let target = Target { database: take("db"), policy: take("rp"), precision };
    match write_lines(&app, target, request).await {
        Ok(()) => with_headers(StatusCode::NO_CONTENT.into_response()),
        Err(refusal) => refused(&refusal),
    }
}

/// Where lines go, and how their times are meant.
pub(super) struct Target {
    pub(super) database: String,
    /// The retention policy; empty for the default one.
    pub(super) policy: String,
    pub(super) precision: Precision,
}

/// Stores the lines of a request, whichever version of the API it came by.
pub(super) async fn write_lines(
    app: &Arc<App>,
    target: Target,
    request: axum::extract::Request,
) -> Result<(), Refusal> {
    if target.database.is_empty() {
        return Err(Refusal::bad("database is required"));
    }
    may_write(app, &target.database)?;
    let place = app.storage.writable(&target.database, &target.policy);
    let place = place.map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let body = body::read(app, request, MAX_BODY_BYTES).await?;
    let bytes = body.bytes.clone();
    in_turn(app, move |app| run_write(app, &place, target.precision, &bytes)).await?
}

/// With `--auto-create=false` only databases that exist are written to.
pub(super) fn may_write(app: &App, database: &str) -> Result<(), Refusal> {
    if app.auto_create || app.storage.has_database(database) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::NOT_FOUND, format!("database not found: {database:?}")))
}

fn refused(refusal: &Refusal) -> Response {
    let mut response = influx_error(refusal.status, &refusal.message);
    if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Stores the good lines and lists the bad ones.
fn run_write(app: &App, database: &str, precision: Precision, body: &[u8]) -> Result<(), Refusal> {
    let options = LineOptions {
        mode: Mode::Strict,
        precision,
        now: clock::now(),
        tag: None,
        max_line_bytes: None,
        watched: None,
    };
    match app.ingest.append_lines(database, body, &options, Durable::AsConfigured) {
        Ok(lines) => answer(&lines),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, told(&error))),
    }
}

/// As InfluxDB says it: nothing when all is well, the bad lines alone when none was good, else a partial write.
fn answer(lines: &Lines) -> Result<(), Refusal> {
    if lines.complaints.is_empty() {
        return Ok(());
    }
    // what is said of a point without naming it is said once
    let mut complaints = lines.complaints.clone();
    complaints.dedup();
    let complaints = complaints.join("\n");
    if lines.appended.accepted + lines.appended.refused == 0 {
        return Err(Refusal::bad(complaints));
    }
    let dropped = lines.appended.refused;
    Err(Refusal::bad(format!("partial write: {complaints} dropped={dropped}")))
}

/// A URL query or a form as a map; of repeated keys the last counts.
pub(super) fn parameters(text: &str) -> HashMap<String, String> {
    serde_urlencoded::from_str::<Vec<(String, String)>>(text).unwrap_or_default().into_iter().collect()
}

/// Adds the headers by which clients know what they talk to.
pub(super) fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert("X-Influxdb-Build", HeaderValue::from_static("OSS"));
    headers.insert("X-Influxdb-Version", HeaderValue::from_static(INFLUX_VERSION));
    response
}

pub(super) fn influx_error(status: StatusCode, message: &str) -> Response {
    let mut body = json!({ "error": message }).to_string();
    body.push('\n');
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    let one_line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
    if let Ok(value) = HeaderValue::from_str(&one_line) {
        response.headers_mut().insert("X-Influxdb-Error", value);
    }
    with_headers(response)
}
