//! `uni store`: the store saved, restored, checked, exported, imported, counted.
//!
//! Owns where the store is: with a daemon that is asked, or in a folder that no daemon has. What is done with it are the
//! modules below.

mod backup;
mod cardinality;
mod check;
mod export;
mod files;
mod import;
mod lines;
mod manifest;
mod openmetrics;
#[cfg(feature = "parquet")]
mod parquet;
mod restore;
mod sink;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use uni_store::{OpenError, Store};
use uni_wire::Timestamp;

use crate::args::{Format, StoreCommand};
use crate::client::Client;

/// Does what the command line says.
///
/// # Errors
/// What failed; for `check` also that something is damaged.
pub(super) fn run(client: &mut Client, command: StoreCommand, format: Format) -> anyhow::Result<()> {
    match command {
        StoreCommand::Backup(args) => backup::run(client, &args, format),
        StoreCommand::Restore(args) => restore::run(&args, format),
        StoreCommand::Check(args) => check::run(client, &args, format),
        StoreCommand::Export(args) => export::run(client, &args, format),
        StoreCommand::Import(args) => import::run(client, &args, format),
        StoreCommand::Cardinality(args) => cardinality::run(client, &args, format),
    }
}

/// The store's folder in a state directory.
fn store_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("store")
}

/// Nanoseconds since the Unix epoch.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The store of a daemon that does not run, to be read.
fn read_only(state_dir: &Path) -> anyhow::Result<Store> {
    let store = Store::open_read_only(&store_dir(state_dir), Timestamp(now_ns()));
    store.map_err(|error| in_use(error, state_dir))
}

/// An error of opening, with what to do if a daemon has the store.
fn in_use(error: OpenError, state_dir: &Path) -> anyhow::Error {
    let is_used = matches!(error, OpenError::InUse { .. });
    let error = anyhow::Error::new(error);
    if is_used {
        return error.context(format!(
            "a daemon runs on {}; leave out --state-dir to ask it, or stop it",
            state_dir.display()
        ));
    }
    error
}

/// A bar of bytes, on a terminal only.
fn bytes_bar(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

/// A count that has no known end, on a terminal only.
fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed}  {msg}  (Ctrl-C ends)") {
        bar.set_style(style);
    }
    bar
}

/// Makes the names in a folder last.
fn sync_dir(dir: &Path) -> anyhow::Result<()> {
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("sync {}", dir.display()))
}
