//! The built `uni` against a daemon that answers as the contract says: what is asked, what is printed.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, stderr, stdout, uni};
use serde_json::{Value, json};

const ID: &str = "9f2c41d07ab3";

fn vm(state: &str) -> Value {
    json!({"id": ID, "state": state, "image": "/srv/http.elf", "name": "web"})
}

fn stats(cpu: f64) -> Value {
    json!({"id": ID, "state": "running", "cpu_pct": cpu, "mem_bytes": 268_435_456, "net_rx_bytes": 1536,
           "net_tx_bytes": 3277, "timestamp": "2026-05-15T12:00:00Z", "source": "proc"})
}

fn refused(message: &str) -> Option<Result<Value, (i64, String)>> {
    Some(Err((-32000, message.to_owned())))
}

#[test]
fn run_sends_everything_and_prints_the_id_alone() {
    let daemon = Daemon::start(|_, _| Some(Ok(vm("running"))));
    let output = daemon.uni(&[
        "run",
        "./Cargo.toml",
        "-p",
        "8080:80",
        "-p",
        "[::1]:53:53/udp",
        "--memory",
        "64M",
        "--cpus",
        "2",
        "--name",
        "web",
        "--rm",
        "--no-add-name",
        "--output",
        "table",
    ]);
    assert_eq!((stdout(&output).as_str(), output.status.code()), (&*format!("{ID}\n"), Some(0)));
    let [(method, params)] = &daemon.requests()[..] else { panic!("{:?}", daemon.requests()) };
    assert_eq!(method, "VM.Run");
    let path = std::path::absolute("Cargo.toml").unwrap();
    assert_eq!(
        *params,
        json!({"image_path": path.to_str(), "memory": "64M", "cpus": 2, "name": "web", "args": [],
               "env": [], "no_add_name": true, "auto_remove": true, "outbound": false, "port_maps": [
                   {"host_port": 8080, "guest_port": 80, "protocol": "tcp"},
                   {"host_addr": "::1", "host_port": 53, "guest_port": 53, "protocol": "udp"}]})
    );
}

#[test]
fn guest_arguments_arrive_as_typed() {
    let daemon = Daemon::start(|_, _| Some(Ok(vm("running"))));
    let socket = daemon.socket();
    let args =
        ["--socket", socket.to_str().unwrap(), "run", "./Cargo.toml", "--", "--hello=a b", "-p", "--", ""];
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_uni")).args(args).output().unwrap().status;
    assert!(status.success());
    assert_eq!(daemon.requests()[0].1["args"], json!(["--hello=a b", "-p", "--", ""]));
}

#[test]
fn attach_prints_the_console_alone_until_the_vm_ends_and_is_gone() {
    let daemon = Daemon::start(|method, params| match method {
        "VM.Run" => Some(Ok(vm("running"))),
        "VM.List" => Some(Ok(json!([]))),
        _ => match params["from"].as_u64() {
            Some(0) => Some(Ok(json!({"id": ID, "logs": "boot\r\n", "from": 0, "next": 6, "ended": false}))),
            _ => refused("vm \"web\" not found"),
        },
    });
    let output = daemon.uni(&["run", "./Cargo.toml", "--attach", "--rm"]);
    assert_eq!(
        (stdout(&output).as_str(), output.status.code()),
        ("boot\r\n", Some(0)),
        "{}",
        stderr(&output)
    );
}

#[test]
fn ps_prints_a_table_or_the_array() {
    let daemon = Daemon::start(|_, _| Some(Ok(json!([vm("running")]))));
    assert_eq!(
        stdout(&daemon.uni(&["ps"])),
        format!("ID            NAME  STATE    HEALTH  IMAGE\n{ID}  web   running  -       /srv/http.elf\n")
    );
    let array: Value = serde_json::from_slice(&daemon.uni(&["ps", "--output", "json"]).stdout).unwrap();
    assert_eq!(array, json!([vm("running")]));
    assert_eq!(daemon.requests()[0], ("VM.List".to_owned(), Value::Null));
}

#[test]
fn stats_prints_the_block_or_an_indented_object() {
    let daemon = Daemon::start(|_, _| Some(Ok(stats(12.5))));
    let block = stdout(&daemon.uni(&["stats", "web"]));
    assert!(block.starts_with(&format!("ID      {ID}\nState   running\nCPU     12.5%\n")), "{block}");
    let text = stdout(&daemon.uni(&["stats", "web", "--output", "json"]));
    assert!(text.starts_with("{\n  \"id\""), "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), stats(12.5));
    assert_eq!(daemon.requests()[0].1, json!({"id": "web"}));
}

#[test]
fn watching_survives_a_lost_connection_and_ends_with_the_vm() {
    let calls = AtomicU64::new(0);
    let daemon = Daemon::start(move |_, _| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Some(Ok(stats(1.0))),
        1 => None,
        2 => Some(Ok(stats(2.0))),
        _ => refused("vm \"web\" not found"),
    });
    let start = Instant::now();
    // Shorter than the shortest interval, so raised to one second.
    let output = daemon.uni(&["stats", "web", "--watch", "-i", "1ms", "--output", "json"]);
    assert!(start.elapsed() >= Duration::from_millis(1900));
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [stats(1.0), stats(2.0)]);
    assert_eq!(
        (stderr(&output).as_str(), output.status.code()),
        ("uni: stats: vm \"web\" not found\n", Some(1))
    );
}

#[test]
fn a_table_watch_prints_blocks_with_a_blank_line_between() {
    let daemon = Daemon::start(|_, _| Some(Ok(stats(1.0))));
    let mut child =
        uni(&daemon.socket(), &["stats", "web", "-w", "-i", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().take(9).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((lines[6].as_str(), lines[7].as_str()), ("Source  proc", ""));
    assert_eq!(lines[8], format!("ID      {ID}"));
}

/// A console in three pieces, the last one after a wait.
fn console() -> Daemon {
    const PIECES: [&str; 3] = ["one\ntw", "o\nthree\n", "\u{1b}[31mfour\n"];
    Daemon::start(|_, params| {
        let from = params["from"].as_u64().unwrap_or(0);
        let mut at = 0;
        for piece in PIECES {
            let next = at + piece.len() as u64;
            let held_back = piece == PIECES[2] && params["wait_ms"] == 0;
            if from == at && !held_back {
                let ended = piece == PIECES[2];
                return Some(Ok(json!({"id": ID, "logs": piece, "from": at, "next": next, "ended": ended})));
            }
            at = next;
        }
        Some(Ok(json!({"id": ID, "logs": "", "from": from, "next": from, "ended": false})))
    })
}

#[test]
fn logs_prints_what_is_kept_raw_and_follow_goes_on_to_the_end() {
    assert_eq!(stdout(&console().uni(&["logs", "web"])), "one\ntwo\nthree\n");
    assert_eq!(stdout(&console().uni(&["logs", "web", "--tail", "2"])), "two\nthree\n");
    assert_eq!(stdout(&console().uni(&["logs", "-f", "web", "--tail", "1"])), "three\n\u{1b}[31mfour\n");
}

#[test]
fn logs_as_json_is_one_object_and_followed_one_a_line() {
    let object: Value =
        serde_json::from_slice(&console().uni(&["logs", "web", "--output", "json"]).stdout).unwrap();
    assert_eq!((&object["id"], &object["logs"]), (&json!(ID), &json!("one\ntwo\nthree\n")));
    let text = stdout(&console().uni(&["logs", "web", "-f", "--output", "json"]));
    let pieces: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(pieces.len(), 2, "{text}");
    assert_eq!(pieces[1]["ended"], true);
}

#[test]
fn tail_bytes_is_left_to_the_daemon() {
    let daemon = console();
    daemon.uni(&["logs", "web", "--tail-bytes", "100"]);
    assert_eq!(daemon.requests()[0].1["tail_bytes"], 100);
}

#[test]
fn stop_and_rm_print_nothing() {
    let daemon = Daemon::start(|_, _| Some(Ok(json!({"status": "ok"}))));
    for args in [&["stop", "web", "--time", "5"][..], &["stop", "web", "--force"], &["rm", "web"]] {
        let output = daemon.uni(args);
        assert_eq!((output.stdout.len(), output.stderr.len(), output.status.code()), (0, 0, Some(0)));
    }
    let [(stop, gentle), (_, forced), (rm, _)] = &daemon.requests()[..] else { panic!() };
    assert_eq!((stop.as_str(), rm.as_str()), ("VM.Stop", "VM.Remove"));
    assert_eq!(*gentle, json!({"id": "web", "force": false, "timeout_seconds": 5}));
    assert_eq!(forced["force"], true);
}

#[test]
fn rm_with_force_kills_a_running_vm_first() {
    let daemon = Daemon::start(|method, _| match method {
        "VM.Get" => Some(Ok(vm("running"))),
        _ => Some(Ok(json!({"status": "ok"}))),
    });
    assert!(daemon.uni(&["rm", "web", "--force"]).status.success());
    let asked: Vec<_> = daemon.requests().into_iter().map(|(method, _)| method).collect();
    assert_eq!(asked, ["VM.Get", "VM.Kill", "VM.Remove"]);
}

#[test]
fn rm_with_force_takes_a_vm_that_ended_meanwhile_but_not_one_that_cannot_be_killed() {
    let outcome = |state_after: &'static str| {
        let gets = AtomicU64::new(0);
        let daemon = Daemon::start(move |method, _| match method {
            "VM.Get" if gets.fetch_add(1, Ordering::Relaxed) == 0 => Some(Ok(vm("running"))),
            "VM.Get" => Some(Ok(vm(state_after))),
            "VM.Kill" => refused("not possible"),
            _ => Some(Ok(json!({"status": "ok"}))),
        });
        let output = daemon.uni(&["rm", "web", "--force"]);
        (stderr(&output), output.status.code())
    };
    assert_eq!(outcome("stopped"), (String::new(), Some(0)));
    assert_eq!(outcome("running"), ("uni: rm: killing it first: not possible\n".to_owned(), Some(1)));
}

#[test]
fn the_daemons_refusals_are_errors_with_its_words() {
    let daemon = Daemon::start(|method, _| match method {
        "VM.List" => Some(Err((-32601, "method not found: VM.List".to_owned()))),
        "Daemon.Status" => Some(Ok(json!("what"))),
        _ => refused("vm \"web\" not found"),
    });
    for (args, expected) in [
        (&["stop", "web"][..], "uni: stop: vm \"web\" not found\n"),
        (&["inspect", "web"], "uni: inspect: vm \"web\" not found\n"),
        (&["ps"], "uni: ps: rpc error -32601: method not found: VM.List\n"),
    ] {
        let output = daemon.uni(args);
        assert_eq!((stderr(&output).as_str(), output.status.code()), (expected, Some(1)));
    }
    assert!(stderr(&daemon.uni(&["status"])).contains("was not understood"));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let many: Vec<Value> = (0..20_000).map(|_| vm("running")).collect();
    let daemon = Daemon::start(move |_, _| Some(Ok(json!(many))));
    let mut child =
        uni(&daemon.socket(), &["ps"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)));
}

#[test]
fn the_log_level_is_asked_for_or_changed() {
    let daemon = Daemon::start(|_, _| Some(Ok(json!({"level": "info,unid::vms=debug"}))));
    let shown = daemon.uni(&["daemon", "log-level"]);
    assert_eq!((stdout(&shown).as_str(), shown.status.code()), ("info,unid::vms=debug\n", Some(0)));
    let changed = daemon.uni(&["daemon", "log-level", "unid::vms=debug", "--output", "json"]);
    let answer: Value = serde_json::from_str(&stdout(&changed)).unwrap();
    assert_eq!(answer, json!({"level": "info,unid::vms=debug"}));
    let asked =
        [json!({}), json!({"level": "unid::vms=debug"})].map(|params| ("Daemon.LogLevel".to_owned(), params));
    assert_eq!(daemon.requests(), asked);
}
