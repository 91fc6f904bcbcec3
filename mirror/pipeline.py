"""One run: crawl and plan a scope, fetch what the plan says, export what is held, report.

    crawl -> planned series (ledger) -> fetch -> judged series -> manifest, report

`sync` owns every task of a run; none outlives it. The plan stands before the first byte is fetched: what a run will
do can be printed (dry run) and held against the free space. Stopping takes no new series and no new instance, lets
what is in flight land, and commits.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import Server, server_of
from mirror.crawl import Crawled, Crawling, crawl
from mirror.errors import ExitCode, Interrupted, MirrorError, NoScope, SettingsError, StoreError, StoreFull
from mirror.events import CollectionPlanned, Event, EventSink, Exported, Noticed, Planned, RunStarted, Stopping, ignore
from mirror.export import export_standard
from mirror.fetch import fetch_planned, is_left_in_vain
from mirror.layout import Layout
from mirror.ledger import Catalogue, Ledger
from mirror.limits import Limits
from mirror.live import Live
from mirror.model import Finding, FindingKind, Scope, Walk
from mirror.report import Reporter, RunReport, RunState, write_report
from mirror.resolve import resolve
from mirror.scope import describe, fingerprint, from_json, require_sound, to_json
from mirror.settings import Settings
from mirror.transfer import SPARE, Kit
from mirror.tree import LocalStore
from mirror.withdraw import finish_cut_off, withdraw


async def sync(
    root: Path,
    scope: Scope,
    settings: Settings,
    *,
    token: str | None = None,
    sink: EventSink = ignore,
    stop: anyio.Event | None = None,
    dry_run: bool = False,
    walk: Walk | None = None,
) -> RunReport:
    """Bring a mirror up to the archive. Safe to repeat, and to kill at any point: the next run goes on.

    `walk` says how much of the scope is asked for; by itself, of what is known what was released since then.

    A scope that says nothing at all stands for the mirror's own: that of its last sync which got past its crawl.
    Setting `stop` ends the run early and in order; cancelling ends it at once, with nothing half-written. A dry run
    asks the archive and changes nothing. Raises what ends a run: SettingsError, Locked, StoreError, LedgerError,
    and ArchiveError when the archive is down or nothing of the scope could be crawled. All else is in the report.
    """
    if scope.is_empty():
        scope = await anyio.to_thread.run_sync(_own_scope, root, scope)
    require_sound(scope)
    run = _Run(root, scope, settings, server_of(settings.archive), token, sink, walk or Walk())
    with one_error():
        async with run.limits.watched(stop or anyio.Event()):
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
        walk: Walk,
    ) -> None:
        self._walk = walk
        self._root = root
        self._scope = scope
        self._settings = settings
        self._server = server
        self._token = token
        #: Set by who runs this and by its limits.
        self._stop = anyio.Event()
        self.limits = Limits(settings.sync, self._stop, self._emit)
        self._sink = sink
        self._reporter = Reporter()
        self._live = Live(root, self._reporter)
        self._name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"

    def _emit(self, event: Event) -> None:
        if isinstance(event, Stopping) and self.limits.reached:
            return
        self._reporter(event)
        self._live(event)
        self.limits(event)
        self._sink(event)

    async def rehearse(self) -> RunReport:
        """Crawl and plan on a ledger that forgets; nothing is left of it but the report."""
        with ledger_to_rehearse(self._root) as ledger, one_error():
            layout = layout_of(ledger, self._settings.sync.layout)
            self._begin()
            async with self._client(spool=None) as client:
                crawled = await self._crawl(client, ledger, layout)
            if crawled is None:
                return self._reporter.finish(*self._stopped())
            await self._tell_plan(ledger, crawled, _free(self._root))
            await self._tell_leaving(ledger)
        return self._reporter.finish("planned", ExitCode.INCOMPLETE if _is_flawed(crawled) else ExitCode.COMPLETE)

    async def perform(self) -> RunReport:
        """Crawl, plan, fetch, export, report."""
        with Ledger(self._root) as ledger:
            layout = layout_of(ledger, self._settings.sync.layout)
            with failure_reported(self._written):
                async with self._live.told():
                    return await self._perform(ledger, layout)

    async def _perform(self, ledger: Ledger, layout: Layout) -> RunReport:
        self._begin()
        ledger.set_meta(server=self._server.base, dialect=self._server.dialect)
        store = LocalStore(self._root, fsync=self._settings.sync.fsync)
        await anyio.to_thread.run_sync(store.sweep)
        await finish_cut_off(ledger, store)
        # Large answers of a crawl lie with the parts: a container's /tmp may be memory.
        async with self._client(spool=store.scratch_folder) as client:
            crawled = await self._crawl(client, ledger, layout)
            if crawled is None:
                return self._written(*self._stopped())
            await ledger.run(ledger.set_meta, scope=to_json(self._scope), source_chain=client.source)
            needed = await self._tell_plan(ledger, crawled, store.free())
            self._check_space(min(needed, self.limits.bytes or needed), store.free())
            kit = Kit(
                client=client,
                ledger=ledger,
                store=store,
                layout=layout,
                settings=self._settings.sync,
                sink=self._emit,
                stop=self._stop,
                run=self._name,
                limits=self.limits,
            )
            with self.limits.in_time():
                await fetch_planned(kit, self._settings)
        state, code = await self._judge(ledger, crawled)
        if state == "complete":
            how, scope = self._settings.sync.on_withdrawn, fingerprint(crawled.scope)
            await withdraw(ledger, store, self._name, how, self._emit, scope)
        else:
            await ledger.run(ledger.stay, self._name)
        if state != "interrupted":
            await ledger.run(ledger.finish_run, self._name)
        held = await ledger.run(ledger.bytes_held)
        if state in ("interrupted", "limited"):
            # Whoever stops a run may not wait for the manifest of a large mirror: the report comes first.
            report = self._written(state, code, bytes_held=held)
            await export_changed(self._root, ledger, self._emit)
            return report
        await export_changed(self._root, ledger, self._emit)
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
                max_bytes=self.limits.bytes or None,
                max_seconds=self.limits.seconds or None,
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
                crawled = await crawl(
                    Crawling(
                        client=client,
                        ledger=ledger,
                        layout=layout,
                        run=self._name,
                        sink=self._emit,
                        settings=self._settings.sync,
                        scope=await resolve(self._scope, client),
                        walk=self._walk,
                    )
                )
            except* Interrupted:
                # A request was waiting when the stop came; the watch has seen it too, or is about to.
                crawled = None
            tasks.cancel_scope.cancel()
        return crawled

    async def _tell_plan(self, ledger: Ledger, crawled: Crawled, free: int | None) -> int:
        """Tell what is to be fetched; the bytes of it, as far as the archive says."""
        shares = {share.collection: share for share in await ledger.run(ledger.plan_sizes, self._name)}
        leaving = await ledger.run(ledger.leaving_by_collection, self._name)
        for name in sorted({*shares, *crawled.kept, *crawled.missing, *leaving}):
            share = shares.get(name)
            self._emit(
                CollectionPlanned(
                    collection=name,
                    new=share.new if share else 0,
                    changed=share.changed if share else 0,
                    unfinished=share.unfinished if share else 0,
                    kept=crawled.kept[name],
                    objects=share.objects if share else 0,
                    bytes=share.bytes if share else 0,
                    missing=crawled.missing[name],
                    returned=crawled.returned[name],
                    withdraw=leaving.get(name, 0),
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

    async def _tell_leaving(self, ledger: Ledger) -> None:
        """Name each series that the plan takes out of the mirror."""
        after = 0
        while page := await ledger.run(ledger.leaving, self._name, after):
            after = page[-1].id
            for leaving in page:
                self._emit(
                    Noticed(
                        finding=Finding(
                            kind=FindingKind.WITHDRAWN,
                            detail=f"to leave the mirror: {leaving.why}",
                            collection=leaving.series.collection,
                            series_instance_uid=leaving.series.series_instance_uid,
                        )
                    )
                )

    def _check_space(self, needed: int, free: int) -> None:
        if needed and needed + SPARE > free:
            raise StoreFull(
                f"{self._root}: the plan needs {needed:,} bytes and {SPARE:,} to spare, {free:,} are free;"
                " nothing was fetched"
            )

    def _stopped(self) -> tuple[RunState, ExitCode]:
        return ("limited", ExitCode.LIMITED) if self.limits.reached else ("interrupted", ExitCode.INTERRUPTED)

    async def _judge(self, ledger: Ledger, crawled: Crawled) -> tuple[RunState, ExitCode]:
        so_far = self._reporter.finish("complete", ExitCode.COMPLETE)
        series, left = so_far.series, await ledger.run(ledger.todo, self._name, 0, 1)
        # What is left and no run can bring is incomplete: or each would end by its limit, for ever.
        got_on = bool(so_far.instances.fetched or series.complete)
        if left and (got_on or not self.limits.reached or not await is_left_in_vain(ledger, self._name)):
            return self._stopped()
        if left or series.incomplete or series.quarantined or _is_flawed(crawled):
            return "incomplete", ExitCode.INCOMPLETE
        return "complete", ExitCode.COMPLETE


async def export_changed(root: Path, ledger: Ledger, sink: EventSink) -> None:
    """Write the manifest, unless the one that is there says the same."""
    changes = await ledger.run(ledger.meta, "changes") or "0"
    if changes == await ledger.run(ledger.meta, "exported") and (root / "manifest.csv").exists():
        return
    for path, rows in await anyio.to_thread.run_sync(export_standard, root):
        sink(Exported(path=str(path), rows=rows))
    await ledger.run(ledger.set_meta, exported=changes)


def _is_flawed(crawled: Crawled) -> bool:
    return bool(crawled.failed or crawled.refused or crawled.leaving_refused)


def _own_scope(root: Path, asked: Scope) -> Scope:
    """The scope that the mirror's last sync left behind, for one that says nothing. Raises NoScope."""
    if asked == Scope() and (root / ".mirror" / "ledger.sqlite").exists():
        with Catalogue(root) as catalogue:
            kept = catalogue.meta("scope")
        if kept is not None:
            return from_json(kept)
    raise NoScope(
        f"the scope is empty: name collections, or series, or ask for all; no sync of {root} has left one to repeat"
    )


def layout_of(ledger: Ledger, asked: str) -> Layout:
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
def ledger_to_rehearse(root: Path) -> Iterator[Ledger]:
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
def one_error() -> Iterator[None]:
    """Task groups raise groups; out of a run comes the one error that a person should read."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _cause(group) from group


@contextmanager
def failure_reported(write: Callable[..., object]) -> Iterator[None]:
    """As `one_error`; where it is one of ours, `write` leaves a report of the failed run first."""
    try:
        with one_error():
            yield
    except MirrorError as error:
        # A full disk takes no report either: the error itself is what must come out.
        with suppress(StoreError):
            write("failed", error.exit_code, error=str(error))
        raise


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
