//! Guests changed from the page: who may, what it leaves behind, guests with a token of their own, and every refusal.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use black_box::{Daemon, PATIENCE, bin_dir, eventually, guest, python};
use serde_json::{Value, json};

const TOKEN: &str = "correct-horse-battery-staple";
/// A guest's own.
const SESAME: &str = "sesame-of-the-guest";
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// A daemon whose page may change guests.
fn start(state: &Path) -> anyhow::Result<Daemon> {
    let file = state.join("token");
    std::fs::write(&file, TOKEN)?;
    Daemon::start(&state.join("s"), &["--ui-control", "--token-file", &file.display().to_string()])
}

fn run_answering(daemon: &Daemon, name: &str, args: &[&str]) -> anyhow::Result<()> {
    let image = guest("hello").display().to_string();
    daemon.uni_ok(&[&["run", &image, "--name", name, "--memory", "32M", "--"], args].concat())?;
    eventually("the guest to answer", || {
        let output = daemon.uni(&["log-level", name])?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() || complaint.contains("wants a token"), "{complaint}");
        Ok(())
    })
}

/// Status and JSON of an answer of the page's API; `vm` may have a query behind it.
fn ask(
    daemon: &Daemon,
    vm: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> anyhow::Result<(u16, Value)> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_idle_connections(0);
    let agent: ureq::Agent = config.timeout_global(Some(PATIENCE)).build().into();
    let (vm, query) = vm.split_once('?').unwrap_or((vm, ""));
    let url = format!("http://{}/ui/api/vm/{vm}/control?{query}", daemon.address("ui")?);
    let method = if body.is_some() { "POST" } else { "GET" };
    let mut request = ureq::http::Request::builder().method(method).uri(&url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = agent.run(request.body(body.unwrap_or_default().to_owned())?).context(url)?;
    let text = answer.body_mut().read_to_string()?;
    Ok((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

fn bearer() -> String {
    format!("Bearer {TOKEN}")
}

/// What the page itself asks.
fn change(daemon: &Daemon, vm: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
    let origin = format!("http://{}", daemon.address("ui")?);
    let headers = [("authorization", &*bearer()), ("content-type", "application/json"), ("origin", &origin)];
    ask(daemon, vm, &headers, Some(&body.to_string()))
}

fn state_of(control: &Value, kind: &str, key: &str, source: &str) -> Option<String> {
    let found = control[kind].as_array()?.iter().find(|entry| entry["source"] == source)?;
    found[key].as_str().map(str::to_owned)
}

#[test]
fn a_change_from_the_page_is_that_of_the_command_line() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = start(state.path())?;
    run_answering(&daemon, "web", &["--interval=1"])?;
    let (status, shown) = ask(&daemon, "web", &[("authorization", &bearer())], None)?;
    ensure!(status == 200 && shown["can_change"] == true && shown.get("needs_token").is_none(), "{shown}");

    let (status, now) =
        change(&daemon, "web", &json!({ "kind": "logs", "spec": "app:debug", "for_seconds": 600 }))?;
    ensure!(status == 200 && state_of(&now, "logs", "level", "app").as_deref() == Some("debug"), "{now}");
    let (status, now) = change(&daemon, "web", &json!({ "kind": "metrics", "spec": "gc:off" }))?;
    ensure!(
        status == 200 && state_of(&now, "metrics", "state", "gc").as_deref() == Some("disabled"),
        "{now}"
    );
    let line = daemon.logged(&["guest control"])?;
    for word in ["vm=web", "command=Lapp:debug@600s", "by=\"page, 127.0.0.1\"", "for=600s"] {
        ensure!(line.contains(word), "no {word}: {line}");
    }
    let detail = daemon.uni_ok(&["--output", "json", "metrics", "web"])?;
    ensure!(detail.contains("disabled"), "{detail}");

    let (status, now) = change(&daemon, "web", &json!({ "kind": "logs" }))?;
    ensure!(status == 200 && state_of(&now, "logs", "level", "app").as_deref() == Some("debug"), "{now}");

    for (body, status, words) in [
        (json!({ "kind": "metrics", "spec": "nosuch:off" }), 422, "unknown source"),
        (json!({ "kind": "logs", "spec": "app:loud" }), 422, "loud"),
        (json!({ "kind": "logs", "spec": "debug", "for_seconds": 90_000 }), 422, "24h"),
        (json!({ "kind": "logs", "for_seconds": 5 }), 422, "--for"),
        (json!({ "kind": "logs", "spec": "debug\nM*:off" }), 422, "control characters"),
        (json!({ "kind": "logs", "token": "x\nL*:quiet" }), 422, "several lines"),
        (json!({ "kind": "all", "spec": "off" }), 400, "kind"),
        (json!({ "spec": "off" }), 400, "kind"),
        (json!({ "kind": "logs", "more": 1 }), 400, "kind"),
        (json!([SESAME]), 400, "kind"),
        (json!({ "kind": "logs", "spec": "x".repeat(20_000) }), 413, "16384"),
    ] {
        let (got, answer) = change(&daemon, "web", &body)?;
        let error = answer["error"].as_str().unwrap_or_default();
        ensure!(got == status && error.contains(words) && !error.contains(SESAME), "{body}: {got} {answer}");
    }
    let (status, answer) = change(&daemon, "nobody", &json!({ "kind": "logs" }))?;
    ensure!(status == 404 && answer["error"] == "vm not found", "{status} {answer}");
    daemon.uni_ok(&["stop", "web", "--force"])?;
    let (status, answer) = change(&daemon, "web", &json!({ "kind": "logs", "spec": "debug" }))?;
    ensure!(
        status == 422 && answer["error"].as_str().is_some_and(|error| error.contains("stopped")),
        "{answer}"
    );
    Ok(())
}

#[test]
fn only_the_token_in_its_header_changes_anything() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = start(state.path())?;
    run_answering(&daemon, "web", &[])?;
    let body = json!({ "kind": "logs", "spec": "app:debug" }).to_string();
    let json = ("content-type", "application/json");
    // printf 'any:correct-horse-battery-staple' | base64
    let basic = ("authorization", "Basic YW55OmNvcnJlY3QtaG9yc2UtYmF0dGVyeS1zdGFwbGU=");
    let (bearer, wrong) = (bearer(), "Bearer not-the-token-at-all");
    let bearer = ("authorization", &*bearer);
    for (headers, status) in [
        (vec![json], 401),
        (vec![json, ("authorization", wrong)], 401),
        // what a browser adds by itself to the requests of whatever page
        (vec![json, basic], 403),
        (vec![json, bearer, ("origin", "http://evil.example.com")], 403),
        (vec![json, bearer, ("origin", "null")], 403),
        // what a form can send
        (vec![bearer, ("content-type", "text/plain")], 415),
        (vec![bearer], 415),
    ] {
        let (got, answer) = ask(&daemon, "web", &headers, Some(&body))?;
        ensure!(got == status, "{headers:?}: {got} {answer}");
    }
    let in_address = ask(&daemon, &format!("web?p={TOKEN}"), &[json, bearer], Some(&body))?;
    ensure!(in_address.0 == 403, "{in_address:?}");
    let levels = daemon.uni_json(&["log-level", "web"])?;
    ensure!(!levels.to_string().contains("debug"), "{levels}");
    ensure!(!daemon.log().join("\n").contains("guest control"), "{:?}", daemon.log());
    // reading goes on with either
    ensure!(ask(&daemon, "web", &[basic], None)?.0 == 200);
    Ok(())
}

#[test]
fn without_the_flag_the_page_only_reads() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    run_answering(&daemon, "web", &[])?;
    let (_, shown) = ask(&daemon, "web", &[], None)?;
    ensure!(shown["can_change"] == false && shown["logs"][0]["source"] == "*", "{shown}");
    let (status, answer) = change(&daemon, "web", &json!({ "kind": "logs", "spec": "app:debug" }))?;
    let error = answer["error"].as_str().unwrap_or_default();
    ensure!(status == 403 && error.contains("--ui-control") && error.contains("--token-file"), "{answer}");

    for (flags, words) in [
        (&["--ui-control"][..], ["--ui-control", "--token-file"]),
        (&["--ui-control", "--token-file", "/nonexistent", "--ui-addr", ""], ["--ui-control", "--ui-addr"]),
    ] {
        let output = Command::new(bin_dir().join("unid"))
            .arg("--state-dir")
            .arg(state.path().join("other"))
            .args(flags)
            .output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{flags:?}: {output:?}");
        ensure!(words.iter().all(|word| complaint.contains(word)), "{complaint}");
        ensure!(!state.path().join("other").exists(), "it left something behind");
    }
    Ok(())
}

/// The token comes with each request, and is nowhere afterwards.
#[test]
fn a_guests_own_token_is_asked_for_and_never_kept() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = start(state.path())?;
    run_answering(&daemon, "vault", &[&format!("--monitor-token={SESAME}")])?;
    let (_, shown) = ask(&daemon, "vault", &[("authorization", &bearer())], None)?;
    ensure!(shown["needs_token"] == true && shown["logs"] == json!([]), "{shown}");
    let (_, shown) = change(&daemon, "vault", &json!({ "kind": "logs", "token": "wrong" }))?;
    ensure!(shown["needs_token"] == true, "{shown}");
    let (_, shown) = change(&daemon, "vault", &json!({ "kind": "logs", "token": SESAME }))?;
    ensure!(shown.get("needs_token").is_none() && shown["logs"][0]["source"] == "*", "{shown}");
    let (status, answer) = change(&daemon, "vault", &json!({ "kind": "metrics", "spec": "gc:off" }))?;
    ensure!(
        status == 422 && answer["error"].as_str().is_some_and(|error| error.contains("token")),
        "{answer}"
    );
    let off = json!({ "kind": "metrics", "spec": "off", "for_seconds": 600, "token": SESAME });
    let (status, now) = change(&daemon, "vault", &off)?;
    ensure!(
        status == 200 && state_of(&now, "metrics", "state", "gc").as_deref() == Some("disabled"),
        "{now}"
    );
    ensure!(!daemon.log().join("\n").contains(SESAME), "it is in the log");
    let id = daemon.uni_json(&["inspect", "vault"])?["id"].as_str().context("its id")?.to_owned();
    for entry in std::fs::read_dir(state.path().join("s/vms").join(id))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        // the record and what the shim runs hold it as the guest's argument, which is how it came to the guest
        if path.is_file() && !["state.json", "launch.json"].contains(&&*name) {
            let bytes = std::fs::read(&path)?;
            ensure!(!String::from_utf8_lossy(&bytes).contains(SESAME), "it is in {name}");
        }
    }
    Ok(())
}

#[test]
fn schemathesis_finds_no_answer_to_a_change_that_the_document_does_not_describe() -> anyhow::Result<()> {
    let python = python::venv(&[SCHEMATHESIS])?;
    let state = tempfile::tempdir()?;
    let daemon = start(state.path())?;
    run_answering(&daemon, "web", &[])?;
    let base = format!("http://{}", daemon.address("ui")?);
    let config = state.path().join("schemathesis.toml");
    std::fs::write(&config, "[parameters]\n\"path.id\" = \"web\"\n")?;
    let output = Command::new(python)
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(&config)
        .arg("run")
        .arg(format!("{base}/ui/api/openapi.json"))
        .args(["--url", &base, "--max-examples", "40", "--generation-deterministic", "--no-color"])
        .args(["-H", &format!("Authorization: Bearer {TOKEN}"), "--request-timeout", "30"])
        .args(["--include-path-regex", "(control|traces)$"])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        .current_dir(state.path())
        .output()?;
    let report = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && report.contains("Tested: 4"),
        "{report}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
