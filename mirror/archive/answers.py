"""Bodies as answers: JSON rows that may be larger than memory should hold, and digests.

A body is spooled whole before its rows are handed out, so that a body cut in the middle is asked for again without
anyone having seen half of it. Small ones stay in memory; a large one goes to a temporary file and is read from there,
block by block, each cut behind a row.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from operator import length_hint
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import anyio.to_thread
import msgspec

from mirror.archive.endpoints import DialectName
from mirror.errors import ArchiveError, BadAnswer, store_errors

T = TypeVar("T")

#: As rows, a body takes five times its bytes.
_IN_MEMORY = 1024 * 1024
#: How much of a file is read and decoded at a time.
_BLOCK = 256 * 1024
#: Rows that are read in the loop.
_FEW = 500
#: No row is longer, nor what lies between two.
_LONGEST = 16 * 1024 * 1024
_LONGEST_TEXT = 128 * 1024 * 1024
#: So many places are tried where a block may be cut: a brace may also lie within a row.
_CUTS = 8
#: What msgspec raises for what is none.
_NOT_ROWS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_DECODER = msgspec.json.Decoder(list[dict[str, Any]])
_NEXT_ROW = re.compile(rb"[ \t\r\n]*,")
#: How much of a body's two ends is looked at.
_END = 200
_MD5 = re.compile(rb"[0-9a-f]{32}")


class Rows(Generic[T]):
    """The rows of one answer, read once, in batches. `async for batch in rows.batches()`, or `await rows.all()`."""

    def __init__(self, rows: Iterator[dict[str, Any]], read: Callable[[dict[str, Any]], T], asked: str) -> None:
        self._rows = rows
        self._read = read
        self._asked = asked

    async def batches(self, size: int = 500) -> AsyncIterator[list[T]]:
        """Lists of up to `size` rows. Raises BadAnswer for a row that is none, naming the request."""
        # A list of a few rows is read sooner than a thread wakes up; rows in a file tell no length.
        if 0 <= length_hint(self._rows, -1) <= min(size, _FEW):
            if batch := self._next(size):
                yield batch
            return
        while batch := await anyio.to_thread.run_sync(self._next, size):
            yield batch

    async def all(self) -> list[T]:
        """Every row at once: for answers that are known to be small."""
        return [row async for batch in self.batches() for row in batch]

    def _next(self, size: int) -> list[T]:
        try:
            return [self._read(row) for row in islice(self._rows, size)]
        except ArchiveError as error:
            raise BadAnswer(error.reason, asked=error.asked or self._asked) from error


async def spool_rows(
    chunks: AsyncIterator[bytes], dialect: DialectName, asked: str, folder: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Read a JSON body to its end; the rows come from the returned iterator.

    An empty body means no rows in the nbia dialect only. Raises BadAnswer for a body that is no JSON array; what is
    wrong in the middle of a large one shows only when its rows are read. `folder` is where large ones go.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > _IN_MEMORY:
            folder = folder or Path(tempfile.gettempdir())
            with store_errors(folder):
                return await _spool_to_file(bytes(body), chunks, asked, folder)
    if not body.strip():
        if dialect == "nbia":
            return iter(())
        raise BadAnswer("the body is empty where JSON is due", asked=asked)
    _check_start(bytes(body), b"[{", asked)
    try:
        decoded = msgspec.json.decode(body, type=list[dict[str, Any]] | dict[str, Any])
    except _NOT_ROWS as error:
        raise BadAnswer(f"the answer is not a JSON array of objects: {error}", asked=asked) from error
    return iter(decoded if isinstance(decoded, list) else [decoded])


async def _spool_to_file(
    body: bytes, chunks: AsyncIterator[bytes], asked: str, folder: Path
) -> Iterator[dict[str, Any]]:
    """The rows of a large body whose first part is `body`."""
    _check_start(body, b"[", asked)
    with ExitStack() as opened:
        file = opened.enter_context(tempfile.TemporaryFile(prefix="tcia-mirror-", dir=folder))
        await anyio.to_thread.run_sync(file.write, body)
        end = body[-_END:]
        async for chunk in chunks:
            await anyio.to_thread.run_sync(file.write, chunk)
            end = (end + chunk)[-_END:]
        if not end.rstrip().endswith(b"]"):
            raise BadAnswer(f"the answer is not whole; it ends with {end[-60:]!r}", asked=asked)
        file.seek(0)
        rows = _rows_of_file(file)
        next(rows)
        opened.pop_all()
    return rows


def _rows_of_file(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The rows, behind a first that is none: a generator that has begun closes its file even if nobody reads on."""
    with file:
        yield {}
        rest = file.read(_BLOCK).lstrip()[1:]
        more = False
        while block := file.read(max(_BLOCK, len(rest))):
            rest += block
            rows, length = _whole_rows(rest)
            if length:
                yield from rows
                rest, more = rest[length:], True
            elif len(rest) > _LONGEST:
                break
        try:
            rows = _DECODER.decode(b"[" + rest)
        except _NOT_ROWS as error:
            raise BadAnswer(f"the answer is not a JSON array of objects: {error}") from error
        if more and not rows:
            raise BadAnswer("the answer is not JSON: nothing follows its last comma")
        yield from rows


def _whole_rows(text: bytes) -> tuple[list[dict[str, Any]], int]:
    """The rows that begin an array's text and are whole, and the length of their text with the comma behind it.

    What decodes up to a place has been cut between two rows: within one, or within a text of it, it would not.
    """
    end = len(text)
    for _ in range(_CUTS):
        end = text.rfind(b"}", 0, end)
        if end < 0:
            break
        if comma := _NEXT_ROW.match(text, end + 1):
            with suppress(*_NOT_ROWS):
                return _DECODER.decode(b"[" + text[: end + 1] + b"]"), comma.end()
    return [], 0


def _check_start(body: bytes, due: bytes, asked: str) -> None:
    start = body[:_END].lstrip()
    if start[:1] not in due:
        raise BadAnswer(f"the answer is not JSON; it begins with {start[:60]!r}", asked=asked)


async def read_digest(chunks: AsyncIterator[bytes], asked: str) -> str | None:
    """An MD5 digest sent as text; None for an empty body (unknown to the archive)."""
    body = (await read_limited(chunks, 4096)).strip().lower()
    if not body:
        return None
    if not _MD5.fullmatch(body):
        raise BadAnswer(f"the answer is not an MD5 digest; it begins with {body[:60]!r}", asked=asked)
    return body.decode()


async def read_text(chunks: AsyncIterator[bytes], asked: str) -> str:
    """A body of text, whole. BadAnswer where it is longer than a manifest of a million series or is no UTF-8."""
    body = await read_limited(chunks, _LONGEST_TEXT + 1)
    if len(body) > _LONGEST_TEXT:
        raise BadAnswer(f"the answer is longer than {_LONGEST_TEXT} bytes", asked=asked)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadAnswer(f"the answer is no text: {error}", asked=asked) from error


def read_object(text: str, asked: str) -> dict[str, Any]:
    """The one JSON object that a body holds."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAnswer(f"the answer is no JSON object: {error}", asked=asked) from error


async def read_limited(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """At most `limit` bytes of a body, the rest unread: error texts and digests."""
    body = b""
    async for chunk in chunks:
        body += chunk
        if len(body) >= limit:
            break
    return body[:limit]
