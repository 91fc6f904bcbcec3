"""The archive's digests against ours, from a collection down to the series that differ (getMD5Hierarchy).

A series' digest is the MD5 over the MD5s of its files, a study's over the digests of its series, and so on up to the
collection, each time in ascending order. So one request tells of a whole collection that nothing in it changed in
silence, and where something did, few more tell in which series. What the archive cannot tell is no difference.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from enum import IntEnum
from itertools import groupby, islice
from typing import TypeVar

import anyio
import anyio.to_thread

from mirror.archive.client import ArchiveClient
from mirror.check import series_digest
from mirror.errors import BadAnswer, BodyCut, NotFound, Refused, ServerFault, Stalled
from mirror.ledger import Comparison
from mirror.model import Scope

K = TypeVar("K")
T = TypeVar("T")

#: Where something lies below its collection: () itself, then PatientID, StudyInstanceUID, SeriesInstanceUID.
Key = tuple[str, ...]
#: A key and its digest; None: not known, since what is held below is not settled.
Digested = tuple[Key, str | None]

#: So much is asked for at a time, within the limits of the client's pace.
BATCH = 16
#: So many series without a digest, and the server is taken to have none.
_PROBES = 3


class Level(IntEnum):
    """The levels of getMD5Hierarchy; the number is the length of a key."""

    COLLECTION = 0
    PATIENT = 1
    STUDY = 2
    SERIES = 3


def highest_level(scope: Scope) -> Level:
    """The highest level of which a mirror of this scope can hold all that the archive has."""
    if scope.series or scope.lists:
        return Level.SERIES
    without = scope.exclude
    if scope.modalities or scope.body_parts or scope.manufacturers or scope.released_since:
        return Level.STUDY
    if without.modalities or without.body_parts or without.manufacturers or without.series:
        return Level.STUDY
    return Level.PATIENT if scope.patients or without.patients else Level.COLLECTION


def digest_over(below: Iterable[str | None]) -> str | None:
    """The digest over the digests one level below, which come in any order; None where one is not known."""
    known = list(below)
    return None if None in known else series_digest(sorted(digest for digest in known if digest is not None))


def digests_at(level: Level, series: Iterable[Digested]) -> Iterator[Digested]:
    """What lies at a level, with its digest. Series come, and what comes back does, in the order of their keys.

    Memory grows with what lies directly below one key, not with what lies below that.
    """
    if level is Level.SERIES:
        yield from series
        return
    for key, below in groupby(series, key=lambda digested: digested[0][:level]):
        yield key, digest_over(digest for _, digest in digests_at(Level(level + 1), below))


async def differing_series(
    client: ArchiveClient, held: Comparison, collection: str, *, top: Level = Level.COLLECTION
) -> AsyncGenerator[str, None]:
    """SeriesInstanceUIDs of the settled series of a collection whose digest is not the archive's, in no order.

    `top` is where to begin: see highest_level. One request where the collection agrees and all of it is held. Levels
    of which we know to lack something are passed over; where the archive does not answer, the level below is asked,
    and a series of which it does not tell is none that differs. None differs in the tcia dialect, and where the
    server has no digests. `held` is read in other threads, one at a time. Raises the error of an archive that is down.
    """
    if client.server.dialect != "nbia":
        return
    walk = _Walk(client, held, collection)
    if not await walk.is_worth_it(top):
        return
    begin = max(top, Level.PATIENT)
    differing = walk.differing_of(walk.below((), begin), begin)
    for level in list(Level)[begin + 1 :]:
        differing = walk.differing_of(walk.below_all(differing, level), level)
    async for *_, series in differing:
        yield series


async def differing_series_in(
    client: ArchiveClient, held: Comparison, collection: str, studies: Iterable[tuple[str, str]]
) -> AsyncIterator[str]:
    """As `differing_series`, for some studies, (PatientID, StudyInstanceUID), of a collection: one request for each."""
    if client.server.dialect != "nbia":
        return
    walk = _Walk(client, held, collection)
    differing = walk.differing_of(walk.below_all(_each(studies), Level.STUDY), Level.STUDY)
    async for *_, series in walk.differing_of(walk.below_all(differing, Level.SERIES), Level.SERIES):
        yield series


async def is_same(client: ArchiveClient, held: Comparison, collection: str) -> bool:
    """True when all of a collection is held and the archive's digest of it is ours: one request, or none.

    Only for a mirror of the whole collection. Raises the error of an archive that is down.
    """
    return await _Walk(client, held, collection).agrees() is True


async def _each(studies: Iterable[tuple[str, str]]) -> AsyncIterator[Key]:
    for study in studies:
        yield study


class _Walk:
    """One walk through a collection's digests."""

    def __init__(self, client: ArchiveClient, held: Comparison, collection: str) -> None:
        self._client = client
        self._held = held
        self._collection = collection

    async def is_worth_it(self, top: Level) -> bool:
        """False where the collection agrees, or the archive has no digests."""
        same = await self.agrees() if top is Level.COLLECTION else None
        if same is None:
            settled = (s for s in self._held.listed_series(self._collection) if s.settled)
            for series in await anyio.to_thread.run_sync(lambda: list(islice(settled, _PROBES))):
                if await self._theirs(("", "", series.series_instance_uid)) is not None:
                    return True
        return same is False

    async def agrees(self) -> bool | None:
        """Whether the archive's digest of the collection is ours; None: something is missing, or it does not tell."""
        if not await anyio.to_thread.run_sync(self._held.is_settled, self._collection):
            return None
        # Nobody needs ours where theirs is not known.
        theirs = await self._theirs(())
        return None if theirs is None else theirs == await self._ours()

    async def _ours(self) -> str | None:
        return digest_over([digest async for _, digest in self.below((), Level.PATIENT)])

    async def below(self, key: Key, level: Level) -> AsyncIterator[Digested]:
        """What is held below a key at a level, and ours of it."""
        digests = digests_at(level, self._series(key))
        while batch := await anyio.to_thread.run_sync(lambda: list(islice(digests, BATCH))):
            for digested in batch:
                yield digested

    async def below_all(self, keys: AsyncIterator[Key], level: Level) -> AsyncIterator[Digested]:
        """As `below`, for one key after the other."""
        async for key in keys:
            async for digested in self.below(key, level):
                yield digested

    def _series(self, key: Key) -> Iterator[Digested]:
        for series in self._held.listed_series(self._collection, *key):
            place = (series.patient_id, series.study_instance_uid, series.series_instance_uid)
            yield place, series_digest(self._held.md5s(series.id)) if series.settled else None

    async def differing_of(self, digests: AsyncIterator[Digested], level: Level) -> AsyncIterator[Key]:
        """The keys that may differ; of series, those that do."""
        async for batch in in_batches(digests):
            theirs = await each_told(self._theirs, [key for key, ours in batch if ours is not None])
            for key, ours in batch:
                digest = theirs.get(key)
                if level is not Level.SERIES if digest is None else digest != ours:
                    yield key

    async def _theirs(self, key: Key) -> str | None:
        """The archive's digest; None where it does not tell."""
        match key:
            case ():
                where = {"Collection": self._collection}
            case (patient,):
                where = {"Collection": self._collection, "PatientID": patient}
            case (_, study):
                where = {"StudyInstanceUID": study}
            case (*_, series):
                where = {"SeriesInstanceUID": series}
        return await told(self._client, lambda: self._client.get_md5_hierarchy(**where))


async def told(client: ArchiveClient, ask: Callable[[], Awaitable[T]]) -> T | None:
    """What the archive tells; None where it does not. Raises the error of an archive that is down."""
    try:
        return await ask()
    except (NotFound, Refused, ServerFault, BadAnswer, BodyCut, Stalled) as error:
        # An answer over much may take the archive longer than anybody waits.
        if await client.is_down(error):
            raise
        return None


async def each_told(ask: Callable[[K], Awaitable[T]], keys: Iterable[K]) -> dict[K, T]:
    """What `ask` gives for each key, asked side by side: for as many keys as one wants in flight."""
    answers: dict[K, T] = {}

    async def one(key: K) -> None:
        answers[key] = await ask(key)

    try:
        async with anyio.create_task_group() as tasks:
            for key in keys:
                tasks.start_soon(one, key)
    except ExceptionGroup as group:
        # What one of them raises, all are about to: the archive is down, or a stop was asked for.
        raise group.exceptions[0] from group
    return answers


async def in_batches(items: AsyncIterator[T], size: int = BATCH) -> AsyncIterator[list[T]]:
    """Lists of up to `size` items."""
    batch: list[T] = []
    async for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
