"""A ledger open for reading: a connection of its own, what of the mirror it shows, one moment for many questions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Self

from mirror.errors import SettingsError
from mirror.ledger.connection import connect, sqlite_errors
from mirror.ledger.shown import Shown
from mirror.scope import matcher


class Reading:
    """A mirror's ledger, open for reading. Use as a context manager. Each instance belongs to one thread.

    `incomplete`: series of which only a part is held are shown, with that part. `by_ingest`: a series' day is not its
    day of release but the one on which it came into this mirror.
    """

    def __init__(self, root: Path, *, incomplete: bool = False, by_ingest: bool = False) -> None:
        self._show = Shown(incomplete=incomplete, by_ingest=by_ingest)
        self.path = root / ".mirror" / "ledger.sqlite"
        if not self.path.exists():
            raise SettingsError(f"{root}: no mirror here ({self.path} does not exist); `tcia-mirror sync` makes one")
        self._db = connect(self.path, read_only=True)
        #: What is not to be shown: see `show_only`. It is this connection's own, in no file of the mirror.
        try:
            with sqlite_errors(self.path):
                self._db.execute("CREATE TEMP TABLE closed (name TEXT PRIMARY KEY) WITHOUT ROWID")
        except BaseException:
            self._db.close()
            raise
        self._restricted = False
        #: What was asked for last, at which state of the ledger: to go through a million series takes its time.
        self._asked: tuple[tuple[str, ...], int] | None = None

    def show_only(self, collections: Sequence[str]) -> None:
        """Show from now on only these collections, by name or pattern as in a scope; ("*",) shows all."""
        if tuple(collections) == ("*",) and not self._restricted:
            return
        with sqlite_errors(self.path):
            asked = tuple(collections), self._db.execute("PRAGMA data_version").fetchone()[0]
        if asked == self._asked:
            return
        self._asked = None
        is_open = matcher(collections, patterns=True)
        closed = [(name,) for name in self.all_collections() if not is_open(name)]
        with sqlite_errors(self.path), nullcontext() if self._db.in_transaction else self._db:
            self._db.execute("DELETE FROM temp.closed")
            self._db.executemany("INSERT INTO temp.closed VALUES (?)", closed)
        self._restricted = bool(closed)
        self._asked = asked

    def is_closed(self, collection: str) -> bool:
        """Whether `show_only` closed it."""
        return any(self._rows("SELECT 1 FROM temp.closed WHERE name = :name", {"name": collection}))

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All questions inside the block are answered by the ledger as it is at the first of them.

        The writer goes on meanwhile, but what it writes stays in the log until the block ends: it must end. After an
        exception it is to be closed.
        """
        with sqlite_errors(self.path):
            self._db.execute("BEGIN")  # reads nothing yet
        yield
        with sqlite_errors(self.path):
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file. Safe to repeat."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _rows(self, sql: str, args: Mapping[str, Any] | None = None) -> Iterator[sqlite3.Row]:
        with sqlite_errors(self.path):
            cursor = self._db.cursor()
            cursor.row_factory = sqlite3.Row
            # Not `yield from`: it closes the cursor of a loop that is left, and fails once the file is closed.
            for row in cursor.execute(sql, args or {}):  # noqa: UP028 - `yield from` would close it, see above
                yield row

    def meta(self, key: str) -> str | None:
        """A fact about the mirror itself, or None."""
        for row in self._rows("SELECT value FROM meta WHERE key = :key", {"key": key}):
            return str(row["value"])
        return None

    def all_collections(self) -> list[str]:
        """Names of the collections of which a series is known, in order."""
        return [r["collection"] for r in self._rows("SELECT DISTINCT collection FROM series ORDER BY collection")]
