"""The server: routes of both dialects, made from the endpoint table, over one mirror."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from mirror.archive.dialects import NBIA_PREFIX, TCIA_PREFIX
from mirror.archive.endpoints import ENDPOINTS, DialectName, Endpoint
from mirror.archive.older import OLDER
from mirror.ledger import Catalogue
from mirror.serve.answers import Answers
from mirror.serve.counting import Desk
from mirror.serve.formats import describe
from mirror.serve.gate import Gate, name_no_software
from mirror.serve.guests import add_guest_routes, guest_paths
from mirror.serve.heads import Heads
from mirror.serve.openapi import Call, Published
from mirror.serve.page import add_page
from mirror.serve.parameters import fault
from mirror.serve.retriever import add_retriever_routes, retriever_paths
from mirror.serve.served import Served
from mirror.settings import ServeSettings

#: The tcia engine answered under two versions alike, and clients ask either.
_PREFIXES: tuple[tuple[DialectName, str], ...] = (
    ("nbia", NBIA_PREFIX),
    ("tcia", TCIA_PREFIX),
    ("tcia", TCIA_PREFIX.replace("/v4/", "/v3/")),
)
_SHARED = "../../SharedList/query/"
_LARGEST_FORM = 16 * 1024 * 1024


def make_app(
    root: Path,
    settings: ServeSettings | None = None,
    middlewares: Sequence[Middleware] = (),
    desk: Desk | None = None,
) -> web.Application:
    """The application that serves the mirror at `root`. Raises SettingsError where there is no mirror.

    A running sync may write the same mirror: what is complete shows as soon as the ledger says so. `desk`: this is one
    of several workers.
    """
    settings = settings or ServeSettings()
    Catalogue(root).close()
    served = Served(root, settings)
    gate = Gate(served, desk)
    app = web.Application(middlewares=[gate.middleware, *middlewares], client_max_size=_LARGEST_FORM)
    answers = Answers(served)
    heads = Heads(open_to_all=not served.rights.are_needed)
    # Behind a proxy that passes the path on as it came, and behind one that takes its own part off.
    for below in dict.fromkeys(("", urlsplit(settings.base_url).path.rstrip("/"))):
        calls = _add_calls(app.router, below, answers, heads)
        # The same document at each: its paths are below where it is itself.
        published = Published(
            [(d, e, path.removeprefix(below)) for d, e, path in calls], guest_paths() | retriever_paths()
        )
        published.add_routes(app.router, below)
        app.router.add_get(below + "/healthz", served.health)
        app.router.add_get(below + "/readyz", served.readiness)
        app.router.add_get(below + "/metrics", gate.counting.metrics)
        add_page(app, served, below)
    app.on_response_prepare.append(name_no_software)
    app.on_response_prepare.append(served.tell_source)
    app.on_response_prepare.append(heads.tell)
    app.on_shutdown.append(served.begin_stop)
    app.on_startup.append(gate.counting.open)
    app.on_cleanup.append(gate.counting.close)
    app.on_cleanup.append(served.close)
    return app


def _add_calls(router: web.UrlDispatcher, below: str, answers: Answers, heads: Heads) -> list[Call]:
    calls: list[Call] = []
    for endpoint in ENDPOINTS.values():
        for dialect, prefix in _PREFIXES:
            if (path := endpoint.path(dialect)) is not None:
                path = below + urljoin(prefix, path)
                router.add_route("*", path, heads.call(dialect, endpoint, answers.answer))
                calls.append((dialect, endpoint, path))
                if dialect == "tcia":
                    router.add_get(path + "/metadata", partial(_metadata, endpoint))
    for path, endpoint in OLDER.items():
        path = below + urljoin(NBIA_PREFIX, path)
        router.add_route("*", path, heads.call("nbia", endpoint, answers.answer))
        calls.append(("nbia", endpoint, path))
    add_guest_routes(router, below)
    add_retriever_routes(router, below)
    for dialect, prefix in _PREFIXES:
        for folder in ("", _SHARED) if dialect == "tcia" else ("",):
            router.add_route("*", below + urljoin(prefix, folder) + "{call:.*}", partial(_no_such_call, dialect))
    return calls


async def _metadata(endpoint: Endpoint, request: web.Request) -> web.Response:
    return web.Response(body=msgspec.json.encode(describe(endpoint)), content_type="application/json")


async def _no_such_call(dialect: DialectName, request: web.Request) -> web.Response:
    call = request.match_info["call"].removesuffix("/metadata")
    detail = "HTTP 404 Not Found" if dialect == "nbia" else f"QueryEndpoint [{call}] not found"
    return fault(dialect, detail).response()
