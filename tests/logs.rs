//! The daemon's log, as those read it who collect it: each line's form, its levels, and who need not read it.
//!
//! Owns nothing: starts `unid` in both formats and reads its stderr.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{Daemon, PATIENCE, bin_dir, eventually, guest};
use serde_json::{Value, json};

/// One request on the control socket.
fn call(socket: &Path, request: &str) -> anyhow::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{request}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    serde_json::from_str(&answer).with_context(|| format!("{request}: {answer:?}"))
}

/// `unid` on directories below `state`, not yet started; its stderr is a pipe.
fn unid(state: &Path) -> Command {
    let mut command = Command::new(bin_dir().join("unid"));
    command.arg("--state-dir").arg(state).arg("--socket").arg(state.join("unid.sock"));
    command.args(["--line-addr", "", "--syslog-addr", "", "--api-addr", ""]).env_remove("UNI_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A started `unid` that is ended when dropped.
struct Started(Child, PathBuf);

impl Started {
    fn new(mut command: Command, state: &Path) -> anyhow::Result<Self> {
        let started = Self(command.spawn()?, state.join("unid.sock"));
        eventually("unid to answer", || started.uni(&["status"]).map(drop))?;
        Ok(started)
    }

    fn uni(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(bin_dir().join("uni")).arg("--socket").arg(&self.1).args(args).output()?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn dropped_lines(&self) -> anyhow::Result<u64> {
        let status: Value = serde_json::from_str(&self.uni(&["status", "--output", "json"])?)?;
        status["dropped_log_lines_total"].as_u64().with_context(|| status.to_string())
    }

    /// Ends it and gives its stdout and stderr.
    fn end(mut self) -> anyhow::Result<(String, String)> {
        let pid = self.0.id().to_string();
        Command::new("sh").args(["-c", "kill -TERM $0", &pid]).status()?;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        if let Some(mut pipe) = self.0.stderr.take() {
            pipe.read_to_string(&mut stderr)?;
        }
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_string(&mut stdout)?;
        }
        ensure!(self.0.wait()?.success(), "{stderr}");
        Ok((stdout, stderr))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The fields of a JSON line, in which all that every line has is checked.
fn json_line(line: &str) -> anyhow::Result<Value> {
    let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line:?}"))?;
    let object = value.as_object().with_context(|| format!("no object: {line}"))?;
    ensure!(object.values().all(|field| !field.is_object() && !field.is_array()), "not flat: {line}");
    let stamp = value["ts"].as_str().unwrap_or_default();
    let form: String = stamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    ensure!(form == "0000-00-00T00:00:00.000Z", "{line}");
    ensure!(value["level"].as_str().is_some_and(|level| LEVELS.contains(&level)), "{line}");
    ensure!(value["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{line}");
    let begin = format!("{{\"ts\":\"{stamp}\",\"level\":{},\"msg\":{}", value["level"], value["msg"]);
    ensure!(line.starts_with(&begin), "the order of {line}");
    Ok(value)
}

const LEVELS: [&str; 4] = ["DEBUG", "INFO", "WARN", "ERROR"];

fn json_lines(log: &[String]) -> anyhow::Result<Vec<Value>> {
    log.iter().map(|line| json_line(line)).collect()
}

fn run(daemon: &Daemon, name: &str) -> anyhow::Result<String> {
    let image = guest("http").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", name, "--memory", "32M"])
}

#[test]
fn every_line_of_a_json_log_is_an_object_of_the_documented_form() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &["--log-format", "json", "--log-level", "debug"])?;
    let id = run(&daemon, "web")?;
    daemon.uni_ok(&["stop", "web"])?;
    let faulty = guest("faulty").display().to_string();
    daemon.uni(&["run", &faulty, "--name", "dies", "--memory", "32M", "--", "--fault=panic", "--after=0"])?;
    for request in ["nonsense", "{}", r#"{"jsonrpc":"2.0","id":1,"method":"VM.Nothing"}"#, "\u{1b}[2J\"}\\"] {
        call(&daemon.socket(), request)?;
    }
    daemon.uni(&["stop", "no\"body\n"])?;
    ensure!(daemon.terminate()?.success());
    let last = eventually("the last line", || {
        let log = daemon.log();
        let last = log.last().cloned().unwrap_or_default();
        ensure!(last.contains("unid shutdown complete"), "{log:#?}");
        Ok(log)
    });
    let lines = json_lines(&last?)?;
    let of_web: Vec<_> =
        lines.iter().filter(|line| line["msg"] == "vm state transition" && line["vm_id"] == id).collect();
    let steps: Vec<_> =
        of_web.iter().filter_map(|line| Some((line["from"].as_str()?, line["to"].as_str()?))).collect();
    let life =
        [("created", "starting"), ("starting", "running"), ("running", "stopping"), ("stopping", "stopped")];
    ensure!(
        steps == life && of_web.iter().all(|line| line["vm"] == "web" && line["level"] == "INFO"),
        "{of_web:#?}"
    );
    let begin = format!(r#""msg":"vm state transition","vm_id":"{id}","from":"created","to":"starting","#);
    daemon.logged(&[&begin])?;
    let socket = daemon.socket().display().to_string();
    ensure!(
        lines.iter().any(|line| line["msg"] == "unid listening" && line["socket"] == socket),
        "{lines:#?}"
    );
    let page = |line: &&Value| line["msg"] == "dashboard server listening";
    let address = lines.iter().find(page).and_then(|line| line["addr"].as_str()).context("no page")?;
    ensure!(address.parse::<std::net::SocketAddr>().is_ok(), "{address}");
    Ok(())
}

#[test]
fn a_failing_qemu_and_its_words_do_not_break_the_log() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let qemu = state.path().join("qemu");
    std::fs::write(&qemu, "#!/bin/sh\necho 'to \"stdout\"'\nprintf 'to\\nstderr \\033[2J' >&2\nexit 3\n")?;
    std::fs::set_permissions(&qemu, std::fs::Permissions::from_mode(0o755))?;
    let dir = state.path().join("state");
    let mut command = unid(&dir);
    command.args(["--log-format", "json", "--qemu"]).arg(&qemu);
    let started = Started::new(command, &dir)?;
    let image = guest("hello").display().to_string();
    ensure!(started.uni(&["run", &image, "--memory", "32M"]).is_err(), "a QEMU that fails");
    let (stdout, stderr) = started.end()?;
    ensure!(stdout.is_empty(), "{stdout}");
    let lines = json_lines(&stderr.lines().map(str::to_owned).collect::<Vec<_>>())?;
    ensure!(lines.last().is_some_and(|line| line["msg"] == "unid shutdown complete"), "{lines:#?}");
    Ok(())
}

#[test]
fn a_text_log_has_words_and_pairs() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &[])?;
    let id = run(&daemon, "web")?;
    daemon.uni_ok(&["stop", "web", "--force"])?;
    daemon.terminate()?;
    let log = eventually("the last line", || {
        let log = daemon.log();
        ensure!(
            log.last().is_some_and(|line| line.ends_with("level=INFO msg=\"unid shutdown complete\"")),
            "{log:#?}"
        );
        Ok(log)
    })?;
    for line in log.iter().filter(|line| !line.starts_with("listening ")) {
        let (stamp, rest) =
            line.strip_prefix("time=").and_then(|line| line.split_once(' ')).context(line.clone())?;
        ensure!(stamp.len() == 24 && stamp.ends_with('Z') && rest.starts_with("level="), "{line}");
    }
    let transition =
        format!(r#" level=INFO msg="vm state transition" vm_id={id} from=created to=starting vm=web"#);
    ensure!(log.iter().any(|line| line.ends_with(&transition)), "{log:#?}");
    Ok(())
}

/// Starts `unid`, which must not come up.
fn refused(flags: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Output> {
    let state = tempfile::tempdir()?;
    let output = unid(state.path()).args(flags).envs(variables.iter().copied()).output()?;
    ensure!(output.status.code() == Some(1), "{flags:?}: {output:?}");
    ensure!(output.stdout.is_empty(), "{flags:?}: {output:?}");
    Ok(output)
}

#[test]
fn why_it_does_not_start_is_told_in_the_format_asked_for() -> anyhow::Result<()> {
    for (flags, variables, words) in [
        (&["--trace-addr", "nonsense"][..], &[][..], "--trace-addr \"nonsense\""),
        (&["--trace-addr", "https://host:1"], &[], "TLS to the collector is not supported"),
        (&["--ui-addr", "0.0.0.0:1"], &[], "--ui-addr 0.0.0.0:1"),
        (&["--log-level", "info,unid::vms=loud"], &[], "\"unid::vms=loud\""),
        (&[], &[("UNI_LOG", "loud")], "\"loud\""),
        (&["--log-level", "off", "--trace-addr", "x"], &[], "--trace-addr"),
    ] {
        let text = String::from_utf8(refused(flags, variables)?.stderr)?;
        ensure!(
            text.starts_with("unid: ") && text.contains(words) && text.lines().count() == 1,
            "{flags:?}: {text}"
        );
        let text =
            String::from_utf8(refused(&[flags, &["--log-format", "json"]].concat(), variables)?.stderr)?;
        let line = json_line(text.trim_end())?;
        ensure!(line["level"] == "ERROR" && line["msg"] == "start", "{line}");
        ensure!(line["err"].as_str().is_some_and(|err| err.contains(words)), "{line}");
    }
    // flags that are not understood at all
    let text = String::from_utf8(refused(&["--log-format", "yaml"], &[])?.stderr)?;
    ensure!(text.contains("'yaml'") && text.contains("text, json"), "{text}");
    for form in [&["--log-format", "json"][..], &["--log-format=json"]] {
        let text = String::from_utf8(refused(&[form, &["--interval", "0"]].concat(), &[])?.stderr)?;
        let line = json_line(text.trim_end())?;
        ensure!(line["err"].as_str().is_some_and(|err| err.contains("the interval is 1s to 1h")), "{line}");
    }
    Ok(())
}

/// The messages of a text log.
fn counted(daemon: &Daemon, message: &str) -> usize {
    daemon.log().iter().filter(|line| line.contains(&format!("msg=\"{message}\""))).count()
}

#[test]
fn levels_are_shown_and_changed_by_target_while_the_daemon_runs() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &["--log-level", "warn"])?;
    ensure!(daemon.uni_ok(&["daemon", "log-level"])? == "warn");
    run(&daemon, "web")?;
    ensure!(counted(&daemon, "vm state transition") == 0, "{:#?}", daemon.log());
    ensure!(daemon.uni_ok(&["daemon", "log-level", "WARN,unid::vms=info"])? == "warn,unid::vms=info");
    ensure!(daemon.uni_json(&["daemon", "log-level"])? == json!({"level": "warn,unid::vms=info"}));
    for (bad, named) in [("loud", "\"loud\""), ("info,unid::vms=debgu", "\"unid::vms=debgu\"")] {
        let output = daemon.uni(&["daemon", "log-level", bad])?;
        let message = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && message.contains(named), "{message}");
        ensure!(message.starts_with("uni: daemon log-level: log level "), "{message}");
    }
    ensure!(daemon.uni_ok(&["daemon", "log-level"])? == "warn,unid::vms=info");
    daemon.uni_ok(&["stop", "web", "--force"])?;
    daemon.terminate()?;
    eventually("what the VMs did", || {
        ensure!(counted(&daemon, "vm state transition") == 2, "{:#?}", daemon.log());
        Ok(())
    })?;
    let change = "level=INFO msg=\"log level changed\" from=warn to=\"warn,unid::vms=info\"";
    ensure!(daemon.log().iter().filter(|line| line.ends_with(change)).count() == 1, "{:#?}", daemon.log());
    ensure!(counted(&daemon, "unid shutdown complete") == 0, "other targets: {:#?}", daemon.log());
    Ok(())
}

/// Changes the level to what it is, `times` times; each is a line.
fn make_lines(socket: &Path, times: usize) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(stream.try_clone()?).lines();
    for id in 0..times {
        let params = json!({"level": "info"});
        writeln!(
            stream,
            "{}",
            json!({"jsonrpc": "2.0", "id": id, "method": "Daemon.LogLevel", "params": params})
        )?;
        let answer: Value = serde_json::from_str(&answers.next().context("no answer")??)?;
        ensure!(answer["result"]["level"] == "info", "{answer}");
    }
    Ok(())
}

#[test]
fn a_stderr_that_nobody_reads_stalls_nothing() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut command = unid(state.path());
    command.args(["--log-format", "json"]);
    let started = Started::new(command, state.path())?;
    let lines = 8000;
    make_lines(&started.1, lines)?;
    let dropped = started.dropped_lines()?;
    ensure!(dropped > 0, "the pipe and the queue took {lines} lines");
    let start = Instant::now();
    let image = guest("http").display().to_string();
    started.uni(&["run", &image, "--name", "web", "--memory", "32M"])?;
    started.uni(&["stop", "web", "--force"])?;
    started.uni(&["rm", "web"])?;
    ensure!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    ensure!(started.dropped_lines()? > dropped, "what the VM did found no room");
    // whoever reads again learns how much is missing
    let (_, stderr) = started.end()?;
    let lines = json_lines(&stderr.lines().map(str::to_owned).collect::<Vec<_>>())?;
    let told = lines.iter().filter(|line| line["msg"] == "log lines were dropped");
    let told: u64 = told.filter_map(|line| line["lines"].as_u64()).sum();
    ensure!(told > dropped, "{told} told, {dropped} dropped");
    Ok(())
}

#[test]
fn a_closed_stderr_is_no_reason_to_end() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let unid = bin_dir().join("unid").display().to_string();
    let mut command = Command::new("sh");
    // closed from the start
    command.args([
        "-c",
        "exec \"$0\" --state-dir \"$1\" --socket \"$1/unid.sock\" --line-addr '' --syslog-addr '' --api-addr '' 2>&-",
    ]);
    command.arg(&unid).arg(state.path());
    let started = Started::new(command, state.path())?;
    make_lines(&started.1, 10)?;
    started.end()?;
    // closed while it runs: its reader has gone
    let state = tempfile::tempdir()?;
    let mut started = Started::new(self::unid(state.path()), state.path())?;
    drop(started.0.stderr.take());
    make_lines(&started.1, 10)?;
    ensure!(started.dropped_lines()? == 0);
    started.end()?;
    Ok(())
}
