"""The nouns: what the archive has, what we hold, and what was found. Values only, no I/O.

Those of which every object of a mirror makes some are Structs: a frozen dataclass takes ten times as long to make.

Attribute names are the DICOM keywords or the API's field names in snake case. A row that came from the archive
keeps every field it came with in `raw`, so that `serve` can give all of it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from msgspec import Struct

#: A row as the API has it, in the spelling of the table in archive/endpoints.py.
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclude:
    """What a scope leaves out of what it names. Values match as those of a Scope do; any one of them is enough."""

    collections: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    manufacturers: tuple[str, ...] = ()
    #: SeriesInstanceUIDs.
    series: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which part of the archive. Empty tuples do not restrict; several kinds restrict together; `exclude` subtracts.

    Values match as the archive matches them: whole and without regard to case. Those of collections and manufacturers
    may be patterns with *, ? and [...]. `all` means every collection.
    """

    collections: tuple[str, ...] = ()
    all: bool = False
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    manufacturers: tuple[str, ...] = ()
    #: ISO day: only series that were released on it or later. None: whenever.
    released_since: str | None = None
    #: SeriesInstanceUIDs, from --series or manifest files.
    series: tuple[str, ...] = ()
    #: Names of shared lists (ContentsByName); what they name joins `series`.
    lists: tuple[str, ...] = ()
    exclude: Exclude = Exclude()

    def is_empty(self) -> bool:
        """True when nothing says which part of the archive is meant."""
        return not (self.collections or self.all or self.series or self.lists)

    def is_narrowed(self) -> bool:
        """True when it may leave out series of a collection that it means: such a collection may come out empty."""
        return replace(self, collections=(), all=False, exclude=replace(self.exclude, collections=())) != Scope()


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """How much of its scope a run asks the archive for.

    By itself: of a collection with a watermark what was released since then, of any other all of it; and all of it,
    digests included, when the last such walk is too long ago (sync.reconcile_every).
    """

    #: Everything, whatever the watermarks say.
    full: bool = False
    #: Everything, and the archive's digests of it against ours where it has digests.
    reconcile: bool = False
    #: What was released since this ISO day, whatever the watermarks say.
    since: str | None = None
    #: Withdraw however many series are to be withdrawn.
    force: bool = False
    #: Held series that are outside the scope leave the mirror.
    retire_outside: bool = False


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


class Header(Struct, frozen=True, kw_only=True, gc=False):
    """What check reads from a DICOM file (PS3.10): identity and what names it."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_id: str
    sop_class_uid: str
    acquisition_number: int | None = None
    instance_number: int | None = None


class Digest(Struct, frozen=True, kw_only=True, gc=False):
    """Length in bytes, SHA-256 and MD5 (lower-case hex) of one file."""

    bytes: int
    sha256: str
    md5: str


class Instance(Struct, frozen=True, kw_only=True, gc=False):
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


class Presence(StrEnum):
    """Whether the archive still lists a series that the ledger knows."""

    PRESENT = "present"
    #: Absent from a complete crawl; an updated series is, for a while.
    MISSING = "missing"
    #: Absent from two complete crawls far enough apart, and confirmed where the archive can be asked.
    WITHDRAWN = "withdrawn"


class Why(StrEnum):
    """Why a series is fetched or kept."""

    NEW = "new"
    CHANGED = "changed"
    UNFINISHED = "unfinished"
    DAMAGED = "damaged"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What the plan says about one series: fetch it or keep it, why, and what differs."""

    fetch: bool
    why: Why
    detail: str = ""
    #: The archive may have other bytes by now for what is held of it.
    doubt: bool = False


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
    INSTANCE_DOUBTED = "instance-doubted"
    SERIES_REFUSED = "series-refused"
    CRAWL_FAILED = "crawl-failed"
    STALE_SERVER = "stale-server"
    MISSING_UPSTREAM = "missing-upstream"
    WITHDRAWN = "withdrawn"
    WITHDRAWAL_REFUSED = "withdrawal-refused"
    # The tree at rest: see verify.
    FILE_MISSING = "file-missing"
    FILE_TRUNCATED = "file-truncated"
    FILE_CHANGED = "file-changed"
    FILE_UNREADABLE = "file-unreadable"
    FILE_MISPLACED = "file-misplaced"
    FILE_UNRECORDED = "file-unrecorded"
    FILE_FOREIGN = "file-foreign"
    LEFT_OVER = "left-over"


#: Findings that are told but do not make the bytes wrong.
TOLERABLE = frozenset(
    {
        FindingKind.OTHER_STUDY,
        FindingKind.OTHER_PATIENT,
        FindingKind.MALFORMED,
        FindingKind.STALE_SERVER,
        FindingKind.MISSING_UPSTREAM,
        FindingKind.WITHDRAWN,
        FindingKind.LEFT_OVER,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be: what, where, and in words what differs."""

    kind: FindingKind
    detail: str
    collection: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    #: Where it lies, below the root with forward slashes: for what is found on the disk.
    path: str | None = None
    #: How often this object was asked for, over all runs; and when it is asked for next (UTC seconds).
    attempts: int | None = None
    next_try: int | None = None

    def __str__(self) -> str:
        where = self.path or self.sop_instance_uid or self.series_instance_uid or self.collection
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


class Happened(StrEnum):
    """What can happen to a series or an instance of the mirror, in the words of `log`."""

    CAME = "came"
    CHANGED = "changed"
    LEFT = "left"
    MISSING = "missing"
    WITHDRAWN = "withdrawn"
    RETURNED = "returned"
    #: The bytes that were held are not there any more, or not as they came.
    DAMAGED = "damaged"
    REPAIRED = "repaired"
    PRUNED = "pruned"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One thing that happened to a series, or to one instance of it where `sop_instance_uid` is set."""

    what: Happened
    why: str
    collection: str
    series_instance_uid: str
    sop_instance_uid: str | None = None
    #: How many instances, and bytes in them, an entry about a whole series is about.
    instances: int | None = None
    bytes: int | None = None
    #: SHA-256 (lower-case hex) before and after.
    old_sha256: str | None = None
    sha256: str | None = None
    #: Where the old bytes lie now, below the root with forward slashes; None: nowhere.
    retired: str | None = None
    run: str = ""
    #: Seconds since 1970, UTC.
    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """How far one collection is known under one scope. Times are the archive's, seconds since 1970, UTC."""

    #: Start of the last crawl, whole or since a watermark, that was complete.
    at: int
    #: Start of the last whole crawl that was complete; None: there was none.
    whole_at: int | None


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
    #: Complete or not, the archive does not list them any more: for now, or for good.
    missing: int = 0
    withdrawn: int = 0
    #: When a run last ended that had crawled the collection and left nothing of it incomplete.
    last_complete: int | None = None

    @property
    def is_withdrawn(self) -> bool:
        """True when the archive has withdrawn all of it: no run will sync it again."""
        return self.series > 0 and self.withdrawn == self.series
