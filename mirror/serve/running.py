"""The server as it runs: where it listens, by how many processes, and how it stops.

Hides worker processes, which share a port by SO_REUSEPORT so that the kernel deals the connections out. Promises that a
stop lets answers end that end soon, and that a worker that was lost is replaced.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
from aiohttp import web

from mirror.errors import MirrorError
from mirror.ledger import Catalogue
from mirror.processes import Processes, WorkerLost
from mirror.processes import serve as be_worker
from mirror.serve.app import make_app
from mirror.serve.counting import Desk
from mirror.serve.rights import Rights
from mirror.settings import ServeSettings

_LOG = logging.getLogger(__name__)

#: Seconds that answers may still take once a stop was asked for. Less than what a worker is given to end.
_GRACE = 8.0
#: Bytes of a request's first line, as many as the archive's server takes.
_LONGEST_LINE = 64 * 1024
#: A worker that is lost within so many seconds, so many times in a row, would be lost for ever.
_SOON, _OFTEN = 5.0, 5
_FORMAT = "tcia-mirror: %(name)s: %(message)s"

Ready = Callable[[str], None]
#: What a worker is told when it begins.
_Greeting = tuple[Path, ServeSettings, int, Desk]


async def serve(
    root: Path,
    settings: ServeSettings | None = None,
    *,
    ready: Ready | None = None,
    stop: anyio.Event | None = None,
) -> None:
    """Serve the mirror at `root` until `stop` is set or the task is cancelled. Port 0 takes a free one.

    `ready` is told the server's base URL once it listens: `settings.base_url`, or that of its address. Raises
    SettingsError where there is no mirror or the settings are not right, and OSError where the address cannot be had.
    """
    settings = settings or ServeSettings()
    Catalogue(root).close()
    Rights.read(settings.tokens_file)
    stop = stop or anyio.Event()
    _be_heard(settings)
    if settings.workers == 1:
        async with _listening(root, settings, settings.port) as port:
            _tell(ready, settings, port)
            await stop.wait()
        return
    with _port_held(settings) as port:
        await _lead(root, settings, port, stop, lambda: _tell(ready, settings, port))


def _tell(ready: Ready | None, settings: ServeSettings, port: int) -> None:
    if ready is not None:
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        ready(settings.base_url.rstrip("/") or f"http://{name}:{port}")


@asynccontextmanager
async def _listening(root: Path, settings: ServeSettings, port: int, *, desk: Desk | None = None) -> AsyncIterator[int]:
    """Answer requests inside the block, at the port that it gives. `desk`: other workers listen there too."""
    runner = web.AppRunner(
        make_app(root, settings, desk=desk), access_log=None, shutdown_timeout=_GRACE, max_line_size=_LONGEST_LINE
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, port, backlog=1024, reuse_port=True if desk else None).start()
        yield int(runner.addresses[0][1])
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


def _be_heard(settings: ServeSettings) -> None:
    """Let what went wrong be logged, and each request where that is asked for."""
    logging.getLogger("mirror.serve").setLevel(logging.WARNING)
    logging.getLogger("access").setLevel(logging.INFO if settings.access_log else logging.ERROR)


# Several processes


@contextmanager
def _port_held(settings: ServeSettings) -> Iterator[int]:
    """Inside the block the port is kept for the workers, by a socket that listens to nobody.

    Raises OSError where somebody else has the port, also by sharing it.
    """
    family, *_, address = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    if settings.port:
        with socket.socket(family) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
            alone.listen(1)
    with socket.socket(family) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
        yield int(held.getsockname()[1])


@contextmanager
def _common_folder() -> Iterator[Path | None]:
    """A folder for what the workers tell each other, gone with the block; none where there is nowhere to write."""
    with ExitStack() as left:
        try:
            folder = left.enter_context(TemporaryDirectory(prefix="tcia-mirror-"))
        except OSError as error:
            _LOG.warning("/metrics will tell of the worker that is asked alone: no temporary folder: %s", error)
            yield None
            return
        yield Path(folder)


async def _lead(root: Path, settings: ServeSettings, port: int, stop: anyio.Event, ready: Callable[[], None]) -> None:
    listening = 0
    failure: BaseException | None = None

    def one_more() -> None:
        nonlocal listening
        listening += 1
        if listening == settings.workers:
            ready()

    try:
        with _common_folder() as folder:
            async with anyio.create_task_group() as keepers:
                for number in range(settings.workers):
                    greeting = (root, settings, port, Desk(folder, number))
                    keepers.start_soon(_keep, greeting, stop, one_more)
    except* (OSError, MirrorError) as group:
        # One says what all of them would.
        failure = group.exceptions[0]
    if failure is not None:
        raise failure


async def _keep(greeting: _Greeting, stop: anyio.Event, listens: Callable[[], None]) -> None:
    """Have one worker at any time. Raises MirrorError where none lives for long, OSError where none can listen."""
    lost = 0
    while not stop.is_set():
        began = time.monotonic()
        async with Processes(1, _work, greeting) as worker:
            with suppress(WorkerLost):
                if (number := await worker.ask("listen")) is not None:
                    raise OSError(number, os.strerror(number))
                listens()
                await _either(stop, asyncio.ensure_future(worker.ask("be there")))
        if stop.is_set():
            return
        lost = lost + 1 if time.monotonic() - began < _SOON else 1
        _LOG.warning("a worker was lost; another takes its place")
        if lost >= _OFTEN:
            raise MirrorError(f"workers end as soon as they begin, {lost} times in a row; what they said is above")


async def _either(stop: anyio.Event, worker: asyncio.Future[Any]) -> None:
    """Wait for a stop, or the end of a worker. Raises WorkerLost for the latter."""
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({stopped, worker}, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            worker.result()
    finally:
        for waiting in (stopped, worker):
            waiting.cancel()


def _work(number: int) -> None:
    """What a worker process runs."""
    logging.getLogger().addHandler(logging.StreamHandler())
    logging.getLogger().handlers[-1].setFormatter(logging.Formatter(_FORMAT))
    be_worker(number, _begin)


@asynccontextmanager
async def _begin(greeting: _Greeting) -> AsyncIterator[Any]:
    root, settings, port, desk = greeting
    _be_heard(settings)
    listening = _listening(root, settings, port, desk=desk)
    begun = False

    async def handle(message: str) -> int | None:
        nonlocal begun
        if message == "listen":
            try:
                await listening.__aenter__()
            except OSError as error:
                return error.errno or errno.EIO
            begun = True
            return None
        await anyio.sleep_forever()
        return None

    try:
        yield handle
    finally:
        if begun:
            await listening.__aexit__(None, None, None)
