//! Records as rows of the SQLite database `<state>/vms/vms.db`.
//!
//! Owns the database's schema and its version, and that a row is on disk before anyone is told. What is in a
//! row is [`super::row`]'s business; which records are taken over from files, [`super::migrate`]'s. The VMs'
//! directories stay where they are.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params_from_iter};

use super::dirs::{VmsDir, close_to_others};
use super::row::{self, COLUMNS};
use super::{Damaged, LoadReport, Record, RecordStore, StoreError};
use crate::id::VmId;

/// The database's file.
const DB_FILE: &str = "vms.db";
/// The schema written here, as `PRAGMA user_version`. Files of other programs with the same table have 0.
const SCHEMA_VERSION: i64 = 1;
/// How long another program (a backup, a `sqlite3` at a terminal) may hold the database.
const BUSY_TIME: Duration = Duration::from_secs(5);

/// The store of `--vm-store sqlite`.
#[derive(Debug)]
pub struct SqliteStore {
    pub(super) dirs: VmsDir,
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl SqliteStore {
    /// The store below `state_dir`; makes its directory and database, or upgrades a database of an existing
    /// installation.
    ///
    /// # Errors
    /// The file cannot be opened, is no database, is damaged, or is of a newer version.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let dirs = VmsDir::open(state_dir)?;
        let path = dirs.path().join(DB_FILE);
        let failed = |source| StoreError { what: "open the VM records in", path: path.clone(), source };
        make_private(&path).and_then(|()| dirs.sync()).map_err(failed)?;
        let connection = connect(&path).map_err(failed)?;
        Ok(Self { dirs, path, connection: Mutex::new(connection) })
    }

    /// How many VMs the database below `state_dir` holds; none if there is no database. Changes nothing in it.
    ///
    /// # Errors
    /// There is one that cannot be read.
    pub fn count(state_dir: &Path) -> Result<u64, StoreError> {
        let path = state_dir.join("vms").join(DB_FILE);
        if path.symlink_metadata().is_err() {
            return Ok(0);
        }
        count(&path).map_err(explained).map_err(|source| StoreError {
            what: "look for VM records in",
            path,
            source,
        })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `change` whole or not at all; after this returns, it is on disk.
    pub(super) fn change<T>(
        &self,
        what: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection();
        let changed = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|all| {
            let value = change(&all)?;
            all.commit()?;
            Ok(value)
        });
        changed.map_err(|error| self.failed(what, explained(error)))
    }

    fn failed(&self, what: &'static str, source: io::Error) -> StoreError {
        StoreError { what, path: self.path.clone(), source }
    }

    /// The directories that nothing in the database belongs to. One with a file of a record is somebody's, even if
    /// that file will never be taken over (again).
    fn orphans(&self, known: &BTreeSet<VmId>) -> Result<Vec<PathBuf>, StoreError> {
        let mut ids = self.dirs.list()?.ids;
        ids.retain(|id| !known.contains(id) && !self.dirs.holds_record(*id));
        Ok(ids.into_iter().map(|id| self.dirs.of(id)).collect())
    }

    fn read_rows(&self, report: &mut LoadReport) -> rusqlite::Result<()> {
        let connection = self.connection();
        let mut statement = connection.prepare(&format!("SELECT {} FROM vms ORDER BY id", column_names()))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let cells: Vec<_> = (0..COLUMNS.len()).map(|at| row.get_ref(at)).collect::<Result<_, _>>()?;
            match row::decode(cells.iter().copied()) {
                Ok(record) => report.records.push(record),
                Err(fault) => {
                    let place = format!("row {} of {}", shown(cells.first()), self.path.display());
                    report.damaged.push(Damaged { place, set_aside: None, fault });
                }
            }
        }
        Ok(())
    }
}

impl RecordStore for SqliteStore {
    fn save(&self, record: &Record) -> Result<(), StoreError> {
        const WHAT: &str = "save the VM record in";
        let cells = row::encode(record).map_err(|error| self.failed(WHAT, error.into()))?;
        self.change(WHAT, |all| upsert(all, cells))?;
        // second: a row that cannot be written leaves no directory behind
        self.dirs.make_without_record(record.id).map_err(|source| StoreError {
            what: "make the VM's directory",
            path: self.dirs.of(record.id),
            source,
        })
    }

    fn load_all(&self) -> Result<LoadReport, StoreError> {
        let mut report = LoadReport { damaged: self.dirs.list()?.strangers, ..LoadReport::default() };
        let failed = |error| self.failed("load the VM records from", explained(error));
        self.read_rows(&mut report).map_err(failed)?;
        let known = ids(&self.connection(), "vms").map_err(failed)?;
        report.orphans = self.orphans(&known)?;
        Ok(report)
    }

    fn remove(&self, id: VmId) -> Result<(), StoreError> {
        let has_file = self.dirs.holds_record(id);
        self.change("remove the VM record from", |all| {
            if has_file {
                // should the directory outlive this, its old file must not bring the VM back
                all.execute("INSERT OR IGNORE INTO migrated (id) VALUES (?1)", [id.to_string()])?;
            }
            all.execute("DELETE FROM vms WHERE id = ?1", [id.to_string()]).map(drop)
        })?;
        let failed = |source| StoreError { what: "remove", path: self.dirs.of(id), source };
        // first: without it the rest of the directory is known to be nobody's, should this be interrupted
        self.dirs.remove_records(id).and_then(|()| self.dirs.remove(id)).map_err(failed)
    }
}

/// Writes the row with the cells of [`row::encode`]; columns of other versions keep what they hold.
pub(super) fn upsert(all: &Transaction<'_>, cells: Vec<rusqlite::types::Value>) -> rusqlite::Result<()> {
    let places = vec!["?"; COLUMNS.len()].join(", ");
    let sets: Vec<_> = COLUMNS.iter().map(|column| format!("{0} = excluded.{0}", column.name)).collect();
    let statement = format!(
        "INSERT INTO vms ({}) VALUES ({places}) ON CONFLICT (id) DO UPDATE SET {}",
        column_names(),
        sets.join(", ")
    );
    all.execute(&statement, params_from_iter(cells)).map(drop)
}

/// The ids in a table that has a column of them; what is no id is left out.
pub(super) fn ids(connection: &Connection, table: &str) -> rusqlite::Result<BTreeSet<VmId>> {
    let mut statement = connection.prepare(&format!("SELECT id FROM {table}"))?;
    let mut rows = statement.query([])?;
    let mut ids = BTreeSet::new();
    while let Some(row) = rows.next()? {
        ids.extend(row.get_ref(0)?.as_str().ok().and_then(|id| id.parse::<VmId>().ok()));
    }
    Ok(ids)
}

fn column_names() -> String {
    COLUMNS.map(|column| column.name).join(", ")
}

fn shown(id: Option<&ValueRef<'_>>) -> String {
    match id {
        Some(ValueRef::Text(text)) => {
            format!("{:?}", String::from_utf8_lossy(text).chars().take(40).collect::<String>())
        }
        _ => "without an id".to_owned(),
    }
}

/// Makes the file, or closes an existing one to others; SQLite gives its helper files the same mode.
fn make_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    close_to_others(path, 0o600)
}

fn connect(path: &Path) -> io::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(explained)?;
    connection.busy_timeout(BUSY_TIME).map_err(explained)?;
    refuse_newer(&connection)?;
    refuse_damaged(&connection)?;
    // readers (backups) never hold up a change, and a change is one write and one sync
    connection.pragma_update(None, "journal_mode", "WAL").map_err(explained)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(explained)?;
    let all = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(explained)?;
    upgrade(&all).map_err(explained)?;
    refuse_foreign(&all)?;
    all.commit().map_err(explained)?;
    Ok(connection)
}

fn refuse_newer(connection: &Connection) -> io::Result<()> {
    let version: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(explained)?;
    if version > SCHEMA_VERSION {
        return Err(invalid(format!(
            "its schema has version {version}, and this unid knows versions up to {SCHEMA_VERSION}; start the \
             newer unid that wrote it, or move the file away"
        )));
    }
    Ok(())
}

fn refuse_damaged(connection: &Connection) -> io::Result<()> {
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(explained)?;
    if verdict == "ok" { Ok(()) } else { Err(invalid(format!("it is damaged ({verdict}); {RESCUE}"))) }
}

/// Another program's table may lack what cannot be added.
fn refuse_foreign(connection: &Connection) -> io::Result<()> {
    let found = columns(connection).map_err(explained)?;
    match COLUMNS.iter().find(|column| !found.contains(column.name)) {
        None => Ok(()),
        Some(missing) => Err(invalid(format!(
            "its table vms has no column {}, so it holds no VM records; move the file away",
            missing.name
        ))),
    }
}

/// Makes what is missing of tables and columns. Files of older versions lack `pid`, and all that is ours.
fn upgrade(all: &Transaction<'_>) -> rusqlite::Result<()> {
    let all_columns: Vec<_> =
        COLUMNS.iter().map(|column| format!("{} {}", column.name, column.definition)).collect();
    all.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS vms ({}); CREATE TABLE IF NOT EXISTS migrated (id TEXT PRIMARY KEY);",
        all_columns.join(", ")
    ))?;
    let found = columns(all)?;
    for column in COLUMNS.iter().filter(|column| !found.contains(column.name) && column.can_be_added()) {
        all.execute_batch(&format!("ALTER TABLE vms ADD COLUMN {} {}", column.name, column.definition))?;
    }
    all.pragma_update(None, "user_version", SCHEMA_VERSION)
}

fn columns(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info('vms')")?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

fn count(path: &Path) -> rusqlite::Result<u64> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY_TIME)?;
    if columns(&connection)?.is_empty() {
        return Ok(0);
    }
    let count: i64 = connection.query_row("SELECT count(*) FROM vms", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// What can be done about a file that is not as it should be.
const RESCUE: &str = "bring back a copy of it (as by `sqlite3 vms.db .recover`), or move it away to begin anew with \
                      the records in vms/*/state.json";

fn explained(error: rusqlite::Error) -> io::Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => invalid(format!("it is no SQLite database; {RESCUE}")),
        Some(ErrorCode::DatabaseCorrupt) => invalid(format!("it is damaged ({error}); {RESCUE}")),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("another program has held it for {BUSY_TIME:?}; end that program"),
        ),
        _ => io::Error::other(error),
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::{FOREIGN, foreign};
    use super::*;
    use crate::machine::State;

    /// As an existing installation made it, before it stored pids.
    const OLD_TABLE: &str =
        "CREATE TABLE vms (id TEXT PRIMARY KEY, config TEXT NOT NULL, state TEXT NOT NULL,
        created_at TEXT NOT NULL, started_at TEXT, stopped_at TEXT, daemon_recovered INTEGER DEFAULT 0,
        health_status TEXT DEFAULT '', restart_count INTEGER DEFAULT 0)";

    fn state() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("vms")).unwrap();
        dir
    }

    fn by_hand(dir: &tempfile::TempDir) -> Connection {
        Connection::open(dir.path().join("vms").join(DB_FILE)).unwrap()
    }

    fn put_file(dir: &tempfile::TempDir, id: &str, text: &str) {
        let vm = dir.path().join("vms").join(id);
        std::fs::create_dir_all(&vm).unwrap();
        std::fs::write(vm.join("state.json"), text).unwrap();
    }

    fn refusal(dir: &tempfile::TempDir) -> String {
        let error = SqliteStore::open(dir.path()).unwrap_err();
        format!("{error}: {}", error.source)
    }

    #[test]
    fn what_was_saved_is_loaded_by_the_next_and_private() {
        let dir = state();
        let store = SqliteStore::open(dir.path()).unwrap();
        let mut record = foreign();
        record.lifecycle.generation = 7;
        record.lifecycle.last_exit = Some(crate::exit::Exit::Code(3));
        record.stop_seconds = Some(9);
        store.save(&record).unwrap();
        record.lifecycle.state = State::Stopped;
        store.save(&record).unwrap();
        let files = ["vms.db", "vms.db-wal", "vms.db-shm"].map(|name| dir.path().join("vms").join(name));
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
        let kept: (String, i64) = by_hand(&dir)
            .query_row("SELECT (SELECT journal_mode FROM pragma_journal_mode), user_version FROM pragma_user_version", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(kept, ("wal".to_owned(), SCHEMA_VERSION));
        drop(store);
        let store = SqliteStore::open(dir.path()).unwrap();
        assert_eq!(store.load_all().unwrap().records, [record.clone()]);
        assert_eq!(SqliteStore::count(dir.path()).unwrap(), 1);
        store.remove(record.id).unwrap();
        store.remove(record.id).unwrap();
        assert!(store.load_all().unwrap().records.is_empty());
        assert!(!dir.path().join("vms/9f2c41d07ab3").exists());
    }

    #[test]
    fn an_old_table_is_upgraded_and_its_rows_kept() {
        let dir = state();
        let value: serde_json::Value = serde_json::from_str(FOREIGN).unwrap();
        let old = by_hand(&dir);
        old.execute_batch(OLD_TABLE).unwrap();
        old.execute(
            "INSERT INTO vms (id, config, state, created_at, health_status, restart_count) VALUES (?, ?, 'stopped', ?, 'healthy', 2)",
            ["9f2c41d07ab3", &value["config"].to_string(), "2026-05-15T21:40:02.118349201+02:00"],
        )
        .unwrap();
        drop(old);
        let store = SqliteStore::open(dir.path()).unwrap();
        let mut expected = foreign();
        expected.lifecycle.state = State::Stopped;
        expected.started_at = None;
        assert_eq!(store.load_all().unwrap().records, [expected.clone()]);
        expected.pid = 77;
        store.save(&expected).unwrap();
        assert_eq!(store.load_all().unwrap().records, [expected]);
        // and the older program still finds what it wrote
        let state: String = by_hand(&dir).query_row("SELECT state FROM vms", [], |row| row.get(0)).unwrap();
        assert_eq!(state, "stopped");
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        let dir = state();
        by_hand(&dir).pragma_update(None, "user_version", 99).unwrap();
        assert!(refusal(&dir).contains("version 99"), "{}", refusal(&dir));
        let dir = state();
        by_hand(&dir).execute_batch("CREATE TABLE vms (name TEXT)").unwrap();
        assert!(refusal(&dir).contains("no column id"), "{}", refusal(&dir));
        let dir = state();
        let path = dir.path().join("vms").join(DB_FILE);
        std::fs::write(&path, "this is no database, but long enough to be read as one ".repeat(40)).unwrap();
        assert!(refusal(&dir).contains("no SQLite database"), "{}", refusal(&dir));
        assert!(SqliteStore::count(dir.path()).is_err());
        let dir = state();
        let store = SqliteStore::open(dir.path()).unwrap();
        store.save(&foreign()).unwrap();
        drop(store);
        let path = dir.path().join("vms").join(DB_FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4096..8192].fill(0x55);
        std::fs::write(&path, bytes).unwrap();
        assert!(refusal(&dir).contains("damaged"), "{}", refusal(&dir));
    }

    #[test]
    fn a_damaged_row_stays_is_named_and_the_rest_loads() {
        let dir = state();
        let store = SqliteStore::open(dir.path()).unwrap();
        store.save(&foreign()).unwrap();
        let hand = by_hand(&dir);
        hand.execute_batch(
            "INSERT INTO vms (id, config, state, created_at) VALUES
                ('000000000001', '{ torn', 'stopped', ''), ('000000000002', '{}', 'flying', ''),
                ('no id', '{}', 'stopped', ''), (NULL, '{}', 'stopped', ''), ('000000000003', x'00ff', 'stopped', '');
             INSERT INTO vms (id, config, state, created_at, extra) VALUES ('000000000004', '{}', 'stopped', '', '[1]');",
        )
        .unwrap();
        std::fs::create_dir(dir.path().join("vms/000000000001")).unwrap();
        for _ in 0..2 {
            let report = store.load_all().unwrap();
            assert_eq!(report.records, [foreign()]);
            assert_eq!(report.damaged.len(), 6, "{:?}", report.damaged);
            assert!(report.damaged.iter().any(|damaged| damaged.place.contains("000000000001")));
            // a console may still be of use
            assert!(report.orphans.is_empty());
        }
    }

    #[test]
    fn files_are_taken_over_once_and_never_again() {
        let dir = state();
        put_file(&dir, "9f2c41d07ab3", FOREIGN);
        put_file(&dir, "000000000001", "{ torn");
        put_file(&dir, "000000000002", FOREIGN);
        std::fs::create_dir(dir.path().join("vms/000000000003")).unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let first = store.migrate().unwrap();
        assert_eq!((first.migrated, first.skipped.len()), (1, 2));
        assert!(first.skipped[0].place.ends_with("vms/000000000001/state.json"));
        let report = store.load_all().unwrap();
        assert_eq!(report.records, [foreign()]);
        // what was not taken over is not cleaned away
        assert_eq!(report.orphans, [dir.path().join("vms/000000000003")]);

        let mut newer = foreign();
        newer.restart_count = 9;
        store.save(&newer).unwrap();
        assert_eq!(store.migrate().unwrap().migrated, 0);
        assert_eq!(store.load_all().unwrap().records, [newer.clone()]);
        store.remove(newer.id).unwrap();
        assert!(!dir.path().join("vms/9f2c41d07ab3").exists());
        // a removal that was interrupted before the directory went
        let left = dir.path().join("vms/9f2c41d07ab3");
        std::fs::create_dir(&left).unwrap();
        assert!(store.load_all().unwrap().orphans.contains(&left));
        // a file that somebody brought back: neither taken over nor taken away
        put_file(&dir, "9f2c41d07ab3", FOREIGN);
        assert_eq!(store.migrate().unwrap().migrated, 0);
        let report = store.load_all().unwrap();
        assert!(report.records.is_empty() && !report.orphans.contains(&left), "{:?}", report.orphans);
    }

    #[test]
    fn a_vm_of_the_database_alone_is_not_brought_back_by_an_old_file() {
        let dir = state();
        let store = SqliteStore::open(dir.path()).unwrap();
        store.save(&foreign()).unwrap();
        put_file(&dir, "9f2c41d07ab3", FOREIGN);
        assert_eq!(store.migrate().unwrap().migrated, 0);
        store.remove(foreign().id).unwrap();
        put_file(&dir, "9f2c41d07ab3", FOREIGN);
        assert_eq!(store.migrate().unwrap().migrated, 0);
    }

    #[test]
    fn a_migration_that_cannot_be_finished_leaves_nothing() {
        let dir = state();
        put_file(&dir, "9f2c41d07ab3", FOREIGN);
        put_file(&dir, "9f2c41d07ab4", &FOREIGN.replace("7ab3", "7ab4"));
        let store = SqliteStore::open(dir.path()).unwrap();
        by_hand(&dir)
            .execute_batch(
                "CREATE TRIGGER full BEFORE INSERT ON migrated WHEN NEW.id = '9f2c41d07ab4'
                 BEGIN SELECT RAISE(ABORT, 'no space'); END",
            )
            .unwrap();
        assert!(store.migrate().is_err());
        assert!(store.load_all().unwrap().records.is_empty());
        by_hand(&dir).execute_batch("DROP TRIGGER full").unwrap();
        assert_eq!(store.migrate().unwrap().migrated, 2);
    }
}
