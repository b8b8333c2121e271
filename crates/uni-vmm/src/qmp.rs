//! A small blocking client of the QEMU Machine Protocol (qmp-spec of QEMU): JSON objects, one a line, over a
//! Unix socket.
//!
//! Owns the line parser and the exchange of greeting, capabilities, command and reply. Every wait has a
//! deadline and every line a bound, so a stuck or foreign peer cannot hold or fill its caller. Events that
//! come between are kept, bounded.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Deserialize;
use serde_json::{Value, json};

/// The longest line taken from QEMU, in bytes.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// The most events kept until [`Client::take_events`]; older ones go first.
pub const MAX_EVENTS: usize = 256;
/// How long to wait before trying again when QEMU's backlog is full.
const RETRY_DELAY: Duration = Duration::from_millis(5);

/// What QEMU says in one line.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The first line of a connection.
    Greeting,
    /// A command succeeded.
    Return(Value),
    /// A command failed.
    Error {
        /// QEMU's error class, such as `CommandNotFound`.
        class: String,
        /// What QEMU says about it.
        description: String,
    },
    /// Something happened in the meantime.
    Event(Event),
}

/// Something that happened in QEMU.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Event {
    /// Its name, such as `SHUTDOWN`.
    #[serde(rename = "event")]
    pub name: String,
    /// What QEMU adds to it.
    #[serde(default)]
    pub data: Value,
}

/// Why an exchange with QEMU failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// No connection.
    #[error("cannot connect to QEMU at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Reading or writing failed.
    #[error("lost QEMU while waiting for the answer to {command}")]
    Io {
        /// What was being done.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// QEMU closed the connection.
    #[error("QEMU closed its control socket before it answered {0}")]
    Closed(String),
    /// The deadline passed.
    #[error("QEMU did not answer {0} in time")]
    TimedOut(String),
    /// QEMU refused.
    #[error("QEMU refused {command}: {description} ({class})")]
    Refused {
        /// What was asked.
        command: String,
        /// QEMU's error class.
        class: String,
        /// QEMU's words.
        description: String,
    },
    /// Not QMP.
    #[error("not an answer of QEMU's: {0}")]
    Malformed(String),
    /// A line beyond [`MAX_LINE_BYTES`].
    #[error("QEMU sent a line of more than {MAX_LINE_BYTES} bytes")]
    TooLong,
}

/// Parses one line.
///
/// # Errors
/// [`QmpError::Malformed`] with a short piece of the line, [`QmpError::TooLong`].
pub fn parse_reply(line: &[u8]) -> Result<Reply, QmpError> {
    if line.len() > MAX_LINE_BYTES {
        return Err(QmpError::TooLong);
    }
    let malformed = || QmpError::Malformed(String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned());
    let Ok(Value::Object(mut object)) = serde_json::from_slice(line) else { return Err(malformed()) };
    if let Some(value) = object.remove("return") {
        return Ok(Reply::Return(value));
    }
    if let Some(error) = object.get("error") {
        let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or("unknown").to_owned();
        return Ok(Reply::Error { class: text("class"), description: text("desc") });
    }
    if object.contains_key("QMP") {
        return Ok(Reply::Greeting);
    }
    serde_json::from_value(Value::Object(object)).map(Reply::Event).map_err(|_| malformed())
}

/// A connection to one QEMU. QEMU serves one client at a time: keep it short.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    events: Vec<Event>,
}

impl Client {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// No socket there, no QEMU behind it, or the deadline passed.
    pub fn connect(path: &Path, deadline: Instant) -> Result<Self, QmpError> {
        let source = |source| QmpError::Connect { path: path.to_owned(), source };
        let stream = connect(path, deadline).map_err(source)?;
        let mut client = Self { stream, received: Vec::new(), events: Vec::new() };
        match client.next_reply("the greeting", deadline)? {
            Reply::Greeting => {}
            other => return Err(QmpError::Malformed(format!("{other:?}").chars().take(80).collect())),
        }
        client.execute("qmp_capabilities", None, deadline)?;
        Ok(client)
    }

    /// Runs one command and gives what it returned.
    ///
    /// # Errors
    /// QEMU refused it, went away or did not answer in time.
    pub fn execute(
        &mut self,
        command: &str,
        arguments: Option<Value>,
        deadline: Instant,
    ) -> Result<Value, QmpError> {
        let mut request = json!({ "execute": command });
        if let (Some(arguments), Some(object)) = (arguments, request.as_object_mut()) {
            object.insert("arguments".to_owned(), arguments);
        }
        self.send(command, &format!("{request}\n"), deadline)?;
        match self.next_reply(command, deadline)? {
            Reply::Return(value) => Ok(value),
            Reply::Error { class, description } => {
                Err(QmpError::Refused { command: command.to_owned(), class, description })
            }
            other => Err(QmpError::Malformed(format!("{other:?}").chars().take(80).collect())),
        }
    }

    /// Presses the guest's power button.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub fn system_powerdown(&mut self, deadline: Instant) -> Result<(), QmpError> {
        self.execute("system_powerdown", None, deadline).map(drop)
    }

    /// Ends QEMU without asking the guest.
    ///
    /// # Errors
    /// As [`Client::execute`]; QEMU may also close the connection first, which is no error here.
    pub fn quit(&mut self, deadline: Instant) -> Result<(), QmpError> {
        match self.execute("quit", None, deadline) {
            Err(QmpError::Closed(_)) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// QEMU's run state, such as `running` or `paused`.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub fn query_status(&mut self, deadline: Instant) -> Result<String, QmpError> {
        let value = self.execute("query-status", None, deadline)?;
        let status = value.get("status").and_then(Value::as_str);
        status.map(str::to_owned).ok_or_else(|| QmpError::Malformed("query-status without status".to_owned()))
    }

    /// The events that came so far, oldest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The next line that is not an event.
    fn next_reply(&mut self, command: &str, deadline: Instant) -> Result<Reply, QmpError> {
        loop {
            let line = self.next_line(command, deadline)?;
            match parse_reply(&line)? {
                Reply::Event(event) => self.keep(event),
                reply => return Ok(reply),
            }
        }
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.remove(0);
        }
        self.events.push(event);
    }

    fn next_line(&mut self, command: &str, deadline: Instant) -> Result<Vec<u8>, QmpError> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.received[searched..].iter().position(|&byte| byte == b'\n') {
                let rest = self.received.split_off(searched + end + 1);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            if self.received.len() > MAX_LINE_BYTES {
                return Err(QmpError::TooLong);
            }
            searched = self.received.len();
            self.receive(command, deadline)?;
        }
    }

    fn receive(&mut self, command: &str, deadline: Instant) -> Result<(), QmpError> {
        let timeout = remaining(command, deadline)?;
        let mut buffer = [0; 4096];
        let read = self.stream.set_read_timeout(Some(timeout)).and_then(|()| self.stream.read(&mut buffer));
        match read {
            Ok(0) => Err(QmpError::Closed(command.to_owned())),
            Ok(read) => {
                self.received.extend_from_slice(buffer.get(..read).unwrap_or_default());
                Ok(())
            }
            Err(error) => retry_or_fail(command, error),
        }
    }

    fn send(&mut self, command: &str, line: &str, deadline: Instant) -> Result<(), QmpError> {
        let timeout = remaining(command, deadline)?;
        let sent = self
            .stream
            .set_write_timeout(Some(timeout))
            .and_then(|()| self.stream.write_all(line.as_bytes()));
        sent.or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Err(QmpError::TimedOut(command.to_owned())),
            _ => retry_or_fail(command, error),
        })
    }
}

fn remaining(command: &str, deadline: Instant) -> Result<Duration, QmpError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(QmpError::TimedOut(command.to_owned())) } else { Ok(left) }
}

/// Timeouts and interruptions go back to the loop, which looks at the deadline.
fn retry_or_fail(command: &str, error: io::Error) -> Result<(), QmpError> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            Err(QmpError::Closed(command.to_owned()))
        }
        _ => Err(QmpError::Io { command: command.to_owned(), source: error }),
    }
}

/// Connects without ever blocking: a Unix socket whose backlog is full would hold a plain `connect` for good.
fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(RETRY_DELAY);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const GREETING: &str =
        r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}"#;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// A peer that greets and then answers each line it gets with the next of `answers`.
    fn peer(answers: &'static [&'static str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            writeln!(stream, "{GREETING}").unwrap();
            let mut buffer = [0; 4096];
            for answer in answers {
                if !matches!(stream.read(&mut buffer), Ok(1..)) {
                    return;
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
            // Stays open without a word, as a stuck QEMU would.
            let _ = stream.read(&mut buffer);
            thread::sleep(Duration::from_secs(2));
        });
        (dir, path)
    }

    #[test]
    fn events_between_command_and_answer_are_kept_apart() {
        let (_dir, path) = peer(&[
            "{\"return\": {}}\r\n",
            "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n{\"return\": {\"status\": \"paused\"}}\r\n",
        ]);
        let mut client = Client::connect(&path, soon()).unwrap();
        assert_eq!(client.query_status(soon()).unwrap(), "paused");
        assert_eq!(client.take_events()[0].name, "STOP");
    }

    #[test]
    fn a_refusal_carries_qemus_words() {
        let (_dir, path) =
            peer(&["{\"return\": {}}\n", "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n"]);
        let error = Client::connect(&path, soon()).unwrap().system_powerdown(soon()).unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused system_powerdown: no (GenericError)");
    }

    #[test]
    fn a_silent_peer_costs_no_more_than_the_deadline() {
        let (_dir, path) = peer(&["{\"return\": {}}\n"]);
        let mut client = Client::connect(&path, soon()).unwrap();
        let started = Instant::now();
        let error = client.query_status(started + Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, QmpError::TimedOut(_)), "{error}");
        assert!(started.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_full_backlog_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let connections: Vec<_> = (0..5000).map_while(|_| connect(&path, Instant::now()).ok()).collect();
        let error = Client::connect(&path, Instant::now() + Duration::from_millis(30)).unwrap_err();
        assert!(
            matches!(error, QmpError::Connect { .. } | QmpError::TimedOut(_)),
            "{} open: {error}",
            connections.len()
        );
    }

    #[test]
    fn no_socket_is_an_error_that_names_it() {
        let error = Client::connect(Path::new("/nonexistent/qmp.sock"), soon()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/qmp.sock"), "{error}");
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_reply(&line);
        }

        #[test]
        fn every_returned_number_comes_back(number: u32) {
            let line = format!("{{\"return\": {number}, \"id\": 1}}");
            prop_assert_eq!(parse_reply(line.as_bytes()).unwrap(), Reply::Return(json!(number)));
        }
    }
}
