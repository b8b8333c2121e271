//! What an operator asks to be changed.
//!
//! Owns the check of it before a guest is asked, and its words for the guest. Never asks anyone.

use anyhow::{bail, ensure};
use uni_api::guest::{ControlKind, ControlParams};
use uni_wire::control::{Command, ControlError, LogTarget, MAX_LIMIT_SECONDS, MetricTarget, parse_command};

use super::exchange::Guest;
use super::reply::escaped;
use super::restore::{States, letter};

/// A change that was checked.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) kind: ControlKind,
    spec: String,
    /// The sources it names.
    names: Vec<String>,
    /// How long each of its items says that it lasts.
    items_seconds: Vec<Option<u32>>,
    pub(super) for_seconds: Option<u32>,
}

impl Change {
    /// The change that is asked for, if one is.
    ///
    /// # Errors
    /// When a guest could not understand it: which part, and why.
    pub(super) fn of(params: &ControlParams) -> anyhow::Result<Option<Self>> {
        let Some(spec) = &params.spec else {
            ensure!(params.for_seconds.is_none(), "--for needs a change that is to end");
            return Ok(None);
        };
        ensure!(!spec.contains(char::is_control), "the change {spec:?} has control characters in it");
        let (kind, for_seconds) = (params.kind, params.for_seconds);
        if let Some(seconds) = for_seconds {
            ensure!((1..=MAX_LIMIT_SECONDS).contains(&seconds), "--for takes 1s to 24h, not {seconds}s");
        }
        let command = format!("{}{spec}", letter(kind));
        let (names, items_seconds) = items(&command).map_err(|error| misunderstood(spec, kind, &error))?;
        ensure!(
            items_seconds.iter().all(Option::is_none) || for_seconds.is_none(),
            "the change {spec:?} says itself how long; leave out that or --for"
        );
        Ok(Some(Self { kind, spec: spec.clone(), names, items_seconds, for_seconds }))
    }

    /// Whether something in it ends.
    pub(super) fn is_limited(&self) -> bool {
        self.for_seconds.is_some() || self.items_seconds.iter().any(Option::is_some)
    }

    /// How long it lasts, for the log: of its items one after the other, if they differ.
    pub(super) fn lasting(&self) -> String {
        let word = |seconds: Option<u32>| seconds.map_or_else(|| "ever".to_owned(), |s| format!("{s}s"));
        let mut words: Vec<_> = self.items_seconds.iter().map(|own| word(own.or(self.for_seconds))).collect();
        words.dedup();
        words.join(",")
    }

    /// That the guest has all sources that are named: MirageOS's own do not say when they have not.
    ///
    /// # Errors
    /// Names the one it has not, and those it has.
    pub(super) fn check_names(&self, guest: &Guest, known: &States) -> anyhow::Result<()> {
        let is_known = |name: &String| known.iter().any(|(source, _)| source == name);
        let Some(name) = self.names.iter().find(|name| !is_known(name)) else { return Ok(()) };
        let sources = known.iter().map(|(source, _)| source.as_str());
        let sources: Vec<_> = sources.filter(|name| *name != "*" && !name.starts_with("tag:")).collect();
        bail!("unknown source {name:?}: {} has {}", guest.name(), escaped(&sources.join(", ")))
    }

    /// The change in the guest's words.
    pub(super) fn command(&self, limited: bool) -> String {
        let letter = letter(self.kind);
        match self.for_seconds.filter(|_| limited) {
            None => format!("{letter}{}", self.spec),
            Some(seconds) => {
                let items: Vec<_> = self.spec.split(',').map(|item| format!("{item}@{seconds}s")).collect();
                format!("{letter}{}", items.join(","))
            }
        }
    }
}

/// The sources a command names, and how long each of its items lasts.
fn items(command: &str) -> Result<(Vec<String>, Vec<Option<u32>>), ControlError<'_>> {
    let (mut names, mut lasting) = (Vec::new(), Vec::new());
    match parse_command(command.as_bytes())? {
        Command::SetLogs(items) => {
            for item in items.limited() {
                lasting.push(item.seconds);
                if let LogTarget::Source(name) = item.target {
                    names.push(name.to_owned());
                }
            }
        }
        Command::SetMetrics(items) => {
            for item in items.limited() {
                lasting.push(item.seconds);
                if let MetricTarget::Source(name) = item.target {
                    names.push(name.to_owned());
                }
            }
        }
        _ => return Err(ControlError::UnknownCommand),
    }
    Ok((names, lasting))
}

fn misunderstood(spec: &str, kind: ControlKind, error: &ControlError<'_>) -> anyhow::Error {
    let error = error.to_string();
    let error = error.strip_prefix("error: ").unwrap_or(&error);
    let expected = match kind {
        ControlKind::Logs => {
            "write LEVEL or SOURCE:LEVEL, joined by commas; levels are quiet, app, error, warning, info, debug"
        }
        ControlKind::Metrics => "write on, off, SOURCE:off or tag:KEY:off, joined by commas",
    };
    anyhow::anyhow!("the change {spec:?} cannot be read: {error}; {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: ControlKind, spec: &str, for_seconds: Option<u32>) -> anyhow::Result<Option<Change>> {
        let spec = Some(spec.to_owned());
        Change::of(&ControlParams {
            id: "web".to_owned(),
            addr: String::new(),
            kind,
            spec,
            for_seconds,
            token: None,
        })
    }

    #[test]
    fn what_a_guest_could_not_read_is_refused_with_the_part() {
        for (kind, spec, part) in [
            (ControlKind::Logs, "dns:loud", "\"loud\""),
            (ControlKind::Logs, "a:b:info", "a:b:info"),
            (ControlKind::Logs, "", "\"\""),
            (ControlKind::Metrics, "gc:maybe", "maybe"),
            (ControlKind::Metrics, "gc:on\nnet:on", "control characters"),
            (ControlKind::Metrics, "on@10", "time limit"),
        ] {
            let error = change(kind, spec, None).unwrap_err().to_string();
            assert!(error.contains(part), "{spec:?}: {error}");
        }
        assert!(change(ControlKind::Logs, "debug@5m", Some(10)).is_err());
        assert!(change(ControlKind::Logs, "debug", Some(0)).is_err());
    }

    #[test]
    fn a_time_limit_is_put_behind_every_item_if_the_guest_keeps_it() {
        let change = change(ControlKind::Logs, "*:error,dns:debug", Some(600)).unwrap().unwrap();
        assert_eq!(change.command(true), "L*:error@600s,dns:debug@600s");
        assert_eq!(change.command(false), "L*:error,dns:debug");
        assert_eq!((change.lasting(), change.names), ("600s".to_owned(), vec!["dns".to_owned()]));
    }

    #[test]
    fn how_long_it_lasts_is_what_its_items_say() {
        for (spec, seconds, lasting) in [
            ("http:debug@5s", None, "5s"),
            ("http:debug@5s,dns:debug@5s,error", None, "5s,ever"),
            ("debug", None, "ever"),
            ("debug,dns:info", Some(60), "60s"),
        ] {
            let change = change(ControlKind::Logs, spec, seconds).unwrap().unwrap();
            assert_eq!((change.lasting().as_str(), change.is_limited()), (lasting, lasting != "ever"));
        }
        let change = change(ControlKind::Metrics, "off,tag:http:on", Some(3)).unwrap().unwrap();
        assert_eq!(change.command(true), "Moff@3s,tag:http:on@3s");
    }
}
