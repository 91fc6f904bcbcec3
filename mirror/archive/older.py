"""The nbia server's calls before v4, which clients in use still make: v1, v2, and some without a version.

Each is a row of THE table with what is different about it, served beside v4 and never asked by our own client. All of
them ignore parameters that they do not know; days are time stamps, values stand as they are stored, CSV is not quoted,
and filters by modality, body part and maker regard the case.

Source: NBIA-TCIA server source at 865725e0; recorded answers of v1 (tests/data/nbia-v1-answers.json).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mirror.archive.endpoints import ENDPOINTS, Days, Endpoint, Param
from mirror.archive.fields import Kind

_PATIENT = (
    "PatientId PatientName PatientBirthDate PatientSex EthnicGroup Collection Phantom SpeciesCode SpeciesDescription"
)
_STUDY = (
    "StudyInstanceUID StudyDate StudyDescription AdmittingDiagnosesDescription StudyID PatientAge PatientID"
    " PatientName PatientBirthDate PatientSex EthnicGroup Collection SeriesCount LongitudinalTemporalEventType"
    " LongitudinalTemporalOffsetFromEvent"
)
_UPDATED = (
    "SeriesInstanceUID StudyInstanceUID Modality ProtocolName SeriesDate SeriesDescription BodyPartExamined"
    " SeriesNumber AnnotationsFlag Collection PatientID Manufacturer ManufacturerModelName SoftwareVersions ImageCount"
)
_SERIES = (
    _UPDATED + " TimeStamp LicenseName LicenseURI CollectionURI FileSize DateReleased StudyDesc StudyDate"
    " ThirdPartyAnalysis"
)
#: Wire name -> canonical name of getSeriesMetaData, in the server's order. File Location is the StudyID there.
_METADATA = {
    "Series UID": "SeriesInstanceUID",
    "Collection": "Collection",
    "3rd Party Analysis": "ThirdPartyAnalysis",
    "Data Description URI": "DataDescriptionURI",
    "Subject ID": "PatientID",
    "Study UID": "StudyInstanceUID",
    "Study Description": "StudyDescription",
    "Study Date": "StudyDate",
    "Series Description": "SeriesDescription",
    "Manufacturer": "Manufacturer",
    "Modality": "Modality",
    "SOP Class UID": "SOPClassUID",
    "Number of Images": "ImageCount",
    "File Size": "FileSize",
    "File Location": "StudyID",
    "Series Number": "SeriesNumber",
    "License Name": "LicenseName",
    "License URL": "LicenseURI",
    "Annotation Size": "AnnotationSize",
    "Date Released": "DateReleased",
    "Series Date": "SeriesDate",
    "Protocol Name": "ProtocolName",
    "Body Part Examined": "BodyPartExamined",
    "Annotations Flag": "AnnotationsFlag",
    "Manufacturer Model Name": "ManufacturerModelName",
    "Software Versions": "SoftwareVersions",
    "TimeStamp": "MaxSubmissionTimestamp",
}
_NOT_PUBLIC = "Image with given SeriesInstanceUID,{uid}, is not in public domain."
#: What v1 and v2 answer with as v4 does, but for what all older calls have in common.
_ALIKE = (
    "getCollectionValues getModalityValues getBodyPartValues getManufacturerValues getSeriesSize getSOPInstanceUIDs"
    " getSingleImage getImageWithMD5Hash getDCMImage"
)
_FIELDS = {
    "getPatient": _PATIENT,
    "PatientsByModality": "PatientId",
    "getPatientStudy": _STUDY,
    "getSeries": _SERIES,
    "getUpdatedSeries": _UPDATED + " DateReleased",
    "NewPatientsInCollection": _PATIENT,
    "NewStudiesInPatientCollection": _STUDY,
}
_COUNTS = {
    "getCollectionValuesAndCounts": "Collection",
    "getModalityValuesAndCounts": "Modality",
    "getBodyPartValuesAndCounts": "BodyPartExamined",
    "getManufacturerValuesAndCounts": "Manufacturer",
}


def _older(name: str, where: str, **differs: Any) -> Endpoint:
    """A call of the table as it stands in the folder `where`, seen from v4's."""
    known = ENDPOINTS[name]
    path = differs.pop("path", known.nbia)
    same = {"tcia": None, "lax": True, "older": True, "days": Days.STAMP}
    return replace(known, nbia=where + path, **(same | differs))


def _since(name: str, spelling: str) -> tuple[Param, ...]:
    return tuple(replace(p, nbia=spelling) if p.name == "Date" else p for p in ENDPOINTS[name].params)


def _of_version(version: str) -> Iterator[Endpoint]:
    where = f"../{version}/"
    for name in _ALIKE.split():
        yield _older(name, where)
    for name, fields in _FIELDS.items():
        differs: dict[str, Any] = {"nbia_fields": tuple(fields.split())}
        if name.startswith("New"):
            differs |= {"params": _since(name, "Date"), "since": Days.YEAR_FIRST, "strict": True}
        elif name == "getUpdatedSeries":
            differs |= {"since": Days.DAY_FIRST}
        yield _older(name, where, **differs)
    images = tuple(p for p in ENDPOINTS["getImage"].params if p.name != "IncludeMD5")
    denied = {"denied": _NOT_PUBLIC} if version == "v1" else {}
    yield _older("getImage", where, params=images, **denied)
    digest_of = (Param("SOPInstanceUID", required=True, kind=Kind.UID, nbia="SOPInstanceUid"),)
    yield _older("getMD5HashForImage", where, path="getM5HashForImage", params=digest_of)
    yield Endpoint(
        "getSeriesMetaData", "What the archive says about one series, in the words of its spreadsheets.",
        (Param("SeriesInstanceUID", required=True, kind=Kind.UID),), where + "getSeriesMetaData", None,
        tuple(_METADATA), spelled=_METADATA, numbers=frozenset(), lax=True, older=True,
        missing="A parameter, SeriesInstanceUID is required for this API call.",
    )  # fmt: skip
    if version == "v1":
        yield _older("getDeniedSeries", where)
    else:
        yield _older("ContentsByName", where, path="getContentsByName")


def _without_version() -> Iterator[Endpoint]:
    for name, field in _COUNTS.items():
        spelled = {"criteria": field, "count": "Count"}
        yield _older(name, "../", nbia_fields=tuple(spelled), spelled=spelled, numbers=frozenset())
    described = ("collectionDescTimestamp", "collectionName", "description", "descriptionURI", "id")
    yield _older("getCollectionDescriptions", "../", nbia_fields=described)
    yield _older("getDicomTags", "../")


#: Every call before v4, by its path as seen from v4's folder.
OLDER: dict[str, Endpoint] = {
    endpoint.nbia: endpoint
    for endpoint in (*_of_version("v1"), *_of_version("v2"), *_without_version())
    if endpoint.nbia is not None
}
