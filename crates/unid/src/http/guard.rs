//! Who may ask: the check of `Host` and `Origin` that keeps other sites' pages out.
//!
//! A page from elsewhere can make a browser send requests to loopback, and by DNS rebinding even read the answers.
//! Its requests carry the other site's name as `Host` or `Origin`. Owns that check and nothing else.
//!
//! Behind TLS or a token any name may stand in `Host`, because a host that is reached from elsewhere has names that it
//! does not know. Rebinding then gains nothing: the browser gives a token only to the origin it was typed in for, and
//! to the other site's name it gives none; and under TLS it has compared the name with the certificate before it sent
//! anything. `Origin` is checked all the same, since a browser that knows the token (the page's dialog) sends it along
//! with what other sites' pages ask of this one.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Access;

/// The names that this server answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Its address and `localhost`.
    Local,
    /// Whatever it is called: something else keeps strangers out.
    Any,
}

impl Names {
    pub(super) fn of(access: &Access) -> Self {
        if access.is_guarded() { Self::Any } else { Self::Local }
    }
}

/// Lets requests through that name this host by one of its names, and whose `Origin`, if they have one, is this very
/// server.
pub(super) async fn guard(State(names): State<Names>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(Authority::as_str);
    let Some(refusal) = refusal(names, authority, request.headers()) else {
        return next.run(request).await;
    };
    (StatusCode::FORBIDDEN, refusal).into_response()
}

fn refusal(names: Names, authority: Option<&str>, headers: &HeaderMap) -> Option<&'static str> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    // HTTP/2 has it in the address; a request without either is no browser's
    let host = text(header::HOST).or(authority)?;
    if names == Names::Local && !is_local(host) {
        return Some("this server answers to its address or to localhost, not to another name\n");
    }
    let foreign = text(header::ORIGIN)
        .is_some_and(|origin| origin.split_once("://").is_none_or(|(_, from)| from != host));
    foreign.then_some("requests of other sites' pages are not answered\n")
}

/// Whether a `Host` is an address or `localhost`, with or without a port.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(names: Names, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        refusal(names, None, &headers).is_some()
    }

    #[test]
    fn other_names_are_refused_and_addresses_answer() {
        for host in ["127.0.0.1:8086", "localhost", "LOCALHOST:1", "[::1]:8086", "192.0.2.1"] {
            assert!(!refused(Names::Local, host, None), "{host}");
        }
        for host in ["evil.example.com", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[evil]"]
        {
            assert!(refused(Names::Local, host, None), "{host}");
            assert!(!refused(Names::Any, host, None), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let host = "127.0.0.1:8086";
        for names in [Names::Local, Names::Any] {
            assert!(refused(names, host, Some("http://evil.example")));
            assert!(refused(names, host, Some("null")));
            assert!(!refused(names, host, Some("http://127.0.0.1:8086")));
            assert!(!refused(names, host, None));
        }
    }
}
