//! The database of a journal: its tables, and each thing that is done to them.
//!
//! SQLite, because claims, money under way and answers change together or not at all, for any number of processes, and
//! because one commit can carry the work of hundreds of calls. Whoever writes does so between [`Db::begin`] and
//! [`Db::commit`].

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::{Asked, Label, batch, standing};
use crate::{
    model::price::Usd,
    store::{Damaged, Lock, LockError, StoreError},
};

/// The file in the journal's folder.
pub(super) const FILE: &str = "calls.db";
/// Where each process that uses the journal keeps a lock.
const OWNERS: &str = "owners";
pub(super) const VERSION: i64 = 1;
/// Another process may hold the database for the length of a commit, which a loaded disk draws out.
const PATIENCE: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
    CREATE TABLE calls(
        key TEXT PRIMARY KEY, identity TEXT NOT NULL, sample TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL,
        nanos INTEGER, took_ms INTEGER NOT NULL, run TEXT NOT NULL, at TEXT NOT NULL
    ) STRICT;
    CREATE TABLE claims(key TEXT PRIMARY KEY, owner TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE holds(
        id INTEGER PRIMARY KEY, owner TEXT NOT NULL, nanos INTEGER,
        run TEXT NOT NULL, row TEXT NOT NULL, model TEXT NOT NULL, role TEXT NOT NULL, phase TEXT NOT NULL
    ) STRICT;
    CREATE TABLE spent(
        run TEXT NOT NULL, row TEXT NOT NULL, model TEXT NOT NULL, role TEXT NOT NULL, phase TEXT NOT NULL,
        kind TEXT NOT NULL, calls INTEGER NOT NULL, unpriced INTEGER NOT NULL, input INTEGER NOT NULL,
        output INTEGER NOT NULL, nanos INTEGER NOT NULL, PRIMARY KEY(run, row, model, role, phase, kind)
    ) STRICT, WITHOUT ROWID;
";

/// What became of calls, as the ledger sums it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Answered and billed.
    Paid,
    /// The same, in a batch.
    Batch,
    /// Nobody knows the end: it may have been billed, so its worst case counts as spent.
    Lost,
    /// Answered from the journal.
    Replayed,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paid => "paid",
            Self::Batch => "batch",
            Self::Lost => "lost",
            Self::Replayed => "replayed",
        }
    }
}

/// What is added to a line of the ledger. An amount of none is a price that is not known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub calls: i64,
    pub input: i64,
    pub output: i64,
    pub usd: Option<Usd>,
}

/// An answer as it is kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// A `ChatReply` as JSON.
    pub reply: String,
    pub usd: Option<Usd>,
    pub took_ms: i64,
}

/// One whole entry, for [`super::export`].
pub(super) struct Entry {
    pub key: String,
    pub identity: String,
    pub sample: String,
    pub request: String,
    pub reply: String,
    pub usd: Option<Usd>,
}

/// What counts against a budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    pub spent: Usd,
    pub held: Usd,
    /// Of what is held: for what no call ends, so that no call may wait for it.
    pub standing: Usd,
}

pub(super) struct Db {
    connection: Connection,
    folder: PathBuf,
}

type Sql<T> = rusqlite::Result<T>;

impl Db {
    /// Opens the database of a folder, and makes both where they are missing.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(|e| StoreError::new("make", folder, e))?;
        let opened = || {
            let connection = Connection::open(folder.join(FILE))?;
            connection.busy_timeout(PATIENCE)?;
            let db = Self { connection, folder: folder.to_owned() };
            db.wait_for_wal()?;
            // A commit is on the disk when it returns.
            db.connection.pragma_update(None, "synchronous", "FULL")?;
            // In pages: copying them back into the database costs the same however many there are.
            db.connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
            Ok(db)
        };
        let db = opened().map_err(|e| broken(folder, "open", &e))?;
        match db.prepare().map_err(|e| db.broken("open", &e))? {
            version if version > VERSION => {
                let why =
                    format!("it is of version {version}, which a later Hone made; this one reads {VERSION}");
                let other = std::io::Error::new(std::io::ErrorKind::InvalidData, why);
                Err(StoreError::new("open", folder.join(FILE), other))
            }
            _ => Ok(db),
        }
    }

    /// The one change for which SQLite does not wait by itself, when two processes open a new database at once.
    fn wait_for_wal(&self) -> Sql<()> {
        let mut tries = 0;
        loop {
            match self.connection.pragma_update(None, "journal_mode", "WAL") {
                Err(e) if is_busy(&e) && tries < 500 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return other,
            }
        }
    }

    /// Makes the tables of a new database; the version that it has.
    fn prepare(&self) -> Sql<i64> {
        let version = || self.connection.pragma_query_value(None, "user_version", |row| row.get(0));
        if version()? != 0 {
            return version();
        }
        self.begin()?;
        let made = match version()? {
            0 => self
                .connection
                .execute_batch(SCHEMA)
                .and_then(|()| self.connection.pragma_update(None, "user_version", VERSION)),
            _ => Ok(()),
        };
        self.end(made)?;
        version()
    }

    /// How many calls are in it, and what is wrong with its pages and tables, if anything is.
    pub fn examine(&self) -> Sql<(u64, Option<String>)> {
        let found: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        let calls =
            self.connection.query_row("SELECT count(*) FROM calls", [], |row| row.get::<_, i64>(0))?;
        Ok((calls.unsigned_abs(), (found != "ok").then_some(found)))
    }

    /// A failure with the file's name.
    pub fn broken(&self, doing: &'static str, error: &rusqlite::Error) -> StoreError {
        broken(&self.folder, doing, error)
    }

    pub fn begin(&self) -> Sql<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    /// Commits what went well and takes back what did not.
    pub fn end<T>(&self, done: Sql<T>) -> Sql<T> {
        let committed = done.and_then(|done| self.connection.execute_batch("COMMIT").map(|()| done));
        if committed.is_err() && !self.connection.is_autocommit() {
            // The first error is the one to tell.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        committed
    }

    pub fn find(&self, key: &str) -> Sql<Option<Kept>> {
        let mut statement =
            self.connection.prepare_cached("SELECT reply, nanos, took_ms FROM calls WHERE key = ?1")?;
        let kept = statement.query_row([key], |row| {
            Ok(Kept { reply: row.get(0)?, usd: nanos(row.get(1)?), took_ms: row.get(2)? })
        });
        kept.optional()
    }

    pub fn keep(&self, asked: &Asked, run: &str, kept: &Kept) -> Sql<()> {
        let mut statement = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO calls VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
        let (usd, at) = (kept.usd.map(Usd::nanos), jiff::Timestamp::now().to_string());
        let Asked { key, identity, sample, request, .. } = asked;
        statement.execute(params![key, identity, sample, request, kept.reply, usd, kept.took_ms, run, at])?;
        Ok(())
    }

    /// Adds an entry of another journal; false when it is there already.
    pub fn take_in(&self, entry: &Entry) -> Sql<bool> {
        let mut statement = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO calls VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 'import', ?7)")?;
        let Entry { key, identity, sample, request, reply, usd } = entry;
        let at = jiff::Timestamp::now().to_string();
        let usd = usd.map(Usd::nanos);
        Ok(statement.execute(params![key, identity, sample, request, reply, usd, at])? > 0)
    }

    /// Hands out every entry, in the order of their keys.
    pub fn each(&self, mut take: impl FnMut(Entry) -> std::io::Result<()>) -> Sql<std::io::Result<()>> {
        let mut statement = self
            .connection
            .prepare("SELECT key, identity, sample, request, reply, nanos FROM calls ORDER BY key")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (key, identity, sample) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (request, reply, usd) = (row.get(3)?, row.get(4)?, nanos(row.get(5)?));
            if let Err(e) = take(Entry { key, identity, sample, request, reply, usd }) {
                return Ok(Err(e));
            }
        }
        Ok(Ok(()))
    }

    /// How long a model's last calls took, and what was answered; what was imported was not timed.
    pub fn last_calls(&self, model: &str, most: usize) -> Sql<Vec<(i64, String)>> {
        let mut statement = self.connection.prepare(
            "SELECT took_ms, reply FROM calls WHERE took_ms > 0 AND json_extract(request, '$.model') = ?1
             ORDER BY at DESC LIMIT ?2",
        )?;
        let calls = statement.query_map(params![model, most as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
        calls.collect()
    }

    /// Who asks for it just now.
    pub fn claimed_by(&self, key: &str) -> Sql<Option<String>> {
        let mut statement = self.connection.prepare_cached("SELECT owner FROM claims WHERE key = ?1")?;
        statement.query_row([key], |row| row.get(0)).optional()
    }

    pub fn claim(&self, key: &str, owner: &str) -> Sql<()> {
        let mut statement = self.connection.prepare_cached("INSERT OR IGNORE INTO claims VALUES (?1, ?2)")?;
        statement.execute([key, owner])?;
        Ok(())
    }

    pub fn release(&self, key: &str, owner: &str) -> Sql<()> {
        let mut statement =
            self.connection.prepare_cached("DELETE FROM claims WHERE key = ?1 AND owner = ?2")?;
        statement.execute([key, owner])?;
        Ok(())
    }

    /// Money that may be billed for a try; the number of the hold.
    pub fn hold(&self, owner: &str, usd: Option<Usd>, label: &Label) -> Sql<i64> {
        let mut statement =
            self.connection.prepare_cached("INSERT INTO holds VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        let Label { run, row, model, role, phase } = label;
        statement.execute(params![owner, usd.map(Usd::nanos), run, row, model, role, phase])?;
        Ok(self.connection.last_insert_rowid())
    }

    pub fn let_go(&self, hold: i64) -> Sql<()> {
        self.connection.prepare_cached("DELETE FROM holds WHERE id = ?1")?.execute([hold])?;
        Ok(())
    }

    /// Lets go of a hold if it is still its owner's; whether it was.
    pub fn let_go_of(&self, hold: i64, owner: &str) -> Sql<bool> {
        let mut statement =
            self.connection.prepare_cached("DELETE FROM holds WHERE id = ?1 AND owner = ?2")?;
        Ok(statement.execute(params![hold, owner])? > 0)
    }

    /// Makes a call and what is held for it another owner's.
    pub fn hand_over(&self, key: &str, hold: i64, owner: &str) -> Sql<()> {
        self.connection
            .prepare_cached("UPDATE claims SET owner = ?2 WHERE key = ?1")?
            .execute([key, owner])?;
        let mut statement = self.connection.prepare_cached("UPDATE holds SET owner = ?2 WHERE id = ?1")?;
        statement.execute(params![hold, owner])?;
        Ok(())
    }

    pub fn spend(&self, label: &Label, kind: Kind, spent: Spent) -> Sql<()> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO spent VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, unpriced = unpriced + excluded.unpriced,
                input = input + excluded.input, output = output + excluded.output, nanos = nanos + excluded.nanos",
        )?;
        let Label { run, row, model, role, phase } = label;
        let Spent { calls, input, output, usd } = spent;
        let unpriced = if usd.is_none() { calls } else { 0 };
        let nanos = usd.unwrap_or_default().nanos();
        statement.execute(params![
            run,
            row,
            model,
            role,
            phase,
            kind.as_str(),
            calls,
            unpriced,
            input,
            output,
            nanos
        ])?;
        Ok(())
    }

    /// A dead owner's holds are among what is held until they are swept.
    pub fn totals(&self) -> Sql<Totals> {
        let mut statement = self.connection.prepare_cached(
            "SELECT (SELECT coalesce(sum(nanos), 0) FROM spent), coalesce(sum(nanos), 0),
                    coalesce(sum(CASE WHEN owner GLOB ?1 THEN nanos END), 0)
             FROM holds",
        )?;
        statement.query_row([format!("{}*", standing::OWNER)], |row| {
            let usd = |column: usize| row.get(column).map(Usd::from_nanos);
            Ok(Totals { spent: usd(0)?, held: usd(1)?, standing: usd(2)? })
        })
    }

    /// The hold of an owner that has one, under what it stands in the ledger, and how much it is.
    pub fn held_by(&self, owner: &str) -> Sql<Option<(i64, Label, Option<Usd>)>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, run, row, model, role, phase, nanos FROM holds WHERE owner = ?1")?;
        let held = statement.query_row([owner], |row| {
            let (run, name, model) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let label = Label { run, row: name, model, role: row.get(4)?, phase: row.get(5)? };
            Ok((row.get(0)?, label, nanos(row.get(6)?)))
        });
        held.optional()
    }

    /// Everyone who has a claim or a hold.
    pub fn owners(&self) -> Sql<Vec<String>> {
        let mut statement =
            self.connection.prepare_cached("SELECT owner FROM claims UNION SELECT owner FROM holds")?;
        let owners = statement.query_map([], |row| row.get(0))?;
        owners.collect()
    }

    /// Ends what a dead owner left: nobody asks for its calls any more, and what it held may have been billed.
    pub fn bury(&self, owner: &str) -> Sql<()> {
        if batch::is_owner(owner) {
            // It was never recorded, so nothing of it was ever sent.
            self.connection.prepare_cached("DELETE FROM holds WHERE owner = ?1")?.execute([owner])?;
        }
        self.connection
            .prepare_cached(
                "INSERT INTO spent SELECT run, row, model, role, phase, 'lost', count(*), sum(nanos IS NULL), 0, 0,
                        coalesce(sum(nanos), 0)
                 FROM holds WHERE owner = ?1 GROUP BY run, row, model, role, phase
                 ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, unpriced = unpriced + excluded.unpriced,
                    nanos = nanos + excluded.nanos",
            )?
            .execute([owner])?;
        self.connection.prepare_cached("DELETE FROM holds WHERE owner = ?1")?.execute([owner])?;
        self.connection.prepare_cached("DELETE FROM claims WHERE owner = ?1")?.execute([owner])?;
        Ok(())
    }

    /// Lines of the ledger with their kind, and what is held as lines of the same form: label, kind, calls, unpriced, input,
    /// output, amount.
    pub fn ledger(&self, mut take: impl FnMut(Label, &str, [i64; 5])) -> Sql<()> {
        let mut statement = self.connection.prepare(
            "SELECT run, row, model, role, phase, kind, calls, unpriced, input, output, nanos FROM spent
             UNION ALL
             SELECT run, row, model, role, phase, 'held', count(*), sum(nanos IS NULL), 0, 0, coalesce(sum(nanos), 0)
             FROM holds GROUP BY run, row, model, role, phase
             ORDER BY 1, 2, 3, 4, 5",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let label = Label {
                run: row.get(0)?,
                row: row.get(1)?,
                model: row.get(2)?,
                role: row.get(3)?,
                phase: row.get(4)?,
            };
            let kind: String = row.get(5)?;
            take(label, &kind, [row.get(6)?, row.get(7)?, row.get(8)?, row.get(9)?, row.get(10)?]);
        }
        Ok(())
    }
}

fn nanos(value: Option<i64>) -> Option<Usd> {
    value.map(Usd::from_nanos)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// A failure of the database as one of the file that it is.
fn broken(folder: &Path, doing: &'static str, error: &rusqlite::Error) -> StoreError {
    use std::io::ErrorKind as E;
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => E::StorageFull,
        Some(ErrorCode::ReadOnly) => E::ReadOnlyFilesystem,
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => E::PermissionDenied,
        _ => E::Other,
    };
    let source = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            std::io::Error::new(kind, Damaged { why: error.to_string(), fix: DAMAGED })
        }
        _ => std::io::Error::new(kind, error.to_string()),
    };
    StoreError::new(doing, folder.join(FILE), source)
}

/// What mends a database that cannot be read.
pub(super) const DAMAGED: &str = "move the file away to go on: its calls are paid for again, unless you import an export of \
                                  them (`hone calls import FILE`); see docs/troubleshooting/damaged-journal.md";

/// This process's right to its claims and holds: a lock that the kernel gives back when it dies.
pub(super) struct Owner {
    pub id: String,
    path: PathBuf,
    _lock: Lock,
}

impl Owner {
    pub fn new(folder: &Path) -> Result<Self, StoreError> {
        let id = format!("{:032x}", rand::random::<u128>());
        let path = folder.join(OWNERS).join(&id);
        match Lock::take(&path) {
            Ok(lock) => Ok(Self { id, path, _lock: lock }),
            Err(LockError::Store(error)) => Err(error),
            Err(busy) => Err(StoreError::new("lock", path, std::io::Error::other(busy.to_string()))),
        }
    }

    /// Takes a dead owner's place, so that one process alone ends its affairs; nothing while it lives.
    pub fn of_the_dead(folder: &Path, id: &str) -> Option<Self> {
        if standing::is_owner(id) {
            return None;
        }
        let (path, record) = match batch::files_of(folder, id) {
            Some((lock, record)) => (lock, Some(record)),
            None => (folder.join(OWNERS).join(id), None),
        };
        // A batch lives as long as its record does, whoever follows it.
        let lives = || record.as_ref().is_some_and(|record| record.exists());
        if lives() {
            return None;
        }
        // An owner that cannot be asked counts as alive: whoever has its lock is somebody.
        let lock = Lock::take(&path).ok()?;
        (!lives()).then(|| Self { id: id.to_owned(), path, _lock: lock })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A file that stays is locked by nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}
