"""Questions of a person who looks at the mirror: page by page, by keys and indices, so that no list is ever whole.

What the archive has withdrawn is not shown, nor what `show_only` closed; what is not complete is, with its state and
findings. Each question is answered by one statement, but where it says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mirror.archive.rows import from_json
from mirror.ledger.catalogue import Catalogue
from mirror.ledger.shown import SEEN

_FIELDS = ("Modality", "SeriesDescription", "SeriesNumber", "BodyPartExamined", "StudyDate", "StudyDescription")
#: What the words of a search are looked for in, besides what the columns say.
_SEARCHED = ("SeriesDescription", "StudyDescription", "ProtocolName", "SeriesNumber", "ManufacturerModelName")
#: Series that one step of a search looks at, which takes about a tenth of a second.
_STEP = 20_000
#: Complete series without a size by the archive's word, up to which their instances are added up.
_ADDED_UP = 20_000
#: What lies behind every text that begins with another.
_BEHIND = "\U0010ffff"
_HELD = "(SELECT coalesce(sum(i.bytes), 0) FROM instances i WHERE i.series = s.id AND i.name IS NOT NULL)"

Row = dict[str, Any]


class Browsing(Catalogue):
    """A mirror's ledger for looking around. As Catalogue: read only, of one thread at a time."""

    def figures(self) -> list[Row]:
        """Each collection's counts, bytes, a licence and last sync; None for bytes that are not known.

        Reads every series once, by several statements. What is held of a complete series is what the archive says of
        it: otherwise it would not be complete.
        """
        synced = {
            row["collection"]: row["at"]
            for row in self._rows("SELECT collection, max(synced_at) AS at FROM crawls GROUP BY collection")
        }
        counted = self._rows(
            "SELECT g.*, first.raw FROM (SELECT s.collection, count(*) AS series,"
            " sum(s.state = 'complete') AS complete, sum(s.state = 'quarantined') AS quarantined,"
            " sum(s.presence = 'missing') AS missing,"
            " sum(s.image_count) AS images, sum(s.file_size) AS told, max(s.judged_at) AS judged, min(s.id) AS first,"
            " sum(CASE WHEN s.state = 'complete' THEN s.file_size ELSE 0 END) AS held,"
            " sum(s.state = 'complete' AND s.file_size IS NULL) AS untold"
            f" FROM series s WHERE {SEEN} GROUP BY s.collection) g"
            " JOIN series first ON first.id = g.first ORDER BY g.collection"
        )
        rows = [dict(row) for row in counted]
        part = dict(self._added_up("s.state <> 'complete'"))
        untold = sum(row["untold"] for row in rows) <= _ADDED_UP
        rest = dict(self._added_up("s.state = 'complete' AND s.file_size IS NULL")) if untold else {}
        return [
            {
                "collection": name,
                "series": row["series"],
                "complete": row["complete"],
                "quarantined": row["quarantined"],
                "incomplete": row["series"] - row["complete"] - row["quarantined"],
                "missing": row["missing"],
                "images": row["images"],
                "bytes": row["held"] + part.get(name, 0) + rest.get(name, 0) if untold or not row["untold"] else None,
                "told": row["told"],
                "licence": str(from_json(row["raw"]).get("LicenseName") or ""),
                "synced": synced.get(name) or row["judged"],
            }
            for row in rows
            for name in (row["collection"],)
        ]

    def _added_up(self, condition: str) -> Iterator[tuple[str, int]]:
        for row in self._rows(
            f"SELECT s.collection, sum({_HELD}) AS held FROM series s WHERE {SEEN} AND {condition}"
            " GROUP BY s.collection"
        ):
            yield row["collection"], row["held"]

    def patients_page(self, collection: str, contains: str, after: str, limit: int) -> list[str]:
        """The next PatientIDs behind `after` of a collection that contain some text, without regard to case."""
        return [
            row["patient_id"]
            for row in self._rows(
                "SELECT DISTINCT s.patient_id FROM series s WHERE s.collection = :collection COLLATE NOCASE"
                f" AND s.collection = :collection AND s.patient_id > :after AND {SEEN}"
                " AND (:contains = '' OR instr(lower(s.patient_id), lower(:contains)))"
                " ORDER BY s.patient_id LIMIT :limit",
                {"collection": collection, "contains": contains, "after": after, "limit": limit},
            )
        ]

    def series_page(self, collection: str, patient: str, after: tuple[str, int], limit: int) -> list[Row]:
        """The next series of a patient, study by study, behind a StudyInstanceUID and the `id` of a row."""
        return [
            _series(row)
            for row in self._rows(
                f"SELECT s.*, {_HELD} AS held FROM series s WHERE s.collection = :collection COLLATE NOCASE"
                " AND s.collection = :collection AND s.patient_id = :patient"
                f" AND (s.study_instance_uid, s.id) > (:study, :id) AND {SEEN}"
                " ORDER BY s.study_instance_uid, s.id LIMIT :limit",
                {"collection": collection, "patient": patient, "study": after[0], "id": after[1], "limit": limit},
            )
        ]

    def search_step(self, collection: str, words: str, after: int, limit: int) -> tuple[list[Row], int | None]:
        """Series of a collection in which every word occurs, without regard to case, behind a row's `id`.

        With them the `id` behind which to go on, or None at the end: a step looks at no more than a part.
        """
        wanted = words.lower().split()
        found: list[Row] = []
        looked, last = 0, after
        # Of a collection that is closed nothing is looked at: not even how large it is may be told.
        step = (
            "SELECT * FROM series WHERE collection = :collection AND id > :after"
            " AND collection NOT IN (SELECT name FROM temp.closed) ORDER BY id LIMIT :step"
        )
        for row in self._rows(
            f"SELECT s.*, {_HELD} AS held, {SEEN} AS seen FROM ({step}) s ORDER BY s.id",
            {"collection": collection, "after": after, "step": _STEP},
        ):
            looked, last = looked + 1, row["id"]
            if not row["seen"]:
                continue
            raw = row["raw"].lower()
            # Most rows fall out before they are parsed; what is no ASCII may be spelled otherwise in JSON.
            if all(word in raw or not word.isascii() for word in wanted) and _has(row, wanted):
                found.append(_series(row))
                if len(found) == limit:
                    return found, last
        return found, last if looked == _STEP else None

    def unfinished_page(self, collection: str, after: int, limit: int) -> list[Row]:
        """The next series of a collection that are not complete or that the archive lists no more, behind an `id`."""
        return [
            _series(row)
            for row in self._rows(
                f"SELECT s.*, {_HELD} AS held FROM series s WHERE s.collection = :collection AND s.id > :after"
                f" AND (s.state <> 'complete' OR s.presence = 'missing') AND {SEEN} ORDER BY s.id LIMIT :limit",
                {"collection": collection, "after": after, "limit": limit},
            )
        ]

    def one_series(self, series_instance_uid: str) -> Row | None:
        """One series, or None where it is not known or withdrawn."""
        for row in self._rows(
            f"SELECT s.*, {_HELD} AS held FROM series s WHERE s.series_instance_uid = :uid AND {SEEN}",
            {"uid": series_instance_uid},
        ):
            return _series(row)
        return None

    def instances_page(self, series_instance_uid: str, after: tuple[int | None, str] | None, limit: int) -> list[Row]:
        """The next instances held of a complete series, by InstanceNumber, then SOPInstanceUID, behind these two."""
        number, uid = after or (None, "")
        return [
            dict(row)
            for row in self._rows(
                "SELECT i.sop_instance_uid AS uid, i.instance_number AS number, i.bytes FROM series s"
                " JOIN instances i ON i.series = s.id WHERE s.series_instance_uid = :series AND s.state = 'complete'"
                f" AND {SEEN} AND i.name IS NOT NULL"
                " AND (i.instance_number IS NULL, coalesce(i.instance_number, 0), i.sop_instance_uid)"
                " > (:unnumbered, :number, :uid)"
                " ORDER BY i.instance_number IS NULL, i.instance_number, i.sop_instance_uid LIMIT :limit",
                {
                    "series": series_instance_uid,
                    "unnumbered": -1 if after is None else int(number is None),
                    "number": number or 0,
                    "uid": uid,
                    "limit": limit,
                },
            )
        ]

    def find(self, text: str, limit: int) -> list[Row]:
        """Collections, patients, studies and series that begin with some text, and an instance by its whole UID.

        By several statements, each by an index; a collection's name may contain the text. A patient whose whole
        PatientID it is comes before those that only begin so, however many there are.
        """
        if not text:
            return []
        places = [{"collection": name} for name in self._seen_collections() if text.lower() in name.lower()][:limit]
        span = {"first": text, "behind": text + _BEHIND, "limit": limit}
        patients = []
        for name in self._seen_collections():
            patients += [
                {"collection": name, "patient": row["patient_id"]}
                for row in self._rows(
                    "SELECT DISTINCT s.patient_id FROM series s WHERE s.collection = :name COLLATE NOCASE"
                    f" AND s.collection = :name AND s.patient_id >= :first AND s.patient_id < :behind AND {SEEN}"
                    " ORDER BY s.patient_id LIMIT :limit",
                    {**span, "name": name},
                )
            ]
        # Stable: those that only begin so stay collection by collection.
        patients.sort(key=lambda place: place["patient"] != text)
        places += patients[: max(0, 2 * limit - len(places))]
        if text[0].isdecimal():
            places += [dict(row) for row in self._rows(_STUDIES, span)]
            places += [dict(row) for row in self._rows(_SERIES, span)]
            if not any("series" in place for place in places) and self.instance(text) is not None:
                places += [dict(row) for row in self._rows(_OF_INSTANCE, {"uid": text})]
        return places

    def _seen_collections(self) -> list[str]:
        return [name for name in self.all_collections() if not self.is_closed(name)]

    def to_do(self) -> int:
        """How many series planned runs have still to finish."""
        return next(
            int(row["n"])
            for row in self._rows(
                "SELECT count(*) AS n FROM series WHERE planned_by IS NOT NULL AND state <> 'complete'"
            )
        )

    def written(self) -> int:
        """A number that changes when another connection, such as a running sync's, has written to the ledger."""
        return next(int(row[0]) for row in self._rows("PRAGMA data_version"))


_STUDIES = (
    "SELECT DISTINCT s.collection, s.patient_id AS patient, s.study_instance_uid AS study FROM studies t"
    " JOIN series s ON s.collection = t.collection COLLATE NOCASE AND s.collection = t.collection"
    " AND s.patient_id = t.patient_id AND s.study_instance_uid = t.study_instance_uid"
    f" WHERE t.study_instance_uid >= :first AND t.study_instance_uid < :behind AND {SEEN} LIMIT :limit"
)
_SERIES = (
    "SELECT s.collection, s.patient_id AS patient, s.series_instance_uid AS series FROM series s"
    f" WHERE s.series_instance_uid >= :first AND s.series_instance_uid < :behind AND {SEEN} LIMIT :limit"
)
_OF_INSTANCE = (
    "SELECT s.collection, s.patient_id AS patient, s.series_instance_uid AS series, i.sop_instance_uid AS instance"
    " FROM series s JOIN instances i ON i.series = s.id AND i.name IS NOT NULL AND i.sop_instance_uid = :uid"
    f" WHERE {SEEN} AND s.state = 'complete' LIMIT 1"
)


def _has(row: Any, wanted: list[str]) -> bool:
    raw = from_json(row["raw"])
    columns = ("patient_id", "series_instance_uid", "study_instance_uid", "modality", "body_part_examined")
    values = [row[name] for name in (*columns, "manufacturer")] + [raw.get(name) for name in _SEARCHED]
    text = "\n".join(str(value).lower() for value in values if value is not None)
    return all(word in text for word in wanted)


def _series(row: Any) -> Row:
    raw = from_json(row["raw"])
    return {
        "id": row["id"],
        "uid": row["series_instance_uid"],
        "study": row["study_instance_uid"],
        "collection": row["collection"],
        "patient": row["patient_id"],
        "images": row["image_count"],
        "bytes": row["held"],
        "told": row["file_size"],
        "state": row["state"] if row["presence"] == "present" else f"{row['state']}, {row['presence']}",
        "complete": row["state"] == "complete",
        "findings": json.loads(row["findings"]),
        **{name: "" if raw.get(name) is None else str(raw[name]) for name in _FIELDS},
    }
