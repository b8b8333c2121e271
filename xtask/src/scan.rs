//! What is known against the crates in the lock files: licences, bans, sources, and security advisories.
//!
//! Owns the order of the checks and where the advisory database comes from: fetched, or, for a machine without a
//! network, a directory that the user names. Any vulnerability fails.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use black_box::workspace;

use crate::{build, step, tools};

/// The lock files of the two workspaces.
const LOCK_FILES: [&str; 2] = ["Cargo.lock", "fuzz/Cargo.lock"];
/// Their manifests.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "fuzz/Cargo.toml"];
/// What cargo-deny calls its copy of the database of rustsec.org below its `db-path`.
const DENY_DATABASE: &str = "advisory-db-3157b0e258782691";

/// Licences, banned crates and sources: what needs no advisory database and so belongs to every test run.
///
/// # Errors
/// When a crate breaks a rule of `deny.toml`.
pub(crate) fn licenses() -> anyhow::Result<()> {
    for manifest in MANIFESTS {
        let mut deny = tools::command(tools::DENY)?;
        deny.args(["--locked", "--manifest-path", manifest, "--config"]).arg(workspace().join("deny.toml"));
        deny.args(["check", "licenses", "bans", "sources"]);
        step::run(&format!("licences, bans and sources of {manifest}"), &mut deny)?;
    }
    Ok(())
}

/// All checks of cargo-deny, advisories among them.
///
/// # Errors
/// When a crate breaks a rule or has an advisory against it.
pub(crate) fn deny(database: Option<&Path>) -> anyhow::Result<()> {
    let config = match database {
        Some(database) => config_with(database)?,
        None => workspace().join("deny.toml"),
    };
    for manifest in MANIFESTS {
        let mut deny = tools::command(tools::DENY)?;
        if database.is_some() {
            // offline goes for crates too: what is not on the machine yet is fetched now
            let mut fetch = build::cargo();
            step::run("fetch the crates", fetch.args(["fetch", "--locked", "--manifest-path", manifest]))?;
            deny.arg("--offline");
        }
        deny.args(["--locked", "--manifest-path", manifest, "--config"]).arg(&config).arg("check");
        step::run(&format!("cargo deny check of {manifest}"), &mut deny)?;
    }
    Ok(())
}

/// The check of cargo-audit, which fails on any vulnerability.
///
/// # Errors
/// When a crate has one.
pub(crate) fn audit(database: Option<&Path>) -> anyhow::Result<()> {
    if let Some(database) = database {
        refuse_empty(database)?;
    }
    for lock_file in LOCK_FILES {
        let mut audit = tools::command(tools::AUDIT)?;
        audit.args(["--file", lock_file]);
        if let Some(database) = database {
            audit.arg("--db").arg(std::path::absolute(database)?).args(["--no-fetch", "--stale"]);
        }
        step::run(&format!("cargo audit of {lock_file}"), &mut audit)?;
    }
    Ok(())
}

/// A configuration that has cargo-deny use a copy of `database`. It wants a repository, which a directory that was
/// unpacked or is somebody's work tree need not be.
fn config_with(database: &Path) -> anyhow::Result<PathBuf> {
    refuse_empty(database)?;
    let root = workspace().join("target/advisories");
    let copy = root.join(DENY_DATABASE);
    if root.exists() {
        std::fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    std::fs::create_dir_all(&copy).with_context(|| format!("make {}", copy.display()))?;
    let mut cp = Command::new("cp");
    step::run("copy the advisory database", cp.arg("-r").arg(database.join("crates")).arg(&copy))?;
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(&copy).args(["-c", "user.name=xtask", "-c", "user.email=xtask@localhost"]).args(args);
        step::run(&format!("git {}", args[0]), &mut git)
    };
    git(&["init", "--quiet"])?;
    git(&["add", "--all"])?;
    git(&["commit", "--quiet", "--message", "the advisories"])?;
    let rules = std::fs::read_to_string(workspace().join("deny.toml")).context("read deny.toml")?;
    let config = root.join("deny.toml");
    let path = serde_json::Value::from(root.display().to_string());
    std::fs::write(&config, format!("{rules}\n[advisories]\ndb-path = {path}\n"))
        .with_context(|| format!("write {}", config.display()))?;
    Ok(config)
}

/// A database of nothing would pass everything.
fn refuse_empty(database: &Path) -> anyhow::Result<()> {
    let crates = database.join("crates");
    let any = std::fs::read_dir(&crates).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(
        any,
        "--db {}: no advisories in {}; name a checkout of the RustSec advisory database",
        database.display(),
        crates.display()
    );
    Ok(())
}
