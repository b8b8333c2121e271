//! Building: the page, the release binaries, the guests.
//!
//! Owns where results go. The page comes first, because the daemon embeds it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use black_box::workspace;

use crate::{install, libraries, step};

/// The guests, by package and image name.
const GUESTS: [&str; 6] = ["faulty", "foreign", "hello", "http", "leaky", "plain"];

/// Builds everything.
pub(crate) fn all() -> anyhow::Result<()> {
    page()?;
    binaries()?;
    guests()
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// `npm` in the page's folder.
pub(crate) fn npm() -> Command {
    let mut command = Command::new("npm");
    command.current_dir(workspace().join("web"));
    command
}

/// Installs what the page is built from, as the lock file says.
pub(crate) fn page_dependencies() -> anyhow::Result<()> {
    install::ensure(&[install::NODE, install::NPM])?;
    let web = workspace().join("web");
    let (lock, installed) = (web.join("package-lock.json"), web.join("node_modules/.package-lock.json"));
    if is_newer(&installed, &lock) {
        return Ok(());
    }
    step::run("install the page's dependencies", npm().args(["ci", "--no-audit", "--no-fund"]))
}

fn is_newer(this: &Path, that: &Path) -> bool {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified()).ok();
    matches!((modified(this), modified(that)), (Some(this), Some(that)) if this >= that)
}

fn page() -> anyhow::Result<()> {
    page_dependencies()?;
    let web = workspace().join("web");
    let built = std::fs::metadata(web.join("dist/index.html")).and_then(|found| found.modified()).ok();
    // unid embeds the page: made anew without need, it would be compiled anew as well
    if built.is_some_and(|built| newest(&web).is_some_and(|changed| changed <= built)) {
        return Ok(());
    }
    step::run("build the page", npm().args(["run", "build"]))
}

/// When anything that the page is made of was last changed.
fn newest(dir: &Path) -> Option<std::time::SystemTime> {
    const NOT_SOURCES: [&str; 4] = ["node_modules", "dist", "test", ".cache"];
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let sources = entries.filter(|entry| !NOT_SOURCES.iter().any(|name| entry.file_name() == *name));
    let changed = sources.filter_map(|entry| match entry.file_type().ok()?.is_dir() {
        true => newest(&entry.path()),
        false => entry.metadata().ok()?.modified().ok(),
    });
    changed.max()
}

pub(crate) fn binaries() -> anyhow::Result<()> {
    install::ensure(&[install::CC])?;
    let programs = ["-p", "unid", "-p", "uni"];
    step::run("build unid and uni", cargo().args(["build", "--release"]).args(programs))?;
    manual()?;
    example()
}

/// The example is built with frame pointers, as guests are: by them it tells which library holds its heap.
fn example() -> anyhow::Result<()> {
    let target = workspace().join("target/guest-build");
    step::run("build the example", guest_cargo(&target).args(["build", "--release", "-p", "agent"]))?;
    let (built, place) = (target.join("release/agent"), workspace().join("target/release/agent"));
    let fresh = place.with_extension("new");
    std::fs::copy(&built, &fresh).with_context(|| format!("copy {}", built.display()))?;
    // by rename: it may be running
    std::fs::rename(&fresh, &place).with_context(|| format!("put {} in place", place.display()))
}

/// The manual pages, made by the programs from their own help: target/man/*.
fn manual() -> anyhow::Result<()> {
    let (release, man) = (workspace().join("target/release"), workspace().join("target/man"));
    std::fs::create_dir_all(&man).with_context(|| format!("make {}", man.display()))?;
    step::run("write the manual pages of uni", Command::new(release.join("uni")).arg("man").arg(&man))?;
    step::run(
        "write the manual page of unid",
        Command::new(release.join("unid")).arg("--write-man").arg(&man),
    )
}

/// Builds the guests and strips a copy of each.
pub(crate) fn guests() -> anyhow::Result<()> {
    install::ensure(&[install::CC, install::STRIP])?;
    let target = workspace().join("target/guest-build");
    let packages = GUESTS.iter().flat_map(|guest| ["-p", guest]);
    step::run("build the guests", guest_cargo(&target).args(["build", "--profile", "guest"]).args(packages))?;
    let images = workspace().join("target/guests");
    std::fs::create_dir_all(&images).with_context(|| format!("make {}", images.display()))?;
    GUESTS.iter().try_for_each(|guest| image(&target.join("guest").join(guest), &images, guest))
}

/// Cargo as guests need it: flags and target directory of their own, so that neither spoils the host's cache.
pub(crate) fn guest_cargo(target: &Path) -> Command {
    let mut command = cargo();
    command.env("CARGO_TARGET_DIR", target).env("RUSTFLAGS", "-C force-frame-pointers=yes");
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// The packages of the guests, for cargo.
pub(crate) fn guest_packages() -> Vec<&'static str> {
    GUESTS.iter().flat_map(|guest| ["-p", guest]).chain(["-p", "guest-runtime"]).collect()
}

/// Puts a built guest where it is run from: stripped, its unstripped twin beside it.
fn image(built: &Path, images: &Path, name: &str) -> anyhow::Result<()> {
    let (twin, image) = (images.join(format!("{name}.debug.elf")), images.join(format!("{name}.elf")));
    let mut bytes = std::fs::read(built).with_context(|| format!("read {}", built.display()))?;
    libraries::put_table(&mut bytes).with_context(|| format!("name the libraries of {}", built.display()))?;
    std::fs::write(&twin, bytes).with_context(|| format!("write {}", twin.display()))?;
    // by rename: a running VM keeps the file it booted from
    let fresh: PathBuf = images.join(format!(".{name}.elf.new"));
    step::run(&format!("strip {name}"), Command::new("strip").arg("-s").arg("-o").arg(&fresh).arg(&twin))?;
    std::fs::rename(&fresh, &image).with_context(|| format!("put {} in place", image.display()))
}
