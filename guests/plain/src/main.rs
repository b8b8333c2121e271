//! The least a guest can be: it says hello and waits until it is stopped.

#![no_std]
#![no_main]

use guest_runtime::{App, System, entry};

entry!(env!("CARGO_PKG_NAME"), Guest::new);

/// Nothing to do but to say hello.
struct Guest;

impl Guest {
    fn new(system: &mut System) -> Self {
        system.logs.source("app", "the program itself").app(format_args!("hello from {}", system.name));
        Self
    }
}

impl App for Guest {
    fn turn(&mut self, _system: &mut System) -> Option<u64> {
        None
    }

    fn stop(&mut self, _system: &mut System) {}
}
