"""A mirror against an archive.

One getSeries per collection tells what the archive has now, and where it has digests one request more tells of a
collection that nothing in it changed in silence. Only for series that differ are its instances asked for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import islice

import anyio
import anyio.to_thread

from mirror.archive.client import ArchiveClient
from mirror.diff.series import Difference, Kind, Measure, Pair, differs, names_of, pairs, with_instances
from mirror.digests import BATCH, differing_series, each_told, highest_level, told
from mirror.errors import BadAnswer
from mirror.ledger import Comparison, Scratch
from mirror.model import Scope, Series
from mirror.resolve import resolve
from mirror.scope import boundary, describe

_WHOLE = Scope(all=True)


async def against_archive(
    here: Comparison,
    client: ArchiveClient,
    collections: Sequence[str] = (),
    *,
    scope: Scope = _WHOLE,
    instances: bool = False,
    note: Callable[[str], None] = lambda words: None,
) -> AsyncGenerator[list[Difference], None]:
    """What differs between a mirror and an archive; see the package. `instances`: each that differs, too.

    Without `collections`, those of the mirror. Of a collection, what the mirror does not know is compared as far as it
    is within `scope`, whatever collections that names; `note` is told in words how much is not. In the nbia dialect
    `instances` costs a request for every instance of a series whose digest differs; bytes that changed in silence are
    not seen in the tcia dialect. Raises SettingsError for a collection that neither side has, and ArchiveError where
    the archive does not list a collection.
    """
    within = await resolve(
        replace(scope, collections=(), all=True, exclude=replace(scope.exclude, collections=())), client
    )
    with Scratch() as there:
        names = here.all_collections()
        spelled = {name.casefold(): name for name in names}
        asked = [spelled.get(name.casefold(), name) for name in collections] or names
        listing = _Listing(client, here, there, within)
        for name in asked:
            await listing.take(name)
            async with aclosing(differing_series(client, here, name, top=highest_level(within))) as differing:
                async for uid in differing:
                    await anyio.to_thread.run_sync(there.doubt, uid)
        if listing.beyond:
            note(f"{listing.beyond} series of the archive are outside the mirror's scope ({describe(scope)})")
        sides = _Sides(here, there, client, each=instances)
        of_both = pairs(here, there, names_of(here, there, asked), Measure.ARCHIVE)
        while batch := await anyio.to_thread.run_sync(lambda: list(islice(of_both, BATCH))):
            found = await each_told(lambda number: sides.compare(batch[number]), range(len(batch)))
            for number in range(len(batch)):
                yield found[number]


class _Listing:
    """What getSeries lists, on its way into the scratch ledger."""

    def __init__(self, client: ArchiveClient, here: Comparison, there: Scratch, within: Scope) -> None:
        self._client = client
        self._here = here
        self._there = there
        self._outside = boundary(within)
        self._listed = frozenset(within.series)
        #: How many series are outside the scope, and not known to the mirror either.
        self.beyond = 0

    async def take(self, collection: str) -> None:
        """Take in a collection; patient by patient where the whole cannot be had."""
        count = 0

        async def some(**where: str) -> bool:
            nonlocal count
            async for batch in (await self._client.get_series(Collection=collection, **where)).batches():
                # A server that ignores the parameter must not widen the comparison.
                rows = [s for s in batch if s.collection.casefold() == collection.casefold()]
                await anyio.to_thread.run_sync(self._put, rows)
                count += len(rows)
            return True

        begun = self.beyond
        if not await told(self._client, some):
            self.beyond = begun
            async for patients in (await self._client.get_patient(collection=collection)).batches():
                for patient in patients:
                    await some(PatientID=patient.patient_id)
        if not count and collection in await self._client.get_collection_values():
            raise BadAnswer("no series came of a collection that the archive names", asked=f"getSeries({collection})")

    def _put(self, rows: list[Series]) -> None:
        wanted = [s for s in rows if self._is_within(s) or self._here.find_series(s.series_instance_uid) is not None]
        self.beyond += len(rows) - len(wanted)
        self._there.put_series(wanted)

    def _is_within(self, series: Series) -> bool:
        return not self._outside(series) and (not self._listed or series.series_instance_uid in self._listed)


class _Sides:
    """The mirror, the archive's rows, and the archive itself for what the rows do not tell."""

    def __init__(self, here: Comparison, there: Scratch, client: ArchiveClient, *, each: bool) -> None:
        self._here = here
        self._there = there
        self._client = client
        self._each = each
        # Series are compared side by side, their rows are read by one thread at a time.
        self._limiter = anyio.CapacityLimiter(1)

    async def compare(self, pair: Pair) -> list[Difference]:
        """What differs of one series."""
        ours, theirs = pair
        found = differs(ours, theirs, Measure.ARCHIVE)
        if found is None or ours is None or theirs is None:
            return [] if found is None else [found]
        if found.kind is Kind.INCOMPLETE and not self._each:
            return [found]
        listed = await told(self._client, partial(self._list, ours.series_instance_uid))
        if listed is None:
            return [found]
        mine = await anyio.to_thread.run_sync(lambda: list(self._here.held_md5s(ours.id)), limiter=self._limiter)
        others: dict[str, str | None] = dict.fromkeys(listed)
        if theirs.doubted and self._each:
            common = [uid for uid, _ in mine if uid in others]
            for begin in range(0, len(common), BATCH):
                others |= await each_told(self._md5, common[begin : begin + BATCH])
        return with_instances(ours, theirs, found, mine, others.items(), "MD5", each=self._each)

    async def _list(self, series_instance_uid: str) -> list[str]:
        return sorted(await (await self._client.get_sop_instance_uids(series_instance_uid)).all())

    async def _md5(self, sop_instance_uid: str) -> str | None:
        return await told(self._client, lambda: self._client.get_md5_hash_for_image(sop_instance_uid))
