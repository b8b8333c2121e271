//! Line protocol as the later InfluxDBs take it: `/api/v2/write` and `/api/v3/write_lp`.
//!
//! Owns their parameters and the form of their answers. What happens to the lines is [`super::influx`]'s: the same for
//! all three versions.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use uni_wire::line::Precision;

use super::App;
use super::body::Refusal;
use super::influx::{self, Target};

/// InfluxDB 2: `bucket` is a database, or a database and a retention policy joined by a slash; `org` is anything.
pub(super) async fn write_v2(
    State(app): State<Arc<App>>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Response {
    match v2_target(&influx::parameters(raw.as_deref().unwrap_or_default())) {
        Ok(target) => answer(influx::write_lines(&app, target, request).await, v2_error),
        Err(refusal) => v2_error(&refusal),
    }
}

/// InfluxDB 3: `db` and `precision`, which is guessed from the time stamps unless it is named. A body is taken in part
/// unless `accept_partial=false`, which is refused, since it cannot be promised.
pub(super) async fn write_v3(
    State(app): State<Arc<App>>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Response {
    match v3_target(&influx::parameters(raw.as_deref().unwrap_or_default())) {
        Ok(target) => answer(influx::write_lines(&app, target, request).await, v3_error),
        Err(refusal) => v3_error(&refusal),
    }
}

fn v2_target(parameters: &HashMap<String, String>) -> Result<Target, Refusal> {
    let bucket = parameters.get("bucket").filter(|bucket| !bucket.is_empty());
    let bucket = bucket.ok_or_else(|| Refusal::bad("bucket is required"))?;
    let (database, policy) = bucket.split_once('/').unwrap_or((bucket, ""));
    let precision = match parameters.get("precision").map_or("ns", String::as_str) {
        "ns" | "" => Precision::Nanoseconds,
        "us" => Precision::Microseconds,
        "ms" => Precision::Milliseconds,
        "s" => Precision::Seconds,
        other => return Err(bad_precision(other, "ns, us, ms or s")),
    };
    Ok(Target { database: database.to_owned(), policy: policy.to_owned(), precision })
}

fn v3_target(parameters: &HashMap<String, String>) -> Result<Target, Refusal> {
    let database = parameters.get("db").filter(|db| !db.is_empty());
    let database = database.ok_or_else(|| Refusal::bad("db is required"))?;
    let precision = match parameters.get("precision").map_or("auto", String::as_str) {
        "auto" | "" => Precision::Guessed,
        "nanosecond" | "ns" | "n" => Precision::Nanoseconds,
        "microsecond" | "us" | "u" => Precision::Microseconds,
        "millisecond" | "ms" => Precision::Milliseconds,
        "second" | "s" => Precision::Seconds,
        other => return Err(bad_precision(other, "auto, nanosecond, microsecond, millisecond or second")),
    };
    if parameters.get("accept_partial").is_some_and(|word| word == "false") {
        return Err(Refusal::bad(
            "accept_partial=false: good lines are stored whatever the others are; leave it out",
        ));
    }
    Ok(Target { database: database.clone(), policy: String::new(), precision })
}

fn bad_precision(given: &str, known: &str) -> Refusal {
    Refusal::bad(format!("precision {given:?} is unknown; it is one of {known}"))
}

fn answer(outcome: Result<(), Refusal>, spelled: fn(&Refusal) -> Response) -> Response {
    match outcome {
        Ok(()) => influx::with_headers(StatusCode::NO_CONTENT.into_response()),
        Err(refusal) => spelled(&refusal),
    }
}

fn v2_error(refusal: &Refusal) -> Response {
    let code = match refusal.status {
        StatusCode::NOT_FOUND => "not found",
        StatusCode::PAYLOAD_TOO_LARGE => "request too large",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        status if status.is_server_error() => "internal error",
        _ => "invalid",
    };
    spelled(refusal, &json!({ "code": code, "message": refusal.message }))
}

fn v3_error(refusal: &Refusal) -> Response {
    let Some(complaints) = refusal.message.strip_prefix("partial write: ") else {
        return spelled(refusal, &json!({ "error": refusal.message, "data": null }));
    };
    let data: Vec<_> = complaints.lines().map(|line| json!({ "error_message": line })).collect();
    spelled(refusal, &json!({ "error": "partial write of line protocol occurred", "data": data }))
}

fn spelled(refusal: &Refusal, body: &serde_json::Value) -> Response {
    let mut response = (refusal.status, Json(body)).into_response();
    if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    influx::with_headers(response)
}
