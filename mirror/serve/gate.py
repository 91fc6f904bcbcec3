"""What every request passes: how many there may be at a time, what is counted of them, and what no answer tells.

Hides the counters behind /metrics, the access log's line, and that the server's software is nobody's business.
"""

from __future__ import annotations

import logging
import time

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from mirror.archive.endpoints import ENDPOINTS, DialectName
from mirror.serve.bodies import sent_of
from mirror.serve.parameters import busy
from mirror.serve.rights import ASK
from mirror.serve.served import Served

_ACCESS = logging.getLogger("access")
#: The last part of a path -> the call, for what is counted: made-up ones must not make counters.
_CALLS = {
    path.rpartition("/")[2]: endpoint.name
    for endpoint in ENDPOINTS.values()
    for path in (endpoint.nbia, endpoint.tcia)
    if path
}
#: What is answered however much there is to do: who watches the server must see that it lives.
_WATCHED = frozenset({"/healthz", "/readyz", "/metrics"})
_AGAIN = 2
_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0)


class Gate:
    """Counts requests, and sends away those beyond `served.settings.requests` and those without rights."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._log = served.settings.access_log
        self._now = 0
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
        Gauge(f"{name}in_flight", "Requests being answered.", registry=registry).set_function(lambda: self._now)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request through, and note how it ended."""
        if request.path in _WATCHED:
            return await handler(request)
        began = time.perf_counter()
        status, size = 500, 0
        self._now += 1
        try:
            if self._now > self._served.settings.requests:
                self._busy.inc()
                response: web.StreamResponse = busy(_dialect(request), _AGAIN).response()
            elif self._served.rights.open_to(request.headers.get("Authorization")) is None:
                response = web.Response(status=401, text="A token is needed\n", headers=ASK)
            else:
                response = await handler(request)
            status, size = response.status, sent_of(request) or _length(request, response)
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            self._now -= 1
            seconds = time.perf_counter() - began
            call = _CALLS.get(request.path.rpartition("/")[2], "other")
            self._count(call, status, seconds, size)
            if self._log:
                # The query may name patients' series, which the log's readers may see; a token never stands in it.
                _ACCESS.info(
                    "%s %s %s %d %d %.3f", request.remote, request.method, request.raw_path, status, size, seconds
                )

    def _count(self, call: str, status: int, seconds: float, size: int) -> None:
        # Finding a counter by its labels takes several times as long as counting.
        counters = self._counters.get((call, status))
        if counters is None:
            counters = self._seconds.labels(call), self._requests.labels(call, str(status)), self._bytes.labels(call)
            self._counters[call, status] = counters
        took, answered, sent = counters
        took.observe(seconds)
        answered.inc()
        sent.inc(size)

    async def metrics(self, request: web.Request) -> web.Response:
        """What was counted, in Prometheus' text format."""
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def name_no_software(request: web.Request, response: web.StreamResponse) -> None:
    """The Server header says what serves, and not by which version of what."""
    response.headers["Server"] = "tcia-mirror"


def _dialect(request: web.Request) -> DialectName:
    return "nbia" if "/nbia-api/" in request.path else "tcia"


def _length(request: web.Request, response: web.StreamResponse) -> int:
    body = getattr(response, "body", None)
    return len(body) if isinstance(body, bytes) and request.method != "HEAD" else 0
