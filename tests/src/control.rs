//! A guest's control port, as an operator uses it.
//!
//! Owns nothing: one connection a command.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::ensure;

use crate::eventually;

/// One command, one answer, as the existing tools do it: no newline, wait for the close.
///
/// # Errors
/// When nobody listens, or the answer takes too long.
pub fn control(port: u16, command: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(command.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

/// Waits until a guest that boots answers.
///
/// # Errors
/// When it does not.
pub fn until_answering(port: u16) -> anyhow::Result<()> {
    eventually("the control port to answer", || {
        let answer = control(port, "l")?;
        ensure!(answer.starts_with("ok"), "{answer:?}");
        Ok(())
    })
}
