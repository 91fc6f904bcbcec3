"""Questions of a person who looks at the mirror: page by page, by keys and indices, so that no list is ever whole.

What the archive has withdrawn is not shown; what is not complete is, with its state and findings.
"""

from __future__ import annotations

import json
from typing import Any

from mirror.archive.rows import from_json
from mirror.ledger.catalogue import Catalogue

_FIELDS = ("Modality", "SeriesDescription", "SeriesNumber", "BodyPartExamined", "StudyDate", "StudyDescription")
#: Counting what a run has still to do ends here: a page needs no exact figure beyond it.
_MOST_COUNTED = 10_000


class Browsing(Catalogue):
    """A mirror's ledger for looking around. As Catalogue: read only, of one thread at a time."""

    def figures(self) -> list[dict[str, Any]]:
        """Each collection's counts, bytes by the archive's word, a licence and last sync. Reads every series once."""
        synced = {
            row["collection"]: row["at"]
            for row in self._rows("SELECT collection, max(synced_at) AS at FROM crawls GROUP BY collection")
        }
        return [
            {
                "collection": row["collection"],
                "series": row["series"],
                "complete": row["complete"],
                "images": row["images"],
                "bytes": row["bytes"],
                "licence": str(from_json(row["raw"]).get("LicenseName") or ""),
                "synced": synced.get(row["collection"]) or row["judged"],
            }
            for row in self._rows(
                "SELECT g.*, s.raw FROM (SELECT collection, count(*) AS series, sum(state = 'complete') AS complete,"
                " sum(image_count) AS images, sum(file_size) AS bytes, max(judged_at) AS judged, min(id) AS first"
                " FROM series WHERE presence <> 'withdrawn' GROUP BY collection) g"
                " JOIN series s ON s.id = g.first ORDER BY g.collection"
            )
        ]

    def patients_page(self, collection: str, contains: str, after: str, limit: int) -> list[str]:
        """The next PatientIDs behind `after` of a collection that contain some text, without regard to case."""
        return [
            row["patient_id"]
            for row in self._rows(
                "SELECT DISTINCT patient_id FROM series WHERE collection = :collection COLLATE NOCASE"
                " AND collection = :collection AND patient_id > :after AND presence <> 'withdrawn'"
                " AND (:contains = '' OR instr(lower(patient_id), lower(:contains)))"
                " ORDER BY patient_id LIMIT :limit",
                {"collection": collection, "contains": contains, "after": after, "limit": limit},
            )
        ]

    def series_page(self, collection: str, patient: str, after: tuple[str, int], limit: int) -> list[dict[str, Any]]:
        """The next series of a patient, study by study, behind a StudyInstanceUID and the `id` of a row."""
        return [
            _series(row)
            for row in self._rows(
                "SELECT * FROM series WHERE collection = :collection COLLATE NOCASE AND collection = :collection"
                " AND patient_id = :patient AND (study_instance_uid, id) > (:study, :id) AND presence <> 'withdrawn'"
                " ORDER BY study_instance_uid, id LIMIT :limit",
                {"collection": collection, "patient": patient, "study": after[0], "id": after[1], "limit": limit},
            )
        ]

    def one_series(self, series_instance_uid: str) -> dict[str, Any] | None:
        """One series, or None where it is not known or withdrawn."""
        for row in self._rows(
            "SELECT * FROM series WHERE series_instance_uid = :uid AND presence <> 'withdrawn'",
            {"uid": series_instance_uid},
        ):
            return _series(row)
        return None

    def instances_page(self, series_instance_uid: str, after: str, limit: int) -> list[dict[str, Any]]:
        """The next instances held of a complete series behind a SOPInstanceUID, in the order of these UIDs."""
        return [
            dict(row)
            for row in self._rows(
                "SELECT i.sop_instance_uid AS uid, i.instance_number AS number, i.bytes FROM series s"
                " JOIN instances i ON i.series = s.id WHERE s.series_instance_uid = :uid AND s.state = 'complete'"
                " AND s.presence <> 'withdrawn' AND i.sop_instance_uid > :after AND i.name IS NOT NULL"
                " ORDER BY i.sop_instance_uid LIMIT :limit",
                {"uid": series_instance_uid, "after": after, "limit": limit},
            )
        ]

    def to_do(self) -> int:
        """How many series planned runs have still to finish; no more than ten thousand are counted."""
        for row in self._rows(
            "SELECT count(*) AS n FROM (SELECT 1 FROM series WHERE planned_by IS NOT NULL AND state <> 'complete'"
            " LIMIT :most)",
            {"most": _MOST_COUNTED},
        ):
            return int(row["n"])
        return 0

    def written(self) -> int:
        """A number that changes when another connection, such as a running sync's, has written to the ledger."""
        return next(int(row[0]) for row in self._rows("PRAGMA data_version"))


def _series(row: Any) -> dict[str, Any]:
    raw = from_json(row["raw"])
    return {
        "id": row["id"],
        "uid": row["series_instance_uid"],
        "study": row["study_instance_uid"],
        "collection": row["collection"],
        "patient": row["patient_id"],
        "images": row["image_count"],
        "bytes": row["file_size"],
        "state": row["state"],
        "findings": json.loads(row["findings"]),
        **{name: "" if raw.get(name) is None else str(raw[name]) for name in _FIELDS},
    }
