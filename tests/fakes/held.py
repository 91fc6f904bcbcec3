"""What a mirror holds, looked at from outside: its files, and what its ledger says of them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from fakes.mirroring import EXPORTED
from fakes.world import sha256_of

#: What the ledger says of a series: state, presence, and (SOPInstanceUID, path, SHA-256) of what it holds.
Row = tuple[str, str, list[tuple[str, str, str]]]


def ledger_rows(root: Path) -> dict[str, Row]:
    """SeriesInstanceUID -> what the ledger says of it; empty where there is no ledger."""
    path = root / ".mirror" / "ledger.sqlite"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows: dict[str, Row] = {
            uid: (state, presence, [])
            for uid, state, presence in db.execute("SELECT series_instance_uid, state, presence FROM series")
        }
        for uid, sop, below, digest in db.execute(
            "SELECT series_instance_uid, sop_instance_uid, directory || '/' || name, lower(hex(sha256))"
            " FROM instances JOIN series ON series.id = series WHERE name IS NOT NULL"
        ):
            rows[uid][2].append((sop, below, digest))
    return rows


def last_walks(root: Path) -> dict[str, datetime]:
    """By collection, the start of the last walk through all of it that the ledger knows as complete."""
    with closing(sqlite3.connect(f"file:{root / '.mirror' / 'ledger.sqlite'}?mode=ro", uri=True)) as db:
        found = db.execute("SELECT collection, max(whole_at) FROM watermarks GROUP BY collection").fetchall()
    return {collection: datetime.fromtimestamp(at, UTC) for collection, at in found if at is not None}


class Files:
    """SHA-256 of every file below a folder that is of no `.mirror`, read again only where it is another."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, tuple[tuple[int, int, int], str]] = {}

    def scan(self) -> dict[str, str]:
        """Path below the folder -> SHA-256."""
        known = {}
        for name, entry in _walk(str(self._root), ""):
            # A killed export leaves its part beside the manifest; the next one takes it away.
            if name in EXPORTED or (name.startswith(".") and name.endswith(".part")):
                continue
            found = entry.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            before = self._known.get(name)
            same = before is not None and before[0] == stamp
            known[name] = before if same else (stamp, sha256_of(Path(entry.path).read_bytes()))
        self._known = known
        return {name: digest for name, (_, digest) in known.items()}


def _walk(folder: str, below: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    if not Path(folder).is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == ".mirror":
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{below}{entry.name}/")
            else:
                yield below + entry.name, entry
