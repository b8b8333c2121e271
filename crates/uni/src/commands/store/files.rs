//! The files of a store, wherever it is.
//!
//! Owns the difference between asking a daemon and reading a folder. Never writes.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uni_api::daemon::Done;
use uni_api::rpc::method;
use uni_api::store::{FileRef, Piece, ReadParams, Snapshot as Opened, SnapshotParams, SnapshotRef};
use uni_store::{FileReport, Snapshot, SnapshotFile};

use crate::client::{ANSWER_WAIT, Client};

/// Read at once from a folder.
const PIECE_BYTES: usize = 2 << 20;

/// A file may be large, and its disk slow.
const CHECK_WAIT: Duration = Duration::from_secs(3600);

/// A store's files at one moment.
pub(super) enum Files<'c> {
    /// The daemon keeps them.
    Daemon { client: &'c mut Client, opened: Opened<SnapshotFile> },
    /// Nobody else has them.
    Folder(Snapshot),
}

impl<'c> Files<'c> {
    /// Asks the daemon, or reads the state directory of one that does not run. `as_it_is`: with logs, without packing
    /// them first.
    pub(super) fn open(
        client: &'c mut Client,
        state_dir: Option<&Path>,
        as_it_is: bool,
    ) -> anyhow::Result<Self> {
        let Some(state_dir) = state_dir else {
            let opened = client.call(method::STORE_SNAPSHOT, &SnapshotParams { as_it_is }, ANSWER_WAIT)?;
            return Ok(Self::Daemon { client, opened });
        };
        let snapshot = Snapshot::of_folder(&super::store_dir(state_dir));
        Ok(Self::Folder(snapshot.map_err(|error| super::in_use(error, state_dir))?))
    }

    pub(super) fn folders(&self) -> &[String] {
        match self {
            Self::Daemon { opened, .. } => &opened.folders,
            Self::Folder(snapshot) => snapshot.folders(),
        }
    }

    pub(super) fn list(&self) -> &[SnapshotFile] {
        match self {
            Self::Daemon { opened, .. } => &opened.files,
            Self::Folder(snapshot) => snapshot.files(),
        }
    }

    /// Some bytes of a file from `offset` on; none at its end.
    pub(super) fn read(&mut self, file: usize, offset: u64) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Daemon { client, opened } => {
                let params = ReadParams { id: opened.id, file, offset };
                let piece: Piece = client.call(method::STORE_READ, &params, ANSWER_WAIT)?;
                STANDARD.decode(piece.data).context("the daemon's answer is no base64")
            }
            Self::Folder(snapshot) => Ok(snapshot.read(file, offset, PIECE_BYTES)?),
        }
    }

    /// Reads a file to its last byte, and says what is wrong with it.
    pub(super) fn check(&mut self, file: usize) -> anyhow::Result<FileReport> {
        match self {
            Self::Daemon { client, opened } => {
                let params = FileRef { id: opened.id, file };
                Ok(client.call(method::STORE_CHECK, &params, CHECK_WAIT)?)
            }
            Self::Folder(snapshot) => Ok(snapshot.check(file)?),
        }
    }
}

impl Drop for Files<'_> {
    fn drop(&mut self) {
        if let Self::Daemon { client, opened } = self {
            // one that stays is released when nobody asks for it
            let _: Result<Done, _> =
                client.call(method::STORE_RELEASE, &SnapshotRef { id: opened.id }, ANSWER_WAIT);
        }
    }
}
