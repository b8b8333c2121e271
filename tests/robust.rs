//! Hostile and unlucky: other sites' pages, old records, hasty operators, many at once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{Daemon, boot_sector, eventually, guest};
use serde_json::{Value, json};

/// One request on the control socket, as any program may send it; nothing if the daemon closes without a word.
fn call(daemon: &Daemon, request: &str) -> anyhow::Result<Value> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    writeln!(stream, "{request}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    serde_json::from_str(&answer).with_context(|| format!("{request}: {answer:?}"))
}

#[test]
fn pages_of_other_sites_can_neither_read_nor_write() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    for (listener, path) in [("ui", "/ui/api/overview"), ("api", "/query?db=uni&q=SHOW+DATABASES")] {
        let url = format!("http://{}{path}", daemon.address(listener)?);
        ensure!(agent.get(&url).call()?.status() == 200, "{url}");
        // what a browser sends after DNS rebinding
        ensure!(agent.get(&url).header("Host", "evil.example.com").call()?.status() == 403, "{url}");
        for origin in ["http://evil.example.com", "null"] {
            ensure!(agent.get(&url).header("Origin", origin).call()?.status() == 403, "{url} {origin}");
        }
    }
    let write = format!("http://{}/write?db=uni", daemon.address("api")?);
    ensure!(agent.post(&write).header("Origin", "http://evil.example.com").send("m f=1 1")?.status() == 403);
    ensure!(agent.post(&write).send("m f=1 1")?.status() == 204);
    Ok(())
}

#[test]
fn an_unusable_record_keeps_nobody_else_from_starting() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", "good", "--memory", "32M"])?;
    daemon.kill()?;
    // older installations allowed VMs without a name; and a record may be torn
    let record = |id: &str, text: &str| -> anyhow::Result<()> {
        let dir = state.path().join("vms").join(id);
        std::fs::create_dir_all(&dir)?;
        Ok(std::fs::write(dir.join("state.json"), text)?)
    };
    let config = json!({"ImagePath": "/i", "Memory": "64M", "CPUs": 1, "Name": "", "PortMaps": null, "Env": null,
                        "Volumes": [], "Restart": {"Policy": "", "MaxRetries": 0}});
    let old = json!({"id": "9f2c41d07ab3", "config": config, "state": "stopped", "created_at": "2026-05-15T21:40:02Z"});
    record("9f2c41d07ab3", &old.to_string())?;
    record("0123456789ab", "{ torn")?;
    daemon.restart()?;
    let vms = daemon.uni_json(&["ps"])?;
    let states: Vec<_> = vms.as_array().into_iter().flatten().map(|vm| (&vm["name"], &vm["state"])).collect();
    ensure!(states.len() == 2, "{vms}");
    ensure!(states.contains(&(&json!("good"), &json!("running"))), "{vms}");
    ensure!(states.contains(&(&json!("vm-9f2c41d07ab3"), &json!("stopped"))), "{vms}");
    ensure!(daemon.log().join("\n").contains("0123456789ab"), "the torn record is named: {:?}", daemon.log());
    Ok(())
}

#[test]
fn a_guest_that_ends_at_once_is_read_to_its_end_with_attach_and_rm() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    let shown = daemon
        .uni_ok(&["run", &image, "--name", "once", "--rm", "--attach", "--memory", "32M", "--", "--help"])?;
    ensure!(shown.contains("--monitor"), "the usage text: {shown:?}");
    let output = daemon.uni(&["run", &image, "--name", "bad", "--rm", "--memory", "32M", "--", "--bogus"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && stderr.contains("--bogus"), "{stderr}");
    eventually("both to be forgotten", || {
        let vms = daemon.uni_json(&["ps"])?;
        ensure!(vms.as_array().is_some_and(Vec::is_empty), "{vms}");
        Ok(())
    })
}

#[test]
fn a_shorter_stop_hastens_a_longer_one_and_no_number_harms() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let path = state.path().join("deaf.img");
    // it does not know the power button
    std::fs::write(&path, boot_sector(b"deaf", false))?;
    let image = path.display().to_string();
    daemon.uni_ok(&["run", &image, "--name", "deaf", "--memory", "32M"])?;
    let request = |seconds: u64| json!({"jsonrpc": "2.0", "id": 1, "method": "VM.Stop", "params": {"id": "deaf", "timeout_seconds": seconds}});
    let refused = call(&daemon, &request(u64::MAX).to_string())?;
    ensure!(refused["error"]["message"].as_str().is_some_and(|m| m.contains("at most")), "{refused}");
    let long = std::thread::scope(|scope| {
        let long = scope.spawn(|| daemon.uni_ok(&["stop", "deaf", "--time", "600"]));
        eventually("the long stop to be under way", || {
            ensure!(daemon.uni_json(&["inspect", "deaf"])?["state"] == "stopping");
            Ok(())
        })?;
        let start = Instant::now();
        daemon.uni_ok(&["stop", "deaf", "--time", "1"])?;
        ensure!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        long.join().map_err(|_| anyhow::anyhow!("the long stop panicked"))?
    });
    long?;
    Ok(())
}

#[test]
fn of_many_at_once_each_is_made_and_a_name_is_given_once() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    let run = |name: &str| {
        daemon.uni(&["run", &image, "--name", name, "--memory", "16M"]).map(|o| o.status.success())
    };
    let (different, same) = std::thread::scope(|scope| {
        let different: Vec<_> = (0..6).map(|n| scope.spawn(move || run(&format!("vm{n}")))).collect();
        let same: Vec<_> = (0..4).map(|_| scope.spawn(|| run("same"))).collect();
        let ended = |threads: Vec<std::thread::ScopedJoinHandle<'_, anyhow::Result<bool>>>| {
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or(Ok(false)).unwrap_or(false))
                .filter(|&ok| ok)
                .count()
        };
        (ended(different), ended(same))
    });
    ensure!((different, same) == (6, 1), "{different} of 6 different, {same} of 4 with one name");
    let status = daemon.uni_json(&["status"])?;
    ensure!(status["running"] == 7, "{status}");
    Ok(())
}

#[test]
fn idle_and_talkative_clients_of_the_control_socket_leave_room() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let answer = call(&daemon, "this is no request")?;
    ensure!(answer["id"].is_null() && answer["error"]["code"] == -32700, "{answer}");
    let answer = call(&daemon, r#"{"jsonrpc":"2.0","id":7,"method":"VM.Fly"}"#)?;
    ensure!(answer["id"] == 7 && answer["error"]["code"] == -32601, "{answer}");
    let unsupported =
        r#"{"jsonrpc":"2.0","id":8,"method":"VM.Run","params":{"image_path":"/x","no_such_limit":1}}"#;
    let answer = call(&daemon, unsupported)?;
    ensure!(answer["error"]["message"].as_str().is_some_and(|m| m.contains("no_such_limit")), "{answer}");
    // a slow HTTP client and one that sends its body a byte at a time hold only themselves
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(daemon.address("api")?)?;
        stream.write_all(
            b"POST /write?db=uni HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nm f=1",
        )?;
        slow.push(stream);
    }
    let start = Instant::now();
    daemon.query("SHOW DATABASES")?;
    ureq::post(format!("http://{}/write?db=uni", daemon.address("api")?)).send("m f=1 1")?;
    ensure!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    Ok(())
}
