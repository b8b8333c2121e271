//! The page under `/ui` and its JSON API.
//!
//! Owns routes, the embedded files and the server-sent events. Everything here reads; nothing changes a VM.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream, StreamExt as _};
use rust_embed::RustEmbed;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::wrappers::IntervalStream;
use tower_http::set_header::SetResponseHeaderLayer;
use uni_api::page::{ConsoleChunk, Overview, OverviewVm, Points};
use uni_api::vm::{Logs, VmDetail};

use super::{App, charts};
use crate::clock;
use crate::live::Event;

/// Scripts and styles come from this origin alone, and nobody may frame the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
                                       form-action 'none'; frame-ancestors 'none'";
/// How often the list page gets a new overview, and an open VM page looks for console output.
const TICK: Duration = Duration::from_secs(1);
/// A figure older than this is not shown as current.
const STALE_MS: i64 = 30_000;
/// The longest console tail given at once.
const MAX_TAIL_BYTES: u64 = 1024 * 1024;
/// How far back to look for where a stream of the console begins: more than a line of a stack trace is long.
const STREAM_START_BYTES: u64 = 64;
/// The console tail when none is named.
const DEFAULT_TAIL_BYTES: u64 = 16 * 1024;
/// The charts' range when none is named: 15 minutes.
const DEFAULT_RANGE_SECONDS: i64 = 900;

/// The built page. Empty when it was not built before the daemon; `/ui` then says how to build it.
#[derive(RustEmbed)]
#[folder = "../../web/dist"]
#[allow_missing = true]
struct Page;

/// The routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/ui") }))
        .route("/ui", get(|| async { file("index.html") }))
        .route("/ui/", get(|| async { file("index.html") }))
        .route("/ui/vm/{id}", get(vm_page))
        .route("/ui/api/overview", get(overview))
        .route("/ui/api/overview/stream", get(overview_stream))
        .route("/ui/api/vms", get(vms))
        .route("/ui/api/vm/{id}", get(vm))
        .route("/ui/api/vm/{id}/logs", get(logs))
        .route("/ui/api/vm/{id}/stats", get(stats))
        .route("/ui/api/vm/{id}/charts", get(vm_charts))
        .route("/ui/api/vm/{id}/console", get(console))
        .route("/ui/api/vm/{id}/stream", get(vm_stream))
        .route("/ui/{*path}", get(|uri: Uri| async move { file(uri.path().trim_start_matches("/ui/")) }))
        .layer(header_layer(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .layer(header_layer(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header_layer(header::REFERRER_POLICY, "no-referrer"))
}

fn header_layer(name: header::HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// A file of the page; names with a hash in them never change.
fn file(path: &str) -> Response {
    let Some(found) = Page::get(path) else {
        if Page::get("index.html").is_none() {
            return (StatusCode::NOT_FOUND, NOT_BUILT).into_response();
        }
        return (StatusCode::NOT_FOUND, "no such page\n").into_response();
    };
    let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let kind = content_type(path);
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], found.data.into_owned()).into_response()
}

const NOT_BUILT: &str = "This unid was compiled without its page. Build both with `cargo xtask build`.\n";

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

/// Compact JSON and a newline.
fn json_line(status: StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn ok(value: &impl serde::Serialize) -> Response {
    json_line(StatusCode::OK, value)
}

fn not_found() -> Response {
    json_line(StatusCode::NOT_FOUND, &json!({ "error": "vm not found" }))
}

async fn vm_page(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    if app.manager.find(&id).is_err() {
        return (StatusCode::NOT_FOUND, "vm not found\n").into_response();
    }
    if Page::get("vm.html").is_some() { file("vm.html") } else { file("index.html") }
}

async fn vms(State(app): State<Arc<App>>) -> Response {
    let or_dash = |name: &str| if name.is_empty() { "-".to_owned() } else { name.to_owned() };
    let list = app.manager.list().into_iter().map(|vm| {
        json!({ "id": vm.id, "name": or_dash(&vm.name), "state": vm.state, "image": vm.image, "health": vm.health })
    });
    ok(&list.collect::<Vec<_>>())
}

async fn vm(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let Ok(vm) = app.manager.find(&id) else { return not_found() };
    ok(&contract_detail(vm.detail()))
}

/// A VM's detail as the dashboard's API writes it: every key present but `env` and `ports`.
fn contract_detail(detail: VmDetail) -> Value {
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let mut object = json!({
        "id": detail.id, "name": dash(detail.name), "state": detail.state, "image": detail.image,
        "memory": detail.memory, "cpus": detail.cpus, "health": dash(detail.health), "restart_policy": "",
        "restart_count": detail.restart_count, "created_at": detail.created_at, "started_at": detail.started_at,
        "stopped_at": detail.stopped_at, "ip_address": "", "gateway_ip": "",
    });
    if !detail.ports.is_empty() {
        object["ports"] = json!(detail.ports);
    }
    object
}

async fn logs(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let Ok(vm) = app.manager.find(&id) else { return not_found() };
    match vm.logs_tail(MAX_TAIL_BYTES).await {
        Ok(logs) => ok(&json!({ "id": logs.id, "logs": logs.logs })),
        Err(error) => failed(&error),
    }
}

async fn stats(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let Ok(vm) = app.manager.find(&id) else { return not_found() };
    ok(&app.manager.stats(&vm))
}

#[derive(Deserialize)]
struct ChartsQuery {
    seconds: Option<i64>,
}

async fn vm_charts(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<ChartsQuery>,
) -> Response {
    let Ok(vm) = app.manager.find(&id) else { return not_found() };
    let seconds = query.seconds.unwrap_or(DEFAULT_RANGE_SECONDS);
    let answer = tokio::task::spawn_blocking(move || charts::charts(&app, vm.name(), seconds)).await;
    match answer {
        Ok(charts) => ok(&charts),
        Err(error) => failed(&anyhow::Error::new(error)),
    }
}

#[derive(Deserialize)]
struct ConsoleQuery {
    tail: Option<u64>,
}

async fn console(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<ConsoleQuery>,
) -> Response {
    let Ok(vm) = app.manager.find(&id) else { return not_found() };
    let tail = query.tail.unwrap_or(DEFAULT_TAIL_BYTES).min(MAX_TAIL_BYTES);
    match vm.logs_tail(tail).await {
        Ok(logs) => ok(&chunk(logs)),
        Err(error) => failed(&error),
    }
}

fn chunk(logs: Logs) -> ConsoleChunk {
    ConsoleChunk { from: logs.from, next: logs.next, text: logs.logs }
}

fn failed(error: &anyhow::Error) -> Response {
    json_line(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": format!("{error:#}") }))
}

async fn overview(State(app): State<Arc<App>>) -> Response {
    ok(&make_overview(&app))
}

fn make_overview(app: &App) -> Overview {
    let oldest = clock::now().nanos().div_euclid(1_000_000) - STALE_MS;
    let vms = app.manager.list().into_iter().map(|vm| {
        let latest = |key: &str| app.live.latest(&vm.name, key, oldest);
        OverviewVm {
            cpu_pct: latest("cpu_pct"),
            mem_bytes: latest("host_memory_bytes").map(whole),
            guest_heap_bytes: latest("guest_live_bytes").map(whole),
            net_rx_bps: latest("net_rx_bps:service"),
            net_tx_bps: latest("net_tx_bps:service"),
            started_at: app.manager.find(&vm.id).map(|vm| vm.started_at()).unwrap_or_default(),
            id: vm.id,
            name: vm.name,
            state: vm.state,
            health: vm.health,
            image: vm.image,
        }
    });
    Overview { version: env!("CARGO_PKG_VERSION").to_owned(), vms: vms.collect() }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float to integer cast saturates"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

/// An event stream, if there is a place for one; the place is given back when the page goes.
fn events(app: &App, stream: impl Stream<Item = SseEvent> + Send + 'static) -> Response {
    let Ok(place) = Arc::clone(&app.limits.streams).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open; close some\n").into_response();
    };
    let stream = stream.map(move |event| {
        let _held = &place;
        Ok::<_, Infallible>(event)
    });
    Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}

fn event(name: &str, data: &impl serde::Serialize) -> SseEvent {
    // these shapes always serialise; an event without data is ignored by browsers
    SseEvent::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}

async fn overview_stream(State(app): State<Arc<App>>) -> Response {
    let ticks = IntervalStream::new(tokio::time::interval(TICK));
    let limits = Arc::clone(&app);
    events(&limits, ticks.map(move |_| event("overview", &make_overview(&app))))
}

/// Points, marks and states as they are made, and what the console printed since the last tick.
async fn vm_stream(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let Ok(vm) = app.manager.find(&id) else { return not_found() };
    let name = vm.name().to_owned();
    let happenings = stream::unfold((app.live.subscribe(), name), |(mut receiver, name)| async move {
        loop {
            match receiver.recv().await {
                Ok(happening) => {
                    if let Some(event) = page_event(happening, &name) {
                        return Some((event, (receiver, name)));
                    }
                }
                // a page that lagged lost some points; it shows a gap until it asks for the charts again
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    // not the very end: an unfinished line of a stack trace is left out of the tail that the page fetches, too
    let start = vm.logs_tail(STREAM_START_BYTES).await.map_or_else(|_| vm.console_end(), |tail| tail.next);
    let ticks = IntervalStream::new(tokio::time::interval(TICK));
    let console = stream::unfold((ticks, vm, start), |(mut ticks, vm, from)| async move {
        loop {
            ticks.next().await?;
            let Ok(logs) = vm.logs_from(from, MAX_TAIL_BYTES).await else { continue };
            if logs.next > logs.from {
                let next = logs.next;
                return Some((event("console", &chunk(logs)), (ticks, vm, next)));
            }
        }
    });
    events(&app, stream::select(happenings, console))
}

fn page_event(happening: Event, name: &str) -> Option<SseEvent> {
    match happening {
        Event::Points { vm, points } if vm == name => {
            let points = points.into_iter().map(|(key, time, value)| (key.to_owned(), time, value)).collect();
            Some(event("points", &Points { points }))
        }
        Event::Mark { vm, mark } if vm == name => Some(event("mark", &mark)),
        Event::State { vm, state } if vm == name => {
            Some(event("state", &json!({ "state": state, "health": "" })))
        }
        _ => None,
    }
}
