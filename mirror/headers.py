"""What DICOM headers say for the archive's rows: getPatient, getPatientStudy and getSeries, and getDicomTags.

Hides which keyword stands behind which field, and how the archive writes its values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import pydicom
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_description, dictionary_has_tag
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

Fields = dict[str, Any]

#: Canonical field -> DICOM keyword, where the two differ.
_KEYWORD_OF = {"SpeciesDescription": "PatientSpeciesDescription"}
PATIENT_FIELDS = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "EthnicGroup", "SpeciesDescription")
STUDY_FIELDS = (
    "StudyInstanceUID", "StudyDate", "StudyDescription", "AdmittingDiagnosesDescription", "StudyID", "PatientAge",
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "EthnicGroup", "LongitudinalTemporalEventType",
    "LongitudinalTemporalOffsetFromEvent",
)  # fmt: skip
SERIES_FIELDS = (
    "SeriesInstanceUID", "StudyInstanceUID", "Modality", "ProtocolName", "SeriesDate", "SeriesDescription",
    "BodyPartExamined", "SeriesNumber", "PatientID", "PatientSex", "PatientAge", "AdmittingDiagnosesDescription",
    "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "StudyDescription", "StudyDate", "PixelSpacing",
    "SliceThickness",
)  # fmt: skip
_NAMES = frozenset({*PATIENT_FIELDS, *STUDY_FIELDS, *SERIES_FIELDS})
_TAGS = sorted({_KEYWORD_OF.get(name, name) for name in _NAMES})
_NUMBERS = {"SeriesNumber", "LongitudinalTemporalOffsetFromEvent"}
#: VRs whose values are no text (PS3.5, 6.2).
_BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})


def read_fields(file: BinaryIO) -> Fields:
    """The canonical fields of a file that check.read_header can read; None for what its header does not say.

    The PatientID is that of check.read_header but for the white space around it.
    """
    file.seek(0)
    dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
    return {name: _value(dataset, name) for name in _NAMES}


def read_tags(file: BinaryIO) -> Iterator[Fields]:
    """The rows of getDicomTags: element, name and data of all that stands before the pixel data, the file meta first.

    What is in a sequence follows it, a ">" before its element for each level. Values that are no text are empty.
    Raises what pydicom raises for a file that it cannot read.
    """
    file.seek(0)
    dataset = pydicom.dcmread(file, stop_before_pixels=True)
    yield from _tags(dataset.file_meta, "")
    yield from _tags(dataset, "")


def uid_names() -> dict[str, str]:
    """The UIDs that the standard names (PS3.6, Annex A), SOP classes among them, each with its name."""
    return {uid: name for uid, (name, *_) in UID_dictionary.items() if name}


def _tags(dataset: pydicom.Dataset, level: str) -> Iterator[Fields]:
    for tag in sorted(dataset.keys()):
        items: Iterable[pydicom.Dataset] = ()
        try:
            element = dataset[tag]
            name, value = element.name, element.value
        except (
            Exception
        ):  # pydicom converts values when they are asked for, and has no one error for those that it cannot
            name, data = _as_it_stands(dataset, tag)
        else:
            if element.VR == "SQ":
                items = value
            is_text = element.VR != "SQ" and element.VR not in _BYTES and value is not None
            data = "\\".join(map(str, value if isinstance(value, MultiValue) else [value])) if is_text else ""
        yield {"element": f"{level}({tag.group:04X},{tag.element:04X})", "name": name, "data": data}
        for item in items:
            yield from _tags(item, level + ">")


def _as_it_stands(dataset: pydicom.Dataset, tag: BaseTag) -> tuple[str, str]:
    """Name and text of an element whose value is not what its VR says."""
    name = dictionary_description(tag) if dictionary_has_tag(tag) else "Unknown"
    value = dataset.get_item(tag).value
    return name, value.decode("latin-1").strip("\0 ") if isinstance(value, bytes) else str(value)


def select(fields: Mapping[str, Any], names: Iterable[str], more: Mapping[str, Any]) -> Fields:
    """The row of these fields and of `more`, nulls left out as the archive leaves them out."""
    row = {name: fields[name] for name in names if name in fields} | dict(more)
    return {name: value for name, value in row.items() if value is not None}


def _value(dataset: pydicom.Dataset, name: str) -> Any:
    value = dataset.get(_KEYWORD_OF.get(name, name))
    if value is None or value == "":
        return None
    if name == "PixelSpacing":
        return f"{float(value[0]):.6f}"  # the archive tells the spacing of rows only
    if name == "SliceThickness":
        return f"{float(value):.6f}"
    if name in _NUMBERS:
        return int(value) if int(value) == value else float(value)
    text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value).strip()
    if name.endswith("Date") and len(text) == 8:
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text or None
