"""What happens during a run, as values. A sink is any callable; it must return quickly and never raise.

The progress bars, the JSON lines and the run report are folds over these; nothing else knows of them. Structs, since
every object of a mirror makes some, and a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from mirror.model import Finding, Outcome


class Event(Struct, frozen=True, gc=False):
    """Base of all events."""

    def as_dict(self) -> dict[str, Any]:
        """Its fields by name."""
        return asdict(self)


class RunStarted(Event, frozen=True, kw_only=True):
    """A run begins: what it is asked to do, in words."""

    run: str
    server: str
    root: str
    scope: str
    connections: int
    #: What ends the run early, in bytes of objects and in seconds; None: no such limit.
    max_bytes: int | None = None
    max_seconds: float | None = None


class ScopeFound(Event, frozen=True, kw_only=True):
    """The scope's collections are known, before the first of them is crawled."""

    collections: int


class CollectionCrawled(Event, frozen=True, kw_only=True):
    """What a crawl looks at in a collection is all in the ledger."""

    collection: str
    patients: int
    studies: int
    series: int
    #: How many of them the plan fetches, and the bytes that takes as far as the archive says.
    planned: int
    planned_bytes: int
    #: ISO day from which on the crawl asked what was released; None: it walked the collection whole.
    since: str | None = None
    #: Requests that it took, each try counted; 0: not counted.
    requests: int = 0


class CollectionPlanned(Event, frozen=True, kw_only=True):
    """One collection's share of the plan: series to fetch by reason, series kept, and what is still to come."""

    collection: str
    new: int = 0
    changed: int = 0
    unfinished: int = 0
    kept: int = 0
    #: None: unknown to the archive.
    objects: int | None = None
    bytes: int | None = None
    #: Series that the archive did not list this time, that it lists again, and that the plan will withdraw.
    missing: int = 0
    returned: int = 0
    withdraw: int = 0


class Planned(Event, frozen=True, kw_only=True):
    """The whole plan stands. `objects` and `bytes` are what is still to be fetched (None: unknown to the archive)."""

    collections: int
    series: int
    kept: int
    objects: int | None
    bytes: int | None
    free: int | None


class TransportChosen(Event, frozen=True, kw_only=True):
    """How this run brings instances, "instance" or "zip", and why, in words."""

    transport: str
    why: str
    #: The series that comes that way; None: any, or any of the kind that the words name.
    series_instance_uid: str | None = None


class SeriesOpened(Event, frozen=True, kw_only=True):
    """A series was taken up and listed; `to_fetch` of its `listed` instances are not held yet."""

    series_instance_uid: str
    collection: str
    listed: int
    to_fetch: int


class InstancePublished(Event, frozen=True, kw_only=True):
    """A checked DICOM file lies in the tree. `reused` when it was found there, not fetched."""

    series_instance_uid: str
    sop_instance_uid: str
    bytes: int
    reused: bool = False


class InstanceFailed(Event, frozen=True, kw_only=True):
    """An instance could not be had, or its bytes were wrong."""

    series_instance_uid: str
    sop_instance_uid: str
    finding: Finding


class SeriesDone(Event, frozen=True, kw_only=True):
    """A series was judged and committed."""

    outcome: Outcome


class Withdrawn(Event, frozen=True, kw_only=True):
    """A series that the archive gives no more was withdrawn; `how` says what became of its files."""

    collection: str
    series_instance_uid: str
    #: keep, retire or delete: sync.on_withdrawn.
    how: str


class BytesReceived(Event, frozen=True, kw_only=True):
    """Body bytes arrived, and more may follow: with what a RequestDone tells besides, all that was received."""

    count: int


class RequestStarted(Event, frozen=True, kw_only=True):
    """A request was given leave and goes out; a RequestDone follows, however it ends."""

    call: str


class RequestDone(Event, frozen=True, kw_only=True):
    """A request ended; `retried` when this was not its first try, `error` names the failure's class."""

    call: str
    seconds: float
    bytes: int
    retried: bool = False
    error: str | None = None
    #: Of the bytes, those that no BytesReceived has told.
    untold: int = 0
    #: The collection that it names as a parameter, if it does, and the series.
    collection: str | None = None
    series_instance_uid: str | None = None


class LimitChanged(Event, frozen=True, kw_only=True):
    """The number of requests in flight that is allowed now, and why it moved."""

    connections: int
    why: str


class Noticed(Event, frozen=True, kw_only=True):
    """A finding about something other than one instance: a series, a collection, the server."""

    finding: Finding


class VerifyStarted(Event, frozen=True, kw_only=True):
    """A verification begins: series to look at, and bytes in them as far as the archive says."""

    series: int
    bytes: int


class FilesVerified(Event, frozen=True, kw_only=True):
    """Some files of a series were looked at."""

    files: int
    bytes: int


class DamageEnded(Event, frozen=True, kw_only=True):
    """What became of something that was damaged or out of place: what was done, and to which file."""

    what: str
    path: str


class Exported(Event, frozen=True, kw_only=True):
    """A manifest file was written."""

    path: str
    rows: int


class LimitReached(Event, frozen=True, kw_only=True):
    """The run stops for a limit of its own, and why, in words; what is in flight is being finished.

    Told once more where some of that had to be cut off.
    """

    why: str


class Stopping(Event, frozen=True, kw_only=True):
    """A stop was asked for; what is in flight is being finished."""


EventSink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A sink that wants nothing."""
