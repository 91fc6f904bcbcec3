"""One rebuild: load the manifest, read every file, put the ledger in its place; report as a sync does.

Killed on any line and run again it goes on: series whose files have been read are not read again, and until the new
ledger has taken its place no other run begins.
"""

from __future__ import annotations

import itertools
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from mirror.archive.dialects import Server
from mirror.errors import Damaged, ExitCode, MirrorError, SettingsError, StoreError
from mirror.events import Event, EventSink, Noticed, Planned, RunStarted, SeriesDone, Stopping, ignore
from mirror.layout import Layout
from mirror.ledger import Todo, read_facts, take_lock
from mirror.ledger.rebuilt import REBUILD, ClaimedSeries, RebuiltLedger, complaint, put_in_place
from mirror.manifest import InstanceRow, SeriesRow, read_csv
from mirror.model import Action, Finding, FindingKind, Outcome, SeriesState, Why
from mirror.pipeline import one_error
from mirror.rebuild.reading import Reading, Records, directories, place, read_directory, recognise, records_of
from mirror.rebuild.report import RebuildReport, Rebuilt
from mirror.report import Reporter, RunState, write_report
from mirror.tree import LocalStore

R = TypeVar("R", InstanceRow, SeriesRow)

_BATCH = 1000
_PAGE = 100
#: Series that are read at a time: reading waits for the disk, hashing for a core.
_READERS = 4


async def rebuild(
    root: Path,
    *,
    layout: str = "",
    server: Server | None = None,
    force: bool = False,
    sink: EventSink = ignore,
    stop: anyio.Event | None = None,
) -> RebuildReport:
    """Make the ledger of the mirror at `root` again. Safe to repeat and to kill.

    `layout` and `server` say what `.mirror/format.json` does not. A ledger that is there is left alone, and raises
    SettingsError, or Damaged for one that is not sound; with `force` it goes aside. Nothing of the tree is deleted:
    what is not what the manifest says is set aside. Raises Locked, StoreError, LedgerError.
    """
    with _held(root):
        await anyio.to_thread.run_sync(_may_begin, root, force)
        run = _Run(root, layout, server, sink, stop or anyio.Event())
        with one_error():
            return await run.perform()


def _held(root: Path) -> AbstractContextManager[object]:
    """The mirror's lock."""
    if not root.is_dir():
        raise SettingsError(f"{root}: no folder, and so no mirror")
    return take_lock(root)


def _may_begin(root: Path, force: bool) -> None:
    """Raises unless a ledger may be made. Blocks."""
    folder = root / ".mirror"
    if (folder / "rebuild" / ".mirror" / "ledger.sqlite").exists():
        return
    # Cut off before it began, or after the ledger had taken its place.
    shutil.rmtree(folder / "rebuild", ignore_errors=True)
    path = folder / "ledger.sqlite"
    if not path.exists() or force:
        return
    try:
        said = complaint(root)
    except Damaged as error:
        said = str(error)
    if said is None:
        raise SettingsError(f"{path}: is sound; --force puts it aside and makes a new one from tree and manifest")
    raise Damaged(f"{path}: is damaged ({said}); --force puts it aside and makes a new one from tree and manifest")


class _Run:
    """The state of one rebuild."""

    def __init__(self, root: Path, layout: str, server: Server | None, sink: EventSink, stop: anyio.Event) -> None:
        self._root = root
        self._layout = layout
        self._server = server
        self._sink = sink
        self._stop = stop
        self._store = LocalStore(root)
        self._reporter = Reporter()
        self._rebuilt = Rebuilt()
        self._name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"

    async def perform(self) -> RebuildReport:
        """Load, read, put in place, report."""
        facts = await anyio.to_thread.run_sync(read_facts, self._root)
        layout = await anyio.to_thread.run_sync(self._layout_by, facts)
        try:
            with RebuiltLedger(self._root) as ledger:
                layout = Layout.parse(ledger.meta("layout") or layout.name)
                facts |= {"layout": layout.name}
                if self._server is not None:
                    if self._server.base != facts.get("server"):
                        facts["source_chain"] = ""  # that of another is kept otherwise
                    facts |= {"server": self._server.base, "dialect": self._server.dialect}
                ledger.set_meta(**facts)
                self._begin(facts)
                await self._load(ledger)
                await self._read_known(ledger, layout)
                await self._read_unknown(ledger, layout)
                whole = not self._stop.is_set()
                if whole:
                    ledger.set_meta(created_at=str(int(time.time())))
                    await ledger.run(ledger.finish)
                held = await ledger.run(ledger.bytes_held)
            if whole:
                await anyio.to_thread.run_sync(put_in_place, self._root, facts)
        except MirrorError as error:
            with suppress(StoreError):
                self._written("failed", error.exit_code, error=str(error))
            raise
        if not whole:
            return self._written("interrupted", ExitCode.INTERRUPTED)
        rebuilt = self._rebuilt
        wrong = rebuilt.changed or rebuilt.missing or rebuilt.foreign or rebuilt.unplaced
        if wrong:
            return self._written("incomplete", ExitCode.INCOMPLETE, bytes_held=held)
        return self._written("complete", ExitCode.COMPLETE, bytes_held=held)

    def _layout_by(self, facts: dict[str, str]) -> Layout:
        """The layout that is asked for or known, or else what the tree looks like. Blocks."""
        known = facts.get("layout")
        if self._layout and known and Layout.parse(self._layout).name != known:
            raise SettingsError(f"layout: this mirror is laid out as {known!r}; leave the layout out")
        if self._layout or known:
            return Layout.parse(self._layout or known or "")
        return recognise(self._store, self._root)

    def _begin(self, facts: dict[str, str]) -> None:
        self._emit(
            RunStarted(
                run=self._name, server=facts.get("server", ""), root=str(self._root), scope="rebuild", connections=0
            )
        )

    # The manifest

    async def _load(self, ledger: RebuiltLedger) -> None:
        """Write down what the last manifest says."""
        if ledger.meta("loaded") is None:
            await anyio.to_thread.run_sync(_load, self._root / "manifest-series.csv", SeriesRow, ledger.load_series)
            await anyio.to_thread.run_sync(_load, self._root / "manifest.csv", InstanceRow, ledger.load_instances)
            ledger.set_meta(loaded="1")
        self._rebuilt.manifest_series, self._rebuilt.manifest_instances = await ledger.run(ledger.left_to_read)
        self._emit(
            Planned(
                collections=0, series=self._rebuilt.manifest_series, kept=0, objects=self._rebuilt.manifest_instances,
                bytes=None, free=None,
            )
        )  # fmt: skip

    # The tree

    async def _read_known(self, ledger: RebuiltLedger, layout: Layout) -> None:
        """Hold the directory of every series of the manifest against what it says."""
        series_in, series_out = anyio.create_memory_object_stream[Todo](_READERS)
        async with series_out, anyio.create_task_group() as readers:
            readers.start_soon(self._feed, ledger, series_in)
            for _ in range(_READERS):
                readers.start_soon(self._read_on, ledger, layout, series_out.clone())

    async def _feed(self, ledger: RebuiltLedger, series: MemoryObjectSendStream[Todo]) -> None:
        after = 0
        async with series:
            while page := await ledger.run(ledger.todo, REBUILD, after, _PAGE):
                for todo in page:
                    if self._stop.is_set():
                        self._emit(Stopping())
                        return
                    await series.send(todo)
                after = page[-1].id

    async def _read_on(self, ledger: RebuiltLedger, layout: Layout, series: MemoryObjectReceiveStream[Todo]) -> None:
        async with series:
            async for todo in series:
                claimed = await ledger.run(ledger.claimed, todo.id)
                reading = await anyio.to_thread.run_sync(
                    read_directory, self._store, layout, todo.directory, todo.series, claimed.claims
                )
                records = records_of(todo.series, reading.fields, layout)
                await self._conclude(ledger, todo.id, todo.directory, claimed, reading, records)

    async def _read_unknown(self, ledger: RebuiltLedger, layout: Layout) -> None:
        """Make series of the directories that the manifest does not know."""
        known = await ledger.run(ledger.collections)
        found = directories(self._root)
        while not self._stop.is_set() and (path := await anyio.to_thread.run_sync(next, found, None)) is not None:
            if await ledger.run(ledger.knows_directory, path):
                continue
            reading = await anyio.to_thread.run_sync(read_directory, self._store, layout, path, None, ())
            if not reading.held:
                self._count(reading)
                continue
            records = place(layout, path, reading.held[0].header, reading.fields, known)
            uid = reading.held[0].header.series_instance_uid
            if records is None or await ledger.run(ledger.series_number, uid) is not None:
                self._rebuilt.unplaced += len(reading.held)
                said = f"{path}: {len(reading.held)} files, of which it cannot be told where they belong"
                self._emit(Noticed(finding=Finding(kind=FindingKind.FILE_UNRECORDED, detail=said)))
                continue
            planned = (records.series, Action(fetch=True, why=Why.UNFINISHED), path)
            await ledger.run(ledger.plan_series, 0, REBUILD, [planned])
            number = await ledger.run(ledger.series_number, uid)
            claimed = ClaimedSeries(0, SeriesState.INCOMPLETE, [])
            await self._conclude(ledger, number or 0, path, claimed, reading, records)

    async def _conclude(
        self,
        ledger: RebuiltLedger,
        number: int,
        directory: str,
        claimed: ClaimedSeries,
        reading: Reading,
        records: Records,
    ) -> None:
        """Write down what a series' directory came to."""
        whole = reading.equal == len(reading.held) == len(claimed.claims) == claimed.instances
        state = claimed.state
        if state is SeriesState.COMPLETE and not (whole and reading.held):
            state = SeriesState.INCOMPLETE
        missing = max(claimed.instances, len(claimed.claims)) - reading.equal
        if missing:
            said = f"{missing} of {claimed.instances} instances that the manifest counts are not there"
            reading.findings.append(
                Finding(
                    kind=FindingKind.FILE_MISSING, detail=said, collection=records.series.collection,
                    series_instance_uid=records.series.series_instance_uid,
                )
            )  # fmt: skip
        if reading.fields:
            await ledger.run(ledger.put_patients, 0, [records.patient])
            await ledger.run(ledger.put_studies, 0, [records.study])
        await ledger.run(ledger.hold_directory, directory, records.parts)
        await ledger.run(ledger.conclude, records.series, number, reading.held, state)
        self._count(reading)
        self._rebuilt.missing += missing
        if state is SeriesState.COMPLETE:
            self._rebuilt.series_complete += 1
        else:
            self._rebuilt.series_open += 1
        outcome = Outcome(series=records.series, state=state, reused=len(reading.held), failed=missing)
        self._emit(SeriesDone(outcome=outcome))

    def _count(self, reading: Reading) -> None:
        self._rebuilt.equal += reading.equal
        self._rebuilt.changed += reading.changed
        self._rebuilt.foreign += reading.foreign
        self._rebuilt.unrecorded += len(reading.held) - reading.equal
        for finding in reading.findings:
            self._emit(Noticed(finding=finding))

    # What is told

    def _emit(self, event: Event) -> None:
        self._reporter(event)
        self._sink(event)

    def _written(
        self, state: RunState, code: ExitCode, *, bytes_held: int | None = None, error: str | None = None
    ) -> RebuildReport:
        """The report of this run, which lies in .mirror/runs/ from now on."""
        report = self._reporter.finish(state, code, bytes_held=bytes_held, error=error)
        report = RebuildReport.of(report, self._rebuilt)
        write_report(self._root, report)
        return report


def _load(path: Path, kind: type[R], write: Callable[[Sequence[R]], None]) -> int:
    """Hand the rows of a manifest over in batches; how many there were, 0 where there is no such file. Blocks."""
    try:
        file = path.open(encoding="utf-8", newline="")
    except FileNotFoundError:
        return 0
    count = 0
    with file:
        for batch in _batched(read_csv(file, kind)):
            write(batch)
            count += len(batch)
    return count


def _batched(rows: Iterator[R]) -> Iterator[list[R]]:
    while batch := list(itertools.islice(rows, _BATCH)):
        yield batch
