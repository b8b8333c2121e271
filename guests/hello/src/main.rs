//! The least a guest can be: it says hello, waits until it is stopped, and reports on itself meanwhile.

#![no_std]
#![no_main]

use guest_runtime::{App, System, entry};
use uni_guest::{Counter, Field, Source, source};

entry!(env!("CARGO_PKG_NAME"), Guest::new);

static TURNS: Counter = Counter::new();
source! {
    static HELLO: Source = Source::new("hello").doc("its turns").fields(&[Field::counter("turns", &TURNS)]);
}

/// Nothing to do but to say hello.
struct Guest;

impl Guest {
    fn new(system: &mut System) -> Self {
        system.logs.source("app", "the program itself").app(format_args!("hello from {}", system.name));
        system.monitor();
        Self
    }
}

impl App for Guest {
    fn turn(&mut self, _system: &mut System) -> Option<u64> {
        TURNS.increment();
        None
    }

    fn stop(&mut self, _system: &mut System) {}
}
