"""Small servers on free ports of 127.0.0.1, and clients that ask them without waiting."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from fakes.clock import Clock
from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import NBIA_PREFIX, TCIA_PREFIX, find_server
from mirror.archive.endpoints import DialectName
from mirror.archive.pacing import Pace
from mirror.events import Event, EventSink, ignore
from mirror.settings import ArchiveSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_PREFIXES: dict[DialectName, str] = {"nbia": NBIA_PREFIX, "tcia": TCIA_PREFIX}


@asynccontextmanager
async def serving(handler: Handler, *, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Answer every request by `handler`; gives the origin."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        yield f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_raw(handler: RawHandler) -> AsyncIterator[str]:
    """Hand every connection to `handler`, below HTTP; gives the origin."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        connections.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


async def request_head(reader: asyncio.StreamReader) -> str:
    """The head of one request, for a raw handler."""
    return (await reader.readuntil(b"\r\n\r\n")).decode()


@asynccontextmanager
async def asking(
    origin: str,
    dialect: DialectName = "nbia",
    *,
    clock: Clock | None = None,
    token: str | None = None,
    sink: EventSink = ignore,
    **settings: object,
) -> AsyncIterator[ArchiveClient]:
    """A client of a server; with a clock it never waits for real, without one it waits next to nothing."""
    chosen = ArchiveSettings(**({"retry_wait": 0.001} | settings))  # type: ignore[arg-type] - checked where they are used
    async with ArchiveClient(find_server(origin + _PREFIXES[dialect]), chosen, token=token, sink=sink) as client:
        if clock is not None:
            client._line.pace = Pace(chosen, sink, clock.now, clock.sleep)
        yield client


class Events(list[Event]):
    """A sink that keeps all it is told."""

    def __call__(self, event: Event) -> None:
        self.append(event)
