"""Ways to show a run while it goes on: plain lines and JSON lines here, `bars` on a terminal.

A display is an event sink and a context manager. It folds events into a Tally, which is cheap enough to be done for
every object, and shows the Tally when it is told that time has passed (`tick`). A display never raises: once its
stream is gone, it is silent, and the run goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol, Self, TextIO

from mirror.cli.tally import Tally
from mirror.cli.text import count, safe, size
from mirror.events import (
    CollectionCrawled,
    CollectionPlanned,
    Event,
    Exported,
    InstanceFailed,
    LimitChanged,
    LimitReached,
    Noticed,
    Planned,
    RunStarted,
    ScopeFound,
    SeriesDone,
    Stopping,
    TransportChosen,
    Withdrawn,
)
from mirror.model import Finding
from mirror.report import RunReport, finding_to_json_dict

#: People are shown so many findings while a run goes on; the others wait for the summary and the report.
FINDINGS_SHOWN = 20
_KEPT_OR_NOT = {"keep": "files kept", "retire": "files retired", "delete": "files deleted"}


class Display(Protocol):
    """What the sync command needs of a display."""

    def __call__(self, event: Event) -> None:
        """Take an event. Cheap; never raises."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, *exc: object) -> None:
        """Show no more; leave the terminal as it was."""

    def tick(self) -> None:
        """Some time has passed: show where the run stands, if it is time for that. Never raises."""

    def close(self, report: RunReport) -> None:
        """The run is over. Never raises."""


class Silent:
    """Shows nothing: --quiet."""

    def __call__(self, event: Event) -> None:
        """Take no notice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to leave."""

    def tick(self) -> None:
        """Nothing to show."""

    def close(self, report: RunReport) -> None:
        """Nothing to end."""


class _Stream:
    """A text stream that may go away (a closed pipe, a full disk): what is written then is lost, nothing is raised."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def line(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None


class Lines(Silent):
    """Plain lines: one every few seconds, and one for each thing worth one. For logs and cron mails."""

    def __init__(self, stream: TextIO, *, every: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.tally = Tally()
        self._out = _Stream(stream)
        self._every = every
        self._clock = clock
        self._next = clock() + every
        self._told = 0

    def __call__(self, event: Event) -> None:
        """Count the event, and write its line if it has one."""
        self.tally.fold(event)
        if (line := line_of(event)) is None:
            return
        if isinstance(event, InstanceFailed | Noticed):
            self._told += 1
            if self._told > FINDINGS_SHOWN:
                return
            if self._told == FINDINGS_SHOWN:
                line += "; more findings are counted here and listed in the run report"
        self._out.line(line)

    def tick(self) -> None:
        """Write where the run stands, if the last such line is old enough."""
        now = self._clock()
        self.tally.sample(now)
        if now >= self._next:
            self._next = now + self._every
            self._out.line(_standing(self.tally))


def _standing(tally: Tally) -> str:
    if not tally.planned:
        of = "" if tally.collections is None else f" of {count(tally.collections)}"
        return (
            f"crawling: {count(tally.collections_crawled)}{of} collections, {count(tally.series_found)} series,"
            f" {count(tally.requests)} requests, {tally.pace()}"
        )
    return (
        f"fetching: {count(tally.series_done)} of {count(tally.series)} series,"
        f" {count(tally.objects_done)} of {count(tally.objects)} objects,"
        f" {size(tally.bytes_done)} of {size(tally.bytes)}, {tally.pace()}"
    )


def line_of(event: Event) -> str | None:
    """The line that people read about an event; None where it has none."""
    match event:
        case RunStarted():
            line = f"run {event.run}: {event.scope} from {event.server} to {event.root}"
        case CollectionCrawled():
            since = "" if event.since is None else f" since {event.since}"
            line = (
                f"crawled {event.collection}{since}: {count(event.patients)} patients, {count(event.studies)} studies,"
                f" {count(event.series)} series, {count(event.planned)} to fetch ({size(event.planned_bytes)})"
            )
        case Planned():
            line = (
                f"plan: {count(event.series)} series to fetch ({count(event.objects)} objects, {size(event.bytes)}),"
                f" {count(event.kept)} kept; {size(event.free)} free"
            )
        case Withdrawn():
            line = f"withdrawn: {event.series_instance_uid} of {event.collection} ({_KEPT_OR_NOT[event.how]})"
        case TransportChosen():
            line = f"transport {event.transport}: {event.why}"
        case InstanceFailed(finding=finding) | Noticed(finding=finding):
            line = _finding_line(finding)
        case Exported():
            line = f"wrote {event.path} ({count(event.rows)} rows)"
        case LimitReached(why=why):
            line = f"limit: {why}; what is in flight is being finished"
        case Stopping():
            line = "stopping: what is in flight is being finished; a second signal ends the run at once"
        case _:
            return None
    return safe(line)


def _finding_line(finding: Finding) -> str:
    tries = f" (asked {finding.attempts} times)" if finding.attempts else ""
    return f"finding: {finding}{tries}"


class JsonLines(Silent):
    """JSON lines: what happened, where the run stands every second, and the run report as the last line."""

    def __init__(
        self,
        stream: TextIO,
        *,
        only_report: bool = False,
        every: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.tally = Tally()
        self._only_report = only_report
        self._out = _Stream(stream)
        self._every = every
        self._clock = clock
        self._now = now
        self._next = clock() + every

    def __call__(self, event: Event) -> None:
        """Count the event, and write its line if it has one."""
        if self._only_report:
            return
        self.tally.fold(event)
        if (named := json_of(event)) is not None:
            self._write(*named)

    def tick(self) -> None:
        """Write where the run stands, if the last such line is old enough."""
        clock = self._clock()
        self.tally.sample(clock)
        if clock < self._next or self._only_report:
            return
        self._next = clock + self._every
        tally, eta = self.tally, self.tally.eta()
        standing = {
            "collections": {"crawled": tally.collections_crawled, "total": tally.collections},
            "series": {"done": tally.series_done, "total": tally.series, "not_complete": tally.series_not_complete},
            "objects": {"done": tally.objects_done, "failed": tally.objects_failed, "total": tally.objects},
            "bytes": {"done": tally.bytes_done, "total": tally.bytes, "per_second": round(tally.rate())},
            "requests": {"total": tally.requests, "retried": tally.retried},
            "connections": tally.connections,
            "in_flight": tally.in_flight,
            "seconds_left": None if eta is None else round(eta),
        }
        self._write("progress", standing)

    def close(self, report: RunReport) -> None:
        """Write the run report: the last line."""
        self._out.line(json.dumps(report.to_json_dict()))

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        at = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._out.line(json.dumps({"event": event, "time": at, "run": self.tally.run, **fields}))


def json_of(event: Event) -> tuple[str, dict[str, Any]] | None:
    """An event's name and fields in the JSON lines; None for those that are only counted."""
    match event:
        case RunStarted():
            return "run-started", {k: v for k, v in event.as_dict().items() if k != "run"}
        case ScopeFound():
            return "scope-found", event.as_dict()
        case CollectionCrawled():
            return "collection-crawled", event.as_dict()
        case CollectionPlanned():
            return "collection-planned", event.as_dict()
        case Planned():
            return "planned", event.as_dict()
        case SeriesDone(outcome=outcome):
            return "series-done", {
                "collection": outcome.series.collection,
                "series_instance_uid": outcome.series.series_instance_uid,
                "state": str(outcome.state),
                "instances": {"fetched": outcome.fetched, "reused": outcome.reused, "failed": outcome.failed},
                "bytes_fetched": outcome.bytes_fetched,
            }
        case Withdrawn():
            return "withdrawn", event.as_dict()
        case InstanceFailed(finding=finding) | Noticed(finding=finding):
            return "finding", finding_to_json_dict(finding)
        case LimitChanged():
            return "limit-changed", event.as_dict()
        case TransportChosen():
            return "transport-chosen", event.as_dict()
        case Exported():
            return "exported", event.as_dict()
        case LimitReached():
            return "limit-reached", event.as_dict()
        case Stopping():
            return "stopping", {}
        case _:
            return None
