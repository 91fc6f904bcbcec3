"""Our server on a free port of 127.0.0.1, in a thread of its own: for clients that block."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import http_exceptions, web

from mirror.serve import make_app
from mirror.settings import ServeSettings


@contextmanager
def serving_in_a_thread(root: Path, **settings: Any) -> Iterator[str]:
    """Serve the mirror at `root`, nothing in front of it; `settings` are those of [serve]. Gives the origin."""
    ready = threading.Event()
    told: list[str] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(make_app(root, ServeSettings(**settings)), shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            told.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
            ready.set()
            await stop.wait()
        finally:
            await runner.cleanup()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(30)
        assert told, "the server did not start"
        yield told[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()


def unforeseen(records: Iterable[logging.LogRecord]) -> list[logging.LogRecord]:
    """What the server logged as an error, but for bytes that are no HTTP: aiohttp says so of each, and refuses them."""
    refused = (http_exceptions.HttpProcessingError,)
    return [
        record
        for record in records
        if record.levelno >= logging.ERROR
        and not (record.exc_info and record.exc_info[0] and issubclass(record.exc_info[0], refused))
    ]
