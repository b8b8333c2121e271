//! How much a guest's heap traces sample, asked and set at its control port.
//!
//! Owns the two commands. When a rate is set and put back is the business of who takes a trace.

use anyhow::bail;
use uni_api::guest::ControlKind;

use super::exchange::Guest;
use super::reply::Reply;
use super::{apply, audit, unexpected};

/// Neither of logs nor of metrics; the kind only says how lists are read, and there is none.
const KIND: ControlKind = ControlKind::Logs;

/// The probability with which the guest's next trace samples a word.
///
/// # Errors
/// When the guest does not tell.
pub(crate) async fn rate(guest: &Guest) -> anyhow::Result<f64> {
    let told = match guest.ask("s", KIND).await? {
        Reply::Odd(text) => text,
        Reply::Refused(why) if why.starts_with("unknown command") => {
            bail!("{} has no heap traces whose rate can be set; leave out --rate", guest.name())
        }
        other => return Err(unexpected(guest, "s", other)),
    };
    match parse(&told) {
        Some(rate) => Ok(rate),
        None => Err(unexpected(guest, "s", Reply::Odd(told))),
    }
}

/// Sets it; `by` is who asks, for the log.
///
/// # Errors
/// When the guest refuses it or does not answer.
pub(crate) async fn set_rate(guest: &Guest, rate: f64, by: &str) -> anyhow::Result<()> {
    let command = format!("S{rate}");
    let applied = apply(guest, KIND, &command).await;
    audit(guest, &command, by, "ever", applied.as_ref().err());
    applied
}

/// How many events the guest's traces had no room for since it began; none if it does not tell.
pub(crate) async fn dropped_events(guest: &Guest) -> Option<u64> {
    match guest.ask("s", KIND).await {
        Ok(Reply::Odd(told)) => parse_dropped(&told),
        _ => None,
    }
}

/// The number in `ok: rate:0.0001,state:idle,traces:1,events:9,dropped_events:0`.
fn parse_dropped(told: &str) -> Option<u64> {
    let mut parts = told.strip_prefix("ok: ")?.split(',');
    parts.find_map(|part| part.strip_prefix("dropped_events:"))?.trim().parse().ok()
}

/// The rate in `ok: rate:0.0001,state:idle,...`.
fn parse(told: &str) -> Option<f64> {
    let first = told.strip_prefix("ok: rate:")?.split(',').next()?;
    first.parse().ok().filter(|rate| uni_api::heap_trace::is_rate(*rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_and_what_is_none_is_not() {
        assert_eq!(parse("ok: rate:0.0001,state:idle,traces:0"), Some(0.0001));
        assert_eq!(parse("ok: rate:1"), Some(1.0));
        for odd in ["ok: rate:0,state:idle", "ok: rate:nan", "ok: rate:2", "ok: state:idle", "ok", ""] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_was_dropped_is_read_where_it_is_told() {
        assert_eq!(parse_dropped("ok: rate:0.1,state:idle,traces:1,events:9,dropped_events:12"), Some(12));
        for odd in ["ok: rate:1", "ok: dropped_events:-1", "ok: dropped_events:", "dropped_events:1", ""] {
            assert_eq!(parse_dropped(odd), None, "{odd}");
        }
    }
}
