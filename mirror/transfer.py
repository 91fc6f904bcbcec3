"""One series, from taken up to judged.

    recover   files that an interrupted run left are checked where they lie, and not fetched again
    fetch     the transport lists what the archive has and brings what is not held (transports)
    judge     count, bytes, UIDs and digest against the archive's; a disagreement lists once more, then is a finding
    commit    final names, durable directories, and the verdict in one transaction with the series' state

Instances reach the ledger in batches after they are published. Killed at any point, the ledger knows no file that is
not there, and `recover` finds the files that it does not know.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Protocol

import anyio
import anyio.to_thread

from mirror.archive.client import ArchiveClient
from mirror.check import Checked, check_instance, check_series, digest_of, series_digest
from mirror.errors import ArchiveError, BadAnswer, NotFound, Refused, ServerFault, StoreFull
from mirror.events import EventSink, InstanceFailed, InstancePublished, Noticed, SeriesDone
from mirror.layout import Layout, number_names
from mirror.ledger import Ledger, Todo
from mirror.model import TOLERABLE, Finding, FindingKind, Instance, Outcome, SeriesSize, SeriesState, Verdict
from mirror.settings import SyncSettings
from mirror.tree import Store

#: Rows are written in batches of this many: what a crash makes the next run check again on disk.
_ROWS = 200
#: Findings about single instances that a verdict lists one by one; more are only counted.
_TOLD = 100
#: Disk space that is left alone.
SPARE = 64 * 1024 * 1024
_DAY = 86_400
#: Findings that say that bytes came and were wrong.
BAD_BYTES = frozenset(
    {
        FindingKind.NOT_DICOM,
        FindingKind.TRUNCATED,
        FindingKind.WRONG_INSTANCE,
        FindingKind.WRONG_SERIES,
        FindingKind.OTHER_STUDY,
        FindingKind.OTHER_PATIENT,
        FindingKind.MD5_DIFFERS,
    }
)


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
        if len(self.noticed) < _TOLD:
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
        held = await self.kit.ledger.run(self.kit.ledger.is_held, self.todo.id, sop_instance_uid)
        return held[1] if held else None

    def begin_round_two(self) -> None:
        """List and fetch once more; what was serious in the first round may be mended by it."""
        self.round = 2
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


async def transfer(kit: Kit, todo: Todo, transport: Transport) -> Outcome | None:
    """Fetch one series and judge it. None when a stop came first: it stays open, and what came is kept.

    Safe to repeat. Raises StoreError, LedgerError, and the ArchiveError of an archive that is down; whatever else is
    wrong with the series is a finding of the outcome.
    """
    began = time.monotonic()
    open_series = OpenSeries(kit, todo, listing=0)
    try:
        while True:
            open_series.listing = await kit.ledger.run(kit.ledger.open_series, todo.id)
            size = await kit.client.get_series_size(todo.series.series_instance_uid)
            if open_series.round == 1:
                await _recover(open_series, transport.source)
                await _check_space(open_series, size)
            await transport.fetch(open_series, size)
            await open_series.flush()
            if kit.stop.is_set() and not await _is_whole(open_series):
                return None
            verdict, verified = await _judge(open_series, size)
            # What could not be had is known; only a disagreement about the list itself is worth another list.
            if verdict.ok or open_series.failed or open_series.round == 2:
                break
            open_series.begin_round_two()
    except ArchiveError as error:
        await open_series.drained()
        await open_series.flush()
        if kit.client.is_down(error, began):
            raise
        verdict, verified = Verdict((open_series.finding(FindingKind.SERIES_REFUSED, str(error)),)), ""
    return await _commit(open_series, verdict, verified if verdict.ok else "")


async def _check_space(open_series: OpenSeries, size: SeriesSize | None) -> None:
    """Refuse to begin a series that the disk cannot hold: the plan did not know its size, or others write here too."""
    kit = open_series.kit
    free = await anyio.to_thread.run_sync(kit.store.free)
    if free is None or size is None or size.total_size_in_bytes is None:
        return
    totals = await kit.ledger.run(kit.ledger.totals, open_series.todo.id, 0)
    needed = size.total_size_in_bytes - totals.held_bytes + SPARE
    if needed > free:
        raise StoreFull(
            f"{open_series.todo.directory}: the series needs {needed:,} bytes ({SPARE:,} of it to spare),"
            f" {free:,} are free"
        )


async def _is_whole(open_series: OpenSeries) -> bool:
    ledger = open_series.kit.ledger
    totals = await ledger.run(ledger.totals, open_series.todo.id, open_series.listing)
    return totals.held == totals.listed > 0


async def _judge(open_series: OpenSeries, size: SeriesSize | None) -> tuple[Verdict, str]:
    """The verdict on a series, and how it was verified besides its instances' own checks."""
    kit, todo = open_series.kit, open_series.todo
    totals = await kit.ledger.run(kit.ledger.totals, todo.id, open_series.listing)
    digests: tuple[str, str] | None = None
    if totals.held == totals.listed and kit.client.server.dialect == "nbia":
        theirs = await _archive_digest(kit, todo.series.series_instance_uid)
        if theirs is not None:
            ours = await kit.ledger.run(lambda: series_digest(kit.ledger.md5s(todo.id)))
            digests = (ours, theirs)
    verdict = check_series(
        todo.series,
        size,
        listed=totals.listed,
        held=totals.held,
        held_bytes=totals.held_bytes,
        unlisted=totals.unlisted,
        digests=digests,
    )
    return verdict, "series-size,series-md5" if digests else "series-size"


async def _archive_digest(kit: Kit, series_instance_uid: str) -> str | None:
    """getMD5Hierarchy of a series; None where the server has no such call or no digest."""
    try:
        return await kit.client.get_md5_hierarchy(SeriesInstanceUID=series_instance_uid)
    except (NotFound, Refused, ServerFault, BadAnswer):
        return None


async def _commit(open_series: OpenSeries, verdict: Verdict, verified: str) -> Outcome:
    """Name the files as the layout numbers them, make them durable, and write the verdict."""
    kit, todo = open_series.kit, open_series.todo
    missing = await kit.ledger.run(kit.ledger.not_held, todo.id, open_series.listing, _TOLD)
    findings = [*verdict.findings, *open_series.noticed]
    for uid, attempts, next_try, kind, detail in missing:
        finding = open_series.finding(kind or FindingKind.UNAVAILABLE, detail or "not asked for yet", uid)
        findings.append(replace(finding, attempts=attempts, next_try=next_try))
    state = SeriesState.COMPLETE
    if not verdict.ok or missing:
        bad = any(f.kind in BAD_BYTES for f in findings)
        state = SeriesState.QUARANTINED if bad else SeriesState.INCOMPLETE
    elif kit.layout.numbered:
        await kit.ledger.run(_number, open_series)
    await anyio.to_thread.run_sync(kit.store.settle, todo.directory)
    await kit.ledger.run(kit.ledger.judge, todo.id, state, findings, verified)
    outcome = Outcome(
        series=todo.series,
        state=state,
        fetched=open_series.fetched,
        reused=open_series.reused,
        failed=open_series.failed,
        bytes_fetched=open_series.bytes_fetched,
        findings=tuple(findings),
    )
    kit.sink(SeriesDone(outcome=outcome))
    return outcome


def _number(open_series: OpenSeries) -> None:
    """Give a complete series the numbered names of its layout. Blocks.

    Names swap among themselves when an instance came in between, so each file goes by way of its provisional name,
    which is its own. A crash in between leaves names that `recover` reads from the files' headers.
    """
    kit, todo = open_series.kit, open_series.todo
    rows = kit.ledger.numbering(todo.id)
    final = number_names([(uid, acquisition, instance) for uid, _, acquisition, instance in rows])
    moving = [(uid, name) for uid, name, _, _ in rows if name != final[uid]]
    for uid, name in moving:
        if name != kit.layout.file_name(uid):
            kit.store.rename(todo.directory, name, kit.layout.file_name(uid))
    for uid, _ in moving:
        kit.store.rename(todo.directory, kit.layout.file_name(uid), final[uid])
    if moving:
        kit.ledger.rename(todo.id, [(uid, final[uid]) for uid, _ in moving])


async def _recover(open_series: OpenSeries, source: str) -> None:
    """Meet the files in the series' directory with the ledger's rows of it.

    A row without its file is forgotten. A file without a row was published by a run that was killed before it wrote
    the row: its header and bytes decide, and what checks out is not fetched again. One that does not check out but
    has a name that an instance could need is set aside; files of other kinds are nobody's business.
    """
    kit, todo = open_series.kit, open_series.todo
    files = await anyio.to_thread.run_sync(kit.store.names, todo.directory)
    rows = await kit.ledger.run(kit.ledger.held_names, todo.id)
    if not files and not rows:
        return
    # A run that was killed while it renamed may have left one instance under another's name: then no row is believed.
    believe = not (kit.layout.numbered and todo.state is SeriesState.OPEN)
    known = {name for _, name, size in rows if believe and files.get(name) == size}
    gone = [uid for uid, name, _ in rows if name not in known]
    if gone:
        await kit.ledger.run(kit.ledger.forget, todo.id, gone)
    suffix = PurePosixPath(kit.layout.file_name("1")).suffix
    for name in sorted(set(files) - known):
        if PurePosixPath(name).suffix != suffix:
            continue
        found = await anyio.to_thread.run_sync(_identify, open_series, name, source)
        if isinstance(found, Instance):
            await open_series.published(found, reused=True)
        else:
            await anyio.to_thread.run_sync(kit.store.set_aside, todo.directory, name, found.findings)
    await open_series.flush()


def _identify(open_series: OpenSeries, name: str, source: str) -> Instance | Verdict:
    """The instance that a file of the tree is, or why it is none of this series. Blocks."""
    kit, todo = open_series.kit, open_series.todo
    with kit.store.open(todo.directory, name) as file:
        size = file.seek(0, 2)
        checked = tolerance(kit.settings, check_instance(file, size, todo.series))
        if checked.header is None or not checked.verdict.ok:
            return checked.verdict
        return Instance(
            header=checked.header,
            digest=digest_of(file),
            name=name,
            source=source,
            fetched_at=int(time.time()),
            verified="header",
        )


def tolerance(settings: SyncSettings, checked: Checked) -> Checked:
    """The check under the setting that says whether another study's or patient's identity is tolerated."""
    return replace(checked, verdict=replace(checked.verdict, strict=settings.on_other_identity == "refuse"))


def _patience(attempts: int) -> int:
    """Seconds until an instance is asked for again: by the next two runs, then less and less often, weekly at most."""
    return 0 if attempts < 3 else min(7, 2 ** (attempts - 3)) * _DAY
