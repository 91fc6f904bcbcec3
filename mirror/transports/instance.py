"""Instances one by one: getSOPInstanceUIDs lists them, getSingleImage brings each.

The lister and the fetchers are joined by one bounded queue of jobs for the whole run: a lister that is ahead waits,
and no fetcher is idle while any open series has work.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from anyio.streams.memory import MemoryObjectSendStream

from mirror.errors import ArchiveError, BadAnswer, Interrupted, NotFound, Refused, ServerFault
from mirror.model import FindingKind, SeriesSize
from mirror.transfer import Kit, OpenSeries
from mirror.transports.admission import Body, admit, receive, tell_opened

#: Jobs are read from the ledger in pages of this many.
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Job:
    """One instance to fetch: what the bounded queue between listers and fetchers carries."""

    open_series: OpenSeries
    sop_instance_uid: str


class InstanceTransport:
    """Lists a series and queues a job per instance that is not held; `fetch_instance` works the jobs off."""

    source = "getSingleImage"

    def __init__(self, jobs: MemoryObjectSendStream[Job]) -> None:
        self._jobs = jobs

    async def fetch(self, open_series: OpenSeries, size: SeriesSize | None) -> None:
        """See Transport."""
        kit, todo = open_series.kit, open_series.todo
        await list_series(open_series)
        if open_series.round == 1:
            await tell_opened(open_series)
        after, now = "", int(time.time())
        while not kit.stop.is_set():
            page = await kit.ledger.run(kit.ledger.wanted, todo.id, open_series.listing, after, _PAGE, now)
            if not page:
                break
            after = page[-1]
            for uid in page:
                if kit.stop.is_set():
                    break
                open_series.begin_job()
                await self._jobs.send(Job(open_series, uid))
        await open_series.drained()


async def list_series(open_series: OpenSeries) -> None:
    """Write down what getSOPInstanceUIDs names."""
    kit, todo = open_series.kit, open_series.todo
    rows = await kit.client.get_sop_instance_uids(todo.series.series_instance_uid)
    async for batch in rows.batches(1000):
        await kit.ledger.run(kit.ledger.list_instances, todo.id, open_series.listing, batch)


async def fetch_instance(job: Job) -> None:
    """Bring one instance into the tree, or note why not. Raises the ArchiveError of an archive that is down.

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
        )

    try:
        wrong = await admit(
            open_series, await kit.client.get_single_image(series.series_instance_uid, uid, body), last_try=False
        )
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
        open_series.end_job()


async def _archive_md5(kit: Kit, sop_instance_uid: str) -> str | None:
    """getMD5HashForImage, where the server has it."""
    if kit.client.server.dialect != "nbia":
        return None
    try:
        return await kit.client.get_md5_hash_for_image(sop_instance_uid)
    except (NotFound, Refused, ServerFault, BadAnswer):
        return None
