//! `/grafana.json`: a dashboard over what is stored here, for Grafana's InfluxQL data source.
//!
//! Owns the route. What is shown is told once, in [`board`]; [`v2`] and [`classic`] only spell it for newer and older
//! Grafanas, so the two never differ. Holds nothing about this host: no names, no addresses, no data source.

mod board;
mod classic;
mod v2;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use self::board::Board;
use super::App;

/// The route.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/grafana.json", get(dashboard))
}

async fn dashboard(State(app): State<Arc<App>>, RawQuery(raw): RawQuery) -> Response {
    answer(raw.as_deref().unwrap_or_default(), app.interval)
}

fn answer(raw: &str, interval: Duration) -> Response {
    let parameters: HashMap<String, String> = serde_urlencoded::from_str(raw).unwrap_or_default();
    let board = Board::new(interval);
    let document = match parameters.get("schema").map_or("v2", String::as_str) {
        "v2" => v2::document(&board),
        "classic" => classic::document(&board),
        other => {
            let message = format!(
                "schema={other:?} is not known; write schema=v2 (Grafana 13 and later) or schema=classic (Grafana 8 to 12)\n"
            );
            return (StatusCode::BAD_REQUEST, message).into_response();
        }
    };
    ([(header::CONTENT_TYPE, "application/json")], format!("{document:#}\n")).into_response()
}
