"""The run report: what a run did, folded from its events. Its JSON form is an interface.

The Reporter is an event sink whose memory does not grow with the run: a count per archive call, a record per series
that is open, and at most FINDINGS_KEPT findings; the rest of those are only counted. The record of an open series grows
with the objects of it that failed, and is gone when the series is judged. A judged series counts with the figures of
its outcome, one that was cut off in the middle with those of its events.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from mirror.errors import ExitCode, store_errors
from mirror.events import (
    CollectionCrawled,
    Event,
    InstanceFailed,
    InstancePublished,
    Noticed,
    Planned,
    RequestDone,
    RunStarted,
    SeriesDone,
)
from mirror.model import Finding, Outcome, SeriesState

#: More findings than these are counted, not kept.
FINDINGS_KEPT = 1000

RunState = Literal["complete", "incomplete", "interrupted", "failed", "planned"]


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
    run: str = ""
    server: str = ""
    root: str = ""
    scope: str = ""
    #: UTC, YYYY-MM-DDTHH:MM:SSZ.
    started_at: str = ""
    version: str = ""
    error: str | None = None

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
            "run": self.run,
            "server": self.server,
            "root": self.root,
            "scope": self.scope,
            "started_at": self.started_at,
            "version": self.version,
            "error": self.error,
        }


def finding_to_json_dict(finding: Finding) -> dict[str, Any]:
    """A finding as JSON values, nulls left out."""
    return {name: value for name, value in asdict(finding).items() if value is not None}


@dataclass(slots=True)
class _OpenSeries:
    """What the events tell of a series that is not judged yet. A finding may come twice: by event and by outcome."""

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
        self._planned = 0
        self._kept = 0
        self._plan_stands = False
        self._states: Counter[SeriesState] = Counter()
        self._fetched = self._reused = self._failed = self._bytes = 0
        self._calls: Counter[str] = Counter()
        self._retried = 0
        self._findings: list[Finding] = []
        self._findings_total = 0
        self._open: dict[str, _OpenSeries] = {}

    def __call__(self, event: Event) -> None:
        """Fold one event. Never raises."""
        match event:
            case RequestDone(call=call, retried=retried):
                self._calls[call] += 1
                self._retried += retried
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
                self._find(finding)
            case CollectionCrawled(planned=planned):
                self._planned += planned
            case Planned(series=series_planned, kept=kept):
                self._planned, self._kept, self._plan_stands = series_planned, kept, True
            case RunStarted():
                self._started = event
            case _:
                pass

    def _entry(self, series_instance_uid: str) -> _OpenSeries:
        return self._open.setdefault(series_instance_uid, _OpenSeries())

    def _find(self, finding: Finding) -> None:
        self._findings_total += 1
        if len(self._findings) < FINDINGS_KEPT:
            self._findings.append(finding)

    def _judge(self, outcome: Outcome) -> None:
        entry = self._open.pop(outcome.series.series_instance_uid, _OpenSeries())
        self._states[outcome.state] += 1
        self._fetched += outcome.fetched
        self._reused += outcome.reused
        self._failed += outcome.failed
        self._bytes += outcome.bytes_fetched
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
            findings_total=self._findings_total,
            run=started.run if started else "",
            server=started.server if started else "",
            root=started.root if started else "",
            scope=started.scope if started else "",
            started_at=datetime.fromtimestamp(self._started_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            version=version("tcia-mirror"),
            error=error,
        )


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
