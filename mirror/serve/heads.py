"""What the archive's two servers say in the headers of their answers, besides what the body is.

The tcia server's engine tells with each answer of a call what the call takes and gives, and how long it took; both let
pages of any origin read them. Here that holds where no token is needed: who has one, and a browser that knows it, is
not to lend it to every page that is open.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import cache

import msgspec
from aiohttp import web

from mirror.archive.endpoints import DialectName, Endpoint
from mirror.serve.formats import describe

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer = Callable[[DialectName, Endpoint, web.Request], Awaitable[web.StreamResponse]]

#: Of a request: the tcia dialect's call that it asks, and when it came, in monotonic seconds.
_ASKED = web.RequestKey("asked", tuple[Endpoint, float])
#: The server's name alone: which engine it imitates, and not by which version of what.
_ENGINE = {"Bindaas-version": "tcia-mirror", "Vendor": "tcia-mirror"}
_ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}
_BEFORE = _ANY_ORIGIN | {
    "Access-Control-Allow-Methods": "GET, POST, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Accept",
}


class Heads:
    """Adds the headers. `open_to_all`: nobody needs a token."""

    def __init__(self, *, open_to_all: bool) -> None:
        self._open = open_to_all

    def call(self, dialect: DialectName, endpoint: Endpoint, answer: Answer) -> Handler:
        """The handler of a call, which answers by `answer`; a browser's question before the call is answered here."""

        async def handler(request: web.Request) -> web.StreamResponse:
            if self._open and request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                return web.Response(headers=_BEFORE)
            if dialect == "tcia":
                request[_ASKED] = (endpoint, time.monotonic())
            return await answer(dialect, endpoint, request)

        return handler

    async def tell(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add to an answer what its dialect's server would; for aiohttp's `on_response_prepare`."""
        headers = response.headers
        is_nbia = "/nbia-api/" in request.path
        is_tcia = not is_nbia and "/services/v" in request.path
        if self._open and (is_nbia or is_tcia):
            headers.update(_ANY_ORIGIN)
        if not is_tcia:
            return
        headers.update(_ENGINE)
        if response.status < 300 and (asked := request.get(_ASKED)) is not None:
            endpoint, began = asked
            headers["metadata"] = _described(endpoint)
            headers["tags"] = "[]"
            headers["responseTime"] = str(int((time.monotonic() - began) * 1000))


@cache
def _described(endpoint: Endpoint) -> str:
    return msgspec.json.encode(describe(endpoint)).decode("ascii")
