"""A whole series as one zip: getImage, spooled, unpacked and checked member by member, many to a thread hop.

What is in a zip is never taken for what is in the series (see unpacking): getSeriesSize says that, and
getSOPInstanceUIDs where the server has it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import anyio

from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import Server
from mirror.errors import ArchiveError, Interrupted, Refused
from mirror.ledger import SeriesTotals
from mirror.model import SeriesSize
from mirror.transfer import OpenSeries, withdraw_doubtful
from mirror.transports.admission import admit, note
from mirror.transports.instance import list_series
from mirror.transports.spool import Blocks, Spool
from mirror.transports.unpacking import SOURCE, Unpacking, receive_zip
from mirror.transports.unzip import Zip
from mirror.transports.workers import Workers

_PREAMBLE = 132
#: Zips that may be here at a time, whatever the number of connections: each has a block of memory at least.
_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Which of the calls for single instances a server has."""

    lists: bool
    singles: bool


async def probe(client: ArchiveClient, series_instance_uids: Sequence[str]) -> Capabilities:
    """Try the calls for single instances. Some servers lack them, or answer them with nothing.

    One series that cannot be read says nothing of the server: a call is there as soon as one of these series shows
    it. Raises the ArchiveError of an archive that is down.
    """
    lists = False
    for uid in series_instance_uids:
        of_this = await _probe_series(client, uid)
        lists = lists or of_this.lists
        if of_this.singles:
            return of_this
    return Capabilities(lists=lists, singles=False)


async def _probe_series(client: ArchiveClient, series_instance_uid: str) -> Capabilities:
    async def begins(chunks: AsyncIterator[bytes], _length: int | None) -> bool:
        start = b""
        async for chunk in chunks:
            start += chunk
            if len(start) >= _PREAMBLE:
                break
        # Not every server that lacks a call says so by its status.
        return start[_PREAMBLE - 4 : _PREAMBLE] == b"DICM"

    uids: list[str] = []
    singles = False
    try:
        uids = await (await client.get_sop_instance_uids(series_instance_uid)).all()
        singles = bool(uids) and await client.get_single_image(series_instance_uid, uids[0], begins)
    except ArchiveError as error:
        if await client.is_down(error):
            raise
    return Capabilities(lists=bool(uids), singles=singles)


class ZipTransport:
    """Brings a series by getImage. One per run: it remembers what the server does not take.

    `workers` bring what is plain; what they do not simply bring, and all else, is brought here.
    """

    source = SOURCE

    def __init__(self, server: Server, capabilities: Capabilities, workers: Workers | None = None) -> None:
        self._workers = workers
        self._lists = capabilities.lists
        self._md5 = server.dialect == "nbia"
        self._blocks = Blocks()
        self._room = anyio.CapacityLimiter(_AT_ONCE)

    async def fetch(self, open_series: OpenSeries, size: SeriesSize | None) -> None:
        """See Transport."""
        kit, todo = open_series.kit, open_series.todo
        if self._lists:
            standing = await list_series(open_series, lambda: _stand(open_series))
        else:
            standing = await open_series.turn(lambda: _stand(open_series))
        if open_series.round == 1:
            open_series.tell_opened(standing.totals, size.object_count if size else 0)
        if not self._is_held(standing, size) and not kit.stop.is_set():
            # Until the series is judged, its second round included: what is never judged stands in the way for ever.
            if not await kit.limits.begin(todo.id, (size.total_size_in_bytes if size else None) or 0):
                return
            if not await self._fetch_by_worker(open_series, size, standing):
                await self._fetch_here(open_series, size)
        if self._lists:
            return
        if size is not None and len(open_series.seen) == size.object_count:
            # A zip with as many images as the archive counts is its list.
            await kit.ledger.run(kit.ledger.list_instances, todo.id, open_series.listing, open_series.seen)
        else:
            await kit.ledger.run(kit.ledger.list_held, todo.id, open_series.listing)

    async def _fetch_by_worker(self, open_series: OpenSeries, size: SeriesSize | None, standing: _Standing) -> bool:
        """True when a worker has brought the zip, and all that was in it was right."""
        if self._workers is None or standing.totals.held or standing.totals.unlisted:
            return False
        open_series.seen.clear()
        whole = await self._workers.fetch_zip(open_series, size, md5s=self._md5)
        await open_series.flush()
        return whole

    async def _fetch_here(self, open_series: OpenSeries, size: SeriesSize | None) -> None:
        kit = open_series.kit
        if kit.stop.is_set():
            # A worker found something that is not right, and a stop came meanwhile: not for this run to judge.
            raise Interrupted("a stop was asked for")
        # A worker may have brought some of it, or all: what was not right must be seen to nevertheless.
        standing = await open_series.turn(lambda: _stand(open_series))
        open_series.seen.clear()
        async with self._room:
            if kit.stop.is_set():
                raise Interrupted("a stop was asked for")
            spool, zipped = await self._download(open_series, size)
            try:
                await _unpack(open_series, zipped, size, standing.held)
            finally:
                await spool.discard()
        await open_series.flush()
        await withdraw_doubtful(open_series)

    def _is_held(self, standing: _Standing, size: SeriesSize | None) -> bool:
        """True when an earlier run left nothing to bring, and nothing that is held is in doubt."""
        totals = standing.totals
        if standing.doubted:
            return False
        if self._lists:
            return 0 < totals.listed == totals.held
        return size is not None and (len(standing.held), totals.held_bytes) == (
            size.object_count,
            size.total_size_in_bytes,
        )

    async def _download(self, open_series: OpenSeries, size: SeriesSize | None) -> tuple[Spool, Zip]:
        kit, uid = open_series.kit, open_series.todo.series.series_instance_uid

        async def receive(chunks: AsyncIterator[bytes], _length: int | None) -> tuple[Spool, Zip]:
            spool = Spool(kit.store, self._blocks, size.total_size_in_bytes if size else None)
            return spool, await receive_zip(spool, chunks, size, f"{SOURCE}({uid})", kit.threads)

        if self._md5:
            try:
                return await kit.client.get_image(uid, receive, IncludeMD5="Yes")
            except Refused as error:
                # Servers older than this option answer it as they answer any parameter they do not know.
                if "IncludeMD5" not in error.reason:
                    raise
                self._md5 = False
        return await kit.client.get_image(uid, receive)


@dataclass(frozen=True, slots=True)
class _Standing:
    """How a series stands before its zip is asked for: what is held of it, and whether some of that is in doubt."""

    totals: SeriesTotals
    held: frozenset[str]
    doubted: bool


def _stand(open_series: OpenSeries) -> _Standing:
    """In the ledger's thread."""
    ledger, number = open_series.kit.ledger, open_series.todo.id
    open_series.write()
    totals = ledger.totals(number, open_series.listing)
    if not totals.held and not totals.unlisted:
        return _Standing(totals, frozenset(), doubted=False)
    held = frozenset(uid for uid, _, _ in ledger.held_names(number))
    return _Standing(totals, held, doubted=bool(ledger.doubted_names(number)))


async def _unpack(open_series: OpenSeries, zipped: Zip, size: SeriesSize | None, held: Container[str]) -> None:
    """Unpack all of a zip, or until a stop. Raises BadAnswer for a zip that cannot be read, or that swells.

    What is held is compared, and what is not the same is decided on one by one.
    """
    kit, last_try = open_series.kit, open_series.round == 2
    unpacking = Unpacking(open_series.shelf, zipped, size, held, open_series.seen, last_try=last_try)
    async with aclosing(unpacking.in_turns(kit.threads, kit.inline)) as steps:
        async for came in steps:
            unreadable, unpacking.unreadable = unpacking.unreadable, []
            for finding in unreadable:
                open_series.notice(finding)
            for member in await note(open_series, came):
                # Its series holds other bytes for its instance, or it comes again.
                body = await kit.threads.run(unpacking.again, member)
                for finding in await admit(open_series, body, last_try=last_try):
                    open_series.notice(finding)
            if kit.stop.is_set():
                return
