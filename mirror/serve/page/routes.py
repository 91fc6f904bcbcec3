"""What the page asks of the server. Hides that no answer is ever longer than a page, and who may load what."""

from __future__ import annotations

import io
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from mirror.archive.dialects import NBIA_PREFIX
from mirror.headers import read_tags
from mirror.ledger.browsing import Browsing
from mirror.live import read_live
from mirror.manifest import write_tcia
from mirror.serve.page.pixels import NoPreview, Renderer, Window
from mirror.serve.rights import ASK, EVERYTHING
from mirror.serve.served import Served

_T = TypeVar("_T")
_STATIC = Path(__file__).parent / "static"
_FILES = {"page.css": "text/css", "icon.svg": "image/svg+xml"} | dict.fromkeys(
    ("page.js", "parts.js", "series.js", "runs.js"), "text/javascript"
)
_PAGE, _FOUND, _MOST_TAGS, _MOST_TEXT = 50, 10, 2000, 400
#: Answers for who may see something, of what they may see, and for who may see everything.
_OF_CONTENT = (
    "rights", "collections", "patients", "series", "search", "unfinished", "find", "one", "instances", "tags",
    "preview", "manifest",
)  # fmt: skip
_OF_OPERATION = ("runs", "run", "events")
#: A number that SQLite takes.
_NUMBER = re.compile(r"-?[0-9]{1,18}")
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

    It shows who asks what they may see; of runs it tells only who may see everything.
    """
    page = _Page(served)
    routes: dict[str, Handler] = {"/": page.index, "/_page/static/{name}": page.static}
    routes |= {f"/_page/{name}": getattr(page, name) for name in _OF_CONTENT}
    routes |= {f"/_page/{name}": page.guarded(getattr(page, name)) for name in _OF_OPERATION}
    for path, handler in routes.items():
        app.router.add_get(below + path, handler)


class _Page:
    """The page's answers over one mirror."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._root = served.root
        self._rights = served.rights
        self._renderer = Renderer()
        #: By what is open to who asks: tokens are not many.
        self._figures: dict[tuple[str, ...], tuple[float, list[dict[str, Any]]]] = {}
        self._counting = anyio.Lock()

    def guarded(self, handler: Handler) -> Handler:
        """The handler, for who may see everything."""

        async def guard(request: web.Request) -> web.StreamResponse:
            if self._open_to(request) != EVERYTHING:
                return web.Response(status=401, text="A token that opens everything is needed\n", headers=ASK)
            return await handler(request)

        return guard

    def _open_to(self, request: web.Request) -> tuple[str, ...]:
        return self._rights.open_to(request.headers.get("Authorization")) or ()

    async def _ask(self, request: web.Request, question: Callable[[Browsing], _T], *, steps: bool = False) -> _T:
        return await anyio.to_thread.run_sync(partial(self._served.ask, request, question, steps=steps))

    async def index(self, request: web.Request) -> web.StreamResponse:
        """The page; with `?sign-in`, a browser asks for a token first, which it then brings wherever it goes."""
        if "sign-in" in request.query:
            if self._is_nobody(request):
                return web.Response(status=401, text="A token is needed\n", headers={**_HEADERS, **ASK})
            raise web.HTTPFound("./", headers=_HEADERS)
        return _file("index.html", "text/html")

    async def static(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in _FILES:
            raise web.HTTPNotFound
        return _file(name, _FILES[name])

    async def rights(self, request: web.Request) -> web.Response:
        sign_in = self._rights.are_needed and self._is_nobody(request)
        return _json({"everything": self._open_to(request) == EVERYTHING, "sign_in": sign_in})

    def _is_nobody(self, request: web.Request) -> bool:
        """Whether who asks sees no more than who brings no token."""
        return self._rights.open_to(request.headers.get("Authorization")) == self._rights.open_to(None)

    async def collections(self, request: web.Request) -> web.Response:
        async with self._counting:
            opens = self._open_to(request)
            at, figures = self._figures.get(opens, (-_FRESH, []))
            if time.monotonic() - at >= _FRESH:
                figures = await self._ask(request, Browsing.figures, steps=True)
                self._figures[opens] = time.monotonic(), figures
        return _json(figures)

    async def patients(self, request: web.Request) -> web.Response:
        asked = request.query
        args = asked.get("collection", ""), asked.get("contains", ""), asked.get("after", "")
        return _json(await self._ask(request, lambda browsing: browsing.patients_page(*args, _PAGE)))

    async def series(self, request: web.Request) -> web.Response:
        asked = request.query
        args = asked.get("collection", ""), asked.get("patient", ""), (asked.get("study", ""), _number(asked, "id"))
        return _json(await self._ask(request, lambda browsing: browsing.series_page(*args, _PAGE)))

    async def search(self, request: web.Request) -> web.Response:
        """Series found in one step, and behind which `id` the next step goes on; null: that was all."""
        asked = request.query
        args = asked.get("collection", ""), asked.get("words", ""), _number(asked, "id")
        rows, after = await self._ask(request, lambda browsing: browsing.search_step(*args, _PAGE))
        return _json({"rows": rows, "after": after})

    async def unfinished(self, request: web.Request) -> web.Response:
        args = request.query.get("collection", ""), _number(request.query, "id")
        return _json(await self._ask(request, lambda browsing: browsing.unfinished_page(*args, _PAGE)))

    async def find(self, request: web.Request) -> web.Response:
        text = request.query.get("text", "").strip()
        return _json(await self._ask(request, lambda browsing: browsing.find(text, _FOUND), steps=True))

    async def one(self, request: web.Request) -> web.Response:
        return _json(await self._one(request))

    async def _one(self, request: web.Request) -> dict[str, Any]:
        row = await self._ask(request, lambda browsing: browsing.one_series(request.query.get("uid", "")))
        if row is None:
            raise web.HTTPNotFound(text="There is no such series here.")
        return row

    async def instances(self, request: web.Request) -> web.Response:
        """`after` and `number`: the UID and InstanceNumber of the last one known, the latter missing if it has none."""
        asked = request.query
        after = None
        if uid := asked.get("after"):
            after = (int(asked["number"]) if _NUMBER.fullmatch(asked.get("number", "")) else None), uid
        series = asked.get("uid", "")
        return _json(await self._ask(request, lambda browsing: browsing.instances_page(series, after, _PAGE)))

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
        """A frame as a PNG; X-Preview tells of its file as JSON: how many frames, which windows."""
        path = await self._path(request)
        try:
            picture = await self._renderer.render(path, _number(request.query, "frame"), _window(request.query))
        except NoPreview as error:
            raise web.HTTPUnprocessableEntity(text=str(error)) from error
        about = {"frames": picture.frames, "windows": picture.windows, "window": picture.window}
        told = json.dumps(msgspec.to_builtins(about))  # a header is ASCII
        return web.Response(
            body=picture.png,
            content_type="image/png",
            headers={**_HEADERS, "X-Preview": told},
        )

    async def _path(self, request: web.Request) -> Path:
        args = request.query.get("instance", ""), request.query.get("uid", "")
        row = await self._ask(request, lambda browsing: browsing.instance(*args))
        if row is None:
            raise web.HTTPNotFound(text="There is no such instance here.")
        return self._root / str(row["path"])

    async def manifest(self, request: web.Request) -> web.Response:
        row = await self._one(request)
        base = self._served.settings.base_url.rstrip("/") or f"{request.scheme}://{request.host}"
        here = base + NBIA_PREFIX
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
        """Once a second what a run at work says of itself (mirror.live), whether it still speaks, whether anything
        writes to the ledger, and how many series are still to do: a killed run is quiet at once.
        """
        answer = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        await answer.prepare(request)
        browsing = await anyio.to_thread.run_sync(Browsing, self._root)
        last = None

        def look() -> tuple[dict[str, Any], int]:
            told, is_there = read_live(self._root) or (None, False)
            return {"live": told, "is_there": is_there, "to_do": browsing.to_do()}, browsing.written()

        try:
            while True:
                words, written = await anyio.to_thread.run_sync(look)
                words["writing"] = last not in (None, written)
                await answer.write(b"data: " + msgspec.json.encode(words) + b"\n\n")
                last = written
                await anyio.sleep(1)
        except ConnectionResetError:
            return answer
        finally:
            browsing.close()


def _number(asked: Mapping[str, str], name: str) -> int:
    """A number that is none is 0: what is asked for by hand is answered by the first page."""
    text = asked.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) and not text.startswith("-") else 0


def _window(asked: Mapping[str, str]) -> Window | None:
    """The window that is asked for; None where it is no window."""
    try:
        center, width = float(asked["center"]), float(asked["width"])
    except (KeyError, ValueError):
        return None
    return Window(center, width) if math.isfinite(center) and math.isfinite(width) and width > 0 else None


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
