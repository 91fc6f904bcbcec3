"""The nouns: what the archive has, what we hold, and what was found. Values only, no I/O.

Attribute names are the DICOM keywords or the API's field names in snake case. A row that came from the archive
keeps every field it came with in `raw`, so that `serve` can give all of it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

#: A row as the API has it, in the spelling of the table in archive/endpoints.py.
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which part of the archive. Empty tuples do not restrict; several kinds restrict together.

    Values match as the archive matches them: whole and without regard to case. `all` means every collection.
    """

    collections: tuple[str, ...] = ()
    all: bool = False
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    #: SeriesInstanceUIDs, from --series or a manifest file.
    series: tuple[str, ...] = ()

    def is_empty(self) -> bool:
        """True when nothing says which part of the archive is meant."""
        return not (self.collections or self.all or self.series)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A collection by its name, as the archive spells it."""

    collection: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A row of getPatient: one per patient and collection."""

    collection: str
    patient_id: str
    raw: Row = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A row of getPatientStudy."""

    collection: str
    patient_id: str
    study_instance_uid: str
    study_date: str | None = None
    study_description: str | None = None
    study_id: str | None = None
    raw: Row = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A row of getSeries. Dates are ISO 8601 days; `file_size` is in bytes. None: the archive does not say."""

    series_instance_uid: str
    collection: str
    patient_id: str
    study_instance_uid: str
    modality: str | None = None
    body_part_examined: str | None = None
    manufacturer: str | None = None
    series_number: str | None = None
    series_description: str | None = None
    study_date: str | None = None
    study_description: str | None = None
    image_count: int | None = None
    file_size: int | None = None
    max_submission_timestamp: str | None = None
    date_released: str | None = None
    license_name: str | None = None
    license_uri: str | None = None
    data_description_uri: str | None = None
    raw: Row = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSize:
    """The row of getSeriesSize: bytes (None: the archive does not say) and number of the series' DICOM files."""

    object_count: int
    total_size_in_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What check reads from a DICOM file (PS3.10): identity and what names it."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_id: str
    sop_class_uid: str
    acquisition_number: int | None = None
    instance_number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """Length in bytes, SHA-256 and MD5 (lower-case hex) of one file."""

    bytes: int
    sha256: str
    md5: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One DICOM file that lies, checked, in the tree. `name` is its file name in the series' folder."""

    header: Header
    digest: Digest
    name: str
    #: The call it came by: getSingleImage or getImage.
    source: str
    #: Seconds since 1970, UTC.
    fetched_at: int
    #: What was compared, most telling last: e.g. "length,header" or "length,header,md5".
    verified: str


class SeriesState(StrEnum):
    """Where a series stands in the ledger."""

    PLANNED = "planned"
    OPEN = "open"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    QUARANTINED = "quarantined"


class Why(StrEnum):
    """Why a series is fetched or kept."""

    NEW = "new"
    CHANGED = "changed"
    UNFINISHED = "unfinished"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What the plan says about one series: fetch it or keep it, why, and what differs."""

    fetch: bool
    why: Why
    detail: str = ""


class FindingKind(StrEnum):
    """Everything that can be wrong with bytes or with a series. The value is the word in logs and reports."""

    NOT_DICOM = "not-dicom"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    WRONG_INSTANCE = "wrong-instance"
    WRONG_SERIES = "wrong-series"
    OTHER_STUDY = "other-study"
    OTHER_PATIENT = "other-patient"
    MD5_DIFFERS = "md5-differs"
    DIGEST_DIFFERS = "digest-differs"
    UNAVAILABLE = "unavailable"
    COUNT_DIFFERS = "count-differs"
    SIZE_DIFFERS = "size-differs"
    SIZE_UNKNOWN = "size-unknown"
    INSTANCES_MISSING = "instances-missing"
    DUPLICATE_INSTANCE = "duplicate-instance"
    UNLISTED_INSTANCE = "unlisted-instance"
    SERIES_REFUSED = "series-refused"
    CRAWL_FAILED = "crawl-failed"
    STALE_SERVER = "stale-server"


#: Findings that are told but do not make the bytes wrong.
TOLERABLE = frozenset(
    {FindingKind.OTHER_STUDY, FindingKind.OTHER_PATIENT, FindingKind.MALFORMED, FindingKind.STALE_SERVER}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be: what, where, and in words what differs."""

    kind: FindingKind
    detail: str
    collection: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    #: How often this object was asked for, over all runs; and when it is asked for next (UTC seconds).
    attempts: int | None = None
    next_try: int | None = None

    def __str__(self) -> str:
        where = self.sop_instance_uid or self.series_instance_uid or self.collection
        return f"{self.kind}: {self.detail}" + (f" [{where}]" if where else "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a check: findings, none of which may be serious when `ok`."""

    findings: tuple[Finding, ...] = ()
    #: Nothing is tolerated: any finding is serious.
    strict: bool = False

    @property
    def ok(self) -> bool:
        """True when nothing serious was found (a tolerable finding may be there)."""
        return not self.findings or (not self.strict and all(f.kind in TOLERABLE for f in self.findings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one series in this run."""

    series: Series
    state: SeriesState
    fetched: int = 0
    reused: int = 0
    failed: int = 0
    bytes_fetched: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionStatus:
    """One line of `status`: what the mirror holds of a collection."""

    collection: str
    series: int
    complete: int
    incomplete: int
    quarantined: int
    #: Planned or begun, not yet judged.
    unfinished: int
    instances: int
    bytes: int
    #: When a run last came to its end that had crawled the collection, or a series of it was last judged, whichever
    #: is later. Seconds since 1970, UTC; None: neither has happened.
    last_sync: int | None
