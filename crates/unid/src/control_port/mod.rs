//! Guests' control ports, asked on behalf of operators: which log levels and metrics are in force, and changes of them.
//!
//! Owns what makes up a change: the check before it, its audit line and event, and its end if it has one. How bytes come
//! to a guest is [`exchange`]'s business; who may ask is the control socket's.

mod change;
mod exchange;
mod pending;
mod reply;
mod restore;
pub(crate) mod sampling;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::task::AbortHandle;
use uni_api::guest::{
    Control, ControlAnswer, ControlKind, ControlParams, LogSource, MetricSource, SourceState,
};

use self::change::Change;
pub(crate) use self::exchange::Guest;
use self::exchange::Place;
use self::pending::Stored;
use self::reply::{Reply, escaped};
use self::restore::States;
use crate::vms::{Manager, Vm};

/// Changes that wait for their end at one time.
const MAX_PENDING: usize = 256;
/// How often the end of a change is tried, and the time between two tries.
const RESTORE_TRIES: u32 = 3;
const RESTORE_AGAIN: Duration = Duration::from_secs(5);

/// In the help of a guest that ends changes by itself, whatever they are about, as those of `uni-guest` do.
const LIMITS_ITSELF: &str = "then as if never said";

/// A guest that answers only who knows its `--monitor-token`.
#[derive(Debug, thiserror::Error)]
#[error("{0} wants a token, and this is none or a wrong one; give it with --token-file")]
struct TokenWanted(String);

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
    change: Stored,
    timer: AbortHandle,
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
            Some(_) => limits_itself(guest, kind).await?,
            None => false,
        };
        let by_unid = change.for_seconds.filter(|_| !by_guest);
        ensure!(
            by_unid.is_none() || self.lock().len() < MAX_PENDING,
            "{MAX_PENDING} changes wait for their end already; leave out --for, or wait"
        );
        let command = change.command(by_guest);
        // before it is made: a daemon that is killed in between ends it all the same
        let earlier = match by_unid {
            Some(seconds) => self.end_later(guest, kind, guest.ending(before, &command, seconds))?,
            None => None,
        };
        let applied = apply(guest, kind, &command).await;
        audit(guest, &command, by, &change.lasting(), applied.as_ref().err());
        match (&applied, change.for_seconds) {
            (Ok(()), None) if !change.is_limited() => self.forget(guest, kind),
            (Err(_), Some(_)) if by_unid.is_some() => self.put_back(guest, kind, earlier),
            _ => {}
        }
        applied?;
        list(guest, kind).await.context("the change is made, but what is in force now cannot be shown")
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a change at its time, here or in a daemon that comes back. It takes the place of one that is pending already,
    /// which it gives back: of changes that follow each other, what was before the first is to come back.
    fn end_later(
        self: &Arc<Self>,
        guest: &Guest,
        kind: ControlKind,
        mut change: Stored,
    ) -> anyhow::Result<Option<Stored>> {
        let earlier = self.lock().get(&key(guest, kind)).map(|earlier| earlier.change.clone());
        if let Some(earlier) = &earlier {
            change.before.clone_from(&earlier.before);
        }
        self.arm(guest, kind, change.clone());
        if let Err(error) = guest.keep(kind, &change) {
            self.put_back(guest, kind, earlier);
            return Err(error);
        }
        Ok(earlier)
    }

    fn arm(self: &Arc<Self>, guest: &Guest, kind: ControlKind, change: Stored) {
        let left = change.left();
        let mut pending = self.lock();
        let (this, of) = (Arc::clone(self), guest.clone());
        // the map is locked: the timer finds its entry
        let timer = tokio::spawn(async move {
            tokio::time::sleep(left).await;
            this.end(&of, kind).await;
        });
        let change = Pending { change, timer: timer.abort_handle() };
        if let Some(earlier) = pending.insert(key(guest, kind), change) {
            earlier.timer.abort();
        }
    }

    /// A change that failed leaves the one that it was to take the place of.
    fn put_back(self: &Arc<Self>, guest: &Guest, kind: ControlKind, earlier: Option<Stored>) {
        let Some(earlier) = earlier else { return self.forget(guest, kind) };
        self.arm(guest, kind, earlier.clone());
        if let Err(error) = guest.keep(kind, &earlier) {
            let (guest, err) = (guest.name(), format!("{error:#}"));
            tracing::warn!(guest, err, "a change that was made for a time ends only if unid lasts");
        }
    }

    /// A change without an end makes all of its kind last.
    fn forget(&self, guest: &Guest, kind: ControlKind) {
        // the file goes while the map is locked, so that it is not that of the next change
        let mut pending = self.lock();
        if let Some(pending) = pending.remove(&key(guest, kind)) {
            pending.timer.abort();
        }
        guest.unkeep(kind);
    }

    /// Ends a change whose time is over. It stays in the map meanwhile: who changes the guest now takes its place.
    async fn end(&self, guest: &Guest, kind: ControlKind) {
        let key = key(guest, kind);
        let Some(before) = self.lock().get(&key).map(|pending| pending.change.before.clone()) else { return };
        for tries in 1..=RESTORE_TRIES {
            if guest.is_down() {
                break;
            }
            match bring_back(guest, kind, &before).await {
                Ok(()) => break,
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
        let mut pending = self.lock();
        let is_mine = |pending: &Pending| Some(pending.timer.id()) == tokio::task::try_id();
        if pending.get(&key).is_some_and(is_mine) {
            pending.remove(&key);
            guest.unkeep(kind);
        }
    }

    /// Takes over the changes that an earlier daemon was to end: those that are late end at once.
    pub(crate) fn take_over(self: &Arc<Self>, manager: &Manager) {
        for vm in manager.all() {
            for kind in [ControlKind::Logs, ControlKind::Metrics] {
                match pending::load(&vm, kind) {
                    Ok(Some(stored)) => self.resume(&vm, kind, stored),
                    Ok(None) => pending::remove(&vm, kind),
                    Err(error) => {
                        let (name, err) = (vm.name(), format!("{error:#}"));
                        tracing::warn!(
                            vm = name,
                            err,
                            "a change that was made for a time stays: its record is damaged"
                        );
                        pending::remove(&vm, kind);
                    }
                }
            }
        }
    }

    fn resume(self: &Arc<Self>, vm: &Arc<Vm>, kind: ControlKind, stored: Stored) {
        let (vm_name, command, left_seconds) = (vm.name(), stored.command.as_str(), stored.left().as_secs());
        tracing::info!(
            vm = vm_name,
            command,
            left_seconds,
            "a change that was made for a time is taken over"
        );
        self.arm(&Guest::of(Arc::clone(vm)), kind, stored);
    }

    /// Says in the log which changes will not end, because the daemon does: those of guests that are no VMs.
    pub(crate) fn tell_lost(&self, manager: &Manager) {
        for ((guest, _), Pending { change, timer }) in std::mem::take(&mut *self.lock()) {
            timer.abort();
            if manager.find(&guest).is_err() {
                let (guest, command) = (guest.as_str(), change.command.as_str());
                tracing::warn!(
                    guest,
                    command,
                    "a change that was made for a time stays: unid ends before it"
                );
            }
        }
    }
}

impl Guest {
    /// A change of its settings that ends in `seconds`.
    fn ending(&self, before: States, command: &str, seconds: u32) -> Stored {
        let generation = match &self.place {
            Place::Vm(vm) => vm.generation(),
            Place::Address(_) => 0,
        };
        Stored::new(generation, before, command, seconds)
    }

    /// Keeps what is to come back where a daemon that comes back finds it. Only VMs have such a place.
    fn keep(&self, kind: ControlKind, change: &Stored) -> anyhow::Result<()> {
        let Place::Vm(vm) = &self.place else { return Ok(()) };
        pending::save(vm, kind, change)
    }

    fn unkeep(&self, kind: ControlKind) {
        if let Place::Vm(vm) = &self.place {
            pending::remove(vm, kind);
        }
    }
}

/// The settings of a VM's guest, for the page. That many guests have none is no failure.
pub(crate) async fn of_vm(guest: &Guest) -> Control {
    let both = tokio::try_join!(list(guest, ControlKind::Logs), list(guest, ControlKind::Metrics));
    let (logs, metrics) = match both {
        Ok(both) => both,
        Err(error) => {
            let needs_token = error.is::<TokenWanted>();
            return Control { error: format!("{error:#}"), needs_token, ..Control::default() };
        }
    };
    let logs = logs.into_iter().map(|(source, level)| LogSource { source: escaped(&source), level });
    let metrics = metrics.into_iter().map(|(source, state)| MetricSource { source: escaped(&source), state });
    Control { logs: logs.collect(), metrics: metrics.collect(), ..Control::default() }
}

fn find(manager: &Manager, params: ControlParams) -> anyhow::Result<Guest> {
    let place = match (params.id.is_empty(), params.addr.is_empty()) {
        (false, true) => Place::Vm(manager.find(&params.id)?),
        (true, false) => Place::Address(params.addr),
        _ => bail!("name either a VM or an address"),
    };
    Guest { place, token: None }.with_token(params.token)
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
    audit(guest, &command, "unid, its time is over", "ever", applied.as_ref().err());
    applied
}

fn unexpected(guest: &Guest, command: &str, reply: Reply) -> anyhow::Error {
    let name = guest.name();
    match reply {
        Reply::Refused(why) if why == "authentication required" => TokenWanted(name.to_owned()).into(),
        Reply::Refused(why) => anyhow::anyhow!("{name} refuses {command:?}: {why}"),
        Reply::Odd(text) => anyhow::anyhow!("{name} answers {command:?} with what is no answer: \"{text}\""),
        Reply::Done | Reply::List(_) => {
            anyhow::anyhow!("{name} answers {command:?} with the answer to another")
        }
    }
}

/// Who changed what, for the log; and a mark on the VM's page if it changed.
fn audit(guest: &Guest, command: &str, by: &str, lasting: &str, error: Option<&anyhow::Error>) {
    let name = guest.name();
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
