"""The manifest: what the mirror holds, as rows, and rows as files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One DICOM file of the mirror. `path` is below the root, with forward slashes; digests are lower-case hex."""

    collection: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    modality: str
    path: str
    bytes: int
    sha256: str
    md5: str
    #: The call it came by: getSingleImage or getImage.
    source: str
    #: UTC, YYYY-MM-DDTHH:MM:SSZ.
    fetched_at: str
    #: What was compared when it came, e.g. "length,header,md5".
    verified: str
    series_state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRow:
    """One series the mirror knows: the archive's facts, and what is held. None: the archive does not say."""

    collection: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    body_part_examined: str
    manufacturer: str
    study_date: str
    study_description: str
    series_number: str
    series_description: str
    #: What the archive says.
    image_count: int | None
    file_size: int | None
    date_released: str
    license_name: str
    license_uri: str
    data_description_uri: str
    #: The series' folder below the root.
    path: str
    #: What is held.
    instances: int
    bytes: int
    state: str
    #: What is wrong, in words, joined with "; ".
    findings: str
