"""The writer's side of the ledger: what one series' instances are, from listed to judged.

Methods are plain and short; async code calls them through `run`, which queues them on a thread, one by one. Each
writing method is one transaction: killed inside it, nothing of it has happened. A change of what is held raises the
`changes` counter in the same transaction, which is how export knows whether a manifest is stale.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mirror.ledger.history import write_history
from mirror.ledger.planning import Planning
from mirror.ledger.verifying import Verifying
from mirror.ledger.withdrawing import Withdrawing
from mirror.model import Digest, Finding, FindingKind, Happened, HistoryEntry, Instance, SeriesState

#: How every instance of a complete series was verified besides: its series' count and bytes are the archive's.
JUDGED = "series-size"


@dataclass(frozen=True, slots=True)
class SeriesTotals:
    """What is held of a series, against its newest listing."""

    listed: int
    held: int
    held_bytes: int
    #: Held, but not in the newest listing.
    unlisted: int
    unlisted_bytes: int = 0
    #: Held, but the archive may have other bytes.
    doubted: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """How one instance stands: the newest listing that named it; its file's name and SHA-256 where it is held, and
    whether the archive may have other bytes for it.
    """

    listing: int
    name: str | None
    sha256: str | None
    doubted: bool


@dataclass(frozen=True, slots=True)
class Held:
    """An instance as it is held: its name, its digests, and whether the archive may have other bytes for it."""

    name: str
    digest: Digest
    doubted: bool
    #: It has been part of a series that was judged complete: the archive had these bytes then.
    was_right: bool


@dataclass(frozen=True, slots=True)
class Came:
    """Where a row of `record` is from: the series it is of, the run, and what became of the bytes before."""

    run: str
    collection: str
    series_instance_uid: str
    #: SOPInstanceUID -> where the bytes lie that an instance had before, below the root.
    retired: Mapping[str, str]


class Ledger(Planning, Withdrawing, Verifying):
    """The state of one mirror, open for writing: its file, its plan, and its series."""

    def open_series(self, series: int) -> int:
        """Begin to list a series: it is open, and its new listing's number comes back."""
        with self.transaction() as db:
            again = "UPDATE series SET state = ?, listing = listing + 1 WHERE id = ? RETURNING listing"
            (listing,) = db.execute(again, (SeriesState.OPEN, series)).fetchone()
        return int(listing)

    def list_instances(self, series: int, listing: int, uids: Iterable[str]) -> None:
        """Note that this listing of the series names these SOPInstanceUIDs. Safe to repeat."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO instances (series, sop_instance_uid, listing) VALUES (?, ?, ?)"
                " ON CONFLICT (series, sop_instance_uid) DO UPDATE SET listing = excluded.listing, unlisted_by = NULL",
                [(series, uid, listing) for uid in uids],
            )

    def list_held(self, series: int, listing: int) -> None:
        """Take what is held for what is listed: for an archive that gives no list. Safe to repeat."""
        with self.transaction() as db:
            db.execute("UPDATE instances SET listing = ? WHERE series = ? AND name IS NOT NULL", (listing, series))

    def wanted(self, series: int, listing: int, after: str, limit: int, now: int) -> list[tuple[str, bool]]:
        """The next SOPInstanceUIDs, in order, that are listed, due, and not held, or held in doubt (then True)."""
        return [
            (uid, bool(doubted))
            for uid, doubted in self.query(
                "SELECT sop_instance_uid, name IS NOT NULL FROM instances WHERE series = ? AND sop_instance_uid > ?"
                " AND listing = ? AND (name IS NULL OR doubted) AND coalesce(next_try, 0) <= ?"
                " ORDER BY sop_instance_uid LIMIT ?",
                series,
                after,
                listing,
                now,
                limit,
            )
        ]

    def held(self, series: int, sop_instance_uid: str) -> Held | None:
        """An instance as it is held, or None."""
        rows = self.query(
            "SELECT name, bytes, lower(hex(sha256)), lower(hex(md5)), doubted, verified FROM instances"
            " WHERE series = ? AND sop_instance_uid = ? AND name IS NOT NULL",
            series,
            sop_instance_uid,
        )
        if not rows:
            return None
        name, size, sha256, md5, doubted, verified = rows[0]
        digest = Digest(bytes=size, sha256=sha256, md5=md5)
        return Held(name, digest, bool(doubted), JUDGED in verified.split(","))

    def doubt(self, series: int, uids: Sequence[str] | None) -> None:
        """Note that the archive may have other bytes for these held instances, None: for all. Safe to repeat.

        None: what was told of the series is known of its instances now. Some: it is in doubt until it is complete.
        """
        with self.transaction() as db:
            if uids is None:
                db.execute("UPDATE instances SET doubted = 1 WHERE series = ? AND name IS NOT NULL", (series,))
                db.execute("UPDATE series SET doubted = 0 WHERE id = ?", (series,))
            else:
                db.executemany(
                    "UPDATE instances SET doubted = 1 WHERE series = ? AND sop_instance_uid = ? AND name IS NOT NULL",
                    [(series, uid) for uid in uids],
                )

    def trust(self, series: int, uids: Sequence[str]) -> None:
        """Note that the archive has the held bytes of these instances. Safe to repeat."""
        with self.transaction() as db:
            db.executemany(
                "UPDATE instances SET doubted = 0, attempts = 0, next_try = NULL, finding = NULL, detail = NULL"
                " WHERE series = ? AND sop_instance_uid = ?",
                [(series, uid) for uid in uids],
            )

    def doubted_names(self, series: int) -> dict[str, str]:
        """SOPInstanceUID -> SHA-256 of every instance that is held in doubt."""
        return dict(
            self.query(
                "SELECT sop_instance_uid, lower(hex(sha256)) FROM instances"
                " WHERE series = ? AND name IS NOT NULL AND doubted",
                series,
            )
        )

    def has_left(self, series: int, sop_instance_uid: str, sha256: str) -> bool:
        """True for the bytes of an instance that was taken out of the tree because the archive lists it no more."""
        return bool(
            self.query(
                "SELECT 1 FROM instances WHERE series = ? AND sop_instance_uid = ? AND name IS NULL"
                " AND unlisted_by IS NOT NULL AND sha256 = ?",
                series,
                sop_instance_uid,
                bytes.fromhex(sha256),
            )
        )

    def note_unlisted(self, series: int, listing: int, run: str) -> list[tuple[str, str, Digest]]:
        """Note that this run's list lacks what is held beside it; (UID, name, digest) of what an earlier run's lacked
        too. Only for a list that agrees with the archive's count. Safe to repeat.
        """
        with self.transaction() as db:
            db.execute(
                "UPDATE instances SET unlisted_by = ? WHERE series = ? AND name IS NOT NULL AND listing <> ?"
                " AND unlisted_by IS NULL",
                (run, series, listing),
            )
        return [
            (uid, name, Digest(bytes=size, sha256=sha256, md5=md5))
            for uid, name, size, sha256, md5 in self.query(
                "SELECT sop_instance_uid, name, bytes, lower(hex(sha256)), lower(hex(md5)) FROM instances"
                " WHERE series = ? AND name IS NOT NULL AND listing <> ? AND unlisted_by <> ?",
                series,
                listing,
                run,
            )
        ]

    def holdings(self, series: int, uids: Sequence[str]) -> dict[str, Holding]:
        """How these instances of a series stand, those that are listed or held, by SOPInstanceUID."""
        return {
            uid: Holding(listing, name, digest if name is not None else None, bool(doubted))
            for uid, listing, name, digest, doubted in self.query(
                "SELECT sop_instance_uid, listing, name, lower(hex(sha256)), doubted FROM instances"
                " WHERE series = ? AND sop_instance_uid IN (SELECT value FROM json_each(?))",
                series,
                json.dumps(uids),
            )
        }

    def series_number(self, series_instance_uid: str) -> int | None:
        """The ledger's own number of a series, or None where it does not know it."""
        rows = self.query("SELECT id FROM series WHERE series_instance_uid = ?", series_instance_uid)
        return int(rows[0][0]) if rows else None

    def settled_series(self, uids: Sequence[str]) -> set[str]:
        """Those of these series that are complete, or were until the archive told of a change."""
        return {
            uid
            for (uid,) in self.query(
                "SELECT series_instance_uid FROM series WHERE (state = ? OR doubted)"
                " AND series_instance_uid IN (SELECT value FROM json_each(?))",
                SeriesState.COMPLETE,
                json.dumps(uids),
            )
        }

    def held_names(self, series: int) -> list[tuple[str, str, int]]:
        """(SOPInstanceUID, name, bytes) of every held instance of a series, by UID."""
        return [
            (uid, name, size)
            for uid, name, size in self.each(
                "SELECT sop_instance_uid, name, bytes FROM instances"
                " WHERE series = ? AND name IS NOT NULL ORDER BY sop_instance_uid",
                series,
            )
        ]

    def record(
        self, series: int, held: Sequence[Instance], failed: Sequence[Finding] = (), came: Came | None = None
    ) -> None:
        """Write what was published and what could not be had. Safe to repeat for `held`; each failure counts a try.

        An instance that had other bytes before has changed: with `came` that goes into the history.
        """
        with self.transaction(changes=bool(held)) as db:
            if came is not None:
                write_history(db, self._changed(series, held, came))
            db.executemany(
                "INSERT INTO instances (series, sop_instance_uid, listing, name, bytes, sha256, md5, sop_class_uid,"
                " acquisition_number, instance_number, source, fetched_at, verified)"
                " VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (series, sop_instance_uid) DO UPDATE SET"
                " name = excluded.name, bytes = excluded.bytes, sha256 = excluded.sha256, md5 = excluded.md5,"
                " sop_class_uid = excluded.sop_class_uid, acquisition_number = excluded.acquisition_number,"
                " instance_number = excluded.instance_number, source = excluded.source,"
                " fetched_at = excluded.fetched_at, verified = excluded.verified, doubted = 0,"
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

    def _changed(self, series: int, held: Sequence[Instance], came: Came) -> Iterator[HistoryEntry]:
        before: dict[str, str] = dict(
            self.query(
                "SELECT sop_instance_uid, lower(hex(sha256)) FROM instances WHERE series = ? AND sha256 IS NOT NULL"
                " AND sop_instance_uid IN (SELECT value FROM json_each(?))",
                series,
                json.dumps([instance.header.sop_instance_uid for instance in held]),
            )
        )
        for instance in held:
            uid = instance.header.sop_instance_uid
            if uid in before and before[uid] != instance.digest.sha256:
                yield HistoryEntry(
                    what=Happened.CHANGED,
                    why="the archive has other bytes for it",
                    collection=came.collection,
                    series_instance_uid=came.series_instance_uid,
                    sop_instance_uid=uid,
                    bytes=instance.digest.bytes,
                    old_sha256=before[uid],
                    sha256=instance.digest.sha256,
                    retired=came.retired.get(uid),
                    run=came.run,
                )

    def attempts(self, series: int, sop_instance_uid: str) -> int:
        """How often an instance was asked for in vain, over all runs."""
        rows = self.query(
            "SELECT attempts FROM instances WHERE series = ? AND sop_instance_uid = ?", series, sop_instance_uid
        )
        return int(rows[0][0]) if rows else 0

    def forget(
        self, series: int, uids: Sequence[str], *, durable: bool = False, history: Sequence[HistoryEntry] = ()
    ) -> None:
        """Note that these instances are not held after all: their files are gone, or about to get other names.

        `durable`: this survives a power cut once it returns. Safe to repeat.
        """
        with self.transaction(changes=True, durable=durable) as db:
            write_history(db, history)
            db.executemany(
                "UPDATE instances SET name = NULL WHERE series = ? AND sop_instance_uid = ?",
                [(series, uid) for uid in uids],
            )

    def totals(self, series: int, listing: int) -> SeriesTotals:
        """What is held of a series against one listing of it."""
        rows = self.query(
            "SELECT coalesce(sum(listing = :l), 0), coalesce(sum(listing = :l AND name IS NOT NULL), 0),"
            " coalesce(sum(CASE WHEN name IS NOT NULL THEN bytes END), 0),"
            " coalesce(sum(listing <> :l AND name IS NOT NULL), 0),"
            " coalesce(sum(CASE WHEN listing <> :l AND name IS NOT NULL THEN bytes END), 0),"
            " coalesce(sum(listing = :l AND name IS NOT NULL AND doubted), 0) FROM instances WHERE series = :s",
            {"l": listing, "s": series},
        )
        return SeriesTotals(*rows[0])

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
                " WHERE series = ? AND listing = ? AND (name IS NULL OR doubted) AND attempts > 0"
                " ORDER BY sop_instance_uid LIMIT ?",
                series,
                listing,
                limit,
            )
        ]

    def md5s(self, series: int, listing: int) -> Iterator[str]:
        """MD5s (lower-case hex) of the instances of a series that are listed and held, in ascending order."""
        for (digest,) in self.each(
            "SELECT lower(hex(md5)) FROM instances WHERE series = ? AND listing = ? AND name IS NOT NULL ORDER BY md5",
            series,
            listing,
        ):
            yield digest

    def numbering(self, series: int) -> list[tuple[str, str, int | None, int | None]]:
        """(SOPInstanceUID, name, AcquisitionNumber, InstanceNumber) of held instances, by InstanceNumber and UID."""
        return [
            (uid, name, acquisition, number)
            for uid, name, acquisition, number in self.each(
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

    def judge(
        self,
        series: int,
        state: SeriesState,
        findings: Sequence[Finding],
        verified: str = "",
        history: Sequence[HistoryEntry] = (),
    ) -> None:
        """Write the verdict on a series; it is no longer planned. `verified`: how all its instances were, besides."""
        with self.transaction(changes=True) as db:
            write_history(db, history)
            db.execute(
                "UPDATE series SET state = :state, findings = :findings, judged_at = :now, planned_by = NULL,"
                " doubted = doubted AND :state <> 'complete' WHERE id = :series",
                {
                    "state": state,
                    "findings": json.dumps([str(f) for f in findings]),
                    "now": int(time.time()),
                    "series": series,
                },
            )
            db.executemany(
                "UPDATE instances SET verified = verified || ',' || :how WHERE series = :series"
                " AND name IS NOT NULL AND instr(',' || verified || ',', ',' || :how || ',') = 0",
                [{"how": word, "series": series} for word in verified.split(",") if word],
            )
