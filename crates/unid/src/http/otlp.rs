//! OTLP metrics: over HTTP as protobuf or JSON (`/v1/metrics`), and over gRPC on the same listener.
//!
//! Owns headers, status codes and gRPC's frame around a message. What the messages mean is [`uni_intake::otlp`]'s business.

use std::io::Read as _;
use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::json;
use tower_http::decompression::RequestDecompressionLayer;
use uni_intake::Dropped;
use uni_intake::otlp::{decode, protobuf_of_json, response, status};

use super::body::{Refusal, in_turn};
use super::pushed::Batch;
use super::{App, body};
use crate::clock;
use crate::ingest::DEFAULT_DATABASE;

/// Longest message, as gRPC has it by default.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// gRPC's frame: whether the message is packed, and its length.
const FRAME_BYTES: usize = 5;
/// The service's only method.
pub(super) const EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// The routes.
pub(super) fn routes() -> Router<Arc<App>> {
    let http = Router::new().route("/v1/metrics", post(export)).layer(RequestDecompressionLayer::new());
    http.route(EXPORT, post(grpc))
}

/// The form of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

async fn export(State(app): State<Arc<App>>, request: Request) -> Response {
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let form = match kind.split(';').next().unwrap_or_default().trim() {
        "application/x-protobuf" => Form::Protobuf,
        "application/json" => Form::Json,
        _ => {
            let message = format!(
                "Content-Type {kind:?} is not taken; it is application/x-protobuf or application/json"
            );
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response();
        }
    };
    match take(&app, form, request).await {
        Ok(dropped) => form.answer(StatusCode::OK, response(&dropped), || partial(&dropped)),
        Err(refusal) => {
            let code = grpc_code(refusal.status);
            let error = || json!({ "code": code, "message": refusal.message });
            let mut response = form.answer(refusal.status, status(code, &refusal.message), error);
            if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
    }
}

async fn take(app: &Arc<App>, form: Form, request: Request) -> Result<Dropped, Refusal> {
    let body = body::read(app, request, MAX_MESSAGE_BYTES).await?;
    let bytes = body.bytes.clone();
    in_turn(app, move |app| match form {
        Form::Protobuf => store(app, &bytes),
        Form::Json => {
            let message = protobuf_of_json(&bytes).map_err(|error| Refusal::bad(error.to_string()))?;
            store(app, &message)
        }
    })
    .await?
}

fn store(app: &App, message: &[u8]) -> Result<Dropped, Refusal> {
    let mut batch = Batch::new(app, DEFAULT_DATABASE);
    let mut totals = app.totals.lock().unwrap_or_else(PoisonError::into_inner);
    let decoded = decode(message, clock::now(), &mut totals, &mut |point| batch.push(point));
    drop(totals);
    batch.finish()?;
    let mut dropped = decoded.map_err(|error| Refusal::bad(error.to_string()))?.dropped;
    app.ingest.counters.dropped_samples(dropped.samples);
    dropped.samples += batch.refused;
    dropped.first_reason = dropped.first_reason.or_else(|| batch.first_reason.take());
    Ok(dropped)
}

/// `ExportMetricsServiceResponse` in JSON.
fn partial(dropped: &Dropped) -> serde_json::Value {
    match dropped.samples {
        0 => json!({}),
        count => json!({ "partialSuccess": {
            "rejectedDataPoints": count.to_string(), "errorMessage": dropped.first_reason,
        }}),
    }
}

impl Form {
    fn answer(
        self,
        status: StatusCode,
        protobuf: Vec<u8>,
        json: impl FnOnce() -> serde_json::Value,
    ) -> Response {
        match self {
            Self::Protobuf => {
                (status, [(header::CONTENT_TYPE, "application/x-protobuf")], protobuf).into_response()
            }
            Self::Json => (status, axum::Json(json())).into_response(),
        }
    }
}

/// gRPC's number for a status of HTTP.
fn grpc_code(status: StatusCode) -> u8 {
    match status {
        StatusCode::BAD_REQUEST => 3,
        StatusCode::PAYLOAD_TOO_LARGE => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        StatusCode::NOT_IMPLEMENTED | StatusCode::UNSUPPORTED_MEDIA_TYPE => 12,
        _ => 13,
    }
}

/// One call of the method. gRPC's answers are always 200; what became of the call stands after the body, or, without a
/// body, in the head.
async fn grpc(State(app): State<Arc<App>>, request: Request) -> Response {
    match call(&app, request).await {
        Ok(dropped) => {
            let message = response(&dropped);
            let mut frame = vec![0];
            frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
            frame.extend_from_slice(&message);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [
                Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(Bytes::from(frame))),
                Ok(hyper::body::Frame::trailers(trailers)),
            ];
            let body = Body::new(http_body_util::StreamBody::new(futures_util::stream::iter(frames)));
            ([(header::CONTENT_TYPE, "application/grpc")], body).into_response()
        }
        Err(refusal) => {
            let message: String = refusal
                .message
                .chars()
                .map(|c| if c.is_ascii_graphic() && c != '%' { c } else { ' ' })
                .collect();
            let status = HeaderValue::from(u16::from(grpc_code(refusal.status)));
            let mut response = [(header::CONTENT_TYPE, "application/grpc")].into_response();
            response.headers_mut().insert("grpc-status", status);
            if let Ok(message) = HeaderValue::from_str(&message) {
                response.headers_mut().insert(HeaderName::from_static("grpc-message"), message);
            }
            response
        }
    }
}

async fn call(app: &Arc<App>, request: Request) -> Result<Dropped, Refusal> {
    let gzip = may_be_packed(request.headers())?;
    let body = body::read(app, request, MAX_MESSAGE_BYTES + FRAME_BYTES).await?;
    let bytes = body.bytes.clone();
    in_turn(app, move |app| store(app, &unframed(&bytes, gzip)?)).await?
}

/// Whether messages may be packed, by gzip.
fn may_be_packed(headers: &HeaderMap) -> Result<bool, Refusal> {
    let text =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    if !text("content-type").starts_with("application/grpc") {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this is a method of gRPC"));
    }
    Ok(text("grpc-encoding") == "gzip")
}

/// The message in a frame, which is the only one of its call.
fn unframed(frame: &[u8], gzip: bool) -> Result<std::borrow::Cow<'_, [u8]>, Refusal> {
    let whole = frame.split_first_chunk::<FRAME_BYTES>();
    let Some(([packed, length @ ..], message)) = whole else {
        return Err(Refusal::bad("a frame of gRPC has at least 5 bytes"));
    };
    if usize::try_from(u32::from_be_bytes(*length)).ok() != Some(message.len()) {
        return Err(Refusal::bad("a call has one frame, as long as it says"));
    }
    match packed {
        0 => Ok(message.into()),
        1 if gzip => {
            let mut unpacked = Vec::new();
            let most = MAX_MESSAGE_BYTES as u64 + 1;
            flate2::read::GzDecoder::new(message)
                .take(most)
                .read_to_end(&mut unpacked)
                .map_err(|error| Refusal::bad(format!("unpack the message: {error}")))?;
            if unpacked.len() > MAX_MESSAGE_BYTES {
                let text = format!(
                    "unpacked the message is longer than {MAX_MESSAGE_BYTES} bytes; send it in parts"
                );
                return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
            }
            Ok(unpacked.into())
        }
        _ => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "messages are packed by gzip or not at all")),
    }
}
