"""What worker processes bring: where one interpreter is the limit, others receive, check and place bodies.

Single instances are here, whole zips in zip_errand.

The run stays one: its lists, its ledger, its pace and its report are where they are without workers. A worker gets an
instance to fetch only when the pace has given leave, tries once, and says what came of it. Whatever is not simply right
(an error, wrong bytes, a worker that died) is done again by the run itself, which knows what to do about it. Whatever a
worker has published is a checked file in its place, as any that waits for its row.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import Server
from mirror.errors import ArchiveError, Interrupted, MirrorError
from mirror.layout import Layout
from mirror.memory import keep_freed_memory
from mirror.model import Finding, Instance, Series, SeriesSize
from mirror.processes import Processes, WorkerLost, serve
from mirror.settings import ArchiveSettings, Settings, SyncSettings
from mirror.threads import Inline, Threads
from mirror.transfer import Kit, OpenSeries, Shelf
from mirror.transports.admission import Body, check_and_place, receive
from mirror.transports.zip_errand import ZipBearer, ZipErrand, errand_of, fetch_by_worker
from mirror.tree import Part, Store

#: The call that brings instances one by one.
SOURCE = "getSingleImage"
#: Threads of one worker that check bodies.
_CHECKERS = 4


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a worker has to know of the run, once."""

    server: Server
    archive: ArchiveSettings
    sync: SyncSettings
    token: str | None
    store: Callable[[], Store]
    layout: str
    run: str


@dataclass(frozen=True, slots=True)
class Errand:
    """One instance to fetch, and what its header is compared with."""

    collection: str
    series_instance_uid: str
    study_instance_uid: str
    patient_id: str
    directory: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an errand: an instance that has its place, or else why there is none (nothing: wrong bytes)."""

    size: int
    instance: Instance | None = None
    findings: tuple[Finding, ...] = ()
    error: MirrorError | None = None


class Workers:
    """The worker processes of one run, seen from the run."""

    def __init__(self, kit: Kit, processes: Processes) -> None:
        self._kit = kit
        self._processes = processes

    async def fetch_zip(self, open_series: OpenSeries, size: SeriesSize | None, *, md5s: bool) -> bool:
        """Fetch a series as a zip, noted with it. False: what is not held is still to be fetched. Raises StoreError."""
        errand = errand_of(open_series, size, md5s=md5s)
        return errand is not None and await fetch_by_worker(self._processes, open_series, errand)

    async def fetch(self, open_series: OpenSeries, sop_instance_uid: str) -> bool:
        """Fetch an instance, noted with its series. False: it is still to be fetched. Raises StoreError."""
        series = open_series.todo.series
        errand = Errand(
            series.collection,
            series.series_instance_uid,
            series.study_instance_uid,
            series.patient_id,
            open_series.todo.directory,
            sop_instance_uid,
        )
        outcome: Outcome | None = None

        async def ask() -> tuple[int, ArchiveError | None]:
            nonlocal outcome
            outcome = await self._processes.ask(errand)
            return outcome.size, outcome.error if isinstance(outcome.error, ArchiveError) else None

        try:
            await self._kit.client.delegate(SOURCE, series.series_instance_uid, ask)
        except (WorkerLost, Interrupted):
            return False
        if outcome is None or (outcome.instance is None and outcome.error is None):
            return False
        if outcome.error is not None:
            if isinstance(outcome.error, ArchiveError):
                return False
            raise outcome.error
        for finding in outcome.findings:
            open_series.notice(finding)
        assert outcome.instance is not None
        await open_series.published(outcome.instance)
        return True


@asynccontextmanager
async def workers_of(kit: Kit, settings: Settings) -> AsyncIterator[Workers | None]:
    """The workers of a run, as many as `sync.processes` says; None where it is to do without."""
    if kit.settings.processes < 2:
        yield None
        return
    greeting = Greeting(
        kit.client.server,
        settings.archive,
        kit.settings,
        kit.client.token,
        kit.store.twin(),
        kit.layout.name,
        kit.run,
    )
    processes = Processes(kit.settings.processes, work, greeting)
    try:
        async with processes:
            yield Workers(kit, processes)
    finally:
        # What a worker was about when it was ended lies with the parts.
        for pid in processes.pids:
            kit.store.sweep_of(pid)


def work(socket: int) -> None:
    """Be a worker."""
    keep_freed_memory()
    serve(socket, _begin)


@asynccontextmanager
async def _begin(greeting: Greeting) -> AsyncIterator[Callable[[Any], Awaitable[Any] | AsyncGenerator[Any]]]:
    store = greeting.store()
    layout, threads, inline = Layout.parse(greeting.layout), Threads(_CHECKERS, "check"), Inline()
    inline.begin(store.probe())
    # One try: what comes after a failure is for the run to decide.
    archive = replace(greeting.archive, attempts=1)
    async with ArchiveClient(greeting.server, archive, token=greeting.token, paced=False) as client:

        def shelf_of(series: Series, directory: str) -> Shelf:
            return Shelf(series, directory, store, layout, greeting.sync, greeting.run)

        zips = ZipBearer(client, shelf_of, threads, inline, greeting.sync.processes)

        async def fetch(errand: Errand) -> Outcome:
            promised: int | None = None

            async def body(chunks: AsyncIterator[bytes], length: int | None) -> Part:
                nonlocal promised
                promised = length
                return await receive(store, chunks)

            try:
                part = await client.get_single_image(errand.series_instance_uid, errand.sop_instance_uid, body)
                try:
                    if not inline.suits(part.size):
                        return await threads.run(_place, errand, part, promised)
                    began = time.perf_counter()
                    outcome = _place(errand, part, promised)
                    inline.learn(time.perf_counter() - began)
                    return outcome
                finally:
                    part.discard()
            except MirrorError as error:
                return Outcome(0, error=error)

        def _place(errand: Errand, part: Part, promised: int | None) -> Outcome:
            series = Series(
                collection=errand.collection,
                patient_id=errand.patient_id,
                study_instance_uid=errand.study_instance_uid,
                series_instance_uid=errand.series_instance_uid,
            )
            shelf = shelf_of(series, errand.directory)
            uid = errand.sop_instance_uid
            body = Body(
                part=part,
                sop_instance_uid=uid,
                promised=promised,
                md5=None,
                source=SOURCE,
                label=uid,
            )
            size = part.size
            checked, (instance, _) = check_and_place(shelf, body, last_try=False)
            return Outcome(size, instance, checked.verdict.findings)

        def handle(message: Errand | ZipErrand) -> Awaitable[Outcome] | AsyncGenerator[Any]:
            return zips.bring(message) if isinstance(message, ZipErrand) else fetch(message)

        yield handle
