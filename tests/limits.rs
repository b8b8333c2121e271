//! What a VM may take of the host: checked before it is made, shown afterwards, in force where the host can.

use std::path::Path;

use anyhow::{Context as _, ensure};
use black_box::{Daemon, boot_sector, eventually, guest};
use serde_json::json;

/// Where cgroup v2 is, if the host has it as its only hierarchy.
const CGROUPS: &str = "/sys/fs/cgroup";
const FLAGS: [&str; 8] =
    ["--cpu-shares", "512", "--memory-max", "1G", "--disk-iops", "1000", "--disk-bps", "10M"];

fn command_line(pid: &serde_json::Value) -> anyhow::Result<String> {
    let pid = pid.as_u64().context("a pid")?;
    Ok(String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline"))?).replace('\0', " "))
}

#[test]
fn limits_are_shown_and_outlive_the_daemon_and_the_disks_are_qemus() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(&state.path().join("s"), &[])?;
    let disk = state.path().join("disk.img");
    std::fs::write(&disk, boot_sector(b"up", false))?;
    let disk = disk.display().to_string();
    daemon.uni_ok(&[&["run", &disk, "--name", "limited"], &FLAGS[..]].concat())?;
    let shown = |daemon: &Daemon| -> anyhow::Result<serde_json::Value> {
        let detail = daemon.uni_json(&["inspect", "limited"])?;
        let limits = ["cpu_shares", "memory_max", "disk_iops", "disk_bps"].map(|key| detail[key].clone());
        ensure!(limits == [json!(512), json!(1 << 30), json!(1000), json!(10 << 20)], "{detail}");
        Ok(detail)
    };
    let detail = shown(&daemon)?;
    let line = command_line(&detail["pid"])?;
    ensure!(line.contains(",throttling.iops-total=1000,throttling.bps-total=10485760 "), "{line}");
    let page: serde_json::Value = serde_json::from_str(&daemon.get("ui", "/ui/api/vm/limited")?)?;
    ensure!(page["limits"]["memory_max"] == 1 << 30, "{page}");
    daemon.restart()?;
    shown(&daemon).map(drop)
}

#[test]
fn processor_and_memory_are_limited_where_the_host_can_and_else_the_log_says_so() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    let id = daemon.uni_ok(&[&["run", &image, "--name", "limited"], &FLAGS[..]].concat())?;
    let warned = |text: &str| daemon.log().iter().any(|line| line.contains(text));
    if !Path::new(CGROUPS).join("cgroup.controllers").exists() {
        return eventually("the warning", || {
            ensure!(
                warned("qemu start: cgroup v2 not available, skipping resource limits"),
                "{:?}",
                daemon.log()
            );
            Ok(())
        });
    }
    let group = Path::new(CGROUPS).join("uni").join(&id);
    eventually("the group, or why there is none", || {
        let limit = std::fs::read_to_string(group.join("memory.max"));
        let limited = limit.is_ok_and(|limit| limit.trim() == "1073741824");
        ensure!(limited || warned("qemu start: cgroup apply failed"), "{:?}", daemon.log());
        Ok(())
    })?;
    daemon.uni_ok(&["stop", "limited"])?;
    eventually("the group to be gone", || {
        ensure!(!group.exists() || warned("cgroup apply failed"), "{}", group.display());
        Ok(())
    })
}

#[test]
fn limits_that_cannot_be_are_refused_and_nothing_is_left() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    for (flag, value, words) in [
        ("--cpu-shares", "10001", "10000"),
        ("--cpu-shares", "-1", "--cpu-shares"),
        ("--memory-max", "1.5G", "not a size"),
        ("--memory-max", "10MB", "not a size"),
        ("--memory-max", "99999999999G", "more than"),
        ("--memory-max", "100M", "less than the guest's memory"),
        ("--disk-bps", "1T", "not a size"),
        ("--disk-iops", "many", "--disk-iops"),
    ] {
        let output = daemon.uni(&["run", &image, &format!("{flag}={value}")])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && stderr.contains(words), "{flag} {value}: {stderr}");
    }
    ensure!(daemon.uni_json(&["ps"])? == json!([]));
    // none, said aloud
    daemon
        .uni_ok(&["run", &image, "--cpu-shares=0", "--memory-max=0", "--disk-iops=0", "--disk-bps=0"])
        .map(drop)
}
