//! What must be on the machine, and how it gets there: Debian packages, asked for only when missing.
//!
//! Owns the list of programs and packages. Says what is missing and why; needs root only when something is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::step;

/// A program that is not ours to build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

/// Runs the VMs.
pub(crate) const QEMU: Needed =
    Needed { program: "qemu-system-x86_64", package: "qemu-system-x86", why: "runs the VMs" };
/// Links the guests and the binaries.
pub(crate) const CC: Needed = Needed { program: "cc", package: "gcc", why: "links what cargo builds" };
/// Counts instructions of a program.
pub(crate) const VALGRIND: Needed =
    Needed { program: "valgrind", package: "valgrind", why: "counts the instructions of a program" };
/// Takes the symbols out of the guests' images.
pub(crate) const STRIP: Needed =
    Needed { program: "strip", package: "binutils", why: "takes the symbols out of the guests' images" };
/// Builds the page.
pub(crate) const NODE: Needed = Needed { program: "node", package: "nodejs", why: "builds the page" };
/// Installs what the page is built from.
pub(crate) const NPM: Needed =
    Needed { program: "npm", package: "npm", why: "installs what the page is built from" };
/// Drives the pages in a test.
pub(crate) const CHROMIUM: Needed =
    Needed { program: "chromium", package: "chromium", why: "drives the pages in a test" };
/// A client that the API must satisfy.
pub(crate) const INFLUX: Needed =
    Needed { program: "influx", package: "influxdb-client", why: "is a client that the API must satisfy" };

/// The database whose answers ours must equal.
pub(crate) const INFLUXD: Needed =
    Needed { program: "influxd", package: "influxdb", why: "is the database whose answers ours must equal" };
/// Scrapes us in a test, and checks what it scrapes.
pub(crate) const PROMETHEUS: Needed =
    Needed { program: "prometheus", package: "prometheus", why: "scrapes us in a test" };
/// Sends us its syslog in a test, and takes our guests'.
pub(crate) const RSYSLOG: Needed = Needed {
    program: "rsyslogd",
    package: "rsyslog",
    why: "sends us its syslog in a test, and takes our guests'",
};
/// Speaks TLS as other people's senders do.
pub(crate) const OPENSSL: Needed =
    Needed { program: "openssl", package: "openssl", why: "speaks TLS in a test as other senders do" };
/// Asks as people do.
pub(crate) const CURL: Needed = Needed { program: "curl", package: "curl", why: "asks as people do" };
/// Runs the peers of tests that come as Python packages.
pub(crate) const PYTHON: Needed =
    Needed { program: "python3", package: "python3", why: "runs peers of tests that come as its packages" };

/// Makes sure that Python can make virtual environments: Debian has that apart.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_venv() -> anyhow::Result<()> {
    ensure(&[PYTHON])?;
    let has = || {
        Command::new("python3")
            .args(["-c", "import ensurepip, venv"])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if has() {
        return Ok(());
    }
    eprintln!("python3 cannot make virtual environments (Debian package python3-venv)");
    install(&["python3-venv"])
}

/// Makes sure that `rsyslogd` speaks TLS: that is a module apart, in a folder of the machine's kind.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_rsyslog_tls() -> anyhow::Result<()> {
    const MODULE: &str = "rsyslog/lmnsd_ossl.so";
    ensure(&[RSYSLOG])?;
    let kinds = std::fs::read_dir("/usr/lib").context("list /usr/lib")?;
    if kinds.filter_map(Result::ok).any(|kind| kind.path().join(MODULE).exists()) {
        return Ok(());
    }
    eprintln!("rsyslogd cannot speak TLS (Debian package rsyslog-openssl)");
    install(&["rsyslog-openssl"])
}

/// Makes sure that all of `needed` are there.
///
/// # Errors
/// When one is missing and cannot be installed, with the command that would install it.
pub(crate) fn ensure(needed: &[Needed]) -> anyhow::Result<()> {
    let missing: Vec<Needed> = needed.iter().copied().filter(|n| find(n.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for needed in &missing {
        eprintln!("{} is missing: it {} (Debian package {})", needed.program, needed.why, needed.package);
    }
    install(&missing.iter().map(|needed| needed.package).collect::<Vec<_>>())
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    let advice =
        format!("install it yourself with: apt-get install --no-install-recommends {}", packages.join(" "));
    if find("apt-get").is_none() {
        bail!("this machine has no apt-get; install {} by its own means", packages.join(" "));
    }
    step::run("refresh the package lists", apt_get().arg("update")).context(advice.clone())?;
    let install = ["install", "-y", "--no-install-recommends"];
    step::run(&format!("install {}", packages.join(" ")), apt_get().args(install).args(packages))
        .context(advice)
}

/// `apt-get`, by sudo where that is there and we are not root (apt-get itself says so when it may not).
fn apt_get() -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    let mut command = if root || find("sudo").is_none() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("apt-get");
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Where `program` is on the PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|found| {
        found.is_file() && std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o111 != 0
    })
}
