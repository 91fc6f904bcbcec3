"""One run: crawl and plan a scope, fetch what the plan says, export what is held, report.

    crawl -> planned series (ledger) -> [series stream] -> listers -> [instance queue] -> fetchers -> tree, ledger

`sync` owns every task of a run; none outlives it. The streams are bounded, so a crawl of any size waits for the disk
and the wire. The plan stands before the first byte is fetched: what a run will do can be printed (dry run) and held
against the free space. Stopping takes no new series and no new instance, lets what is in flight land, and commits.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import Server, server_of
from mirror.crawl import Crawled, Crawler, describe
from mirror.errors import ExitCode, Interrupted, MirrorError, SettingsError, StoreError, StoreFull
from mirror.events import (
    CollectionPlanned,
    Event,
    EventSink,
    Exported,
    Noticed,
    Planned,
    RunStarted,
    Stopping,
    TransportChosen,
    ignore,
)
from mirror.export import export_standard
from mirror.layout import Layout
from mirror.ledger import Ledger, Todo
from mirror.model import Finding, FindingKind, Scope
from mirror.report import Reporter, RunReport, RunState, write_report
from mirror.settings import Settings
from mirror.transfer import SPARE, Kit, Transport, transfer
from mirror.transports import InstanceTransport, Job, ZipTransport, fetch_instance, probe
from mirror.tree import LocalStore

#: Series that wait for a lister, and pages in which the ledger is read for them.
_WAITING = 4
_PAGE = 100
#: Series on which a server's capabilities are tried.
_PROBED = 3


async def sync(
    root: Path,
    scope: Scope,
    settings: Settings,
    *,
    token: str | None = None,
    sink: EventSink = ignore,
    stop: anyio.Event | None = None,
    dry_run: bool = False,
) -> RunReport:
    """Bring a mirror up to the archive. Safe to repeat, and to kill at any point: the next run goes on.

    Setting `stop` ends the run early and in order; cancelling ends it at once, with nothing half-written. A dry run
    asks the archive and changes nothing. Raises what ends a run: SettingsError, Locked, StoreError, LedgerError,
    and ArchiveError when the archive is down or nothing of the scope could be crawled. All else is in the report.
    """
    if scope.is_empty():
        raise SettingsError("the scope is empty: name collections, or series, or ask for all")
    run = _Run(root, scope, settings, server_of(settings.archive), token, sink, stop or anyio.Event())
    return await run.rehearse() if dry_run else await run.perform()


class _Run:
    """The state of one run: who is told, and whether to stop."""

    def __init__(
        self,
        root: Path,
        scope: Scope,
        settings: Settings,
        server: Server,
        token: str | None,
        sink: EventSink,
        stop: anyio.Event,
    ) -> None:
        self._root = root
        self._scope = scope
        self._settings = settings
        self._server = server
        self._token = token
        self._stop = stop
        self._sink = sink
        self._reporter = Reporter()
        self._name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"

    def _emit(self, event: Event) -> None:
        self._reporter(event)
        self._sink(event)

    async def rehearse(self) -> RunReport:
        """Crawl and plan on a ledger that forgets; nothing is left of it but the report."""
        with _ledger_to_rehearse(self._root) as ledger, _one_error():
            layout = _layout_of(ledger, self._settings.sync.layout)
            self._begin()
            async with self._client(spool=None) as client:
                crawled = await self._crawl(client, ledger, layout)
            if crawled is None:
                return self._reporter.finish("interrupted", ExitCode.INTERRUPTED)
            await self._tell_plan(ledger, crawled, _free(self._root))
        whole = not (crawled.failed or crawled.refused)
        return self._reporter.finish("planned", ExitCode.COMPLETE if whole else ExitCode.INCOMPLETE)

    async def perform(self) -> RunReport:
        """Crawl, plan, fetch, export, report."""
        with Ledger(self._root) as ledger:
            layout = _layout_of(ledger, self._settings.sync.layout)
            try:
                with _one_error():
                    return await self._perform(ledger, layout)
            except MirrorError as error:
                # A full disk takes no report either: the error itself is what must come out.
                with suppress(StoreError):
                    self._written("failed", error.exit_code, error=str(error))
                raise

    async def _perform(self, ledger: Ledger, layout: Layout) -> RunReport:
        self._begin()
        ledger.set_meta(server=self._server.base, dialect=self._server.dialect)
        store = LocalStore(self._root, fsync=self._settings.sync.fsync)
        await anyio.to_thread.run_sync(store.sweep)
        # Large answers of a crawl lie with the parts: a container's /tmp may be memory.
        async with self._client(spool=store.scratch_folder) as client:
            crawled = await self._crawl(client, ledger, layout)
            if crawled is None:
                return self._written("interrupted", ExitCode.INTERRUPTED)
            self._check_space(await self._tell_plan(ledger, crawled, store.free()), store.free())
            kit = Kit(
                client=client,
                ledger=ledger,
                store=store,
                layout=layout,
                settings=self._settings.sync,
                sink=self._emit,
                stop=self._stop,
            )
            await self._fetch(kit)
        state, code = await self._judge(ledger, crawled)
        if state != "interrupted":
            await ledger.run(ledger.finish_run, self._name)
        held = await ledger.run(ledger.bytes_held)
        if state == "interrupted":
            # Whoever stops a run may not wait for the manifest of a large mirror: the report comes first.
            report = self._written(state, code, bytes_held=held)
            await self._export(ledger)
            return report
        await self._export(ledger)
        return self._written(state, code, bytes_held=held)

    def _written(
        self, state: RunState, code: ExitCode, *, bytes_held: int | None = None, error: str | None = None
    ) -> RunReport:
        """The report of this run, which lies in .mirror/runs/ from now on."""
        report = self._reporter.finish(state, code, bytes_held=bytes_held, error=error)
        write_report(self._root, report)
        return report

    def _begin(self) -> None:
        self._emit(
            RunStarted(
                run=self._name,
                server=self._server.base,
                root=str(self._root),
                scope=describe(self._scope),
                connections=self._settings.archive.connections,
            )
        )
        if self._server.warning:
            self._emit(Noticed(finding=Finding(kind=FindingKind.STALE_SERVER, detail=self._server.warning)))

    def _client(self, *, spool: Path | None) -> ArchiveClient:
        return ArchiveClient(
            self._server, self._settings.archive, token=self._token, sink=self._emit, stop=self._stop, spool=spool
        )

    async def _crawl(self, client: ArchiveClient, ledger: Ledger, layout: Layout) -> Crawled | None:
        """Crawl the scope; None when a stop came first. A crawl may be cut anywhere: the next one begins anew."""
        crawled: Crawled | None = None
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                await self._stop.wait()
                self._emit(Stopping())
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            try:
                crawled = await Crawler(client, ledger, layout, self._name, self._emit).crawl(self._scope)
            except* Interrupted:
                # A request was waiting when the stop came; the watch has seen it too, or is about to.
                crawled = None
            tasks.cancel_scope.cancel()
        return crawled

    async def _tell_plan(self, ledger: Ledger, crawled: Crawled, free: int | None) -> int:
        """Tell what is to be fetched; the bytes of it, as far as the archive says."""
        shares = {share.collection: share for share in await ledger.run(ledger.plan_sizes, self._name)}
        for name in sorted({*shares, *crawled.kept}):
            share = shares.get(name)
            self._emit(
                CollectionPlanned(
                    collection=name,
                    new=share.new if share else 0,
                    changed=share.changed if share else 0,
                    unfinished=share.unfinished if share else 0,
                    kept=crawled.kept.get(name, 0),
                    objects=share.objects if share else 0,
                    bytes=share.bytes if share else 0,
                )
            )
        objects = [share.objects for share in shares.values()]
        sizes = [share.bytes for share in shares.values()]
        known = sum(size for size in sizes if size is not None)
        self._emit(
            Planned(
                collections=len(crawled.collections),
                series=sum(share.new + share.changed + share.unfinished for share in shares.values()),
                kept=sum(crawled.kept.values()),
                objects=None if None in objects else sum(n for n in objects if n is not None),
                bytes=None if None in sizes else known,
                free=free,
            )
        )
        return known

    def _check_space(self, needed: int, free: int) -> None:
        if needed and needed + SPARE > free:
            raise StoreFull(
                f"{self._root}: the plan needs {needed:,} bytes and {SPARE:,} to spare, {free:,} are free;"
                " nothing was fetched"
            )

    async def _fetch(self, kit: Kit) -> None:
        """The pipeline. Ends when every planned series is judged, or when a stop has let everything land."""
        first = await kit.ledger.run(kit.ledger.todo, self._name, 0, _PROBED)
        if not first:
            return
        connections = self._settings.archive.connections
        jobs_in, jobs_out = anyio.create_memory_object_stream[Job](2 * connections)
        series_in, series_out = anyio.create_memory_object_stream[Todo](_WAITING)
        async with anyio.create_task_group() as fetchers, jobs_out:
            for _ in range(connections):
                fetchers.start_soon(_work_off, jobs_out.clone())
            # The queue closes behind the last lister: then the fetchers run dry and end.
            async with jobs_in, series_out, anyio.create_task_group() as listers:
                transport = await self._transport(kit.client, first, jobs_in)
                listers.start_soon(self._feed, kit.ledger, series_in)
                for _ in range(self._settings.sync.open_series):
                    listers.start_soon(_take_up, kit, transport, series_out.clone())

    async def _transport(
        self, client: ArchiveClient, first: list[Todo], jobs: MemoryObjectSendStream[Job]
    ) -> Transport:
        """The transport the settings ask for; a server's capabilities are tried once per run, on its first series."""
        wish = self._settings.sync.transport
        if wish == "instance":
            return InstanceTransport(jobs)
        capabilities = await probe(client, [todo.series.series_instance_uid for todo in first])
        if wish == "auto" and capabilities.singles:
            self._emit(TransportChosen(transport="instance", why="the server gives single instances"))
            return InstanceTransport(jobs)
        why = "the settings say so" if wish == "zip" else "the server gave no single instance"
        listed = "" if capabilities.lists else "; it lists no instances, so only count and bytes can be compared"
        self._emit(TransportChosen(transport="zip", why=why + listed))
        return ZipTransport(self._server, capabilities)

    async def _feed(self, ledger: Ledger, series: MemoryObjectSendStream[Todo]) -> None:
        """Hand planned series to the listers, in the order of their crawl, until a stop."""
        after = 0
        async with series:
            while page := await ledger.run(ledger.todo, self._name, after, _PAGE):
                for todo in page:
                    if self._stop.is_set():
                        self._emit(Stopping())
                        return
                    await series.send(todo)
                after = page[-1].id

    async def _judge(self, ledger: Ledger, crawled: Crawled) -> tuple[RunState, ExitCode]:
        if await ledger.run(ledger.todo, self._name, 0, 1):
            return "interrupted", ExitCode.INTERRUPTED
        series = self._reporter.finish("complete", ExitCode.COMPLETE).series
        if series.incomplete or series.quarantined or crawled.failed or crawled.refused:
            return "incomplete", ExitCode.INCOMPLETE
        return "complete", ExitCode.COMPLETE

    async def _export(self, ledger: Ledger) -> None:
        """Write the manifest, unless the one that is there says the same."""
        changes = await ledger.run(ledger.meta, "changes") or "0"
        if changes == await ledger.run(ledger.meta, "exported") and (self._root / "manifest.csv").exists():
            return
        for path, rows in await anyio.to_thread.run_sync(export_standard, self._root):
            self._emit(Exported(path=str(path), rows=rows))
        await ledger.run(ledger.set_meta, exported=changes)


async def _take_up(kit: Kit, transport: Transport, series: MemoryObjectReceiveStream[Todo]) -> None:
    """A lister: one series after the other, each from taken up to judged."""
    async with series:
        async for todo in series:
            if not kit.stop.is_set():
                await transfer(kit, todo, transport)


async def _work_off(jobs: MemoryObjectReceiveStream[Job]) -> None:
    """A fetcher: one instance after the other, whichever series it is of."""
    async with jobs:
        async for job in jobs:
            await fetch_instance(job)


def _layout_of(ledger: Ledger, asked: str) -> Layout:
    """The mirror's layout, fixed by the first run that finds a series. Raises SettingsError for another one."""
    fixed = ledger.meta("layout") if ledger.is_laid_out() else None
    layout = Layout.parse(asked or fixed or "uid")
    if fixed is None:
        ledger.set_meta(layout=layout.name)
    elif layout.name != fixed:
        raise SettingsError(
            f"layout: this mirror is laid out as {fixed!r}, and stays so; leave the layout out, or begin another"
            f" mirror for {layout.name!r}"
        )
    return layout


@contextmanager
def _ledger_to_rehearse(root: Path) -> Iterator[Ledger]:
    """The mirror's ledger, or an empty one where there is no mirror; nothing written to it stays."""
    if (root / ".mirror" / "ledger.sqlite").exists():
        with Ledger(root, rehearse=True) as ledger:
            yield ledger
    else:
        with tempfile.TemporaryDirectory(prefix="tcia-mirror-") as folder, Ledger(Path(folder)) as ledger:
            yield ledger


def _free(root: Path) -> int | None:
    """Free bytes where the root is, or will be."""
    for folder in (root, *root.absolute().parents):
        if folder.is_dir():
            status = os.statvfs(folder)
            return status.f_bavail * status.f_frsize
    return None


@contextmanager
def _one_error() -> Iterator[None]:
    """Task groups raise groups; out of a run comes the one error that a person should read."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _cause(group) from group


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A bug before an error of ours, and the first of its kind."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((error for error in leaves if not isinstance(error, MirrorError)), leaves[0])
