"""A series that is being fetched, and what goes with it: who works on it reports here.

Hides when rows reach the ledger (in batches, after their files are published) and how jobs under way are counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Protocol

import anyio

from mirror.archive.client import ArchiveClient
from mirror.check import Checked
from mirror.events import EventSink, InstanceFailed, InstancePublished, Noticed
from mirror.layout import Layout
from mirror.ledger import Ledger, Todo
from mirror.model import TOLERABLE, Finding, FindingKind, Instance, SeriesSize
from mirror.settings import SyncSettings
from mirror.tree import Store

#: Rows are written in batches of this many: what a crash makes the next run check again on disk.
_ROWS = 200
#: Findings about single instances that a verdict lists one by one; more are only counted.
TOLD = 100
_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What one run hands to everything that works on its series."""

    client: ArchiveClient
    ledger: Ledger
    store: Store
    layout: Layout
    settings: SyncSettings
    sink: EventSink
    stop: anyio.Event


@dataclass(slots=True)
class OpenSeries:
    """A series that is being fetched. Belongs to the task that took it up; fetchers report to it."""

    kit: Kit
    todo: Todo
    listing: int
    fetched: int = 0
    reused: int = 0
    failed: int = 0
    bytes_fetched: int = 0
    #: 1 at first, 2 when the series is listed and fetched once more.
    round: int = 1
    #: Findings that do not lose an instance, told with the verdict.
    noticed: list[Finding] = field(default_factory=list)
    #: Instances whose held bytes turned out not to be the archive's.
    damaged: set[str] = field(default_factory=set)
    _pending: int = 0
    _idle: anyio.Event = field(default_factory=anyio.Event)
    _rows: list[Instance] = field(default_factory=list)
    _failures: list[Finding] = field(default_factory=list)

    async def published(self, instance: Instance, *, reused: bool = False) -> None:
        """Note an instance that lies in the tree."""
        if reused:
            self.reused += 1
        else:
            self.fetched += 1
            self.bytes_fetched += instance.digest.bytes
        self.kit.sink(
            InstancePublished(
                series_instance_uid=self.todo.series.series_instance_uid,
                sop_instance_uid=instance.header.sop_instance_uid,
                bytes=instance.digest.bytes,
                reused=reused,
            )
        )
        self._rows.append(instance)
        if len(self._rows) >= _ROWS:
            await self.flush()

    async def lost(self, finding: Finding) -> None:
        """Note an instance that could not be had, with how often that was tried and when it is tried again."""
        ledger, uid = self.kit.ledger, finding.sop_instance_uid or ""
        attempts = 1 + await ledger.run(ledger.attempts, self.todo.id, uid)
        finding = replace(finding, attempts=attempts, next_try=int(time.time()) + _patience(attempts))
        self.failed += 1
        self.kit.sink(
            InstanceFailed(
                series_instance_uid=self.todo.series.series_instance_uid, sop_instance_uid=uid, finding=finding
            )
        )
        self._failures.append(finding)
        if len(self._failures) >= _ROWS:
            await self.flush()

    def notice(self, finding: Finding) -> None:
        """Note a finding that goes with the verdict on the series."""
        self.kit.sink(Noticed(finding=finding))
        if len(self.noticed) < TOLD:
            self.noticed.append(finding)

    def finding(self, kind: FindingKind, detail: str, sop_instance_uid: str | None = None) -> Finding:
        """A finding about this series or an instance of it."""
        series = self.todo.series
        return Finding(
            kind=kind,
            detail=detail,
            collection=series.collection,
            series_instance_uid=series.series_instance_uid,
            sop_instance_uid=sop_instance_uid,
        )

    async def flush(self) -> None:
        """Write the rows that have gathered."""
        rows, self._rows = self._rows, []
        failures, self._failures = self._failures, []
        if rows or failures:
            await self.kit.ledger.run(self.kit.ledger.record, self.todo.id, rows, failures)

    async def held_as(self, sop_instance_uid: str) -> str | None:
        """The SHA-256 under which an instance is held already, or None."""
        for instance in self._rows:
            if instance.header.sop_instance_uid == sop_instance_uid:
                return instance.digest.sha256
        held = await self.kit.ledger.run(self.kit.ledger.held_digest, self.todo.id, sop_instance_uid)
        return held.sha256 if held else None

    async def begin_round_two(self) -> None:
        """List and fetch once more; what was serious in the first round may be mended by it."""
        self.round = 2
        self.listing = await self.kit.ledger.run(self.kit.ledger.open_series, self.todo.id)
        self.noticed = [finding for finding in self.noticed if finding.kind in TOLERABLE]

    def begin_job(self) -> None:
        """A job for this series is on its way to a fetcher."""
        self._pending += 1

    def end_job(self) -> None:
        """A job for this series has ended, well or not."""
        self._pending -= 1
        if self._pending == 0:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until no job of this series is on its way."""
        while self._pending:
            self._idle = anyio.Event()
            await self._idle.wait()


class Transport(Protocol):
    """How the instances of a series come."""

    #: The call that brings them, for the manifest.
    source: str

    async def fetch(self, open_series: OpenSeries, size: SeriesSize | None) -> None:
        """List what the archive has and bring what is not held. Ends when no job of the series is under way."""
        ...


def tolerance(settings: SyncSettings, checked: Checked) -> Checked:
    """The check under the setting that says whether another study's or patient's identity is tolerated."""
    return replace(checked, verdict=replace(checked.verdict, strict=settings.on_other_identity == "refuse"))


def _patience(attempts: int) -> int:
    """Seconds until an instance is asked for again: by the next two runs, then less and less often, weekly at most."""
    return 0 if attempts < 3 else min(7, 2 ** (attempts - 3)) * _DAY
