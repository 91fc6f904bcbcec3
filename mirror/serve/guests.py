"""Tokens for clients that will not ask without one. The archive lets everyone in as a guest, and so does this.

Hides the shape of Keycloak's answer. What is handed out names no one and opens nothing: every call is answered with a
token as without.
"""

from __future__ import annotations

from aiohttp import web

_GUEST = "nbia_guest"
_TOKEN = "guest"  # noqa: S105  # no secret: it opens nothing
_LIFE_S = 7200
_PREFIXES = ("/nbia-api/", "/nbia-api/services/")


def add_guest_routes(app: web.Application) -> None:
    """Add `oauth/token` and `logout` where the archive has them."""
    for prefix in _PREFIXES:
        app.router.add_post(prefix + "oauth/token", _token)
        app.router.add_route("*", prefix + "logout", _logout)


async def _token(request: web.Request) -> web.Response:
    """A token for the guest, by name or by an earlier token; 400 and 401 in the words of RFC 6749, section 5.2."""
    form = await request.post()
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
