//! Python packages for tests: peers and parsers that others wrote.
//!
//! Owns one virtual environment for each set of packages, under the build directory, made at its first use.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::workspace;

/// The Python program of an environment that has `packages` (`name==version`).
///
/// # Errors
/// When there is no Python 3 with `venv`, or a package cannot be installed.
pub fn venv(packages: &[&str]) -> anyhow::Result<PathBuf> {
    let name = packages.join("_").replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "_");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let dir = target.join("python").join(name);
    std::fs::create_dir_all(&dir)?;
    // tests run side by side: one makes the environment, the others wait for it
    let lock = File::create(dir.join("lock"))?;
    lock.lock().with_context(|| format!("lock {}", dir.display()))?;
    let (python, ready) = (dir.join("env/bin/python"), dir.join("ready"));
    if !ready.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir.join("env")))
            .context("make a virtual environment; Debian has it in python3-venv")?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
        File::create(&ready)?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
