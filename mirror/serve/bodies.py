"""How a body goes out: whole, as a file, or made while it is sent.

Hides conditions (ETag, If-None-Match), ranges, packing, HEAD, and clients that stop reading. Promises that what cannot
be sent whole is never made to look whole, and that who takes no byte for `progress_timeout` is cut off.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar

import anyio.to_thread
from aiohttp import ETag, web
from msgspec import Struct

from mirror.errors import MirrorError, StoreError
from mirror.serve.objects import Opened
from mirror.serve.packing import packer_for

_LOG = logging.getLogger(__name__)

#: Bodies below this are not worth packing.
_WORTH_PACKING = 1024
#: Bodies above this are packed and hashed in a thread.
_MUCH = 64 * 1024
#: Bytes that a client that still reads takes within its time.
_PIECE = 128 * 1024

#: Where a request has the bytes of its answer's body that were sent: aiohttp counts neither files nor without headers.
_SENT = web.RequestKey("sent", int)

Headers = dict[str, str]
T = TypeVar("T")


class Span(Struct, frozen=True, gc=False):
    """Bytes of an open file, from `begin` to before `end`, that are sent as they lie there."""

    file: FileIO
    begin: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.begin


#: A piece of a body.
Part = bytes | Span
#: What makes the next batch of a body: its parts, and whether they are the last. Called in a thread.
More = Callable[[], tuple[list[Part], bool]]


class Bodies:
    """Sends bodies. `progress_timeout` in seconds; `compress`: lists are packed for who takes it."""

    def __init__(self, progress_timeout: float, *, compress: bool) -> None:
        self._patience = progress_timeout
        self._compress = compress

    async def whole(self, request: web.Request, body: bytes, headers: Headers | None = None) -> web.StreamResponse:
        """A list that is known to its end: with an ETag, so that who has it is told so (304), and packed."""
        packer = packer_for(request) if self._compress and len(body) >= _WORTH_PACKING else None

        def finish() -> tuple[ETag, bytes]:
            # Weak: packed or not, it is the same list.
            tag = ETag(hashlib.blake2b(body, digest_size=16).hexdigest(), is_weak=True)
            return tag, body if packer is None else packer.pack(body) + packer.end()

        tag, packed = finish() if len(body) < _MUCH else await anyio.to_thread.run_sync(finish)
        own = {**(headers or {}), **self._vary(packer)}
        if _has(request, tag):
            response = web.Response(status=304, headers={k: v for k, v in own.items() if k == "Vary"})
        else:
            response = web.Response(body=packed, headers=own)
        response.etag = tag
        return response

    async def stream(
        self,
        request: web.Request,
        headers: Headers,
        first: list[Part],
        more: More,
        *,
        pack: bool = False,
        within: float = math.inf,
        limiter: anyio.CapacityLimiter | None = None,
    ) -> web.StreamResponse:
        """A body of unknown length. The next batch is made while the client takes the last, and no further ahead.

        `pack`: for bodies all of bytes. Where a batch cannot be made, or the client takes longer than `within`
        seconds, the connection is cut: the client must not take the rest for the whole.
        """
        packer = packer_for(request) if pack and self._compress else None
        response = web.StreamResponse(headers={**headers, **self._vary(packer)})

        def packed(batch: list[Part], *, last: bool) -> list[Part]:
            if packer is None:
                return batch
            body = b"".join(packer.pack(part) for part in batch if isinstance(part, bytes))
            return [body + (packer.end() if last else b"")]

        def following() -> tuple[list[Part], bool]:
            batch, last = more()
            return packed(batch, last=last), last

        deadline = time.monotonic() + within
        async with self._cutting(request):
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            batch, last = packed(first, last=False), False
            while not last:
                upcoming = asyncio.ensure_future(anyio.to_thread.run_sync(following, limiter=limiter))
                try:
                    await self._write(request, response, batch)
                finally:
                    # A thread that makes a part cannot be told to stop; what it reads from may be closed after this.
                    with anyio.CancelScope(shield=True):
                        await asyncio.wait([upcoming])
                        upcoming.exception()  # it counts as seen where the client's own fault comes first
                batch, last = upcoming.result()
                if time.monotonic() > deadline:
                    raise _TooLong(f"the client has not taken all of it within {within:g} s")
            await self._write(request, response, batch)
        return response

    async def _write(self, request: web.Request, response: web.StreamResponse, batch: Sequence[Part]) -> None:
        # Chunks (RFC 9112, 7.1) are framed here where their bytes do not pass aiohttp.
        chunked = response.headers.get("Transfer-Encoding") == "chunked"
        with _corked(request):
            for part in batch:
                if isinstance(part, bytes):
                    for begin in range(0, len(part), _PIECE):
                        piece = memoryview(part)[begin : begin + _PIECE]
                        await self._taken(response.write(piece))
                        _note(request, len(piece))
                    continue
                _write_through(request, b"%x\r\n" % part.length if chunked else b"")
                await self._send(request, part)
                _write_through(request, b"\r\n" if chunked else b"")

    async def file(self, request: web.Request, found: Opened, headers: Headers) -> web.StreamResponse:
        """An object's bytes, or one range of them (RFC 9110, 14); the file stays open.

        An archive's object never changes under its ETag; who has it is told so (304).
        """
        tag = ETag(found.sha256)
        if _has(request, tag):
            return web.Response(status=304, headers={"ETag": f'"{found.sha256}"'})
        begin, end, status = _range(request, found.length, tag)
        if status == 416:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{found.length}"})
        headers = headers | {
            "Accept-Ranges": "bytes",
            "Content-Length": str(end - begin),
            "ETag": f'"{found.sha256}"',
        }
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{found.length}"
        response = web.StreamResponse(status=status, headers=headers)
        async with self._cutting(request):
            # The header and as much of the file as the connection takes go out together.
            with _corked(request):
                await response.prepare(request)
                if request.method == "HEAD":
                    return response
                span = Span(found.file, begin + _send_now(request, Span(found.file, begin, end)), end)
            await self._send(request, span)
            await response.write_eof()
        return response

    async def _send(self, request: web.Request, span: Span) -> None:
        """Send these bytes of a file. Raises StoreError where it is shorter than it was when it was opened."""
        loop = asyncio.get_running_loop()
        begin = span.begin
        while begin < span.end:
            begin += _send_now(request, Span(span.file, begin, span.end))
            wanted = min(_PIECE, span.end - begin)
            if not wanted:
                return
            if request.transport is None:
                raise ConnectionResetError
            # The connection is full: this waits until it takes something again.
            sent = await self._taken(loop.sendfile(request.transport, span.file, begin, wanted))
            _note(request, sent)
            if sent != wanted:
                raise StoreError(f"{Path(str(span.file.name)).name}: became shorter while it was sent")
            begin += sent

    async def _taken(self, sending: Awaitable[T]) -> T:
        """What `sending` gives. Raises TimeoutError where the client takes nothing for too long."""
        async with asyncio.timeout(self._patience):
            return await sending

    def _cutting(self, request: web.Request) -> _Cutting:
        """Whatever goes wrong inside, the client sees a cut connection, and never an end."""
        return _Cutting(request, self._patience)

    def _vary(self, packer: object | None) -> Headers:
        if packer is None:
            return {"Vary": "Accept-Encoding"} if self._compress else {}
        return {"Vary": "Accept-Encoding", "Content-Encoding": str(packer)}


def sent_of(request: web.Request) -> int:
    """Bytes of the body that were handed to the connection by now; 0 for an answer that is sent after its handler."""
    sent: int = request.get(_SENT, 0)
    return sent


def _note(request: web.Request, sent: int) -> None:
    request[_SENT] = request.get(_SENT, 0) + sent


class _TooLong(MirrorError):
    """A client keeps something open for longer than it may."""


class _Cutting:
    """See Bodies._cutting."""

    __slots__ = ("_patience", "_request")

    def __init__(self, request: web.Request, patience: float) -> None:
        self._request = request
        self._patience = patience

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        match error:
            case None:
                return False
            case ConnectionError():
                _LOG.debug("%s: the client has left", self._request.path)
                return True
            case TimeoutError():
                told = f"the client took nothing for {self._patience:.0f} s"
            case MirrorError():
                told = str(error)
            case _:
                _cut(self._request)
                return False
        _LOG.warning("%s: cut off: %s", self._request.path, told)
        _cut(self._request)
        return True


@contextmanager
def _corked(request: web.Request) -> Iterator[None]:
    """What is sent inside the block leaves in full packets, and all of it at its end. Of no effect but on speed."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    if connection is None or not hasattr(socket, "TCP_CORK"):
        yield
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    try:
        yield
    finally:
        # A connection that was cut in the block is no socket any more.
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


def _send_now(request: web.Request, span: Span) -> int:
    """How many bytes of it the connection takes at once: all of a small one, where its client keeps up."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    if transport.get_write_buffer_size() or transport.get_extra_info("sslcontext") is not None:
        return 0
    try:
        sent = os.sendfile(transport.get_extra_info("socket").fileno(), span.file.fileno(), span.begin, span.length)
    except BlockingIOError:
        return 0
    _note(request, sent)
    return sent


def _write_through(request: web.Request, data: bytes) -> None:
    """Write beside aiohttp, which keeps nothing back once a header is sent."""
    if request.transport is None:
        raise ConnectionResetError
    request.transport.write(data)


def _has(request: web.Request, tag: ETag) -> bool:
    """Whether the client says that it has this body (RFC 9110, 13.1.2)."""
    if "If-None-Match" not in request.headers:
        return False
    return any(theirs.value in ("*", tag.value) for theirs in request.if_none_match or ())


def _range(request: web.Request, length: int, tag: ETag) -> tuple[int, int, int]:
    """The bytes that a request wants, begin and end, and the status that says so. What is no range is the whole."""
    asked = request.headers.get("Range")
    only_if = request.headers.get("If-Range")
    if asked is None or request.method != "GET" or (only_if is not None and only_if != f'"{tag.value}"'):
        return 0, length, 200
    try:
        wanted = request.http_range
    except ValueError:
        return 0, length, 200
    begin, end, _ = wanted.indices(length)
    if begin >= end:
        return 0, 0, 416
    return begin, end, 206


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
