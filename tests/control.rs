//! `uni log-level` and `uni metrics`: guests asked and changed while they run, over their management links and by
//! address; what a change leaves behind; and guests that do not answer, or answer nonsense.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::by_hand::{MACHINES, Qemu};
use black_box::control::until_answering;
use black_box::{Daemon, boot_sector, eventually, free_port, guest};
use serde_json::{Value, json};

/// A guest that does not answer is given up before this.
const GIVEN_UP: Duration = Duration::from_secs(6);

fn start(flags: &[&str]) -> anyhow::Result<(tempfile::TempDir, Daemon)> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), flags)?;
    Ok((state, daemon))
}

fn run(daemon: &Daemon, image: &str, name: &str, args: &[&str]) -> anyhow::Result<()> {
    let image = guest(image).display().to_string();
    daemon.uni_ok(&[&["run", &image, "--name", name, "--memory", "32M", "--"], args].concat())?;
    Ok(())
}

/// A VM whose control port answers.
fn run_answering(daemon: &Daemon, image: &str, name: &str) -> anyhow::Result<()> {
    run(daemon, image, name, &["--interval=1"])?;
    eventually("the guest to answer", || daemon.uni_ok(&["log-level", name]).map(drop))
}

/// What `uni` complains of when it fails with status 1.
fn failure(daemon: &Daemon, args: &[&str]) -> anyhow::Result<String> {
    let output = daemon.uni(args)?;
    ensure!(output.status.code() == Some(1), "{args:?}: {output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

fn fails_with(daemon: &Daemon, args: &[&str], words: &[&str]) -> anyhow::Result<()> {
    let complaint = failure(daemon, args)?;
    for word in words {
        ensure!(complaint.contains(word), "{args:?} does not say {word:?}: {complaint}");
    }
    Ok(())
}

/// The state of one source.
fn state_of(daemon: &Daemon, what: &str, guest: &[&str], source: &str) -> anyhow::Result<String> {
    let answer = daemon.uni_json(&[&[what], guest].concat())?;
    state_in(&answer, source)
}

fn state_in(answer: &Value, source: &str) -> anyhow::Result<String> {
    let sources = answer["sources"].as_array().with_context(|| answer.to_string())?;
    let found = sources.iter().find(|s| s["source"] == source).with_context(|| answer.to_string())?;
    Ok(found["state"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn levels_and_metrics_are_shown_and_changed() -> anyhow::Result<()> {
    let (_state, daemon) = start(&[])?;
    run_answering(&daemon, "http", "web")?;

    let table = daemon.uni_ok(&["log-level", "web"])?;
    ensure!(table.starts_with("SOURCE") && table.contains("\n*  ") && table.contains("\nhttp "), "{table}");
    let changed = daemon.uni_ok(&["log-level", "web", "http:debug"])?;
    ensure!(changed.lines().any(|line| line.split_whitespace().eq(["http", "debug"])), "{changed}");
    ensure!(state_of(&daemon, "log-level", &["web"], "*")? == "info");
    daemon.uni_ok(&["log-level", "web", "error,http:quiet"])?;
    ensure!(state_of(&daemon, "log-level", &["web"], "*")? == "error");
    ensure!(state_of(&daemon, "log-level", &["web"], "http")? == "quiet");

    let metrics = daemon.uni_json(&["metrics", "web", "*:off,gc:on"])?;
    ensure!(
        state_in(&metrics, "gc")? == "enabled" && state_in(&metrics, "memory")? == "disabled",
        "{metrics}"
    );

    let unknown = failure(&daemon, &["metrics", "web", "gc:off,nosuch:off"])?;
    ensure!(unknown.contains("unknown source \"nosuch\"") && unknown.contains("gc, "), "{unknown}");
    ensure!(state_of(&daemon, "metrics", &["web"], "gc")? == "enabled", "it changed half");
    fails_with(&daemon, &["log-level", "web", "http:loud"], &["\"loud\"", "debug"])?;
    fails_with(&daemon, &["metrics", "web", "gc:maybe"], &["maybe"])?;
    fails_with(&daemon, &["log-level", "web", "http:debug", "--for", "0"], &["--for"])?;
    fails_with(&daemon, &["log-level", "web", "--for", "5s"], &["--for"])?;
    fails_with(&daemon, &["log-level", "nosuch"], &["vm \"nosuch\" not found"])?;
    daemon.uni_ok(&["stop", "web", "--force"])?;
    fails_with(&daemon, &["log-level", "web"], &["stopped"])
}

#[test]
fn a_disabled_source_stops_arriving_and_a_debugging_one_says_more() -> anyhow::Result<()> {
    let (_state, daemon) = start(&[])?;
    run_answering(&daemon, "http", "web")?;
    let points = |measurement: &str| {
        let q = format!("SELECT count(*) FROM {measurement} WHERE vm = 'web'");
        daemon.number(&q)
    };
    eventually("both measurements", || Ok((points("memory")?, points("gc")?)))?;
    daemon.uni_ok(&["metrics", "web", "memory:off"])?;
    // what was on its way
    std::thread::sleep(Duration::from_millis(1500));
    let (memory, gc) = (points("memory")?, points("gc")?);
    eventually("gc to go on", || {
        let now = points("gc")?;
        ensure!(now >= gc + 3.0, "{now} of {gc}");
        Ok(())
    })?;
    ensure!(points("memory")? <= memory, "memory goes on");
    daemon.uni_ok(&["metrics", "web", "memory:on"])?;
    eventually("memory to come back", || {
        ensure!(points("memory")? > memory);
        Ok(())
    })?;

    // the guest's console tells of the change, unless its source is told to be quiet
    let console = || daemon.uni_ok(&["logs", "web"]);
    ensure!(console()?.contains("Mmemory:off"), "{}", console()?);
    daemon.uni_ok(&["log-level", "web", "control:quiet"])?;
    daemon.uni_ok(&["metrics", "web", "memory:off,gc:off"])?;
    ensure!(!console()?.contains("Mmemory:off,gc:off"), "{}", console()?);
    Ok(())
}

/// By the guest itself where it can, by unid where the guest cannot (all metrics at once).
#[test]
fn a_change_for_a_time_ends_with_it() -> anyhow::Result<()> {
    let (_state, daemon) = start(&[])?;
    run_answering(&daemon, "hello", "web")?;
    let back = |what: &str, source: &str, state: &str| {
        eventually("the change to end", || {
            let now = state_of(&daemon, what, &["web"], source)?;
            ensure!(now == state, "{source} is {now}");
            Ok(())
        })
    };
    let now = daemon.uni_json(&["log-level", "web", "app:debug", "--for", "2s"])?;
    ensure!(state_in(&now, "app")? == "debug", "{now}");
    back("log-level", "app", "info")?;
    ensure!(daemon.uni_ok(&["logs", "web"])?.contains("Lapp:debug@2s"), "the guest does not do it");

    daemon.uni_ok(&["metrics", "web", "gc:off"])?;
    let now = daemon.uni_json(&["metrics", "web", "off", "--for", "2s"])?;
    ensure!(state_in(&now, "*")? == "disabled" && state_in(&now, "memory")? == "disabled", "{now}");
    back("metrics", "memory", "enabled")?;
    ensure!(state_of(&daemon, "metrics", &["web"], "gc")? == "disabled", "it was off before");
    ensure!(daemon.uni_ok(&["logs", "web"])?.contains("time limit is over"), "the guest does not do it");

    // limits overlap, and end nothing but themselves
    daemon.uni_ok(&["metrics", "web", "memory:off", "--for", "5s"])?;
    daemon.uni_ok(&["metrics", "web", "off", "--for", "1s"])?;
    back("metrics", "*", "enabled")?;
    back("metrics", "memory", "enabled")?;
    ensure!(state_of(&daemon, "metrics", &["web"], "gc")? == "disabled", "it was off before");

    // a later change of all without an end lasts
    daemon.uni_ok(&["metrics", "web", "off", "--for", "2s"])?;
    daemon.uni_ok(&["metrics", "web", "off"])?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(state_of(&daemon, "metrics", &["web"], "*")? == "disabled");

    // of a VM that is gone there is nothing to end
    run_answering(&daemon, "hello", "brief")?;
    daemon.uni_ok(&["metrics", "brief", "off", "--for", "1s"])?;
    daemon.uni_ok(&["stop", "brief", "--force"])?;
    std::thread::sleep(Duration::from_millis(1500));
    ensure!(!daemon.log().join("\n").contains("keeps a change"), "{:?}", daemon.log());
    Ok(())
}

#[test]
fn a_pattern_names_several_vms_and_each_has_a_row() -> anyhow::Result<()> {
    let (_state, daemon) = start(&[])?;
    run_answering(&daemon, "hello", "web-1")?;
    run_answering(&daemon, "http", "web-2")?;
    run_answering(&daemon, "hello", "other")?;
    let table = daemon.uni_ok(&["log-level", "web-*", "app:debug"]);
    // the web server has no source of that name: its row says so, and the status is 1
    ensure!(table.is_err(), "{table:?}");
    let output = daemon.uni(&["log-level", "web-*", "app:debug"])?;
    let (rows, complaint) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    let rows: Vec<_> = rows.lines().collect();
    ensure!(rows.len() == 3 && rows[1].contains("app:debug"), "{rows:?}");
    ensure!(rows[2].starts_with("web-2") && rows[2].contains("failed: unknown source \"app\""), "{rows:?}");
    ensure!(output.status.code() == Some(1) && complaint.contains("1 of 2 VMs failed"), "{complaint}");

    let all = daemon.uni_json(&["metrics", "web-?", "gc:off"])?;
    for (at, name) in ["web-1", "web-2"].into_iter().enumerate() {
        ensure!(all[at]["guest"] == name && state_in(&all[at], "gc")? == "disabled", "{all}");
    }
    ensure!(state_of(&daemon, "metrics", &["other"], "gc")? == "enabled", "another VM was changed");
    fails_with(&daemon, &["metrics", "db-*"], &["no running VM", "db-*"])
}

#[test]
fn each_change_leaves_an_audit_line_and_a_mark() -> anyhow::Result<()> {
    let (_state, daemon) = start(&[])?;
    run_answering(&daemon, "hello", "web")?;
    daemon.uni_ok(&["log-level", "web", "app:debug", "--for", "10m"])?;
    let uid = rustix::process::getuid().as_raw();
    let line = daemon.logged(&["guest control"])?;
    for word in ["vm=web", "command=Lapp:debug@600s", &format!("by=\"uid {uid}\""), "for=600s"] {
        ensure!(line.contains(word), "no {word}: {line}");
    }
    let rows = daemon.rows("SELECT text FROM lifecycle WHERE vm = 'web' AND event = 'control'")?;
    ensure!(rows.len() == 1 && rows[0][1] == "Lapp:debug@600s", "{rows:?}");
    let charts: Value = serde_json::from_str(&daemon.get("ui", "/ui/api/vm/web/charts")?)?;
    let marks = charts["marks"].as_array().context("marks")?;
    ensure!(
        marks.iter().any(|mark| mark["event"] == "control" && mark["text"] == "Lapp:debug@600s"),
        "{charts}"
    );

    // showing leaves nothing behind, and a command that failed no mark
    daemon.uni_ok(&["metrics", "web"])?;
    failure(&daemon, &["metrics", "web", "nosuch:off"])?;
    let again = daemon.rows("SELECT text FROM lifecycle WHERE vm = 'web' AND event = 'control'")?;
    ensure!(again.len() == 1, "{again:?}");

    let control: Value = serde_json::from_str(&daemon.get("ui", "/ui/api/vm/web/control")?)?;
    let level = |source: &str| {
        let logs = control["logs"].as_array()?;
        logs.iter().find(|log| log["source"] == source)?["level"].as_str().map(str::to_owned)
    };
    ensure!(level("app").as_deref() == Some("debug") && level("*").as_deref() == Some("info"), "{control}");
    ensure!(
        control["metrics"][0]["source"] == "*" && control["metrics"][0]["state"] == "enabled",
        "{control}"
    );
    daemon.uni_ok(&["stop", "web", "--force"])?;
    let control: Value = serde_json::from_str(&daemon.get("ui", "/ui/api/vm/web/control")?)?;
    let error = control["error"].as_str().unwrap_or_default();
    ensure!(control["logs"] == json!([]) && error.contains("stopped"), "{control}");
    Ok(())
}

#[test]
fn a_guest_without_monitoring_is_given_up_and_holds_up_nobody() -> anyhow::Result<()> {
    let (state, daemon) = start(&[])?;
    run(&daemon, "plain", "bare", &[])?;
    fails_with(&daemon, &["log-level", "bare"], &["bare", "refuses", "--addr"])?;
    // no network at all: nobody refuses
    let image = state.path().join("mute.img");
    std::fs::write(&image, boot_sector(b"no network", false))?;
    daemon.uni_ok(&["run", &image.display().to_string(), "--name", "mute"])?;
    run_answering(&daemon, "hello", "web")?;
    std::thread::scope(|scope| {
        // more at one time than may wait for one VM
        let asked: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<(String, Duration)> {
                    let start = Instant::now();
                    Ok((failure(&daemon, &["log-level", "mute"])?, start.elapsed()))
                })
            })
            .collect();
        let start = Instant::now();
        daemon.uni_ok(&["log-level", "web"])?;
        ensure!(start.elapsed() < Duration::from_secs(3), "another VM waited for it: {:?}", start.elapsed());
        for asked in asked {
            let (complaint, took) = asked.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            ensure!(took < GIVEN_UP, "it took {took:?}: {complaint}");
            let is_clear = complaint.contains("--addr") || complaint.contains("busy");
            ensure!(complaint.contains("mute") && is_clear, "{complaint}");
        }
        Ok(())
    })
}

#[test]
fn a_guest_that_uni_does_not_run_is_named_by_address() -> anyhow::Result<()> {
    let (state, daemon) = start(&[])?;
    let boot = |port: u16, more: &str| {
        let management = format!("net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:{port}-:2323");
        let args = format!("--name=far --management-ipv4=10.0.3.15/24 {more}");
        Qemu::boot(state.path(), MACHINES[0], "hello", &management, &args)
    };
    let port = free_port()?;
    let _open = boot(port, "")?;
    until_answering(port)?;
    let addr = format!("127.0.0.1:{port}");
    let by_addr = ["--addr", addr.as_str()];
    daemon.uni_ok(&[&["log-level"], &by_addr[..], &["app:debug"]].concat())?;
    ensure!(state_of(&daemon, "log-level", &by_addr, "app")? == "debug");
    daemon.logged(&["guest control", &addr])?;
    fails_with(&daemon, &[&["log-level", "vm", "debug"], &by_addr[..]].concat(), &["--addr"])?;

    let port = free_port()?;
    let guarded = boot(port, "--monitor-token=sesame")?;
    guarded.wait_for("no monitor")?;
    let addr = format!("127.0.0.1:{port}");
    let token = state.path().join("token");
    std::fs::write(&token, "sesame\n")?;
    let token = token.display().to_string();
    eventually("a refusal", || fails_with(&daemon, &["metrics", "--addr", &addr], &["--token-file"]))?;
    let with_token = ["--addr", &addr, "--token-file", &token];
    daemon.uni_ok(&[&["metrics"], &with_token[..], &["gc:off"]].concat())?;
    ensure!(state_of(&daemon, "metrics", &with_token, "gc")? == "disabled");
    ensure!(!daemon.log().join("\n").contains("sesame"), "the token is in the log");
    Ok(())
}

/// Answers every connection with `answer`, for as long as the test lives.
fn answering(answer: impl Fn(&mut TcpStream) + Send + 'static) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut command = [0; 4096];
            let _ = stream.read(&mut command);
            answer(&mut stream);
        }
    });
    Ok(addr)
}

#[test]
fn nonsense_is_shown_and_never_trusted() -> anyhow::Result<()> {
    let (_state, daemon) = start(&[])?;
    let ask = |addr: &str, words: &[&str]| -> anyhow::Result<()> {
        let start = Instant::now();
        fails_with(&daemon, &["log-level", "--addr", addr], words)?;
        ensure!(start.elapsed() < GIVEN_UP, "it took {:?}", start.elapsed());
        Ok(())
    };
    let say = |bytes: &'static [u8]| answering(move |stream| drop(stream.write_all(bytes)));
    ask(&say(b"ok: *:\xff\x00\x1b[2J")?, &["no answer", "\\xff\\x00\\x1b[2J"])?;
    ask(&say(b"ok: *:info,\x1b]0;title\x07")?, &["no answer", "\\u{1b}]0;title\\u{7}"])?;
    ask(&say(b"")?, &["without an answer"])?;
    ask(&say(b"error: go\x1b[31maway")?, &["go\\u{1b}[31maway"])?;
    // names are the guest's own, whatever they are
    let odd = say(b"ok: *:info,a:b,c\x1b[2J:debug")?;
    let table = daemon.uni_ok(&["log-level", "--addr", &odd])?;
    ensure!(table.contains("a:b,c\\u{1b}[2J  debug") && !table.contains('\x1b'), "{table:?}");

    let endless = answering(|stream| while stream.write_all(&[b'a'; 4096]).is_ok() {})?;
    ask(&endless, &["longer than 262144 bytes"])?;
    let dripping = answering(|stream| {
        while stream.write_all(b"o").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    })?;
    ask(&dripping, &["within 5 s"])?;
    let silent = answering(|_| std::thread::sleep(Duration::from_secs(60)))?;
    ask(&silent, &["within 5 s"])?;
    ask(&format!("127.0.0.1:{}", free_port()?), &["connect"])?;
    ask("nowhere", &["nowhere"])
}

/// As MirageOS's own: no `h`, no time limits, unknown sources answered with `ok`. What ends, ends by unid.
#[test]
fn a_guest_of_another_kind_is_brought_back_by_unid() -> anyhow::Result<()> {
    let (_state, mut daemon) = start(&[])?;
    let commands = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?.to_string();
    let seen = std::sync::Arc::clone(&commands);
    std::thread::spawn(move || {
        let mut dns = "info".to_owned();
        for mut stream in listener.incoming().flatten() {
            // one read is one command
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap_or(0);
            let command = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if let Some(at) = command.find("dns:") {
                dns = command[at + 4..].split(',').next().unwrap_or_default().to_owned();
            }
            let answer = match command.as_str() {
                "l*" => format!("ok: *:info,dns:{dns},tcpip:info"),
                set if set.starts_with('L') => "ok".to_owned(),
                _ => "error: unknown command".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes());
            seen.lock().map(|mut seen| seen.push(command)).unwrap_or_default();
        }
    });
    fails_with(&daemon, &["log-level", "--addr", &addr, "nosuch:debug"], &["unknown source \"nosuch\""])?;
    let now = daemon.uni_json(&["log-level", "--addr", &addr, "dns:debug", "--for", "1s"])?;
    ensure!(state_in(&now, "dns")? == "debug", "{now}");
    eventually("unid to bring it back", || {
        let seen = commands.lock().map(|seen| seen.clone()).unwrap_or_default();
        ensure!(seen.iter().any(|command| command == "L*:info,dns:info,tcpip:info"), "{seen:?}");
        Ok(())
    })?;
    ensure!(state_of(&daemon, "log-level", &["--addr", &addr], "dns")? == "info");

    // it is no VM: there is no directory to keep this in
    daemon.uni_ok(&["log-level", "--addr", &addr, "dns:error", "--for", "1h"])?;
    daemon.terminate()?;
    daemon.logged(&["unid ends before it", "Ldns:error"])?;
    Ok(())
}
