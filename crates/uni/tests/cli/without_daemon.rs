//! The built `uni` where there is no daemon: help, bad flags, and how to start one.

use crate::daemon::{stderr, stdout, uni};
use std::path::Path;
use std::process::Command;

fn alone(args: &[&str]) -> std::process::Output {
    uni(Path::new("/nonexistent/unid.sock"), args).output().expect("uni runs")
}

#[test]
fn help_and_version_are_successes_on_stdout() {
    let version = alone(&["--version"]);
    let expected = concat!("uni version ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((stdout(&version).as_str(), version.status.code()), (expected, Some(0)));
    for args in [&["--help"][..], &["run", "--help"], &["help", "stats"]] {
        // `help` takes no further flags, so it is asked without the socket.
        let output = Command::new(env!("CARGO_BIN_EXE_uni")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(stdout(&output).contains("Usage:"));
    }
}

#[test]
fn bad_flags_are_errors_with_status_1() {
    for args in [
        &[][..],
        &["nonsense"],
        &["ps", "--nonsense"],
        &["ps", "--output", "yaml"],
        &["stats", ""],
        &["stats", "a", "--interval", "soon"],
        &["run"],
        &["run", "./Cargo.toml", "-p", "80"],
        &["logs", "a", "--tail", "1", "--tail-bytes", "1"],
    ] {
        let output = alone(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_bad_interval_is_refused_before_anything_is_asked() {
    let message = stderr(&alone(&["stats", "a", "--interval", "soon"]));
    assert!(message.contains("`soon` is not a duration like 500ms"), "{message}");
}

#[test]
fn no_daemon_is_one_line_that_says_how_to_start_it() {
    for command in
        [&["ps"][..], &["run", "./Cargo.toml"], &["stats", "a", "-w"], &["logs", "a", "-f"], &["status"]]
    {
        let output = alone(command);
        let message = stderr(&output);
        assert_eq!((output.status.code(), message.lines().count()), (Some(1), 1), "{message}");
        assert!(
            message.starts_with(&format!("uni: {}: no daemon answers on /nonexistent/unid.sock", command[0]))
        );
        assert!(message.ends_with("; start it with `unid --socket /nonexistent/unid.sock &`\n"), "{message}");
    }
}

#[test]
fn the_socket_may_come_from_the_environment_and_an_empty_one_does_not_count() {
    let ask = |socket: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uni"));
        command
            .arg("ps")
            .env("UNI_SOCKET", socket)
            .env("XDG_RUNTIME_DIR", "/nonexistent")
            .env("HOME", "/nonexistent");
        command.output().unwrap()
    };
    assert!(stderr(&ask("/nonexistent/other.sock")).contains("/nonexistent/other.sock"));
    let default = ask("");
    // a daemon of this machine may answer there
    assert!(default.status.success() || stderr(&default).contains("unid.sock"), "{}", stderr(&default));
}

#[test]
fn an_image_is_looked_at_before_the_daemon_is() {
    for (image, expected) in [
        ("web", "images by name are not available in this version"),
        ("./no.elf", "image `./no.elf`: No such file or directory"),
        ("./src", "not a regular file"),
    ] {
        let message = stderr(&alone(&["run", image]));
        assert!(message.starts_with("uni: run: image `") && message.contains(expected), "{message}");
    }
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&alone(&["completions", shell])).contains("inspect"), "{shell}");
    }
    let dir = tempfile::TempDir::new().unwrap();
    assert!(alone(&["man", dir.path().to_str().unwrap()]).status.success());
    let page = std::fs::read_to_string(dir.path().join("uni-run.1")).unwrap();
    assert!(page.contains("Publish a port"));
}
