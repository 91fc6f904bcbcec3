"""Faults of a server as a whole: one that is gone, one that passes over what it does not know."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from fakes.faults import Asked, Fault


def ignoring(*names: str) -> Fault:
    """A server that does not know these parameters and passes over them."""

    async def fault(request: Asked) -> web.StreamResponse:
        params = {name: value for name, value in request.params.items() if name not in names}
        true = await replace(request, params=params).truth()
        return web.Response(status=true.status, body=true.body, headers=true.headers)

    return fault


def gone() -> Fault:
    """No server any more: the connection ends without an answer."""

    async def fault(request: Asked) -> web.StreamResponse:
        if request.request.transport is not None:
            request.request.transport.abort()
        return web.Response()

    return fault
