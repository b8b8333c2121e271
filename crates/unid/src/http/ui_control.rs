//! A guest's log levels and metrics, shown and changed from the page.
//!
//! Owns who may change (`--ui-control`, and the token in a header of its own) and how a request and its refusals look.
//! What a change is, its audit line and its end are [`control_port`]'s business.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use serde::de::DeserializeOwned;
use uni_api::guest::{Control, ControlChange, ControlParams};
use uni_api::page::Refusal;

use super::App;
use super::access::is_deliberate;
use super::ui_api::{Named, Refused, ok};
use crate::control_port::{self, Guest};

/// The longest request: a change names sources, and guests have some dozens.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// What a change looks like.
const EXPECTED: &str = "{\"kind\": \"logs\" or \"metrics\", \"spec\": TEXT, \"for_seconds\": NUMBER, \"token\": TEXT}, of \
                        which only kind must be there";

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The log levels of one VM's guest, and which of its metrics are on, asked of the guest itself.
#[utoipa::path(
    get,
    path = "/ui/api/vm/{id}/control",
    params(("id" = String, Path, description = "Id, name, or the beginning of one id")),
    responses(
        (status = 200, body = Control, description = "What is in force; nothing if the guest does not tell within 5 s"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8"),
        (status = 404, body = Refusal, description = "No such VM"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
    )
)]
pub(super) async fn vm_control(State(app): State<Arc<App>>, Named(vm): Named) -> Response {
    let shown = control_port::of_vm(&Guest::of(vm)).await;
    ok(&Control { can_change: app.ui_control, ..shown })
}

/// Changes what one VM's guest logs or measures, and shows what is in force then.
#[utoipa::path(
    post,
    path = "/ui/api/vm/{id}/control",
    params(("id" = String, Path, description = "Id, name, or the beginning of one id")),
    request_body = ControlChange,
    responses(
        (status = 200, body = Control, description = "The change is made; what is in force now"),
        (status = 400, body = Refusal, description = "Not a name in UTF-8, or the body is not such a change"),
        (status = 403, description = "Changes from the page are off, the token is not in an `Authorization: Bearer` header, or another site's page asks",
            content((Refusal = "application/json"), (String = "text/plain"))),
        (status = 404, body = Refusal, description = "No such VM"),
        (status = 409, body = Refusal, description = "The beginning of several ids"),
        (status = 413, body = Refusal, description = "The body is longer than 16 KiB"),
        (status = 415, body = Refusal, description = "The body is not `application/json`"),
        (status = 422, body = Refusal, description = "Nothing is changed: no guest could read the change, or this one refuses it or does not answer"),
    )
)]
pub(super) async fn change_vm_control(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
    named: Result<Named, Refused>,
    body: Body,
) -> Result<Response, Refused> {
    may_change(&app, &uri, &headers)?;
    let Named(vm) = named?;
    let change: ControlChange = read_json(&headers, body, EXPECTED).await?;
    let guest = Guest::of(Arc::clone(&vm)).with_token(change.token.clone()).map_err(unchanged)?;
    if change.spec.is_some() || change.for_seconds.is_some() {
        let params = ControlParams {
            id: vm.id().to_owned(),
            addr: String::new(),
            kind: change.kind,
            spec: change.spec,
            for_seconds: change.for_seconds,
            token: change.token,
        };
        let by = format!("page, {}", peer.ip());
        let made = app.guests.answer(&app.manager, params, &by).await;
        made.map_err(unchanged)?;
    }
    Ok(ok(&Control { can_change: true, ..control_port::of_vm(&guest).await }))
}

/// Nothing came of it, and why.
#[expect(clippy::needless_pass_by_value, reason = "what map_err gives")]
pub(super) fn unchanged(error: anyhow::Error) -> Refused {
    Refused::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}"))
}

/// Refuses who may not change anything. That the token is the right one was checked before.
pub(super) fn may_change(app: &App, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
    let why = if !app.ui_control {
        "guests are not changed from the page; start unid with --ui-control and --token-file, or use `uni log-level`, \
         `uni metrics` and `uni memtrace`"
    } else if !is_deliberate(uri, headers) {
        "a change needs the daemon's token in the header `Authorization: Bearer TOKEN`, and not in its address"
    } else {
        return Ok(());
    };
    Err(Refused::new(StatusCode::FORBIDDEN, why.to_owned()))
}

/// What the body says. JSON alone: a form of another site's page cannot send that type. `expected` is what it could say.
pub(super) async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    expected: &str,
) -> Result<T, Refused> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let error = "the body must be JSON (`Content-Type: application/json`)".to_owned();
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let bytes = axum::body::to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| {
        let error = format!("the body is longer than {MAX_BODY_BYTES} bytes, or did not come whole");
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    })?;
    // where, and what was expected there; never the value itself, which may be a token
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Refused::bad_request(format!("line {line}, column {column}: not {expected}"))
    })
}
