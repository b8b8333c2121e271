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
    /// Whether the guest could end all of it by itself.
    pub(super) limitable: bool,
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
        let (names, limitable, limited) =
            items(&command).map_err(|error| misunderstood(spec, kind, &error))?;
        ensure!(
            !limited || for_seconds.is_none(),
            "the change {spec:?} says itself how long; leave out that or --for"
        );
        Ok(Some(Self { kind, spec: spec.clone(), names, limitable, for_seconds }))
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

/// The sources a command names, whether all its items can have a time limit, and whether one has.
fn items(command: &str) -> Result<(Vec<String>, bool, bool), ControlError<'_>> {
    let mut names = Vec::new();
    let (mut limitable, mut limited) = (true, false);
    match parse_command(command.as_bytes())? {
        Command::SetLogs(items) => {
            for item in items.limited() {
                limited |= item.seconds.is_some();
                if let LogTarget::Source(name) = item.target {
                    names.push(name.to_owned());
                }
            }
        }
        Command::SetMetrics(items) => {
            for item in items.limited() {
                limited |= item.seconds.is_some();
                match item.target {
                    MetricTarget::Source(name) => names.push(name.to_owned()),
                    MetricTarget::All | MetricTarget::Tag(_) => limitable = false,
                }
            }
        }
        _ => return Err(ControlError::UnknownCommand),
    }
    Ok((names, limitable, limited))
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
            (ControlKind::Metrics, "on@10m", "time limit"),
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
        assert_eq!((change.names, change.limitable), (vec!["dns".to_owned()], true));
    }

    #[test]
    fn all_metrics_and_tags_cannot_be_limited_by_the_guest() {
        for (spec, limitable) in [("off", false), ("*:off", false), ("tag:http:off", false), ("gc:off", true)]
        {
            let change = change(ControlKind::Metrics, spec, Some(1)).unwrap().unwrap();
            assert_eq!(change.limitable, limitable, "{spec}");
        }
    }
}
