"""The plan's side of the ledger: crawls, the archive's rows, directories, and what a run is to fetch."""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from mirror.archive.rows import as_noun, from_json, to_json
from mirror.errors import LedgerError
from mirror.ledger.file import LedgerFile
from mirror.model import Action, Patient, Series, SeriesState, Study


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


class Planning(LedgerFile):
    """What is written before a series is fetched."""

    def begin_crawl(self, collection: str, scope: str, started_at: int, run: str = "") -> int:
        """Note that a crawl of a collection begins, of this run; its number goes to the rows that it brings."""
        with self.transaction() as db:
            cursor = db.execute(
                "INSERT INTO crawls (collection, scope, run, started_at) VALUES (?, ?, ?, ?)",
                (collection, scope, run, started_at),
            )
            return int(cursor.lastrowid or 0)

    def finish_crawl(self, crawl: int) -> None:
        """Note that every row of a crawl is in."""
        with self.transaction() as db:
            db.execute("UPDATE crawls SET finished_at = ? WHERE id = ?", (int(time.time()), crawl))

    def finish_run(self, run: str) -> None:
        """Note that a run came to its end: the collections that it crawled whole are synced now. Safe to repeat."""
        with self.transaction() as db:
            db.execute(
                "UPDATE crawls SET synced_at = ? WHERE run = ? AND finished_at IS NOT NULL", (int(time.time()), run)
            )

    def put_patients(self, crawl: int, patients: Sequence[Patient]) -> None:
        """Write rows of getPatient. Safe to repeat."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO patients VALUES (?, ?, ?, ?) ON CONFLICT (collection, patient_id)"
                " DO UPDATE SET raw = excluded.raw, crawl = excluded.crawl",
                [(p.collection, p.patient_id, to_json(p.raw), crawl) for p in patients],
            )

    def put_studies(self, crawl: int, studies: Sequence[Study]) -> None:
        """Write rows of getPatientStudy. Safe to repeat."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO studies VALUES (?, ?, ?, ?, ?) ON CONFLICT (study_instance_uid, collection, patient_id)"
                " DO UPDATE SET raw = excluded.raw, crawl = excluded.crawl",
                [(s.collection, s.patient_id, s.study_instance_uid, to_json(s.raw), crawl) for s in studies],
            )

    def patient_ids(self, crawl: int) -> list[str]:
        """PatientIDs that a crawl brought, in order."""
        return [row[0] for row in self.query("SELECT patient_id FROM patients WHERE crawl = ? ORDER BY 1", crawl)]

    def study(self, collection: str, patient_id: str, study_instance_uid: str) -> Study | None:
        """The study of that name, if a crawl brought it."""
        rows = self.query(
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
        rows = self.query(
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
        with self.transaction() as db:
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

    def is_laid_out(self) -> bool:
        """True once a directory has been claimed: from then on the mirror's layout is fixed."""
        return bool(self.query("SELECT 1 FROM directories LIMIT 1"))

    def plan_series(self, crawl: int, run: str, planned: Sequence[tuple[Series, Action, str]]) -> None:
        """Write crawled series with their action and directory; those to fetch are marked for `run`. Repeatable."""
        # Rows, a licence among them, may change though no file does.
        told_anew = any(
            self.query(
                "SELECT 1 FROM series WHERE series_instance_uid = ? AND raw <> ?", s.series_instance_uid, to_json(s.raw)
            )
            for s, _, _ in planned
        )
        with self.transaction(changes=told_anew) as db:
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
        rows = self.query("SELECT directory FROM series WHERE series_instance_uid = ?", series_instance_uid)
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
            for id_, raw, collection, directory, state in self.query(
                "SELECT id, raw, collection, directory, state FROM series"
                " WHERE planned_by = ? AND id > ? ORDER BY id LIMIT ?",
                run,
                after,
                limit,
            )
        ]

    def plan_sizes(self, run: str) -> list[PlanSize]:
        """What `run` is to fetch, per collection, what is held already taken off."""
        rows = self.query(
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
        return int(self.query("SELECT coalesce(sum(bytes), 0) FROM instances WHERE name IS NOT NULL")[0][0])


def _key(path: str) -> str:
    """The path as a disk sees it that folds case and normalises Unicode (HFS+, APFS, NTFS)."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def _suffix(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
