"""What every request passes: how many there may be at a time, what is counted of them, and what no answer tells.

Hides the access log's line, and that the server's software is nobody's business.
"""

from __future__ import annotations

import logging
import time

from aiohttp import web
from aiohttp.typedefs import Handler

from mirror.archive.endpoints import ENDPOINTS, DialectName
from mirror.archive.older import OLDER
from mirror.serve.bodies import sent_of
from mirror.serve.counting import Counting, Desk
from mirror.serve.parameters import busy
from mirror.serve.rights import ASK
from mirror.serve.served import Served

_ACCESS = logging.getLogger("access")
#: The last part of a path -> the call, for what is counted: made-up ones must not make counters.
_CALLS = {
    path.rpartition("/")[2]: endpoint.name
    for endpoint in (*OLDER.values(), *ENDPOINTS.values())
    for path in (endpoint.nbia, endpoint.tcia)
    if path
}
#: What is answered however much there is to do: who watches the server must see that it lives.
_WATCHED = frozenset({"/healthz", "/readyz", "/metrics"})
_AGAIN = 2


class Gate:
    """Counts requests, and sends away those beyond `served.settings.requests` and those without rights."""

    def __init__(self, served: Served, desk: Desk | None = None) -> None:
        self._served = served
        self._log = served.settings.access_log
        self._now = 0
        self.counting = Counting(lambda: self._now, desk)

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
                self.counting.refuse()
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
            self.counting.note(call, status, seconds, size)
            if self._log:
                # The query may name patients' series, which the log's readers may see; a token never stands in it.
                _ACCESS.info(
                    "%s %s %s %d %d %.3f", request.remote, request.method, request.raw_path, status, size, seconds
                )


async def name_no_software(request: web.Request, response: web.StreamResponse) -> None:
    """The Server header says what serves, and not by which version of what."""
    response.headers["Server"] = "tcia-mirror"


def _dialect(request: web.Request) -> DialectName:
    return "nbia" if "/nbia-api/" in request.path else "tcia"


def _length(request: web.Request, response: web.StreamResponse) -> int:
    body = getattr(response, "body", None)
    return len(body) if isinstance(body, bytes) and request.method != "HEAD" else 0
