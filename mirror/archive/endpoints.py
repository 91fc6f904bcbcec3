"""THE table of the v4 API: every call with its parameters, answer fields and formats, for both dialects.

Client, server, `query`, the metadata document and README's table all read this; nothing else lists calls.
A field has one canonical name here (its DICOM keyword where it is a DICOM attribute, otherwise the name nbia v4
uses); the wire names of each dialect are listed per call, in the order in which the server sends them.

Sources: NBIA-TCIA server source at 865725e0 for "nbia"; TCIA's REST API guide and Bindaas 0d3b0af8 for "tcia".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

DialectName = Literal["nbia", "tcia"]


class Kind(StrEnum):
    """The type of an answer field or parameter."""

    TEXT = "string"
    UID = "uid"
    INTEGER = "integer"
    #: A number that may have a fraction; SeriesNumber is stored as decimal(22,6).
    DECIMAL = "decimal"
    DATE = "date"


class Answer(StrEnum):
    """What a call answers with."""

    ROWS = "rows"
    ZIP = "zip"
    DICOM = "dicom"
    DIGEST = "digest"


class Format(StrEnum):
    """Formats of the calls that answer rows; the value is what the `format` parameter takes."""

    JSON = "json"
    CSV = "csv"
    XML = "xml"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class Field:
    """An answer field: its canonical name, type, DICOM tag (PS3.6, "gggg,eeee") and meaning."""

    name: str
    kind: Kind
    tag: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter: canonical name, whether it must be given, and its wire name per dialect ("" where unknown)."""

    name: str
    required: bool = False
    kind: Kind = Kind.TEXT
    nbia: str | None = None
    tcia: str | None = None

    def wire(self, dialect: DialectName) -> str:
        """The parameter's name on the wire, or "" where that dialect does not have it."""
        own = self.nbia if dialect == "nbia" else self.tcia
        return self.name if own is None else own


@dataclass(frozen=True, slots=True)
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
    #: nbia: no rows are an empty list, where the other calls answer nothing at all.
    empty_list: bool = False
    #: nbia: parameters that it does not know are ignored, where other calls refuse them.
    lax: bool = False

    def path(self, dialect: DialectName) -> str | None:
        """The path below the dialect's base URL, or None where the dialect does not have the call."""
        return self.nbia if dialect == "nbia" else self.tcia

    def fields(self, dialect: DialectName) -> tuple[str, ...]:
        """Wire names of the answer's fields in the dialect's order."""
        return self.nbia_fields if dialect == "nbia" else self.tcia_fields

    def wire_params(self, dialect: DialectName) -> tuple[Param, ...]:
        """The parameters that the dialect has, in order."""
        return tuple(p for p in self.params if p.wire(dialect))


def _fields(*rows: tuple[str, Kind, str | None, str]) -> dict[str, Field]:
    return {name: Field(name, kind, tag, text) for name, kind, tag, text in rows}


FIELDS: dict[str, Field] = _fields(
    ("Collection", Kind.TEXT, None, "Name of the collection"),
    ("Site", Kind.TEXT, None, "Site that submitted the series"),
    ("PatientID", Kind.TEXT, "0010,0020", "Patient identifier, unique within a collection"),
    ("PatientName", Kind.TEXT, "0010,0010", "Patient name, as de-identified"),
    ("PatientBirthDate", Kind.DATE, "0010,0030", "Birth date, as de-identified"),
    ("PatientSex", Kind.TEXT, "0010,0040", "Sex of the patient"),
    ("PatientAge", Kind.TEXT, "0010,1010", "Age of the patient at the study"),
    ("EthnicGroup", Kind.TEXT, "0010,2160", "Ethnic group of the patient"),
    ("Phantom", Kind.TEXT, None, "YES where the subject is a phantom"),
    ("SpeciesCode", Kind.TEXT, "0010,2202", "SNOMED CT code of the species"),
    ("SpeciesDescription", Kind.TEXT, "0010,2201", "Species of the subject"),
    ("StudyInstanceUID", Kind.UID, "0020,000D", "Unique identifier of the study"),
    ("StudyDate", Kind.DATE, "0008,0020", "Date on which the study started, as de-identified"),
    ("StudyDescription", Kind.TEXT, "0008,1030", "Description of the study"),
    ("StudyID", Kind.TEXT, "0020,0010", "Study identifier given by user or equipment"),
    ("AdmittingDiagnosesDescription", Kind.TEXT, "0008,1080", "Admitting diagnoses"),
    ("SeriesCount", Kind.INTEGER, None, "Number of the study's visible series"),
    ("LongitudinalTemporalEventType", Kind.TEXT, "0012,0053", "Event that the offset counts from"),
    ("LongitudinalTemporalOffsetFromEvent", Kind.DECIMAL, "0012,0052", "Days between event and study"),
    ("SeriesInstanceUID", Kind.UID, "0020,000E", "Unique identifier of the series"),
    ("Modality", Kind.TEXT, "0008,0060", "Type of equipment that made the series"),
    ("ProtocolName", Kind.TEXT, "0018,1030", "Conditions under which the series was made"),
    ("SeriesDate", Kind.DATE, "0008,0021", "Date on which the series started"),
    ("SeriesDescription", Kind.TEXT, "0008,103E", "Description of the series"),
    ("BodyPartExamined", Kind.TEXT, "0018,0015", "Body part examined"),
    ("SeriesNumber", Kind.DECIMAL, "0020,0011", "Number of the series"),
    ("AnnotationsFlag", Kind.TEXT, None, "Whether annotation files belong to the series"),
    ("Manufacturer", Kind.TEXT, "0008,0070", "Maker of the equipment"),
    ("ManufacturerModelName", Kind.TEXT, "0008,1090", "Model of the equipment"),
    ("SoftwareVersions", Kind.TEXT, "0018,1020", "Software of the equipment"),
    ("PixelSpacing", Kind.TEXT, "0028,0030", "Distinct row spacings of the series, mm"),
    ("SliceThickness", Kind.TEXT, "0018,0050", "Distinct slice thicknesses of the series, mm"),
    ("ImageCount", Kind.INTEGER, None, "Number of the series' images"),
    ("MaxSubmissionTimestamp", Kind.DATE, None, "Day the newest image of the series was submitted"),
    ("LicenseName", Kind.TEXT, None, "Licence under which the series may be used"),
    ("LicenseURI", Kind.TEXT, None, "Where the licence's text lies"),
    ("DataDescriptionURI", Kind.TEXT, None, "DOI of the data set the series belongs to"),
    ("FileSize", Kind.INTEGER, None, "Bytes of the series' DICOM files"),
    ("ReleasedStatus", Kind.TEXT, None, "Whether the curators released the series"),
    ("DateReleased", Kind.DATE, None, "Day of release; what the since-calls compare"),
    ("Visibility", Kind.TEXT, None, "Curation state of the series"),
    ("ThirdPartyAnalysis", Kind.TEXT, None, "YES where others than the collection's authors made the series"),
    ("Authorized", Kind.INTEGER, None, "1: the asking user may see the row"),
    ("TotalSizeInBytes", Kind.INTEGER, None, "Bytes of the series' DICOM files"),
    ("ObjectCount", Kind.INTEGER, None, "Number of the series' DICOM files"),
    ("Count", Kind.INTEGER, None, "Number of patients that have such series"),
    ("SOPInstanceUID", Kind.UID, "0008,0018", "Unique identifier of the instance"),
    ("id", Kind.INTEGER, None, "Number of the description"),
    ("description", Kind.TEXT, None, "Description of the collection, HTML"),
    ("descriptionURI", Kind.TEXT, None, "DOI of the collection"),
    ("collectionName", Kind.TEXT, None, "Name of the collection"),
)

#: Wire names that mean a canonical field, wherever they occur: old spellings, short forms, v1 leftovers.
ALIASES: dict[str, str] = {
    "PatientId": "PatientID",
    "StudyDesc": "StudyDescription",
    "AdmittingDiagnosisDescription": "AdmittingDiagnosesDescription",
    "TimeStamp": "MaxSubmissionTimestamp",
    "CollectionURI": "DataDescriptionURI",
    "Date Released": "DateReleased",
    "PixelSpacing(mm)-Row": "PixelSpacing",
    "SliceThickness(mm)": "SliceThickness",
    "BodyPart": "BodyPartExamined",
    "Species": "SpeciesDescription",
    "collection": "Collection",
    "seriesInstanceUID": "SeriesInstanceUID",
    "thirdPartyAnanlysis": "ThirdPartyAnalysis",  # so the server spells it
    "authorized": "Authorized",
}

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
_ONE_SERIES = "A parameter, SeriesInstanceUID is required for this API call."
_ONE_SERIES_COMMA = "A parameter, SeriesInstanceUID, is required for this API call."
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
            (_SERIES_UID, Param("NewFileNames", tcia=""), Param("IncludeMD5", tcia="")),
            "getImage", "getImage", answer=Answer.ZIP, formats=(), missing=_ONE_SERIES_COMMA,
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
            "ContentsByName", "Series of a shared list.", (Param("name", required=True),),
            "../v1/getContentsByName", "../../SharedList/query/ContentsByName",
            (*_words(_SERIES_TCIA), "Date Released"), _words(_SERIES_TCIA), formats=(Format.JSON,),
            missing="A parameter, name is required for this API call.", lax=True,
        ),
        Endpoint(
            "getUpdatedSeries", "Series released after a day.",
            (Param("Date", kind=Kind.DATE, nbia="fromDate", tcia=""),),
            "getUpdatedSeries", None, _words(_SERIES),
        ),
        Endpoint(
            "getSeriesMetadata", "Everything the archive says about the listed series (comma-separated UIDs).",
            (Param("list", required=True, tcia=""),),
            "getSeriesMetadata", None, _words(_METADATA_HEAD + _METADATA_TAIL), method="POST",
            missing="A form parameter, list, containing at least one SeriesInstanceUID is required.",
        ),
        Endpoint(
            "getSeriesQCInfo", "As getSeriesMetadata, of hidden series too, with their Visibility.",
            (Param("seriesId", required=True, tcia=""),),
            "getSeriesQCInfo", None, _words(_METADATA_HEAD + " Visibility" + _METADATA_TAIL), method="POST",
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
            "getImageWithMD5Hash", None, answer=Answer.ZIP, formats=(), missing=_ONE_SERIES_COMMA,
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
    )
}  # fmt: skip


def canonical(wire: str) -> str:
    """The canonical name of a field by its wire name; an unknown name stays as it is."""
    return ALIASES.get(wire, wire)
