"""Work off what a run has planned: listers take series up, fetchers bring their instances.

    planned series (ledger) -> [series stream] -> listers -> [instance queue] -> fetchers -> tree, ledger

Both streams are bounded, so a plan of any size waits for the disk and the wire. Hides how many tasks do the work and
which transport brings the instances. Whatever plans series for its run may call it: a sync, a repair, an adoption.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from mirror.events import Stopping, TransportChosen
from mirror.ledger import Ledger, Todo
from mirror.settings import Settings
from mirror.transfer import Kit, Transport, transfer
from mirror.transports import (
    AutoTransport,
    InstanceTransport,
    Job,
    Workers,
    ZipTransport,
    fetch_instance,
    probe,
    workers_of,
)

#: Series that wait for a lister, and pages in which the ledger is read for them.
_WAITING = 4
_PAGE = 100
#: At most so many fetchers more than connections.
_SPARE = 16
#: Series on which a server's capabilities are tried.
_PROBED = 3
#: Times that a series is taken up before it waits behind the others.
_OFTEN = 4


async def fetch_planned(kit: Kit, settings: Settings) -> None:
    """Fetch and judge every series that this run has planned. Ends when all are, or when a stop has let all land.

    Safe to repeat. Raises what `transfer` raises, in the group of the tasks that ended with it.
    """
    first = await kit.ledger.run(kit.ledger.todo, kit.run, 0, _PROBED)
    if not first:
        return
    seconds = await kit.threads.run(kit.store.probe)
    kit.inline.begin(seconds)
    kit.turns.begin(seconds)
    connections = settings.archive.connections
    gate = asyncio.Semaphore(connections)
    jobs_in, jobs_out = anyio.create_memory_object_stream[Job](2 * connections)
    async with workers_of(kit, settings) as workers, anyio.create_task_group() as fetchers, jobs_out:
        # Those beyond the connections have their body checked and placed while others use these.
        for _ in range(connections + min(connections, _SPARE)):
            fetchers.start_soon(_work_off, jobs_out.clone(), gate, workers)
        # The queue closes behind the last lister: then the fetchers run dry and end.
        async with jobs_in:
            await take_up_planned(kit, await _transport(kit, first, jobs_in, workers))


async def is_left_in_vain(ledger: Ledger, run: str) -> bool:
    """True when all that a run has left of its plan was begun often, and judged, by it or by others."""
    return await ledger.run(ledger.is_left_in_vain, run, _OFTEN)


async def take_up_planned(kit: Kit, transport: Transport) -> None:
    """As `fetch_planned`, by this transport."""
    series_in, series_out = anyio.create_memory_object_stream[Todo](_WAITING)
    async with series_out, anyio.create_task_group() as listers:
        listers.start_soon(_feed, kit, series_in)
        for _ in range(kit.most_open):
            listers.start_soon(_take_up, kit, transport, series_out.clone())


async def _transport(
    kit: Kit, first: list[Todo], jobs: MemoryObjectSendStream[Job], workers: Workers | None
) -> Transport:
    """The transport the settings ask for; a server's capabilities are tried once per run, on its first series."""
    wish = kit.settings.transport
    if wish == "instance":
        return InstanceTransport(jobs)
    capabilities = await probe(kit.client, [todo.series.series_instance_uid for todo in first])
    if wish == "auto" and capabilities.singles:
        series = await kit.ledger.run(kit.ledger.series_planned, kit.run)
        zipped = ZipTransport(kit.client.server, capabilities, workers)
        auto = AutoTransport(kit, InstanceTransport(jobs), zipped, series)
        kit.client.also_tell(auto)
        return auto
    why = "the settings say so" if wish == "zip" else "the server gave no single instance"
    listed = "" if capabilities.lists else "; it lists no instances, so only count and bytes can be compared"
    kit.sink(TransportChosen(transport="zip", why=why + listed))
    return ZipTransport(kit.client.server, capabilities, workers)


async def _feed(kit: Kit, series: MemoryObjectSendStream[Todo]) -> None:
    """Hand planned series to the listers, in the order of their crawl, until a stop."""
    async with series:
        async for todo in _in_turn(kit):
            if kit.stop.is_set():
                kit.sink(Stopping())
                return
            await series.send(todo)


async def _in_turn(kit: Kit) -> AsyncIterator[Todo]:
    """What is to be fetched. Of a run that a limit may end, what was begun often and never ended comes last, by turns.

    Else a series that never comes right could take the whole of every run from those behind it.
    """
    ledger, often = kit.ledger, _OFTEN if kit.limits.any else None
    # Read before anything is taken up: that counts.
    last = [] if often is None else await ledger.run(ledger.taken_up_often, kit.run, often)
    after = 0
    while page := await ledger.run(ledger.todo, kit.run, after, _PAGE, taken_up=often):
        for todo in page:
            yield todo
        after = page[-1].id
    for number in last:
        for todo in await ledger.run(ledger.todo, kit.run, number - 1, 1):
            yield todo


async def _take_up(kit: Kit, transport: Transport, series: MemoryObjectReceiveStream[Todo]) -> None:
    """A lister: one series after the other, each from taken up to judged."""
    async with series:
        async for todo in series:
            if not kit.stop.is_set():
                try:
                    await transfer(kit, todo, transport)
                finally:
                    kit.limits.end(todo.id)


async def _work_off(jobs: MemoryObjectReceiveStream[Job], gate: asyncio.Semaphore, workers: Workers | None) -> None:
    """A fetcher: one instance after the other, whichever series it is of."""
    async with jobs:
        while True:
            try:
                # A job that is there already is taken without a turn of the loop, which costs as much as its check.
                job = jobs.receive_nowait()
            except anyio.WouldBlock:
                try:
                    job = await jobs.receive()
                except anyio.EndOfStream:
                    return
            except anyio.EndOfStream:
                return
            await fetch_instance(job, gate, workers)
