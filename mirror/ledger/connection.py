"""Opening the ledger's file, and SQLite's errors as ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.errors import Damaged, LedgerError, StoreDenied, StoreError, StoreFull
from mirror.ledger.schema import check_version, migrate


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the ledger, migrated when for writing. Transactions are the caller's (autocommit mode).

    A reader never blocks the writer, nor the writer a reader (WAL). Raises TooNew, Damaged, StoreDenied.
    """
    with sqlite_errors(path):
        if read_only:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        else:
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            if read_only:
                check_version(db, str(path))
            else:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute("PRAGMA foreign_keys = ON")
                migrate(db, str(path))
        except BaseException:
            db.close()
            raise
        return db


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
        # Ours, not the file's: a bug must look like one.
        raise
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise StoreFull(f"{path}: no space left on the disk") from error
        if error.sqlite_errorcode in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise StoreDenied(f"{path}: {error}") from error
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
            raise StoreError(f"{path}: {error}") from error
        raise LedgerError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        raise Damaged(f"{path}: {error}") from error
