"""What the page asks of the server. Hides that no answer is ever longer than a page, and who may load what."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from mirror.headers import read_tags
from mirror.ledger.browsing import Browsing
from mirror.manifest import write_tcia
from mirror.serve.page.pixels import NoPreview, Renderer
from mirror.serve.rights import ASK, EVERYTHING
from mirror.serve.served import Served

_T = TypeVar("_T")
_STATIC = Path(__file__).parent / "static"
_FILES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_PAGE, _MOST_TAGS, _MOST_TEXT = 50, 2000, 400
_ANSWERS = (
    "collections", "patients", "series", "one", "instances", "tags", "preview", "manifest", "runs", "run", "events",
)  # fmt: skip
_RUN = re.compile(r"[A-Za-z0-9T:_-]{1,80}")
#: Seconds for which the figures of all collections are believed, which are read from every series' row.
_FRESH = 30.0
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def add_page(app: web.Application, served: Served, below: str) -> None:
    """Add `GET /` and what it needs, below that path, to an application that serves a mirror.

    It shows all that the mirror holds: where there are tokens, only who may see everything sees the page.
    """
    page = _Page(served)
    routes = {"/": page.index, "/_page/static/{name}": page.static}
    routes |= {f"/_page/{name}": getattr(page, name) for name in _ANSWERS}
    for path, handler in routes.items():
        app.router.add_get(below + path, page.guarded(handler))


class _Page:
    """The page's answers over one mirror."""

    def __init__(self, served: Served) -> None:
        self._root = served.root
        self._rights = served.rights
        self._renderer = Renderer()
        self._figures: tuple[float, list[dict[str, Any]]] = (-_FRESH, [])
        self._counting = anyio.Lock()

    def guarded(self, handler: Handler) -> Handler:
        """The handler, for who may see everything."""

        async def guard(request: web.Request) -> web.StreamResponse:
            if self._rights.open_to(request.headers.get("Authorization")) != EVERYTHING:
                return web.Response(status=401, text="A token that opens everything is needed\n", headers=ASK)
            return await handler(request)

        return guard

    async def _ask(self, question: Callable[[Browsing], _T]) -> _T:
        def look() -> _T:
            with Browsing(self._root) as browsing:
                return question(browsing)

        return await anyio.to_thread.run_sync(look)

    async def index(self, request: web.Request) -> web.StreamResponse:
        return _file("index.html", "text/html")

    async def static(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in _FILES:
            raise web.HTTPNotFound
        return _file(name, _FILES[name])

    async def collections(self, request: web.Request) -> web.Response:
        async with self._counting:
            at, figures = self._figures
            if time.monotonic() - at >= _FRESH:
                figures = await self._ask(lambda browsing: browsing.figures())
                self._figures = (time.monotonic(), figures)
        return _json(figures)

    async def patients(self, request: web.Request) -> web.Response:
        asked = request.query
        args = asked.get("collection", ""), asked.get("contains", ""), asked.get("after", "")
        return _json(await self._ask(lambda browsing: browsing.patients_page(*args, _PAGE)))

    async def series(self, request: web.Request) -> web.Response:
        asked = request.query
        after = asked.get("study", ""), int(asked.get("id", "0")) if asked.get("id", "0").isdecimal() else 0
        args = asked.get("collection", ""), asked.get("patient", ""), after
        return _json(await self._ask(lambda browsing: browsing.series_page(*args, _PAGE)))

    async def one(self, request: web.Request) -> web.Response:
        row = await self._ask(lambda browsing: browsing.one_series(request.query.get("uid", "")))
        if row is None:
            raise web.HTTPNotFound(text="There is no such series here.")
        return _json(row)

    async def instances(self, request: web.Request) -> web.Response:
        args = request.query.get("uid", ""), request.query.get("after", "")
        return _json(await self._ask(lambda browsing: browsing.instances_page(*args, _PAGE)))

    async def tags(self, request: web.Request) -> web.Response:
        path = await self._path(request)

        def read() -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = []
            with path.open("rb") as file:
                for row in read_tags(file):
                    if len(rows) == _MOST_TAGS:
                        break
                    rows.append({**row, "data": row["data"][:_MOST_TEXT]})
            return rows

        try:
            return _json(await anyio.to_thread.run_sync(read))
        except Exception as error:  # what pydicom raises for a file that it cannot read is of many kinds
            raise web.HTTPUnprocessableEntity(text="The header of this file cannot be read.") from error

    async def preview(self, request: web.Request) -> web.Response:
        path = await self._path(request)
        frame = request.query.get("frame", "0")
        try:
            body, frames = await self._renderer.render(path, int(frame) if frame.isdecimal() else 0)
        except NoPreview as error:
            raise web.HTTPUnprocessableEntity(text=str(error)) from error
        return web.Response(body=body, content_type="image/png", headers={**_HEADERS, "X-Frames": str(frames)})

    async def _path(self, request: web.Request) -> Path:
        args = request.query.get("instance", ""), request.query.get("uid", "")
        row = await self._ask(lambda browsing: browsing.instance(*args))
        if row is None:
            raise web.HTTPNotFound(text="There is no such instance here.")
        return self._root / str(row["path"])

    async def manifest(self, request: web.Request) -> web.Response:
        row = await self._ask(lambda browsing: browsing.one_series(request.query.get("uid", "")))
        if row is None:
            raise web.HTTPNotFound(text="There is no such series here.")
        here = f"{request.scheme}://{request.host}/nbia-api/services/v4/"
        text = io.StringIO()
        write_tcia([row["uid"]], text, name=row["uid"], server=here)
        return web.Response(
            text=text.getvalue(), headers={**_HEADERS, "Content-Disposition": 'attachment; filename="series.tcia"'}
        )

    async def runs(self, request: web.Request) -> web.Response:
        folder = self._root / ".mirror" / "runs"

        before = request.query.get("before")

        def newest() -> list[dict[str, Any]]:
            names = sorted((path.stem for path in folder.glob("*.json")), reverse=True)
            return [_summary(folder, name) for name in [n for n in names if before is None or n < before][:_PAGE]]

        return _json(await anyio.to_thread.run_sync(newest))

    async def run(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        path = self._root / ".mirror" / "runs" / f"{name}.json"
        try:
            if not _RUN.fullmatch(name):
                raise FileNotFoundError
            return _json(json.loads(await anyio.to_thread.run_sync(path.read_bytes)))
        except (OSError, ValueError) as error:
            raise web.HTTPNotFound(text="There is no such run here.") from error

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Once a second whether the ledger is being written, and what is to do: a killed run is quiet at once."""
        answer = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        await answer.prepare(request)
        browsing = await anyio.to_thread.run_sync(Browsing, self._root)
        try:
            last = await anyio.to_thread.run_sync(browsing.written)
            while True:
                now = await anyio.to_thread.run_sync(browsing.written)
                to_do = await anyio.to_thread.run_sync(browsing.to_do)
                told = {"writing": now != last, "to_do": to_do}
                await answer.write(b"data: " + msgspec.json.encode(told) + b"\n\n")
                last = now
                await anyio.sleep(1)
        except ConnectionResetError:
            return answer
        finally:
            browsing.close()


def _summary(folder: Path, name: str) -> dict[str, Any]:
    """A run in a line; one whose report cannot be read has its name alone."""
    try:
        report = json.loads((folder / f"{name}.json").read_bytes())
        return {
            "run": name,
            "state": report["state"],
            "exit_code": report["exit_code"],
            "seconds": report["seconds"],
            "fetched": report["instances"]["fetched"],
            "bytes": report["bytes"]["fetched"],
            "findings": sum(report["findings_by_kind"].values()),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"run": name}


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", headers=_HEADERS)


def _file(name: str, kind: str) -> web.FileResponse:
    return web.FileResponse(_STATIC / name, headers={**_HEADERS, "Content-Type": f"{kind}; charset=utf-8"})
