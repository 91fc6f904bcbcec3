"""What happens during a run, as values. A sink is any callable; it must return quickly and never raise.

The progress bars, the JSON lines and the run report are folds over these; nothing else knows of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mirror.model import Finding, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run begins: what it is asked to do, in words."""

    run: str
    server: str
    root: str
    scope: str
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeFound(Event):
    """The scope's collections are known, before the first of them is crawled."""

    collections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionCrawled(Event):
    """A collection's series are all in the ledger."""

    collection: str
    patients: int
    studies: int
    series: int
    #: How many of them the plan fetches, and the bytes that takes as far as the archive says.
    planned: int
    planned_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionPlanned(Event):
    """One collection's share of the plan: series to fetch by reason, series kept, and what is still to come."""

    collection: str
    new: int = 0
    changed: int = 0
    unfinished: int = 0
    kept: int = 0
    #: None: unknown to the archive.
    objects: int | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned(Event):
    """The whole plan stands. `objects` and `bytes` are what is still to be fetched (None: unknown to the archive)."""

    collections: int
    series: int
    kept: int
    objects: int | None
    bytes: int | None
    free: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportChosen(Event):
    """How this run brings instances, "instance" or "zip", and why, in words."""

    transport: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesOpened(Event):
    """A series was taken up and listed; `to_fetch` of its `listed` instances are not held yet."""

    series_instance_uid: str
    collection: str
    listed: int
    to_fetch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstancePublished(Event):
    """A checked DICOM file lies in the tree. `reused` when it was found there, not fetched."""

    series_instance_uid: str
    sop_instance_uid: str
    bytes: int
    reused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFailed(Event):
    """An instance could not be had, or its bytes were wrong."""

    series_instance_uid: str
    sop_instance_uid: str
    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesDone(Event):
    """A series was judged and committed."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class BytesReceived(Event):
    """Body bytes arrived: what the progress display counts."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStarted(Event):
    """A request was given leave and goes out; a RequestDone follows, however it ends."""

    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDone(Event):
    """A request ended; `retried` when this was not its first try, `error` names the failure's class."""

    call: str
    seconds: float
    bytes: int
    retried: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChanged(Event):
    """The number of requests in flight that is allowed now, and why it moved."""

    connections: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed(Event):
    """A finding about something other than one instance: a series, a collection, the server."""

    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported(Event):
    """A manifest file was written."""

    path: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping(Event):
    """A stop was asked for; what is in flight is being finished."""


EventSink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A sink that wants nothing."""
