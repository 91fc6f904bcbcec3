"""A transport whose instances lie in a folder: each file that was found is offered to the door that all bodies take.

Nothing here decides what is right: admission checks, the ledger remembers, transfer judges. A file that is refused
stays where it lies, with a finding that names it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import anyio.to_thread

from mirror.adopt.report import Adoption
from mirror.adopt.walk import unreadable
from mirror.check import digest_of
from mirror.errors import BadAnswer, NotFound, Refused, ServerFault
from mirror.events import EventSink, Noticed
from mirror.ledger import Holding, Ledger
from mirror.ledger.found import FoundFile, FoundFiles, FoundSeries, Standing
from mirror.model import Digest, Finding, FindingKind, Series, SeriesSize
from mirror.transfer import Kit, OpenSeries
from mirror.transports.admission import Body, admit, receive, tell_opened
from mirror.transports.instance import list_series
from mirror.tree import LocalStore, Part, link_part

How = Literal["link", "copy", "move"]

_BLOCK = 1024 * 1024
#: Files of a series with the SHA-256 that was noted, and how their instances stand by SOPInstanceUID.
Page = tuple[list[tuple[FoundFile, str | None]], dict[str, Holding]]

#: Files are read from the scratch file, and their standing from the ledger, in pages of this many.
_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """What an adoption hands to everything that works on its files."""

    found: FoundFiles
    ledger: Ledger
    how: How
    adoption: Adoption
    sink: EventSink

    async def series(self, standing: Standing) -> AsyncIterator[FoundSeries]:
        """The series of that standing."""
        after = 0
        while page := await self.found.run(self.found.series, standing, after, _PAGE):
            after = page[-1].id
            for series in page:
                yield series

    async def pages(self, series: FoundSeries, *, proven: bool = False) -> AsyncIterator[Page]:
        """The files of a series, page by page, with how their instances stand; `proven`: those that are held."""
        number = await self.ledger.run(self.ledger.series_number, series.uid)
        after: FoundFile | None = None
        while page := await self.found.run(self.found.files, series.id, after, _PAGE, proven=proven):
            after = page[-1][0]
            uids = list({file.sop_instance_uid for file, _ in page})
            yield page, {} if number is None else await self.ledger.run(self.ledger.holdings, number, uids)

    def refuse(self, file: FoundFile, kind: FindingKind, said: str, series: Series | None = None) -> None:
        """Tell of a file that stays where it lies."""
        self.adoption.refused += 1
        self.sink(
            Noticed(
                finding=Finding(
                    kind=kind,
                    detail=f"{file.path}: {said}",
                    collection=series.collection if series else None,
                    series_instance_uid=series.series_instance_uid if series else None,
                    sop_instance_uid=file.sop_instance_uid,
                )
            )
        )

    async def prove(self, file: FoundFile, sha256: str) -> None:
        """Note that the mirror holds the file's bytes, so that the file may go."""
        if self.how == "move":
            await self.found.run(self.found.prove, file, sha256)

    async def compare(self, file: FoundFile, held: str, series: Series | None = None) -> None:
        """Hold a file against the SHA-256 of the instance that the mirror has."""
        try:
            digest = await anyio.to_thread.run_sync(_digest, file.path)
        except OSError as error:
            self.unreadable(file, error)
            return
        if digest.sha256 == held:
            self.adoption.held += 1
            await self.prove(file, held)
        else:
            said = f"has other bytes than are held: SHA-256 {digest.sha256}, held {held}"
            self.refuse(file, FindingKind.DUPLICATE_INSTANCE, said, series)

    async def compare_series(self, series: FoundSeries) -> None:
        """Hold the files of a series that the mirror has whole against what it has."""
        async for page, holdings in self.pages(series):
            for file, _ in page:
                holding = holdings.get(file.sop_instance_uid)
                if holding is None or holding.name is None or holding.sha256 is None:
                    self.refuse(file, FindingKind.UNLISTED_INSTANCE, "the mirror has the whole series without it")
                else:
                    await self.compare(file, holding.sha256)

    def unreadable(self, file: FoundFile, error: OSError) -> None:
        """Tell of a file that the disk does not give."""
        self.adoption.refused += 1
        self.sink(Noticed(finding=unreadable(file.path, error)))


class OfferTransport:
    """Brings what was found of a series. One per adoption. `lists`: the archive has getSOPInstanceUIDs."""

    source = "adopt"

    def __init__(self, offers: Offers, *, lists: bool) -> None:
        self._offers = offers
        self._lists = lists

    async def fetch(self, open_series: OpenSeries, size: SeriesSize | None) -> None:
        """See Transport."""
        kit, todo = open_series.kit, open_series.todo
        if self._lists:
            await list_series(open_series, lambda: None)
        if open_series.round == 1:
            await tell_opened(open_series, size.object_count if size else 0)
        found = await self._offers.found.run(self._offers.found.find, todo.series.series_instance_uid)
        if found is not None and (open_series.round == 1 or open_series.damaged):
            last = ""
            async for page, holdings in self._offers.pages(found):
                for file, _ in page:
                    if kit.stop.is_set():
                        return
                    uid, again = file.sop_instance_uid, file.sop_instance_uid == last
                    await self._offer(open_series, file, holdings.get(uid), again=again)
                    last = uid
        await open_series.flush()
        if not self._lists:
            await kit.ledger.run(kit.ledger.list_held, todo.id, open_series.listing)
            return
        totals = await kit.ledger.run(kit.ledger.totals, todo.id, open_series.listing)
        # Not to be had here, however often the series is listed.
        open_series.failed += totals.listed - totals.held

    async def _offer(self, open_series: OpenSeries, file: FoundFile, holding: Holding | None, *, again: bool) -> None:
        """One file: adopted, held already, or refused."""
        uid, series = file.sop_instance_uid, open_series.todo.series
        md5: str | None = None
        if open_series.round == 2:
            if uid not in open_series.damaged:
                return
            # Another copy may have what the first one had not; only the archive's MD5 can tell.
            md5 = await _archive_md5(open_series.kit, uid)
            if md5 is None:
                return
        if self._lists and (holding is None or holding.listing != open_series.listing):
            self._offers.refuse(file, FindingKind.UNLISTED_INSTANCE, "the archive does not list it", series)
            return
        # Rows gather before they are written: a second copy may come before the row of the first.
        held = holding.sha256 if holding is not None and holding.name is not None else None
        if held is None and again and (gathered := await open_series.held(uid)) is not None:
            held = gathered.digest.sha256
        doubted = holding is not None and held is not None and holding.doubted
        if held is not None and open_series.round == 1:
            await self._offers.compare(file, held, series)
        elif held is None or doubted:
            await self._admit(open_series, file, md5, doubted=doubted)

    async def _admit(self, open_series: OpenSeries, file: FoundFile, md5: str | None, *, doubted: bool) -> None:
        adoption = self._offers.adoption
        try:
            part, linked = await self._part(open_series, file)
        except OSError as error:
            self._offers.unreadable(file, error)
            return
        body = Body(
            part=part, sop_instance_uid=file.sop_instance_uid, promised=None, md5=md5, source=self.source,
            label=file.path.name, doubted=doubted,
        )  # fmt: skip
        if wrong := await admit(open_series, body, last_try=False):
            said = "; ".join(finding.detail for finding in wrong)
            self._offers.refuse(file, wrong[0].kind, said, open_series.todo.series)
            return
        adoption.adopted += 1
        adoption.linked += linked
        adoption.copied += not linked
        await self._offers.prove(file, part.digest().sha256)

    async def _part(self, open_series: OpenSeries, file: FoundFile) -> tuple[Part, bool]:
        """The file as a part, and whether it is a link. Raises the OSError of a file that cannot be read."""
        store = open_series.kit.store
        if self._offers.how != "copy":
            linked = await anyio.to_thread.run_sync(link_part, cast("LocalStore", store), file.path)
            if linked is not None:
                return linked, True
        return await receive(store, _chunks(file.path)), False


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    file = await anyio.to_thread.run_sync(path.open, "rb")
    try:
        while block := await anyio.to_thread.run_sync(file.read, _BLOCK):
            yield block
    finally:
        file.close()


def _digest(path: Path) -> Digest:
    with path.open("rb") as file:
        return digest_of(file)


async def _archive_md5(kit: Kit, sop_instance_uid: str) -> str | None:
    try:
        return await kit.client.get_md5_hash_for_image(sop_instance_uid)
    except (NotFound, Refused, ServerFault, BadAnswer):
        return None
