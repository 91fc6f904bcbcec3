"""What the NBIA Data Retriever's command line asks before any series: terms of use, and the names of SOP classes.

Neither is about what a mirror holds, and neither is a call of the table: the one is a file that the archive's operators
may have, the other a list out of the standard. Without the second the program ends before the first series.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from aiohttp import web

from mirror.headers import uid_names

_PREFIX = "/nbia-api/services/v1/"
_TERMS, _NAMES = _PREFIX + "getUserAgreementTxt", _PREFIX + "getAllSOPClassDefinition"
_KIND = "application/octet-stream"


def add_retriever_routes(router: web.UrlDispatcher, below: str = "") -> None:
    """Add both where the archive has them, below that path."""
    router.add_get(below + _TERMS, _terms)
    router.add_get(below + _NAMES, _names)


def retriever_paths() -> dict[str, dict[str, Any]]:
    """The same as an OpenAPI document tells it: path -> path item."""
    told = {_KIND: {"schema": {"type": "string"}}}
    gate = {"401": {"description": "A token is needed."}, "503": {"description": "There is too much to do."}}

    def get(name: str, what: str, responses: dict[str, Any]) -> dict[str, Any]:
        return {"get": {"operationId": name, "summary": what, "tags": ["nbia"], "responses": responses | gate}}

    names = {"200": {"description": "Lines UID=name, as Java reads properties.", "content": told}}
    return {
        _TERMS: get("userAgreement", "Terms of use.", {"404": {"description": "There are none.", "content": told}}),
        _NAMES: get("sopClassNames", "The names of SOP classes and other UIDs of the standard.", names),
    }


async def _terms(request: web.Request) -> web.Response:
    # What the licences of the collections ask is in each zip.
    return web.Response(status=404, body=b"No user agreement file found.", content_type=_KIND)


async def _names(request: web.Request) -> web.Response:
    headers = {"Content-Disposition": 'attachment; filename="UIDNames.properties"'}
    return web.Response(body=_properties(), content_type=_KIND, headers=headers)


@cache
def _properties() -> bytes:
    """Java's properties are Latin-1, with escapes for what is beyond; the standard's names are ASCII but for dashes."""
    lines = (f"{uid}={name}\n" for uid, name in uid_names().items())
    return "".join(lines).encode("ascii", "backslashreplace")
