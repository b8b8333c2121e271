//! The guides' changes are tried as a reader would: applied to the tree they speak of.
//!
//! Owns nothing; needs `git`, and neither QEMU nor a built program.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use black_box::workspace;

const GUIDE: &str = "docs/guides/add-monitoring.md";
/// What the guide promises.
const MAX_CHANGED_LINES: usize = 15;
const FILES: [&str; 2] = ["Cargo.toml", "src/main.rs"];

/// The first block of a page that is marked as a change.
fn change(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("\n```diff\n")?;
    Some(&rest[..rest.find("\n```")? + 1])
}

fn is_changed_line(line: &&str) -> bool {
    line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---")
}

fn copy_guest(name: &str, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to.join("src"))?;
    for file in FILES {
        let from = workspace().join("guests").join(name).join(file);
        std::fs::copy(&from, to.join(file)).with_context(|| from.display().to_string())?;
    }
    Ok(())
}

fn apply(change: &str, dir: &Path) -> anyhow::Result<()> {
    let mut git = Command::new("git")
        .args(["apply", "-"])
        .current_dir(dir)
        .env("GIT_CEILING_DIRECTORIES", dir)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start git")?;
    git.stdin.take().context("git's input")?.write_all(change.as_bytes())?;
    let output = git.wait_with_output()?;
    ensure!(output.status.success(), "git apply: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// `hello` is built and booted by other tests, so what equals it builds and reports too.
#[test]
fn the_change_of_the_monitoring_guide_makes_plain_into_hello() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(workspace().join(GUIDE))?;
    let change = change(&page).context("the guide shows its change in a block marked diff")?;
    let changed = change.lines().filter(is_changed_line).count();
    ensure!((1..=MAX_CHANGED_LINES).contains(&changed), "{changed} lines are changed");

    let dir = tempfile::tempdir()?;
    copy_guest("plain", &dir.path().join("guests/plain"))?;
    apply(change, dir.path())?;
    for file in FILES {
        let made = std::fs::read_to_string(dir.path().join("guests/plain").join(file))?;
        let hello = std::fs::read_to_string(workspace().join("guests/hello").join(file))?;
        ensure!(made == hello, "{file} became:\n{made}");
    }
    Ok(())
}
