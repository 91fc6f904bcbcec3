"""Which series `serve` shows, and which day counts as a series' own, as conditions of SQL on `series s`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Canonical parameter -> column of `series`; what is not a column is looked up in the raw row.
SERIES_COLUMNS = {
    "Collection": "collection",
    "PatientID": "patient_id",
    "StudyInstanceUID": "study_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "Modality": "modality",
    "BodyPartExamined": "body_part_examined",
    "Manufacturer": "manufacturer",
    "DateReleased": "date_released",
}
#: The order of series that an index has: what is held of each is counted as rows are taken, and not before the first.
BY_INDEX = "s.collection COLLATE NOCASE, s.patient_id, s.study_instance_uid, s.series_instance_uid"
#: Conditions that few series meet.
_FEW = frozenset({"PatientID", "StudyInstanceUID", "SeriesInstanceUID"})
_OPEN = " AND s.collection NOT IN (SELECT name FROM temp.closed)"
#: What a person may look at, whatever its state.
SEEN = "s.presence <> 'withdrawn'" + _OPEN
_COMPLETE = "s.state = 'complete'"
#: Of a series of which nothing is held there is nothing to show, whatever its state.
_HELD = "EXISTS (SELECT 1 FROM instances e WHERE e.series = s.id AND e.name IS NOT NULL)"
#: The UTC day on which a series came into this mirror as it is now: when it was judged, or listed again after it had
#: been missing. A changed series is judged once more.
_INGESTED = (
    "date(max(coalesce(s.judged_at, 0), coalesce((SELECT max(h.at) FROM history h"
    " WHERE h.series_instance_uid = s.series_instance_uid AND h.what = 'returned'), 0)), 'unixepoch')"
)
#: Where a mirror knows no days of release: the tcia dialect tells none (and what another told before may be old), nor
#: do the mirrors of such a mirror. An archive that has some series without a day is another thing: it names them to
#: nobody.
_NO_DAYS = (
    "(SELECT m.value FROM meta m WHERE m.key = 'dialect') = 'tcia' OR s.date_released IS NULL"
    " AND (SELECT count(some.day) FROM (SELECT date_released AS day FROM series LIMIT 1000) some) = 0"
)
_RELEASED = f"CASE WHEN {_NO_DAYS} THEN {_INGESTED} ELSE s.date_released END"


class Shown:
    """What a catalogue shows: complete series and, with `incomplete`, all of which something is held.

    With `by_ingest`, or where no days of release are known, a series' day is the one on which it came into this mirror.
    """

    def __init__(self, *, incomplete: bool, by_ingest: bool) -> None:
        state = _HELD if incomplete else _COMPLETE
        #: What is shown, and what would be had the archive not withdrawn it.
        self.shown = f"{state} AND s.presence <> 'withdrawn'{_OPEN}"
        self.hidden = f"{state} AND s.presence = 'withdrawn'{_OPEN}"
        #: The ISO day that since-calls go by.
        self.day = _INGESTED if by_ingest else _RELEASED

    def where(
        self, where: Mapping[str, str], since: str | None = None, hidden: bool = False
    ) -> tuple[str, dict[str, Any]]:
        """The condition for canonical parameters, and its arguments."""
        conditions, args = [self.hidden if hidden else self.shown], dict[str, Any]()
        for number, (name, value) in enumerate(where.items()):
            column = SERIES_COLUMNS.get(name)
            if column is not None:
                # A patient is few series and a collection many: SQLite would take the latter's index.
                column = f"+s.{column}" if name == "Collection" and not _FEW.isdisjoint(where) else f"s.{column}"
            else:
                column = "json_extract(s.raw, :field" + str(number) + ")"
                args[f"field{number}"] = f'$."{name}"'
            exact = name.endswith("UID")
            conditions.append(f"{column} = :value{number}" + ("" if exact else " COLLATE NOCASE"))
            args[f"value{number}"] = value
        if since is not None:
            conditions.append(f"{self.day} >= :since")
            args["since"] = since
        return " AND ".join(conditions), args
