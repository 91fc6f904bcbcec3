"""Tokens for clients that will not ask without one. The archive lets everyone in as a guest, and so does this.

Hides the shape of Keycloak's answer. What is handed out names no one and opens nothing: every call is answered with a
token as without.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from mirror.serve.parameters import UNREADABLE

_GUEST = "nbia_guest"
_TOKEN = "guest"  # noqa: S105 - no secret: it opens nothing
_LIFE_S = 7200
_PREFIXES = ("/nbia-api/", "/nbia-api/services/")


def add_guest_routes(router: web.UrlDispatcher, below: str = "") -> None:
    """Add `oauth/token` and `logout` where the archive has them, below that path."""
    for prefix in _PREFIXES:
        router.add_post(below + prefix + "oauth/token", _token)
        router.add_route("*", below + prefix + "logout", _logout)


def guest_paths() -> dict[str, dict[str, Any]]:
    """The same as an OpenAPI document tells it: path -> path item."""
    form = {
        "type": "object",
        "required": ["grant_type"],
        "properties": {name: {"type": "string"} for name in ("grant_type", "username", "refresh_token")},
    }
    told = {"application/json": {"schema": {"type": "object"}}}

    def operation(name: str, what: str, responses: dict[str, Any]) -> dict[str, Any]:
        return {"operationId": name, "summary": what, "tags": ["nbia"], "responses": responses}

    paths: dict[str, dict[str, Any]] = {}
    for number, prefix in enumerate(_PREFIXES):
        token = operation(
            f"token_{number}",
            "A token for the guest, which opens nothing.",
            {
                "200": {"description": "The token.", "content": told},
                "400": {"description": "No grant that there is, or a form that cannot be read.", "content": told},
                "401": {
                    "description": "Another user than the guest.",
                    "content": told | {"text/plain": {"schema": {}}},
                },
                "413": {"description": "The form is too large."},
                "503": {"description": "There is too much to do."},
            },
        )
        paths[prefix + "oauth/token"] = {
            "post": token | {"requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": form}}}}
        }
        gone = {"200": {"description": "Nothing to forget."}, "401": {"description": "A token is needed."}}
        paths[prefix + "logout"] = {
            "get": operation(f"logout_{number}", "Forget a token.", gone | {"503": {"description": "Busy."}})
        }
    return paths


async def _token(request: web.Request) -> web.Response:
    """A token for the guest, by name or by an earlier token; 400 and 401 in the words of RFC 6749, section 5.2."""
    try:
        form = await request.post()
    except UNREADABLE:
        return web.json_response({"error": "invalid_request"}, status=400)
    match form.get("grant_type"):
        case "password":
            allowed = form.get("username") == _GUEST
        case "refresh_token":
            allowed = form.get("refresh_token") == _TOKEN
        case None:
            return web.json_response({"error": "invalid_request"}, status=400)
        case _:
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
    if not allowed:
        return web.json_response({"error": "invalid_grant"}, status=401)
    return web.json_response(
        {
            "access_token": _TOKEN,
            "expires_in": _LIFE_S,
            "refresh_expires_in": _LIFE_S,
            "refresh_token": _TOKEN,
            "token_type": "Bearer",
            "not-before-policy": 0,
            "scope": "profile",
        },
        headers={"Cache-Control": "no-store"},
    )


async def _logout(request: web.Request) -> web.Response:
    return web.Response()
