//! A guest's control port, as an operator uses it.
//!
//! Owns nothing but the list of what can be said; every guest and program that links the library must answer it so.

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

/// Every command and what it is answered, in this order, by a guest or program that has said and been told nothing yet,
/// has no token, and has a source `net` with the tag `link`. In the end it is as before.
const COMMANDS: [(&str, &str); 38] = [
    ("l", "ok: *:info"),
    ("lcontrol", "ok: control:info"),
    ("Ldebug", "ok"),
    ("l", "ok: *:debug"),
    ("L*:info,control:error", "ok"),
    ("l", "ok: *:info,control:error"),
    ("Lagent:warning", "ok"),
    // no reset of what is not named
    ("lcontrol", "ok: control:error"),
    ("lagent", "ok: agent:warning"),
    // the last mention counts
    ("Lagent:debug,agent:info", "ok"),
    ("Lcontrol:debug@10m", "ok"),
    ("l", "ok: *:info,control:debug"),
    ("Lcontrol:info", "ok"),
    ("Lagent:debug,nosuch:info", "error: unknown source: nosuch"),
    ("lnosuch", "error: unknown source: nosuch"),
    ("Lloud", "error: \"loud\": unknown log level"),
    ("La:b:c", "error: Can't parse log threshold: a:b:c"),
    ("Lagent:debug@2d", "error: '2d' is no time limit; write 1s to 24h, as 30s, 10m or 1h"),
    ("l", "ok: *:info"),
    ("m", "ok: *:enabled"),
    ("Mlogs:disable", "ok"),
    ("m", "ok: *:enabled,logs:disabled"),
    // tags leave choices for single sources alone
    ("Mtag:link:enable", "ok"),
    ("mlogs", "ok: logs:disabled"),
    ("M*:off", "ok"),
    ("m", "ok: *:disabled"),
    ("Msrc:logs:ON,agent:off,agent:on", "ok"),
    ("mlogs", "ok: logs:enabled"),
    ("magent", "ok: agent:enabled"),
    ("Magent:off@1h", "ok"),
    ("Magent:off,nosuch:on", "error: unknown source: nosuch"),
    ("Mlogs", "error: couldn't decode 'enable' or 'disable': logs"),
    ("Ma:b:c", "error: couldn't decode metrics a:b:c"),
    ("M*:enable", "ok"),
    ("m", "ok: *:enabled"),
    ("T secret", "error: unknown command"),
    ("x", "error: unknown command"),
    ("", ""),
];

/// Says every command (`COMMANDS`), and the two whose answers are longer: one on a connection each, as MirageOS's clients
/// do, and all on one connection in lines, cut anywhere.
///
/// # Errors
/// When an answer is another.
pub fn says_everything(port: u16) -> anyhow::Result<()> {
    for (command, expected) in COMMANDS {
        let answer = control(port, command)?;
        ensure!(answer == expected, "{command:?}: {answer:?} instead of {expected:?}");
    }
    ensure!(control(port, "h")?.starts_with("ok: l"), "help");
    control(port, "M*:disable,tag:link:enable")?;
    let all = control(port, "m*")?;
    ensure!(all.starts_with("ok: *:disabled,tag:link:enabled,"), "{all}");
    ensure!(all.contains(",net:enabled") && !all.contains("net:disabled"), "all of one name: {all}");
    ensure!(all.contains(",logs:disabled"), "{all}");
    control(port, "M*:enable")?;

    let commands: Vec<_> = COMMANDS.iter().filter(|(command, _)| !command.is_empty()).collect();
    let ends = ["\n", "\r\n"].into_iter().cycle();
    let said: String =
        commands.iter().zip(ends).map(|((command, _), end)| format!("{command}{end}")).collect();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    for piece in said.as_bytes().chunks(97) {
        stream.write_all(piece)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut answers = String::new();
    stream.read_to_string(&mut answers)?;
    let expected: String = commands.iter().map(|(_, answer)| format!("{answer}\n")).collect();
    ensure!(answers == expected, "{answers}\ninstead of\n{expected}");
    Ok(())
}

/// Asks faster than the port allows, until it says so; then it answers again, and other connections too.
///
/// # Errors
/// When it never says so.
pub fn asks_too_fast(port: u16) -> anyhow::Result<()> {
    let hasty = "l\n".repeat(64);
    eventually("more than 64 commands a second to be refused", || {
        let answer = control(port, &hasty)?;
        let refused = "error: more than 64 commands a second; try again later";
        ensure!(answer.lines().last() == Some(refused), "{answer}");
        ensure!(answer.lines().rev().skip(1).all(|line| line == "ok: *:info"), "{answer}");
        Ok(())
    })?;
    until_answering(port)
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
