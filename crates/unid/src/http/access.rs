//! Who may use the HTTP listeners: TLS (which the syslog listener shares), and the token that every request must give.
//!
//! Owns reading credentials, the comparison, and the answer to those who have none. The token is never logged and
//! never part of an answer.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::renewed::Renewed;
use super::{Figures, influx, tls};
use crate::config;

/// The shortest token.
const MIN_TOKEN_CHARS: usize = 16;
/// As much of the token's file is read.
const MAX_TOKEN_FILE_BYTES: u64 = 4096;
/// Who gives no token or a wrong one waits this long for the answer. No place that others need is held meanwhile
/// but that of the connection.
const PENALTY: Duration = Duration::from_millis(200);
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What guards the listeners.
#[derive(Debug)]
pub(crate) struct Access {
    tls: Option<Renewed<ServerConfig>>,
    token: Option<Renewed<Token>>,
}

impl Access {
    /// Reads certificate, key and token.
    ///
    /// # Errors
    /// Says which file is wrong, how, and what it must hold.
    pub(crate) fn open(config: &config::Access) -> anyhow::Result<Self> {
        let tls =
            config.tls.clone().map(|(certificate, key)| Renewed::new(vec![certificate, key], tls::read));
        let token = config.token_file.clone().map(|file| Renewed::new(vec![file], Token::read));
        Ok(Self { tls: tls.transpose()?, token: token.transpose()? })
    }

    /// The certificate and key of new connections, if they are under TLS.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(Renewed::get)
    }

    /// Shakes hands with who speaks another protocol than HTTP under TLS; nothing if that fails or takes too long.
    pub(crate) async fn shake_hands(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        tls::accept(self.tls()?, stream).await
    }

    /// Whether strangers are kept out by more than the listener's address.
    pub(super) const fn is_guarded(&self) -> bool {
        self.tls.is_some() || self.token.is_some()
    }

    /// Reads the files again when they change, until the task is aborted.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        while self.is_guarded() {
            tokio::time::sleep(LOOK).await;
            let access = Arc::clone(&self);
            // a panic in there is logged by its hook; the next look may go well
            let _ = tokio::task::spawn_blocking(move || access.refresh()).await;
        }
    }

    fn refresh(&self) {
        if let Some(tls) = &self.tls {
            tls.refresh("TLS certificate");
        }
        if let Some(token) = &self.token {
            token.refresh("token");
        }
    }
}

/// The secret that clients give.
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let [path] = files else { bail!("a token comes from one file") };
        let mut text = String::new();
        let file = std::fs::File::open(path).with_context(|| describe(path))?;
        let mode = file.metadata().with_context(|| describe(path))?.permissions().mode();
        file.take(MAX_TOKEN_FILE_BYTES).read_to_string(&mut text).with_context(|| describe(path))?;
        if mode & 0o004 != 0 {
            let path = path.display().to_string();
            tracing::warn!(path, "every user of this host can read the token; chmod 0600 it");
        }
        let token = text.lines().next().unwrap_or_default().trim();
        if token.len() < MIN_TOKEN_CHARS || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!(
                "{} (--token-file): its first line must be a token of at least {MIN_TOKEN_CHARS} letters, digits and \
                 signs without spaces; make one with `openssl rand -hex 32`",
                path.display()
            );
        }
        Ok(Self(token.to_owned()))
    }

    /// Takes the same time wherever the two differ.
    fn is(&self, given: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), given.as_bytes());
        let mut difference = u8::from(own.len() != given.len());
        for (n, byte) in own.iter().enumerate() {
            difference |= byte ^ given.get(n).copied().unwrap_or_default();
        }
        std::hint::black_box(difference) == 0
    }
}

fn describe(path: &Path) -> String {
    format!("read the token file {} (--token-file)", path.display())
}

/// Lets requests through that give the token, if there is one.
pub(super) async fn authorize(
    State((access, figures)): State<(Arc<Access>, Arc<Figures>)>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = &access.token else { return next.run(request).await };
    let path = request.uri().path();
    if matches!(path, "/ping" | "/health") {
        return next.run(request).await;
    }
    let given = credentials(request.uri(), request.headers());
    let token = token.get();
    // InfluxDB 1.8's clients put a user before it: `Token USER:TOKEN`
    let without_user = |given: &str| given.split_once(':').is_some_and(|(_, rest)| token.is(rest));
    if given.as_deref().is_some_and(|given| token.is(given) || without_user(given)) {
        return next.run(request).await;
    }
    figures.unauthorized();
    tokio::time::sleep(PENALTY).await;
    refusal(path, request.method(), given.is_some())
}

/// Whether the token came in a header that only a script or a program sets: a browser adds what was typed into its own
/// dialog (`Basic`) to requests by itself, and addresses end up in histories and logs.
pub(super) fn is_deliberate(uri: &Uri, headers: &HeaderMap) -> bool {
    if influx::parameters(uri.query().unwrap_or_default()).contains_key("p") {
        return false;
    }
    let scheme = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
    scheme.is_some_and(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token")
    })
}

/// The token that a request gives: as `Bearer` or `Token` (InfluxDB 2), as the password of `Basic`, or as the parameter
/// `p` (InfluxDB 1), which counts before the header.
fn credentials(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let parameters = influx::parameters(uri.query().unwrap_or_default());
    if let Some(password) = parameters.get("p").filter(|p| !p.is_empty()) {
        return Some(password.clone());
    }
    let (scheme, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(rest).ok()?;
    Some(String::from_utf8(decoded).ok()?.split_once(':')?.1.to_owned())
}

/// 401. The page's routes ask who reads for `Basic`, so that a browser shows its dialog; InfluxDB's have its two texts.
fn refusal(path: &str, method: &Method, has_credentials: bool) -> Response {
    let page = path == "/" || path == "/ui" || path.starts_with("/ui/");
    let asked = if page && method.is_safe() { "Basic realm=\"uni\", charset=\"UTF-8\"" } else { "Bearer" };
    let mut response = match path {
        "/query" | "/write" if !has_credentials => {
            influx::influx_error(StatusCode::UNAUTHORIZED, "unable to parse authentication credentials")
        }
        "/query" | "/write" => influx::influx_error(StatusCode::UNAUTHORIZED, "authorization failed"),
        _ => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            (StatusCode::UNAUTHORIZED, json, "{\"error\":\"authorization failed\"}\n").into_response()
        }
    };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(asked));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn given(uri: &str, authorization: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(text) = authorization {
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
        }
        credentials(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn a_token_is_found_wherever_clients_put_it() {
        // printf 'any:0123456789abcdef' | base64
        let basic = "Basic YW55OjAxMjM0NTY3ODlhYmNkZWY=";
        let (bearer, token) = (format!("bearer {TOKEN}"), format!("Token {TOKEN}"));
        for (uri, header) in [
            ("/query?q=x", Some(basic)),
            ("/query?q=x", Some(&*bearer)),
            ("/metrics", Some(&*token)),
            ("/write?db=uni&u=any&p=0123456789abcdef", None),
        ] {
            assert_eq!(given(uri, header).as_deref(), Some(TOKEN), "{uri} {header:?}");
        }
        for (uri, header) in [
            ("/query", None),
            ("/query?p=", None),
            ("/query", Some(TOKEN)),
            ("/query", Some("Basic !")),
            ("/query", Some("Digest x")),
        ] {
            assert_eq!(given(uri, header), None, "{uri} {header:?}");
        }
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token(TOKEN.to_owned());
        assert!(token.is(TOKEN));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF", "0123456789abcdef\0"] {
            assert!(!token.is(other), "{other:?}");
        }
        assert!(!format!("{token:?}").contains(TOKEN));
    }
}
