"""Which canonical rows a call answers with. Hides how the archive's calls map to questions to the Catalogue.

Rows come one by one from an open cursor: take them in the thread that has the catalogue. Nothing here is cached,
so an answer is always what the ledger holds at that moment.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from mirror.archive.dialects import encode_row
from mirror.archive.endpoints import Days, DialectName, Endpoint
from mirror.archive.fields import FIELDS
from mirror.check import read_header, series_digest
from mirror.digests import Level, digest_over, digests_at
from mirror.errors import StoreError
from mirror.headers import read_tags
from mirror.ledger import Catalogue
from mirror.lists import series_of
from mirror.serve.parameters import Refusal, denial

Rows = Iterator[dict[str, Any]]
Params = Mapping[str, str]

#: What the archive says where its database has null.
_DEFAULTS: dict[str, Any] = {
    "Phantom": "NO",
    "SpeciesCode": "337915000",
    "SpeciesDescription": "Homo sapiens",
    "Authorized": 1,
}
_EVERYTHING = "1900-01-01"
_NBIA_DAYS = {
    Days.MONTH_FIRST: re.compile(r"(?P<month>\d{1,2})-(?P<day>\d{1,2})-(?P<year>\d{4})"),
    Days.DAY_FIRST: re.compile(r"(?P<day>\d{1,2})/(?P<month>\d{1,2})/(?P<year>\d{4})"),
    Days.YEAR_FIRST: re.compile(r"(?P<year>\d{4})/(?P<month>\d{1,2})/(?P<day>\d{1,2})"),
}
#: What calls before v4 compare with regard to case.
_STORED = {"Modality", "BodyPartExamined", "Manufacturer"}
#: What getSeriesMetaData has without commas.
_WRITTEN = ("StudyDescription", "SeriesDescription", "Manufacturer")
_TCIA_DAY = re.compile(r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})")
_NOT_IN_A_UID_LIST = re.compile(r"[^0-9.,]")


def rows_of(catalogue: Catalogue, root: Path, endpoint: Endpoint, dialect: DialectName, params: Params) -> Rows:
    """The canonical rows that a call answers with; `params` have canonical names, days are as the dialect has them."""
    where = {name: value for name, value in params.items() if name != "Date"}
    match endpoint.name:
        case "getCollectionValues":
            rows: Rows = ({"Collection": name} for name in catalogue.collections())
        case "getModalityValues":
            rows = ({"Modality": value} for value in catalogue.values("Modality", where, stored=endpoint.older))
        case "getBodyPartValues":
            rows = (
                {"BodyPartExamined": value}
                for value in catalogue.values("BodyPartExamined", where, stored=endpoint.older)
            )
        case "getManufacturerValues":
            rows = ({"Manufacturer": value} for value in catalogue.values("Manufacturer", where, stored=endpoint.older))
        case "getPatient":
            rows = _exact_patient(catalogue.patients(where), params)
        case "PatientsByModality":
            rows = ({"PatientID": row["PatientID"]} for row in catalogue.patients(where))
        case "getPatientStudy":
            rows = catalogue.studies(where)
        case "getSeries":
            rows = catalogue.series(where)
            if endpoint.older:
                rows = (row for row in rows if all(row.get(name) == params[name] for name in _STORED & params.keys()))
        case "getSeriesSize":
            rows = _size(catalogue, params["SeriesInstanceUID"], _unknown_size(dialect, endpoint))
        case "NewPatientsInCollection":
            rows = _since(lambda day: catalogue.patients(where, day), endpoint, dialect, params["Date"])
        case "NewStudiesInPatientCollection":
            rows = _since(lambda day: catalogue.studies(where, day), endpoint, dialect, params["Date"])
        case "getUpdatedSeries":
            after = params.get("Date")
            rows = (
                catalogue.series({}, after=_EVERYTHING)
                if after is None
                else _since(lambda day: catalogue.series({}, after=day), endpoint, dialect, after)
            )
        case "getSOPInstanceUIDs":
            rows = (
                {"SOPInstanceUID": row["sop_instance_uid"]} for row in catalogue.instances(params["SeriesInstanceUID"])
            )
        case "getSeriesMetadata":
            rows = _metadata(catalogue, params["list"])
        case "getSeriesMetaData":
            rows = _metadata_of_one(catalogue, root, params["SeriesInstanceUID"])
        case "getSeriesQCInfo":
            rows = _visibility(catalogue, params["seriesId"])
        case "getDeniedSeries":
            rows = _denied(catalogue, params["seriesList"])
        case "getCollectionDescriptions":
            rows = _descriptions(catalogue, params.get("collectionName"), older=endpoint.older)
        case "getCollectionValuesAndCounts":
            rows = _counts(catalogue, "Collection", where)
        case "getModalityValuesAndCounts":
            rows = _counts(catalogue, "Modality", where)
        case "getBodyPartValuesAndCounts":
            rows = _counts(catalogue, "BodyPartExamined", where)
        case "getManufacturerValuesAndCounts":
            rows = _counts(catalogue, "Manufacturer", where)
        case "getSpeciesValuesAndCounts":
            rows = _species(catalogue)
        case "getCollectionOrSeriesForDOI":
            rows = _of_doi(catalogue, params.get("DOI", ""), params.get("CollectionOrSeries", ""))
        case "getDicomTags":
            rows = _tags(catalogue, root, endpoint, params["SeriesInstanceUID"])
        case "ContentsByName":
            rows = _listed(catalogue, root, params["name"])
        case _:
            raise LookupError(f"{endpoint.name} answers no rows")
    return rows


def wire_rows(rows: Rows, endpoint: Endpoint, dialect: DialectName) -> Generator[dict[str, Any], None, None]:
    """Canonical rows as the dialect's server sends them in JSON."""
    if endpoint.name == "getCollectionDescriptions":
        # The one call that sends nulls. Clients of the older one take an absent text for a fault.
        yield from (_with_words(row) for row in rows) if endpoint.older else rows
        return
    for row in rows:
        yield encode_row(endpoint, dialect, _DEFAULTS | row)


def day_of(dialect: DialectName, text: str, spelling: Days = Days.MONTH_FIRST) -> str | None:
    """The ISO day that a since-parameter means, or None where it is no day: then the archive finds no rows."""
    match = (_NBIA_DAYS[spelling] if dialect == "nbia" else _TCIA_DAY).fullmatch(text.strip())
    if match is None:
        return None
    try:
        return date(int(match["year"]), int(match["month"]), int(match["day"])).isoformat()
    except ValueError:
        return None


def hierarchy_digest(catalogue: Catalogue, params: Params) -> str | None:
    """getMD5Hierarchy: the MD5 over the sorted MD5s below a series, study, patient or collection; None: not held.

    See mirror.digests for how a level is made of the one below.
    """
    if uid := params.get("SeriesInstanceUID"):
        return next((_series_digest(catalogue, row) for row in catalogue.series({"SeriesInstanceUID": uid})), None)
    if uid := params.get("StudyInstanceUID"):
        digests = [_series_digest(catalogue, row) for row in catalogue.series({"StudyInstanceUID": uid})]
        return digest_over(digests) if digests else None
    if not (collection := params.get("Collection")):
        return None
    where = {"Collection": collection}
    if patient := params.get("PatientID"):
        where["PatientID"] = patient
    level = Level.PATIENT if patient else Level.COLLECTION
    # The catalogue gives series by collection, patient and study.
    keyed = (
        ((row.get("PatientID", ""), row.get("StudyInstanceUID", ""), ""), _series_digest(catalogue, row))
        for row in catalogue.series(where)
    )
    return next((digest for _, digest in digests_at(level, keyed)), None)


def _series_digest(catalogue: Catalogue, row: Mapping[str, Any]) -> str:
    return series_digest(sorted(instance["md5"] for instance in catalogue.instances(row["SeriesInstanceUID"])))


def _listed(catalogue: Catalogue, root: Path, name: str) -> Rows:
    """Series of a shared list that are shown; of one that is not there, none."""
    for uid in series_of(root, name):
        yield from catalogue.series({"SeriesInstanceUID": uid})


def _since(ask: Callable[[str], Rows], endpoint: Endpoint, dialect: DialectName, text: str) -> Rows:
    day = day_of(dialect, text, endpoint.since)
    if day is not None and endpoint.strict and endpoint.name.startswith("New"):
        # The catalogue has these from a day on, getUpdatedSeries after a day.
        day = (date.fromisoformat(day) + timedelta(days=1)).isoformat() if day < date.max.isoformat() else None
    return iter(()) if day is None else ask(day)


def _exact_patient(rows: Rows, params: Params) -> Rows:
    """getPatient alone compares the PatientID with regard to case."""
    wanted = params.get("PatientID")
    return (row for row in rows if wanted is None or row["PatientID"] == wanted)


def _size(catalogue: Catalogue, uid: str, unknown: Sequence[dict[str, Any]]) -> Rows:
    row = catalogue.series_size(uid)
    yield from unknown if row is None else (row,)


def _unknown_size(dialect: DialectName, endpoint: Endpoint) -> Sequence[dict[str, Any]]:
    """An aggregate over no rows is a row, but not in v4."""
    if dialect == "tcia":
        return ({"ObjectCount": 0},)
    return ({},) if endpoint.older else ()


def _metadata_of_one(catalogue: Catalogue, root: Path, uid: str) -> Rows:
    """getSeriesMetaData: the row of one series, or status 204. A mirror holds no annotation files.

    Its clients cut lines at commas: there are none in what people wrote.
    """
    row = next(_series_metadata(catalogue, uid), None)
    if row is None:
        raise Refusal(204, "")
    path = root / next(catalogue.instances(uid))["path"]
    try:
        with path.open("rb") as file:
            header, _ = read_header(file, path.stat().st_size)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path.name}: {error}") from error
    written = {name: str(row[name]).replace(",", " ") for name in _WRITTEN if row.get(name)}
    yield {**row, **written, "SOPClassUID": header.sop_class_uid, "AnnotationSize": 0}


def _metadata(catalogue: Catalogue, uids: str) -> Rows:
    """The fields of series, study and patient in one row, for each listed series that is shown."""
    for uid in _uids(uids):
        yield from _series_metadata(catalogue, uid)


def _visibility(catalogue: Catalogue, uids: str) -> Rows:
    """As _metadata, of withdrawn series too, with what tells them apart."""
    for uid in _uids(uids):
        for hidden, told in ((False, "Visible"), (True, "Not Visible")):
            for row in _series_metadata(catalogue, uid, hidden=hidden):
                yield {**row, "Visibility": told}


def _denied(catalogue: Catalogue, uids: str) -> Rows:
    """The listed series that are not shown, for whatever reason; where there is none, status 204."""
    denied = [uid for uid in dict.fromkeys(uids.split(",")) if catalogue.series_size(uid) is None]
    if not denied:
        raise Refusal(204, "")
    yield from ({"SeriesInstanceUID": uid} for uid in denied)


def _uids(listed: str) -> Iterable[str]:
    return dict.fromkeys(_NOT_IN_A_UID_LIST.sub("", listed).split(","))


def _series_metadata(catalogue: Catalogue, uid: str, *, hidden: bool = False) -> Rows:
    where = {"SeriesInstanceUID": uid}
    for series in catalogue.series(where, hidden=hidden):
        patient = next(catalogue.patients(where, hidden=hidden), {})
        study = next(catalogue.studies(where, hidden=hidden), {})
        yield {name: value for name, value in (patient | study | series).items() if name in FIELDS}


def _counts(catalogue: Catalogue, name: str, where: Params) -> Rows:
    return ({name: value, "Count": patients} for value, patients in catalogue.counts(name, where))


def _species(catalogue: Catalogue) -> Rows:
    counted = Counter((_DEFAULTS | row)["SpeciesDescription"] for row in catalogue.patients({}))
    return ({"SpeciesDescription": name, "Count": patients} for name, patients in sorted(counted.items()))


def _of_doi(catalogue: Catalogue, doi: str, wanted: str) -> Rows:
    """The series that name a DOI, which is compared as it stands, or the collections of these."""
    series = (row for row in catalogue.series({"DataDescriptionURI": doi}) if row.get("DataDescriptionURI") == doi)
    if wanted.lower() == "series":
        return series
    return ({"Collection": name} for name in dict.fromkeys(row["Collection"] for row in series))


def _tags(catalogue: Catalogue, root: Path, endpoint: Endpoint, uid: str) -> Rows:
    """Elements of the first image of a series. Raises Refusal for a series that is not shown."""
    first = next(catalogue.instances(uid), None)
    if first is None:
        raise denial(endpoint, uid)
    path = root / first["path"]
    try:
        with path.open("rb") as file:
            yield from read_tags(file)
    except OSError as error:
        raise StoreError(f"{path.name}: {error.strerror}") from error


def _with_words(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "description": f"See {row['descriptionURI']}"}


def _descriptions(catalogue: Catalogue, only: str | None, *, older: bool) -> Rows:
    """The DOI that most of a collection's series name; a mirror has no descriptions in words."""
    for number, name in enumerate(catalogue.collections(), start=1):
        if only is not None and name != only:
            continue
        named: Counter[str] = Counter()
        newest = _EVERYTHING
        for row in catalogue.series({"Collection": name}):
            newest = max(newest, row.get("DateReleased") or newest)
            if uri := row.get("DataDescriptionURI"):
                named[uri] += 1
        if not named:
            continue
        (uri, _), *_ = named.most_common(1)
        described: dict[str, Any] = {"description": None, "id": number, "collectionName": name, "descriptionURI": uri}
        if older:  # when it was written is not known; it is no older than what it describes
            released = datetime.fromisoformat(newest).replace(tzinfo=UTC)
            described["collectionDescTimestamp"] = int(released.timestamp() * 1000)
        yield described
