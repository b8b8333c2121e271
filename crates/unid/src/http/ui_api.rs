//! The JSON API of the page, under `/ui/api`.
//!
//! Owns routes, parameters and their bounds, the server-sent events, and the OpenAPI document made from the handlers.
//! Everything here reads; what changes something is in [`ui_control`](super::ui_control) and [`ui_traces`](super::ui_traces).

use std::collections::HashSet;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::wrappers::IntervalStream;
use uni_api::page::{
    Charts, ConsoleChunk, Detail, Limits, ListedVm, LogTail, Overview, OverviewVm, Points, Refusal, Sender,
};
use uni_api::vm::{Logs, Stats, VmDetail};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::ui_control::{__path_change_vm_control, __path_vm_control, change_vm_control, vm_control};
use super::ui_traces::{
    __path_all_libraries, __path_take_vm_trace, __path_vm_flame, __path_vm_libraries, __path_vm_traces,
    all_libraries, take_vm_trace, vm_flame, vm_libraries, vm_traces,
};
use super::{App, charts};
use crate::clock;
use crate::live::Event;
use crate::vms::console::MAX_TAIL_BYTES;
use crate::vms::{FindError, Vm, secrets};

/// How often the list page gets a new overview, and an open VM page looks for console output.
const TICK: Duration = Duration::from_secs(1);
/// A figure older than this is not shown as current.
const STALE_MS: i64 = 30_000;
/// A sender that is no VM is listed for so long after its newest point.
const GONE_MS: i64 = 3_600_000;
/// The longest piece of console sent at once in an event or to the page.
const MAX_CHUNK_BYTES: u64 = 1024 * 1024;
/// How far back to look for where a stream of the console begins: more than a line of a stack trace is long.
const STREAM_START_BYTES: u64 = 64;
/// The page's piece of console when its length is not named.
const DEFAULT_CHUNK_BYTES: u64 = 16 * 1024;
/// The tail of the logs when its length is not named.
const DEFAULT_TAIL_BYTES: u64 = 64 * 1024;
/// Longer tails are sent to few clients at one time.
const LONG_TAIL_BYTES: u64 = 256 * 1024;
/// Pieces in which a long tail is sent: what waits for a slow client is not all of it.
const PIECE_BYTES: usize = 64 * 1024;
/// The charts' range when none is named: 15 minutes.
const DEFAULT_RANGE_SECONDS: u64 = 900;
/// The charts' shortest and longest range: a minute, a year.
const RANGE_SECONDS: RangeInclusive<u64> = 60..=366 * 86_400;
/// As much of a refused value as a message repeats.
const SHOWN_CHARS: usize = 40;

/// The routes.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/ui/api/openapi.json", get(openapi))
        .route("/ui/api/overview", get(overview))
        .route("/ui/api/overview/stream", get(overview_stream))
        .route("/ui/api/vms", get(vms))
        .route("/ui/api/vm/{id}", get(vm))
        .route("/ui/api/vm/{id}/logs", get(logs))
        .route("/ui/api/vm/{id}/stats", get(stats))
        .route("/ui/api/vm/{id}/charts", get(vm_charts))
        .route("/ui/api/vm/{id}/console", get(console))
        .route("/ui/api/vm/{id}/control", get(vm_control).post(change_vm_control))
        .route("/ui/api/vm/{id}/traces", get(vm_traces).post(take_vm_trace))
        .route("/ui/api/vm/{id}/traces/{name}/flame", get(vm_flame))
        .route("/ui/api/vm/{id}/libraries", get(vm_libraries))
        .route("/ui/api/libraries", get(all_libraries))
        .route("/ui/api/vm/{id}/stream", get(vm_stream))
        .route("/ui/api/{*path}", any(no_such_path))
}

/// The description of all this, for machines.
#[derive(OpenApi)]
#[openapi(
    info(title = "Uni dashboard", description = "What the page under /ui asks for. Everything is read but what a guest logs and measures, and that heap traces can be taken."),
    paths(
        overview, overview_stream, vms, vm, logs, stats, vm_charts, console, vm_control, change_vm_control, vm_stream,
        vm_traces, take_vm_trace, vm_flame, vm_libraries, all_libraries
    ),
    components(schemas(Refusal)),
    modifiers(&GuardAnswers)
)]
struct Description;

/// What stands before every handler: who may ask.
struct GuardAnswers;

impl Modify for GuardAnswers {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let foreign = ResponseBuilder::new()
            .description("`Host` is neither an address nor `localhost`: another site's page may be asking")
            .content("text/plain", ContentBuilder::new().build())
            .build();
        let stranger = ResponseBuilder::new()
            .description("The daemon has a token, and the request has not")
            .content(JSON, ContentBuilder::new().schema(Some(Ref::from_schema_name("Refusal"))).build())
            .build();
        for operation in document.paths.paths.values_mut().filter_map(|item| item.get.as_mut()) {
            let responses = &mut operation.responses.responses;
            responses.insert("401".to_owned(), stranger.clone().into());
            responses.insert("403".to_owned(), foreign.clone().into());
        }
        for operation in document.paths.paths.values_mut().filter_map(|item| item.post.as_mut()) {
            let responses = &mut operation.responses.responses;
            responses.insert("401".to_owned(), stranger.clone().into());
        }
    }
}

async fn openapi() -> Response {
    static DOCUMENT: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(Description::openapi);
    ok(&*DOCUMENT)
}

/// Compact JSON and a newline.
fn json_line(status: StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, JSON)], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

const JSON: &str = "application/json";

pub(super) fn ok(value: &impl serde::Serialize) -> Response {
    json_line(StatusCode::OK, value)
}

/// A request without another answer.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) refusal: Refusal,
}

impl Refused {
    pub(super) fn new(status: StatusCode, error: String) -> Self {
        Self { status, refusal: Refusal { error } }
    }

    pub(super) fn bad_request(error: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        json_line(self.status, &self.refusal)
    }
}

impl From<FindError> for Refused {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Ambiguous(_) => Self::new(StatusCode::CONFLICT, error.to_string()),
            FindError::NotFound(_) | FindError::Unnamed => {
                Self::new(StatusCode::NOT_FOUND, "vm not found".to_owned())
            }
        }
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
    }
}

/// The VM that the path names.
pub(super) struct Named(pub(super) Arc<Vm>);

impl FromRequestParts<Arc<App>> for Named {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refused> {
        let id = Path::<String>::from_request_parts(parts, app).await;
        let Path(id) = id.map_err(|error| Refused::bad_request(error.body_text()))?;
        Ok(Self(app.manager.find(&id)?))
    }
}

/// The parameters of the query.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refused> {
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(asked)| Self(asked)).map_err(|error| Refused::bad_request(error.body_text()))
    }
}

/// A parameter that is a whole number, or its default.
fn whole_number(
    name: &str,
    text: Option<&str>,
    default: u64,
    range: RangeInclusive<u64>,
) -> Result<u64, Refused> {
    let Some(text) = text else { return Ok(default) };
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        let shown: String = text.chars().take(SHOWN_CHARS).collect();
        let (least, most) = range.into_inner();
        Refused::bad_request(format!("{name}={shown}: not a whole number from {least} to {most}"))
    })
}

/// How far back, in seconds.
pub(super) fn range_of(text: Option<&str>) -> Result<i64, Refused> {
    let seconds = whole_number("seconds", text, DEFAULT_RANGE_SECONDS, RANGE_SECONDS)?;
    Ok(i64::try_from(seconds).unwrap_or(i64::MAX))
}

async fn no_such_path(uri: Uri) -> Refused {
    let shown: String = uri.path().chars().take(SHOWN_CHARS).collect();
    Refused::new(StatusCode::NOT_FOUND, format!("{shown}: no such path; /ui/api/openapi.json lists them"))
}

/// The VMs, by name.
#[utoipa::path(get, path = "/ui/api/vms", responses((status = 200, body = Vec<ListedVm>, description = "All VMs")))]
async fn vms(State(app): State<Arc<App>>) -> Response {
    ok(&listed(&app))
}

/// The VMs as the contract lists them.
pub(super) fn listed(app: &App) -> Vec<ListedVm> {
    let listed = app.manager.list().into_iter().map(|vm| ListedVm {
        id: vm.id,
        name: or_dash(vm.name),
        state: vm.state,
        image: vm.image,
        health: vm.health,
    });
    listed.collect()
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// One VM: configuration, health, restarts, ports, environment.
#[utoipa::path(
    get,
    path = "/ui/api/vm/{id}",
    params(("id" = String, Path, description = "Id, name, or the beginning of one id")),
    responses(
        (status = 200, body = Detail, description = "The VM"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8"),
        (status = 404, body = Refusal, description = "No such VM"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
    )
)]
async fn vm(Named(vm): Named) -> Response {
    ok(&described(vm.detail()))
}

/// A VM as the contract describes it.
pub(super) fn described(vm: VmDetail) -> Detail {
    Detail {
        id: vm.id,
        name: or_dash(vm.name),
        state: vm.state,
        image: vm.image,
        memory: vm.memory,
        cpus: vm.cpus,
        health: or_dash(vm.health),
        restart_policy: vm.restart_policy,
        restart_count: vm.restart_count,
        created_at: vm.created_at,
        started_at: vm.started_at,
        stopped_at: vm.stopped_at,
        ip_address: vm.ip_address,
        gateway_ip: vm.gateway_ip,
        env: vm.env,
        ports: vm.ports,
        machine: vm.machine,
        accelerator: vm.accelerator,
        args: vm.args.iter().map(|arg| secrets::shown(arg)).collect(),
        daemon_recovered: vm.daemon_recovered,
        exit: vm.exit,
        limits: Limits {
            cpu_shares: vm.cpu_shares,
            memory_max: vm.memory_max,
            disk_iops: vm.disk_iops,
            disk_bps: vm.disk_bps,
        },
    }
}

#[derive(Deserialize)]
struct TailQuery {
    tail: Option<String>,
}

/// The end of one VM's serial console.
#[utoipa::path(
    get,
    path = "/ui/api/vm/{id}/logs",
    params(
        ("id" = String, Path, description = "Id, name, or the beginning of one id"),
        ("tail" = Option<u64>, Query, minimum = 0, maximum = 4_194_304, description = "Bytes from the end of the console; 65536 if not given"),
    ),
    responses(
        (status = 200, body = LogTail, description = "The console's end; what is not UTF-8 is U+FFFD"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8, or not a number of bytes"),
        (status = 404, body = Refusal, description = "No such VM"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
        (status = 503, body = Refusal, description = "Too many tails of more than 256 KiB are being sent"),
    )
)]
async fn logs(
    State(app): State<Arc<App>>,
    Named(vm): Named,
    Asked(query): Asked<TailQuery>,
) -> Result<Response, Refused> {
    let max = whole_number("tail", query.tail.as_deref(), DEFAULT_TAIL_BYTES, 0..=MAX_TAIL_BYTES)?;
    let place = Arc::clone(&app.limits.long_tails);
    let place = (max > LONG_TAIL_BYTES).then(|| place.try_acquire_owned()).transpose().map_err(|_| {
        let hint =
            format!("long tails are being sent to others; ask for at most {LONG_TAIL_BYTES} bytes, or later");
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, hint)
    })?;
    let logs = vm.logs_tail(max).await?;
    let answer = ok(&LogTail { id: logs.id, logs: logs.logs });
    Ok(match place {
        None => answer,
        Some(place) => in_pieces(answer, place).await,
    })
}

/// The answer sent piece by piece; `held` is given back when all is sent, or the client gone.
async fn in_pieces(answer: Response, held: impl Send + 'static) -> Response {
    let (parts, body) = answer.into_parts();
    let whole = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let pieces = stream::unfold((whole, held), |(mut rest, held)| async move {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        (!piece.is_empty()).then_some((Ok::<Bytes, Infallible>(piece), (rest, held)))
    });
    let mut answer = Response::from_parts(parts, Body::from_stream(pieces.fuse()));
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    answer
}

/// The newest figures of one VM, seen from outside; zeros with source `fallback` when it is not measured.
#[utoipa::path(
    get,
    path = "/ui/api/vm/{id}/stats",
    params(("id" = String, Path, description = "Id, name, or the beginning of one id")),
    responses(
        (status = 200, body = Stats, description = "The figures"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8"),
        (status = 404, body = Refusal, description = "No such VM"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
    )
)]
async fn stats(State(app): State<Arc<App>>, Named(vm): Named) -> Response {
    ok(&app.manager.stats(&vm))
}

#[derive(Deserialize)]
struct ChartsQuery {
    seconds: Option<String>,
}

/// The curves of one VM and what happened to it.
#[utoipa::path(
    get,
    path = "/ui/api/vm/{id}/charts",
    params(
        ("id" = String, Path, description = "Id, name, or the beginning of one id"),
        ("seconds" = Option<u64>, Query, minimum = 60, maximum = 31_622_400, description = "How far back, in seconds; 900 if not given"),
    ),
    responses(
        (status = 200, body = Charts, description = "The curves that have points"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8, or not a number of seconds"),
        (status = 404, body = Refusal, description = "No such VM"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
    )
)]
async fn vm_charts(
    State(app): State<Arc<App>>,
    Named(vm): Named,
    Asked(query): Asked<ChartsQuery>,
) -> Result<Response, Refused> {
    let seconds = range_of(query.seconds.as_deref())?;
    let charts = tokio::task::spawn_blocking(move || charts::charts(&app, vm.name(), seconds)).await;
    Ok(ok(&charts.map_err(anyhow::Error::new)?))
}

#[derive(Deserialize)]
struct ChunkQuery {
    tail: Option<String>,
}

/// The end of one VM's serial console, with its place in the whole.
#[utoipa::path(
    get,
    path = "/ui/api/vm/{id}/console",
    params(
        ("id" = String, Path, description = "Id, name, or the beginning of one id"),
        ("tail" = Option<u64>, Query, minimum = 0, maximum = 1_048_576, description = "Bytes from the end of the console; 16384 if not given"),
    ),
    responses(
        (status = 200, body = ConsoleChunk, description = "The console's end"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8, or not a number of bytes"),
        (status = 404, body = Refusal, description = "No such VM"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
    )
)]
async fn console(Named(vm): Named, Asked(query): Asked<ChunkQuery>) -> Result<Response, Refused> {
    let max = whole_number("tail", query.tail.as_deref(), DEFAULT_CHUNK_BYTES, 0..=MAX_CHUNK_BYTES)?;
    Ok(ok(&chunk(vm.logs_tail(max).await?)))
}

fn chunk(logs: Logs) -> ConsoleChunk {
    ConsoleChunk { from: logs.from, next: logs.next, text: logs.logs }
}

/// All VMs with their newest figures.
#[utoipa::path(get, path = "/ui/api/overview", responses((status = 200, body = Overview, description = "The list page")))]
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
    let vms: Vec<_> = vms.collect();
    let senders = make_senders(app, &vms, oldest);
    Overview { version: env!("CARGO_PKG_VERSION").to_owned(), vms, senders }
}

/// Those who report and are no VM of ours. What they sent before `oldest` is no figure of now.
fn make_senders(app: &App, vms: &[OverviewVm], oldest: i64) -> Vec<Sender> {
    let gone = oldest + STALE_MS - GONE_MS;
    let names: HashSet<&str> = vms.iter().map(|vm| vm.name.as_str()).collect();
    let newest = app.live.newest().into_iter();
    let foreign = newest.filter(|(name, newest_ms)| !names.contains(name.as_str()) && *newest_ms >= gone);
    let sender = |(name, newest_ms): (String, i64)| {
        let latest = |key: &str| app.live.latest(&name, key, oldest);
        Sender {
            state: if newest_ms >= oldest { "reporting" } else { "silent" }.to_owned(),
            newest_ms,
            guest_heap_bytes: latest("guest_live_bytes").map(whole),
            http_2xx_per_second: latest("http_2xx"),
            log_errors: latest("log_errors").map(whole),
            name,
        }
    };
    foreign.map(sender).collect()
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
        let hint = "too many pages are open; close some".to_owned();
        return Refused::new(StatusCode::SERVICE_UNAVAILABLE, hint).into_response();
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

/// The overview once a second, as server-sent events of the name `overview`.
#[utoipa::path(
    get,
    path = "/ui/api/overview/stream",
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "Data is as of /ui/api/overview"),
        (status = 503, body = Refusal, description = "Too many streams are open"),
    )
)]
async fn overview_stream(State(app): State<Arc<App>>) -> Response {
    let ticks = IntervalStream::new(tokio::time::interval(TICK));
    let limits = Arc::clone(&app);
    events(&limits, ticks.map(move |_| event("overview", &make_overview(&app))))
}

/// Server-sent events about one VM: `points`, `mark` and `state` as they are made, and once a second as `console` what
/// it printed since.
#[utoipa::path(
    get,
    path = "/ui/api/vm/{id}/stream",
    params(("id" = String, Path, description = "Id, name, or the beginning of one id")),
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "Each event's data is JSON"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8"),
        (status = 404, body = Refusal, description = "No such VM"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
        (status = 503, body = Refusal, description = "Too many streams are open"),
    )
)]
async fn vm_stream(State(app): State<Arc<App>>, Named(vm): Named) -> Response {
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
            let Ok(logs) = vm.logs_from(from, MAX_CHUNK_BYTES).await else { continue };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_range_and_refusals_say_it() {
        let tail = |text| whole_number("tail", text, 7, 0..=100).map_err(|refused| refused.refusal.error);
        assert_eq!((tail(None), tail(Some("0")), tail(Some("100"))), (Ok(7), Ok(0), Ok(100)));
        for text in ["", "abc", "-1", "101", "1.5", "99999999999999999999999"] {
            assert_eq!(tail(Some(text)), Err(format!("tail={text}: not a whole number from 0 to 100")));
        }
        assert!(tail(Some(&"9".repeat(1000))).unwrap_err().len() < 100);
    }

    #[test]
    fn the_description_has_every_route_with_its_refusals_and_the_bounds_of_the_code() {
        let document = serde_json::to_value(Description::openapi()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), 14);
        let change = paths["/ui/api/vm/{id}/control"]["post"]["responses"].as_object().unwrap();
        assert!(["401", "403", "404", "415", "422"].iter().all(|status| change.contains_key(*status)));
        for (path, item) in paths {
            let responses = item["get"]["responses"].as_object().unwrap();
            assert!(responses.contains_key("401") && responses.contains_key("403"), "{path}");
            assert_eq!(path.contains("{id}"), responses.contains_key("404"), "{path}");
        }
        for (path, range) in [
            ("/ui/api/vm/{id}/logs", 0..=MAX_TAIL_BYTES),
            ("/ui/api/vm/{id}/console", 0..=MAX_CHUNK_BYTES),
            ("/ui/api/vm/{id}/charts", RANGE_SECONDS),
            ("/ui/api/vm/{id}/libraries", RANGE_SECONDS),
            ("/ui/api/libraries", RANGE_SECONDS),
        ] {
            let parameters = paths[path]["get"]["parameters"].as_array().unwrap();
            let schema = &parameters.iter().find(|parameter| parameter["in"] == "query").unwrap()["schema"];
            let bound = |key: &str| schema[key].as_u64().unwrap();
            assert_eq!(bound("minimum")..=bound("maximum"), range, "{path}");
        }
    }
}
