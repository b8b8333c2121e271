//! A collector of traces: a Python peer made of OpenTelemetry's published protobufs.
//!
//! Owns the process; it ends with it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use serde_json::Value;

use crate::{python, workspace};

/// What the receiver is made of.
const PACKAGES: [&str; 2] = ["opentelemetry-proto==1.45.2", "grpcio==1.85.1"];

/// A collector; dropped, it is ended.
#[derive(Debug)]
pub struct Collector {
    child: Child,
    port: u16,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    /// Listens for `grpc` or `http` on `port`, 0 for any.
    ///
    /// # Errors
    /// When it cannot be made or started.
    pub fn start(how: &str, port: u16) -> anyhow::Result<Self> {
        let mut child = Command::new(python::venv(&PACKAGES)?)
            .arg(workspace().join("tests/peers/otlp_receiver.py"))
            .args([how, &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let port = lines.next().context("the receiver ended")??.parse()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let request = serde_json::from_str(&line).unwrap_or(Value::String(line));
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            }
        });
        Ok(Self { child, port, requests })
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of all requests so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Value> {
        self.requests()
            .iter()
            .flat_map(|request| request["spans"].as_array().cloned().unwrap_or_default())
            .collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
