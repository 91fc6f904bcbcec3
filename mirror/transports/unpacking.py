"""A series' zip from its bytes to the door into the tree: received, surveyed, unpacked member by member.

For whoever asked for it, the run or a worker of it. A zip with status 200 may be well-formed and short: the archive
ends it where a file is missing on its own disk. Member names are never used for paths; the headers say which instance
a member is.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Container, Generator

from mirror.errors import BadAnswer
from mirror.model import Finding, FindingKind, SeriesSize
from mirror.threads import Inline, Threads
from mirror.transfer import Shelf
from mirror.transports.admission import Admitted, Body, admit_new
from mirror.transports.spool import Spool
from mirror.transports.unzip import BadZip, Member, Zip
from mirror.tree import Part

#: The call that brings a series as a zip.
SOURCE = "getImage"
#: So many bytes, and so many members, are unpacked in one step.
BYTES = 4 * 1024 * 1024
MEMBERS = 64
#: Members that are unpacked in the event loop before others have their turn.
_FEW = 8
#: A zip that is, or whose members claim, more than this many times the series' bytes and a little is refused.
_SWELL = 2
_LITTLE = 1024 * 1024
#: A longer list of MD5s is none.
_LONGEST_LIST = 64 * 1024 * 1024
_NO_IMAGE = frozenset({"LICENSE", "md5hashes.csv", "results.json"})
_MD5 = re.compile(r"[0-9a-f]{32}")


async def receive_zip(
    spool: Spool, chunks: AsyncIterator[bytes], size: SeriesSize | None, asked: str, threads: Threads
) -> Zip:
    """The zip that a body is. Raises BadAnswer for one that is none or swells; then the spool is discarded."""
    try:
        async for chunk in chunks:
            await spool.write(chunk)
            _refuse_swollen(spool.size, size, asked)
        await spool.finish()
        try:
            return await threads.run(Zip, spool)
        except BadZip as error:
            start = bytes(spool.read(0, 40))
            raise BadAnswer(f"the answer is no zip; it begins with {start!r}", asked=asked) from error
    except BaseException:
        await spool.discard()
        raise


class Unpacking:
    """A zip whose members go to the door into the tree, many small ones in one step, a large one in several.

    Members of which the series holds nothing (it `held` that before, and has `seen` that since) have their place at
    once; the others are to be compared. All of it blocks.
    """

    def __init__(
        self,
        shelf: Shelf,
        zipped: Zip,
        size: SeriesSize | None,
        held: Container[str],
        seen: set[str],
        *,
        last_try: bool,
    ) -> None:
        self._shelf = shelf
        self._zip = zipped
        self._size = size
        self._held = held
        self._seen = seen
        self._last_try = last_try
        self._md5s: dict[str, str] = {}
        self._asked = f"{SOURCE}({shelf.series.series_instance_uid})"
        #: Members that could not be read, since somebody emptied this.
        self.unreadable: list[Finding] = []

    def steps(self, members: int = MEMBERS, bytes_: int = BYTES) -> Generator[list[tuple[Member, Admitted]]]:
        """Each step is about so many members' or bytes' work, and what came of it.

        Raises BadAnswer, before any has its place, for a zip that cannot be read or whose members swell.
        """
        self._survey()
        came: list[tuple[Member, Admitted]] = []
        count = 0
        for member in self._zip.members():
            name = member.name.rpartition("/")[2]
            if member.is_folder or name in _NO_IMAGE:
                continue
            part = self._shelf.store.part()
            try:
                for piece in self._zip.read(member):
                    part.put(piece)
                    count += len(piece)
                    if count >= bytes_:
                        yield came
                        came, count = [], 0
                part.end()
                body = self._body(member, part)
                came.append((member, admit_new(self._shelf, body, self._held, self._seen, last_try=self._last_try)))
            except BadZip as error:
                said = f"member {member.name!r} of the zip cannot be read: {error}"
                self.unreadable.append(self._shelf.finding(FindingKind.TRUNCATED, said))
            finally:
                part.discard()
            if len(came) >= members:
                yield came
                came, count = [], 0
        yield came

    async def in_turns(self, threads: Threads, inline: Inline) -> AsyncGenerator[list[tuple[Member, Admitted]]]:
        """As `steps`, beside the event loop, or in it where members are small and the disk is quicker than a thread."""
        size = self._size
        mean = (size.total_size_in_bytes or 0) // (size.object_count or 1) if size is not None else BYTES
        in_loop = inline.suits(mean)
        steps = self.steps(_FEW) if in_loop else self.steps()
        try:
            while True:
                if in_loop and inline.suits(mean):
                    # Others' turn; a step has some milliseconds.
                    await asyncio.sleep(0)
                    began = time.perf_counter()
                    came = next(steps, None)
                    if came:
                        inline.learn((time.perf_counter() - began) / len(came))
                else:
                    came = await threads.run(next, steps, None)
                if came is None:
                    return
                yield came
        finally:
            steps.close()

    def again(self, member: Member) -> Body:
        """The body of a member that was to be compared. Raises BadZip as reading it did."""
        part = self._shelf.store.part()
        try:
            for piece in self._zip.read(member):
                part.put(piece)
            part.end()
        except BaseException:
            part.discard()
            raise
        return self._body(member, part)

    def _survey(self) -> None:
        """Look at the whole directory before anything is unpacked: what all members claim to be, and their MD5s."""
        total, listed = 0, None
        try:
            for member in self._zip.members():
                total += member.size
                if member.name == "md5hashes.csv":
                    listed = member
        except BadZip as error:
            raise BadAnswer(f"the zip cannot be read: {error}", asked=self._asked) from error
        _refuse_swollen(total, self._size, self._asked)
        if listed is not None and listed.size <= _LONGEST_LIST:
            try:
                self._md5s = _read_md5s(b"".join(self._zip.read(listed)))
            except BadZip:
                self._md5s = {}

    def _body(self, member: Member, part: Part) -> Body:
        return Body(
            part=part, sop_instance_uid=None, promised=member.size, md5=self._md5s.get(member.name.rpartition("/")[2]),
            source=SOURCE, label=member.name,
        )  # fmt: skip


def _read_md5s(listed: bytes) -> dict[str, str]:
    """File name -> MD5 from md5hashes.csv. A line that is no digest is left out."""
    named = (line.rpartition(",") for line in listed.decode("utf-8", "replace").splitlines())
    return {name: md5.lower() for name, _, md5 in named if _MD5.fullmatch(md5.lower())}


def _refuse_swollen(count: int, size: SeriesSize | None, asked: str) -> None:
    """A zip that is or unpacks to far more than the series is no answer, and may be meant to fill the disk."""
    if size is None or size.total_size_in_bytes is None:
        return
    if count > _SWELL * size.total_size_in_bytes + _LITTLE:
        raise BadAnswer(f"the zip holds {count} bytes, the series has {size.total_size_in_bytes}", asked=asked)
