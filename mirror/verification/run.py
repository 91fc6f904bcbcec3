"""The course of a verification: left-overs, files without rows, every file with a row; then the repair."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread

from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import Server, find_server, server_of
from mirror.check import series_digest
from mirror.errors import ArchiveError, Interrupted, SettingsError
from mirror.events import EventSink, VerifyStarted, ignore
from mirror.fetch import fetch_planned
from mirror.layout import Layout
from mirror.ledger import BEGINNING, HeldFile, HeldFiles, Ledger, Turn
from mirror.model import Finding, FindingKind
from mirror.pipeline import export_changed, one_error
from mirror.settings import Settings
from mirror.transfer import Kit
from mirror.tree import LocalStore
from mirror.verification.files import Depth, finding_of
from mirror.verification.repair import Repair, damages
from mirror.verification.report import Tally, VerifyReport
from mirror.verification.scan import Budget, Judged, Scan
from mirror.verification.strays import Stray, Strays


async def verify(
    root: Path,
    settings: Settings,
    *,
    collections: tuple[str, ...] = (),
    depth: Depth = Depth.SUMS,
    repair: bool = False,
    not_since: float | None = None,
    budget: Budget | None = None,
    server: str | None = None,
    token: str | None = None,
    sink: EventSink = ignore,
    stop: anyio.Event | None = None,
) -> VerifyReport:
    """Compare the tree with the ledger, least recently verified series first, and mend it where that is asked for.

    Without `collections` all of the mirror, and directories without series too. `not_since`: leave out series that
    were verified within so many seconds. A run that ends early (`budget`, `stop`) is taken up by the next. `server`
    takes the place of the mirror's own; with Depth.DEEP it is also asked for its digests. Safe to repeat, and to kill
    at any point. Raises SettingsError, Locked, StoreError, LedgerError; all else is in the report.
    """
    if not (root / ".mirror" / "ledger.sqlite").exists():
        raise SettingsError(f"{root}: no mirror here; `tcia-mirror sync` makes one")
    with Ledger(root) as ledger:
        if unknown := ledger.unknown_collections(collections):
            raise SettingsError(f"{root}: the mirror has no collection {', '.join(map(repr, unknown))}")
        run = _Verification(root, ledger, settings, depth, repair, server, token, sink, stop or anyio.Event())
        with one_error():
            return await run.perform(collections, not_since, budget or Budget())


class _Verification:
    """One run: what it is asked to do, and what it has found."""

    def __init__(
        self,
        root: Path,
        ledger: Ledger,
        settings: Settings,
        depth: Depth,
        repair: bool,
        server: str | None,
        token: str | None,
        sink: EventSink,
        stop: anyio.Event,
    ) -> None:
        self._root = root
        self._ledger = ledger
        self._settings = settings
        self._depth = depth
        self._token = token
        self._stop = stop
        self._run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"
        self._tally = Tally(sink)
        self._layout = Layout.parse(ledger.meta("layout") or "uid")
        self._store = LocalStore(root, fsync=settings.sync.fsync)
        self._strays = Strays(root, ledger, self._layout, stop)
        self._repair = Repair(root, ledger, self._store, self._layout, self._tally, self._run) if repair else None
        asked = depth is Depth.DEEP and server is not None
        self._server = _server_of(ledger, settings, server) if repair or asked else None
        self._compares = asked and self._server is not None and self._server.dialect == "nbia"
        self._client: ArchiveClient | None = None

    async def perform(self, collections: tuple[str, ...], not_since: float | None, budget: Budget) -> VerifyReport:
        """All of it; an archive that is down ends what needs it, and is told in the report."""
        began, ledger = time.monotonic(), self._ledger
        at = None if not_since is None else int(time.time() - not_since)
        end: Turn = await ledger.run(ledger.end_of_series, at)
        series, size = await ledger.run(ledger.extent, collections, BEGINNING, end)
        self._tally.sink(VerifyStarted(series=series, bytes=size))
        scan = Scan(
            root=self._root, ledger=ledger, depth=self._depth, tally=self._tally, stop=self._stop, judge=self._judge,
            end=end, at=BEGINNING,
        )  # fmt: skip
        error: ArchiveError | None = None
        still_open = 0
        async with AsyncExitStack() as stack:
            if self._server is not None:
                self._client = await stack.enter_async_context(
                    ArchiveClient(
                        self._server, self._settings.archive, token=self._token, sink=self._tally.overhear,
                        stop=self._stop, spool=self._store.scratch_folder,
                    )
                )  # fmt: skip
            try:
                with one_error():
                    await self._left_overs()
                    await self._open_damages(collections)
                    if not collections:
                        async for stray in self._strays.walk():
                            await self._take(stray)
                    await scan.run(collections, budget, began)
                    await self._fetch()
            except ArchiveError as down:
                error = down
            except Interrupted:
                pass  # the stop says so
        if self._repair is not None:
            still_open = await self._repair.prove(collections)
            await export_changed(self._root, ledger, self._tally.sink)
        left, _ = await ledger.run(ledger.extent, collections, scan.at, end)
        return self._tally.report(
            interrupted=self._stop.is_set(),
            repair=self._repair is not None,
            still_open=still_open,
            series_left=left,
            not_ours=self._strays.not_ours,
            run=self._run,
            root=str(self._root),
            depth=self._depth,
            error=None if error is None else str(error),
        )

    async def _left_overs(self) -> None:
        """Parts that a run left: nobody works on them, for the lock is ours."""
        folder = self._store.scratch_folder
        for name in sorted(await anyio.to_thread.run_sync(os.listdir, folder)):
            path = (folder / name).relative_to(self._root).as_posix()
            self._tally.find(Finding(kind=FindingKind.LEFT_OVER, detail="a run that was cut off left it", path=path))
            if self._repair is not None:
                self._tally.mend("swept", path)
        if self._repair is not None:
            await anyio.to_thread.run_sync(self._store.sweep)

    async def _open_damages(self, collections: tuple[str, ...]) -> None:
        """What earlier runs found damaged and took out of the tree, and nobody has brought since."""
        async for damage in damages(self._ledger, self._run, collections):
            if damage.file is None:
                self._tally.find(
                    Finding(
                        kind=FindingKind.FILE_MISSING,
                        detail=f"not brought since it was found damaged: {damage.why}",
                        collection=damage.collection,
                        series_instance_uid=damage.series_instance_uid,
                        sop_instance_uid=damage.sop_instance_uid,
                    )
                )
        if self._repair is not None:
            await self._ledger.run(self._ledger.plan_damaged, self._run, collections)

    async def _take(self, stray: Stray) -> None:
        self._tally.find(stray.finding)
        if self._repair is not None:
            await self._repair.stray(stray)

    async def _judge(self, judged: Judged) -> bool:
        """Tell what is wrong with a series that was looked at, and act on it."""
        held, damaged = judged.held, judged.damaged
        sound = not damaged
        async for stray in self._strays.judge(held.directory, judged.strays):
            sound = False
            if stray.finding.kind is FindingKind.FILE_MISPLACED:
                # Under another name, but here: one finding says it.
                uid = stray.finding.sop_instance_uid
                damaged = [(f, file) for f, file in damaged if file.sop_instance_uid != uid]
            await self._take(stray)
        if sound and judged.whole and self._compares:
            damaged = await self._compare(held)
            sound = not damaged
        for finding, _ in damaged:
            self._tally.find(finding)
        if damaged and self._repair is not None:
            await self._repair.damaged(held, damaged)
        return sound

    async def _compare(self, held: HeldFiles) -> list[tuple[Finding, HeldFile]]:
        """Files that are not the archive's by its digests. Raises the ArchiveError of an archive that is down."""
        client, uid = self._client, held.series.series_instance_uid
        if client is None:
            return []
        theirs = await _told(client, client.get_md5_hierarchy(SeriesInstanceUID=uid))
        if theirs is None:
            return []
        self._tally.digests += 1
        md5s = await self._ledger.run(self._ledger.held_md5s, held.id)
        if theirs == (ours := series_digest(sorted(md5s.values()))):
            return []
        wrong = []
        for file in held.files:
            said = await _told(client, client.get_md5_hash_for_image(file.sop_instance_uid))
            if said is not None and said != md5s[file.sop_instance_uid]:
                detail = f"the archive says MD5 {said}, the file has {md5s[file.sop_instance_uid]}"
                wrong.append((finding_of(held, file, FindingKind.MD5_DIFFERS, detail), file))
        if not wrong:
            detail = f"getMD5Hierarchy says {theirs}, the held files give {ours}: a sync finds out what the archive has"
            self._tally.find(
                Finding(
                    kind=FindingKind.DIGEST_DIFFERS, detail=detail, collection=held.series.collection,
                    series_instance_uid=uid, path=held.directory,
                )
            )  # fmt: skip
            self._tally.stuck += 1
        return wrong

    async def _fetch(self) -> None:
        """Bring what this run has planned."""
        if self._repair is None or self._client is None or self._stop.is_set():
            return
        kit = Kit(
            client=self._client, ledger=self._ledger, store=self._store, layout=self._layout,
            settings=self._settings.sync, sink=self._tally.overhear, stop=self._stop, run=self._run,
        )  # fmt: skip
        await fetch_planned(kit, self._settings)


async def _told(client: ArchiveClient, digest: Awaitable[str | None]) -> str | None:
    """A digest of the archive's; None where it has none. Raises the ArchiveError of an archive that is down."""
    try:
        return await digest
    except ArchiveError as error:
        if await client.is_down(error):
            raise
        return None


def _server_of(ledger: Ledger, settings: Settings, server: str | None) -> Server:
    """The server that was named, or the mirror's own."""
    if server is not None:
        return server_of(replace(settings.archive, server=server))
    base, dialect = ledger.meta("server"), ledger.meta("dialect")
    if base is None:
        raise SettingsError(f"{ledger.path}: does not say which archive the mirror is of; give --server URL")
    return find_server(base, "tcia" if dialect == "tcia" else "nbia")
