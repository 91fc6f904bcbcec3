"""The writer's side of the ledger: what one series' instances are, from listed to judged.

Methods are plain and short; async code calls them through `run`, which queues them on a thread, one by one. Each
writing method is one transaction: killed inside it, nothing of it has happened. A change of what is held raises the
`changes` counter in the same transaction, which is how export knows whether a manifest is stale.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mirror.ledger.connection import sqlite_errors
from mirror.ledger.planning import Planning
from mirror.model import Digest, Finding, FindingKind, Instance, SeriesState


@dataclass(frozen=True, slots=True)
class SeriesTotals:
    """What is held of a series, against its newest listing."""

    listed: int
    held: int
    held_bytes: int
    #: Held, but not in the newest listing.
    unlisted: int


class Ledger(Planning):
    """The state of one mirror, open for writing: its file, its plan, and its series."""

    def open_series(self, series: int) -> int:
        """Begin to list a series: it is open, and its new listing's number comes back."""
        with self.transaction() as db:
            db.execute("UPDATE series SET state = ?, listing = listing + 1 WHERE id = ?", (SeriesState.OPEN, series))
            (listing,) = db.execute("SELECT listing FROM series WHERE id = ?", (series,)).fetchone()
        return int(listing)

    def list_instances(self, series: int, listing: int, uids: Iterable[str]) -> None:
        """Note that this listing of the series names these SOPInstanceUIDs. Safe to repeat."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO instances (series, sop_instance_uid, listing) VALUES (?, ?, ?)"
                " ON CONFLICT (series, sop_instance_uid) DO UPDATE SET listing = excluded.listing",
                [(series, uid, listing) for uid in uids],
            )

    def list_held(self, series: int, listing: int) -> None:
        """Take what is held for what is listed: for an archive that gives no list. Safe to repeat."""
        with self.transaction() as db:
            db.execute("UPDATE instances SET listing = ? WHERE series = ? AND name IS NOT NULL", (listing, series))

    def wanted(self, series: int, listing: int, after: str, limit: int, now: int) -> list[str]:
        """The next SOPInstanceUIDs, in order, that are listed, not held, and due."""
        return [
            uid
            for (uid,) in self.query(
                "SELECT sop_instance_uid FROM instances WHERE series = ? AND sop_instance_uid > ?"
                " AND listing = ? AND name IS NULL AND coalesce(next_try, 0) <= ? ORDER BY sop_instance_uid LIMIT ?",
                series,
                after,
                listing,
                now,
                limit,
            )
        ]

    def held_digest(self, series: int, sop_instance_uid: str) -> Digest | None:
        """Length and digests of an instance as it is held, or None."""
        rows = self.query(
            "SELECT bytes, lower(hex(sha256)), lower(hex(md5)) FROM instances"
            " WHERE series = ? AND sop_instance_uid = ? AND name IS NOT NULL",
            series,
            sop_instance_uid,
        )
        return Digest(bytes=rows[0][0], sha256=rows[0][1], md5=rows[0][2]) if rows else None

    def held_names(self, series: int) -> list[tuple[str, str, int]]:
        """(SOPInstanceUID, name, bytes) of every held instance of a series, by UID."""
        return [
            (uid, name, size)
            for uid, name, size in self.query(
                "SELECT sop_instance_uid, name, bytes FROM instances"
                " WHERE series = ? AND name IS NOT NULL ORDER BY sop_instance_uid",
                series,
            )
        ]

    def record(self, series: int, held: Sequence[Instance], failed: Sequence[Finding] = ()) -> None:
        """Write what was published and what could not be had. Safe to repeat for `held`; each failure counts a try."""
        with self.transaction(changes=bool(held)) as db:
            db.executemany(
                "INSERT INTO instances (series, sop_instance_uid, listing, name, bytes, sha256, md5, sop_class_uid,"
                " acquisition_number, instance_number, source, fetched_at, verified)"
                " VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (series, sop_instance_uid) DO UPDATE SET"
                " name = excluded.name, bytes = excluded.bytes, sha256 = excluded.sha256, md5 = excluded.md5,"
                " sop_class_uid = excluded.sop_class_uid, acquisition_number = excluded.acquisition_number,"
                " instance_number = excluded.instance_number, source = excluded.source,"
                " fetched_at = excluded.fetched_at, verified = excluded.verified,"
                " attempts = 0, next_try = NULL, finding = NULL, detail = NULL",
                [
                    (
                        series, i.header.sop_instance_uid, i.name, i.digest.bytes, bytes.fromhex(i.digest.sha256),
                        bytes.fromhex(i.digest.md5), i.header.sop_class_uid, i.header.acquisition_number,
                        i.header.instance_number, i.source, i.fetched_at, i.verified,
                    )
                    for i in held
                ],
            )  # fmt: skip
            db.executemany(
                "UPDATE instances SET attempts = attempts + 1, next_try = ?, finding = ?, detail = ?"
                " WHERE series = ? AND sop_instance_uid = ?",
                [(f.next_try, f.kind, f.detail, series, f.sop_instance_uid) for f in failed],
            )

    def attempts(self, series: int, sop_instance_uid: str) -> int:
        """How often an instance was asked for in vain, over all runs."""
        rows = self.query(
            "SELECT attempts FROM instances WHERE series = ? AND sop_instance_uid = ?", series, sop_instance_uid
        )
        return int(rows[0][0]) if rows else 0

    def forget(self, series: int, uids: Sequence[str], *, durable: bool = False) -> None:
        """Note that these instances are not held after all: their files are gone, or about to get other names.

        `durable`: this survives a power cut once it returns. Safe to repeat.
        """
        with self.transaction(changes=True, durable=durable) as db:
            db.executemany(
                "UPDATE instances SET name = NULL WHERE series = ? AND sop_instance_uid = ?",
                [(series, uid) for uid in uids],
            )

    def totals(self, series: int, listing: int) -> SeriesTotals:
        """What is held of a series against one listing of it."""
        rows = self.query(
            "SELECT coalesce(sum(listing = :l), 0), coalesce(sum(listing = :l AND name IS NOT NULL), 0),"
            " coalesce(sum(CASE WHEN name IS NOT NULL THEN bytes END), 0),"
            " coalesce(sum(listing <> :l AND name IS NOT NULL), 0) FROM instances WHERE series = :s",
            {"l": listing, "s": series},
        )
        listed, held, size, unlisted = (v for v in rows[0])
        return SeriesTotals(listed, held, size, unlisted)

    def asked_in_vain(
        self, series: int, listing: int, limit: int
    ) -> list[tuple[str, int, int | None, FindingKind | None, str | None]]:
        """(SOPInstanceUID, attempts, next try, last finding's kind and words) of listed instances that were not had.

        Those that were never asked for are not among them: `totals` counts them.
        """
        return [
            (uid, attempts, next_try, FindingKind(kind) if kind else None, detail)
            for uid, attempts, next_try, kind, detail in self.query(
                "SELECT sop_instance_uid, attempts, next_try, finding, detail FROM instances"
                " WHERE series = ? AND listing = ? AND name IS NULL AND attempts > 0 ORDER BY sop_instance_uid LIMIT ?",
                series,
                listing,
                limit,
            )
        ]

    def md5s(self, series: int) -> Iterator[str]:
        """MD5s (lower-case hex) of the held instances of a series, in ascending order."""
        with sqlite_errors(self.path):
            cursor = self._db.execute(
                "SELECT lower(hex(md5)) FROM instances WHERE series = ? AND name IS NOT NULL ORDER BY md5", (series,)
            )
            for (digest,) in cursor:
                yield digest

    def numbering(self, series: int) -> list[tuple[str, str, int | None, int | None]]:
        """(SOPInstanceUID, name, AcquisitionNumber, InstanceNumber) of held instances, by InstanceNumber and UID."""
        return [
            (uid, name, None if a is None else a, None if n is None else n)
            for uid, name, a, n in self.query(
                "SELECT sop_instance_uid, name, acquisition_number, instance_number FROM instances"
                " WHERE series = ? AND name IS NOT NULL ORDER BY instance_number IS NULL, instance_number,"
                " sop_instance_uid",
                series,
            )
        ]

    def rename(self, series: int, names: Sequence[tuple[str, str]]) -> None:
        """Write new file names: (SOPInstanceUID, name)."""
        with self.transaction(changes=True) as db:
            db.executemany(
                "UPDATE instances SET name = ? WHERE series = ? AND sop_instance_uid = ?",
                [(name, series, uid) for uid, name in names],
            )

    def judge(self, series: int, state: SeriesState, findings: Sequence[Finding], verified: str = "") -> None:
        """Write the verdict on a series; it is no longer planned. `verified`: how all its instances were, besides."""
        with self.transaction(changes=True) as db:
            db.execute(
                "UPDATE series SET state = ?, findings = ?, judged_at = ?, planned_by = NULL WHERE id = ?",
                (state, json.dumps([str(f) for f in findings]), int(time.time()), series),
            )
            db.executemany(
                "UPDATE instances SET verified = verified || ',' || :how WHERE series = :series"
                " AND name IS NOT NULL AND instr(',' || verified || ',', ',' || :how || ',') = 0",
                [{"how": word, "series": series} for word in verified.split(",") if word],
            )
