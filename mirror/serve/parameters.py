"""What a request asks, by the endpoint table, or the refusal that the dialect's server would answer with.

Hides how the two servers differ before a call is even looked up: nbia refuses names it does not know and tells a
missing one in plain text, tcia ignores the former and has a status of its own for the latter.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from mirror.archive.endpoints import Answer, DialectName, Endpoint, Format

#: What the nbia server says of every fault of its own.
SERVER_FAULT = "Server was not able to process your request"


class Refusal(Exception):
    """A call that is answered with a status other than 200. `told` is the text (nbia) or the JSON object (tcia)."""

    def __init__(self, status: int, told: str | dict[str, str], content_type: str = "text/plain") -> None:
        super().__init__(status, told)
        self.status = status
        self.told = told
        self.content_type = content_type

    def response(self) -> web.Response:
        """The answer."""
        if isinstance(self.told, str):
            return web.Response(status=self.status, body=self.told.encode(), content_type=self.content_type)
        return web.Response(status=self.status, body=msgspec.json.encode(self.told), content_type="application/json")


def fault(dialect: DialectName, detail: str) -> Refusal:
    """Status 500 in the dialect's words."""
    if dialect == "nbia":
        return Refusal(500, f"{SERVER_FAULT}\n{detail}")
    return Refusal(500, {"errorMessage": detail})


def denial(endpoint: Endpoint, series_instance_uid: str) -> Refusal:
    """What the nbia server says of a series that is not there, or that is not to be seen: it makes no difference."""
    return Refusal(400, endpoint.denied.format(uid=series_instance_uid), "application/json")


async def read_params(dialect: DialectName, endpoint: Endpoint, request: web.Request) -> dict[str, str]:
    """The call's parameters by canonical name, `format` among them. Raises Refusal as the dialect's server would."""
    given: list[tuple[str, str]] = list(request.query.items())
    if request.method == "POST":
        given += [(name, value) for name, value in (await request.post()).items() if isinstance(value, str)]
    has_format = endpoint.answer is Answer.ROWS and (dialect == "tcia" or endpoint.formats != (Format.JSON,))
    known = {p.wire(dialect): p.name for p in endpoint.wire_params(dialect)} | (
        {"format": "format"} if has_format else {}
    )
    if dialect == "nbia":
        _refuse_method(endpoint, request)
        if endpoint.method == "GET" and not endpoint.lax:
            _refuse_unknown(list(known), request)
    params: dict[str, str] = {}
    numbered = {p.wire(dialect) for p in endpoint.wire_params(dialect) if p.numbered}
    for name, value in given:
        if name.rstrip("0123456789") in numbered:
            params.setdefault(name, value)
        elif name in known:
            canonical_name = known[name]
            if canonical_name not in params:
                params[canonical_name] = value
            elif canonical_name in ("list", "seriesId"):
                params[canonical_name] += "," + value
    missing = [p.wire(dialect) for p in endpoint.wire_params(dialect) if p.required and p.name not in params]
    if missing and dialect == "tcia":
        raise Refusal(
            471,
            {
                "errorDescription": "Mandatory Attribute Missing",
                "suggestedAction": "Give the missing attribute as a query parameter",
                "detailedMessage": f"{endpoint.tcia}: Mandatory Attribute Missing : [{', '.join(missing)}]",
            },
        )
    if missing and endpoint.missing:
        raise Refusal(400, endpoint.missing, "application/json")
    if missing and endpoint.name == "getSeriesQCInfo":
        raise Refusal(204, "")
    return params


def _refuse_method(endpoint: Endpoint, request: web.Request) -> None:
    if request.method != endpoint.method:
        raise fault("nbia", "HTTP 405 Method Not Allowed")


def _refuse_unknown(allowed: Sequence[str], request: web.Request) -> None:
    for name in request.query:
        if name not in allowed:
            raise Refusal(400, f"Invalid query parameter: '{name}'. Allowed parameters are: [{', '.join(allowed)}]")
