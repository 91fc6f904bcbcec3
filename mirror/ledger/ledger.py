"""The writer's side of the ledger: one connection, used by one thread at a time, behind one lock per mirror.

Methods are plain and short; async code calls them through `run`, which queues them on a thread, one by one. Each
writing method is one transaction: killed inside it, nothing of it has happened. A change of what is held raises the
`changes` counter in the same transaction, which is how export knows whether a manifest is stale.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio
import anyio.to_thread

from mirror.archive.rows import as_noun, from_json, to_json
from mirror.errors import LedgerError
from mirror.ledger.connection import connect, sqlite_errors
from mirror.ledger.lock import take_lock
from mirror.model import Action, Finding, FindingKind, Instance, Patient, Series, SeriesState, Study

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HeldSeries:
    """What the ledger knows of a series before a crawl looks at it again."""

    series: Series
    state: SeriesState


@dataclass(frozen=True, slots=True)
class Todo:
    """A series that a run is to fetch. `id` is the ledger's own number of it."""

    id: int
    series: Series
    directory: str
    state: SeriesState


@dataclass(frozen=True, slots=True)
class PlanSize:
    """A run's share of one collection: series to fetch by reason, objects, bytes (None: the archive does not say)."""

    collection: str
    new: int
    changed: int
    unfinished: int
    objects: int | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class SeriesTotals:
    """What is held of a series, against its newest listing."""

    listed: int
    held: int
    held_bytes: int
    #: Held, but not in the newest listing.
    unlisted: int


class Ledger:
    """The state of one mirror, open for writing. Use as a context manager; see the module's docstring.

    With `rehearse`, everything that is written is undone by `close`: how a plan is made without being kept.
    """

    def __init__(self, root: Path, *, rehearse: bool = False) -> None:
        self.path = root / ".mirror" / "ledger.sqlite"
        self._rehearse = rehearse
        self._limiter = anyio.CapacityLimiter(1)
        self._lock = take_lock(root)
        try:
            self._db = connect(self.path)
            if rehearse:
                self._db.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Close the file and let go of the lock. Safe to repeat."""
        # An open transaction, a rehearsal's, is rolled back by closing.
        self._db.close()
        self._lock.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of this ledger in a thread, after those already waiting. Not cut short by cancellation."""
        return await anyio.to_thread.run_sync(lambda: work(*args, **kwargs), limiter=self._limiter)

    @contextmanager
    def _transaction(self, *, changes: bool = False) -> Iterator[sqlite3.Connection]:
        # Inside a rehearsal, which is one transaction that is never committed, a step is a savepoint.
        begin, commit, undo = (
            ("SAVEPOINT step", "RELEASE step", "ROLLBACK TO step")
            if self._rehearse
            else ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
        )
        with sqlite_errors(self.path):
            self._db.execute(begin)
            try:
                yield self._db
                if changes:
                    self._db.execute(
                        "INSERT INTO meta VALUES ('changes', '1')"
                        " ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1"
                    )
            except BaseException:
                self._db.execute(undo)
                raise
            self._db.execute(commit)

    def _rows(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        with sqlite_errors(self.path):
            return self._db.execute(sql, args[0] if args and isinstance(args[0], dict) else args).fetchall()

    # Facts about the mirror

    def meta(self, key: str) -> str | None:
        """A fact about the mirror itself, or None."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", key)
        return rows[0][0] if rows else None

    def set_meta(self, **facts: str) -> None:
        """Write facts about the mirror itself."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", facts.items()
            )

    # Crawl and plan

    def begin_crawl(self, collection: str, scope: str, started_at: int) -> int:
        """Note that a crawl of a collection begins; its number goes to the rows that it brings."""
        with self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO crawls (collection, scope, started_at) VALUES (?, ?, ?)", (collection, scope, started_at)
            )
            return int(cursor.lastrowid or 0)

    def finish_crawl(self, crawl: int) -> None:
        """Note that every row of a crawl is in."""
        with self._transaction() as db:
            db.execute("UPDATE crawls SET finished_at = ? WHERE id = ?", (int(time.time()), crawl))

    def put_patients(self, crawl: int, patients: Sequence[Patient]) -> None:
        """Write rows of getPatient. Safe to repeat."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO patients VALUES (?, ?, ?, ?) ON CONFLICT (collection, patient_id)"
                " DO UPDATE SET raw = excluded.raw, crawl = excluded.crawl",
                [(p.collection, p.patient_id, to_json(p.raw), crawl) for p in patients],
            )

    def put_studies(self, crawl: int, studies: Sequence[Study]) -> None:
        """Write rows of getPatientStudy. Safe to repeat."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO studies VALUES (?, ?, ?, ?, ?) ON CONFLICT (study_instance_uid, collection, patient_id)"
                " DO UPDATE SET raw = excluded.raw, crawl = excluded.crawl",
                [(s.collection, s.patient_id, s.study_instance_uid, to_json(s.raw), crawl) for s in studies],
            )

    def patient_ids(self, crawl: int) -> list[str]:
        """PatientIDs that a crawl brought, in order."""
        return [row[0] for row in self._rows("SELECT patient_id FROM patients WHERE crawl = ? ORDER BY 1", crawl)]

    def study(self, collection: str, patient_id: str, study_instance_uid: str) -> Study | None:
        """The study of that name, if a crawl brought it."""
        rows = self._rows(
            "SELECT raw FROM studies WHERE study_instance_uid = ? AND collection = ? AND patient_id = ?",
            study_instance_uid,
            collection,
            patient_id,
        )
        if not rows:
            return None
        return as_noun(Study, from_json(rows[0][0]), collection=collection, patient_id=patient_id)

    def held_series(self, series_instance_uid: str) -> HeldSeries | None:
        """What the ledger knows of a series, or None."""
        rows = self._rows(
            "SELECT raw, collection, state FROM series WHERE series_instance_uid = ?", series_instance_uid
        )
        if not rows:
            return None
        raw, collection, state = rows[0]
        return HeldSeries(as_noun(Series, from_json(raw), collection=collection), SeriesState(state))

    def claim_directory(self, parts: Sequence[tuple[str, str]]) -> str:
        """The directory for a record whose path has these (name, identity) parts, from the root downwards.

        A name that another identity holds already, as a case-insensitive or normalising disk would see it, gets a
        suffix made from its own identity. Repeating a claim gives the same path.
        """
        path, lineage = "", ""
        with self._transaction() as db:
            for name, identity in parts:
                lineage += "\0" + identity
                for candidate in (name, f"{name}~{_suffix(lineage)}"):
                    wanted = f"{path}/{candidate}" if path else candidate
                    row = db.execute("SELECT path, identity FROM directories WHERE key = ?", (_key(wanted),)).fetchone()
                    if row is None:
                        db.execute("INSERT INTO directories VALUES (?, ?, ?)", (_key(wanted), wanted, lineage))
                        path = wanted
                        break
                    if row[1] == lineage:
                        path = row[0]
                        break
                else:
                    raise LedgerError(f"no free directory name for {name!r} below {path or 'the root'}")
        return path

    def plan_series(self, crawl: int, run: str, planned: Sequence[tuple[Series, Action, str]]) -> None:
        """Write crawled series with their action and directory; those to fetch are marked for `run`. Repeatable."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO series (series_instance_uid, collection, patient_id, study_instance_uid, modality,"
                " body_part_examined, manufacturer, image_count, file_size, max_submission_timestamp, date_released,"
                " raw, crawl, directory, state, why, planned_by)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (series_instance_uid) DO UPDATE SET collection = excluded.collection,"
                " patient_id = excluded.patient_id, study_instance_uid = excluded.study_instance_uid,"
                " modality = excluded.modality, body_part_examined = excluded.body_part_examined,"
                " manufacturer = excluded.manufacturer, image_count = excluded.image_count,"
                " file_size = excluded.file_size, max_submission_timestamp = excluded.max_submission_timestamp,"
                " date_released = excluded.date_released, raw = excluded.raw, crawl = excluded.crawl,"
                " state = CASE WHEN excluded.planned_by IS NULL THEN series.state"
                " WHEN series.state = 'open' THEN 'open' ELSE 'planned' END,"
                " why = excluded.why, planned_by = excluded.planned_by",
                [
                    (
                        s.series_instance_uid, s.collection, s.patient_id, s.study_instance_uid, s.modality,
                        s.body_part_examined, s.manufacturer, s.image_count, s.file_size, s.max_submission_timestamp,
                        s.date_released, to_json(s.raw), crawl, directory, SeriesState.PLANNED, action.why,
                        run if action.fetch else None,
                    )
                    for s, action, directory in planned
                ],
            )  # fmt: skip

    def directory_of(self, series_instance_uid: str) -> str | None:
        """The directory a series was given, which it keeps for life; None when the series is new."""
        rows = self._rows("SELECT directory FROM series WHERE series_instance_uid = ?", series_instance_uid)
        return rows[0][0] if rows else None

    def todo(self, run: str, after: int, limit: int) -> list[Todo]:
        """The next series, by ledger number, that `run` planned and has not judged yet."""
        return [
            Todo(
                id_,
                as_noun(Series, from_json(raw), collection=collection),
                directory,
                SeriesState(state),
            )
            for id_, raw, collection, directory, state in self._rows(
                "SELECT id, raw, collection, directory, state FROM series"
                " WHERE planned_by = ? AND id > ? ORDER BY id LIMIT ?",
                run,
                after,
                limit,
            )
        ]

    def plan_sizes(self, run: str) -> list[PlanSize]:
        """What `run` is to fetch, per collection, what is held already taken off."""
        rows = self._rows(
            "SELECT collection, sum(why = 'new'), sum(why = 'changed'), sum(why = 'unfinished'),"
            " sum(max(0, image_count - held)), sum(max(0, file_size - held_bytes)),"
            " count(*) = count(image_count), count(*) = count(file_size) FROM ("
            " SELECT s.collection, s.why, s.image_count, s.file_size, count(i.name) AS held,"
            " coalesce(sum(CASE WHEN i.name IS NOT NULL THEN i.bytes END), 0) AS held_bytes"
            " FROM series s LEFT JOIN instances i ON i.series = s.id WHERE s.planned_by = ? GROUP BY s.id"
            ") GROUP BY collection ORDER BY collection",
            run,
        )
        return [
            PlanSize(name, new, changed, unfinished, objects if counted else None, size if sized else None)
            for name, new, changed, unfinished, objects, size, counted, sized in rows
        ]

    def bytes_held(self) -> int:
        """Bytes of all instances that are held."""
        return int(self._rows("SELECT coalesce(sum(bytes), 0) FROM instances WHERE name IS NOT NULL")[0][0])

    # One series

    def open_series(self, series: int) -> int:
        """Begin to list a series: it is open, and its new listing's number comes back."""
        with self._transaction() as db:
            db.execute("UPDATE series SET state = ?, listing = listing + 1 WHERE id = ?", (SeriesState.OPEN, series))
            (listing,) = db.execute("SELECT listing FROM series WHERE id = ?", (series,)).fetchone()
        return int(listing)

    def list_instances(self, series: int, listing: int, uids: Iterable[str]) -> None:
        """Note that this listing of the series names these SOPInstanceUIDs. Safe to repeat."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO instances (series, sop_instance_uid, listing) VALUES (?, ?, ?)"
                " ON CONFLICT (series, sop_instance_uid) DO UPDATE SET listing = excluded.listing",
                [(series, uid, listing) for uid in uids],
            )

    def list_held(self, series: int, listing: int) -> None:
        """Take what is held for what is listed: for an archive that gives no list. Safe to repeat."""
        with self._transaction() as db:
            db.execute("UPDATE instances SET listing = ? WHERE series = ? AND name IS NOT NULL", (listing, series))

    def wanted(self, series: int, listing: int, after: str, limit: int, now: int) -> list[str]:
        """The next SOPInstanceUIDs, in order, that are listed, not held, and due."""
        return [
            uid
            for (uid,) in self._rows(
                "SELECT sop_instance_uid FROM instances WHERE series = ? AND sop_instance_uid > ?"
                " AND listing = ? AND name IS NULL AND coalesce(next_try, 0) <= ? ORDER BY sop_instance_uid LIMIT ?",
                series,
                after,
                listing,
                now,
                limit,
            )
        ]

    def is_held(self, series: int, sop_instance_uid: str) -> tuple[str, str] | None:
        """(name, SHA-256) under which an instance is held, or None."""
        rows = self._rows(
            "SELECT name, lower(hex(sha256)) FROM instances"
            " WHERE series = ? AND sop_instance_uid = ? AND name IS NOT NULL",
            series,
            sop_instance_uid,
        )
        return (rows[0][0], rows[0][1]) if rows else None

    def held_names(self, series: int) -> list[tuple[str, str, int]]:
        """(SOPInstanceUID, name, bytes) of every held instance of a series, by UID."""
        return [
            (uid, name, size)
            for uid, name, size in self._rows(
                "SELECT sop_instance_uid, name, bytes FROM instances"
                " WHERE series = ? AND name IS NOT NULL ORDER BY sop_instance_uid",
                series,
            )
        ]

    def record(self, series: int, held: Sequence[Instance], failed: Sequence[Finding] = ()) -> None:
        """Write what was published and what could not be had. Safe to repeat for `held`; each failure counts a try."""
        with self._transaction(changes=bool(held)) as db:
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
        rows = self._rows(
            "SELECT attempts FROM instances WHERE series = ? AND sop_instance_uid = ?", series, sop_instance_uid
        )
        return int(rows[0][0]) if rows else 0

    def forget(self, series: int, uids: Sequence[str]) -> None:
        """Note that these instances are not held after all (their files are gone)."""
        with self._transaction(changes=True) as db:
            db.executemany(
                "UPDATE instances SET name = NULL WHERE series = ? AND sop_instance_uid = ?",
                [(series, uid) for uid in uids],
            )

    def totals(self, series: int, listing: int) -> SeriesTotals:
        """What is held of a series against one listing of it."""
        rows = self._rows(
            "SELECT coalesce(sum(listing = :l), 0), coalesce(sum(listing = :l AND name IS NOT NULL), 0),"
            " coalesce(sum(CASE WHEN name IS NOT NULL THEN bytes END), 0),"
            " coalesce(sum(listing <> :l AND name IS NOT NULL), 0) FROM instances WHERE series = :s",
            {"l": listing, "s": series},
        )
        listed, held, size, unlisted = (v for v in rows[0])
        return SeriesTotals(listed, held, size, unlisted)

    def not_held(
        self, series: int, listing: int, limit: int
    ) -> list[tuple[str, int, int | None, FindingKind | None, str | None]]:
        """(SOPInstanceUID, attempts, next try, last finding's kind and words) of listed instances not held."""
        return [
            (uid, attempts, next_try, FindingKind(kind) if kind else None, detail)
            for uid, attempts, next_try, kind, detail in self._rows(
                "SELECT sop_instance_uid, attempts, next_try, finding, detail FROM instances"
                " WHERE series = ? AND listing = ? AND name IS NULL ORDER BY sop_instance_uid LIMIT ?",
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
            for uid, name, a, n in self._rows(
                "SELECT sop_instance_uid, name, acquisition_number, instance_number FROM instances"
                " WHERE series = ? AND name IS NOT NULL ORDER BY instance_number IS NULL, instance_number,"
                " sop_instance_uid",
                series,
            )
        ]

    def rename(self, series: int, names: Sequence[tuple[str, str]]) -> None:
        """Write new file names: (SOPInstanceUID, name)."""
        with self._transaction(changes=True) as db:
            db.executemany(
                "UPDATE instances SET name = ? WHERE series = ? AND sop_instance_uid = ?",
                [(name, series, uid) for uid, name in names],
            )

    def judge(self, series: int, state: SeriesState, findings: Sequence[Finding], verified: str = "") -> None:
        """Write the verdict on a series; it is no longer planned. `verified`: how all its instances were, besides."""
        with self._transaction(changes=True) as db:
            db.execute(
                "UPDATE series SET state = ?, findings = ?, judged_at = ?, planned_by = NULL WHERE id = ?",
                (state, json.dumps([str(f) for f in findings]), int(time.time()), series),
            )
            if verified:
                db.execute(
                    "UPDATE instances SET verified = verified || ',' || :how WHERE series = :series"
                    " AND name IS NOT NULL AND instr(',' || verified || ',', ',' || :how || ',') = 0",
                    {"how": verified, "series": series},
                )


def _key(path: str) -> str:
    """The path as a disk sees it that folds case and normalises Unicode (HFS+, APFS, NTFS)."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def _suffix(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
