"""What is counted of requests, and /metrics, which tells it for all workers whichever of them is asked.

Hides Prometheus' formats, and that workers tell each other by sockets in a folder of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from aiohttp import web
from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

_LOG = logging.getLogger(__name__)
_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0)
#: Seconds that another worker has to tell what it has counted.
_PATIENCE = 2.0


class Desk(Struct, frozen=True):
    """Where the workers of one server tell each other what they count, if anywhere, and which of them this is."""

    folder: Path | None
    number: int


class Counting:
    """The counters of one process. `in_flight` tells how many requests are being answered."""

    def __init__(self, in_flight: Callable[[], int], desk: Desk | None) -> None:
        self._desk = desk
        self._server: asyncio.Server | None = None
        self._registry = registry = CollectorRegistry()
        name = "tcia_mirror_serve_"
        self._seconds = Histogram(
            f"{name}request_seconds", "Seconds from a request to the end of its answer.", ["call"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._requests = Counter(f"{name}requests", "Requests answered.", ["call", "status"], registry=registry)
        self._bytes = Counter(f"{name}body_bytes", "Bytes of the bodies sent.", ["call"], registry=registry)
        self._busy = Counter(f"{name}refused_busy", "Requests sent away with 503.", registry=registry)
        self._counters: dict[tuple[str, int], tuple[Histogram, Counter, Counter]] = {}
        Gauge(f"{name}in_flight", "Requests being answered.", registry=registry).set_function(in_flight)

    def note(self, call: str, status: int, seconds: float, size: int) -> None:
        """A request was answered, by so many bytes of body."""
        # Finding a counter by its labels takes several times as long as counting.
        counters = self._counters.get((call, status))
        if counters is None:
            counters = self._seconds.labels(call), self._requests.labels(call, str(status)), self._bytes.labels(call)
            self._counters[call, status] = counters
        took, answered, sent = counters
        took.observe(seconds)
        answered.inc()
        sent.inc(size)

    def refuse(self) -> None:
        """A request was sent away because there are too many."""
        self._busy.inc()

    async def open(self, app: web.Application) -> None:
        """Tell the other workers from now on."""
        if self._desk is None or self._desk.folder is None:
            return
        path = _path(self._desk.folder, self._desk.number)
        path.unlink(missing_ok=True)  # of the one whose place this is
        try:
            self._server = await asyncio.start_unix_server(self._tell, path)
        except OSError as error:
            # A name that is too long for a socket, mostly.
            _LOG.warning("/metrics will lack this worker where another is asked: %s: %s", path, error)

    async def close(self, app: web.Application) -> None:
        """Tell no more."""
        if self._server is not None:
            self._server.close()

    async def metrics(self, request: web.Request) -> web.Response:
        """What was counted, in Prometheus' text format; of several workers each by its label."""
        body = generate_latest(self._registry)
        if self._desk is not None:
            texts = {self._desk.number: body} | await _others(self._desk)
            body = generate_latest(_Labelled(texts))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(generate_latest(self._registry))
            await writer.drain()
        writer.close()


class _Labelled:
    """The metrics of several workers, each sample with its worker's number."""

    def __init__(self, texts: dict[int, bytes]) -> None:
        self._texts = texts

    def collect(self) -> Sequence[Metric]:
        """For `generate_latest`."""
        told: dict[str, Metric] = {}
        for number, text in sorted(self._texts.items()):
            for family in text_string_to_metric_families(text.decode()):
                metric = told.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    metric.add_sample(sample.name, {**sample.labels, "worker": str(number)}, sample.value)
        return list(told.values())


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number}.sock"


async def _others(desk: Desk) -> dict[int, bytes]:
    """What the other workers have counted; one that is being replaced has nothing to tell."""
    if (folder := desk.folder) is None:
        return {}
    numbers = [int(path.stem) for path in folder.glob("*.sock") if int(path.stem) != desk.number]

    async def ask(number: int) -> bytes:
        reader, writer = await asyncio.open_unix_connection(_path(folder, number))
        try:
            return await reader.read()
        finally:
            writer.close()

    async def ask_in_time(number: int) -> bytes:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await ask(number)
        except (OSError, TimeoutError) as error:
            _LOG.warning("/metrics lacks worker %d: %s", number, error or "it does not answer")
            return b""

    return dict(zip(numbers, await asyncio.gather(*map(ask_in_time, numbers)), strict=True))
