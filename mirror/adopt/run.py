"""One adoption: walk, plan, take over, compare, remove what was moved; export and report as a sync does.

Killed on any line and run again it comes right: a file is at any moment at its source or in the tree, and a source is
removed only when the tree and the ledger have its bytes.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from mirror.adopt.offered import How, Offers, OfferTransport
from mirror.adopt.report import Adoption, AdoptionReport
from mirror.adopt.walk import walk
from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import Server, server_of
from mirror.crawl import Crawling, crawl
from mirror.errors import ExitCode, Interrupted, SettingsError, StoreFull
from mirror.events import Event, EventSink, Noticed, Planned, RunStarted, SeriesDone, ignore
from mirror.fetch import take_up_planned
from mirror.layout import Layout
from mirror.ledger import Ledger
from mirror.ledger.found import FoundFiles, FoundSeries, Standing
from mirror.model import TOLERABLE, Finding, FindingKind, Scope, SeriesState, Walk
from mirror.pipeline import export_changed, failure_reported, layout_of, ledger_to_rehearse, one_error
from mirror.report import Reporter, RunState, write_report
from mirror.settings import Settings
from mirror.transfer import SPARE, Kit
from mirror.transports import probe
from mirror.tree import LocalStore

T = TypeVar("T")

#: Series are crawled, and asked of the scratch file, in pages of this many.
_PAGE = 100
#: Series on which it is tried whether the archive lists instances.
_PROBED = 3


async def adopt(
    folder: Path,
    root: Path,
    settings: Settings,
    *,
    how: How = "link",
    token: str | None = None,
    sink: EventSink = ignore,
    stop: anyio.Event | None = None,
    dry_run: bool = False,
) -> AdoptionReport:
    """Take the DICOM files below `folder` into the mirror at `root`, those that check out. Safe to repeat and to kill.

    "link" gives the bytes a second name in the tree and copies where the disk has no links; "copy" copies; "move" is
    as "link", and then takes the files that the mirror has from the folder. A dry run reads headers, asks the archive
    and changes nothing. Raises SettingsError for a folder that cannot be adopted, and what ends a sync.
    """
    folder, root = _checked(folder, root)
    run = _Run(folder, root, settings, server_of(settings.archive), how, token, sink, stop or anyio.Event())
    return await run.rehearse() if dry_run else await run.perform()


def _checked(folder: Path, root: Path) -> tuple[Path, Path]:
    """Both as they are without links and dots. Raises SettingsError where they are no two places."""
    if not folder.is_dir():
        raise SettingsError(f"{folder}: is no folder")
    folder, root = folder.resolve(), root.resolve()
    if folder == root or root in folder.parents:
        raise SettingsError(
            f"{folder}: lies in the mirror {root} itself; `tcia-mirror rebuild` makes a ledger for what lies there"
        )
    return folder, root


class _RoomForLinks(LocalStore):
    """A store into which files come by links, which take no room."""

    def free(self) -> int:
        """More than anything needs; what is copied after all meets the disk's own limit."""
        return sys.maxsize


class _Run:
    """The state of one adoption."""

    def __init__(
        self,
        folder: Path,
        root: Path,
        settings: Settings,
        server: Server,
        how: How,
        token: str | None,
        sink: EventSink,
        stop: anyio.Event,
    ) -> None:
        self._folder = folder
        self._root = root
        self._settings = settings
        self._server = server
        self._how: How = how
        self._token = token
        self._sink = sink
        self._stop = stop
        self._reporter = Reporter()
        self._adoption = Adoption(folder=str(folder), how=how)
        self._name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"
        #: Series that do not add up for another reason than that instances are missing.
        self._doubtful = 0

    async def rehearse(self) -> AdoptionReport:
        """Walk and plan, on a ledger and a scratch file that are forgotten."""
        with (
            ledger_to_rehearse(self._root) as ledger,
            tempfile.TemporaryDirectory(prefix="tcia-mirror-") as scratch,
            FoundFiles(Path(scratch) / "found.sqlite") as found,
            one_error(),
        ):
            layout = layout_of(ledger, self._settings.sync.layout)
            self._begin()
            await self._walk(found)
            async with self._client(spool=None) as client:
                whole = await self._plan(client, ledger, layout, found)
            if not whole:
                return self._report("interrupted", ExitCode.INTERRUPTED)
            await self._foresee(self._offers(found, ledger))
        return self._report("planned", self._code())

    async def perform(self) -> AdoptionReport:
        """Walk, plan, take over, compare, remove, export, report."""
        with Ledger(self._root) as ledger:
            layout = layout_of(ledger, self._settings.sync.layout)
            with failure_reported(self._written):
                return await self._perform(ledger, layout)

    async def _perform(self, ledger: Ledger, layout: Layout) -> AdoptionReport:
        self._begin()
        ledger.set_meta(server=self._server.base, dialect=self._server.dialect)
        kind = _RoomForLinks if self._links() else LocalStore
        store = kind(self._root, fsync=self._settings.sync.fsync)
        await anyio.to_thread.run_sync(store.sweep)
        with store.scratch() as path, FoundFiles(path) as found:
            await self._walk(found)
            offers = self._offers(found, ledger)
            async with self._client(spool=store.scratch_folder) as client:
                whole = await self._plan(client, ledger, layout, found)
                if whole:
                    await self._check_space(ledger, found, store)
                    kit = Kit(
                        client=client, ledger=ledger, store=store, layout=layout, settings=self._settings.sync,
                        sink=self._emit, stop=self._stop, run=self._name,
                    )  # fmt: skip
                    await self._take_over(kit, offers)
                    await self._compare_settled(offers)
            if self._how == "move":
                await self._remove(offers)
            whole = whole and not self._stop.is_set() and not await ledger.run(ledger.todo, self._name, 0, 1)
        held = await ledger.run(ledger.bytes_held)
        await export_changed(self._root, ledger, self._emit)
        if not whole:
            return self._written("interrupted", ExitCode.INTERRUPTED, bytes_held=held)
        code = self._code()
        return self._written("complete" if code is ExitCode.COMPLETE else "incomplete", code, bytes_held=held)

    def _begin(self) -> None:
        self._emit(
            RunStarted(
                run=self._name,
                server=self._server.base,
                root=str(self._root),
                scope=f"adopt {self._folder}",
                connections=self._settings.archive.connections,
            )
        )
        if self._server.warning:
            self._tell(Finding(kind=FindingKind.STALE_SERVER, detail=self._server.warning))

    def _client(self, *, spool: Path | None) -> ArchiveClient:
        return ArchiveClient(
            self._server, self._settings.archive, token=self._token, sink=self._emit, stop=self._stop, spool=spool
        )

    def _offers(self, found: FoundFiles, ledger: Ledger) -> Offers:
        return Offers(found=found, ledger=ledger, how=self._how, adoption=self._adoption, sink=self._emit)

    async def _walk(self, found: FoundFiles) -> None:
        await walk(self._folder, self._root, found, self._adoption, self._tell, self._stop)

    async def _plan(self, client: ArchiveClient, ledger: Ledger, layout: Layout, found: FoundFiles) -> bool:
        """Ask the archive for the series that were found and plan those that it gives; False when a stop came first.

        Series that the mirror has whole are neither asked for nor planned: whether the archive changed them is for
        a sync to find out.
        """
        while page := await found.run(found.series, Standing.UNASKED, 0, _PAGE):
            if self._stop.is_set():
                return False
            uids = [series.uid for series in page]
            settled = await ledger.run(ledger.settled_series, uids)
            asked = [uid for uid in uids if uid not in settled]
            unknown: set[str] = set()
            if asked:
                crawling = Crawling(
                    client=client, ledger=ledger, layout=layout, run=self._name, sink=self._emit,
                    settings=self._settings.sync, scope=Scope(series=tuple(asked)), walk=Walk(),
                )  # fmt: skip
                crawled = await _uninterrupted(crawl(crawling))
                if crawled is None:
                    return False
                unknown.update(crawled.refused)
            await found.run(found.set_standing, Standing.SETTLED, [*settled])
            await found.run(found.set_standing, Standing.UNKNOWN, [*unknown])
            await found.run(found.set_standing, Standing.WANTED, [uid for uid in asked if uid not in unknown])
        adoption = self._adoption
        wanted, files = await found.run(found.count_series, Standing.WANTED)
        settled_series, _ = await found.run(found.count_series, Standing.SETTLED)
        adoption.series_known = wanted + settled_series
        adoption.series_unknown, adoption.unknown = await found.run(found.count_series, Standing.UNKNOWN)
        self._emit(
            Planned(
                collections=0,
                series=wanted,
                kept=settled_series,
                objects=files,
                bytes=await found.run(found.bytes_wanted),
                free=None,
            )
        )
        return not self._stop.is_set()

    async def _foresee(self, offers: Offers) -> None:
        """Count what would be adopted, by what headers say: no byte is compared."""
        for standing in (Standing.WANTED, Standing.SETTLED):
            async for series in offers.series(standing):
                last = ""
                async for page, holdings in offers.pages(series):
                    for file, _ in page:
                        holding = holdings.get(file.sop_instance_uid)
                        again = file.sop_instance_uid == last or (holding is not None and holding.name is not None)
                        self._adoption.held += again
                        self._adoption.adopted += not again
                        last = file.sop_instance_uid

    def _links(self) -> bool:
        """Whether files come by links, as far as can be known beforehand."""
        return self._how != "copy" and self._folder.stat().st_dev == self._root.stat().st_dev

    async def _check_space(self, ledger: Ledger, found: FoundFiles, store: LocalStore) -> None:
        """Refuse to begin what the disk cannot hold."""
        planned = [share.bytes for share in await ledger.run(ledger.plan_sizes, self._name)]
        needed = await found.run(found.bytes_wanted)
        if None not in planned:
            # What an earlier adoption brought is not among what the archive has and the mirror has not.
            needed = min(needed, sum(size for size in planned if size is not None))
        free = store.free()
        if needed and needed + SPARE > free:
            raise StoreFull(
                f"{self._root}: copies of what was found need {needed:,} bytes and {SPARE:,} to spare, {free:,} are"
                " free; nothing was adopted"
            )

    async def _take_over(self, kit: Kit, offers: Offers) -> None:
        first = await kit.ledger.run(kit.ledger.todo, self._name, 0, _PROBED)
        if not first:
            return
        can = await _uninterrupted(probe(kit.client, [todo.series.series_instance_uid for todo in first]))
        if can is not None:
            await take_up_planned(kit, OfferTransport(offers, lists=can.lists))

    async def _compare_settled(self, offers: Offers) -> None:
        """What was found of series that the mirror has whole: the same bytes, or told."""
        gate = anyio.CapacityLimiter(self._settings.sync.most_open(self._settings.archive.connections))

        async def one(series: FoundSeries) -> None:
            async with gate:
                if not self._stop.is_set():
                    await offers.compare_series(series)

        after = 0
        while page := await offers.found.run(offers.found.series, Standing.SETTLED, after, _PAGE):
            after = page[-1].id
            async with anyio.create_task_group() as tasks:
                for series in page:
                    tasks.start_soon(one, series)

    async def _remove(self, offers: Offers) -> None:
        """Take the files from the folder whose bytes the tree and the ledger have."""
        for standing in (Standing.WANTED, Standing.SETTLED):
            async for series in offers.series(standing):
                directory = await offers.ledger.run(offers.ledger.directory_of, series.uid)
                async for page, holdings in offers.pages(series, proven=True):
                    for file, digest in page:
                        holding = holdings.get(file.sop_instance_uid)
                        # What was set aside since, as damaged, keeps its source.
                        if holding is None or holding.name is None or holding.sha256 != digest:
                            continue
                        target = self._root / (directory or "") / holding.name
                        try:
                            self._adoption.removed += await anyio.to_thread.run_sync(_remove, file.path, target)
                        except OSError as error:
                            offers.unreadable(file, error)

    def _emit(self, event: Event) -> None:
        if isinstance(event, SeriesDone):
            outcome = event.outcome
            self._adoption.missing += outcome.failed
            serious = {finding.kind for finding in outcome.findings} - TOLERABLE
            self._doubtful += outcome.state is not SeriesState.COMPLETE and serious != {FindingKind.INSTANCES_MISSING}
        self._reporter(event)
        self._sink(event)

    def _tell(self, finding: Finding) -> None:
        self._emit(Noticed(finding=finding))

    def _code(self) -> ExitCode:
        """What is missing is for a sync; what was found and did not check out is for a person."""
        wrong = self._adoption.refused or self._adoption.series_unknown or self._doubtful
        return ExitCode.INCOMPLETE if wrong else ExitCode.COMPLETE

    def _report(
        self, state: RunState, code: ExitCode, *, bytes_held: int | None = None, error: str | None = None
    ) -> AdoptionReport:
        return AdoptionReport.of(self._reporter.finish(state, code, bytes_held=bytes_held, error=error), self._adoption)

    def _written(
        self, state: RunState, code: ExitCode, *, bytes_held: int | None = None, error: str | None = None
    ) -> AdoptionReport:
        """The report of this run, which lies in .mirror/runs/ from now on."""
        report = self._report(state, code, bytes_held=bytes_held, error=error)
        write_report(self._root, report)
        return report


async def _uninterrupted(work: Coroutine[Any, Any, T]) -> T | None:
    """What the work comes to; None when a stop came while a request of it was waiting."""
    result: T | None = None
    try:
        result = await work
    except* Interrupted:
        result = None
    return result


def _remove(source: Path, target: Path) -> bool:
    """Remove a file that the tree has as well; False where that cannot be seen. Blocks. Raises the source's OSError."""
    found = source.stat()
    try:
        kept = target.stat()
    except OSError:
        return False
    # One file that has one name was met by two ways: a folder that is mounted twice.
    if kept.st_size != found.st_size or (source.samefile(target) and found.st_nlink < 2):
        return False
    source.unlink()
    return True
