"""Which canonical rows a call answers with. Hides how the archive's calls map to questions to the Catalogue.

Rows come one by one from an open cursor: take them in the thread that has the catalogue. Nothing here is cached,
so an answer is always what the ledger holds at that moment.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from mirror.archive.dialects import encode_row
from mirror.archive.endpoints import DialectName, Endpoint
from mirror.archive.fields import FIELDS
from mirror.check import series_digest
from mirror.digests import Level, digest_over, digests_at
from mirror.errors import StoreError
from mirror.headers import read_tags
from mirror.ledger import Catalogue
from mirror.lists import series_of
from mirror.serve.parameters import denial

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
_NBIA_DAY = re.compile(r"(?P<month>\d{1,2})-(?P<day>\d{1,2})-(?P<year>\d{4})")
_TCIA_DAY = re.compile(r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})")
_NOT_IN_A_UID_LIST = re.compile(r"[^0-9.,]")


def rows_of(catalogue: Catalogue, root: Path, endpoint: Endpoint, dialect: DialectName, params: Params) -> Rows:
    """The canonical rows that a call answers with; `params` have canonical names, days are as the dialect has them."""
    where = {name: value for name, value in params.items() if name != "Date"}
    match endpoint.name:
        case "getCollectionValues":
            rows: Rows = ({"Collection": name} for name in catalogue.collections())
        case "getModalityValues":
            rows = ({"Modality": value} for value in catalogue.values("Modality", where))
        case "getBodyPartValues":
            rows = ({"BodyPartExamined": value} for value in catalogue.values("BodyPartExamined", where))
        case "getManufacturerValues":
            rows = ({"Manufacturer": value} for value in catalogue.values("Manufacturer", where))
        case "getPatient":
            rows = _exact_patient(catalogue.patients(where), params)
        case "PatientsByModality":
            rows = ({"PatientID": row["PatientID"]} for row in catalogue.patients(where))
        case "getPatientStudy":
            rows = catalogue.studies(where)
        case "getSeries":
            rows = catalogue.series(where)
        case "getSeriesSize":
            rows = _size(catalogue, dialect, params["SeriesInstanceUID"])
        case "NewPatientsInCollection":
            rows = _since(lambda day: catalogue.patients(where, day), dialect, params["Date"])
        case "NewStudiesInPatientCollection":
            rows = _since(lambda day: catalogue.studies(where, day), dialect, params["Date"])
        case "getUpdatedSeries":
            after = params.get("Date")
            rows = (
                catalogue.series({}, after=_EVERYTHING)
                if after is None
                else _since(lambda day: catalogue.series({}, after=day), dialect, after)
            )
        case "getSOPInstanceUIDs":
            rows = (
                {"SOPInstanceUID": row["sop_instance_uid"]} for row in catalogue.instances(params["SeriesInstanceUID"])
            )
        case "getSeriesMetadata":
            rows = _metadata(catalogue, params["list"])
        case "getSeriesQCInfo":
            rows = _visibility(catalogue, params["seriesId"])
        case "getCollectionDescriptions":
            rows = _descriptions(catalogue, params.get("collectionName"))
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
        yield from rows  # the one call that sends nulls
        return
    for row in rows:
        yield encode_row(endpoint, dialect, _DEFAULTS | row)


def day_of(dialect: DialectName, text: str) -> str | None:
    """The ISO day that a since-parameter means, or None where it is no day: then the archive finds no rows."""
    match = (_NBIA_DAY if dialect == "nbia" else _TCIA_DAY).fullmatch(text.strip())
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


def _since(ask: Callable[[str], Rows], dialect: DialectName, text: str) -> Rows:
    day = day_of(dialect, text)
    return iter(()) if day is None else ask(day)


def _exact_patient(rows: Rows, params: Params) -> Rows:
    """getPatient alone compares the PatientID with regard to case."""
    wanted = params.get("PatientID")
    return (row for row in rows if wanted is None or row["PatientID"] == wanted)


def _size(catalogue: Catalogue, dialect: DialectName, uid: str) -> Rows:
    row = catalogue.series_size(uid)
    if row is not None:
        yield row
    elif dialect == "tcia":
        yield {"ObjectCount": 0}  # an aggregate over no rows is a row


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


def _descriptions(catalogue: Catalogue, only: str | None) -> Rows:
    """The DOI that most of a collection's series name; a mirror has no descriptions in words."""
    for number, name in enumerate(catalogue.collections(), start=1):
        if only is not None and name != only:
            continue
        named = Counter(uri for row in catalogue.series({"Collection": name}) if (uri := row.get("DataDescriptionURI")))
        if named:
            (uri, _), *_ = named.most_common(1)
            yield {"description": None, "id": number, "collectionName": name, "descriptionURI": uri}
