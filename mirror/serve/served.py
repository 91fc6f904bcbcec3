"""One mirror being served: its root, and the connections to its ledger that are not in use."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import anyio.to_thread
from aiohttp import web

from mirror.archive.exchange import SOURCE_HEADER
from mirror.errors import MirrorError
from mirror.ledger import Catalogue
from mirror.ledger.browsing import Browsing
from mirror.serve.rights import Rights
from mirror.settings import ServeSettings

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
#: For so long what a mirror says of its source is believed; it is in every answer, and hardly ever another.
_SOURCE_SECONDS = 60.0


class Served:
    """One mirror being served: its root, and the connections to its ledger that are not in use."""

    def __init__(self, root: Path, settings: ServeSettings) -> None:
        self.root = root
        self.settings = settings
        self.rights = Rights.read(settings.tokens_file)
        self._idle: list[Browsing] = []
        self._stopping = False
        self._source = ""
        self._source_until = 0.0

    async def close(self, app: web.Application) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()

    @asynccontextmanager
    async def catalogue(self, request: web.Request) -> AsyncIterator[Browsing]:
        """A catalogue for one request, used by one thread at a time, that shows what the request may see.

        It shows one moment, however many questions the answer takes and however long a client takes to read it.
        """
        catalogue = self._spare()
        if catalogue is None:
            catalogue = await anyio.to_thread.run_sync(self._open)
        try:
            with catalogue.snapshot():
                # What may not be seen is of the same moment: no collection comes up between the two.
                if self.rights.are_needed:
                    await anyio.to_thread.run_sync(catalogue.show_only, self._opens(request))
                yield catalogue
        except BaseException:
            catalogue.close()
            raise
        self._idle.append(catalogue)

    def ask(self, request: web.Request, question: Callable[[Browsing], T], *, steps: bool = False) -> T:
        """What the question gives, by a catalogue as in `catalogue`. Blocks; for any one thread.

        `steps`: it asks the ledger more than once, and all of it is to be of one moment.
        """
        catalogue = self._spare()
        if catalogue is None:
            catalogue = self._open()
        try:
            if not (self.rights.are_needed or steps):
                answer = question(catalogue)
            else:
                with catalogue.snapshot():
                    if self.rights.are_needed:
                        catalogue.show_only(self._opens(request))
                    answer = question(catalogue)
        except BaseException:
            catalogue.close()
            raise
        self._idle.append(catalogue)
        return answer

    def _opens(self, request: web.Request) -> tuple[str, ...]:
        return self.rights.open_to(request.headers.get("Authorization")) or ()

    def _spare(self) -> Browsing | None:
        # Threads take connections as well: between a look and a grip another may be quicker.
        with suppress(IndexError):
            return self._idle.pop()
        return None

    def _open(self) -> Browsing:
        return Browsing(self.root, incomplete=self.settings.incomplete, by_ingest=self.settings.by_ingest)

    async def tell_source(self, request: web.Request, response: web.StreamResponse) -> None:
        """Name in a header where the mirror has its content from: its server, that one's server, and so on."""
        if not self.settings.name_source:
            return
        if time.monotonic() >= self._source_until:
            self._source_until = time.monotonic() + _SOURCE_SECONDS
            # A mirror that cannot be read says so where it is asked for something.
            with suppress(MirrorError):
                self._source = await anyio.to_thread.run_sync(self._read_source)
        if self._source:
            response.headers[SOURCE_HEADER] = self._source

    def _read_source(self) -> str:
        with Catalogue(self.root) as catalogue:
            chain = catalogue.meta("server"), catalogue.meta("source_chain")
        # A server's name comes from settings: only what is a URL goes into a header.
        return ", ".join(name for name in chain if name and "://" in name and name.isprintable())

    async def begin_stop(self, app: web.Application) -> None:
        """Be ready no more: answers under way still end."""
        self._stopping = True

    async def readiness(self, request: web.Request) -> web.Response:
        """As `health`, and 503 as soon as a stop was asked for: for whoever sends requests here or elsewhere."""
        return web.Response(status=503, text="Stopping\n") if self._stopping else await self.health(request)

    async def health(self, request: web.Request) -> web.Response:
        """Whether the mirror can be read now, for whoever watches the server: 200, or 503 and the kind of error."""

        def look() -> None:
            with Catalogue(self.root) as catalogue:  # afresh: a connection that is open outlives the file
                catalogue.meta("layout")

        try:
            await anyio.to_thread.run_sync(look)
        except MirrorError as error:
            _LOG.warning("healthz: %s", error)
            return web.Response(status=503, text=f"{type(error).__name__}\n")
        return web.Response(text="ok\n")
