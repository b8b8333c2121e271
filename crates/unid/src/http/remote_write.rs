//! Prometheus' remote write, 1.0 and 2.0, at the path of its own receiver and at that of InfluxDB 1.8.
//!
//! Owns headers, status codes and the database's name (`db`, else the default one). What the messages mean is
//! [`uni_intake::remote_write`]'s business.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use uni_intake::remote_write::{Summary, Version, decode, unpack};

use super::body::{MAX_BODY_BYTES, Refusal, in_turn};
use super::pushed::Batch;
use super::{App, body, influx};
use crate::ingest::DEFAULT_DATABASE;

/// Longest message, unpacked.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The routes; bodies are unpacked here, not by a layer.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/v1/write", post(write)).route("/api/v1/prom/write", post(write))
}

async fn write(State(app): State<Arc<App>>, RawQuery(raw): RawQuery, request: Request) -> Response {
    let mut parameters = influx::parameters(raw.as_deref().unwrap_or_default());
    let database = parameters.remove("db").filter(|db| !db.is_empty());
    let database = database.unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
    match take(&app, database, request).await {
        Ok(written) => written.response(),
        Err(refusal) => Written { refusal: Some(refusal), ..Written::default() }.response(),
    }
}

async fn take(app: &Arc<App>, database: String, request: Request) -> Result<Written, Refusal> {
    let version = version(request.headers())?;
    influx::may_write(app, &database)?;
    let body = body::read(app, request, MAX_BODY_BYTES).await?;
    let bytes = body.bytes.clone();
    in_turn(app, move |app| store(app, &database, version, &bytes)).await
}

/// Which message the headers announce.
fn version(headers: &HeaderMap) -> Result<Version, Refusal> {
    let unsupported = |message: String| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    let text =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let encoding = text(header::CONTENT_ENCODING);
    if !encoding.eq_ignore_ascii_case("snappy") {
        return Err(unsupported(format!(
            "Content-Encoding {encoding:?} is not taken; pack the body with snappy"
        )));
    }
    let kind = text(header::CONTENT_TYPE).replace(' ', "");
    match &*kind {
        "" | "application/x-protobuf" | "application/x-protobuf;proto=prometheus.WriteRequest" => {
            Ok(Version::V1)
        }
        "application/x-protobuf;proto=io.prometheus.write.v2.Request" => Ok(Version::V2),
        _ => Err(unsupported(format!(
            "Content-Type {kind:?} is not taken; it is application/x-protobuf, with proto=prometheus.WriteRequest or \
             proto=io.prometheus.write.v2.Request"
        ))),
    }
}

/// What is told of a request: how much was written also where something was wrong.
#[derive(Default)]
struct Written {
    samples: u64,
    histograms: u64,
    refusal: Option<Refusal>,
}

fn store(app: &App, database: &str, version: Version, packed: &[u8]) -> Written {
    let message = match unpack(packed, MAX_MESSAGE_BYTES) {
        Ok(message) => message,
        Err(error @ uni_intake::Error::TooLong { .. }) => {
            let refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string());
            return Written { refusal: Some(refusal), ..Written::default() };
        }
        Err(error) => {
            return Written { refusal: Some(Refusal::bad(error.to_string())), ..Written::default() };
        }
    };
    let mut batch = Batch::new(app, database);
    let decoded = decode(version, &message, &mut |point| batch.push(point));
    let finished = batch.finish();
    let (summary, fault) = match decoded {
        Ok(summary) => (summary, None),
        Err(error) => (Summary::default(), Some(Refusal::bad(error.to_string()))),
    };
    app.ingest.counters.dropped_samples(summary.dropped.samples);
    let lost = summary.dropped.samples + batch.refused;
    let reason = summary.dropped.first_reason.or_else(|| batch.first_reason.take()).unwrap_or_default();
    let partial = (lost > 0)
        .then(|| Refusal::bad(format!("{lost} samples were not stored, the first because: {reason}")));
    Written {
        samples: summary.samples.saturating_sub(batch.refused),
        histograms: summary.histograms,
        refusal: finished.err().or(fault).or(partial),
    }
}

impl Written {
    fn response(self) -> Response {
        let mut response = match self.refusal {
            None => StatusCode::NO_CONTENT.into_response(),
            Some(refusal) => (refusal.status, format!("{}\n", refusal.message)).into_response(),
        };
        let counts = [
            ("x-prometheus-remote-write-samples-written", self.samples),
            ("x-prometheus-remote-write-histograms-written", self.histograms),
            ("x-prometheus-remote-write-exemplars-written", 0),
        ];
        response.headers_mut().extend(
            counts.map(|(name, count)| (header::HeaderName::from_static(name), HeaderValue::from(count))),
        );
        response
    }
}
