"""A ledger that is made again from a manifest and a tree.

It lies in a root of its own, <root>/.mirror/rebuild/, and takes its place when it is whole: at no time is there a
ledger that only looks so. Rows of the manifest are claims until the series' files have been read.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mirror.archive.rows import as_noun, as_row, to_json
from mirror.errors import store_errors
from mirror.ledger.connection import connect, sqlite_errors
from mirror.ledger.directories import path_key
from mirror.ledger.facts import write_facts
from mirror.ledger.file import rebuild_folder
from mirror.ledger.ledger import Ledger
from mirror.manifest import InstanceRow, SeriesRow, columns
from mirror.model import Instance, Presence, Series, SeriesState, Why

#: The run that series are planned for until their files have been read.
REBUILD = "rebuild"

_CLAIMS = """
CREATE TABLE IF NOT EXISTS claims (series INTEGER PRIMARY KEY, instances INTEGER NOT NULL, state TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the manifest says of one file of a series."""

    sop_instance_uid: str
    sop_class_uid: str
    name: str
    sha256: str
    source: str
    fetched_at: int
    verified: str


@dataclass(frozen=True, slots=True)
class ClaimedSeries:
    """What the manifest says of a series: how many instances, in which state, and those that it lists."""

    instances: int
    state: SeriesState
    claims: list[Claim]


class RebuiltLedger(Ledger):
    """The ledger of `root` while it is made again; go on with it, or begin. The caller holds the lock of `root`."""

    def __init__(self, root: Path) -> None:
        super().__init__(rebuild_folder(root))
        with sqlite_errors(self.path):
            self._db.execute(_CLAIMS)

    def load_series(self, rows: Sequence[SeriesRow]) -> None:
        """Write rows of manifest-series.csv. Safe to repeat, until the first series has been concluded."""
        with self.transaction() as db:
            for row in rows:
                values = {name: getattr(row, name) for name in columns(SeriesRow)}
                series = as_noun(Series, {"Collection": "", **as_row(values)})
                # What the archive withdrew was complete; the manifest has one column for both.
                withdrawn = row.state == Presence.WITHDRAWN
                state = SeriesState.COMPLETE if withdrawn else row.state
                presence = Presence.WITHDRAWN if withdrawn else Presence.PRESENT
                cursor = db.execute(
                    "INSERT INTO series (series_instance_uid, collection, patient_id, study_instance_uid, modality,"
                    " body_part_examined, manufacturer, image_count, file_size, date_released, raw, crawl, directory,"
                    " state, why, planned_by, presence, listing)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, 1)"
                    " ON CONFLICT (series_instance_uid) DO NOTHING RETURNING id",
                    (
                        series.series_instance_uid, series.collection, series.patient_id, series.study_instance_uid,
                        series.modality, series.body_part_examined, series.manufacturer, series.image_count,
                        series.file_size, series.date_released, to_json(series.raw), row.path, state,
                        Why.UNFINISHED, REBUILD, presence,
                    ),
                )  # fmt: skip
                if (number := cursor.fetchone()) is not None:
                    db.execute("INSERT INTO claims VALUES (?, ?, ?)", (number[0], row.instances, state))

    def load_instances(self, rows: Sequence[InstanceRow]) -> None:
        """Write rows of manifest.csv as claims, those of series that were loaded. As `load_series` otherwise."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO instances (series, sop_instance_uid, listing, name, bytes, sha256, md5, sop_class_uid,"
                " source, fetched_at, verified) SELECT id, ?, 1, ?, ?, ?, ?, ?, ?, ?, ? FROM series"
                " WHERE series_instance_uid = ? ON CONFLICT DO NOTHING",
                [
                    (
                        r.sop_instance_uid, r.path.rpartition("/")[2], r.bytes, bytes.fromhex(r.sha256),
                        bytes.fromhex(r.md5), r.sop_class_uid, r.source, _seconds(r.fetched_at), r.verified,
                        r.series_instance_uid,
                    )
                    for r in rows
                ],
            )  # fmt: skip

    def left_to_read(self) -> tuple[int, int]:
        """(series, instances) of the manifest whose files have not been read."""
        rows = self.query(
            "SELECT count(*), coalesce(sum(c.instances), 0) FROM claims c JOIN series s ON s.id = c.series"
            " WHERE s.planned_by = ?",
            REBUILD,
        )
        return int(rows[0][0]), int(rows[0][1])

    def claimed(self, series: int) -> ClaimedSeries:
        """What the manifest says of a series; nothing where it does not know it."""
        rows = self.query("SELECT instances, state FROM claims WHERE series = ?", series)
        instances, state = rows[0] if rows else (0, SeriesState.PLANNED)
        claims = [
            Claim(
                sop_instance_uid=uid, sop_class_uid=kind, name=name, sha256=sha256, source=source, fetched_at=at,
                verified=verified,
            )
            for uid, kind, name, sha256, source, at, verified in self.query(
                "SELECT sop_instance_uid, sop_class_uid, name, lower(hex(sha256)), source, fetched_at, verified"
                " FROM instances WHERE series = ? AND listing = 1 AND name IS NOT NULL ORDER BY sop_instance_uid",
                series,
            )
        ]  # fmt: skip
        return ClaimedSeries(instances, SeriesState(state), claims)

    def conclude(self, series: Series, number: int, held: Sequence[Instance], state: SeriesState) -> None:
        """Write what was found of a series: these instances and no others, and the archive's row. Safe to repeat."""
        self.record(number, held)
        now = int(time.time())
        keep = {instance.header.sop_instance_uid for instance in held}
        gone = [(number, uid) for uid, _, _ in self.held_names(number) if uid not in keep]
        with self.transaction(changes=True) as db:
            db.executemany("UPDATE instances SET name = NULL WHERE series = ? AND sop_instance_uid = ?", gone)
            db.execute(
                "UPDATE series SET raw = ?, state = ?, planned_by = NULL, judged_at = ?, verified_at = ? WHERE id = ?",
                (to_json(series.raw), state, now, now if state is SeriesState.COMPLETE else 0, number),
            )

    def knows_directory(self, path: str) -> bool:
        """True where a series lies in that directory."""
        return bool(self.query("SELECT 1 FROM series WHERE directory = ?", path))

    def collections(self) -> list[str]:
        """The names of the collections, in order."""
        return [name for (name,) in self.query("SELECT DISTINCT collection FROM series ORDER BY 1")]

    def hold_directory(self, path: str, parts: Sequence[tuple[str, str]]) -> None:
        """Give the directory at `path` to the record with these (name, identity) parts, as if it had claimed it.

        A name that is another's already stays so. Safe to repeat.
        """
        names = path.split("/")
        if len(names) != len(parts):
            return
        lineage = ""
        with self.transaction() as db:
            for depth, (_, identity) in enumerate(parts, start=1):
                lineage += "\0" + identity
                where = "/".join(names[:depth])
                db.execute(
                    "INSERT INTO directories VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING",
                    (path_key(where), where, lineage),
                )

    def finish(self) -> None:
        """Take away what only the making needed."""
        with self.transaction() as db:
            db.execute("DROP TABLE IF EXISTS claims")
            db.execute("DELETE FROM meta WHERE key = 'loaded'")


def complaint(root: Path) -> str | None:
    """What SQLite has against the ledger of `root`; None for a sound one. Raises TooNew and StoreDenied."""
    path = root / ".mirror" / "ledger.sqlite"
    with sqlite_errors(path):
        db = connect(path, read_only=True)
        try:
            (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            db.close()
    return None if said == "ok" else str(said)


def put_in_place(root: Path, facts: Mapping[str, str]) -> None:
    """Make the ledger that was rebuilt, and is closed, the mirror's own; one that is there goes aside.

    Killed anywhere, no other run begins before this has been done again.
    """
    folder = root / ".mirror"
    made = rebuild_folder(root) / ".mirror" / "ledger.sqlite"
    stem = time.strftime("ledger-%Y%m%dT%H%M%SZ", time.gmtime())
    names = itertools.chain([f"{stem}.sqlite"], (f"{stem}~{number}.sqlite" for number in itertools.count(2)))
    aside = next(name for name in names if not any(folder.glob(f"{name}*")))
    write_facts(root, facts)
    with store_errors(folder):
        for suffix in ("", "-wal", "-shm"):
            # A log without its ledger would be taken for the new one's.
            if (old := folder / f"ledger.sqlite{suffix}").exists():
                old.rename(folder / f"{aside}{suffix}")
        _flush(folder)
        made.rename(folder / "ledger.sqlite")
        _flush(folder)
        shutil.rmtree(rebuild_folder(root), ignore_errors=True)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp()) if moment else 0
