"""getSimpleSearch and the manifests: patients and series by numbered criteria.

Hides how criteria combine: of one kind any may hold, of different kinds all must. A criterion that cannot be judged is
refused, where the archive's server passes over it and answers with more than was asked for.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import anyio.to_thread
import msgspec
from aiohttp import web

from mirror.archive.endpoints import Answer, Endpoint
from mirror.ledger import Catalogue
from mirror.manifest import write_tcia
from mirror.serve.parameters import SERVER_FAULT, Refusal
from mirror.serve.queries import day_of
from mirror.serve.served import Served

Params = Mapping[str, str]
Row = Mapping[str, Any]

#: Criteria that compare one field of a series, without regard to case.
_FIELDS = {
    "collectioncriteria": "Collection",
    "imagemodalitycriteria": "Modality",
    "anatomicalsitecriteria": "BodyPartExamined",
    "manufacturercriteria": "Manufacturer",
    "modelcriteria": "ManufacturerModelName",
    "softwareversioncriteria": "SoftwareVersions",
    "thirdpartyanalysis": "ThirdPartyAnalysis",
    "patientcriteria": "PatientID",
}
_SORTS = {"subject": "subject", "studies": "studies", "series": "series", "collection": "collection"}
_HUMAN = ("337915000", "Homo sapiens")


@dataclass(slots=True)
class _Asked:
    """The criteria: values per field, in upper case, and what is asked of a patient as a whole."""

    fields: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    species: set[str] = field(default_factory=set)
    released: tuple[str, str] | None = None
    studies: int = 0
    every_modality: bool = False

    def holds(self, series: Row) -> bool:
        """Whether a row of getSeries is asked for."""
        for name, wanted in self.fields.items():
            if str(series.get(name) or "").upper() not in wanted:
                return False
        return self.released is None or self.released[0] <= (series.get("DateReleased") or "") <= self.released[1]

    def holds_together(self, series: Sequence[Row], species: str) -> bool:
        """Whether a patient with these matching series, of the species of that code, is asked for."""
        return (
            bool(series)
            and (not self.species or species in self.species)
            and len({row.get("StudyInstanceUID") for row in series}) >= self.studies
            and (
                not self.every_modality
                or self.fields.get("Modality", set()) <= {str(row.get("Modality") or "").upper() for row in series}
            )
        )


@dataclass(frozen=True, slots=True)
class _Patient:
    """One patient found: enough to sort by and to find again."""

    collection: str
    subject: str
    studies: int
    series: int


async def send_search(served: Served, endpoint: Endpoint, request: web.Request, params: Params) -> web.Response:
    """Answer a search or a manifest. Raises Refusal."""
    asked = None if endpoint.name == "getManifestForCollection" else _criteria(params)
    origin = served.settings.base_url.rstrip("/") or str(request.url.origin())
    async with served.catalogue(request) as catalogue:

        def find() -> bytes:
            if endpoint.answer is Answer.SEARCH and asked is not None:
                return msgspec.json.encode(_page(catalogue, asked, params))
            return _manifest(catalogue, asked, params, origin).encode()

        body = await anyio.to_thread.run_sync(find)
    kind = "application/json" if endpoint.answer is Answer.SEARCH else "application/x-nbia-manifest-file"
    return web.Response(body=body, headers={"Content-Type": kind})


def _criteria(params: Params) -> _Asked:
    asked = _Asked()
    number = 0
    while (kind := params.get(f"criteriaType{number}")) is not None:
        _add(asked, kind, number, params)
        number += 1
    return asked


def _add(asked: _Asked, kind: str, number: int, params: Params) -> None:
    value = params.get(f"value{number}", "")
    days = (params.get(f"fromDate{number}"), params.get(f"toDate{number}"))
    lowered = kind.lower()
    if name := _FIELDS.get(lowered):
        asked.fields[name].add(value.upper())
    elif lowered == "speciescriteria":
        asked.species.add(value)
    elif lowered == "minnumberofstudiescriteria" and value.isdecimal():
        asked.studies = int(value)
    elif lowered == "modalityandedsearchcriteria":
        asked.every_modality = value.lower() == "all"
    # tcia_utils 3.3.5 sends the name of its own constant for this one; the days say what is meant.
    elif lowered == "daterangecriteria" or None not in days:
        first, last = (day_of("nbia", (day or "").replace("/", "-")) for day in days)
        if first is None or last is None:
            raise Refusal(400, f"fromDate{number} and toDate{number} are days, MM-DD-YYYY.")
        asked.released = (first, last)
    else:
        raise Refusal(400, f"criteriaType{number} and value{number} are not known to this server.")


def _page(catalogue: Catalogue, asked: _Asked, params: Params) -> dict[str, Any]:
    start, size = _whole(params, "start"), _whole(params, "size")
    by = params["sortField"].lower()
    if by not in _SORTS:
        raise Refusal(400, f"sortField is one of {', '.join(_SORTS)}.")
    counted: dict[str, Counter[str]] = {name: Counter() for name in ("Collection", "Modality", "BodyPartExamined")}
    species: Counter[str] = Counter()
    patients = []
    for collection, subject, kind, rows in _found(catalogue, asked):
        patients.append(_Patient(collection, subject, len({row["StudyInstanceUID"] for row in rows}), len(rows)))
        species[kind] += 1
        for name, counter in counted.items():
            counter.update({str(row[name]) for row in rows if row.get(name)})
    patients.sort(
        key=lambda p: (getattr(p, _SORTS[by]), p.collection, p.subject),
        reverse=params["sortDirection"].lower().startswith("desc"),
    )
    shown = patients[start : start + size]
    return {
        "resultSet": [_result(catalogue, asked, patient, n) for n, patient in enumerate(shown, start + 1)],
        "totalPatients": len(patients),
        "bodyParts": _values(counted["BodyPartExamined"]),
        "modalities": _values(counted["Modality"]),
        "collections": _values(counted["Collection"]),
        "species": _values(species),
        "sort": f"{params['sortField']}-{params['sortDirection']}",
    }


def _result(catalogue: Catalogue, asked: _Asked, patient: _Patient, number: int) -> dict[str, Any]:
    where = {"Collection": patient.collection, "PatientID": patient.subject}
    rows = [r for r in catalogue.series(where) if r.get("PatientID") == patient.subject and asked.holds(r)]
    of_study: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        of_study[row["StudyInstanceUID"]].append(row["SeriesInstanceUID"])
    return {
        "id": number,
        "subjectId": patient.subject,
        "project": patient.collection,
        "studyIdentifiers": [{"studyIdentifier": uid, "seriesIdentifiers": uids} for uid, uids in of_study.items()],
        "totalNumberOfStudies": patient.studies,
        "totalNumberOfSeries": patient.series,
        "modalities": sorted({row["Modality"] for row in rows if row.get("Modality")}),
        "bodyParts": sorted({row["BodyPartExamined"] for row in rows if row.get("BodyPartExamined")}),
    }


def _manifest(catalogue: Catalogue, asked: _Asked | None, params: Params, origin: str) -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d_%H-%M")
    if asked is None:
        name = f"{params['Collection']}-{now}"
        # A mirror shows what is visible: of other states it has only what the archive withdrew.
        uids: Iterator[str] = (
            row["SeriesInstanceUID"] for row in catalogue.series({"Collection": params["Collection"]})
        )
        if params.get("visibility", "1") not in ("", "1", "13"):
            uids = iter(())
    else:
        name = f"manifest-{now}"
        uids = (row["SeriesInstanceUID"] for _, _, _, rows in _found(catalogue, asked) for row in rows)
    text = io.StringIO()
    annotations = params.get("includeAnnotation", "").lower() != "false"
    write_tcia(uids, text, name=name, origin=origin, annotations=annotations)
    return text.getvalue()


def _found(catalogue: Catalogue, asked: _Asked) -> Iterator[tuple[str, str, str, list[Row]]]:
    """Collection, PatientID, species and matching series of each patient who is asked for; one patient at a time."""
    named = asked.fields.get("Collection", set())
    where = {"Collection": next(iter(named))} if len(named) == 1 else {}
    # The catalogue gives series by collection and patient.
    for (collection, subject), all_of in groupby(
        catalogue.series(where), key=lambda r: (r["Collection"], r.get("PatientID") or "")
    ):
        rows: list[Row] = [row for row in all_of if asked.holds(row)]
        if not rows:
            continue
        code, words = _species_of(catalogue, rows[0])
        if asked.holds_together(rows, code):
            yield collection, subject, words, rows


def _species_of(catalogue: Catalogue, series: Row) -> tuple[str, str]:
    row = next(catalogue.patients({"SeriesInstanceUID": series["SeriesInstanceUID"]}), {})
    return row.get("SpeciesCode") or _HUMAN[0], row.get("SpeciesDescription") or _HUMAN[1]


def _values(counted: Counter[str]) -> list[dict[str, Any]]:
    return [{"value": value, "count": patients} for value, patients in sorted(counted.items())]


def _whole(params: Params, name: str) -> int:
    try:
        number = int(params[name])
    except ValueError:
        number = -1
    if number < 0:
        raise Refusal(400, f"{SERVER_FAULT}\n{name} is a number from 0 on.")
    return number
