"""The crawl's side of the ledger: which crawls there were, how far they know a collection, patients and studies."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mirror.archive.rows import as_noun, from_json, to_json
from mirror.ledger.file import LedgerFile
from mirror.model import Patient, Series, SeriesState, Study, Watermark


class Crawls(LedgerFile):
    """What a crawl writes besides series."""

    def begin_crawl(self, collection: str, scope: str, started_at: int, run: str = "", server: str = "") -> int:
        """Note that a crawl of a collection begins, of this run; its number goes to the rows that it brings.

        `started_at` is the run's start by the archive's clock, as that of a watermark.
        """
        with self.transaction() as db:
            cursor = db.execute(
                "INSERT INTO crawls (collection, scope, run, started_at, server) VALUES (?, ?, ?, ?, ?)",
                (collection, scope, run, started_at, server),
            )
            return int(cursor.lastrowid or 0)

    def watermark(self, server: str, collection: str, scope: str) -> Watermark | None:
        """How far the collection is known under the scope with this fingerprint; None: no crawl of it was complete."""
        rows = self.query(
            "SELECT at, whole_at FROM watermarks WHERE server = ? AND collection = ? AND scope = ?",
            server,
            collection,
            scope,
        )
        return Watermark(at=rows[0][0], whole_at=rows[0][1]) if rows else None

    def finish_run(self, run: str) -> None:
        """Note that a run came to its end: the collections that it crawled are synced now. Safe to repeat.

        Complete is a crawl of whose collection, or of whose listed series, nothing that the archive has is to be done.
        """
        with self.transaction() as db:
            db.execute(
                "UPDATE crawls SET synced_at = ?, complete = NOT EXISTS (SELECT 1 FROM series s"
                " WHERE s.state <> 'complete' AND s.presence = 'present' AND CASE crawls.collection"
                " WHEN '' THEN s.crawl = crawls.id ELSE s.collection = crawls.collection END)"
                " WHERE run = ? AND finished_at IS NOT NULL",
                (int(time.time()), run),
            )

    def known_since(self, collection: str) -> int | None:
        """The start of the oldest crawl that is the last to have seen a complete series of a collection; None: none.

        Of a series that no crawl has seen, since its ledger was rebuilt: when its first instance was fetched.
        """
        (found,) = self.query(
            "SELECT min(coalesce(c.started_at, (SELECT min(i.fetched_at) FROM instances i WHERE i.series = s.id)))"
            " FROM series s LEFT JOIN crawls c ON c.id = s.crawl WHERE s.collection = ? AND s.state = ?",
            collection,
            SeriesState.COMPLETE,
        )
        return None if found[0] is None else int(found[0])

    def put_patients(self, crawl: int, patients: Sequence[Patient], *, in_part: bool = False) -> None:
        """Write rows of getPatient. Safe to repeat.

        `in_part`: of NewPatientsInCollection, which may tell less of a patient; what it leaves out stays as it was.
        """
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO patients VALUES (?, ?, ?, ?) ON CONFLICT (collection, patient_id) DO UPDATE SET"
                " raw = CASE WHEN ? THEN json_patch(raw, excluded.raw) ELSE excluded.raw END, crawl = excluded.crawl",
                [(p.collection, p.patient_id, to_json(p.raw), crawl, in_part) for p in patients],
            )

    def put_studies(self, crawl: int, studies: Sequence[Study]) -> None:
        """Write rows of getPatientStudy. Safe to repeat."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO studies (collection, patient_id, study_instance_uid, raw, crawl) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (study_instance_uid, collection, patient_id)"
                " DO UPDATE SET raw = excluded.raw, crawl = excluded.crawl, named = NULL",
                [(s.collection, s.patient_id, s.study_instance_uid, to_json(s.raw), crawl) for s in studies],
            )

    def put_named_studies(self, crawl: int, studies: Sequence[Study]) -> None:
        """Write rows of NewStudiesInPatientCollection. Safe to repeat."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO studies (collection, patient_id, study_instance_uid, raw, crawl, named)"
                " VALUES (:collection, :patient, :study, :raw, :crawl, :crawl)"
                " ON CONFLICT (study_instance_uid, collection, patient_id) DO UPDATE SET"
                " raw = json_patch(raw, excluded.raw), crawl = excluded.crawl, named = excluded.named",
                [
                    {
                        "collection": s.collection, "patient": s.patient_id, "study": s.study_instance_uid,
                        "raw": to_json(s.raw), "crawl": crawl,
                    }
                    for s in studies
                ],
            )  # fmt: skip

    def fill_in_studies(self, crawl: int, studies: Sequence[Study]) -> None:
        """Write what getPatientStudy tells of studies, and nothing of whether they were named. Safe to repeat."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO studies (collection, patient_id, study_instance_uid, raw, crawl) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (study_instance_uid, collection, patient_id) DO UPDATE SET raw = excluded.raw",
                [(s.collection, s.patient_id, s.study_instance_uid, to_json(s.raw), crawl) for s in studies],
            )

    def is_named(self, crawl: int, series: Series) -> bool:
        """True when the since-calls name the series' study in this crawl."""
        rows = self.query(
            "SELECT named FROM studies WHERE study_instance_uid = ? AND collection = ? AND patient_id = ?",
            series.study_instance_uid,
            series.collection,
            series.patient_id,
        )
        return bool(rows) and rows[0][0] == crawl

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
