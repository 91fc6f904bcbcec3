"""What a request asks, by the endpoint table, or the refusal that the dialect's server would answer with.

Hides how the two servers differ before a call is even looked up: nbia refuses names it does not know and tells a
missing one in plain text, tcia ignores the former and has a status of its own for the latter.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import msgspec
from aiohttp import web
from msgspec import Struct

from mirror.archive.endpoints import Answer, DialectName, Endpoint, Format

#: What the nbia server says of every fault of its own.
SERVER_FAULT = "Server was not able to process your request"

#: What aiohttp raises for a form without a boundary, in no charset, not text in that charset, not packed as it says.
UNREADABLE = (ValueError, LookupError, web.RequestPayloadError)
#: Ours: what the archive's servers say of such a form is not known.
UNREADABLE_FORM = "The form cannot be read."


class Refusal(Exception):
    """A call that is answered with a status other than 200. `told` is the text (nbia) or the JSON object (tcia)."""

    def __init__(
        self, status: int, told: str | dict[str, str], content_type: str = "text/plain", *, again: int | None = None
    ) -> None:
        super().__init__(status, told)
        #: Seconds after which to ask again.
        self.again = again
        self.status = status
        self.told = told
        self.content_type = content_type

    def response(self) -> web.Response:
        """The answer."""
        headers = {} if self.again is None else {"Retry-After": str(self.again)}
        text = isinstance(self.told, str)
        return web.Response(
            status=self.status,
            body=self.told.encode() if isinstance(self.told, str) else msgspec.json.encode(self.told),
            content_type=self.content_type if text else "application/json",
            headers=headers,
        )


def fault(dialect: DialectName, detail: str) -> Refusal:
    """Status 500 in the dialect's words."""
    if dialect == "nbia":
        return Refusal(500, f"{SERVER_FAULT}\n{detail}")
    return Refusal(500, {"errorMessage": detail})


def busy(dialect: DialectName, again: int) -> Refusal:
    """There is too much to do: status 503 with Retry-After, in seconds."""
    said = "The server has too much to do; ask again later"
    return Refusal(503, said if dialect == "nbia" else {"errorMessage": said}, again=again)


def denial(endpoint: Endpoint, series_instance_uid: str) -> Refusal:
    """What the nbia server says of a series that is not there, or that is not to be seen: it makes no difference."""
    return Refusal(400, endpoint.denied.format(uid=series_instance_uid), "application/json")


def takes_format(dialect: DialectName, endpoint: Endpoint) -> bool:
    """Whether a call has the parameter `format`."""
    return endpoint.answer is Answer.ROWS and (dialect == "tcia" or endpoint.formats != (Format.JSON,))


class _Known(Struct, frozen=True, gc=False):
    """What a call takes, by the names that its dialect gives: found once, asked at every request."""

    names: dict[str, str]
    numbered: frozenset[str]
    required: dict[str, str]


@cache
def _known(dialect: DialectName, endpoint: Endpoint) -> _Known:
    params = {p.wire(dialect): p for p in endpoint.wire_params(dialect)}
    names = {wire: p.name for wire, p in params.items()}
    if takes_format(dialect, endpoint):
        names["format"] = "format"
    return _Known(
        names=names,
        numbered=frozenset(wire for wire, p in params.items() if p.numbered),
        required={wire: p.name for wire, p in params.items() if p.required},
    )


async def read_params(dialect: DialectName, endpoint: Endpoint, request: web.Request) -> dict[str, str]:
    """The call's parameters by canonical name, `format` among them. Raises Refusal as the dialect's server would."""
    given: list[tuple[str, str]] = list(request.query.items())
    if request.method == "POST":
        given += await _read_form(dialect, request)
    known = _known(dialect, endpoint)
    if dialect == "nbia":
        _refuse_method(endpoint, request)
        if endpoint.method == "GET" and not endpoint.lax:
            _refuse_unknown(known.names, request)
    params: dict[str, str] = {}
    for name, value in given:
        canonical_name = known.names.get(name)
        if known.numbered and name.rstrip("0123456789") in known.numbered:
            params.setdefault(name, value)
        elif canonical_name is not None:
            if canonical_name not in params:
                params[canonical_name] = value
            elif canonical_name in ("list", "seriesId"):
                params[canonical_name] += "," + value
    missing = [wire for wire, canonical_name in known.required.items() if canonical_name not in params]
    if missing and dialect == "tcia":
        call = (endpoint.tcia or endpoint.name).rpartition("/")[2]
        raise Refusal(
            471,
            {
                "errorDescription": "Mandatory Attribute Missing",
                "suggestedAction": "Give the missing attribute as a query parameter",
                "detailedMessage": f"{call}: Mandatory Attribute Missing : [{', '.join(missing)}]",
            },
        )
    if missing and endpoint.missing:
        raise Refusal(400, endpoint.missing, "application/json")
    if missing and endpoint.name == "getSeriesQCInfo":
        raise Refusal(204, "")
    return params


async def _read_form(dialect: DialectName, request: web.Request) -> list[tuple[str, str]]:
    """What a form says, uploaded files left out. Raises Refusal for a body that is no form, whatever it says it is."""
    try:
        form = await request.post()
    except UNREADABLE as error:
        told = UNREADABLE_FORM if dialect == "nbia" else {"errorMessage": UNREADABLE_FORM}
        raise Refusal(400, told) from error
    return [(name, value) for name, value in form.items() if isinstance(value, str)]


def _refuse_method(endpoint: Endpoint, request: web.Request) -> None:
    # HEAD is more than the archive gives, and hurts nobody.
    if request.method != endpoint.method and (request.method, endpoint.method) != ("HEAD", "GET"):
        raise fault("nbia", "HTTP 405 Method Not Allowed")


def _refuse_unknown(allowed: Collection[str], request: web.Request) -> None:
    for name in request.query:
        if name not in allowed:
            raise Refusal(400, f"Invalid query parameter: '{name}'. Allowed parameters are: [{', '.join(allowed)}]")
