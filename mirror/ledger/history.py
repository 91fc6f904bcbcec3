"""What happened to the mirror's series and instances, and when: entries are only ever added."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import replace

from mirror.ledger.file import LedgerFile
from mirror.model import Happened, HistoryEntry, Series


class History(LedgerFile):
    """The ledger's record of what came, changed and left."""

    def note(self, entries: Iterable[HistoryEntry]) -> None:
        """Write entries that go with no other change of the ledger."""
        with self.transaction() as db:
            write_history(db, entries)

    def forget_retired(self, folder: str, why: str) -> int:
        """Note that the bytes below a folder are pruned; of how many series. Safe to repeat.

        `folder` is below the root, as in the entries, which promise no bytes any more from now on.
        """
        within = {"first": f"{folder}/", "behind": f"{folder}0"}  # "0" is what comes after "/"
        with self.transaction() as db:
            pruned = db.execute(
                "SELECT collection, series_instance_uid, sum(CASE WHEN sop_instance_uid IS NULL THEN instances ELSE 1"
                " END) FROM history WHERE retired >= :first AND retired < :behind GROUP BY 1, 2 ORDER BY 1, 2",
                within,
            ).fetchall()
            told = HistoryEntry(what=Happened.PRUNED, why=why, collection="", series_instance_uid="")
            write_history(
                db,
                (
                    replace(told, collection=collection, series_instance_uid=series, instances=count)
                    for collection, series, count in pruned
                ),
            )
            db.execute("UPDATE history SET retired = NULL WHERE retired >= :first AND retired < :behind", within)
        return len(pruned)


def write_history(db: sqlite3.Connection, entries: Iterable[HistoryEntry]) -> None:
    """Write entries inside the caller's transaction, so that what happened and its entry are one."""
    now = int(time.time())
    db.executemany(
        "INSERT INTO history (at, run, what, why, collection, series_instance_uid, sop_instance_uid, instances, bytes,"
        " old_sha256, sha256, retired) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                e.at or now, e.run, e.what, e.why, e.collection, e.series_instance_uid, e.sop_instance_uid, e.instances,
                e.bytes, _bytes(e.old_sha256), _bytes(e.sha256), e.retired,
            )
            for e in entries
        ],
    )  # fmt: skip


def series_entry(series: Series, what: Happened, why: str, run: str) -> HistoryEntry:
    """An entry about a whole series."""
    return HistoryEntry(
        what=what, why=why, collection=series.collection, series_instance_uid=series.series_instance_uid, run=run
    )


def _bytes(digest: str | None) -> bytes | None:
    return None if digest is None else bytes.fromhex(digest)
