//! Requests and answers about the store's files and rows.
//!
//! What a report, a page or a list of files holds is `uni-store`'s to say: here it is a parameter.

use serde::{Deserialize, Serialize};

/// Parameters of `Store.Snapshot`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SnapshotParams {
    /// With the logs as they are, for a check. Else everything is packed first, for a backup.
    #[serde(default)]
    pub as_it_is: bool,
}

/// A snapshot: files that stay as they are until it is released, or nobody has asked for them for two minutes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot<F> {
    /// To be given to the other methods.
    pub id: u64,
    /// Its folders, by path in the store; those too that hold no file.
    pub folders: Vec<String>,
    /// Its files (`uni_store::SnapshotFile`).
    pub files: Vec<F>,
}

/// Names a snapshot.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// Its number.
    pub id: u64,
}

/// Parameters of `Store.Check`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct FileRef {
    /// The snapshot.
    pub id: u64,
    /// Which of its files, from 0.
    pub file: usize,
}

/// Parameters of `Store.Read`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ReadParams {
    /// The snapshot.
    pub id: u64,
    /// Which of its files, from 0.
    pub file: usize,
    /// The first byte wanted.
    pub offset: u64,
}

/// Bytes of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Piece {
    /// In base64; empty at the file's end.
    pub data: String,
}

/// Parameters of `Store.Export`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExportParams<S, C> {
    /// Which rows (`uni_store::ExportSelection`).
    pub selection: S,
    /// Where to go on (`uni_store::ExportCursor`).
    pub cursor: Option<C>,
}

/// Parameters of `Store.Schema`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SchemaParams {
    /// The database.
    pub database: String,
}

/// Parameters of `Store.Import`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImportParams {
    /// Where the lines go.
    pub database: String,
    /// Unit of time stamps: `ns`, `us`, `ms`, `s`, `m` or `h`.
    pub precision: String,
    /// Whole lines of line protocol, in base64; at most 700 KiB of it.
    pub data: String,
}

/// What became of imported lines.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Imported {
    /// Points stored.
    pub stored: u64,
    /// Points that the store refused.
    pub refused: u64,
    /// Lines that are none.
    pub bad: u64,
    /// The first complaints.
    pub complaints: Vec<String>,
}

/// Parameters of `Store.Cardinality`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CardinalityParams {
    /// Most entries of each list.
    pub top: usize,
}
