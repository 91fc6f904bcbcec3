"""What a call is answered with: rows, a file, a zip or a digest, of what is held.

Hides HTTP: headers, streaming and threads. Promises that the loop never blocks (the ledger and the files are read in
threads), that memory does not grow with an answer, and that what cannot be sent whole is never made to look whole: the
status says so, or the connection is cut.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread
from aiohttp import web

from mirror.archive.endpoints import Answer, DialectName, Endpoint
from mirror.errors import MirrorError, StoreError
from mirror.serve.formats import Pieces, encode_rows, find_format
from mirror.serve.parameters import SERVER_FAULT, Refusal, denial, fault, read_params
from mirror.serve.queries import hierarchy_digest, rows_of, wire_rows
from mirror.serve.searching import send_search
from mirror.serve.served import Served
from mirror.serve.zipping import series_members, zip_pieces

_LOG = logging.getLogger(__name__)

#: Pieces of an answer (rows, mostly) that are made in one go; a shorter answer is sent with its length.
_BATCH = 2000
#: A file up to this size is read whole and sent in one write; a larger one goes by sendfile.
_SMALL_FILE = 256 * 1024
#: Threads that make parts of zips, so that the small calls keep theirs.
_ZIPS = 16
_NO_SUCH_ROW = "java.lang.IndexOutOfBoundsException: Index: 0, Size: 0"


class Answers:
    """The calls of both dialects, answered from one mirror."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._zips = anyio.CapacityLimiter(_ZIPS)

    async def answer(self, dialect: DialectName, endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
        """Answer one call."""
        try:
            params = await read_params(dialect, endpoint, request)
            match endpoint.answer:
                case Answer.ROWS:
                    return await self._send_rows(dialect, endpoint, request, params)
                case Answer.DICOM:
                    return await self._send_file(dialect, request, params)
                case Answer.ZIP:
                    return await self._send_zip(dialect, endpoint, request, params)
                case Answer.DIGEST:
                    return await self._send_digest(endpoint, params)
                case Answer.MANIFEST | Answer.SEARCH:
                    return await send_search(self._served, endpoint, request, params)
        except Refusal as refusal:
            return refusal.response()
        except MirrorError as error:
            _LOG.warning("%s: %s", endpoint.name, error)
            return fault(dialect, type(error).__name__).response()  # the message names paths; it is for the log

    async def _send_rows(
        self, dialect: DialectName, endpoint: Endpoint, request: web.Request, params: dict[str, str]
    ) -> web.StreamResponse:
        form, headers = find_format(endpoint, dialect, params.pop("format", None))
        async with self._served.catalogue() as catalogue:

            def begin() -> tuple[Pieces | None, bytes, bool]:
                rows = rows_of(catalogue, self._served.root, endpoint, dialect, params)
                with_rows = wire_rows(rows, endpoint, dialect)
                first = next(with_rows, None)
                if first is None and dialect == "nbia" and not endpoint.empty_list:
                    return None, b"", True
                if form is None:
                    with_rows.close()
                    raise Refusal(500, SERVER_FAULT)
                known = () if first is None else (first,)
                pieces = encode_rows(endpoint, dialect, form, chain(known, with_rows))
                return pieces, *_batch(pieces)

            pieces, body, whole = await anyio.to_thread.run_sync(begin)
            if whole or pieces is None:
                return web.Response(body=body, headers=headers if body else None)
            return await self._stream(request, headers, body, pieces, partial(_batch, pieces))

    async def _stream(
        self,
        request: web.Request,
        headers: dict[str, str],
        first: bytes,
        pieces: Pieces,
        more: Callable[[], tuple[bytes, bool]],
        limiter: anyio.CapacityLimiter | None = None,
    ) -> web.StreamResponse:
        """Send a body of unknown length, making the next part only when the client has taken the last.

        Where a part cannot be made, the connection is cut: the client must not take the rest for the whole.
        """
        response = web.StreamResponse(headers=headers)
        try:
            await response.prepare(request)
            await response.write(first)
            whole = False
            while not whole:
                part, whole = await anyio.to_thread.run_sync(more, limiter=limiter)
                if part:
                    await response.write(part)
        except ConnectionError:
            _LOG.debug("%s: the client has left", request.path)
        except MirrorError as error:
            _LOG.warning("%s: cut off: %s", request.path, error)
            _cut(request)
        except BaseException:
            _cut(request)
            raise
        finally:
            pieces.close()
        return response

    async def _send_file(
        self, dialect: DialectName, request: web.Request, params: dict[str, str]
    ) -> web.StreamResponse:
        uid = params["SOPInstanceUID"]
        async with self._served.catalogue() as catalogue:

            def find() -> bytes | tuple[BinaryIO, int] | None:
                row = catalogue.instance(uid, params["SeriesInstanceUID"])
                return None if row is None else _read_or_open(self._served.root / row["path"], row["bytes"])

            found = await anyio.to_thread.run_sync(find)
        if found is None:
            raise fault(dialect, "null" if dialect == "nbia" else _NO_SUCH_ROW)
        headers = {"Content-Type": "application/dicom", "Content-Disposition": f"attachment; filename={uid}.dcm"}
        if isinstance(found, bytes):
            return web.Response(body=found, headers=headers)
        # Not aiohttp's FileResponse: it answers ranges and conditions, which the archive does not know.
        file, length = found
        response = web.StreamResponse(headers=headers)
        response.content_length = length
        with closing(file):
            try:
                await response.prepare(request)
                if request.transport is not None:
                    sent = await asyncio.get_running_loop().sendfile(request.transport, file, 0, length)
                    if sent != length:
                        _cut(request)
                await response.write_eof()
            except ConnectionError:
                _LOG.debug("%s: the client has left", request.path)
        return response

    async def _send_zip(
        self, dialect: DialectName, endpoint: Endpoint, request: web.Request, params: dict[str, str]
    ) -> web.StreamResponse:
        uid = params["SeriesInstanceUID"]
        async with self._served.catalogue() as catalogue:
            members = await anyio.to_thread.run_sync(
                partial(series_members, catalogue, self._served.root, dialect, endpoint, params), limiter=self._zips
            )
        if members is None:
            if dialect == "tcia":
                raise fault(dialect, _NO_SUCH_ROW)
            raise denial(endpoint, uid)
        headers = {
            "nbia": {
                "Content-Type": "application/octet-stream",
                "Content-Disposition": f'attachment; filename="{uid}.zip"',
            },
            "tcia": {
                "Content-Type": "application/zip",
                "Content-Disposition": 'attachment;filename="bindaas-blob-download.zip"',
            },
        }[dialect]
        pieces = zip_pieces(members)

        def more() -> tuple[bytes, bool]:
            piece = next(pieces, None)
            return piece or b"", piece is None

        first, _ = await anyio.to_thread.run_sync(more, limiter=self._zips)  # may raise while the status is not sent
        return await self._stream(request, headers, first, pieces, more, self._zips)

    async def _send_digest(self, endpoint: Endpoint, params: dict[str, str]) -> web.Response:
        async with self._served.catalogue() as catalogue:

            def find() -> str | None:
                if endpoint.name == "getMD5Hierarchy":
                    return hierarchy_digest(catalogue, params)
                row = catalogue.instance(params.get("SOPInstanceUID", ""))
                return None if row is None else str(row["md5"])

            digest = await anyio.to_thread.run_sync(find)
        return web.Response(body=(digest or "").encode(), headers={"Content-Type": "text/plain"})


def _batch(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    """The next part of a body, and whether it is the last."""
    parts = list(islice(pieces, _BATCH))
    return b"".join(parts), len(parts) < _BATCH


def _read_or_open(path: Path, length: int) -> bytes | tuple[BinaryIO, int]:
    """A small file's bytes, or a large one open with its length. StoreError where it is not as the ledger says."""
    try:
        with ExitStack() as opened:
            file = opened.enter_context(path.open("rb"))
            actual = os.fstat(file.fileno()).st_size
            if actual != length:
                raise StoreError(f"{path.name}: {actual} bytes, but the ledger says {length}")
            if length > _SMALL_FILE:
                opened.pop_all()
                return file, length
            body = file.read()
    except OSError as error:
        raise StoreError(f"{path.name}: {error.strerror}") from error
    if len(body) != length:
        raise StoreError(f"{path.name}: {len(body)} bytes, but the ledger says {length}")
    return body


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
