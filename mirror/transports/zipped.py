"""A whole series as one zip: getImage, streamed to disk, unpacked and checked member by member.

A zip with status 200 may be well-formed and short: the archive ends it where a file is missing on its own disk. What
is in a zip is therefore never taken for what is in the series: getSeriesSize says that, and getSOPInstanceUIDs where
the server has it. Member names are never used for paths; the headers say which instance a member is.
"""

from __future__ import annotations

import errno
import re
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import aiofiles
import anyio
import anyio.to_thread

from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import Server
from mirror.errors import ArchiveError, BadAnswer, Refused, store_errors
from mirror.model import FindingKind, SeriesSize
from mirror.transfer import OpenSeries, withdraw_doubtful
from mirror.transports.admission import Body, admit, tell_opened
from mirror.transports.instance import list_series

_BLOCK = 1024 * 1024
_PREAMBLE = 132
#: A zip that is, or whose members claim, more than this many times the series' bytes is refused.
_SWELL = 2
#: A longer list of MD5s is none.
_LONGEST_LIST = 64 * 1024 * 1024
_NO_IMAGE = frozenset({"LICENSE", "md5hashes.csv", "results.json"})
_MD5 = re.compile(r"[0-9a-f]{32}")


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
    """Brings a series by getImage. One per run: it remembers what the server does not take."""

    source = "getImage"

    def __init__(self, server: Server, capabilities: Capabilities) -> None:
        self._lists = capabilities.lists
        self._md5 = server.dialect == "nbia"

    async def fetch(self, open_series: OpenSeries, size: SeriesSize | None) -> None:
        """See Transport."""
        kit, todo = open_series.kit, open_series.todo
        if self._lists:
            await list_series(open_series)
        if open_series.round == 1:
            await tell_opened(open_series, size.object_count if size else 0)
        if not await self._is_held(open_series, size) and not kit.stop.is_set():
            with kit.store.scratch() as path:
                await self._download(open_series, path, size)
                await _unpack(open_series, path, size)
            await open_series.flush()
            await withdraw_doubtful(open_series)
        if not self._lists:
            await kit.ledger.run(kit.ledger.list_held, todo.id, open_series.listing)

    async def _is_held(self, open_series: OpenSeries, size: SeriesSize | None) -> bool:
        """True when an earlier run left nothing to bring."""
        kit = open_series.kit
        totals = await kit.ledger.run(kit.ledger.totals, open_series.todo.id, open_series.listing)
        if self._lists:
            return 0 < totals.listed == totals.held
        held = totals.held + totals.unlisted
        return size is not None and (held, totals.held_bytes) == (size.object_count, size.total_size_in_bytes)

    async def _download(self, open_series: OpenSeries, path: Path, size: SeriesSize | None) -> None:
        uid = open_series.todo.series.series_instance_uid

        async def receive(chunks: AsyncIterator[bytes], _length: int | None) -> None:
            written = 0
            with store_errors(path):
                # Shielded: a thread goes on when its caller is cancelled, and would make the file behind our back.
                with anyio.CancelScope(shield=True):
                    file = await aiofiles.open(path, "wb")
                try:
                    async for chunk in chunks:
                        written += len(chunk)
                        _refuse_swollen(written, size, f"getImage({uid})")
                        with anyio.CancelScope(shield=True):
                            await file.write(chunk)
                finally:
                    with anyio.CancelScope(shield=True):
                        await file.close()
            if not await anyio.to_thread.run_sync(_is_zip, path):
                start = await anyio.to_thread.run_sync(_start, path)
                raise BadAnswer(f"the answer is no zip; it begins with {start!r}", asked=f"getImage({uid})")

        client = open_series.kit.client
        if self._md5:
            try:
                await client.get_image(uid, receive, IncludeMD5="Yes")
            except Refused as error:
                # Servers older than this option answer it as they answer any parameter they do not know.
                if "IncludeMD5" not in error.reason:
                    raise
                self._md5 = False
            else:
                return
        await client.get_image(uid, receive)


async def _unpack(open_series: OpenSeries, path: Path, size: SeriesSize | None) -> None:
    """Check every member into the tree. Members that an earlier run published are compared, not written again."""
    asked = f"getImage({open_series.todo.series.series_instance_uid})"
    try:
        archive = await anyio.to_thread.run_sync(_open, path)
    except zipfile.BadZipFile as error:
        raise BadAnswer(f"the zip cannot be read: {error}", asked=asked) from error
    with archive:
        _refuse_swollen(sum(member.file_size for member in archive.infolist()), size, asked)
        md5s = await anyio.to_thread.run_sync(_read_md5s, archive)
        for member in archive.infolist():
            if open_series.kit.stop.is_set():
                return
            name = Path(member.filename).name
            if not member.is_dir() and name not in _NO_IMAGE:
                await _admit_member(open_series, archive, member, md5s.get(name))


async def _admit_member(
    open_series: OpenSeries, archive: zipfile.ZipFile, member: zipfile.ZipInfo, md5: str | None
) -> None:
    part = open_series.kit.store.part()
    try:
        with _damage():
            file = archive.open(member)
        with file:
            while block := await anyio.to_thread.run_sync(_read, file):
                await part.write(block)
        await part.finish()
    except zipfile.BadZipFile as error:
        part.discard()
        open_series.notice(
            open_series.finding(FindingKind.TRUNCATED, f"member {member.filename!r} of the zip cannot be read: {error}")
        )
        return
    except BaseException:
        part.discard()
        raise
    body = Body(
        part=part, sop_instance_uid=None, promised=member.file_size, md5=md5, source=ZipTransport.source,
        label=member.filename,
    )  # fmt: skip
    for finding in await admit(open_series, body, last_try=open_series.round == 2):
        open_series.notice(finding)


def _refuse_swollen(count: int, size: SeriesSize | None, asked: str) -> None:
    """A zip that is or unpacks to far more than the series is no answer, and may be meant to fill the disk."""
    if size is None or size.total_size_in_bytes is None:
        return
    if count > _SWELL * size.total_size_in_bytes + _BLOCK:
        raise BadAnswer(f"the zip holds {count} bytes, the series has {size.total_size_in_bytes}", asked=asked)


@contextmanager
def _damage() -> Iterator[None]:
    """Whatever zipfile lets through on a damaged zip, its decompressors' and codecs' errors, as BadZipFile."""
    try:
        yield
    except OSError as error:
        # A damaged bzip2 stream has no number; a damaged offset leads before the start of the file.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise zipfile.BadZipFile(str(error)) from error
    except Exception as error:
        raise zipfile.BadZipFile(str(error) or type(error).__name__) from error


def _is_zip(path: Path) -> bool:
    try:
        with _damage():
            return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def _open(path: Path) -> zipfile.ZipFile:
    with store_errors(path), _damage():
        return zipfile.ZipFile(path)


def _read(file: IO[bytes]) -> bytes:
    with store_errors(None), _damage():
        return file.read(_BLOCK)


def _read_md5s(archive: zipfile.ZipFile) -> dict[str, str]:
    """File name -> MD5 from md5hashes.csv; empty where there is none. A line that is no digest is left out."""
    try:
        with _damage():
            if archive.getinfo("md5hashes.csv").file_size > _LONGEST_LIST:
                return {}
            text = archive.read("md5hashes.csv").decode("utf-8", "replace")
    except zipfile.BadZipFile:
        return {}
    named = (line.rpartition(",") for line in text.splitlines())
    return {name: md5.lower() for name, _, md5 in named if _MD5.fullmatch(md5.lower())}


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(40)
