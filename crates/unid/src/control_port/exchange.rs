//! One command, one answer: over a VM's management link, or over TCP to a guest that somebody else runs.
//!
//! Owns the deadline, the bound of an answer and the words for what goes wrong. Never knows what a command means.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use uni_api::guest::{ControlKind, Secret};

use super::reply::{self, Reply};
use crate::management::control::{self, CONTROL_PORT, Fault, Question};
use crate::vms::Vm;

/// What one exchange may take, waiting for others' included.
const EXCHANGE_TIME: Duration = Duration::from_secs(5);
/// The longest answer that is taken.
const MAX_REPLY_BYTES: usize = 256 * 1024;

/// Whose control port.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A VM's, over its management link.
    Vm(Arc<Vm>),
    /// `HOST:PORT`.
    Address(String),
}

/// A guest's control port, and who asks.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(super) place: Place,
    pub(super) token: Option<Secret>,
}

impl Guest {
    /// The control port of a VM, without a token.
    pub(crate) fn of(vm: Arc<Vm>) -> Self {
        Self { place: Place::Vm(vm), token: None }
    }

    /// The same, asked with the token that the guest wants.
    ///
    /// # Errors
    /// When it can be none: a line of its own would be a command.
    pub(crate) fn with_token(self, token: Option<Secret>) -> anyhow::Result<Self> {
        ensure!(
            token.as_ref().is_none_or(|Secret(token)| !token.is_empty() && !token.contains(['\r', '\n'])),
            "the guest's token is empty or has several lines"
        );
        Ok(Self { token, ..self })
    }

    /// The VM's name, or the address.
    pub(super) fn name(&self) -> &str {
        match &self.place {
            Place::Vm(vm) => vm.name(),
            Place::Address(address) => address,
        }
    }

    /// Whether it is a VM that does not run: its settings went with it.
    pub(super) fn is_down(&self) -> bool {
        matches!(&self.place, Place::Vm(vm) if vm.requests().is_none())
    }

    /// Sends one command and reads the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub(super) async fn ask(&self, command: &str, kind: ControlKind) -> anyhow::Result<Reply> {
        let deadline = Instant::now() + EXCHANGE_TIME;
        // without a token in the form of the original, which has no newline
        let sent = match &self.token {
            Some(Secret(token)) => format!("T {token}\n{command}"),
            None => command.to_owned(),
        };
        let answer = match &self.place {
            Place::Vm(vm) => over_link(vm, sent.into_bytes(), deadline).await,
            Place::Address(address) => over_tcp(address, sent.as_bytes(), deadline).await,
        };
        let answer = answer.with_context(|| format!("ask {}", self.name()))?;
        Ok(match self.token {
            Some(_) => after_token(&answer, kind),
            None => reply::parse(&answer, kind),
        })
    }
}

/// The answer to the command after the token; a refusal of the token is the whole answer.
fn after_token(answer: &[u8], kind: ControlKind) -> Reply {
    match answer.strip_prefix(b"ok\n") {
        Some(rest) => reply::parse(rest, kind),
        None => reply::parse(answer, kind),
    }
}

async fn over_link(vm: &Arc<Vm>, text: Vec<u8>, deadline: Instant) -> anyhow::Result<Vec<u8>> {
    let link = vm.requests().with_context(|| format!("it is {}; only a running VM answers", vm.state()))?;
    let question = Question { port: CONTROL_PORT, text, max_reply_bytes: MAX_REPLY_BYTES, deadline };
    control::ask(&link, question).await.map_err(explained)
}

fn explained(fault: Fault) -> anyhow::Error {
    match fault {
        Fault::Refused(_) | Fault::Late => anyhow::anyhow!(
            "{fault}; only a guest with monitoring has a control port, at its management link; one that has it \
             elsewhere is named by --addr HOST:PORT"
        ),
        _ => fault.into(),
    }
}

async fn over_tcp(address: &str, command: &[u8], deadline: Instant) -> anyhow::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.context("connect")?;
        stream.write_all(command).await.context("send the command")?;
        // a guest that closed already has answered
        let _ = stream.shutdown().await;
        read_to_end(stream).await
    };
    let answered = timeout_at(deadline, exchange).await;
    answered.unwrap_or_else(|_| bail!("no whole answer within {} s", EXCHANGE_TIME.as_secs()))
}

async fn read_to_end(stream: TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut answer = Vec::new();
    match stream.take(MAX_REPLY_BYTES as u64 + 1).read_to_end(&mut answer).await {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset || answer.is_empty() => {
            return Err(error).context("read the answer");
        }
        _ => {}
    }
    if answer.len() > MAX_REPLY_BYTES {
        return Err(Fault::TooLong(MAX_REPLY_BYTES).into());
    }
    if answer.is_empty() {
        return Err(Fault::Silent.into());
    }
    Ok(answer)
}
