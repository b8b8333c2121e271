//! What is remembered of VMs, in both stores: over killed daemons and killed VMs, over the change from one
//! store to the other, from installations of the original, and when it cannot be written.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{Daemon, bin_dir, boot_sector, eventually, guest};
use rusqlite::Connection;
use serde_json::{Value, json};

const FILE: [&str; 2] = ["--vm-store", "file"];
const SQLITE: [&str; 2] = ["--vm-store", "sqlite"];

fn run(daemon: &Daemon, name: &str) -> anyhow::Result<String> {
    let image = guest("hello").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", name, "--memory", "32M"])
}

fn inspect(daemon: &Daemon, vm: &str) -> anyhow::Result<Value> {
    daemon.uni_json(&["inspect", vm])
}

fn kill_9(pid: &Value) -> anyhow::Result<()> {
    let pid = pid.as_u64().context("a pid")?.to_string();
    ensure!(Command::new("kill").args(["-9", &pid]).status()?.success(), "kill -9 {pid}");
    eventually("it to be gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        ensure!(stat.is_empty() || stat.contains(") Z "), "{stat}");
        Ok(())
    })
}

fn logged(daemon: &Daemon, words: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("a log line with {words:?}"), || {
        let log = daemon.log();
        ensure!(log.iter().any(|line| words.iter().all(|word| line.contains(word))), "{log:#?}");
        Ok(())
    })
}

/// What `uni` says when it fails with status 1.
fn refusal(daemon: &Daemon, args: &[&str]) -> anyhow::Result<String> {
    let output = daemon.uni(args)?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{args:?}: {:?} {stderr}", output.status);
    Ok(stderr)
}

/// What `unid` says on stderr when it does not start.
fn start_refused(state: &Path, flags: &[&str], words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(bin_dir().join("unid"))
        .arg("--state-dir")
        .arg(state)
        .arg("--socket")
        .arg(state.join("unid.sock"))
        .args(["--line-addr", "", "--syslog-addr", "", "--api-addr", ""])
        .args(flags)
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{flags:?}: {:?} {stderr}", output.status);
    for word in words {
        ensure!(stderr.contains(word), "{flags:?} does not say {word:?}: {stderr}");
    }
    Ok(())
}

fn vms_dir(state: &Path) -> PathBuf {
    state.join("vms")
}

fn put_record(state: &Path, id: &str, text: &str) -> anyhow::Result<()> {
    let dir = vms_dir(state).join(id);
    std::fs::create_dir_all(&dir)?;
    Ok(std::fs::write(dir.join("state.json"), text)?)
}

/// A record as the original writes it: a VM with everything set.
fn original(id: &str, name: &str, state: &str) -> Value {
    json!({
        "id": id,
        "config": {
            "ImagePath": "/root/.uni/images/0c1e/disk.img", "Memory": "256M", "CPUs": 1,
            "NetworkName": "", "PortMaps": [{"HostPort": 8080, "GuestPort": 80, "Protocol": "tcp"}],
            "Env": null, "Name": name, "Volumes": [], "Attach": false,
            "IPAddress": "", "GatewayIP": "", "BridgeName": "", "SubnetMask": "",
            "HealthCheck": {"Type": "http", "Port": 8080, "Path": "/healthz", "Interval": 0, "Timeout": 0, "Retries": 0},
            "Restart": {"Policy": "on-failure", "MaxRetries": 5},
            "CPUShares": 512, "MemoryMax": 1_073_741_824, "DiskIOPS": 1000, "DiskBPS": 10_485_760
        },
        "state": state,
        "created_at": "2026-05-15T21:40:02.118349201+02:00",
        "started_at": "2026-05-15T21:40:02.131007554+02:00",
        "health_status": "healthy",
        "restart_count": 2
    })
}

#[test]
fn killed_daemons_and_killed_vms_leave_true_records_in_both_stores() -> anyhow::Result<()> {
    killed(&FILE)?;
    killed(&SQLITE)
}

fn killed(flags: &[&str]) -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), flags)?;
    for name in ["lives", "dies", "ends", "done"] {
        run(&daemon, name)?;
    }
    daemon.uni_ok(&["stop", "done"])?;
    let before = ["lives", "dies", "ends", "done"].map(|vm| inspect(&daemon, vm));
    let [lives, dies, ends, done] = before.map(|vm| vm.unwrap_or_default());
    ensure!(done["state"] == "stopped" && done["daemon_recovered"].is_null(), "{done}");
    let console = eventually("something on the console", || {
        let console = daemon.uni_ok(&["logs", "dies"])?;
        ensure!(!console.is_empty());
        Ok(console)
    })?;
    let starts = "SELECT count(event) FROM lifecycle WHERE vm = 'dies'";
    let events = daemon.number(starts)?;
    daemon.kill()?;
    // of `dies` nobody is left to tell; of `ends` the shim writes down the end
    kill_9(&dies["shim_pid"])?;
    kill_9(&ends["pid"])?;
    std::thread::sleep(Duration::from_secs(2));
    daemon.restart()?;

    let now = inspect(&daemon, "lives")?;
    ensure!(now["state"] == "running" && now["pid"] == lives["pid"], "{now} was {lives}");
    ensure!(now["daemon_recovered"].is_null(), "{now}");
    ensure!(inspect(&daemon, "done")? == done, "{} was {done}", inspect(&daemon, "done")?);
    let (dies, ends) = (inspect(&daemon, "dies")?, inspect(&daemon, "ends")?);
    for vm in [&dies, &ends] {
        ensure!(vm["state"] == "stopped" && vm["daemon_recovered"] == true, "{vm}");
        ensure!(vm["pid"].is_null() && vm["stopped_at"].is_string(), "{vm}");
    }
    ensure!(ends["exit"] == "killed", "{ends}");
    let time = |vm: &Value| vm["stopped_at"].as_str().unwrap_or_default().to_owned();
    ensure!(time(&ends) < time(&dies), "the recorded end comes before the unrecorded one: {ends} {dies}");
    ensure!(daemon.uni_ok(&["logs", "dies"])?.starts_with(&console), "the console is kept");
    ensure!(daemon.number(starts)? > events, "the points are kept");

    // a second restart changes nothing of it; this one in order
    let pid = daemon.pid().to_string();
    ensure!(Command::new("kill").args(["-TERM", &pid]).status()?.success());
    eventually("unid to end", || {
        ensure!(std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z ")));
        Ok(())
    })?;
    daemon.restart()?;
    ensure!(inspect(&daemon, "dies")? == dies, "{} was {dies}", inspect(&daemon, "dies")?);
    ensure!(inspect(&daemon, "ends")? == ends, "{} was {ends}", inspect(&daemon, "ends")?);
    ensure!(inspect(&daemon, "lives")?["pid"] == lives["pid"]);
    daemon.uni_ok(&["rm", "dies"])?;
    daemon.restart()?;
    let vms = daemon.uni_json(&["ps"])?;
    ensure!(vms.as_array().is_some_and(|vms| vms.len() == 3), "{vms}");
    let dir = vms_dir(state.path()).join(dies["id"].as_str().unwrap_or_default());
    ensure!(!dir.exists(), "{} is left", dir.display());
    Ok(())
}

#[test]
fn files_are_migrated_once_with_their_running_vms() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &FILE)?;
    for name in ["web", "gone"] {
        run(&daemon, name)?;
    }
    daemon.uni_ok(&["stop", "gone"])?;
    let web = inspect(&daemon, "web")?;
    let id = web["id"].as_str().context("an id")?.to_owned();
    daemon.uni_ok(&["daemon", "stop"])?;
    put_record(state.path(), "9f2c41d07ab3", &original("9f2c41d07ab3", "old", "running").to_string())?;
    put_record(state.path(), "0123456789ab", "{ torn")?;

    daemon.restart_with(&SQLITE)?;
    logged(&daemon, &["migration complete", "migrated=3"])?;
    logged(&daemon, &["cannot be migrated", "0123456789ab"])?;
    let now = inspect(&daemon, "web")?;
    ensure!(now == web, "{now} was {web}");
    let old = inspect(&daemon, "old")?;
    ensure!(old["state"] == "stopped" && old["daemon_recovered"] == true, "{old}");
    ensure!(old["health"] == "healthy" && old["restart_count"] == 2 && old["memory"] == "256M", "{old}");
    ensure!(vms_dir(state.path()).join("0123456789ab/state.json").exists(), "what is torn stays");

    daemon.restart()?;
    logged(&daemon, &["migration complete", "migrated=0"])?;
    ensure!(inspect(&daemon, "web")? == web);
    ensure!(inspect(&daemon, "old")? == old);

    // newer than its file, which still says that it runs
    daemon.uni_ok(&["stop", "web"])?;
    let stopped = inspect(&daemon, "web")?;
    let file = std::fs::read_to_string(vms_dir(state.path()).join(&id).join("state.json"))?;
    ensure!(file.contains("\"running\""), "{file}");
    daemon.uni_ok(&["rm", "gone"])?;
    daemon.uni_ok(&["rm", "old"])?;
    // a copy that somebody brought back
    put_record(state.path(), "9f2c41d07ab3", &original("9f2c41d07ab3", "old", "running").to_string())?;
    daemon.restart()?;
    logged(&daemon, &["migration complete", "migrated=0"])?;
    ensure!(inspect(&daemon, "web")? == stopped);
    let vms = daemon.uni_json(&["ps"])?;
    ensure!(vms.as_array().is_some_and(|vms| vms.len() == 1), "{vms}");
    ensure!(vms_dir(state.path()).join("9f2c41d07ab3/state.json").exists(), "the copy is its owner's");

    // going back would show what is no longer true
    run(&daemon, "new")?;
    let new = inspect(&daemon, "new")?;
    daemon.uni_ok(&["daemon", "stop"])?;
    start_refused(state.path(), &FILE, &["--vm-store sqlite", "vms.db", "move"])?;
    start_refused(state.path(), &[], &["--vm-store sqlite"])?;
    daemon.restart()?;
    ensure!(inspect(&daemon, "new")? == new, "nothing was lost");
    Ok(())
}

#[test]
fn going_back_to_files_as_they_were_loses_no_running_vm() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &FILE)?;
    run(&daemon, "web")?;
    let web = inspect(&daemon, "web")?;
    daemon.uni_ok(&["daemon", "stop"])?;
    // as before the VM's first start
    let path = vms_dir(state.path()).join(web["id"].as_str().context("an id")?).join("state.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    record["state"] = json!("stopped");
    record["generation"] = json!(0);
    std::fs::write(&path, record.to_string())?;
    daemon.restart()?;
    let now = inspect(&daemon, "web")?;
    ensure!(now["state"] == "running" && now["pid"] == web["pid"], "{now}");
    daemon.uni_ok(&["stop", "web"])?;
    ensure!(inspect(&daemon, "web")?["state"] == "stopped");
    Ok(())
}

#[test]
fn what_only_the_database_knows_is_kept_while_files_are_used() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &SQLITE)?;
    run(&daemon, "web")?;
    daemon.uni_ok(&["stop", "web"])?;
    let console = daemon.uni_ok(&["logs", "web"])?;
    ensure!(!console.is_empty());
    daemon.uni_ok(&["daemon", "stop"])?;
    let move_database = |from: &Path, to: &Path| -> anyhow::Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)?.flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("vms.db") {
                std::fs::rename(entry.path(), to.join(name))?;
            }
        }
        Ok(())
    };
    let (vms, aside) = (vms_dir(state.path()), state.path().join("aside"));
    move_database(&vms, &aside)?;
    let files = Daemon::start(state.path(), &FILE)?;
    ensure!(files.uni_json(&["ps"])? == json!([]));
    files.uni_ok(&["daemon", "stop"])?;
    move_database(&aside, &vms)?;
    let back = Daemon::start(state.path(), &SQLITE)?;
    ensure!(back.uni_ok(&["logs", "web"])? == console, "the console is still there");
    Ok(())
}

/// The table of the original before it stored pids, with these records.
fn original_db(state: &Path, records: &[Value]) -> anyhow::Result<()> {
    std::fs::create_dir_all(vms_dir(state))?;
    let db = Connection::open(vms_dir(state).join("vms.db"))?;
    db.execute_batch(
        "CREATE TABLE vms (id TEXT PRIMARY KEY, config TEXT NOT NULL, state TEXT NOT NULL, created_at TEXT NOT NULL,
            started_at TEXT, stopped_at TEXT, daemon_recovered INTEGER DEFAULT 0, health_status TEXT DEFAULT '',
            restart_count INTEGER DEFAULT 0)",
    )?;
    for record in records {
        let text = |key: &str| record[key].as_str().map(str::to_owned);
        db.execute(
            "INSERT INTO vms (id, config, state, created_at, started_at, health_status, restart_count)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                text("id"),
                record["config"].to_string(),
                text("state"),
                text("created_at"),
                text("started_at"),
                text("health_status"),
                record["restart_count"].as_i64(),
            ),
        )?;
    }
    Ok(())
}

#[test]
fn an_installation_of_the_original_is_taken_over_by_both_stores() -> anyhow::Result<()> {
    let records = [
        original("00000000000a", "web", "running"),
        original("00000000000b", "web", "stopped"),
        original("00000000000c", "", "running"),
        original("00000000000d", "my app/1", "stopping"),
        original("00000000000e", "fresh", "created"),
    ];
    let files = tempfile::tempdir()?;
    for record in &records {
        put_record(files.path(), record["id"].as_str().unwrap_or_default(), &record.to_string())?;
    }
    let db = tempfile::tempdir()?;
    original_db(db.path(), &records)?;
    for (state, flags) in [(&files, FILE), (&db, SQLITE)] {
        let mut daemon = Daemon::start(state.path(), &flags)?;
        let expected = [
            ("00000000000a", "web", "stopped", json!(true)),
            ("00000000000b", "web-2", "stopped", Value::Null),
            ("00000000000c", "vm-00000000000c", "stopped", json!(true)),
            ("00000000000d", "vm-00000000000d", "stopped", json!(true)),
            ("00000000000e", "fresh", "created", Value::Null),
        ];
        let mut shown = Vec::new();
        for (id, name, state, recovered) in &expected {
            let vm = inspect(&daemon, id)?;
            ensure!(vm["name"] == *name && vm["state"] == *state, "{flags:?}: {vm}");
            ensure!(vm["daemon_recovered"] == *recovered, "{flags:?}: {vm}");
            ensure!(vm["health"] == "healthy" && vm["restart_count"] == 2, "{flags:?}: {vm}");
            ensure!(vm["created_at"] == "2026-05-15T19:40:02Z", "{flags:?}: {vm}");
            shown.push(vm);
        }
        logged(&daemon, &["given one", "00000000000c"])?;
        // the old name is kept, and still means the VM
        ensure!(inspect(&daemon, "my app/1")?["id"] == "00000000000d");
        ensure!(inspect(&daemon, "web-2")?["original_name"] == "web");
        ensure!(inspect(&daemon, "web")?["id"] == "00000000000a");
        daemon.restart()?;
        for ((id, ..), before) in expected.iter().zip(shown) {
            ensure!(inspect(&daemon, id)? == before, "{flags:?}: {} was {before}", inspect(&daemon, id)?);
            daemon.uni_ok(&["rm", id])?;
        }
        daemon.restart()?;
        let vms = daemon.uni_json(&["ps"])?;
        ensure!(vms.as_array().is_some_and(Vec::is_empty), "{flags:?}: {vms}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_goes_on() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    start_refused(state.path(), &["--vm-store", "nonsense"], &["nonsense", "file", "sqlite"])?;
    let mut daemon = Daemon::start(state.path(), &SQLITE)?;
    run(&daemon, "good")?;
    daemon.kill()?;
    let path = vms_dir(state.path()).join("vms.db");
    let db = Connection::open(&path)?;
    db.execute_batch(
        "INSERT INTO vms (id, config, state, created_at) VALUES ('00000000000a', '{ torn', 'stopped', '')",
    )?;
    drop(db);
    for _ in 0..2 {
        daemon.restart()?;
        logged(&daemon, &["00000000000a", "vms.db", "cannot be read"])?;
        ensure!(inspect(&daemon, "good")?["state"] == "running");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata()?.permissions());
    ensure!(mode & 0o777 == 0o600, "{mode:o}");

    let other = tempfile::tempdir()?;
    std::fs::create_dir(vms_dir(other.path()))?;
    let db = vms_dir(other.path()).join("vms.db");
    std::fs::write(&db, "no database at all, and longer than the head of one. ".repeat(20))?;
    start_refused(other.path(), &SQLITE, &["vms.db", "no SQLite database", "move it away"])?;
    start_refused(other.path(), &FILE, &["vms.db", "no SQLite database"])?;
    std::fs::remove_file(&db)?;
    Connection::open(&db)?.pragma_update(None, "user_version", 77)?;
    start_refused(other.path(), &SQLITE, &["vms.db", "version 77", "newer unid"])
}

#[test]
fn a_record_that_cannot_be_written_is_told_and_written_later() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &FILE)?;
    run(&daemon, "web")?;
    let web = inspect(&daemon, "web")?;
    let dir = vms_dir(state.path()).join(web["id"].as_str().context("an id")?);
    // no file can be written where a directory is, not even by root
    let obstacle = dir.join("state.json.tmp");
    std::fs::create_dir(&obstacle)?;
    let told = refusal(&daemon, &["stop", "web"])?;
    ensure!(told.contains("it is down") && told.contains("cannot save the record"), "{told}");
    let vm = inspect(&daemon, "web")?;
    ensure!(vm["state"] == "stopped", "{vm}");
    ensure!(vm["record_error"].as_str().is_some_and(|fault| fault.contains("cannot save")), "{vm}");
    logged(&daemon, &["ERROR", "cannot be saved", web["id"].as_str().unwrap_or_default()])?;
    std::fs::remove_dir(&obstacle)?;
    eventually("the record to be written", || {
        let vm = inspect(&daemon, "web")?;
        ensure!(vm["record_error"].is_null(), "{vm}");
        Ok(())
    })?;
    let record: Value = serde_json::from_slice(&std::fs::read(dir.join("state.json"))?)?;
    ensure!(record["state"] == "stopped" && record["pid"].is_null(), "{record}");

    // a record that stays keeps its VM
    std::fs::remove_file(dir.join("state.json"))?;
    std::fs::create_dir_all(dir.join("state.json/in-the-way"))?;
    let told = refusal(&daemon, &["rm", "web"])?;
    ensure!(told.contains("cannot remove"), "{told}");
    ensure!(inspect(&daemon, "web")?["state"] == "stopped");
    std::fs::remove_dir_all(dir.join("state.json"))?;
    daemon.uni_ok(&["rm", "web"])?;
    ensure!(!dir.exists());
    Ok(())
}

#[test]
fn a_database_that_cannot_be_written_starts_no_vm() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &SQLITE)?;
    run(&daemon, "up")?;
    let other = Connection::open(vms_dir(state.path()).join("vms.db"))?;
    other.execute_batch("BEGIN IMMEDIATE")?;
    let told = refusal(&daemon, &["run", &guest("hello").display().to_string(), "--name", "late"])?;
    ensure!(told.contains("vms.db") && told.contains("another program"), "{told}");
    // those that are there are seen and stopped nevertheless
    let told = refusal(&daemon, &["stop", "up"])?;
    ensure!(told.contains("it is down") && told.contains("another program"), "{told}");
    other.execute_batch("COMMIT")?;
    eventually("the record to be written", || {
        let vm = inspect(&daemon, "up")?;
        ensure!(vm["record_error"].is_null() && vm["state"] == "stopped", "{vm}");
        Ok(())
    })?;
    // a start that cannot be written down before it happens does not happen
    other.execute_batch(
        "CREATE TRIGGER full BEFORE UPDATE ON vms WHEN NEW.state <> 'created' BEGIN SELECT RAISE(ABORT, 'no space'); END",
    )?;
    let told = refusal(&daemon, &["run", &guest("hello").display().to_string(), "--name", "late"])?;
    ensure!(told.contains("no space"), "{told}");
    logged(&daemon, &["ERROR", "cannot be saved", "no space"])?;
    let left =
        std::fs::read_dir(vms_dir(state.path()))?.flatten().filter(|entry| entry.path().is_dir()).count();
    ensure!(left == 1, "{left} directories of VMs for one VM");
    let stored: (i64, String) =
        other.query_row("SELECT count(*), max(state) FROM vms", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    ensure!(stored == (1, "stopped".to_owned()), "{stored:?}");
    Ok(())
}

#[test]
fn daemon_stop_ends_the_vms_only_when_asked_to() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(&state.path().join("s"), &SQLITE)?;
    let disk = state.path().join("deaf.img");
    // it does not know the power button
    std::fs::write(&disk, boot_sector(b"deaf", false))?;
    for name in ["one", "two"] {
        run(&daemon, name)?;
    }
    daemon.uni_ok(&["run", &disk.display().to_string(), "--name", "deaf", "--memory", "32M"])?;
    let image = guest("hello").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", "brief", "--rm", "--memory", "32M"])?;
    let one = inspect(&daemon, "one")?;
    refusal(&daemon, &["daemon", "stop", "--time", "3"])?;
    ensure!(daemon.uni_ok(&["daemon", "stop"])?.is_empty());
    let told = refusal(&daemon, &["ps"])?;
    ensure!(told.contains("no daemon answers"), "{told}");
    daemon.restart()?;
    ensure!(inspect(&daemon, "one")? == one, "{} was {one}", inspect(&daemon, "one")?);

    let start = Instant::now();
    let told = std::thread::scope(|scope| {
        let stop = scope.spawn(|| daemon.uni_ok(&["daemon", "stop", "--vms", "--time", "3"]));
        eventually("the stop to be under way", || {
            ensure!(inspect(&daemon, "deaf")?["state"] == "stopping");
            Ok(())
        })?;
        let late = refusal(&daemon, &["run", &guest("hello").display().to_string()])?;
        ensure!(late.contains("all VMs are being stopped"), "{late}");
        stop.join().map_err(|_| anyhow::anyhow!("the stop panicked"))?
    })?;
    ensure!(told.starts_with("deaf did not stop within 3 s") && told.lines().count() == 1, "{told}");
    ensure!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    daemon.restart()?;
    for (name, exit) in [("one", "exited with code 0"), ("two", "exited with code 0"), ("deaf", "killed")] {
        let vm = inspect(&daemon, name)?;
        ensure!(vm["state"] == "stopped" && vm["daemon_recovered"].is_null(), "{vm}");
        ensure!(vm["exit"] == exit || (name != "deaf" && vm["exit"] == "powered off"), "{vm}");
    }
    eventually("the VM with --rm to be forgotten", || {
        ensure!(refusal(&daemon, &["inspect", "brief"])?.contains("not found"));
        Ok(())
    })?;
    // with nothing to stop it ends at once
    ensure!(daemon.uni_ok(&["daemon", "stop", "--vms"])?.is_empty());
    Ok(())
}
