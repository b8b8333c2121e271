//! Python environments for peers that are written in Python.
//!
//! Owns their place under Cargo's target directory: one for each list of packages, made once and used again.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};

/// The Python program of an environment that has `packages`, each as `name==version`.
///
/// # Errors
/// When there is no `python3` with `venv`, or a package cannot be had.
pub fn venv(packages: &[&str]) -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| crate::workspace().join("target"), PathBuf::from)
        .join("venv");
    std::fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
    let mut hasher = DefaultHasher::new();
    packages.hash(&mut hasher);
    let dir = target.join(format!("{:016x}", hasher.finish()));
    // tests run side by side, and each may be the first: the others wait here
    let lock = File::create(dir.with_extension("lock"))?;
    lock.lock().with_context(|| format!("lock {}.lock", dir.display()))?;
    let ready = dir.join("ready");
    if !ready.exists() {
        make(&dir, packages)?;
        std::fs::write(&ready, packages.join("\n"))?;
    }
    Ok(dir.join("bin/python"))
}

/// Makes the environment anew; an earlier attempt may have been cut short.
fn make(dir: &Path, packages: &[&str]) -> anyhow::Result<()> {
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir).output();
    let made =
        made.context("start python3; install it, on Debian with the packages python3 and python3-venv")?;
    succeeded(&made).context("python3 -m venv; on Debian it needs the package python3-venv")?;
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    succeeded(&pip.output()?).with_context(|| format!("pip install {}", packages.join(" ")))
}

fn succeeded(output: &Output) -> anyhow::Result<()> {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {} {}", output.status, stdout.trim(), stderr.trim());
    Ok(())
}
