//! Guests' control ports, asked on behalf of operators: which log levels and metrics are in force, and changes of them.
//!
//! Owns what makes up a change: the check before it, its audit line and event, and its end if it has one. How bytes come
//! to a guest is [`exchange`]'s business; who may ask is the control socket's.

mod exchange;
mod reply;
mod restore;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::task::AbortHandle;
use uni_api::guest::{
    Control, ControlAnswer, ControlKind, ControlParams, LogSource, MetricSource, SourceState,
};
use uni_wire::control::{Command, ControlError, LogTarget, MAX_LIMIT_SECONDS, MetricTarget, parse_command};

pub(crate) use self::exchange::Guest;
use self::exchange::Place;
use self::reply::{Reply, escaped};
use self::restore::{States, letter};
use crate::vms::Manager;

/// Changes that wait for their end at one time.
const MAX_PENDING: usize = 256;
/// How often the end of a change is tried, and the time between two tries.
const RESTORE_TRIES: u32 = 3;
const RESTORE_AGAIN: Duration = Duration::from_secs(5);

/// In the help of a guest that ends changes by itself, as those of `uni-guest` do.
const LIMITS_ITSELF: &str = "@TIME";

/// A guest's log levels or metrics: what changes and ends together.
type Key = (String, ControlKind);

/// The changes made here that have an end.
#[derive(Debug, Default)]
pub(crate) struct GuestControl {
    pending: Mutex<BTreeMap<Key, Pending>>,
}

/// A change that unid has to end.
#[derive(Debug)]
struct Pending {
    before: States,
    command: String,
    timer: AbortHandle,
}

/// A change that was checked.
#[derive(Debug)]
struct Change {
    kind: ControlKind,
    spec: String,
    /// The sources it names.
    names: Vec<String>,
    /// Whether the guest could end all of it by itself.
    limitable: bool,
    for_seconds: Option<u32>,
}

impl GuestControl {
    /// Shows a guest's settings, after changing them if that is asked for. `by` is who asks, for the log.
    ///
    /// # Errors
    /// When the request makes no sense, the guest does not answer, or says no.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        manager: &Manager,
        params: ControlParams,
        by: &str,
    ) -> anyhow::Result<ControlAnswer> {
        let kind = params.kind;
        let change = Change::of(&params)?;
        let guest = find(manager, params)?;
        let states = match change {
            None => list(&guest, kind).await?,
            Some(change) => self.change(&guest, &change, by).await?,
        };
        let sources =
            states.into_iter().map(|(source, state)| SourceState { source: escaped(&source), state });
        Ok(ControlAnswer { guest: escaped(guest.name()), sources: sources.collect() })
    }

    async fn change(self: &Arc<Self>, guest: &Guest, change: &Change, by: &str) -> anyhow::Result<States> {
        let kind = change.kind;
        let before = list(guest, kind).await?;
        change.check_names(guest, &before)?;
        let by_guest = match change.for_seconds {
            Some(_) => change.limitable && limits_itself(guest, kind).await?,
            None => false,
        };
        let by_unid = change.for_seconds.filter(|_| !by_guest);
        ensure!(
            by_unid.is_none() || self.lock().len() < MAX_PENDING,
            "{MAX_PENDING} changes wait for their end already; leave out --for, or wait"
        );
        let command = change.command(by_guest);
        let applied = apply(guest, kind, &command).await;
        audit(guest, &command, by, change.for_seconds, applied.as_ref().err());
        applied?;
        // what is in force now, even if it cannot be asked any more, ends in its time
        match by_unid {
            Some(seconds) => self.end_later(guest, kind, before, command, seconds),
            None => self.forget(&key(guest, kind)),
        }
        list(guest, kind).await.context("the change is made, but what is in force now cannot be shown")
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a change in `seconds`. Where one is pending already, its end moves, and what was before the first comes back.
    fn end_later(
        self: &Arc<Self>,
        guest: &Guest,
        kind: ControlKind,
        before: States,
        command: String,
        seconds: u32,
    ) {
        let key = key(guest, kind);
        let mut pending = self.lock();
        let earlier = pending.remove(&key);
        let before = earlier.map_or(before, |earlier| {
            earlier.timer.abort();
            earlier.before
        });
        let (this, guest) = (Arc::clone(self), guest.clone());
        // the map is locked: the timer finds its entry
        let timer = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds.into())).await;
            this.end(&guest, kind).await;
        });
        pending.insert(key, Pending { before, command, timer: timer.abort_handle() });
    }

    /// A change without an end makes all of its kind last.
    fn forget(&self, key: &Key) {
        if let Some(pending) = self.lock().remove(key) {
            pending.timer.abort();
        }
    }

    async fn end(&self, guest: &Guest, kind: ControlKind) {
        let Some(Pending { before, .. }) = self.lock().remove(&key(guest, kind)) else { return };
        if guest.is_down() {
            return;
        }
        for tries in 1..=RESTORE_TRIES {
            match bring_back(guest, kind, &before).await {
                Ok(()) => return,
                Err(error) if tries == RESTORE_TRIES => {
                    let err = format!("{error:#}");
                    tracing::warn!(
                        guest = guest.name(),
                        err,
                        "a guest keeps a change that was made for a time"
                    );
                }
                Err(_) => tokio::time::sleep(RESTORE_AGAIN).await,
            }
        }
    }

    /// Says in the log which changes will not end, because the daemon does.
    pub(crate) fn tell_lost(&self) {
        for ((guest, _), Pending { command, timer, .. }) in std::mem::take(&mut *self.lock()) {
            timer.abort();
            let guest = guest.as_str();
            tracing::warn!(guest, command, "a change that was made for a time stays: unid ends before it");
        }
    }
}

/// The settings of a VM's guest, for the page. That many guests have none is no failure.
pub(crate) async fn of_vm(guest: &Guest) -> Control {
    let both = tokio::try_join!(list(guest, ControlKind::Logs), list(guest, ControlKind::Metrics));
    let (logs, metrics) = match both {
        Ok(both) => both,
        Err(error) => return Control { error: format!("{error:#}"), ..Control::default() },
    };
    let logs = logs.into_iter().map(|(source, level)| LogSource { source: escaped(&source), level });
    let metrics = metrics.into_iter().map(|(source, state)| MetricSource { source: escaped(&source), state });
    Control { logs: logs.collect(), metrics: metrics.collect(), error: String::new() }
}

fn find(manager: &Manager, params: ControlParams) -> anyhow::Result<Guest> {
    let place = match (params.id.is_empty(), params.addr.is_empty()) {
        (false, true) => Place::Vm(manager.find(&params.id)?),
        (true, false) => Place::Address(params.addr),
        _ => bail!("name either a VM or an address"),
    };
    let token = params.token;
    ensure!(
        token.as_ref().is_none_or(|token| !token.0.is_empty() && !token.0.contains(['\r', '\n'])),
        "the token is empty or has several lines"
    );
    Ok(Guest { place, token })
}

fn key(guest: &Guest, kind: ControlKind) -> Key {
    let name = match &guest.place {
        Place::Vm(vm) => vm.id(),
        Place::Address(address) => address,
    };
    (name.to_owned(), kind)
}

/// Everything of one kind.
async fn list(guest: &Guest, kind: ControlKind) -> anyhow::Result<States> {
    let query = match kind {
        ControlKind::Logs => "l*",
        ControlKind::Metrics => "m*",
    };
    match guest.ask(query, kind).await? {
        Reply::List(states) => Ok(states),
        other => Err(unexpected(guest, query, other)),
    }
}

async fn apply(guest: &Guest, kind: ControlKind, command: &str) -> anyhow::Result<()> {
    match guest.ask(command, kind).await? {
        Reply::Done => Ok(()),
        other => Err(unexpected(guest, command, other)),
    }
}

async fn limits_itself(guest: &Guest, kind: ControlKind) -> anyhow::Result<bool> {
    Ok(matches!(guest.ask("h", kind).await?, Reply::Odd(text) if text.contains(LIMITS_ITSELF)))
}

async fn bring_back(guest: &Guest, kind: ControlKind, before: &States) -> anyhow::Result<()> {
    let now = list(guest, kind).await?;
    let Some(command) = restore::command(kind, before, &now) else { return Ok(()) };
    let applied = apply(guest, kind, &command).await;
    audit(guest, &command, "unid, its time is over", None, applied.as_ref().err());
    applied
}

fn unexpected(guest: &Guest, command: &str, reply: Reply) -> anyhow::Error {
    let name = guest.name();
    match reply {
        Reply::Refused(why) if why == "authentication required" => {
            anyhow::anyhow!(
                "{name} wants a token, and this is none or a wrong one; give it with --token-file"
            )
        }
        Reply::Refused(why) => anyhow::anyhow!("{name} refuses {command:?}: {why}"),
        Reply::Odd(text) => anyhow::anyhow!("{name} answers {command:?} with what is no answer: \"{text}\""),
        Reply::Done | Reply::List(_) => {
            anyhow::anyhow!("{name} answers {command:?} with the answer to another")
        }
    }
}

/// Who changed what, for the log; and a mark on the VM's page if it changed.
fn audit(guest: &Guest, command: &str, by: &str, for_seconds: Option<u32>, error: Option<&anyhow::Error>) {
    let name = guest.name();
    let lasting = for_seconds.map_or_else(|| "ever".to_owned(), |seconds| format!("{seconds}s"));
    match error {
        None => tracing::info!(vm = name, command, by, r#for = lasting, "guest control"),
        Some(error) => {
            let err = format!("{error:#}");
            tracing::warn!(vm = name, command, by, r#for = lasting, err, "guest control failed");
        }
    }
    if let (Place::Vm(vm), None) = (&guest.place, error) {
        vm.note_control(command);
    }
}

impl Change {
    /// The change that is asked for, if one is.
    ///
    /// # Errors
    /// When a guest could not understand it: which part, and why.
    fn of(params: &ControlParams) -> anyhow::Result<Option<Self>> {
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
    fn check_names(&self, guest: &Guest, known: &States) -> anyhow::Result<()> {
        let is_known = |name: &String| known.iter().any(|(source, _)| source == name);
        let Some(name) = self.names.iter().find(|name| !is_known(name)) else { return Ok(()) };
        let sources = known.iter().map(|(source, _)| source.as_str());
        let sources: Vec<_> = sources.filter(|name| *name != "*" && !name.starts_with("tag:")).collect();
        bail!("unknown source {name:?}: {} has {}", guest.name(), escaped(&sources.join(", ")))
    }

    /// The change in the guest's words.
    fn command(&self, limited: bool) -> String {
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
