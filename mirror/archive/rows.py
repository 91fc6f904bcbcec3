"""Canonical rows (dialects.decode_row) as typed nouns. Pure.

A required field that is missing or of the wrong type is a BadAnswer that names it: a row without its UID is
no row. What the archive may leave out (it leaves out every null) has a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from mirror.errors import BadAnswer
from mirror.model import Collection, Patient, Row, Series, SeriesSize, Study

T = TypeVar("T", Collection, Patient, Study, Series, SeriesSize)

#: Attribute -> canonical field (endpoints.FIELDS), for every noun.
_FIELD_OF = {
    "collection": "Collection",
    "patient_id": "PatientID",
    "study_instance_uid": "StudyInstanceUID",
    "study_date": "StudyDate",
    "study_description": "StudyDescription",
    "study_id": "StudyID",
    "series_instance_uid": "SeriesInstanceUID",
    "modality": "Modality",
    "body_part_examined": "BodyPartExamined",
    "manufacturer": "Manufacturer",
    "series_number": "SeriesNumber",
    "series_description": "SeriesDescription",
    "image_count": "ImageCount",
    "file_size": "FileSize",
    "max_submission_timestamp": "MaxSubmissionTimestamp",
    "date_released": "DateReleased",
    "license_name": "LicenseName",
    "license_uri": "LicenseURI",
    "data_description_uri": "DataDescriptionURI",
    "total_size_in_bytes": "TotalSizeInBytes",
    "object_count": "ObjectCount",
}
#: The same for each noun, without `raw`, which is the row itself.
_FIELDS_OF = {
    noun: tuple((name, _FIELD_OF[name]) for name in noun.__dataclass_fields__ if name != "raw")
    for noun in (Collection, Patient, Study, Series, SeriesSize)
}
_WITH_RAW = (Patient, Study, Series)
_TEXT = {"series_number"}
#: Null in the archive's database now and then; such a record is mirrored under the empty identifier.
_MAY_BE_NULL = {"patient_id": "", "study_instance_uid": ""}


def as_noun(noun: type[T], row: Mapping[str, Any], **known: str) -> T:
    """`row` as a Collection, Patient, Study, Series or SeriesSize; `known` fills in what the row leaves out."""
    values: dict[str, Any] = {}
    for name, field in _FIELDS_OF[noun]:
        value = row.get(field)
        if value is None:
            value = known.get(name, _MAY_BE_NULL.get(name))
        if value is not None:
            values[name] = value
    for name in _TEXT & values.keys():
        values[name] = str(values[name])
    if noun in _WITH_RAW:
        values["raw"] = row
    try:
        return msgspec.convert(values, noun)
    except msgspec.ValidationError as error:
        raise BadAnswer(f"a row of {noun.__name__} is not usable: {error}: {_short(row)}") from error


def as_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical row of a noun's attributes; what is None or "" is left out, and what no row has."""
    return {_FIELD_OF[n]: value for n, value in values.items() if n in _FIELD_OF and value not in (None, "")}


def to_json(row: Row) -> str:
    """A canonical row as the ledger keeps it."""
    return msgspec.json.encode(row).decode()


def from_json(text: str) -> dict[str, Any]:
    """The canonical row that `to_json` wrote."""
    return msgspec.json.decode(text, type=dict[str, Any])


def _short(row: Mapping[str, Any]) -> str:
    text = repr(dict(row))
    return text if len(text) <= 200 else text[:200] + "..."
