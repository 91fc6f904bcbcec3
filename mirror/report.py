"""The run report: what a run did, folded from its events. Its JSON form is an interface.

The Reporter is an event sink whose memory does not grow with the run: a count per archive call and per kind of finding,
a record per collection and per series that is open, and at most FINDINGS_KEPT findings. The record of an open series
grows with the objects of it that failed, and is gone when the series is judged. A judged series counts with the figures
of its outcome, one that was cut off in the middle with those of its events.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from mirror.errors import ExitCode, store_errors
from mirror.events import (
    BytesReceived,
    CollectionCrawled,
    CollectionPlanned,
    Event,
    InstanceFailed,
    InstancePublished,
    LimitReached,
    Noticed,
    Planned,
    RequestDone,
    RequestStarted,
    RunStarted,
    SeriesDone,
    SeriesOpened,
    Withdrawn,
)
from mirror.model import Finding, FindingKind, Outcome, SeriesState

#: More findings than these are counted, not kept.
FINDINGS_KEPT = 1000

#: Events of which a report tells nothing, and that come many times for each object.
_NOT_TOLD = frozenset({BytesReceived, RequestStarted})

RunState = Literal["complete", "incomplete", "interrupted", "limited", "failed", "planned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesCounts:
    """Series the plan was to fetch, how those that were judged ended, and series kept as they were."""

    planned: int = 0
    complete: int = 0
    incomplete: int = 0
    quarantined: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCounts:
    """Instances fetched, found in the tree already, and not to be had."""

    fetched: int = 0
    reused: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteCounts:
    """Bytes of the fetched instances, and of all that the mirror holds (None: the run ended before it knew)."""

    fetched: int = 0
    held: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCounts:
    """Requests to the archive, each try counted, and how many of them were second or later tries."""

    total: int = 0
    by_call: dict[str, int] = field(default_factory=dict)
    retried: int = 0


@dataclass(slots=True, kw_only=True)
class CollectionReport:
    """What a run did to one collection: what the plan found in it, what became of that, and what it cost.

    All but the names are numbers: of series, up to `quarantined`, then of instances, bytes and requests.
    """

    collection: str
    #: The ISO day from which on it was asked what was released; None: it was walked whole, or not crawled to the end.
    since: str | None = None
    #: Whether its crawl failed: then nothing is known of what it has now.
    crawl_failed: bool = False
    new: int = 0
    changed: int = 0
    unfinished: int = 0
    kept: int = 0
    missing: int = 0
    returned: int = 0
    #: Series that the plan was to withdraw, and that were withdrawn.
    withdraw: int = 0
    withdrawn: int = 0
    complete: int = 0
    incomplete: int = 0
    quarantined: int = 0
    instances_fetched: int = 0
    instances_failed: int = 0
    bytes_fetched: int = 0
    #: Those that name the collection, each try counted: the calls of a crawl. Others name a series or an instance.
    requests: int = 0

    @property
    def unchanged(self) -> bool:
        """True when nothing is to be told of it."""
        return self == CollectionReport(
            collection=self.collection, since=self.since, kept=self.kept, requests=self.requests
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What one run did. `findings` may be fewer than `findings_total`; `error` says why a failed run failed."""

    state: RunState
    exit_code: ExitCode
    seconds: float
    series: SeriesCounts
    instances: InstanceCounts
    bytes: ByteCounts
    requests: RequestCounts
    findings: tuple[Finding, ...] = ()
    findings_total: int = 0
    #: All of them, the kept and the others.
    findings_by_kind: dict[FindingKind, int] = field(default_factory=dict)
    #: By name; those that the run came across.
    collections: tuple[CollectionReport, ...] = ()
    run: str = ""
    server: str = ""
    root: str = ""
    scope: str = ""
    #: UTC, YYYY-MM-DDTHH:MM:SSZ.
    started_at: str = ""
    version: str = ""
    error: str | None = None
    #: Which limit ended the run before all was done, in words.
    limit: str | None = None

    def to_json_dict(self) -> dict[str, Any]:
        """The report as JSON values, in a fixed order of keys. What a finding does not say is left out of it."""
        return {
            "state": self.state,
            "exit_code": int(self.exit_code),
            "seconds": round(self.seconds, 3),
            "series": asdict(self.series),
            "instances": asdict(self.instances),
            "bytes": asdict(self.bytes),
            "requests": asdict(self.requests),
            "findings": [finding_to_json_dict(f) for f in self.findings],
            "findings_total": self.findings_total,
            "findings_by_kind": {str(kind): number for kind, number in self.findings_by_kind.items()},
            "collections": [asdict(collection) for collection in self.collections],
            "run": self.run,
            "server": self.server,
            "root": self.root,
            "scope": self.scope,
            "started_at": self.started_at,
            "version": self.version,
            "error": self.error,
            "limit": self.limit,
        }


def finding_to_json_dict(finding: Finding) -> dict[str, Any]:
    """A finding as JSON values, nulls left out."""
    return {name: value for name, value in asdict(finding).items() if value is not None}


@dataclass(slots=True)
class _OpenSeries:
    """What the events tell of a series that is not judged yet. A finding may come twice: by event and by outcome."""

    collection: str | None = None
    fetched: int = 0
    reused: int = 0
    bytes: int = 0
    failed: set[str] = field(default_factory=set)
    told: set[Finding] = field(default_factory=set)


class Reporter:
    """An event sink that becomes the run report. Belongs to one run."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._started_at = time.time()
        self._started: RunStarted | None = None
        self._limit: str | None = None
        self._planned = 0
        self._kept = 0
        self._plan_stands = False
        self._states: Counter[SeriesState] = Counter()
        self._fetched = self._reused = self._failed = self._bytes = 0
        self._calls: Counter[str] = Counter()
        self._retried = 0
        self._findings: list[Finding] = []
        self._kinds: Counter[FindingKind] = Counter()
        self._open: dict[str, _OpenSeries] = {}
        self._collections: dict[str, CollectionReport] = {}
        #: Kept apart: a crawl of listed series goes by a name that is no collection's.
        self._since: dict[str, str | None] = {}

    def __call__(self, event: Event) -> None:
        """Fold one event. Never raises."""
        if type(event) in _NOT_TOLD:
            return
        match event:
            case RequestDone(call=call, retried=retried, collection=collection):
                self._calls[call] += 1
                self._retried += retried
                if collection is not None:
                    self._of(collection).requests += 1
            case SeriesOpened(series_instance_uid=series, collection=collection):
                self._entry(series).collection = collection
            case InstancePublished(series_instance_uid=series, bytes=size, reused=reused):
                entry = self._entry(series)
                if reused:
                    entry.reused += 1
                else:
                    entry.fetched += 1
                    entry.bytes += size
            case InstanceFailed(series_instance_uid=series, sop_instance_uid=uid, finding=finding):
                entry = self._entry(series)
                entry.failed.add(uid)
                entry.told.add(finding)
                self._find(finding)
            case SeriesDone(outcome=outcome):
                self._judge(outcome)
            case Noticed(finding=finding):
                # What the crawl refuses is never judged: nobody would take its record away again.
                if finding.series_instance_uid is not None and self._plan_stands:
                    self._entry(finding.series_instance_uid).told.add(finding)
                if finding.kind is FindingKind.CRAWL_FAILED and finding.collection is not None:
                    self._of(finding.collection).crawl_failed = True
                self._find(finding)
            case CollectionCrawled(planned=planned):
                self._planned += planned
                self._since[event.collection] = event.since
            case CollectionPlanned():
                share = self._of(event.collection)
                share.new, share.changed, share.unfinished = event.new, event.changed, event.unfinished
                share.kept, share.missing, share.returned = event.kept, event.missing, event.returned
                share.withdraw = event.withdraw
            case Withdrawn(collection=collection):
                self._of(collection).withdrawn += 1
            case Planned(series=series_planned, kept=kept):
                self._planned, self._kept, self._plan_stands = series_planned, kept, True
            case RunStarted():
                self._started = event
            case LimitReached(why=why):
                self._limit = why
            case _:
                pass

    def _entry(self, series_instance_uid: str) -> _OpenSeries:
        return self._open.setdefault(series_instance_uid, _OpenSeries())

    def _of(self, collection: str) -> CollectionReport:
        return self._collections.setdefault(collection, CollectionReport(collection=collection))

    def _find(self, finding: Finding) -> None:
        self._kinds[finding.kind] += 1
        if len(self._findings) < FINDINGS_KEPT:
            self._findings.append(finding)

    def _judge(self, outcome: Outcome) -> None:
        entry = self._open.pop(outcome.series.series_instance_uid, _OpenSeries())
        self._states[outcome.state] += 1
        self._fetched += outcome.fetched
        self._reused += outcome.reused
        self._failed += outcome.failed
        self._bytes += outcome.bytes_fetched
        share = self._of(outcome.series.collection)
        share.complete += outcome.state is SeriesState.COMPLETE
        share.incomplete += outcome.state is SeriesState.INCOMPLETE
        share.quarantined += outcome.state is SeriesState.QUARANTINED
        share.instances_fetched += outcome.fetched
        share.instances_failed += outcome.failed
        share.bytes_fetched += outcome.bytes_fetched
        for finding in outcome.findings:
            if finding not in entry.told:
                self._find(finding)

    def finish(
        self, state: RunState, exit_code: ExitCode, *, bytes_held: int | None = None, error: str | None = None
    ) -> RunReport:
        """The report of the run as far as it came. Safe to repeat."""
        started, still_open = self._started, self._open.values()
        return RunReport(
            state=state,
            exit_code=exit_code,
            seconds=time.monotonic() - self._began,
            series=SeriesCounts(
                planned=self._planned,
                complete=self._states[SeriesState.COMPLETE],
                incomplete=self._states[SeriesState.INCOMPLETE],
                quarantined=self._states[SeriesState.QUARANTINED],
                kept=self._kept,
            ),
            instances=InstanceCounts(
                fetched=self._fetched + sum(s.fetched for s in still_open),
                reused=self._reused + sum(s.reused for s in still_open),
                failed=self._failed + sum(len(s.failed) for s in still_open),
            ),
            bytes=ByteCounts(fetched=self._bytes + sum(s.bytes for s in still_open), held=bytes_held),
            requests=RequestCounts(
                total=self._calls.total(), by_call=dict(sorted(self._calls.items())), retried=self._retried
            ),
            findings=tuple(self._findings),
            findings_total=self._kinds.total(),
            findings_by_kind=dict(sorted(self._kinds.items())),
            collections=self._collection_reports(),
            run=started.run if started else "",
            server=started.server if started else "",
            root=started.root if started else "",
            scope=started.scope if started else "",
            started_at=datetime.fromtimestamp(self._started_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            version=version("tcia-mirror"),
            error=error,
            # A run that was done all the same was not ended by it.
            limit=None if state == "complete" else self._limit,
        )

    def _collection_reports(self) -> tuple[CollectionReport, ...]:
        """By name, with what the series tell that were cut off in the middle."""
        shares = {
            name: replace(share, since=self._since.get(name)) for name, share in sorted(self._collections.items())
        }
        for series in self._open.values():
            if series.collection in shares:
                share = shares[series.collection]
                share.instances_fetched += series.fetched
                share.instances_failed += len(series.failed)
                share.bytes_fetched += series.bytes
        return tuple(shares.values())


def report_path(root: Path, run: str) -> Path:
    """Where a run's report lies."""
    return root / ".mirror" / "runs" / f"{run}.json"


def write_report(root: Path, report: RunReport) -> Path:
    """Write .mirror/runs/<run>.json whole or not at all. Safe to repeat. Raises StoreFull, StoreDenied, StoreError."""
    path = report_path(root, report.run)
    part = path.with_name(f".{path.name}.part")
    text = json.dumps(report.to_json_dict(), indent=1) + "\n"
    with store_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
    return path
