"""A series that is being fetched, and what goes with it: who works on it reports here.

Hides when rows reach the ledger (in batches, after their files are published) and how jobs under way are counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import anyio

from mirror.archive.client import ArchiveClient
from mirror.check import Checked
from mirror.events import EventSink, InstanceFailed, InstancePublished, Noticed, SeriesOpened
from mirror.layout import Layout
from mirror.ledger import Came, Held, Ledger, SeriesTotals, Todo
from mirror.limits import Limits
from mirror.model import TOLERABLE, Finding, FindingKind, Instance, Series, SeriesSize
from mirror.settings import SyncSettings
from mirror.threads import Inline, Threads
from mirror.tree import Store

T = TypeVar("T")

#: Rows are written in batches of this many: what a crash makes the next run check again on disk.
_ROWS = 200
#: Findings about single instances that a verdict lists one by one; more are only counted.
TOLD = 100
_DAY = 86_400
#: What a row counts for, for a turn of the ledger to be as long as a small body takes.
_ROW_BYTES = 512
#: Times that a server says in a row, and from the start, that it has no such call.
_OFTEN_ENOUGH = 3
#: Threads that check bodies: more than one core can hash for, for disks that make each of them wait.
_CHECKERS = 8


class DigestCall:
    """Whether the archive has getMD5Hierarchy: one that only ever said no such thing is not asked for each series.

    An archive of the dialect that never had it would be asked a million times; one that has it answers 200 even for
    what it does not know.
    """

    def __init__(self) -> None:
        self._missing = 0
        self._answered = False

    @property
    def is_there(self) -> bool:
        """False where the archive has shown that it has no such call."""
        return self._answered or self._missing < _OFTEN_ENOUGH

    def answered(self) -> None:
        """It was answered, by whatever it was."""
        self._answered = True

    def missed(self) -> None:
        """The answer was that there is no such thing."""
        self._missing += 1


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
    #: The run's name: what the series to fetch are planned for, and what its history and retired bytes go by.
    run: str
    #: Who reads, hashes and places bodies.
    threads: Threads = field(default_factory=lambda: Threads(_CHECKERS, "check"))
    inline: Inline = field(default_factory=Inline)
    #: As `inline`, for turns of the ledger about a small series.
    turns: Inline = field(default_factory=Inline)
    digest_call: DigestCall = field(default_factory=DigestCall)
    limits: Limits = field(default_factory=Limits)

    @property
    def most_open(self) -> int:
        """Series that may be open at a time: sync.open_series."""
        return self.settings.most_open(self.client.pace.statistics().cap)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where the bodies of a series belong, and what they are held against: all of a run that checking them needs."""

    series: Series
    directory: str
    store: Store
    layout: Layout
    settings: SyncSettings
    run: str

    def finding(self, kind: FindingKind, detail: str, sop_instance_uid: str | None = None) -> Finding:
        """A finding about this series or an instance of it."""
        return Finding(
            kind=kind,
            detail=detail,
            collection=self.series.collection,
            series_instance_uid=self.series.series_instance_uid,
            sop_instance_uid=sop_instance_uid,
        )


@dataclass(slots=True)
class OpenSeries:
    """A series that is being fetched. Belongs to the task that took it up; fetchers report to it."""

    kit: Kit
    todo: Todo
    #: 0 until it was taken up.
    listing: int = 0
    #: Disk space that was free then; None: the store has no bounds.
    free: int | None = None
    fetched: int = 0
    reused: int = 0
    failed: int = 0
    bytes_fetched: int = 0
    #: 1 at first, 2 when the series is listed and fetched once more.
    round: int = 1
    #: The archive tells of a change, and its digest of the series is to tell whether what is held has it.
    by_digest: bool = False
    #: Instances that could not be had in this run.
    vain: set[str] = field(default_factory=set)
    #: Instances that came with the zip that is being unpacked.
    seen: set[str] = field(default_factory=set)
    #: Findings that do not lose an instance, told with the verdict.
    noticed: list[Finding] = field(default_factory=list)
    #: Instances whose held bytes turned out not to be the archive's.
    damaged: set[str] = field(default_factory=set)
    shelf: Shelf = field(init=False)
    _pending: int = 0
    _idle: anyio.Event = field(default_factory=anyio.Event)
    #: Instances that have other bytes now -> where the ones before lie.
    _retired: dict[str, str] = field(default_factory=dict)
    _rows: list[Instance] = field(default_factory=list)
    _trusted: list[str] = field(default_factory=list)
    _failures: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        kit, todo = self.kit, self.todo
        self.shelf = Shelf(todo.series, todo.directory, kit.store, kit.layout, kit.settings, kit.run)

    async def turn(self, work: Callable[[], T]) -> T:
        """What `work` gives, called where it may use the ledger: its thread, or the loop while that is idle.

        For what is about this series alone.
        """
        kit, count = self.kit, self.todo.series.image_count
        if count is None or not kit.turns.suits(count * _ROW_BYTES):
            return await kit.ledger.run(work)
        if not kit.ledger.is_idle:
            # Behind what it is at; who joins it with work would keep it from ever getting idle again.
            await kit.ledger.run(int)
            if not kit.ledger.is_idle:
                return await kit.ledger.run(work)
        began = time.perf_counter()
        done = work()
        kit.turns.learn(time.perf_counter() - began)
        return done

    async def published(self, instance: Instance, *, reused: bool = False, retired: str | None = None) -> None:
        """Note an instance that lies in the tree; `retired`: where the bytes lie that it had before."""
        if not reused:
            self.fetched += 1
            self.bytes_fetched += instance.digest.bytes
        self._tell(instance.header.sop_instance_uid, instance.digest.bytes, reused=reused)
        if retired is not None:
            self._retired[instance.header.sop_instance_uid] = retired
        self._rows.append(instance)
        if len(self._rows) >= _ROWS:
            await self.flush()

    async def trusted(self, sop_instance_uid: str, size: int) -> None:
        """Note that the archive still has the bytes that are held of an instance."""
        self._tell(sop_instance_uid, size, reused=True)
        self._trusted.append(sop_instance_uid)
        if len(self._trusted) >= _ROWS:
            await self.flush()

    def tell_opened(self, totals: SeriesTotals, expected: int = 0) -> None:
        """Say that the series is listed: `expected` instances where the server gives no list."""
        listed = max(totals.listed, expected)
        self.kit.sink(
            SeriesOpened(
                series_instance_uid=self.todo.series.series_instance_uid,
                collection=self.todo.series.collection,
                listed=listed,
                to_fetch=max(0, listed - totals.held - totals.unlisted),
            )
        )

    def _tell(self, sop_instance_uid: str, size: int, *, reused: bool) -> None:
        self.reused += reused
        self.kit.sink(
            InstancePublished(
                series_instance_uid=self.todo.series.series_instance_uid,
                sop_instance_uid=sop_instance_uid,
                bytes=size,
                reused=reused,
            )
        )

    async def lost(self, finding: Finding) -> None:
        """Note an instance that could not be had, with how often that was tried and when it is tried again."""
        ledger, uid = self.kit.ledger, finding.sop_instance_uid or ""
        attempts = 1 + await ledger.run(ledger.attempts, self.todo.id, uid)
        finding = replace(finding, attempts=attempts, next_try=int(time.time()) + _patience(attempts))
        self.failed += 1
        self.vain.add(uid)
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
        return self.shelf.finding(kind, detail, sop_instance_uid)

    async def flush(self) -> None:
        """Write the rows that have gathered."""
        if self._rows or self._failures or self._trusted:
            await self.turn(self.write)

    def write(self) -> None:
        """As `flush`, for who is in the ledger's thread already."""
        ledger, series = self.kit.ledger, self.todo.series
        rows, self._rows = self._rows, []
        failures, self._failures = self._failures, []
        trusted, self._trusted = self._trusted, []
        retired, self._retired = self._retired, {}
        if rows or failures:
            came = Came(self.kit.run, series.collection, series.series_instance_uid, retired)
            ledger.record(self.todo.id, rows, failures, came)
        if trusted:
            ledger.trust(self.todo.id, trusted)

    async def held(self, sop_instance_uid: str) -> Held | None:
        """An instance as it is held already, or None."""
        for row in self._rows:
            if row.header.sop_instance_uid == sop_instance_uid:
                return Held(row.name, row.digest, doubted=False, was_right=False)
        return await self.kit.ledger.run(self.kit.ledger.held, self.todo.id, sop_instance_uid)

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
    strict = settings.on_other_identity == "refuse"
    if checked.verdict.strict == strict:
        return checked
    return Checked(checked.header, replace(checked.verdict, strict=strict))


def _patience(attempts: int) -> int:
    """Seconds until an instance is asked for again: by the next two runs, then less and less often, weekly at most."""
    return 0 if attempts < 3 else min(7, 2 ** (attempts - 3)) * _DAY
