"""getSimpleSearch and the manifests: patients and series by numbered criteria.

Hides how criteria combine: of one kind any may hold, of different kinds all must. A criterion that cannot be judged is
refused, where the archive's server passes over it and answers with more than was asked for. A manifest is written into
a file of its own first: memory does not grow with it, and the ledger is let go of before a client takes its time.
"""

from __future__ import annotations

import io
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import IO, Any, TextIO

import anyio.to_thread
import msgspec
from aiohttp import web

from mirror.archive.endpoints import Answer, Endpoint
from mirror.ledger import Catalogue
from mirror.manifest import write_tcia
from mirror.serve.bodies import Bodies, Part
from mirror.serve.parameters import SERVER_FAULT, Refusal
from mirror.serve.queries import day_of
from mirror.serve.served import Served
from mirror.serve.zipformat import scratch

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
    "studycriteria": "StudyInstanceUID",
    "seriescriteria": "SeriesInstanceUID",
}
#: What a series without a body part is found and counted by.
_UNSAID = {"BodyPartExamined": "NOT SPECIFIED"}
#: PhantomCriteria: what a patient's Phantom must be, in upper case; None: it does not matter.
_PHANTOMS = {"0": "YES", "1": "NO", "2": None}
#: Bytes of an answer that are sent at a time; a shorter one is sent with its length.
_BLOCK = 64 * 1024
_HUMAN = ("337915000", "Homo sapiens")


@dataclass(frozen=True, slots=True)
class _TimePoint:
    """Studies whose offset from an event, in days, is not before `first` and not after `last`."""

    event: str
    first: float
    last: float

    def holds(self, study: Row) -> bool:
        offset = study.get("LongitudinalTemporalOffsetFromEvent")
        event = str(study.get("LongitudinalTemporalEventType") or "").upper()
        return event == self.event and offset is not None and self.first <= offset <= self.last


@dataclass(slots=True)
class _Asked:
    """The criteria: values per field, in upper case, and what is asked of a study and of a patient as a whole."""

    fields: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    species: set[str] = field(default_factory=set)
    sexes: set[str] = field(default_factory=set)
    released: tuple[str, str] | None = None
    time_point: _TimePoint | None = None
    phantom: str | None = None
    studies: int = 0
    every_modality: bool = False

    def holds(self, series: Row) -> bool:
        """Whether a row of getSeries is asked for, as far as it tells."""
        for name, wanted in self.fields.items():
            if str(series.get(name) or _UNSAID.get(name, "")).upper() not in wanted:
                return False
        return self.released is None or self.released[0] <= (series.get("DateReleased") or "") <= self.released[1]

    def holds_together(self, series: Sequence[Row], patient: Row) -> bool:
        """Whether a patient with these matching series is asked for."""
        return (
            bool(series)
            and (not self.species or (patient.get("SpeciesCode") or _HUMAN[0]) in self.species)
            and (not self.sexes or str(patient.get("PatientSex") or "").upper() in self.sexes)
            and (self.phantom is None or str(patient.get("Phantom") or "NO").upper() == self.phantom)
            and len({row.get("StudyInstanceUID") for row in series}) >= self.studies
            and (
                not self.every_modality
                or self.fields.get("Modality", set()) <= {str(row.get("Modality") or "").upper() for row in series}
            )
        )


@dataclass(frozen=True, slots=True)
class _Patient:
    """One patient found: enough to sort by and to find again. Matching studies and series, and all there are."""

    collection: str
    subject: str
    species: str
    studies: int
    series: int
    all_studies: int
    all_series: int


#: By what patients are put in order; the archive takes whatever it does not know for the collection, and tcia_utils
#: says "studies" for "study".
_SORTS: dict[str, Callable[[_Patient], str | int]] = {
    "subject": lambda p: p.subject.lower(),
    "study": lambda p: p.studies,
    "studies": lambda p: p.studies,
    "series": lambda p: p.series,
    "totalnumberofstudies": lambda p: p.all_studies,
    "totalnumberofseries": lambda p: p.all_series,
}


async def send_search(
    served: Served, bodies: Bodies, endpoint: Endpoint, request: web.Request, params: Params
) -> web.StreamResponse:
    """Answer a search or a manifest. Raises Refusal."""
    asked = None if endpoint.name == "getManifestForCollection" else _criteria(params)
    origin = served.settings.base_url.rstrip("/") or str(request.url.origin())
    with scratch() as file:

        def find() -> tuple[list[Part], bool]:
            if endpoint.answer is Answer.SEARCH and asked is not None:
                file.write(msgspec.json.encode(_page(catalogue, asked, params)))
            else:
                with _as_text(file) as text:
                    _manifest(catalogue, asked, params, origin, text)
            file.seek(0)
            return more()

        def more() -> tuple[list[Part], bool]:
            block = file.read(_BLOCK)
            return [block], len(block) < _BLOCK

        async with served.catalogue(request) as catalogue:
            first, whole = await anyio.to_thread.run_sync(find)
        kind = "application/json" if endpoint.answer is Answer.SEARCH else "application/x-nbia-manifest-file"
        headers = {"Content-Type": kind}
        if whole:
            return web.Response(body=first[0], headers=headers)
        return await bodies.stream(request, headers, first, more)


@contextmanager
def _as_text(file: IO[bytes]) -> Iterator[TextIO]:
    """The file as one for text, inside the block."""
    text = io.TextIOWrapper(file, "utf-8", newline="")
    yield text
    text.detach()


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
    elif lowered == "patientsexcriteria":
        asked.sexes.add(value.upper())
    elif lowered == "minnumberofstudiescriteria" and value.isdecimal():
        asked.studies = int(value)
    elif lowered == "modalityandedsearchcriteria":
        asked.every_modality = value.lower() == "all"
    elif lowered == "phantomcriteria" and value in _PHANTOMS:
        asked.phantom = _PHANTOMS[value]
    elif lowered == "timepointcriteria":
        asked.time_point = _time_point(number, params)
    # tcia_utils 3.3.5 sends the name of its own constant for this one; the days say what is meant.
    elif lowered == "daterangecriteria" or None not in days:
        first, last = (day_of("nbia", (day or "").replace("/", "-")) for day in days)
        if first is None or last is None:
            raise Refusal(400, f"fromDate{number} and toDate{number} are days, MM-DD-YYYY.")
        asked.released = (first, last)
    else:
        raise Refusal(400, f"criteriaType{number} and value{number} are not known to this server.")


def _time_point(number: int, params: Params) -> _TimePoint:
    event = params.get(f"eventType{number}")
    if not event:
        raise Refusal(400, f"eventType{number}: time points must include event type")
    days: list[float] = []
    for name, none in ((f"fromDay{number}", -math.inf), (f"toDay{number}", math.inf)):
        try:
            days.append(int(text) if (text := params.get(name)) else none)
        except ValueError as error:
            raise Refusal(400, f"{name} is a number of days.") from error
    if days == [-math.inf, math.inf]:
        raise Refusal(400, f"fromDay{number}, toDay{number}: time points must include at least a from day or to day")
    return _TimePoint(event.upper(), days[0], days[1])


def _page(catalogue: Catalogue, asked: _Asked, params: Params) -> dict[str, Any]:
    counted: dict[str, Counter[str]] = {name: Counter() for name in ("Collection", "Modality", "BodyPartExamined")}
    species: Counter[str] = Counter()
    times = {s["StudyInstanceUID"]: time for s in catalogue.studies(_where(asked)) if (time := _time_of(s))}
    points: dict[str, set[int]] = defaultdict(set)

    def count(patient: _Patient, rows: Sequence[Row]) -> None:
        species[patient.species] += 1
        for name, counter in counted.items():
            said = {str(row[name]) for row in rows if row.get(name)}
            counter.update(said or ({_UNSAID[name]} if name in _UNSAID else said))
        for uid in times.keys() & {row["StudyInstanceUID"] for row in rows}:
            event, days = times[uid]
            points[event].add(days)

    start, shown, total = _shown(catalogue, asked, params, count)
    return {
        "resultSet": [_result(catalogue, asked, patient, n) for n, patient in enumerate(shown, start + 1)],
        "totalPatients": total,
        "bodyParts": _values(counted["BodyPartExamined"]),
        "modalities": _values(counted["Modality"]),
        "collections": _values(counted["Collection"]),
        "species": _values(species),
        "maxTimepoints": {event: max(days) for event, days in points.items()},
        "minTimepoints": {event: min(days) for event, days in points.items()},
        "sort": f"{params['sortField']}-{params['sortDirection']}",
    }


def _shown(
    catalogue: Catalogue, asked: _Asked, params: Params, meet: Callable[[_Patient, Sequence[Row]], None]
) -> tuple[int, list[_Patient], int]:
    """The number of a page's first patient, its patients in order, and how many there are on all pages.

    `meet` is told of each patient found and of the series that match.
    """
    start, size = _whole(params, "start"), _whole(params, "size")
    patients = []
    for patient, rows in _found(catalogue, asked):
        patients.append(patient)
        meet(patient, rows)
    patients.sort(
        key=_SORTS.get(params["sortField"].lower(), lambda p: p.collection.lower()),
        reverse=params["sortDirection"].lower() != "ascending",
    )
    return start, patients[start : start + size], len(patients)


def _result(catalogue: Catalogue, asked: _Asked, patient: _Patient, number: int) -> dict[str, Any]:
    rows = _matching(catalogue, asked, patient)
    studies = _studies_of(catalogue, patient.collection, patient.subject)
    of_study: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_study[row["StudyInstanceUID"]].append(row)
    points: dict[str, set[int]] = defaultdict(set)
    for uid in of_study:
        if (time := _time_of(studies.get(uid, {}))) is not None:
            points[time[0]].add(time[1])
    return {
        "id": number,
        "subjectId": patient.subject,
        "project": patient.collection,
        "studyIdentifiers": [
            {
                "studyIdentifier": uid,
                "seriesIdentifiers": [row["SeriesInstanceUID"] for row in own],
                "seriesAndModality": [
                    {"seriesId": row["SeriesInstanceUID"], "modality": row["Modality"]}
                    for row in own
                    if row.get("Modality")
                ],
            }
            for uid, own in of_study.items()
        ],
        "totalNumberOfStudies": patient.all_studies,
        "totalNumberOfSeries": patient.all_series,
        "modalities": sorted({row["Modality"] for row in rows if row.get("Modality")}),
        "bodyParts": sorted({row["BodyPartExamined"] for row in rows if row.get("BodyPartExamined")}),
        "species": [patient.species],
        "timepoints": {event: sorted(days) for event, days in points.items()},
        "authorized": 1,
    }


def _manifest(catalogue: Catalogue, asked: _Asked | None, params: Params, origin: str, text: TextIO) -> None:
    now = datetime.now(UTC)
    if asked is None:
        name = f"{params['Collection']}-{now:%Y-%m-%d_%H-%M}"
        # A mirror shows what is visible: of other states it has only what the archive withdrew.
        rows: Iterable[Row] = catalogue.series({"Collection": params["Collection"]})
        if params.get("visibility", "1") not in ("", "1", "13"):
            rows = ()
        annotations = params.get("includeAnnotation", "").lower() != "false"
    else:
        name = f"manifest-{int(now.timestamp() * 1000)}"
        _, shown, _ = _shown(catalogue, asked, params, lambda *_: None)
        rows = (row for patient in shown for row in _matching(catalogue, asked, patient))
        annotations = False
    write_tcia((row["SeriesInstanceUID"] for row in rows), text, name=name, origin=origin, annotations=annotations)


def _found(catalogue: Catalogue, asked: _Asked) -> Iterator[tuple[_Patient, list[Row]]]:
    """Each patient who is asked for, with the series that match; one patient at a time, by collection and PatientID."""
    # The catalogue gives series by collection and patient.
    for (collection, subject), group in groupby(
        catalogue.series(_where(asked)), key=lambda r: (r["Collection"], r.get("PatientID") or "")
    ):
        every: list[Row] = list(group)
        rows = [row for row in every if asked.holds(row)]
        if rows and asked.time_point is not None:
            rows = _in_time(asked, rows, _studies_of(catalogue, collection, subject))
        if not rows:
            continue
        person = next(catalogue.patients({"SeriesInstanceUID": rows[0]["SeriesInstanceUID"]}), {})
        if asked.holds_together(rows, person):
            species = person.get("SpeciesDescription") or _HUMAN[1]
            yield _Patient(collection, subject, species, *_counts(rows), *_counts(every)), rows


def _where(asked: _Asked) -> dict[str, str]:
    """What the catalogue itself may leave out."""
    named = asked.fields.get("Collection", set())
    return {"Collection": next(iter(named))} if len(named) == 1 else {}


def _time_of(study: Row) -> tuple[str, int] | None:
    """An event, and the days from it to the study, where it tells of one."""
    event, offset = study.get("LongitudinalTemporalEventType"), study.get("LongitudinalTemporalOffsetFromEvent")
    return None if event is None or offset is None else (str(event), int(offset))


def _counts(series: Sequence[Row]) -> tuple[int, int]:
    return len({row.get("StudyInstanceUID") for row in series}), len(series)


def _in_time(asked: _Asked, series: list[Row], studies: Mapping[str, Row]) -> list[Row]:
    """Those of a patient's series whose study is at the time that is asked for."""
    if (point := asked.time_point) is None:
        return series
    return [row for row in series if point.holds(studies.get(row["StudyInstanceUID"], {}))]


def _matching(catalogue: Catalogue, asked: _Asked, patient: _Patient) -> list[Row]:
    """The series of a patient found that match, as _found had them."""
    where = patient.collection, patient.subject
    rows = [row for row in _series_of(catalogue, *where) if asked.holds(row)]
    return rows if asked.time_point is None else _in_time(asked, rows, _studies_of(catalogue, *where))


# The catalogue's filters do not regard the case; two patients may differ in nothing else.


def _series_of(catalogue: Catalogue, collection: str, subject: str) -> list[Row]:
    rows = catalogue.series({"Collection": collection, "PatientID": subject})
    return [r for r in rows if (r["Collection"], r.get("PatientID") or "") == (collection, subject)]


def _studies_of(catalogue: Catalogue, collection: str, subject: str) -> dict[str, Row]:
    """Rows of getPatientStudy of a patient, by StudyInstanceUID."""
    rows = catalogue.studies({"Collection": collection, "PatientID": subject})
    return {r["StudyInstanceUID"]: r for r in rows if (r["Collection"], r["PatientID"]) == (collection, subject)}


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
