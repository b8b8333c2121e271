//! Heap traces on the page: the list of those that are kept, their flame graphs, and the button that takes one.
//!
//! Owns parameters, their bounds and refusals. Who may take one is [`ui_control`](super::ui_control)'s business, what a
//! trace is [`heap_traces`](crate::heap_traces)'.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use uni_api::heap_trace::{Flame, HeapLibraries, KeptTraces, Started, TraceWish};
use uni_api::page::Refusal;

use super::ui_api::{Asked, Named, Refused, ok, range_of};
use super::ui_control::{Peer, may_change, read_json, unchanged};
use super::{App, libraries};
use crate::heap_traces::{Undrawn, View, Weight, Wish};
use crate::vms::Vm;

/// How long a trace takes when the page does not say.
const DEFAULT_SECONDS: u32 = 30;
/// The longest that the page can ask for.
const MAX_SECONDS: u32 = 600;
/// The latest moment of a trace that can be asked for: traces take a day at most.
const MAX_AT_SECONDS: f64 = 1e6;

/// The heap traces of one VM that are kept, the newest first.
#[utoipa::path(
    get,
    path = "/ui/api/vm/{id}/traces",
    params(("id" = String, Path, description = "Id, name, or the beginning of one id")),
    responses(
        (status = 200, body = KeptTraces, description = "The traces"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8"),
        (status = 404, body = Refusal, description = "No such VM"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
    )
)]
pub(super) async fn vm_traces(State(app): State<Arc<App>>, Named(vm): Named) -> Result<Response, Refused> {
    let traces = app.heap_traces.list(&vm).await?;
    Ok(ok(&KeptTraces { traces, can_take: app.ui_control }))
}

/// Takes a heap trace of one VM's guest; the answer comes when it has begun.
#[utoipa::path(
    post,
    path = "/ui/api/vm/{id}/traces",
    params(("id" = String, Path, description = "Id, name, or the beginning of one id")),
    request_body = TraceWish,
    responses(
        (status = 200, body = Started, description = "It has begun, and ends by itself"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8, or the body is not such a wish"),
        (status = 403, description = "Changes from the page are off, the token is not in an `Authorization: Bearer` header, or another site's page asks",
            content((Refusal = "application/json"), (String = "text/plain"))),
        (status = 404, body = Refusal, description = "No such VM"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
        (status = 413, body = Refusal, description = "The body is longer than 16 KiB"),
        (status = 415, body = Refusal, description = "The body is not `application/json`"),
        (status = 422, body = Refusal, description = "No trace: one is being taken, or the guest gives none"),
    )
)]
pub(super) async fn take_vm_trace(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
    named: Result<Named, Refused>,
    body: Body,
) -> Result<Response, Refused> {
    may_change(&app, &uri, &headers)?;
    let Named(vm) = named?;
    let expected =
        "{\"for_seconds\": NUMBER, \"rate\": NUMBER, \"token\": TEXT}, each of which may be left out";
    let TraceWish { for_seconds, rate, token } = read_json(&headers, body, expected).await?;
    let seconds = for_seconds.unwrap_or(DEFAULT_SECONDS);
    if !(1..=MAX_SECONDS).contains(&seconds) {
        return Err(Refused::bad_request(format!(
            "for_seconds={seconds}: not a whole number from 1 to {MAX_SECONDS}"
        )));
    }
    let wish = Wish { rate, time: Some(Duration::from_secs(seconds.into())), token };
    let begun = app.heap_traces.take(vm, wish, &format!("page, {}", peer.ip())).await;
    begun.map(|started| ok(&started)).map_err(unchanged)
}

/// The VM and the trace that the path names.
pub(super) struct NamedTrace(Arc<Vm>, String);

impl FromRequestParts<Arc<App>> for NamedTrace {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refused> {
        let path = Path::<(String, String)>::from_request_parts(parts, app).await;
        let Path((id, name)) = path.map_err(|error| Refused::bad_request(error.body_text()))?;
        Ok(Self(app.manager.find(&id)?, name))
    }
}

#[derive(Deserialize)]
pub(super) struct FlameQuery {
    weight: Option<String>,
    at: Option<String>,
    min_lifetime: Option<String>,
}

/// The flame graph of one heap trace; of one that is still being taken, of what is there.
#[utoipa::path(
    get,
    path = "/ui/api/vm/{id}/traces/{name}/flame",
    params(
        ("id" = String, Path, description = "Id, name, or the beginning of one id"),
        ("name" = String, Path, description = "The trace's name"),
        ("weight" = Option<String>, Query, pattern = "^(live|allocated)$", description = "By which bytes children are in order; `live` if not given"),
        ("at" = Option<f64>, Query, minimum = 0, maximum = 1_000_000, description = "How long after its start, in seconds; the end if not given"),
        ("min_lifetime" = Option<f64>, Query, minimum = 0, maximum = 1_000_000, description = "Only what lived so long, in seconds; everything if not given"),
    ),
    responses(
        (status = 200, body = Flame, description = "The tree"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8, no such weight, or not a number of seconds"),
        (status = 404, body = Refusal, description = "No such VM, or no such trace"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
        (status = 422, body = Refusal, description = "Nothing of the trace can be read, or it takes too long"),
        (status = 503, body = Refusal, description = "Other traces are being drawn"),
    )
)]
pub(super) async fn vm_flame(
    State(app): State<Arc<App>>,
    NamedTrace(vm, name): NamedTrace,
    Asked(query): Asked<FlameQuery>,
) -> Result<Response, Refused> {
    let weight = query.weight.as_deref().map_or(Some(Weight::Live), Weight::parse);
    let weight =
        weight.ok_or_else(|| Refused::bad_request("weight: neither live nor allocated".to_owned()))?;
    let time = |name, text: Option<String>| text.map(|text| seconds(name, &text)).transpose();
    let (at, min_lifetime) = (time("at", query.at)?, time("min_lifetime", query.min_lifetime)?);
    let flame = app.heap_traces.flame(&vm, &name, View { weight, at, min_lifetime }).await?;
    Ok(ok(&flame))
}

fn seconds(name: &str, text: &str) -> Result<Duration, Refused> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=MAX_AT_SECONDS).contains(seconds));
    let seconds = seconds.map(Duration::from_secs_f64);
    seconds.ok_or_else(|| {
        Refused::bad_request(format!("{name}: not a number of seconds from 0 to {MAX_AT_SECONDS}"))
    })
}

impl From<Undrawn> for Refused {
    fn from(undrawn: Undrawn) -> Self {
        let status = match undrawn {
            Undrawn::Missing => StatusCode::NOT_FOUND,
            Undrawn::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Undrawn::Empty | Undrawn::Failed(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, undrawn.to_string())
    }
}

#[derive(Deserialize)]
pub(super) struct RangeQuery {
    seconds: Option<String>,
}

/// Live bytes of one VM's guest by library, over time.
#[utoipa::path(
    get,
    path = "/ui/api/vm/{id}/libraries",
    params(
        ("id" = String, Path, description = "Id, name, or the beginning of one id"),
        ("seconds" = Option<u64>, Query, minimum = 60, maximum = 31_622_400, description = "How far back, in seconds; 900 if not given"),
    ),
    responses(
        (status = 200, body = HeapLibraries, description = "The libraries; none if the guest does not tell"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8, or not a number of seconds"),
        (status = 404, body = Refusal, description = "No such VM"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
        (status = 503, body = Refusal, description = "Others are being asked for"),
    )
)]
pub(super) async fn vm_libraries(
    State(app): State<Arc<App>>,
    Named(vm): Named,
    Asked(query): Asked<RangeQuery>,
) -> Result<Response, Refused> {
    of_libraries(&app, Some(vm.name().to_owned()), &query).await
}

/// Live bytes of all VMs' guests together by library, over time.
#[utoipa::path(
    get,
    path = "/ui/api/libraries",
    params(
        ("seconds" = Option<u64>, Query, minimum = 60, maximum = 31_622_400, description = "How far back, in seconds; 900 if not given"),
    ),
    responses(
        (status = 200, body = HeapLibraries, description = "The libraries; none if no guest tells"),
        (status = 400, body = Refusal, description = "Not a number of seconds"),
        (status = 503, body = Refusal, description = "Others are being asked for"),
    )
)]
pub(super) async fn all_libraries(
    State(app): State<Arc<App>>,
    Asked(query): Asked<RangeQuery>,
) -> Result<Response, Refused> {
    of_libraries(&app, None, &query).await
}

async fn of_libraries(app: &Arc<App>, vm: Option<String>, query: &RangeQuery) -> Result<Response, Refused> {
    let seconds = range_of(query.seconds.as_deref())?;
    let place =
        tokio::time::timeout(libraries::PATIENCE, Arc::clone(&app.limits.libraries).acquire_owned()).await;
    let Ok(Ok(place)) = place else {
        let hint = "others ask for libraries; try again".to_owned();
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, hint));
    };
    let app = Arc::clone(app);
    let made = tokio::task::spawn_blocking(move || {
        let _place = place;
        libraries::libraries(&app, vm.as_deref(), seconds)
    });
    Ok(ok(&made.await.map_err(anyhow::Error::new)?))
}
