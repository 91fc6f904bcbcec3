"""THE table of the v4 API: every call with its parameters, answer fields and formats, for both dialects.

Client, server, `query`, the metadata document and README's table all read this; nothing else lists calls.
The wire names of the answer's fields are listed per call, in the order in which the server sends them.

Sources: NBIA-TCIA server source at 865725e0 for "nbia"; TCIA's REST API guide and Bindaas 0d3b0af8 for "tcia".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from mirror.archive.fields import FIELDS, Kind, canonical

DialectName = Literal["nbia", "tcia"]


class Answer(StrEnum):
    """What a call answers with."""

    ROWS = "rows"
    ZIP = "zip"
    DICOM = "dicom"
    DIGEST = "digest"
    #: A `.tcia` file: text that names series.
    MANIFEST = "manifest"
    #: One JSON object: a page of patients and counts over all of them.
    SEARCH = "search"


class Format(StrEnum):
    """Formats of the calls that answer rows; the value is what the `format` parameter takes."""

    JSON = "json"
    CSV = "csv"
    XML = "xml"
    HTML = "html"


class Days(StrEnum):
    """How the nbia server's calls write a day; the older ones differ among themselves."""

    MONTH_FIRST = "MM-DD-YYYY"
    DAY_FIRST = "DD/MM/YYYY"
    YEAR_FIRST = "YYYY/MM/DD"
    #: As an SQL time stamp is printed; the time of day is midnight where only the day is known.
    STAMP = "YYYY-MM-DD 00:00:00.0"


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter: canonical name, whether it must be given, and its wire name per dialect ("" where unknown)."""

    name: str
    required: bool = False
    kind: Kind = Kind.TEXT
    nbia: str | None = None
    tcia: str | None = None
    #: The name stands for a family: it is followed by a number from 0 on.
    numbered: bool = False
    #: What it is, where no field of that name says so.
    text: str = ""

    def wire(self, dialect: DialectName) -> str:
        """The parameter's name on the wire, or "" where that dialect does not have it."""
        own = self.nbia if dialect == "nbia" else self.tcia
        return self.name if own is None else own

    @property
    def about(self) -> str:
        """What it is, in words, or "" where nothing is said of it."""
        return self.text or (FIELDS[self.name].text if self.name in FIELDS else "")


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """One call. `nbia` and `tcia` are its path below the dialect's base, None where the dialect lacks it."""

    name: str
    text: str
    params: tuple[Param, ...] = ()
    nbia: str | None = None
    tcia: str | None = None
    #: Wire names of the answer's fields, in the server's order.
    nbia_fields: tuple[str, ...] = ()
    tcia_fields: tuple[str, ...] = ()
    answer: Answer = Answer.ROWS
    method: Literal["GET", "POST"] = "GET"
    #: False for calls that answer JSON whatever is asked.
    formats: tuple[Format, ...] = tuple(Format)
    #: Status 400 text of the nbia server when a required parameter is missing.
    missing: str = ""
    #: Status 400 text of the nbia server for a series that is not there or not to be seen; {uid} stands for it.
    denied: str = ""
    #: nbia: no rows are an empty list, where the other calls answer nothing at all.
    empty_list: bool = False
    #: nbia: parameters that it does not know are ignored, where other calls refuse them.
    lax: bool = False
    #: nbia: the only fields that are numbers in JSON, where all others are sent as text. None: as their kinds say.
    numbers: frozenset[str] | None = None
    #: nbia: canonical names of fields that are called otherwise in this call alone.
    spelled: Mapping[str, str] = field(default_factory=dict)
    #: nbia: how a day is written in the answer, and how one is read from a parameter.
    days: Days = Days.MONTH_FIRST
    since: Days = Days.MONTH_FIRST
    #: Since-calls: the day itself is left out.
    strict: bool = False
    #: nbia: the files in its zip are always named by their numbers.
    numbered: bool = False
    #: nbia: one of the calls before v4; see mirror.archive.older.
    older: bool = False

    def canonical(self, wire: str) -> str:
        """The canonical name of one of the answer's fields by its wire name."""
        return self.spelled.get(wire) or canonical(wire)

    def path(self, dialect: DialectName) -> str | None:
        """The path below the dialect's base URL, or None where the dialect does not have the call."""
        return self.nbia if dialect == "nbia" else self.tcia

    def fields(self, dialect: DialectName) -> tuple[str, ...]:
        """Wire names of the answer's fields in the dialect's order."""
        return self.nbia_fields if dialect == "nbia" else self.tcia_fields

    def wire_params(self, dialect: DialectName) -> tuple[Param, ...]:
        """The parameters that the dialect has, in order."""
        return tuple(p for p in self.params if p.wire(dialect))


_PATIENT = "PatientId PatientName PatientSex EthnicGroup Collection Phantom SpeciesCode SpeciesDescription Authorized"
_PATIENT_TCIA = "PatientID PatientName PatientBirthDate PatientSex EthnicGroup Collection"
_STUDY = (
    "StudyInstanceUID StudyDate StudyDescription AdmittingDiagnosesDescription StudyID PatientAge PatientID"
    " PatientName PatientSex EthnicGroup Collection SeriesCount LongitudinalTemporalEventType"
    " LongitudinalTemporalOffsetFromEvent Authorized"
)
_STUDY_TCIA = (
    "StudyInstanceUID StudyDate StudyDescription AdmittingDiagnosesDescription StudyID PatientAge PatientID"
    " PatientName PatientBirthDate PatientSex EthnicGroup Collection SeriesCount"
)
_SERIES = (
    "SeriesInstanceUID StudyInstanceUID Modality ProtocolName SeriesDate SeriesDescription BodyPartExamined"
    " SeriesNumber AnnotationsFlag Collection Site PatientID PatientSex PatientAge AdmittingDiagnosisDescription"
    " Manufacturer ManufacturerModelName SoftwareVersions ImageCount MaxSubmissionTimestamp LicenseName LicenseURI"
    " DataDescriptionURI FileSize ReleasedStatus DateReleased StudyDesc StudyDate ThirdPartyAnalysis Authorized"
)
_SERIES_TCIA = (
    "SeriesInstanceUID StudyInstanceUID Modality ProtocolName SeriesDate SeriesDescription BodyPartExamined"
    " SeriesNumber AnnotationsFlag Collection PatientID Manufacturer ManufacturerModelName SoftwareVersions ImageCount"
)
_METADATA_HEAD = (
    "PatientID PatientName PatientSex EthnicGroup Phantom SpeciesCode SpeciesDescription StudyInstanceUID StudyDate"
    " StudyDesc AdmittingDiagnosisDescription StudyID PatientAge LongitudinalTemporalEventType"
    " LongitudinalTemporalOffsetFromEvent SeriesInstanceUID Collection Site Modality ProtocolName SeriesDate"
    " SeriesDescription BodyPartExamined SeriesNumber AnnotationsFlag Manufacturer ManufacturerModelName"
    " PixelSpacing(mm)-Row SliceThickness(mm) SoftwareVersions ImageCount MaxSubmissionTimestamp LicenseName LicenseURI"
    " DataDescriptionURI FileSize"
)
_METADATA_TAIL = " ReleasedStatus DateReleased ThirdPartyAnalysis Authorized"

_COLLECTION = Param("Collection")
_MODALITY = Param("Modality")
_BODY_PART = Param("BodyPartExamined")
_COLLECTION_NBIA, _MODALITY_NBIA = Param("Collection", tcia=""), Param("Modality", tcia="")
_BODY_PART_NBIA = Param("BodyPartExamined", tcia="")
_SERIES_UID = Param("SeriesInstanceUID", required=True, kind=Kind.UID)
_SINCE = Param("Date", required=True, kind=Kind.DATE, nbia="fromDate")
_COUNTED = frozenset({"ImageCount", "FileSize"})
_CRITERIA = (
    Param("criteriaType", tcia="", numbered=True), Param("value", tcia="", numbered=True),
    Param("fromDate", tcia="", numbered=True), Param("toDate", tcia="", numbered=True),
    Param("fromDay", tcia="", numbered=True), Param("toDay", tcia="", numbered=True),
    Param("eventType", tcia="", numbered=True),
    Param("sortField", required=True, tcia=""), Param("sortDirection", required=True, tcia=""),
    Param("start", required=True, kind=Kind.INTEGER, tcia=""),
    Param("size", required=True, kind=Kind.INTEGER, tcia=""), Param("tool", tcia=""),
)  # fmt: skip
_PAGE = "The parameters sortField, sortDirection, start and size are required for this API call."
_ONE_SERIES = "A parameter, SeriesInstanceUID is required for this API call."
_ONE_SERIES_COMMA = "A parameter, SeriesInstanceUID, is required for this API call."
_NOT_GRANTED = (
    "The user has not been granted the access to image with given SeriesInstanceUID,{uid}."
    " Please contact System Admin to resolve this issue."
)
_COLLECTION_AND_DATE = "A parameter, Collection and Date are required for this API call."


def _words(names: str) -> tuple[str, ...]:
    return tuple(names.split())


ENDPOINTS: dict[str, Endpoint] = {
    e.name: e
    for e in (
        Endpoint(
            "getCollectionValues", "Names of all collections.", (),
            "getCollectionValues", "getCollectionValues", ("Collection",), ("Collection",),
        ),
        Endpoint(
            "getModalityValues", "Modalities, of everything or of a collection or body part.",
            (_COLLECTION, _BODY_PART),
            "getModalityValues", "getModalityValues", ("Modality",), ("Modality",),
        ),
        Endpoint(
            "getBodyPartValues", "Body parts, of everything or of a collection or modality.",
            (_COLLECTION, _MODALITY),
            "getBodyPartValues", "getBodyPartValues", ("BodyPartExamined",), ("BodyPartExamined",),
        ),
        Endpoint(
            "getManufacturerValues", "Manufacturers, of everything or of a collection, modality or body part.",
            (_COLLECTION, _MODALITY, _BODY_PART),
            "getManufacturerValues", "getManufacturerValues", ("Manufacturer",), ("Manufacturer",),
        ),
        Endpoint(
            "getPatient", "Patients, of everything or of a collection.",
            (_COLLECTION, Param("PatientID", nbia="PatientId", tcia="")),
            "getPatient", "getPatient", _words(_PATIENT), _words(_PATIENT_TCIA),
        ),
        Endpoint(
            "PatientsByModality", "Patients of a collection who have a series of a modality.",
            (Param("Collection", required=True), Param("Modality", required=True)),
            "getPatientByCollectionAndModality", "PatientsByModality", ("PatientId", "Authorized"), ("PatientID",),
            missing="A parameter, Collection and Modality, are required for this API call.",
        ),
        Endpoint(
            "getPatientStudy", "Studies, of everything or of a collection or patient.",
            (_COLLECTION, Param("PatientID"), Param("StudyInstanceUID", kind=Kind.UID)),
            "getPatientStudy", "getPatientStudy", _words(_STUDY), _words(_STUDY_TCIA),
        ),
        Endpoint(
            "getSeries", "Series, of everything or as the parameters restrict it.",
            (
                _COLLECTION, Param("PatientID"), Param("StudyInstanceUID", kind=Kind.UID),
                Param("SeriesInstanceUID", kind=Kind.UID), _MODALITY, _BODY_PART, Param("ManufacturerModelName"),
                Param("Manufacturer"),
            ),
            "getSeries", "getSeries", _words(_SERIES), _words(_SERIES_TCIA),
        ),
        Endpoint(
            "getSeriesSize", "Bytes and number of a series' DICOM files.", (_SERIES_UID,),
            "getSeriesSize", "getSeriesSize",
            ("TotalSizeInBytes", "ObjectCount"), ("TotalSizeInBytes", "ObjectCount"), missing=_ONE_SERIES,
        ),
        Endpoint(
            "getImage", "All files of a series as one zip.",
            (
                _SERIES_UID, Param("NewFileNames", tcia="", text="yes: files are named by their numbers"),
                Param("IncludeMD5", tcia="", text="yes: md5hashes.csv is among the files"),
            ),
            "getImage", "getImage", answer=Answer.ZIP, formats=(), missing=_ONE_SERIES_COMMA, denied=_NOT_GRANTED,
        ),
        Endpoint(
            "NewPatientsInCollection", "Patients of a collection with a series released on or after a day.",
            (Param("Collection", required=True), _SINCE),
            "NewPatientsInCollection", "NewPatientsInCollection", _words(_PATIENT), _words(_PATIENT_TCIA),
            missing=_COLLECTION_AND_DATE,
        ),
        Endpoint(
            "NewStudiesInPatientCollection", "Studies of a collection with a series released on or after a day.",
            (Param("Collection", required=True), _SINCE, Param("PatientID")),
            "NewStudiesInPatientCollection", "NewStudiesInPatientCollection",
            _words(_STUDY), ("Collection", "PatientID", "StudyInstanceUID"), missing=_COLLECTION_AND_DATE,
        ),
        Endpoint(
            "getSOPInstanceUIDs", "SOP Instance UIDs of a series.", (_SERIES_UID,),
            "getSOPInstanceUIDs", "getSOPInstanceUIDs", ("SOPInstanceUID",), ("SOPInstanceUID",),
            missing=_ONE_SERIES,
        ),
        Endpoint(
            "getSingleImage", "One DICOM file.",
            (_SERIES_UID, Param("SOPInstanceUID", required=True, kind=Kind.UID)),
            "getSingleImage", "getSingleImage", answer=Answer.DICOM, formats=(),
            missing="A parameter, SeriesInstanceUID and SOPInstanceUID, are required for this API call.",
        ),
        Endpoint(
            "ContentsByName", "Series of a shared list.",
            (Param("name", required=True, text="Name of the shared list"),),
            "../v1/getContentsByName", "../../SharedList/query/ContentsByName",
            (*_words(_SERIES_TCIA), "Date Released"), _words(_SERIES_TCIA), formats=(Format.JSON,),
            missing="A parameter, name is required for this API call.", lax=True, days=Days.STAMP,
        ),
        Endpoint(
            "getUpdatedSeries", "Series released after a day.",
            (Param("Date", kind=Kind.DATE, nbia="fromDate", tcia=""),),
            "getUpdatedSeries", None, _words(_SERIES), strict=True,
        ),
        Endpoint(
            "getSeriesMetadata", "Everything the archive says about the listed series (comma-separated UIDs).",
            (Param("list", required=True, tcia=""),),
            "getSeriesMetadata", None, _words(_METADATA_HEAD + _METADATA_TAIL), method="POST",
            numbers=_COUNTED,
            missing="A form parameter, list, containing at least one SeriesInstanceUID is required.",
        ),
        Endpoint(
            "getSeriesQCInfo", "As getSeriesMetadata, of hidden series too, with their Visibility.",
            (Param("seriesId", required=True, tcia=""),),
            "getSeriesQCInfo", None, _words(_METADATA_HEAD + " Visibility" + _METADATA_TAIL), method="POST",
            numbers=_COUNTED,
        ),
        Endpoint(
            "getDeniedSeries", "Those of the listed series (comma-separated UIDs) that are not there or not shown.",
            (Param("seriesList", required=True, tcia=""), Param("userName", tcia="")),
            "getDeniedSeries", None, ("SeriesInstanceUID",),
            missing="A parameter, seriesList,  a list of SeriesInstanceUID is required for this API call.",
        ),
        Endpoint(
            "getMD5HashForImage", "MD5 of one DICOM file, as text.",
            (Param("SOPInstanceUID", required=True, kind=Kind.UID, tcia=""),),
            "getMD5HashForImage", None, answer=Answer.DIGEST, formats=(),
        ),
        Endpoint(
            "getMD5Hierarchy", "MD5 over the sorted MD5s of a series, study, patient or collection, as text.",
            (
                Param("SeriesInstanceUID", kind=Kind.UID, tcia=""), Param("StudyInstanceUID", kind=Kind.UID, tcia=""),
                Param("PatientID", tcia=""), Param("Collection", tcia=""),
            ),
            "getMD5Hierarchy", None, answer=Answer.DIGEST, formats=(), method="POST",
        ),
        Endpoint(
            "getImageWithMD5Hash", "All files of a series as one zip, with their MD5s.", (_SERIES_UID,),
            "getImageWithMD5Hash", None, answer=Answer.ZIP, formats=(), missing=_ONE_SERIES_COMMA, denied=_NOT_GRANTED,
        ),
        Endpoint(
            "getDCMImage", "All files of a series as one zip, named by their numbers, with their MD5s if asked for.",
            (_SERIES_UID, Param("IncludeAnnotation", tcia=""), Param("MD5Verification", tcia="")),
            "getDCMImage", None, answer=Answer.ZIP, formats=(), missing=_ONE_SERIES_COMMA, numbered=True,
            denied="Image with given SeriesInstanceUID,{uid}, is not in public domain.",
        ),
        Endpoint(
            "getDicomTags", "Elements of one image of a series, up to its pixel data.",
            (Param("SeriesInstanceUID", required=True, kind=Kind.UID, nbia="SeriesUID", tcia=""),),
            "getDicomTags", None, ("element", "name", "data"), formats=(Format.JSON,), empty_list=True,
            missing="A parameter, SeriesUID is required for this API call.", denied=_NOT_GRANTED,
        ),
        Endpoint(
            "getCollectionDescriptions", "Descriptions and DOIs of the collections.",
            (Param("collectionName", tcia=""),),
            "getCollectionDescriptions", None, ("description", "id", "collectionName", "descriptionURI"),
            formats=(Format.JSON,), empty_list=True,
        ),
        Endpoint(
            "getCollectionValuesAndCounts", "Names of all collections, and how many patients each has.", (),
            "getCollectionValuesAndCounts", None, ("Collection", "Count", "Authorized"),
            formats=(Format.JSON,), lax=True,
        ),
        Endpoint(
            "getModalityValuesAndCounts", "Modalities, and how many patients have series of them.",
            (_COLLECTION_NBIA, _BODY_PART_NBIA),
            "getModalityValuesAndCounts", None, ("Modality", "Count", "Authorized"), formats=(Format.JSON,),
        ),
        Endpoint(
            "getBodyPartValuesAndCounts", "Body parts, and how many patients have series of them.",
            (_COLLECTION_NBIA, _MODALITY_NBIA),
            "getBodyPartValuesAndCounts", None, ("BodyPart", "Count", "Authorized"), formats=(Format.JSON,),
        ),
        Endpoint(
            "getManufacturerValuesAndCounts", "Manufacturers, and how many patients have series by them.",
            (_COLLECTION_NBIA, _MODALITY_NBIA, _BODY_PART_NBIA),
            "getManufacturerValuesAndCounts", None, ("Manufacturer", "Count", "Authorized"), formats=(Format.JSON,),
        ),
        Endpoint(
            "getSpeciesValuesAndCounts", "Species, and how many patients are of them.", (),
            "getSpeciesValuesAndCounts", None, ("Species", "Count", "Authorized"), formats=(Format.JSON,), lax=True,
        ),
        Endpoint(
            "getCollectionOrSeriesForDOI", "The collections of a DOI, or its series where CollectionOrSeries says so.",
            (Param("DOI", required=True, tcia=""), Param("CollectionOrSeries", tcia="")),
            "getCollectionOrSeriesForDOI", None,
            ("collection", "seriesInstanceUID", "thirdPartyAnanlysis", "authorized"),
            formats=(Format.JSON,), method="POST", empty_list=True,
        ),
        Endpoint(
            "getManifestForCollection", "A manifest (.tcia) of a collection's series.",
            (
                Param("Collection", required=True, nbia="collection", tcia=""), Param("visibility", tcia=""),
                Param("includeAnnotation", tcia=""),
            ),
            "getManifestForCollection", None, answer=Answer.MANIFEST, formats=(), method="POST", lax=True,
            missing="A parameter, collection is required for this API call.",
        ),
        Endpoint(
            "getManifestForSimpleSearch", "A manifest (.tcia) of the series on a page of a simple search.", _CRITERIA,
            "getManifestForSimpleSearch", None, answer=Answer.MANIFEST, formats=(), method="POST", lax=True,
            missing=_PAGE,
        ),
        Endpoint(
            "getSimpleSearch", "A page of the patients who match numbered criteria, and counts over all of them.",
            _CRITERIA, "getSimpleSearch", None, answer=Answer.SEARCH, formats=(), method="POST", lax=True,
            missing=_PAGE,
        ),
    )
}  # fmt: skip
