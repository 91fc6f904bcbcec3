"""Questions to the ledger that only read: status, the manifest's rows, and what serve answers with.

A catalogue is its own read-only connection: safe beside a running sync, which it neither blocks nor is blocked by.
What serve shows is what is complete and not withdrawn: a series that is incomplete here does not exist for those who
mirror us (unless `incomplete` shows what is held of it), and one that the archive has withdrawn is not given on.
Values match as the archive matches them: whole, without regard to case.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from mirror.archive.rows import from_json
from mirror.ledger.connection import sqlite_errors
from mirror.ledger.reading import Reading
from mirror.ledger.shown import BY_INDEX, SERIES_COLUMNS
from mirror.manifest import InstanceRow, SeriesRow
from mirror.model import CollectionStatus

#: A series' state as the manifest tells it: one that is kept though the archive withdrew it is no complete one.
_TOLD = "CASE s.presence WHEN 'withdrawn' THEN s.presence ELSE s.state END"
_HELD = ("sop_instance_uid", "path", "bytes", "md5", "acquisition_number", "instance_number", "fetched_at")
_BATCH = 1000
_PATH = "CASE WHEN s.directory = '' THEN i.name ELSE s.directory || '/' || i.name END"


class Catalogue(Reading):
    """A mirror's ledger, open for reading. Use as a context manager. Each instance belongs to one thread."""

    # Status and manifest

    def status(self) -> list[CollectionStatus]:
        """What is held, per collection, by name."""
        complete = self._last_complete()
        synced = {
            r["collection"]: r["at"]
            for r in self._rows(
                "SELECT collection, max(at) AS at FROM (SELECT collection, synced_at AS at FROM crawls"
                " UNION ALL SELECT collection, judged_at FROM series) GROUP BY collection"
            )
        }
        return [
            CollectionStatus(
                collection=r["collection"],
                series=r["series"],
                complete=r["complete"],
                incomplete=r["incomplete"],
                quarantined=r["quarantined"],
                unfinished=r["unfinished"],
                instances=r["instances"],
                bytes=r["bytes"],
                last_sync=synced.get(r["collection"]),
                missing=r["missing"],
                withdrawn=r["withdrawn"],
                last_complete=complete.get(r["collection"]),
            )
            for r in self._rows(
                "SELECT s.collection, count(*) AS series, sum(state = 'complete') AS complete,"
                " sum(state = 'incomplete') AS incomplete, sum(state = 'quarantined') AS quarantined,"
                " sum(state IN ('planned', 'open')) AS unfinished,"
                " sum(presence = 'missing') AS missing, sum(presence = 'withdrawn') AS withdrawn,"
                " coalesce(sum(h.instances), 0) AS instances, coalesce(sum(h.bytes), 0) AS bytes FROM series s"
                " LEFT JOIN (SELECT series, count(*) AS instances, sum(bytes) AS bytes FROM instances"
                " WHERE name IS NOT NULL GROUP BY series) h ON h.series = s.id"
                " GROUP BY s.collection ORDER BY s.collection"
            )
        ]

    def _last_complete(self) -> dict[str, int | None]:
        """When a run last ended that had crawled a collection and left it complete.

        Where no run ever crawled it, because its series are mirrored from lists, the lists' runs count.
        """
        by_list = {
            r["collection"]: r["at"]
            for r in self._rows(
                "SELECT s.collection, max(c.synced_at) AS at FROM series s JOIN crawls c ON c.id = s.crawl"
                " WHERE c.collection = '' AND c.complete GROUP BY s.collection"
            )
        }
        by_name = {
            r["collection"]: r["at"]
            for r in self._rows(
                "SELECT collection, max(CASE WHEN complete THEN synced_at END) AS at FROM crawls"
                " WHERE collection <> '' GROUP BY collection"
            )
        }
        return by_list | by_name

    def instance_rows(self) -> Iterator[InstanceRow]:
        """Every held instance, ordered by collection, patient, study, series and SOPInstanceUID."""
        for s in self._in_order(f"s.id, s.modality, s.directory, {_TOLD} AS told"):
            folder = f"{s['directory']}/" if s["directory"] else ""
            for uid, name, size, sha256, md5, sop_class, source, fetched_at, verified in self._rows(
                "SELECT sop_instance_uid, name, bytes, sha256, md5, sop_class_uid, source, fetched_at, verified"
                " FROM instances WHERE series = :series AND name IS NOT NULL ORDER BY sop_instance_uid",
                {"series": s["id"]},
            ):
                yield InstanceRow(
                    collection=s["collection"],
                    patient_id=s["patient_id"],
                    study_instance_uid=s["study_instance_uid"],
                    series_instance_uid=s["series_instance_uid"],
                    sop_instance_uid=uid,
                    sop_class_uid=sop_class,
                    modality=s["modality"] or "",
                    path=folder + name,
                    bytes=size,
                    sha256=sha256.hex(),
                    md5=md5.hex(),
                    source=source,
                    fetched_at=_iso(fetched_at),
                    verified=verified,
                    series_state=s["told"],
                )

    def _in_order(self, columns: str) -> Iterator[sqlite3.Row]:
        """All series in the manifest's order, with these columns besides those that say where each belongs.

        Collection by collection, by an index: a mirror of any size is not sorted as a whole, which would be on disk.
        """
        for collection in self.all_collections():
            yield from self._rows(
                f"SELECT s.collection, s.patient_id, s.study_instance_uid, s.series_instance_uid, {columns}"
                " FROM series s"
                " WHERE s.collection = :collection COLLATE NOCASE AND s.collection = :collection"
                " ORDER BY s.patient_id, s.study_instance_uid, s.series_instance_uid",
                {"collection": collection},
            )

    def series_rows(self) -> Iterator[SeriesRow]:
        """Every series that the mirror knows, ordered by collection, patient, study and series."""
        for r in self._in_order(
            f"s.*, {_TOLD} AS told, (SELECT count(*) FROM instances i WHERE i.series = s.id AND i.name IS NOT NULL)"
            " AS instances, (SELECT coalesce(sum(i.bytes), 0) FROM instances i WHERE i.series = s.id"
            " AND i.name IS NOT NULL) AS bytes"
        ):
            raw = from_json(r["raw"])
            yield SeriesRow(
                collection=r["collection"],
                patient_id=r["patient_id"],
                study_instance_uid=r["study_instance_uid"],
                series_instance_uid=r["series_instance_uid"],
                modality=r["modality"] or "",
                body_part_examined=r["body_part_examined"] or "",
                manufacturer=r["manufacturer"] or "",
                study_date=str(raw.get("StudyDate", "")),
                study_description=str(raw.get("StudyDescription", "")),
                series_number=str(raw.get("SeriesNumber", "")),
                series_description=str(raw.get("SeriesDescription", "")),
                image_count=r["image_count"],
                file_size=r["file_size"],
                date_released=r["date_released"] or "",
                license_name=str(raw.get("LicenseName", "")),
                license_uri=str(raw.get("LicenseURI", "")),
                data_description_uri=str(raw.get("DataDescriptionURI", "")),
                path=r["directory"],
                instances=r["instances"],
                bytes=r["bytes"],
                state=r["told"],
                findings="; ".join(json.loads(r["findings"])),
            )

    # What serve answers with: canonical rows

    def collections(self) -> list[str]:
        """Names of the collections with a complete series, in order."""
        return [
            r["collection"]
            for r in self._rows(
                f"SELECT DISTINCT s.collection FROM series s WHERE {self._show.shown} ORDER BY s.collection"
            )
        ]

    def values(self, name: str, where: Mapping[str, str], *, stored: bool = False) -> list[str | None]:
        """Distinct values of Modality, BodyPartExamined or Manufacturer, ascending, null first.

        In upper case, or as they are stored.
        """
        column = f"s.{SERIES_COLUMNS[name]}" if stored else f"upper(s.{SERIES_COLUMNS[name]})"
        condition, args = self._show.where(where)
        return [
            r["value"]
            for r in self._rows(
                f"SELECT DISTINCT {column} AS value FROM series s WHERE {condition} ORDER BY value",
                args,
            )
        ]

    def counts(self, name: str, where: Mapping[str, str]) -> list[tuple[str | None, int]]:
        """Values of Collection, Modality, BodyPartExamined (in upper case) or Manufacturer, ascending, null first.

        Each with how many patients have a complete series of it that matches.
        """
        column = SERIES_COLUMNS[name]
        value = f"upper(s.{column})" if name == "BodyPartExamined" else f"s.{column}"
        condition, args = self._show.where(where)
        return [
            (r["value"], r["patients"])
            for r in self._rows(
                f"SELECT value, count(*) AS patients FROM (SELECT DISTINCT {value} AS value, s.collection, s.patient_id"
                f" FROM series s WHERE {condition}) GROUP BY value ORDER BY value",
                args,
            )
        ]

    # `hidden` asks for what is held and withdrawn instead of what is shown.

    def patients(
        self, where: Mapping[str, str], since: str | None = None, *, hidden: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Rows of getPatient with a complete series that matches; `since` is an ISO day, inclusive."""
        condition, args = self._show.where(where, since, hidden)
        for r in self._rows(
            "SELECT DISTINCT s.collection, s.patient_id, p.raw FROM series s LEFT JOIN patients p"
            " ON p.collection = s.collection AND p.patient_id = s.patient_id"
            f" WHERE {condition} ORDER BY s.collection, s.patient_id",
            args,
        ):
            raw = from_json(r["raw"]) if r["raw"] else {"PatientID": r["patient_id"]}
            yield {**raw, "Collection": r["collection"]}

    def studies(
        self, where: Mapping[str, str], since: str | None = None, *, hidden: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Rows of getPatientStudy with a complete series that matches; SeriesCount counts those series."""
        condition, args = self._show.where(where, since, hidden)
        for r in self._rows(
            "SELECT s.collection, s.patient_id, s.study_instance_uid, count(*) AS series, t.raw FROM series s"
            " LEFT JOIN studies t ON t.study_instance_uid = s.study_instance_uid AND t.collection = s.collection"
            f" AND t.patient_id = s.patient_id WHERE {condition}"
            " GROUP BY s.collection, s.patient_id, s.study_instance_uid"
            " ORDER BY s.collection, s.patient_id, s.study_instance_uid",
            args,
        ):
            raw = from_json(r["raw"]) if r["raw"] else {}
            raw |= {"StudyInstanceUID": r["study_instance_uid"], "PatientID": r["patient_id"]}
            yield {**raw, "Collection": r["collection"], "SeriesCount": r["series"]}

    def series(
        self, where: Mapping[str, str], after: str | None = None, *, hidden: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Rows of getSeries, complete series only; `after` is an ISO day, of release or of ingest, exclusive.

        ImageCount and FileSize are what is held, which for a complete series is what the archive said.
        """
        condition, args = self._show.where(where, hidden=hidden)
        if after is not None:
            condition += f" AND {self._show.day} > :after"
            args["after"] = after
        for r in self._rows(
            f"SELECT s.collection, s.raw, (SELECT count(*) FROM instances i WHERE i.series = s.id AND name IS NOT NULL)"
            " AS instances, (SELECT sum(bytes) FROM instances i WHERE i.series = s.id AND name IS NOT NULL) AS bytes"
            f" FROM series s WHERE {condition} ORDER BY {BY_INDEX}",
            args,
        ):
            held = {"Collection": r["collection"], "ImageCount": r["instances"], "FileSize": r["bytes"] or 0}
            yield {**from_json(r["raw"]), **held}

    def uids_of(self, name: str, value: str) -> Iterator[str]:
        """UIDs of the series with exactly that Collection or SeriesInstanceUID, also of those that are not complete.

        Those that the archive withdrew are not among them.
        """
        for r in self._rows(
            f"SELECT s.series_instance_uid AS uid FROM series s WHERE s.{SERIES_COLUMNS[name]} = :value"
            " AND s.presence <> 'withdrawn'"
            " ORDER BY s.collection, s.patient_id, s.study_instance_uid, s.series_instance_uid",
            {"value": value},
        ):
            yield r["uid"]

    def series_size(self, series_instance_uid: str) -> dict[str, Any] | None:
        """The row of getSeriesSize of a complete series, or None."""
        for r in self._rows(
            f"SELECT coalesce(sum(i.bytes), 0) AS bytes, count(i.name) AS objects FROM series s"
            f" LEFT JOIN instances i ON i.series = s.id AND i.name IS NOT NULL"
            f" WHERE {self._show.shown} AND s.series_instance_uid = :uid GROUP BY s.id",
            {"uid": series_instance_uid},
        ):
            return {"TotalSizeInBytes": r["bytes"], "ObjectCount": r["objects"]}
        return None

    def instances(self, series_instance_uid: str) -> Iterator[dict[str, Any]]:
        """The files of a complete series by InstanceNumber: uid, path below the root, bytes, md5, numbers, coming."""
        for batch in self.instance_batches(series_instance_uid):
            for row in batch:
                held = dict(zip(_HELD, row, strict=True))
                yield held | {"md5": held["md5"].hex()}

    def instance_batches(self, series_instance_uid: str) -> Iterator[list[tuple[Any, ...]]]:
        """As `instances`, the values alone and the MD5 as bytes, many at a time: in a third of the time."""
        with sqlite_errors(self.path):
            cursor = self._db.execute(
                f"SELECT i.sop_instance_uid, {_PATH}, i.bytes, i.md5, i.acquisition_number, i.instance_number,"
                " i.fetched_at FROM series s JOIN instances i ON i.series = s.id AND i.name IS NOT NULL"
                f" WHERE {self._show.shown} AND s.series_instance_uid = :uid"
                " ORDER BY i.instance_number IS NULL, i.instance_number, i.sop_instance_uid",
                {"uid": series_instance_uid},
            )
            while batch := cursor.fetchmany(_BATCH):
                yield batch

    def instance(self, sop_instance_uid: str, series_instance_uid: str | None = None) -> dict[str, Any] | None:
        """The file of one instance of a complete series: path below the root, bytes, md5, sha256; or None."""
        only = "" if series_instance_uid is None else " AND s.series_instance_uid = :series"
        with sqlite_errors(self.path):
            row = self._db.execute(
                f"SELECT {_PATH}, i.bytes, lower(hex(i.md5)), lower(hex(i.sha256)) FROM series s"
                f" JOIN instances i ON i.series = s.id AND i.name IS NOT NULL AND i.sop_instance_uid = :uid"
                f" WHERE {self._show.shown}{only} ORDER BY s.id LIMIT 1",
                {"uid": sop_instance_uid, "series": series_instance_uid},
            ).fetchone()
        return None if row is None else dict(zip(("path", "bytes", "md5", "sha256"), row, strict=True))


@lru_cache(maxsize=64)  # a run brings many instances in a second
def _iso(seconds: int | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
