//! A guest whose control port is of another make: it knows no time limits and no help, as MirageOS's. What ends a change
//! there is for whoever made it.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use guest_runtime::{App, Buffers, Exchange, Input, Progress, System, entry};
use uni_guest::control::Token;
use uni_guest::{
    Control, ControlProgress, ControlSession, Controlled, Log, Logs, OptionSpec, Periodic, Registry,
};

const PORT: u16 = 2323;
const PLACES: usize = 4;
const BUFFERS: Buffers = Buffers { receive_bytes: 1024, transmit_bytes: 4096 };
const MAX_INPUT_BYTES: usize = 4096;

const TOKEN: OptionSpec = OptionSpec { name: "token", value: Some("TOKEN"), help: "what its port asks for" };

entry!("foreign", Foreign::new, [TOKEN]);

struct Foreign {
    places: Vec<Exchange<Vec<u8>>>,
    port: Port,
}

/// What commands act on.
struct Port {
    control: Control,
    registry: Registry,
    logs: Logs,
    log: Log,
}

impl Foreign {
    fn new(system: &mut System) -> Self {
        let logs = Logs::default();
        let log = logs.source("app", "the program itself");
        let mut registry = Registry::new();
        for name in ["gc", "memory"] {
            registry.register(Periodic::new(name, |_| {}));
        }
        let control = Control::new(system.option(TOKEN.name).and_then(Token::new));
        let places = system.management.as_mut().map_or_else(Vec::new, |link| {
            (0..PLACES).map(|_| Exchange::new(link.sockets(), PORT, BUFFERS)).collect()
        });
        Self { places, port: Port { control, registry, logs, log } }
    }
}

impl App for Foreign {
    fn turn(&mut self, system: &mut System) -> Option<u64> {
        let now_ns = system.now_ns();
        let sockets = system.management.as_mut()?.sockets();
        let port = &mut self.port;
        let mut converse =
            |received: &mut Vec<u8>, input: Input<'_>, _: u64| port.converse(received, input, now_ns);
        self.places.iter_mut().filter_map(|place| place.turn(sockets, now_ns, &mut converse)).min()
    }

    fn stop(&mut self, system: &mut System) {
        let Some(link) = &mut system.management else { return };
        self.places.iter_mut().for_each(|place| place.close(link.sockets()));
    }
}

impl Port {
    /// All that comes until the client closes its side is answered at once.
    fn converse(&mut self, received: &mut Vec<u8>, input: Input<'_>, now_ns: u64) -> Progress {
        if let Input::Bytes(bytes) = input {
            let room = MAX_INPUT_BYTES.saturating_sub(received.len());
            received.extend_from_slice(&bytes[..bytes.len().min(room)]);
            return Progress::More { until_ns: now_ns + 10_000_000_000 };
        }
        let mut reply = String::new();
        let (mut session, mut on) = (ControlSession::new(), self.controlled(now_ns));
        for line in received.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b"h") || line.contains(&b'@') {
                reply.push_str("error: unknown command");
            } else if session.handle_input(line, &mut on, &mut reply) == ControlProgress::NeedMore {
                session.handle_idle(&mut on, &mut reply);
            }
        }
        Progress::Answer { bytes: reply.into_bytes(), at_ns: now_ns }
    }

    const fn controlled(&mut self, now_ns: u64) -> Controlled<'_> {
        let Self { control, registry, logs, log } = self;
        Controlled { control, registry, logs, log, now_ns }
    }
}
