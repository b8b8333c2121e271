//! The page under `/ui`.
//!
//! Owns its routes, the embedded files and the headers of all answers. What the page asks for is in [`ui_api`], what it
//! shows without JavaScript in [`plain`].

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use rust_embed::RustEmbed;
use tower_http::set_header::SetResponseHeaderLayer;

use super::ui_api::{self, Named, Refused};
use super::{App, plain};

/// Scripts and styles come from this origin alone, and nobody may frame the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
                                       form-action 'none'; frame-ancestors 'none'";
/// The end of the console that a page without JavaScript shows.
const PLAIN_TAIL_BYTES: u64 = 16 * 1024;

/// The built page. Empty when it was not built before the daemon; `/ui` then says how to build it.
#[derive(RustEmbed)]
#[folder = "../../web/dist"]
#[allow_missing = true]
struct Page;

/// The routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/ui") }))
        .route("/ui", get(list_page))
        .route("/ui/", get(list_page))
        .route("/ui/vm/{id}", get(vm_page))
        .route("/ui/{*path}", get(|uri: Uri| async move { file(uri.path().trim_start_matches("/ui/")) }))
        .merge(ui_api::routes())
        .method_not_allowed_fallback(read_only)
        .layer(header_layer(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .layer(header_layer(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header_layer(header::REFERRER_POLICY, "no-referrer"))
}

fn header_layer(name: header::HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

async fn read_only() -> Refused {
    let error = "everything under /ui is read with GET or HEAD; a POST takes only /ui/api/vm/{id}/control and /ui/api/vm/{id}/traces";
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, error.to_owned())
}

/// A file of the page; names with a hash in them never change.
fn file(path: &str) -> Response {
    let Some(found) = Page::get(path) else { return no_file() };
    let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let kind = content_type(path);
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], found.data.into_owned()).into_response()
}

fn no_file() -> Response {
    let why = if Page::get("index.html").is_none() { NOT_BUILT } else { "no such page\n" };
    (StatusCode::NOT_FOUND, why).into_response()
}

const NOT_BUILT: &str = "This unid was compiled without its page. Build both with `cargo xtask build`.\n";

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => HTML,
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

const HTML: &str = "text/html; charset=utf-8";

/// An HTML file with what it shows of now to browsers without JavaScript.
fn page(name: &str, title: &str, now: &str) -> Response {
    let Some(found) = Page::get(name) else { return no_file() };
    let html = plain::fill(&String::from_utf8_lossy(&found.data), title, now);
    ([(header::CONTENT_TYPE, HTML), (header::CACHE_CONTROL, "no-cache")], html).into_response()
}

async fn list_page(State(app): State<Arc<App>>) -> Response {
    page("index.html", "Uni — Dashboard", &plain::list(&ui_api::listed(&app)))
}

async fn vm_page(State(app): State<Arc<App>>, named: Result<Named, Refused>) -> Response {
    let vm = match named {
        Ok(Named(vm)) => vm,
        Err(refused) => return (refused.status, refused.refusal.error + "\n").into_response(),
    };
    let detail = ui_api::described(vm.detail());
    let console =
        vm.logs_tail(PLAIN_TAIL_BYTES).await.map_or_else(|error| format!("{error:#}"), |tail| tail.logs);
    let now = plain::detail(&detail, &app.manager.stats(&vm), &console);
    page("vm.html", &format!("Uni — VM {}", detail.id), &now)
}
