"""Instances one by one: getSOPInstanceUIDs lists them, getSingleImage brings each.

The lister and the fetchers are joined by one bounded queue of jobs for the whole run: a lister that is ahead waits,
and no fetcher is idle while any open series has work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from msgspec import Struct

from mirror.errors import ArchiveError, BadAnswer, Interrupted, NotFound, Refused, ServerFault
from mirror.model import FindingKind, SeriesSize
from mirror.transfer import Kit, OpenSeries
from mirror.transports.admission import Body, admit, receive
from mirror.transports.workers import SOURCE, Workers

T = TypeVar("T")

#: Jobs are read from the ledger in pages of this many.
_PAGE = 500


class Job(Struct, frozen=True):
    """One instance to fetch: what the bounded queue between listers and fetchers carries."""

    open_series: OpenSeries
    sop_instance_uid: str
    #: It is held, and the archive may have other bytes for it.
    doubted: bool = False


class InstanceTransport:
    """Lists a series and queues a job per instance that is not held; `fetch_instance` works the jobs off."""

    source = SOURCE

    def __init__(self, jobs: MemoryObjectSendStream[Job]) -> None:
        self._jobs = jobs

    async def fetch(self, open_series: OpenSeries, size: SeriesSize | None) -> None:
        """See Transport."""
        kit, todo = open_series.kit, open_series.todo
        now = int(time.time())
        totals, page = await list_series(
            open_series,
            lambda: (
                kit.ledger.totals(todo.id, open_series.listing),
                kit.ledger.wanted(todo.id, open_series.listing, "", _PAGE, now),
            ),
        )
        if open_series.round == 1:
            open_series.tell_opened(totals)
        while page:
            for uid, doubted in page:
                if kit.stop.is_set():
                    break
                open_series.begin_job()
                job = Job(open_series, uid, doubted)
                try:
                    self._jobs.send_nowait(job)
                except anyio.WouldBlock:
                    await self._jobs.send(job)
            if kit.stop.is_set() or len(page) < _PAGE:
                break
            page = await kit.ledger.run(kit.ledger.wanted, todo.id, open_series.listing, page[-1][0], _PAGE, now)
        await open_series.drained()


async def list_series(open_series: OpenSeries, then: Callable[[], T]) -> T:
    """Write down what getSOPInstanceUIDs names; what `then` gives, called in the ledger's thread after it.

    Most lists are one batch, and are had with what follows in one turn of the ledger.
    """
    kit, todo = open_series.kit, open_series.todo
    rows = await kit.client.get_sop_instance_uids(todo.series.series_instance_uid)
    batch: list[str] = []
    async for following in rows.batches(1000):
        if batch:
            await kit.ledger.run(kit.ledger.list_instances, todo.id, open_series.listing, batch)
        batch = following

    def end() -> T:
        if batch:
            kit.ledger.list_instances(todo.id, open_series.listing, batch)
        return then()

    return await open_series.turn(end)


async def fetch_instance(job: Job, gate: asyncio.Semaphore, workers: Workers | None = None) -> None:
    """Bring one instance into the tree, or note why not. Raises the ArchiveError of an archive that is down.

    Behind the `gate` it is on its way, before it a stop or a limit lets it be; so as many as the gate lets through
    land after a stop. `workers` try it first; what they cannot simply put in its place is asked for again here.

    Wrong bytes are asked for once more: a proxy's error page or a swapped body may be a matter of the moment. Then
    the archive's own MD5, where it gives one, tells a body that was damaged on its way from one that is like that.
    """
    open_series, uid = job.open_series, job.sop_instance_uid
    kit, series = open_series.kit, open_series.todo.series

    md5: str | None = None

    async def body(chunks: AsyncIterator[bytes], length: int | None) -> Body:
        return Body(
            part=await receive(kit.store, chunks),
            sop_instance_uid=uid,
            promised=length,
            md5=md5,
            source=InstanceTransport.source,
            label=uid,
            doubted=job.doubted,
        )

    try:
        async with gate:
            if not await _may_begin(job):
                return
            if workers is not None and not job.doubted and await workers.fetch(open_series, uid):
                return
            came = await kit.client.get_single_image(series.series_instance_uid, uid, body)
        wrong = await admit(open_series, came, last_try=False)
        if wrong:
            md5 = await _archive_md5(kit, uid)
            again = await kit.client.get_single_image(series.series_instance_uid, uid, body)
            wrong = await admit(open_series, again, last_try=True)
        if wrong:
            await open_series.lost(open_series.finding(wrong[0].kind, "; ".join(f.detail for f in wrong), uid))
    except Interrupted:
        # Not had, and not tried in vain either: it is listed, and the next run asks for it.
        return
    except ArchiveError as error:
        if await kit.client.is_down(error):
            raise
        await open_series.lost(open_series.finding(FindingKind.UNAVAILABLE, str(error), uid))
    finally:
        kit.limits.end(uid)
        open_series.end_job()


async def _may_begin(job: Job) -> bool:
    kit, series = job.open_series.kit, job.open_series.todo.series
    if kit.stop.is_set():
        return False
    # A second round is the end of what was begun.
    size = (series.file_size or 0) // (series.image_count or 1)
    return job.open_series.round == 2 or await kit.limits.begin(job.sop_instance_uid, size)


async def _archive_md5(kit: Kit, sop_instance_uid: str) -> str | None:
    """getMD5HashForImage, where the server has it."""
    if kit.client.server.dialect != "nbia":
        return None
    try:
        return await kit.client.get_md5_hash_for_image(sop_instance_uid)
    except (NotFound, Refused, ServerFault, BadAnswer):
        return None
