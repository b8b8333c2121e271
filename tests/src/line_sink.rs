//! A collector of Influx line protocol that is nobody's: it keeps the lines that came.
//!
//! Owns the listener; it ends with the test's process.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// A listening collector.
#[derive(Debug)]
pub struct LineSink {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

impl LineSink {
    /// Listens on `wanted` on loopback, or on a free port if another program has that.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(wanted: u16) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(("127.0.0.1", wanted)).or_else(|_| TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr()?.port();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                keep(stream, &kept);
            }
        });
        Ok(Self { port, lines })
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets the lines so far.
    pub fn clear(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// One connection at a time: there is one sender.
fn keep(stream: TcpStream, lines: &Mutex<Vec<String>>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// The measurement of a line, without escapes.
#[must_use]
pub fn measurement(line: &str) -> String {
    let mut name = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => name.extend(chars.next()),
            ',' | ' ' => break,
            c => name.push(c),
        }
    }
    name
}
