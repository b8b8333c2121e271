//! The options of syslog over TLS.
//!
//! Owns them and the files they name, which are read once, at the start. Never connects.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;

use super::tls::SinkTls;
use crate::args::{Arguments, ArgumentsError, OptionSpec};

/// Where a sink listens for TLS (RFC 5425).
pub(super) const DEFAULT_PORT: u16 = 6514;

const CA: &str = "syslog-ca";
const CERT: &str = "syslog-cert";
const KEY: &str = "syslog-key";
const NAME: &str = "syslog-tls-name";

pub(super) const OPTIONS: [OptionSpec; 4] = [
    option(CA, "FILE", "for --syslog-transport=tls (port 6514): who signs the sink's certificate, PEM"),
    option(CERT, "FILE", "certificate to show to the sink, PEM; none"),
    option(KEY, "FILE", "its private key, PEM"),
    option(NAME, "NAME", "whom the sink's certificate must name; its address"),
];

const fn option(name: &'static str, value: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, value: Some(value), help }
}

/// What `arguments` say of the sink.
///
/// # Errors
/// No authority, one half of certificate and key, a file that cannot be read or does not hold what it should.
pub(super) fn read(arguments: &Arguments) -> Result<SinkTls, ArgumentsError> {
    let authorities = file(arguments, CA)?.ok_or_else(|| {
        let text = "--syslog-transport=tls needs --syslog-ca=FILE: the certificates, in PEM, of who signs the sink's";
        ArgumentsError::Unusable(text.to_string())
    })?;
    let tls = match (file(arguments, CERT)?, file(arguments, KEY)?) {
        (None, None) => SinkTls::new(&authorities),
        (Some(chain), Some(key)) => SinkTls::with_certificate(&authorities, &chain, &key),
        _ => {
            return Err(ArgumentsError::Unusable(
                "--syslog-cert and --syslog-key need each other".to_string(),
            ));
        }
    };
    let named = tls.and_then(|tls| match arguments.extra(NAME) {
        None => Ok(tls),
        Some(name) => tls.named(name),
    });
    named.map_err(|error| ArgumentsError::Unusable(error.to_string()))
}

fn file(arguments: &Arguments, option: &str) -> Result<Option<Vec<u8>>, ArgumentsError> {
    let Some(path) = arguments.extra(option) else { return Ok(None) };
    let error = |error| ArgumentsError::Unusable(format!("--{option}: read {path}: {error}"));
    std::fs::read(path).map(Some).map_err(error)
}
