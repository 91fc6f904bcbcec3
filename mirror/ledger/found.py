"""Files found in somebody's folder, by series and instance: a scratch file that lives as long as one adoption.

Not part of the ledger: it says what lies outside the mirror, is never flushed, and is thrown away at the end. On disk
all the same, since a folder may hold more files than memory has room for their names.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from mirror.ledger.connection import sqlite_errors
from mirror.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
CREATE TABLE folders (id INTEGER PRIMARY KEY, path BLOB NOT NULL);
CREATE TABLE series (id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, standing INTEGER NOT NULL);
CREATE TABLE files (
    series INTEGER NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    folder INTEGER NOT NULL,
    name BLOB NOT NULL,                -- as the disk has it, which need not be text
    size INTEGER NOT NULL,
    sha256 BLOB,                       -- of the bytes that are in the mirror as well
    PRIMARY KEY (series, sop_instance_uid, folder, name)
) WITHOUT ROWID;
"""


class Standing(IntEnum):
    """How a series that was found stands with the archive and the mirror."""

    UNASKED = 0
    #: The archive does not give it.
    UNKNOWN = 1
    #: The mirror has to complete it.
    WANTED = 2
    #: The mirror has it whole.
    SETTLED = 3


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A DICOM file that was found, by its header."""

    series: int
    sop_instance_uid: str
    folder: int
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """A series of which files were found. `id` is this scratch file's number of it."""

    id: int
    uid: str


class FoundFiles:
    """The scratch file at `path`, which must not be there. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._threads = Threads(1, "found")
        with sqlite_errors(path):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._db.close()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of this file in a thread, after those already waiting."""
        return await self._threads.run(work, *args, **kwargs)

    def add(self, folder: Path, files: Sequence[tuple[str, str, str, int]]) -> None:
        """Note files of one folder: (SeriesInstanceUID, SOPInstanceUID, name, bytes)."""
        with sqlite_errors(self.path):
            self._db.execute("BEGIN")
            cursor = self._db.execute("INSERT INTO folders (path) VALUES (?)", (os.fsencode(folder),))
            number = cursor.lastrowid
            self._db.executemany(
                "INSERT INTO series (uid, standing) VALUES (?, ?) ON CONFLICT (uid) DO NOTHING",
                [(uid, Standing.UNASKED) for uid in {series for series, _, _, _ in files}],
            )
            self._db.executemany(
                "INSERT INTO files (series, sop_instance_uid, folder, name, size)"
                " SELECT id, ?, ?, ?, ? FROM series WHERE uid = ?",
                [(uid, number, os.fsencode(name), size, series) for series, uid, name, size in files],
            )
            self._db.execute("COMMIT")

    def series(self, standing: Standing, after: int, limit: int) -> list[FoundSeries]:
        """The next series of that standing, by number."""
        with sqlite_errors(self.path):
            rows = self._db.execute(
                "SELECT id, uid FROM series WHERE id > ? AND standing = ? ORDER BY id LIMIT ?", (after, standing, limit)
            )
            return [FoundSeries(*row) for row in rows]

    def find(self, series_instance_uid: str) -> FoundSeries | None:
        """The series of that UID, or None where no file of it was found."""
        with sqlite_errors(self.path):
            row = self._db.execute("SELECT id, uid FROM series WHERE uid = ?", (series_instance_uid,)).fetchone()
        return None if row is None else FoundSeries(*row)

    def set_standing(self, standing: Standing, uids: Sequence[str]) -> None:
        """Note how these series stand."""
        with sqlite_errors(self.path):
            self._db.executemany("UPDATE series SET standing = ? WHERE uid = ?", [(standing, uid) for uid in uids])

    def files(
        self, series: int, after: FoundFile | None, limit: int, *, proven: bool = False
    ) -> list[tuple[FoundFile, str | None]]:
        """The next files of a series, by UID and path, each with the SHA-256 that was noted; `proven`: only such."""
        key = ("", b"", b"")
        if after is not None:
            key = after.sop_instance_uid, os.fsencode(after.path.parent), os.fsencode(after.path.name)
        with sqlite_errors(self.path):
            rows = self._db.execute(
                "SELECT sop_instance_uid, folder, path, name, size, lower(hex(sha256)) FROM files"
                " JOIN folders ON folders.id = folder WHERE series = ? AND sop_instance_uid >= ?"
                " AND (sop_instance_uid, path, name) > (?, ?, ?) AND (sha256 IS NOT NULL OR NOT ?)"
                " ORDER BY sop_instance_uid, path, name LIMIT ?",
                (series, key[0], *key, proven, limit),
            ).fetchall()
        return [
            (FoundFile(series, uid, folder, Path(os.fsdecode(path), os.fsdecode(name)), size), digest or None)
            for uid, folder, path, name, size, digest in rows
        ]

    def prove(self, file: FoundFile, sha256: str) -> None:
        """Note that the mirror holds the file's bytes."""
        with sqlite_errors(self.path):
            self._db.execute(
                "UPDATE files SET sha256 = ? WHERE series = ? AND sop_instance_uid = ? AND folder = ? AND name = ?",
                (bytes.fromhex(sha256), file.series, file.sop_instance_uid, file.folder, os.fsencode(file.path.name)),
            )

    def count_series(self, standing: Standing) -> tuple[int, int]:
        """(series, files) of that standing."""
        with sqlite_errors(self.path):
            series, files = self._db.execute(
                "SELECT count(DISTINCT s.id), count(f.series) FROM series s LEFT JOIN files f ON f.series = s.id"
                " WHERE s.standing = ?",
                (standing,),
            ).fetchone()
        return int(series), int(files)

    def bytes_wanted(self) -> int:
        """Bytes of the series that the mirror has to complete, each instance once."""
        with sqlite_errors(self.path):
            (size,) = self._db.execute(
                "SELECT coalesce(sum(size), 0) FROM (SELECT max(f.size) AS size FROM files f"
                " JOIN series s ON s.id = f.series WHERE s.standing = ? GROUP BY f.series, f.sop_instance_uid)",
                (Standing.WANTED,),
            ).fetchone()
        return int(size)
