//! Bad input: one clear message on stderr, exit 1, and nothing left behind.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{Daemon, bin_dir, eventually, guest};

/// Runs `uni` with `args`, which must fail with status 1 and one message that holds all of `words`.
fn refused(daemon: &Daemon, args: &[&str], words: &[&str]) -> anyhow::Result<()> {
    let output = daemon.uni(args)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{args:?}: {:?} {stderr}", output.status);
    ensure!(output.stdout.is_empty(), "{args:?} printed {:?}", String::from_utf8_lossy(&output.stdout));
    for word in words {
        ensure!(stderr.contains(word), "{args:?} does not say {word:?}: {stderr}");
    }
    Ok(())
}

fn nothing_left(daemon: &Daemon) -> anyhow::Result<()> {
    let vms = daemon.uni_json(&["ps"])?;
    ensure!(vms.as_array().is_some_and(Vec::is_empty), "{vms}");
    let left: Vec<_> =
        std::fs::read_dir(daemon.state_dir().join("vms"))?.flatten().map(|e| e.file_name()).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

#[test]
fn images_that_cannot_boot_are_refused_with_what_was_found() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let file = |name: &str, bytes: &[u8]| -> anyhow::Result<String> {
        let path = state.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path.display().to_string())
    };
    refused(&daemon, &["run", "/nonexistent/image"], &["/nonexistent/image"])?;
    refused(&daemon, &["run", "/tmp"], &["/tmp"])?;
    refused(&daemon, &["run", &file("empty", b"")?], &["empty"])?;
    refused(&daemon, &["run", &file("text", b"#!/bin/sh\necho hello\n")?], &["text"])?;
    let own = std::env::current_exe()?.display().to_string();
    refused(&daemon, &["run", &own], &["ELF", "PVH"])?;
    refused(&daemon, &["run", "no-such-name"], &["no-such-name"])?;
    nothing_left(&daemon)
}

#[test]
fn names_ports_and_flags_are_checked() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    for name in ["-x", "a b", "a/b", "..", ".a", "é", &"x".repeat(64)] {
        refused(&daemon, &["run", &image, &format!("--name={name}")], &["name"])?;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    refused(&daemon, &["run", &image, "-p", &format!("{port}:80")], &[&port.to_string(), "in use"])?;
    for publish in ["80", "0:80", "80:0", "99999:1", "80:80/icmp", "x:80"] {
        refused(&daemon, &["run", &image, "-p", publish], &[])?;
    }
    refused(&daemon, &["run", &image, "--memory", "nonsense"], &["nonsense"])?;
    refused(&daemon, &["run", &image, "--nonsense"], &["--nonsense"])?;
    nothing_left(&daemon)?;
    daemon.uni_ok(&["run", &image, "--name", "one", "--memory", "32M"])?;
    refused(&daemon, &["run", &image, "--name", "one"], &["one"])?;
    refused(&daemon, &["rm", "one"], &["one"])?;
    for command in ["inspect", "logs", "stats", "stop", "rm"] {
        refused(&daemon, &[command, "nobody"], &["nobody", "not found"])?;
        refused(&daemon, &[command, ""], &[])?;
    }
    daemon.uni_ok(&["stop", "one", "--force"])?;
    daemon.uni_ok(&["rm", "one"])?;
    nothing_left(&daemon)
}

#[test]
fn a_guest_that_dies_at_once_shows_its_last_words_and_leaves_nothing() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    // an argument of the user's own that the guest does not know: status 64 with and without what unid adds
    refused(
        &daemon,
        &["run", &image, "--memory", "32M", "--", "--no-such-argument=1"],
        &["--no-such-argument", "64"],
    )?;
    nothing_left(&daemon)
}

#[test]
fn a_boot_sector_runs_as_a_raw_disk_image_and_is_not_changed() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let path = state.path().join("disk.img");
    std::fs::write(&path, boot_sector())?;
    let image = path.display().to_string();
    daemon.uni_ok(&["run", &image, "--name", "disk", "--memory", "32M"])?;
    eventually("the boot sector's text on the console", || {
        let logs = daemon.uni_ok(&["logs", "disk"])?;
        ensure!(logs.contains("boot sector"), "{logs:?}");
        Ok(())
    })?;
    // it does not know the power button: the time given is waited for, then it is killed
    let stopping = Instant::now();
    daemon.uni_ok(&["stop", "disk", "--time", "1"])?;
    let took = stopping.elapsed();
    ensure!((Duration::from_secs(1)..Duration::from_secs(6)).contains(&took), "stop --time 1 took {took:?}");
    ensure!(daemon.uni_json(&["inspect", "disk"])?["exit"] == "killed");
    ensure!(std::fs::read(&path)? == boot_sector(), "the image was changed");
    Ok(())
}

/// 512 bytes that print a line on COM1 and halt for good.
fn boot_sector() -> Vec<u8> {
    let text = b"hello from a boot sector\r\n\0";
    // 16-bit code at 0x7c00: mov si, text; mov dx, 0x3f8; loop: lodsb; test al, al; jz end; out dx, al; jmp loop
    let mut sector = vec![0xfa, 0xfc, 0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x00, 0x00, 0xba, 0xf8, 0x03];
    sector.extend([0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, 0xf4, 0xeb, 0xfd]);
    let at = 0x7c00 + u16::try_from(sector.len()).unwrap_or(0);
    sector[7..9].copy_from_slice(&at.to_le_bytes());
    sector.extend(text);
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

#[test]
fn without_a_daemon_uni_says_how_to_start_one() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let socket = state.path().join("none.sock");
    let output = Command::new(bin_dir().join("uni")).arg("--socket").arg(&socket).arg("ps").output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && stderr.contains("unid"), "{stderr}");
    Ok(())
}

#[test]
fn a_second_daemon_on_the_same_state_or_socket_is_refused() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let second = |state_dir: &Path, socket: &Path| -> anyhow::Result<String> {
        let output = Command::new(bin_dir().join("unid"))
            .arg("--state-dir")
            .arg(state_dir)
            .arg("--socket")
            .arg(socket)
            .args(["--line-addr", "", "--syslog-addr", "", "--api-addr", ""])
            .output()?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let message = second(state.path(), &state.path().join("other.sock"))?;
    ensure!(message.contains("another unid"), "{message}");
    let message = second(&state.path().join("other"), &daemon.socket())?;
    ensure!(message.contains("another unid"), "{message}");
    daemon.uni_json(&["status"]).context("the first one is unharmed")?;
    let mode = std::fs::metadata(daemon.socket())?.permissions().mode();
    ensure!(mode & 0o777 == 0o660, "socket mode {mode:o}");
    Ok(())
}

#[test]
fn a_missing_qemu_is_named_with_the_way_to_get_it() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--qemu", "/nonexistent/qemu"])?;
    let image = guest("hello").display().to_string();
    refused(&daemon, &["run", &image], &["/nonexistent/qemu", "qemu-system-x86"])?;
    nothing_left(&daemon)
}

#[test]
fn a_listener_beyond_loopback_is_refused() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let output = Command::new(bin_dir().join("unid"))
        .arg("--state-dir")
        .arg(state.path())
        .args(["--api-addr", "0.0.0.0:0"])
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && stderr.contains("--api-addr"), "{stderr}");
    Ok(())
}
