"""Opening the ledger's file, and SQLite's errors as ours."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from mirror.errors import Damaged, LedgerError, StoreDenied, StoreError, StoreFull
from mirror.ledger.schema import check_version, migrate

#: What the writer keeps of the ledger's file in memory.
_CACHE_KIB = 16 * 1024
#: So many pages (of so many bytes) lie in the log before they go into the ledger's file.
_LOG_PAGES = 4000
_PAGE = 4096
#: Where it has grown to so many times as much behind readers, its writer waits for them.
_LONG = 4
#: Milliseconds that it waits for them, and how often; where one reads for longer, it does so again when the log is so
#: many times as long. Several short waits: what SQLite waits for may be held by one reader after the other.
_PATIENCE, _TRIES = 500, 4
_AGAIN = 1.5
#: What SQLite says where it may not write, the files included that it shares with others beside the ledger.
_REFUSED = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the ledger, migrated when for writing. Transactions are the caller's (autocommit mode).

    A reader never blocks the writer, nor the writer a reader (WAL). A mirror that cannot be written can be read; what
    a run on another machine does to it meanwhile is not seen. Raises TooNew, Damaged, StoreDenied.
    """
    with sqlite_errors(path):
        return _reader(path) if read_only else _writer(path)


def scratch_ledger(name: Path) -> sqlite3.Connection:
    """An empty ledger in a temporary file of SQLite's, gone when it is closed; `name` is what errors call it."""
    with sqlite_errors(name):
        db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        try:
            migrate(db, str(name))
        except BaseException:
            db.close()
            raise
    return db


def _writer(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        # Rows of a crawl go all over the indices: what one batch touches stays in memory, and what some have touched
        # is written into the file once.
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        # Behind a reader of an earlier moment it grows; once that one is gone it need not stay so long for ever.
        db.execute(f"PRAGMA journal_size_limit = {_LOG_PAGES * _PAGE}")
        migrate(db, str(path))
    except BaseException:
        db.close()
        raise
    return db


def _reader(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        return _checked(uri, path)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _REFUSED:
            raise
        # Even readers lay files beside a ledger in WAL mode, which a read-only folder does not take. Without a log
        # there is no run, and the file is all there is; with one, the file alone would be half the truth.
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise StoreDenied(
                f"{path}: {error}: a run is at work or was cut off ({log.name} is there), and the folder cannot be"
                " written; a sync that may write there puts it in order"
            ) from error
        return _checked(f"{uri}&immutable=1", path)


def _checked(uri: str, path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, check_same_thread=False)
    try:
        check_version(db, str(path))
    except BaseException:
        db.close()
        raise
    return db


class Log:
    """The log of a ledger that is open for writing. One thread at a time.

    After a commit SQLite begins it anew if nobody is reading what was before. Beside a server that is much asked
    somebody always is, and then the log grows for as long as a run lasts: what ends that is to wait for those who read.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._file = path.with_name(f"{path.name}-wal")
        self._most: float
        self._most = self._long = _LONG * _LOG_PAGES * _PAGE

    @property
    def is_long(self) -> bool:
        """Whether it is time to shorten it."""
        size = self._size()
        if size <= self._long:
            self._most = self._long
        return size > self._most

    def shorten(self) -> None:
        """Begin it anew, unless in a transaction: waits for a moment at which nobody needs it. Safe to repeat."""
        if self._db.in_transaction or not self.is_long:
            return
        with sqlite_errors(self._path):
            (before,) = self._db.execute("PRAGMA busy_timeout").fetchone()
            self._db.execute(f"PRAGMA busy_timeout = {_PATIENCE}")
            try:
                is_short = any(self._begin_anew() for _ in range(_TRIES))
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {before}")
        self._most = self._long if is_short else _AGAIN * self._size()

    def _begin_anew(self) -> bool:
        (held, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not held

    def _size(self) -> int:
        with suppress(FileNotFoundError):
            return self._file.stat().st_size
        return 0


class sqlite_errors:  # noqa: N801 - reads as a statement
    """SQLite's errors as ours; the message names `path`."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        # Misuse and broken constraints are ours, not the file's: a bug must look like one.
        if error is None or not isinstance(error, sqlite3.DatabaseError):
            return
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
            return
        if isinstance(error, sqlite3.OperationalError):
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise StoreFull(f"{self._path}: no space left on the disk") from error
            if error.sqlite_errorcode & 0xFF in _REFUSED:
                raise StoreDenied(f"{self._path}: {error}") from error
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
                raise StoreError(f"{self._path}: {error}") from error
            raise LedgerError(f"{self._path}: {error}") from error
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise Damaged(f"{self._path}: {error}") from error
