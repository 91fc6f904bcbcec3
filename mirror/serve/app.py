"""The server: routes of both dialects, made from the endpoint table, over one mirror."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

import anyio
import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from mirror.archive.dialects import NBIA_PREFIX, TCIA_PREFIX
from mirror.archive.endpoints import ENDPOINTS, DialectName, Endpoint
from mirror.ledger import Catalogue
from mirror.serve.answers import Answers
from mirror.serve.formats import describe
from mirror.serve.page import add_page
from mirror.serve.parameters import fault
from mirror.serve.served import Served

_PREFIXES: dict[DialectName, str] = {"nbia": NBIA_PREFIX, "tcia": TCIA_PREFIX}
_LARGEST_FORM = 16 * 1024 * 1024


def make_app(root: Path, middlewares: Sequence[Middleware] = ()) -> web.Application:
    """The application that serves the mirror at `root`. Raises SettingsError where there is no mirror.

    A running sync may write the same mirror: what is complete shows as soon as the ledger says so.
    """
    Catalogue(root).close()
    app = web.Application(middlewares=middlewares, client_max_size=_LARGEST_FORM)
    served = Served(root)
    answers = Answers(served)
    for endpoint in ENDPOINTS.values():
        for dialect, prefix in _PREFIXES.items():
            if (path := endpoint.path(dialect)) is not None:
                app.router.add_route("*", urljoin(prefix, path), partial(answers.answer, dialect, endpoint))
                if dialect == "tcia":
                    app.router.add_get(urljoin(prefix, path) + "/metadata", partial(_metadata, endpoint))
    for dialect, prefix in _PREFIXES.items():
        app.router.add_route("*", prefix + "{call:.*}", partial(_no_such_call, dialect))
    app.router.add_get("/healthz", served.health)
    add_page(app, root)
    app.on_cleanup.append(served.close)
    return app


async def serve(
    root: Path,
    host: str,
    port: int,
    *,
    ready: Callable[[str], None] | None = None,
    stop: anyio.Event | None = None,
) -> None:
    """Serve the mirror at `root` until `stop` is set or the task is cancelled. Port 0 takes a free one.

    `ready` is told the server's base URL once it listens. Raises SettingsError where there is no mirror, and
    OSError where the address cannot be had.
    """
    runner = web.AppRunner(make_app(root), shutdown_timeout=5.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        if ready is not None:
            name = f"[{host}]" if ":" in host else host
            ready(f"http://{name}:{runner.addresses[0][1]}")
        if stop is not None:
            await stop.wait()
        else:
            await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


async def _metadata(endpoint: Endpoint, request: web.Request) -> web.Response:
    return web.Response(body=msgspec.json.encode(describe(endpoint)), content_type="application/json")


async def _no_such_call(dialect: DialectName, request: web.Request) -> web.Response:
    call = request.match_info["call"]
    detail = "HTTP 404 Not Found" if dialect == "nbia" else f"QueryEndpoint [{call}] not found"
    return fault(dialect, detail).response()
