//! The lifecycle of a VM as a pure state machine: events in, actions out, no clock, no files, no processes.
//!
//! ```text
//!              Start              Started              Stop, Kill              Exited
//!   created ----------> starting ----------> running ------------> stopping ----------> stopped
//!                          |                    |                                          |
//!                          +--- Exited, SpawnFailed ---> stopped <-- Exited --+            |
//!                          ^                                                               |
//!                          +---------------------- Start (same id, next generation) -------+
//! ```
//!
//! - *created*: registered, never started. Start, or remove.
//! - *starting*: a shim was asked for; QEMU's life is not confirmed yet. A stop now is remembered and acted
//!   on at *running*; a kill is passed on at once.
//! - *running*: QEMU lives.
//! - *stopping*: the power button was pressed, or QEMU is being killed. A second stop is no error; a kill
//!   escalates.
//! - *stopped*: QEMU is gone. Start again, or remove.
//!
//! Beside the state stands the *intent*: whether the operator wants the VM to run. It is set in the same step
//! as the stop request is accepted, so an exit that comes right after is never mistaken for a crash.
//!
//! Events about a process carry the generation of the start they belong to; those of an earlier one are
//! ignored.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::inject::USAGE_EXIT_CODE;

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Registered.
    Created,
    /// QEMU being launched.
    Starting,
    /// QEMU process alive.
    Running,
    /// Stop or kill requested.
    Stopping,
    /// Process gone.
    Stopped,
}

impl State {
    /// The word for it in records, logs and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// Whether the table of transitions has this one.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Created | Self::Stopped, Self::Starting)
            | (Self::Starting, Self::Running | Self::Stopped)
            | (Self::Running, Self::Stopping | Self::Stopped)
            | (Self::Stopping, Self::Stopped) => true,
            (Self::Created | Self::Starting | Self::Running | Self::Stopping | Self::Stopped, _) => false,
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// That it runs.
    #[default]
    Run,
    /// That it is stopped.
    Stop,
    /// That it is stopped without asking the guest.
    Kill,
}

/// Whether a start passes the daemon's additional arguments to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Injection {
    /// They are passed.
    With,
    /// They are not: the user said so, there are none, or the guest refused them.
    #[default]
    Without,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The operator wants it to run.
    StartRequested,
    /// QEMU lives (its `run.json` of this generation is there).
    Started {
        /// Of which start.
        generation: u64,
    },
    /// The shim could not be started at all.
    SpawnFailed {
        /// Of which start.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// QEMU is gone.
    Exited {
        /// Of which start.
        generation: u64,
        /// How.
        exit: Exit,
    },
    /// The operator wants it stopped, the guest asked first.
    StopRequested,
    /// The operator wants it stopped at once.
    KillRequested,
    /// The time a stop was given is over.
    DeadlinePassed {
        /// Of which start.
        generation: u64,
    },
    /// The guest could not be asked to stop.
    PowerDownFailed {
        /// Of which start.
        generation: u64,
    },
    /// The operator wants it forgotten.
    RemoveRequested,
}

/// Something to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a shim for this generation.
    SpawnShim {
        /// Which start this is.
        generation: u64,
        /// Whether with additional arguments.
        injection: Injection,
    },
    /// Press the power button by QMP; report [`Event::PowerDownFailed`] if that is impossible.
    PowerDown {
        /// Of which start.
        generation: u64,
    },
    /// Report [`Event::DeadlinePassed`] once the time a stop is given is over.
    ArmDeadline {
        /// Of which start.
        generation: u64,
    },
    /// The deadline is no longer needed.
    CancelDeadline,
    /// Kill QEMU.
    Kill {
        /// Of which start.
        generation: u64,
    },
    /// Store the record durably before going on.
    Persist,
    /// Tell the log, the counters and whoever watches.
    Announce {
        /// From here.
        from: State,
        /// To there.
        to: State,
    },
    /// Tell whoever watches that the guest refused the additional arguments and is started once more without
    /// them.
    AnnounceRetry,
    /// Delete record and directory.
    Remove,
}

/// Why a request cannot be accepted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Start of what runs.
    #[error("the VM is {0}: only a created or stopped one can be started")]
    AlreadyStarted(State),
    /// Stop of what does not run.
    #[error("the VM is {0}: there is nothing to stop")]
    NotRunning(State),
    /// Remove of what runs.
    #[error("the VM is {0}: stop it before removing it")]
    StillRunning(State),
    /// Any request after removal.
    #[error("the VM was removed")]
    Removed,
}

/// The part of a lifecycle that outlives the daemon. A record from before these keys existed has only a
/// state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Where the VM is.
    pub state: State,
    /// What the operator wants.
    #[serde(default)]
    pub intent: Intent,
    /// Starts so far.
    #[serde(default)]
    pub generation: u64,
    /// Whether the current start has additional arguments.
    #[serde(default)]
    pub injection: Injection,
    /// How the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
}

/// A VM's lifecycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    state: State,
    intent: Intent,
    /// Starts so far; the current one's number.
    generation: u64,
    injection: Injection,
    kill_sent: bool,
    removed: bool,
    last_exit: Option<Exit>,
}

type Accepted = Result<Vec<Action>, Refused>;

impl Machine {
    /// A VM that was just registered.
    #[must_use]
    pub fn new(injection: Injection) -> Self {
        Self {
            state: State::Created,
            intent: Intent::Run,
            generation: 0,
            injection,
            kill_sent: false,
            removed: false,
            last_exit: None,
        }
    }

    /// A VM as it was stored; [`Machine::recover`] then says what to do about it.
    #[must_use]
    pub fn restore(stored: Stored) -> Self {
        let Stored { state, intent, generation, injection, last_exit } = stored;
        Self { state, intent, generation, injection, kill_sent: false, removed: false, last_exit }
    }

    /// What to store of it.
    #[must_use]
    pub fn to_stored(&self) -> Stored {
        let Self { state, intent, generation, injection, last_exit, .. } = self.clone();
        Stored { state, intent, generation, injection, last_exit }
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What the operator wants.
    #[must_use]
    pub fn intent(&self) -> Intent {
        self.intent
    }

    /// Which start is the current or last one; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the current start passes additional arguments.
    #[must_use]
    pub fn injection(&self) -> Injection {
        self.injection
    }

    /// How the last run ended.
    #[must_use]
    pub fn last_exit(&self) -> Option<&Exit> {
        self.last_exit.as_ref()
    }

    /// Whether it was removed; nothing happens to it any more.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// Takes an event and says what to do, in this order.
    ///
    /// # Errors
    /// A request that cannot be accepted now; nothing changes then. Events that are no requests are never
    /// refused, at most ignored.
    pub fn handle(&mut self, event: Event) -> Accepted {
        if self.removed {
            return if is_request(&event) { Err(Refused::Removed) } else { Ok(Vec::new()) };
        }
        match event {
            Event::StartRequested => self.start(),
            Event::StopRequested => self.stop(),
            Event::KillRequested => self.kill(),
            Event::RemoveRequested => self.remove(),
            Event::Started { generation } if self.is_current(generation) => Ok(self.started()),
            Event::SpawnFailed { generation, reason } if self.is_current(generation) => {
                Ok(self.exited(Exit::HypervisorError(reason)))
            }
            Event::Exited { generation, exit } if self.is_current(generation) => Ok(self.exited(exit)),
            Event::DeadlinePassed { generation } | Event::PowerDownFailed { generation }
                if self.is_current(generation) =>
            {
                Ok(self.give_up_asking())
            }
            Event::Started { .. }
            | Event::SpawnFailed { .. }
            | Event::Exited { .. }
            | Event::DeadlinePassed { .. }
            | Event::PowerDownFailed { .. } => Ok(Vec::new()),
        }
    }

    /// What to do when a daemon comes back and finds this machine in its store, after it has learned by the
    /// VM's directory what became of QEMU: `None` if it lives, else how it ended.
    pub fn recover(&mut self, exit: Option<Exit>) -> Vec<Action> {
        match (self.state, exit) {
            (State::Created | State::Stopped, _) => Vec::new(),
            (_, Some(exit)) => self.exited(exit),
            (State::Starting, None) => self.started(),
            (State::Running, None) => self.continue_as_intended(),
            (State::Stopping, None) => self.ask_or_kill(),
        }
    }

    /// Says, before [`Machine::recover`], that QEMU of start `generation` lives. What was stored yields: it is
    /// older when records were brought back from a copy.
    pub fn found_alive(&mut self, generation: u64) {
        if matches!(self.state, State::Created | State::Stopped) {
            self.intent = Intent::Run;
            let _recover_tells = self.become_state(State::Starting);
        }
        self.generation = generation;
    }

    fn is_current(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// The one place where the state changes.
    fn become_state(&mut self, to: State) -> [Action; 2] {
        debug_assert!(self.state.may_become(to), "{} to {to}", self.state);
        let from = std::mem::replace(&mut self.state, to);
        [Action::Persist, Action::Announce { from, to }]
    }

    fn start(&mut self) -> Accepted {
        match self.state {
            State::Created | State::Stopped => {
                self.intent = Intent::Run;
                Ok(self.spawn())
            }
            State::Starting | State::Running | State::Stopping => Err(Refused::AlreadyStarted(self.state)),
        }
    }

    fn spawn(&mut self) -> Vec<Action> {
        self.generation += 1;
        self.kill_sent = false;
        let [persist, announce] = self.become_state(State::Starting);
        let spawn = Action::SpawnShim { generation: self.generation, injection: self.injection };
        vec![persist, announce, spawn]
    }

    fn started(&mut self) -> Vec<Action> {
        if self.state != State::Starting {
            return Vec::new();
        }
        let mut actions = self.become_state(State::Running).to_vec();
        actions.extend(self.continue_as_intended());
        actions
    }

    /// Acts on a stop or kill that came while the VM was starting.
    fn continue_as_intended(&mut self) -> Vec<Action> {
        if self.intent == Intent::Run {
            return Vec::new();
        }
        let mut actions = self.become_state(State::Stopping).to_vec();
        actions.extend(self.ask_or_kill());
        actions
    }

    fn ask_or_kill(&mut self) -> Vec<Action> {
        let generation = self.generation;
        if self.intent == Intent::Kill {
            self.send_kill()
        } else {
            vec![Action::PowerDown { generation }, Action::ArmDeadline { generation }]
        }
    }

    fn send_kill(&mut self) -> Vec<Action> {
        self.kill_sent = true;
        vec![Action::CancelDeadline, Action::Kill { generation: self.generation }]
    }

    fn stop(&mut self) -> Accepted {
        match self.state {
            State::Created | State::Stopped => Err(Refused::NotRunning(self.state)),
            State::Starting | State::Stopping => Ok(self.intend(Intent::Stop)),
            State::Running => {
                self.intent = Intent::Stop;
                Ok(self.continue_as_intended())
            }
        }
    }

    /// Remembers what is wanted; a kill is never softened to a stop.
    fn intend(&mut self, intent: Intent) -> Vec<Action> {
        if self.intent == Intent::Kill || self.intent == intent {
            return Vec::new();
        }
        self.intent = intent;
        vec![Action::Persist]
    }

    fn kill(&mut self) -> Accepted {
        match self.state {
            State::Created | State::Stopped => Err(Refused::NotRunning(self.state)),
            // There may be no QEMU to kill yet: the kill is said again once there is.
            State::Starting | State::Stopping => {
                let mut actions = self.intend(Intent::Kill);
                actions.extend(self.send_kill());
                Ok(actions)
            }
            State::Running => {
                self.intent = Intent::Kill;
                Ok(self.continue_as_intended())
            }
        }
    }

    fn give_up_asking(&mut self) -> Vec<Action> {
        if self.state == State::Stopping && !self.kill_sent { self.send_kill() } else { Vec::new() }
    }

    fn exited(&mut self, exit: Exit) -> Vec<Action> {
        let stopping = match self.state {
            State::Created | State::Stopped => return Vec::new(),
            State::Starting | State::Running => false,
            State::Stopping => true,
        };
        let refused = self.refused_arguments(&exit);
        self.last_exit = Some(exit);
        let mut actions = self.become_state(State::Stopped).to_vec();
        if stopping {
            actions.push(Action::CancelDeadline);
        }
        if refused {
            self.injection = Injection::Without;
            actions.push(Action::AnnounceRetry);
            actions.extend(self.spawn());
        }
        actions
    }

    /// Whether the guest ended because it does not know the additional arguments. Happens once: the next
    /// start has none.
    fn refused_arguments(&self, exit: &Exit) -> bool {
        let injected = self.injection == Injection::With;
        injected && self.intent == Intent::Run && *exit == Exit::Code(USAGE_EXIT_CODE)
    }

    fn remove(&mut self) -> Accepted {
        match self.state {
            State::Created | State::Stopped => {
                self.removed = true;
                Ok(vec![Action::Remove])
            }
            State::Starting | State::Running | State::Stopping => Err(Refused::StillRunning(self.state)),
        }
    }
}

fn is_request(event: &Event) -> bool {
    match event {
        Event::StartRequested | Event::StopRequested | Event::KillRequested | Event::RemoveRequested => true,
        Event::Started { .. }
        | Event::SpawnFailed { .. }
        | Event::Exited { .. }
        | Event::DeadlinePassed { .. }
        | Event::PowerDownFailed { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const G: u64 = 1;

    fn running() -> Machine {
        let mut machine = Machine::new(Injection::With);
        machine.handle(Event::StartRequested).unwrap();
        machine.handle(Event::Started { generation: G }).unwrap();
        machine
    }

    fn exited(code: u8) -> Event {
        Event::Exited { generation: G, exit: Exit::Code(code) }
    }

    #[test]
    fn the_table_is_the_contracts_and_a_start_of_what_is_stopped() {
        use State::{Created, Running, Starting, Stopped, Stopping};
        let all = [Created, Starting, Running, Stopping, Stopped];
        let legal: Vec<_> = all
            .iter()
            .flat_map(|a| all.iter().map(move |b| (*a, *b)))
            .filter(|(a, b)| a.may_become(*b))
            .collect();
        let table = [
            (Created, Starting),
            (Starting, Running),
            (Starting, Stopped),
            (Running, Stopping),
            (Running, Stopped),
            (Stopping, Stopped),
            (Stopped, Starting),
        ];
        assert_eq!(legal, table);
    }

    #[test]
    fn a_stop_asks_the_guest_and_kills_after_the_deadline() {
        let mut machine = running();
        let actions = machine.handle(Event::StopRequested).unwrap();
        let (from, to) = (State::Running, State::Stopping);
        let expected = [
            Action::Persist,
            Action::Announce { from, to },
            Action::PowerDown { generation: G },
            Action::ArmDeadline { generation: G },
        ];
        assert_eq!(actions, expected);
        let actions = machine.handle(Event::DeadlinePassed { generation: G }).unwrap();
        assert_eq!(actions, [Action::CancelDeadline, Action::Kill { generation: G }]);
        assert_eq!(machine.handle(Event::DeadlinePassed { generation: G }), Ok(vec![]));
    }

    #[test]
    fn a_living_qemu_is_worth_more_than_an_older_record() {
        for state in [State::Created, State::Stopped, State::Starting, State::Running] {
            let stored = Stored { state, generation: 3, ..Machine::new(Injection::With).to_stored() };
            let mut machine = Machine::restore(stored);
            machine.found_alive(5);
            machine.recover(None);
            assert_eq!((machine.state(), machine.generation()), (State::Running, 5), "{state}");
        }
    }

    #[test]
    fn a_stop_can_be_escalated_and_repeated() {
        let mut machine = running();
        machine.handle(Event::StopRequested).unwrap();
        assert_eq!(machine.handle(Event::StopRequested), Ok(vec![]));
        let actions = machine.handle(Event::KillRequested).unwrap();
        assert!(actions.contains(&Action::Kill { generation: G }), "{actions:?}");
        let again = machine.handle(Event::KillRequested).unwrap();
        assert_eq!(again, [Action::CancelDeadline, Action::Kill { generation: G }]);
        machine.handle(Event::StopRequested).unwrap();
        assert_eq!(machine.intent(), Intent::Kill);
    }

    #[test]
    fn a_stop_while_starting_is_acted_on_once_it_runs() {
        let mut machine = Machine::new(Injection::With);
        machine.handle(Event::StartRequested).unwrap();
        assert_eq!(machine.handle(Event::StopRequested), Ok(vec![Action::Persist]));
        let actions = machine.handle(Event::Started { generation: G }).unwrap();
        assert!(actions.contains(&Action::PowerDown { generation: G }), "{actions:?}");
        assert_eq!(machine.state(), State::Stopping);
    }

    #[test]
    fn a_kill_while_starting_is_said_again_once_there_is_something_to_kill() {
        let mut machine = Machine::new(Injection::With);
        machine.handle(Event::StartRequested).unwrap();
        let early = machine.handle(Event::KillRequested).unwrap();
        assert!(early.contains(&Action::Kill { generation: G }), "{early:?}");
        let actions = machine.handle(Event::Started { generation: G }).unwrap();
        assert!(actions.contains(&Action::Kill { generation: G }), "{actions:?}");
    }

    #[test]
    fn a_guest_that_refuses_our_arguments_is_started_once_without_them() {
        let mut machine = running();
        let actions = machine.handle(exited(64)).unwrap();
        let again = Action::SpawnShim { generation: 2, injection: Injection::Without };
        assert!(actions.contains(&again) && actions.contains(&Action::AnnounceRetry), "{actions:?}");
        let actions = machine.handle(Event::Exited { generation: 2, exit: Exit::Code(64) }).unwrap();
        assert_eq!(machine.state(), State::Stopped, "{actions:?}");
    }

    #[test]
    fn an_exit_after_a_stop_is_no_refusal_of_arguments() {
        let mut machine = running();
        machine.handle(Event::StopRequested).unwrap();
        machine.handle(exited(64)).unwrap();
        assert_eq!(machine.state(), State::Stopped);
    }

    #[test]
    fn what_belongs_to_an_earlier_start_is_ignored() {
        let mut machine = running();
        machine.handle(exited(0)).unwrap();
        machine.handle(Event::StartRequested).unwrap();
        for late in [exited(1), Event::Started { generation: G }, Event::DeadlinePassed { generation: G }] {
            assert_eq!(machine.handle(late), Ok(vec![]));
        }
        assert_eq!((machine.state(), machine.generation()), (State::Starting, 2));
    }

    #[test]
    fn requests_that_make_no_sense_say_why() {
        let mut machine = Machine::new(Injection::Without);
        assert_eq!(machine.handle(Event::StopRequested), Err(Refused::NotRunning(State::Created)));
        let mut machine = running();
        assert_eq!(machine.handle(Event::StartRequested), Err(Refused::AlreadyStarted(State::Running)));
        assert_eq!(machine.handle(Event::RemoveRequested), Err(Refused::StillRunning(State::Running)));
        machine.handle(exited(0)).unwrap();
        assert_eq!(machine.handle(Event::RemoveRequested), Ok(vec![Action::Remove]));
        assert_eq!(machine.handle(Event::StartRequested), Err(Refused::Removed));
    }

    #[test]
    fn a_returning_daemon_goes_on_where_it_was() {
        assert_eq!(running().recover(None), []);
        let mut machine = running();
        machine.recover(Some(Exit::PowerOff));
        assert_eq!(machine.state(), State::Stopped);
        let mut machine = running();
        machine.handle(Event::StopRequested).unwrap();
        assert!(machine.recover(None).contains(&Action::PowerDown { generation: G }));
        let mut machine = Machine::new(Injection::With);
        machine.handle(Event::StartRequested).unwrap();
        machine.recover(None);
        assert_eq!(machine.state(), State::Running);
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let generation = 0u64..4;
        let exit = prop_oneof![Just(Exit::PowerOff), Just(Exit::Code(64)), Just(Exit::Signal(9))];
        prop_oneof![
            Just(Event::StartRequested),
            Just(Event::StopRequested),
            Just(Event::KillRequested),
            Just(Event::RemoveRequested),
            generation.clone().prop_map(|generation| Event::Started { generation }),
            generation.clone().prop_map(|generation| Event::DeadlinePassed { generation }),
            generation.clone().prop_map(|generation| Event::PowerDownFailed { generation }),
            generation
                .clone()
                .prop_map(|generation| Event::SpawnFailed { generation, reason: "x".to_owned() }),
            (generation, exit).prop_map(|(generation, exit)| Event::Exited { generation, exit }),
        ]
    }

    /// The world outside: which start of the VM has a process, and what was done to it since it is known to
    /// live.
    #[derive(Default)]
    struct World {
        alive: Option<u64>,
        asked: bool,
        killed: bool,
    }

    impl World {
        fn perform(&mut self, actions: &[Action]) {
            for action in actions {
                match action {
                    Action::SpawnShim { generation, .. } => {
                        assert_eq!(self.alive, None, "started while generation {generation} still runs");
                        self.alive = Some(*generation);
                    }
                    // Only what lives can be asked or killed.
                    Action::Announce { to: State::Running, .. } => (self.asked, self.killed) = (false, false),
                    Action::ArmDeadline { .. } => self.asked = true,
                    Action::Kill { .. } => self.killed = true,
                    _ => {}
                }
            }
        }

        /// A process may only report its end once; other generations' reports are late repeats.
        fn may_happen(&self, event: &Event) -> bool {
            match event {
                Event::Exited { generation, .. } | Event::SpawnFailed { generation, .. } => {
                    self.alive.is_none_or(|alive| *generation <= alive)
                }
                _ => true,
            }
        }

        fn observe(&mut self, event: &Event) {
            if let Event::Exited { generation, .. } | Event::SpawnFailed { generation, .. } = event
                && self.alive == Some(*generation)
            {
                self.alive = None;
            }
        }
    }

    proptest! {
        #[test]
        fn a_vm_is_never_stuck_and_never_started_twice(events in proptest::collection::vec(any_event(), 0..40)) {
            let mut machine = Machine::new(Injection::With);
            let mut world = World::default();
            for event in events {
                if !world.may_happen(&event) {
                    continue;
                }
                world.observe(&event);
                let before = machine.clone();
                match machine.handle(event) {
                    Ok(actions) => world.perform(&actions),
                    Err(_) => prop_assert_eq!(&machine, &before),
                }
                let has_process = matches!(machine.state(), State::Starting | State::Running | State::Stopping);
                prop_assert_eq!(has_process, world.alive.is_some());
                if machine.state() == State::Stopping {
                    let wants_kill = machine.intent() == Intent::Kill;
                    prop_assert!(world.killed || (world.asked && !wants_kill), "nothing will end this VM");
                }
            }
            if machine.is_removed() {
                return Ok(());
            }
            // From anywhere: kill, see it end, remove.
            if world.alive.is_some() {
                machine.handle(Event::KillRequested).unwrap();
                let generation = machine.generation();
                machine.handle(Event::Exited { generation, exit: Exit::Signal(9) }).unwrap();
            }
            prop_assert_eq!(machine.handle(Event::RemoveRequested), Ok(vec![Action::Remove]));
        }
    }
}
