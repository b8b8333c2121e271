//! `uni store`: the store's files, rows and figures over the control socket.
//!
//! Owns the snapshots that clients have asked for, and their end. Never opens a file that the client names: a client
//! gets bytes of the store's own files, and writes its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;
use uni_api::daemon::Done;
use uni_api::store::{
    CardinalityParams, ExportParams, FileRef, ImportParams, Imported, Piece, ReadParams, SchemaParams,
    Snapshot as Opened, SnapshotParams, SnapshotRef,
};
use uni_store::{
    Cardinality, ExportCursor, ExportPage, ExportSelection, FileReport, LineOptions, MeasurementSchema,
    Snapshot, SnapshotFile,
};
use uni_wire::line::{Mode, Precision};

use crate::clock;
use crate::ingest::{Durable, Ingest};
use crate::storage::Storage;

/// Snapshots at one time: each keeps files that were merged away.
const MAX_SNAPSHOTS: usize = 4;
/// A snapshot that nobody asks for is released after this time.
const IDLE: Duration = Duration::from_secs(120);
/// Bytes of a file in one answer.
const PIECE_BYTES: usize = 2 << 20;
/// Bytes of an export in one answer.
const PAGE_BYTES: usize = 1 << 20;
/// Requests at work at one time; the others wait for their turn.
const MAX_AT_WORK: usize = 2;
/// Longest lists of a report on cardinality.
const MAX_TOP: usize = 10_000;

/// A client's snapshot, and when it was asked for last.
#[derive(Debug)]
struct Kept {
    snapshot: Arc<Snapshot>,
    used: Instant,
}

#[derive(Debug, Default)]
struct Snapshots {
    kept: BTreeMap<u64, Kept>,
    last_id: u64,
}

/// What `uni store` asks for.
#[derive(Debug)]
pub(crate) struct StoreAccess {
    storage: Arc<Storage>,
    ingest: Arc<Ingest>,
    auto_create: bool,
    snapshots: Arc<Mutex<Snapshots>>,
    turns: Semaphore,
}

fn locked(snapshots: &Mutex<Snapshots>) -> MutexGuard<'_, Snapshots> {
    snapshots.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StoreAccess {
    /// Access to `storage`; what is imported goes through `ingest`.
    pub(crate) fn new(storage: Arc<Storage>, ingest: Arc<Ingest>, auto_create: bool) -> Self {
        let turns = Semaphore::new(MAX_AT_WORK);
        Self { storage, ingest, auto_create, snapshots: Arc::default(), turns }
    }

    /// Runs what takes time where nobody waits for it.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let _turn = self.turns.acquire().await?;
        tokio::task::spawn_blocking(work).await.context("it failed inside unid; its log says why")?
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// When there are too many already, or the store cannot be packed.
    pub(crate) async fn snapshot(
        &self,
        params: &SnapshotParams,
        by: &str,
    ) -> anyhow::Result<Opened<SnapshotFile>> {
        let (storage, as_it_is) = (Arc::clone(&self.storage), params.as_it_is);
        let snapshot = self.work(move || {
            let store = storage.store();
            Ok(if as_it_is { store.snapshot_as_it_is()? } else { store.snapshot()? })
        });
        let snapshot = Arc::new(snapshot.await.context("take a snapshot of the store")?);
        let (folders, files) = (snapshot.folders().to_vec(), snapshot.files().to_vec());
        let id = {
            let mut snapshots = locked(&self.snapshots);
            if snapshots.kept.len() >= MAX_SNAPSHOTS {
                bail!("{MAX_SNAPSHOTS} backups or checks are at work already; try again when one has ended");
            }
            snapshots.last_id += 1;
            let id = snapshots.last_id;
            snapshots.kept.insert(id, Kept { snapshot, used: Instant::now() });
            id
        };
        tokio::spawn(release_when_idle(Arc::clone(&self.snapshots), id));
        tracing::info!(id, files = files.len(), by, "snapshot of the store");
        Ok(Opened { id, folders, files })
    }

    fn find(&self, id: u64) -> anyhow::Result<Arc<Snapshot>> {
        let mut snapshots = locked(&self.snapshots);
        let kept = snapshots.kept.get_mut(&id);
        let kept = kept.with_context(|| format!("there is no snapshot {id} (any more); begin again"))?;
        kept.used = Instant::now();
        Ok(Arc::clone(&kept.snapshot))
    }

    /// Gives a snapshot back.
    ///
    /// # Errors
    /// Never; one that is gone already is fine.
    pub(crate) fn release(&self, params: SnapshotRef) -> anyhow::Result<Done> {
        // dropped outside the lock: it may remove files
        let _kept = locked(&self.snapshots).kept.remove(&params.id);
        Ok(Done::default())
    }

    /// Bytes of a file.
    ///
    /// # Errors
    /// When there is no such snapshot or file, or it cannot be read.
    pub(crate) async fn read(&self, params: ReadParams) -> anyhow::Result<Piece> {
        let snapshot = self.find(params.id)?;
        let ReadParams { file, offset, .. } = params;
        self.work(move || Ok(Piece { data: STANDARD.encode(snapshot.read(file, offset, PIECE_BYTES)?) }))
            .await
    }

    /// Reads a file to its last byte and says what is wrong with it.
    ///
    /// # Errors
    /// When there is no such snapshot or file, or it cannot be read.
    pub(crate) async fn check(&self, params: FileRef) -> anyhow::Result<FileReport> {
        let snapshot = self.find(params.id)?;
        self.work(move || Ok(snapshot.check(params.file)?)).await
    }

    /// A page of rows.
    ///
    /// # Errors
    /// When there is no such database.
    pub(crate) async fn export(
        &self,
        params: ExportParams<ExportSelection, ExportCursor>,
    ) -> anyhow::Result<ExportPage> {
        let storage = Arc::clone(&self.storage);
        let ExportParams { selection, cursor } = params;
        self.work(move || Ok(storage.store().export(&selection, cursor.as_ref(), PAGE_BYTES)?)).await
    }

    /// What a database's measurements are made of.
    ///
    /// # Errors
    /// When there is no such database.
    pub(crate) async fn schema(&self, params: SchemaParams) -> anyhow::Result<Vec<MeasurementSchema>> {
        let storage = Arc::clone(&self.storage);
        self.work(move || Ok(storage.store().schema(&params.database)?)).await
    }

    /// Stores lines, as a write over HTTP does.
    ///
    /// # Errors
    /// When the parameters are none, the database does not exist and may not be made, or the store cannot write.
    pub(crate) async fn import(&self, params: ImportParams) -> anyhow::Result<Imported> {
        let ImportParams { database, precision, data } = params;
        if !self.auto_create && !self.storage.store().has_database(&database) {
            bail!("database not found: {database:?}; unid runs with --auto-create=false");
        }
        let precision = match &*precision {
            "ns" | "n" => Precision::Nanoseconds,
            "us" => Precision::Microseconds,
            known @ ("u" | "ms" | "s" | "m" | "h") => Precision::from_query(known),
            other => bail!("precision {other:?} is unknown; it is one of ns, us, ms, s, m, h"),
        };
        let lines = STANDARD.decode(data).context("the lines are no base64")?;
        let ingest = Arc::clone(&self.ingest);
        self.work(move || {
            let (mode, now) = (Mode::Strict, clock::now());
            let options =
                LineOptions { mode, precision, now, tag: None, max_line_bytes: None, watched: None };
            let lines = ingest.append_lines(&database, &lines, &options, Durable::AsConfigured)?;
            Ok(Imported {
                stored: lines.appended.accepted as u64,
                refused: lines.appended.refused as u64,
                bad: lines.appended.bad as u64,
                complaints: lines.complaints,
            })
        })
        .await
    }

    /// How many series there are, and of what.
    ///
    /// # Errors
    /// Only when it fails inside.
    pub(crate) async fn cardinality(&self, params: CardinalityParams) -> anyhow::Result<Cardinality> {
        let storage = Arc::clone(&self.storage);
        self.work(move || Ok(storage.store().cardinality(params.top.min(MAX_TOP)))).await
    }
}

async fn release_when_idle(snapshots: Arc<Mutex<Snapshots>>, id: u64) {
    loop {
        tokio::time::sleep(IDLE / 4).await;
        let ended = {
            let mut snapshots = locked(&snapshots);
            match snapshots.kept.get(&id) {
                None => return,
                // one that is being read or checked is held by whoever does that
                Some(kept) if kept.used.elapsed() < IDLE || Arc::strong_count(&kept.snapshot) > 1 => continue,
                Some(_) => snapshots.kept.remove(&id),
            }
        };
        drop(ended);
        tracing::warn!(id, "a snapshot that nobody asked for was released");
        return;
    }
}
