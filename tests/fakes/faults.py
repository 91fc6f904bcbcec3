"""Faults in front of a served mirror: rules that spoil the answers they match.

    archive.faults.add("getSingleImage", status(503, headers={"Retry-After": "1"}), times=2, SOPInstanceUID=uid)
    archive.faults.add("getImage", short_zip())            # for ever, for every series

Rules are tried in the order they were added; the first that matches and is not used up makes the answer. A fault
that needs the true answer asks the same server for it on another connection, past the rules: so it works alike
for rows, files by sendfile and zips made while they are sent.
"""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from mirror.archive.dialects import NBIA_PREFIX, find_endpoint
from mirror.errors import SettingsError

#: A request with this header is the fault layer's own and goes past it.
_PAST = "X-Past-The-Faults"
_HTML = b"<html><head><title>Maintenance</title></head><body><h1>We will be back soon.</h1></body></html>"


@dataclass(frozen=True)
class Truth:
    """The true answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Asked:
    """A request that a rule matched: its call (the endpoint table's name) and its parameters as sent."""

    request: web.Request
    handler: Handler
    call: str
    params: dict[str, str]

    async def truth(self, **other: str) -> Truth:
        """The true answer, or the one with other parameters."""
        url = str(self.request.url.origin()) + self.request.path
        params = self.params | other
        form = self.request.method == "POST"
        async with (
            aiohttp.ClientSession(headers={_PAST: "1"}) as session,
            session.request(
                self.request.method, url, data=params if form else None, params=None if form else params
            ) as answer,
        ):
            return Truth(answer.status, _end_to_end(answer.headers), await answer.read())


Fault = Callable[[Asked], Awaitable[web.StreamResponse]]


@dataclass
class Rule:
    """A fault, the call and parameters it is for, and how many more times; None: for ever."""

    call: str
    fault: Fault
    params: dict[str, str]
    left: int | None
    used: int = 0

    def matches(self, call: str, params: dict[str, str]) -> bool:
        return (
            self.left != 0
            and self.call in ("*", call)
            and all(params.get(name) == value for name, value in self.params.items())
        )


@dataclass
class Faults:
    """The rules, the record of what was asked, and the middleware that applies both."""

    rules: list[Rule] = field(default_factory=list)
    #: (call by the endpoint table's name, parameters as sent), in the order of arrival.
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    #: Requests being answered now, and the most there ever were.
    in_flight: int = 0
    most_in_flight: int = 0
    #: Called at every request's arrival, before anything of it is answered.
    watchers: list[Callable[[], None]] = field(default_factory=list)

    def at_request(self, number: int, act: Callable[[], object]) -> None:
        """Do this when the `number`th request from now on has arrived, before it is answered."""
        seen = 0

        def watch() -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                act()

        self.watchers.append(watch)

    def add(self, call: str, fault: Fault, *, times: int | None = None, **params: str) -> Rule:
        """Spoil the answers to `call` ("*": any) with these parameters, `times` times or for ever."""
        rule = Rule(call, fault, params, times)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Take all rules away, and what waits for a request."""
        self.rules.clear()
        self.watchers.clear()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if _PAST in request.headers:
            return await handler(request)
        call = _call_of(request)
        params = dict(request.query)
        if request.method == "POST":
            params |= {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append((call, params))
        for watch in self.watchers:
            watch()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            for rule in self.rules:
                if rule.matches(call, params):
                    rule.used += 1
                    if rule.left is not None:
                        rule.left -= 1
                    return await rule.fault(Asked(request, handler, call, params))
            return await handler(request)
        finally:
            self.in_flight -= 1


def _call_of(request: web.Request) -> str:
    name = request.path.rsplit("/", 1)[-1]
    try:
        return find_endpoint(name).name
    except SettingsError:
        return name


# When a fault strikes


def where(matches: Callable[[Asked], bool], fault: Fault) -> Fault:
    """The fault for what matches, the truth for the rest."""

    async def some(asked: Asked) -> web.StreamResponse:
        return await (fault(asked) if matches(asked) else asked.handler(asked.request))

    return some


def after(number: int, fault: Fault) -> Fault:
    """The truth so many times, then the fault."""
    seen = 0

    def late(asked: Asked) -> bool:
        nonlocal seen
        seen += 1
        return seen > number

    return where(late, fault)


# The faults


def status(code: int, body: str = "", headers: dict[str, str] | None = None) -> Fault:
    """Another status: 429 and 503 with Retry-After, 500, 404, ..."""

    async def fault(asked: Asked) -> web.StreamResponse:
        return web.Response(status=code, text=body, headers=headers)

    return fault


def no_such_call(code: int = 500) -> Fault:
    """A server that does not have the call: 500 by its catch-all, or 404 by the front end."""
    if code == 404:
        return status(404, "<html><h1>404 Not Found</h1></html>", {"Content-Type": "text/html"})
    return status(code, "Server was not able to process your request\nHTTP 404 Not Found")


def delay(seconds: float) -> Fault:
    """The true answer, later."""

    async def fault(asked: Asked) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await asked.handler(asked.request)

    return fault


def hold(until: asyncio.Event) -> Fault:
    """The true answer, once the event is set."""

    async def fault(asked: Asked) -> web.StreamResponse:
        await until.wait()
        return await asked.handler(asked.request)

    return fault


def cut(at: float = 0.5) -> Fault:
    """The length (or a chunked body) is promised, and the connection ends after this part of the body."""

    async def fault(asked: Asked) -> web.StreamResponse:
        response = await _begin(asked, await asked.truth(), at)
        if asked.request.transport is not None:
            asked.request.transport.close()  # what is written is still sent
        return response

    return fault


def stall(at: float = 0.5) -> Fault:
    """Part of the body, then silence until the client leaves."""

    async def fault(asked: Asked) -> web.StreamResponse:
        response = await _begin(asked, await asked.truth(), at)
        while (transport := asked.request.transport) is not None and not transport.is_closing():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
        return response

    return fault


def short(at: float = 0.5) -> Fault:
    """Part of the body with the length of that part: nothing in HTTP says that it is cut."""
    return _altered(lambda body: body[: int(len(body) * at)])


def flip(at: int = -1) -> Fault:
    """One byte of the body is another one: the last, or the one at `at`; the length is right."""

    def flipped(body: bytes) -> bytes:
        changed = bytearray(body)
        changed[at] ^= 0xFF
        return bytes(changed)

    return _altered(flipped)


def flip_in_zip(member: int = -1) -> Fault:
    """A sound zip in which one image has another last byte."""

    def flipped(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        images = [i for i, (name, _) in enumerate(members) if name.endswith(".dcm")]
        name, body = members[images[member]]
        members[images[member]] = (name, body[:-1] + bytes([body[-1] ^ 0xFF]))
        return members

    return _rezipped(flipped)


def short_zip(missing: int = 1) -> Fault:
    """A sound zip that lacks its last images: what the archive sends when it cannot read a file."""

    def shortened(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        images = [name for name, _ in members if name.endswith(".dcm")]
        gone = set(images[len(images) - missing :])
        return [(name, body) for name, body in members if name not in gone]

    return _rezipped(shortened)


def swap(**other: str) -> Fault:
    """The true answer to other parameters: another instance's file, another series' zip."""

    async def fault(asked: Asked) -> web.StreamResponse:
        true = await asked.truth(**other)
        return web.Response(status=true.status, body=true.body, headers=true.headers)

    return fault


def html() -> Fault:
    """Status 200 and an error page."""

    async def fault(asked: Asked) -> web.StreamResponse:
        return web.Response(body=_HTML, content_type="text/html")

    return fault


def empty() -> Fault:
    """Status 200 and no body."""

    async def fault(asked: Asked) -> web.StreamResponse:
        return web.Response()

    return fault


def redirect(to: str | None = None, code: int = 302) -> Fault:
    """A redirect to a URL, or to a login page of the same server."""

    async def fault(asked: Asked) -> web.StreamResponse:
        return web.Response(status=code, headers={"Location": to or NBIA_PREFIX + "login"})

    return fault


def edit_rows(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Fault:
    """Other rows: `change` gets the true JSON rows and gives those that are sent."""
    return _altered(lambda body: json.dumps(change(json.loads(body or b"[]"))).encode())


# What they are made of


def _altered(change: Callable[[bytes], bytes]) -> Fault:
    async def fault(asked: Asked) -> web.StreamResponse:
        true = await asked.truth()
        return web.Response(status=true.status, body=change(true.body), headers=true.headers)

    return fault


def _rezipped(change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> Fault:
    def altered(body: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(body)) as source:
            members = [(info.filename, source.read(info)) for info in source.infolist()]
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in change(members):
                archive.writestr(name, content)
        return target.getvalue()

    return _altered(altered)


async def _begin(asked: Asked, true: Truth, at: float) -> web.StreamResponse:
    """Send the head of the true answer, with its length if it has one, and part of its body."""
    response = web.StreamResponse(status=true.status, headers=true.headers)
    if asked.call not in ("getImage", "getImageWithMD5Hash"):
        response.content_length = len(true.body)
    await response.prepare(asked.request)
    await response.write(true.body[: int(len(true.body) * at)])
    return response


def _end_to_end(headers: Any) -> dict[str, str]:
    kept = ("Content-Type", "Content-Disposition")
    return {name: headers[name] for name in kept if name in headers}
