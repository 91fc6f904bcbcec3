"""Questions for holding a mirror against something else: its series and instances in one order, and their MD5s.

The order is that of the manifest: collection, patient, study, series, SOPInstanceUID, each by its UTF-8 bytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mirror.errors import LedgerError
from mirror.ledger.catalogue import Catalogue
from mirror.ledger.connection import scratch_ledger, sqlite_errors
from mirror.ledger.schema import MIGRATIONS, check_version
from mirror.model import Presence, Series, SeriesState


@dataclass(frozen=True, slots=True)
class ListedSeries:
    """A series that the archive lists, as far as the ledger knows. `id` is the ledger's own number of it."""

    id: int
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    #: It is complete, and nothing speaks against what is held of it.
    settled: bool


@dataclass(frozen=True, slots=True)
class KnownSeries:
    """A series that a ledger knows, and how much of it is held. `id` is the ledger's own number of it."""

    id: int
    collection: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    image_count: int | None
    file_size: int | None
    max_submission_timestamp: str | None
    date_released: str | None
    state: SeriesState
    presence: Presence
    instances: int
    bytes: int
    #: Something is known to differ that no other attribute tells of.
    doubted: bool


class Comparison(Catalogue):
    """A catalogue that can also be walked in order. Use as a Catalogue; several walks may be open at a time.

    Raises LedgerError for a ledger of an older version, which only a writer brings up to date.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        if (version := check_version(self._db, str(self.path))) < len(MIGRATIONS):
            self.close()
            raise LedgerError(
                f"{self.path}: written by an older tcia-mirror (ledger version {version}, not {len(MIGRATIONS)});"
                " the next sync brings it up to date"
            )

    def known_series(self, collection: str) -> Iterator[KnownSeries]:
        """Every series of the collection that is spelled so, by patient, study and UID."""
        return self._known(
            "collection = :collection COLLATE NOCASE AND collection = :collection"
            " ORDER BY patient_id, study_instance_uid, series_instance_uid",
            collection=collection,
        )

    def find_series(self, series_instance_uid: str) -> KnownSeries | None:
        """A series by its UID, whatever its collection."""
        return next(self._known("series_instance_uid = :uid", uid=series_instance_uid), None)

    def _known(self, where: str, **args: str) -> Iterator[KnownSeries]:
        for r in self._rows(
            "SELECT *, (SELECT count(*) FROM instances WHERE series = s.id AND name IS NOT NULL) AS held,"
            " (SELECT coalesce(sum(bytes), 0) FROM instances WHERE series = s.id AND name IS NOT NULL) AS held_bytes"
            f" FROM series s WHERE {where}",
            args,
        ):
            yield KnownSeries(
                id=r["id"], collection=r["collection"], patient_id=r["patient_id"],
                study_instance_uid=r["study_instance_uid"], series_instance_uid=r["series_instance_uid"],
                image_count=r["image_count"], file_size=r["file_size"],
                max_submission_timestamp=r["max_submission_timestamp"], date_released=r["date_released"],
                state=SeriesState(r["state"]), presence=Presence(r["presence"]), instances=r["held"],
                bytes=r["held_bytes"], doubted=bool(r["doubted"]),
            )  # fmt: skip

    def held_sums(self, series: int) -> Iterator[tuple[str, str]]:
        """(SOPInstanceUID, SHA-256) of the held instances of a series, by UID."""
        return self._held(series, "sha256")

    def held_md5s(self, series: int) -> Iterator[tuple[str, str]]:
        """(SOPInstanceUID, MD5) of the held instances of a series, by UID."""
        return self._held(series, "md5")

    def _held(self, series: int, digest: str) -> Iterator[tuple[str, str]]:
        for r in self._rows(
            f"SELECT sop_instance_uid, lower(hex({digest})) AS digest FROM instances"
            " WHERE series = :series AND name IS NOT NULL ORDER BY sop_instance_uid",
            {"series": series},
        ):
            yield r["sop_instance_uid"], r["digest"]

    def listed_series(
        self, collection: str, patient_id: str | None = None, study_instance_uid: str | None = None
    ) -> Iterator[ListedSeries]:
        """The series that the archive lists of a collection, or of a patient or study of it, by patient and study.

        Series that it lists no longer are not among them, whether or not they are held.
        """
        narrower = "" if patient_id is None else " AND patient_id = :patient"
        if study_instance_uid is not None:
            narrower += " AND study_instance_uid = :study"
        for r in self._rows(
            "SELECT id, patient_id, study_instance_uid, series_instance_uid,"
            " state = :complete AND NOT doubted AS settled FROM series"
            f" WHERE collection = :collection COLLATE NOCASE AND presence = :present{narrower}"
            " ORDER BY patient_id, study_instance_uid, series_instance_uid",
            {
                "collection": collection, "patient": patient_id, "study": study_instance_uid,
                "complete": SeriesState.COMPLETE, "present": Presence.PRESENT,
            },
        ):  # fmt: skip
            yield ListedSeries(
                r["id"], r["patient_id"], r["study_instance_uid"], r["series_instance_uid"], bool(r["settled"])
            )

    def is_settled(self, collection: str) -> bool:
        """True when every series that the archive lists of a collection is settled."""
        rows = self._rows(
            "SELECT 1 FROM series WHERE collection = :collection COLLATE NOCASE AND presence = :present"
            " AND NOT (state = :complete AND NOT doubted) LIMIT 1",
            {"collection": collection, "complete": SeriesState.COMPLETE, "present": Presence.PRESENT},
        )
        return next(rows, None) is None

    def md5s(self, series: int) -> Iterator[str]:
        """MD5s (lower-case hex) of the held instances of a series, in ascending order."""
        for r in self._rows(
            "SELECT lower(hex(md5)) AS md5 FROM instances WHERE series = :series AND name IS NOT NULL ORDER BY md5",
            {"series": series},
        ):
            yield r["md5"]


class Scratch(Comparison):
    """What something else has, to be put in any order and walked in ours: a ledger that is gone when it is closed."""

    def __init__(self) -> None:
        self.path = Path("the temporary database")
        self._db = scratch_ledger(self.path)

    def put_series(self, series: Iterable[Series]) -> None:
        """Take series that the other side has. Safe to repeat."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO series (series_instance_uid, collection, patient_id, study_instance_uid, image_count,"
                " file_size, max_submission_timestamp, date_released, raw, crawl, directory, state, why)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, '{}', 0, '', ?, '') ON CONFLICT (series_instance_uid) DO NOTHING",
                [
                    (
                        s.series_instance_uid, s.collection, s.patient_id, s.study_instance_uid, s.image_count,
                        s.file_size, s.max_submission_timestamp, s.date_released, SeriesState.COMPLETE,
                    )
                    for s in series
                ],
            )  # fmt: skip

    def put_instances(self, instances: Iterable[tuple[str, str, int, str]]) -> None:
        """Take instances of series that were put: (SeriesInstanceUID, SOPInstanceUID, bytes, SHA-256)."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO instances (series, sop_instance_uid, listing, name, bytes, sha256)"
                " SELECT id, ?, 0, '', ?, ? FROM series WHERE series_instance_uid = ?",
                [(sop, size, bytes.fromhex(sha256), series) for series, sop, size, sha256 in instances],
            )

    def doubt(self, series_instance_uid: str) -> None:
        """Note that a series differs though its row does not tell. Safe to repeat."""
        with self._transaction() as db:
            db.execute("UPDATE series SET doubted = 1 WHERE series_instance_uid = ?", (series_instance_uid,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with sqlite_errors(self.path):
            self._db.execute("BEGIN")
            yield self._db
            self._db.execute("COMMIT")
