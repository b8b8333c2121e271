//! Changes of a guest that knows no time limits, which end after a time all the same, while `unid` is killed and comes back.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{Daemon, eventually, guest};
use serde_json::Value;

fn run_answering(daemon: &Daemon, name: &str) -> anyhow::Result<()> {
    let image = guest("foreign").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", name, "--memory", "32M"])?;
    eventually("the guest to answer", || daemon.uni_ok(&["log-level", name]).map(drop))
}

/// Which metrics are on: the default and a source.
fn metrics(daemon: &Daemon, vm: &str) -> anyhow::Result<[String; 2]> {
    let answer = daemon.uni_json(&["metrics", vm])?;
    let state = |source: &str| {
        let sources = answer["sources"].as_array()?;
        sources.iter().find(|s| s["source"] == source)?["state"].as_str().map(str::to_owned)
    };
    Ok([state("*").with_context(|| answer.to_string())?, state("gc").with_context(|| answer.to_string())?])
}

const OFF: [&str; 2] = ["disabled", "disabled"];
/// As before the change: `gc` was off already.
const BEFORE: [&str; 2] = ["enabled", "disabled"];

fn kept(daemon: &Daemon, vm: &str) -> anyhow::Result<PathBuf> {
    let id: Value = daemon.uni_json(&["inspect", vm])?["id"].take();
    let id = id.as_str().context("its id")?;
    Ok(daemon.state_dir().join("vms").join(id).join("control-metrics.json"))
}

#[test]
fn a_change_ends_in_its_time_though_unid_was_killed_in_between() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(&state.path().join("s"), &[])?;
    run_answering(&daemon, "web")?;
    daemon.uni_ok(&["metrics", "web", "gc:off"])?;
    let start = Instant::now();
    daemon.uni_ok(&["metrics", "web", "off", "--for", "8s"])?;
    let file = kept(&daemon, "web")?;
    ensure!(file.exists(), "nothing is kept");
    daemon.kill()?;
    daemon.restart()?;
    // a slow machine may need longer than the change lasts, and then it rightly is over
    let now = metrics(&daemon, "web")?;
    ensure!(now == OFF || start.elapsed() >= Duration::from_secs(8), "it ended early");
    daemon.logged(&["taken over"])?;
    eventually("the change to end", || {
        let now = metrics(&daemon, "web")?;
        ensure!(now == BEFORE, "{now:?}");
        Ok(())
    })?;
    ensure!(start.elapsed() >= Duration::from_secs(8), "it ended after {:?}", start.elapsed());
    daemon.logged(&["its time is over"])?;
    eventually("the file to go", || {
        ensure!(!file.exists());
        Ok(())
    })
}

#[test]
fn what_is_late_when_unid_comes_back_ends_at_once() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(&state.path().join("s"), &[])?;
    run_answering(&daemon, "web")?;
    daemon.uni_ok(&["metrics", "web", "gc:off"])?;
    // of two, what was before the first comes back
    daemon.uni_ok(&["metrics", "web", "off", "--for", "1h"])?;
    daemon.uni_ok(&["metrics", "web", "*:off,memory:on", "--for", "2s"])?;
    daemon.kill()?;
    std::thread::sleep(Duration::from_millis(2500));
    daemon.restart()?;
    eventually("the change to end", || {
        let now = metrics(&daemon, "web")?;
        ensure!(now == BEFORE, "{now:?}");
        Ok(())
    })?;
    let marks = daemon.rows("SELECT text FROM lifecycle WHERE vm = 'web' AND event = 'control'")?;
    ensure!(
        marks.iter().any(|row| row[1].as_str().is_some_and(|text| text.starts_with("M*:enable"))),
        "{marks:?}"
    );

    // one that a later change made last does not end, whoever asks
    daemon.uni_ok(&["metrics", "web", "off", "--for", "2s"])?;
    daemon.uni_ok(&["metrics", "web", "off"])?;
    daemon.restart()?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(metrics(&daemon, "web")? == OFF);
    Ok(())
}

#[test]
fn damage_is_told_and_other_runs_and_guests_are_left_alone() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(&state.path().join("s"), &[])?;
    run_answering(&daemon, "web")?;
    run_answering(&daemon, "gone")?;
    for vm in ["web", "gone"] {
        daemon.uni_ok(&["metrics", vm, "off", "--for", "2s"])?;
    }
    let (web, gone) = (kept(&daemon, "web")?, kept(&daemon, "gone")?);
    daemon.kill()?;
    std::fs::write(&web, b"{\"before\": [[\"*\"")?;
    daemon.restart()?;
    daemon.uni_ok(&["stop", "gone", "--force"])?;
    daemon.logged(&["is damaged"])?;
    eventually("the files to go", || {
        ensure!(!web.exists() && !gone.exists());
        Ok(())
    })?;
    ensure!(metrics(&daemon, "web")? == OFF);
    ensure!(!daemon.log().join("\n").contains("keeps a change"), "{:?}", daemon.log());

    // a VM that is removed takes it along
    daemon.uni_ok(&["metrics", "web", "on"])?;
    daemon.uni_ok(&["metrics", "web", "off", "--for", "1h"])?;
    let file = kept(&daemon, "web")?;
    daemon.uni_ok(&["rm", "web", "--force"])?;
    ensure!(!file.exists());
    Ok(())
}

/// The token is in memory only: who comes back has none.
#[test]
fn a_guest_that_wants_a_token_keeps_its_change_and_the_log_says_so() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(&state.path().join("s"), &[])?;
    let token = state.path().join("token");
    std::fs::write(&token, "sesame-of-the-guest")?;
    let image = guest("foreign").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", "vault", "--", "--token=sesame-of-the-guest"])?;
    let off = ["metrics", "vault", "off", "--for", "2s", "--token-file", &token.display().to_string()];
    eventually("the guest to answer", || daemon.uni_ok(&off).map(drop))?;
    let file = kept(&daemon, "vault")?;
    daemon.kill()?;
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.contains("Moff") && !text.contains("sesame"), "{text}");
    daemon.restart()?;
    eventually("a warning", || {
        let log = daemon.log().join("\n");
        ensure!(log.contains("keeps a change") && log.contains("wants a token"), "{log}");
        Ok(())
    })?;
    // by unid that was not ended, it does end
    daemon.uni_ok(&[&["metrics", "vault", "on"], &off[5..]].concat())?;
    daemon.uni_ok(&off)?;
    eventually("the change to end", || {
        let now = daemon.uni_ok(&[&["metrics", "vault"], &off[5..]].concat())?;
        ensure!(!now.contains("disabled"), "{now}");
        Ok(())
    })
}
