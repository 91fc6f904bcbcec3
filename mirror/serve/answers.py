"""What a call is answered with: rows, a file, a zip or a digest, of what is held.

Hides HTTP: headers, streaming and threads. Promises that the loop never blocks (the ledger and the files are read in
threads), that memory does not grow with an answer, and that what cannot be sent whole is never made to look whole: the
status says so, or the connection is cut.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from itertools import chain, islice

import anyio
import anyio.to_thread
from aiohttp import web

from mirror.archive.endpoints import Answer, DialectName, Endpoint
from mirror.errors import MirrorError
from mirror.serve.bodies import Bodies, Part
from mirror.serve.formats import Pieces, encode_rows, find_format
from mirror.serve.objects import Objects
from mirror.serve.parameters import SERVER_FAULT, Refusal, busy, denial, fault, read_params
from mirror.serve.queries import hierarchy_digest, rows_of, wire_rows
from mirror.serve.searching import send_search
from mirror.serve.served import Served
from mirror.serve.zipping import series_members, zip_batches

_LOG = logging.getLogger(__name__)

#: Pieces of an answer (rows, mostly) that are made in one go; a shorter answer is sent with its length.
_BATCH = 2000
#: Seconds that a request waits for room for a zip.
_PATIENCE = 30
_NO_SUCH_ROW = "java.lang.IndexOutOfBoundsException: Index: 0, Size: 0"


class Answers:
    """The calls of both dialects, answered from one mirror."""

    def __init__(self, served: Served) -> None:
        settings = served.settings
        self._served = served
        self._bodies = Bodies(settings.progress_timeout, compress=settings.compress)
        self._objects = Objects(served)
        #: Threads that make parts of zips, so that the small calls keep theirs; and how many zips there may be.
        self._zips = anyio.CapacityLimiter(settings.zips)
        self._rooms = anyio.Semaphore(settings.zips)

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
                    return await self._send_digest(endpoint, request, params)
                case Answer.MANIFEST | Answer.SEARCH:
                    return await send_search(self._served, self._bodies, endpoint, request, params)
        except Refusal as refusal:
            return refusal.response()
        except MirrorError as error:
            _LOG.warning("%s: %s", endpoint.name, error)
            return fault(dialect, type(error).__name__).response()  # the message names paths; it is for the log

    async def _send_rows(
        self, dialect: DialectName, endpoint: Endpoint, request: web.Request, params: dict[str, str]
    ) -> web.StreamResponse:
        form, headers = find_format(endpoint, dialect, params.pop("format", None))
        async with self._served.catalogue(request) as catalogue:

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
                return await self._bodies.whole(request, body, headers if body else None)
            with closing(pieces):
                within = self._served.settings.list_timeout
                return await self._bodies.stream(
                    request, headers, [body], partial(_part, pieces), pack=True, within=within
                )

    async def _send_file(
        self, dialect: DialectName, request: web.Request, params: dict[str, str]
    ) -> web.StreamResponse:
        uid = params["SOPInstanceUID"]
        found = await self._objects.find(request, uid, params["SeriesInstanceUID"])
        if found is None:
            raise fault(dialect, "null" if dialect == "nbia" else _NO_SUCH_ROW)
        headers = {"Content-Type": "application/dicom", "Content-Disposition": f"attachment; filename={uid}.dcm"}
        with closing(found.file):
            return await self._bodies.file(request, found, headers)

    async def _send_zip(
        self, dialect: DialectName, endpoint: Endpoint, request: web.Request, params: dict[str, str]
    ) -> web.StreamResponse:
        uid = params["SeriesInstanceUID"]
        async with self._zip_room(dialect):
            # Let go of before the zip is sent: the ledger's log would grow for as long as that takes.
            async with self._served.catalogue(request) as catalogue:
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
            plain = request.headers.get("Accept-Encoding", "").strip().lower() == "identity"
            batches = zip_batches(members, stored=plain or self._served.settings.zip_method == "stored")

            def more() -> tuple[list[Part], bool]:
                batch = next(batches, None)
                return batch or [], batch is None

            with closing(members), closing(batches):
                # May raise while the status is not sent.
                first, _ = await anyio.to_thread.run_sync(more, limiter=self._zips)
                return await self._bodies.stream(request, headers, first, more, limiter=self._zips)

    @asynccontextmanager
    async def _zip_room(self, dialect: DialectName) -> AsyncIterator[None]:
        """Room for one more zip. Raises Refusal where none ends for a while: the client comes again."""
        with anyio.move_on_after(_PATIENCE) as waiting:
            await self._rooms.acquire()
        if waiting.cancelled_caught:
            raise busy(dialect, _PATIENCE)
        try:
            yield
        finally:
            self._rooms.release()

    async def _send_digest(self, endpoint: Endpoint, request: web.Request, params: dict[str, str]) -> web.Response:
        async with self._served.catalogue(request) as catalogue:

            def find() -> str | None:
                if endpoint.name == "getMD5Hierarchy":
                    return hierarchy_digest(catalogue, params)
                row = catalogue.instance(params.get("SOPInstanceUID", ""))
                return None if row is None else str(row["md5"])

            digest = await anyio.to_thread.run_sync(find)
        return web.Response(body=(digest or "").encode(), headers={"Content-Type": "text/plain"})


def _part(pieces: Iterator[bytes]) -> tuple[list[Part], bool]:
    body, last = _batch(pieces)
    return [body], last


def _batch(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    """The next part of a body, and whether it is the last."""
    parts = list(islice(pieces, _BATCH))
    return b"".join(parts), len(parts) < _BATCH
