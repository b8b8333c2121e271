//! All tests, in the order in which they say most for least time.
//!
//! Owns the list. `--fast` leaves out what boots guests or drives a browser.

use std::process::Command;

use anyhow::Context as _;
use black_box::workspace;

use crate::{build, install, scan, step};

/// The crates that run on the host; guests are linted and built by themselves.
const NOT_HOST: [&str; 14] = [
    "--exclude",
    "faulty",
    "--exclude",
    "foreign",
    "--exclude",
    "hello",
    "--exclude",
    "http",
    "--exclude",
    "leaky",
    "--exclude",
    "plain",
    "--exclude",
    "guest-runtime",
];
/// How long the demo runs as a test.
const DEMO_SECONDS: &str = "20s";

/// Runs the tests.
pub(crate) fn run(fast: bool) -> anyhow::Result<()> {
    install::ensure(&[install::CC])?;
    components()?;
    step::run("format", build::cargo().args(["fmt", "--all", "--check"]))?;
    page()?;
    lints()?;
    scan::licenses()?;
    step::run(
        "unit and property tests",
        build::cargo().arg("test").args(["--workspace", "--exclude", "black-box"]).args(NOT_HOST),
    )?;
    guest_units()?;
    if fast {
        return Ok(());
    }
    install::ensure(&[
        install::QEMU,
        install::INFLUX,
        install::INFLUXD,
        install::PROMETHEUS,
        install::CURL,
        install::RSYSLOG,
        install::OPENSSL,
        install::CHROMIUM,
    ])?;
    install::ensure_venv()?;
    install::ensure_rsyslog_tls()?;
    build::all()?;
    recorded_writes()?;
    step::run(
        "black-box tests",
        build::cargo().args(["test", "-p", "black-box", "--no-fail-fast", "--", "--test-threads=2"]),
    )?;
    step::run("page: both pages in a browser", build::npm().args(["run", "test:browser"]))?;
    let shots = workspace().join("target/shots");
    let mut demo = Command::new(std::env::current_exe().context("find xtask itself")?);
    step::run("demo, driven by a browser", demo.args(["demo", "--for", DEMO_SECONDS, "--shots"]).arg(shots))
}

/// What InfluxDB answered to writes, asked of the built daemon.
fn recorded_writes() -> anyhow::Result<()> {
    let cases = workspace().join("crates/uni-wire/tests/data/influx-write-cases.jsonl");
    let mut replay = Command::new(std::env::current_exe().context("find xtask itself")?);
    step::run("recorded writes", replay.args(["conformance", "influx-write"]).arg(cases))
}

/// rustfmt and clippy come with the pinned toolchain; a machine with a bare cargo may lack them.
fn components() -> anyhow::Result<()> {
    let has =
        |tool: &str| build::cargo().args([tool, "--version"]).output().is_ok_and(|o| o.status.success());
    if has("fmt") && has("clippy") {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    step::run(
        "install rustfmt and clippy",
        rustup.args(["component", "add", "rustfmt", "clippy"]).current_dir(workspace()),
    )
}

fn page() -> anyhow::Result<()> {
    build::page_dependencies()?;
    step::run("page: types", build::npm().args(["run", "check"]))?;
    step::run("page: unit tests", build::npm().args(["run", "test"]))
}

fn lints() -> anyhow::Result<()> {
    let clippy = ["clippy", "--workspace", "--all-targets"];
    step::run("clippy", build::cargo().args(clippy).args(NOT_HOST).args(["--", "-D", "warnings"]))?;
    let target = workspace().join("target/guest-build");
    let mut guests = build::guest_cargo(&target);
    guests
        .arg("clippy")
        .args(["--profile", "guest"])
        .args(build::guest_packages())
        .args(["--", "-D", "warnings"]);
    step::run("clippy of the guests", &mut guests)?;
    let mut docs = build::cargo();
    docs.args(["doc", "--workspace", "--no-deps", "--document-private-items"]).args(NOT_HOST);
    step::run("docs", docs.env("RUSTDOCFLAGS", "-D warnings"))
}

/// The guests' logic that needs no machine: their libraries, tested on the host.
fn guest_units() -> anyhow::Result<()> {
    let mut test = build::cargo();
    test.args(["test", "--lib", "-p", "guest-runtime", "-p", "http"]);
    step::run("guests' unit tests", &mut test)
}
