//! Cargo's own tools, built from source when they are not on the machine.
//!
//! Owns which ones and which versions. They go into `target/tools`, never into the user's own cargo directory.

use std::path::PathBuf;
use std::process::Command;

use black_box::workspace;

use crate::{build, install, step};

/// A subcommand of cargo that is no part of the toolchain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

/// Licences, bans, sources and advisories of what is in the lock file.
pub(crate) const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
/// Advisories about what is in the lock file.
pub(crate) const AUDIT: Tool = Tool { name: "cargo-audit", version: "0.22.2" };
/// Builds and runs the fuzz targets.
pub(crate) const FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2" };

/// The tool's program: the one on the machine, else one built here.
///
/// # Errors
/// When it cannot be built.
pub(crate) fn ensure(tool: Tool) -> anyhow::Result<PathBuf> {
    if let Some(found) = install::find(tool.name) {
        return Ok(found);
    }
    let root = workspace().join("target/tools").join(tool.version);
    let program = root.join("bin").join(tool.name);
    if !program.exists() {
        install::ensure(&[install::CC])?;
        // not optimised: building it takes longer than all that it does here
        let mut cargo = build::cargo();
        cargo.args(["install", "--locked", "--debug", tool.name, "--version", tool.version]);
        cargo.arg("--root").arg(&root).arg("--target-dir").arg(workspace().join("target/tools/build"));
        step::run(&format!("build {} {}", tool.name, tool.version), &mut cargo)?;
    }
    Ok(program)
}

/// The tool's program as a command in the workspace; the subcommand's name comes first, as cargo gives it.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn command(tool: Tool) -> anyhow::Result<Command> {
    let mut command = Command::new(ensure(tool)?);
    command.arg(tool.name.trim_start_matches("cargo-")).current_dir(workspace());
    Ok(command)
}
