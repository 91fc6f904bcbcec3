"""The fields of the v4 API: what each is, and what it is called on the wire.

A field has one canonical name here: its DICOM keyword where it is a DICOM attribute, otherwise the name nbia v4 uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The type of an answer field or parameter."""

    TEXT = "string"
    UID = "uid"
    INTEGER = "integer"
    #: A number that may have a fraction; SeriesNumber is stored as decimal(22,6).
    DECIMAL = "decimal"
    DATE = "date"


@dataclass(frozen=True, slots=True)
class Field:
    """An answer field: its canonical name, type, DICOM tag (PS3.6, "gggg,eeee") and meaning."""

    name: str
    kind: Kind
    tag: str | None
    text: str


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
    ("SOPClassUID", Kind.UID, "0008,0016", "Kind of the series' instances"),
    ("AnnotationSize", Kind.INTEGER, None, "Bytes of the series' annotation files"),
    ("element", Kind.TEXT, None, "Tag of the element, with a > before it for each sequence that it is in"),
    ("name", Kind.TEXT, None, "Name of the element"),
    ("data", Kind.TEXT, None, "Value of the element, as text"),
    ("id", Kind.INTEGER, None, "Number of the description"),
    ("description", Kind.TEXT, None, "Description of the collection, HTML"),
    ("descriptionURI", Kind.TEXT, None, "DOI of the collection"),
    ("collectionName", Kind.TEXT, None, "Name of the collection"),
    ("collectionDescTimestamp", Kind.INTEGER, None, "When the description was changed, ms since 1970"),
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


def canonical(wire: str) -> str:
    """The canonical name of a field by its wire name; an unknown name stays as it is."""
    return ALIASES.get(wire, wire)
