//! A disk that is full in the middle of writing: writes are refused with the reason, reads go on, and when there is room
//! again nobody has to do anything.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use black_box::{Daemon, eventually};

/// A small disk in memory, gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount(at: &Path, size: &str) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(at)?;
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).status()?;
        Ok(mounted.success().then(|| Self(at.to_path_buf())))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Writes one body; the status, and what the answer says.
fn write(daemon: &Daemon, n: u64) -> anyhow::Result<(u16, String)> {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let text = "y".repeat(20_000);
    let lines =
        (0..50).map(|row| format!("full,row={row} n={n}i,text=\"{n} {text}\" {}\n", 1_700_000_000 + n));
    let url = format!("http://{}/write?db=uni&precision=s", daemon.address("api")?);
    let mut answer = agent.post(&url).send(lines.collect::<String>())?;
    Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
}

fn bodies(daemon: &Daemon) -> anyhow::Result<f64> {
    daemon.number("SELECT count(n) FROM full WHERE row='0'")
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing_and_goes_on_by_itself() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let at = dir.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&at, "48m")? else {
        eprintln!("not run: this user may not mount a tmpfs");
        return Ok(());
    };
    let ballast = at.join("ballast");
    std::fs::write(&ballast, vec![1; 16 << 20])?;
    let mut daemon = Daemon::start(&at.join("state"), &[])?;
    let mut kept = 0;
    let refusal = loop {
        let (status, text) = write(&daemon, kept)?;
        if status != 204 {
            break (status, text);
        }
        kept += 1;
        ensure!(kept < 200, "200 MB on a disk of 48");
    };
    println!("{kept} bodies of a MB, then {} {}", refusal.0, refusal.1.trim());
    ensure!(refusal.0 >= 500 && refusal.1.contains("No space left on device"), "{refusal:?}");
    ensure!(bodies(&daemon)? == kept as f64, "what was acknowledged is read while the disk is full");
    // It stays refused, it stays readable, and it outlives a kill.
    ensure!(write(&daemon, kept)?.0 >= 500);
    daemon.restart()?;
    let there = bodies(&daemon)?;
    ensure!(there >= kept as f64, "{there} of {kept} after a kill on a full disk");
    std::fs::remove_file(&ballast)?;
    eventually("writes to go on by themselves", || {
        let (status, text) = write(&daemon, kept + 1)?;
        ensure!(status == 204, "{status} {text}");
        Ok(())
    })?;
    let after = bodies(&daemon)?;
    ensure!(after > there, "{after} after {there}");
    daemon.restart()?;
    ensure!(bodies(&daemon)? == after);
    daemon
        .log()
        .iter()
        .find(|line| line.contains("panicked"))
        .map_or(Ok(()), |line| Err(line.clone()))
        .map_err(anyhow::Error::msg)
        .context("a panic")
}
