//! What must hold for any bytes on control connections: shared by the replay of seeds here and by the fuzz target in
//! `fuzz/`.

use uni_guest::control::{Control, Controlled, MAX_COMMANDS, Token, next_deadline};
use uni_guest::{ControlProgress, ControlSession, Log, Logs, Periodic, Registry};

const SECOND_NS: u64 = 1_000_000_000;
const TOKEN: &str = "sesame";

struct Guest {
    control: Control,
    registry: Registry,
    logs: Logs,
    log: Log,
    now_ns: u64,
}

impl Guest {
    fn new(guarded: bool) -> Self {
        let (mut registry, logs) = (Registry::new(), Logs::default());
        registry.register(Periodic::new("a", |_| {}).tag("t", "x"));
        registry.register(Periodic::new("b", |_| {}));
        let log = logs.source("a", "");
        drop(logs.source("b", ""));
        let token = if guarded { Token::new(TOKEN) } else { None };
        Self { control: Control::new(token), registry, logs, log, now_ns: 0 }
    }

    /// The replies on one connection whose client then closes its side.
    fn connection(&mut self, segments: &[&[u8]]) -> String {
        let (mut session, mut reply, mut last) =
            (ControlSession::new(), String::new(), ControlProgress::NeedMore);
        let mut on = Controlled {
            control: &mut self.control,
            registry: &mut self.registry,
            logs: &self.logs,
            log: &self.log,
            now_ns: self.now_ns,
        };
        for segment in segments {
            last = session.handle_input(segment, &mut on, &mut reply);
            if matches!(last, ControlProgress::ReplyAndClose | ControlProgress::Close) {
                break;
            }
        }
        if matches!(last, ControlProgress::NeedMore | ControlProgress::Reply) {
            last = session.handle_idle(&mut on, &mut reply);
        }
        assert!(matches!(last, ControlProgress::ReplyAndClose | ControlProgress::Close));
        assert!(reply.lines().count() <= MAX_COMMANDS as usize + 1);
        reply
    }

    fn state(&mut self) -> String {
        self.connection(&[b"T sesame\nl*\nm*\n"])
    }
}

/// Connections are separated by NUL bytes; between two of them a minute passes.
pub(crate) fn check_session(bytes: &[u8]) {
    let (mut whole, mut cut, mut guarded) = (Guest::new(false), Guest::new(false), Guest::new(true));
    let before = guarded.state();
    for input in bytes.split(|byte| *byte == 0) {
        let reply = whole.connection(&[input]);
        assert!(
            reply.starts_with("ok") || reply.starts_with("error: ") || input.is_empty() && reply.is_empty()
        );
        let (first, second) = input.split_at(input.len() / 2);
        assert_eq!(cut.connection(&[first, second]), reply);
        assert_eq!(cut.state(), whole.state());
        let refused = guarded.connection(&[input]);
        if !input.starts_with(b"T ") {
            assert!(refused.is_empty() || refused.trim_end() == "error: authentication required");
            assert_eq!(guarded.state(), before);
        }
        for guest in [&mut whole, &mut cut] {
            guest.now_ns += 60 * SECOND_NS;
            guest.control.handle_time(&mut guest.registry, &guest.logs, &guest.log, guest.now_ns);
            assert!(next_deadline(&guest.registry, &guest.logs).is_none_or(|at| at > guest.now_ns));
        }
        if input.starts_with(b"T sesame") {
            return;
        }
    }
    // No change with a time limit outlasts a day.
    whole.now_ns += 86_400 * SECOND_NS;
    whole.control.handle_time(&mut whole.registry, &whole.logs, &whole.log, whole.now_ns);
    assert_eq!(next_deadline(&whole.registry, &whole.logs), None);
}
