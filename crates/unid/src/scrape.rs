//! What a guest tells Prometheus, fetched over its management link, where Prometheus itself cannot reach.
//!
//! Owns the request, the reading of the answer (HTTP, by `httparse`) and the bounds of both. What the text says is the
//! guest's affair: it is handed on as it is, and whoever prints it makes it harmless.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::time::Instant;
use uni_api::guest::Exposition;

use crate::management::control::{self, Fault, Question};
use crate::vms::Vm;

/// Where guests tell their metrics, unless they are told another place (`--metrics-port`).
const METRICS_PORT: u16 = 9464;
/// The longest answer, head and all.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// What it may take.
const SCRAPE_TIME: Duration = Duration::from_secs(5);
/// Header fields of an answer.
const MAX_FIELDS: usize = 64;
/// HTTP/1.0: the answer then ends with the connection and comes in one piece (RFC 9112, 6.1).
const REQUEST: &[u8] = b"GET /metrics HTTP/1.0\r\nHost: guest\r\nAccept: text/plain;version=0.0.4\r\n\r\n";

/// The metrics of a VM's guest.
///
/// # Errors
/// When it does not run, has none, or answers with something else.
pub(crate) async fn scrape(vm: &Arc<Vm>) -> anyhow::Result<Exposition> {
    let text = fetch(vm).await.with_context(|| format!("ask {} for its metrics", vm.name()))?;
    Ok(Exposition { guest: vm.name().to_owned(), text })
}

async fn fetch(vm: &Arc<Vm>) -> anyhow::Result<String> {
    let link = vm.requests().with_context(|| format!("it is {}; only a running VM answers", vm.state()))?;
    let question = Question {
        port: port_of(vm.arguments()),
        text: REQUEST.to_vec(),
        max_reply_bytes: MAX_ANSWER_BYTES,
        deadline: Instant::now() + SCRAPE_TIME,
    };
    let answer = control::ask(&link, question).await.map_err(|fault| match fault {
        Fault::Refused(_) | Fault::Late => anyhow::anyhow!(
            "{fault}; only a guest with monitoring tells metrics there, unless it was started with --metrics-port=0"
        ),
        _ => fault.into(),
    })?;
    body(&answer)
}

/// The port that a guest was told, the last one counts; what is none is the guest's to refuse.
fn port_of(arguments: &[String]) -> u16 {
    let mut port = METRICS_PORT;
    for (at, argument) in arguments.iter().enumerate() {
        let told = match argument.strip_prefix("--metrics-port") {
            Some("") => arguments.get(at + 1).map(String::as_str),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        port = told.and_then(|text| text.parse().ok()).filter(|port| *port != 0).unwrap_or(port);
    }
    port
}

/// The text of a whole answer of status 200.
fn body(answer: &[u8]) -> anyhow::Result<String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let parsed = head.parse(answer).context("its answer is no HTTP")?;
    let httparse::Status::Complete(length) = parsed else { bail!("its answer ends within the head") };
    let status = head.code.unwrap_or_default();
    ensure!(status == 200, "it answers with status {status}");
    let body = answer.get(length..).unwrap_or_default();
    let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let announced =
        field.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse::<usize>().ok());
    let announced = announced.unwrap_or(body.len());
    ensure!(body.len() >= announced, "its answer ends after {} of {announced} bytes", body.len());
    let body = body.get(..announced).unwrap_or_default();
    Ok(String::from_utf8_lossy(body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer_is_its_body_and_anything_else_is_told() {
        let read = |answer: &str| body(answer.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n"), Ok("a 1\n".to_owned()));
        assert_eq!(read("HTTP/1.0 200 OK\r\n\r\na 1\n"), Ok("a 1\n".to_owned()));
        for (answer, words) in [
            ("", "ends within the head"),
            ("HTTP/1.1 200 OK\r\nA: b\r\n", "ends within the head"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na 1\n", "ends after 4 of 9"),
            ("HTTP/1.1 404 Not Found\r\n\r\nno", "status 404"),
            ("ok: *:info", "no HTTP"),
        ] {
            let error = read(answer).unwrap_err();
            assert!(error.contains(words), "{answer:?}: {error}");
        }
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\n\xff").unwrap(), "\u{fffd}");
    }

    #[test]
    fn the_port_is_the_one_that_the_guest_was_told() {
        let port = |arguments: &[&str]| {
            port_of(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(port(&[]), 9464);
        assert_eq!(port(&["--interval=1", "--metrics-port=9100"]), 9100);
        assert_eq!(port(&["--metrics-port=9100", "--metrics-port", "9200"]), 9200);
        assert_eq!(port(&["--metrics-port=0", "--metrics-porter=7", "--metrics-port"]), 9464);
    }
}
