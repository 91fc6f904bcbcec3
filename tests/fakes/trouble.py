"""Errors of a request that speak of the server, not of what was asked for."""

from __future__ import annotations

from mirror.errors import ArchiveError, BodyCut, ServerFault, Stalled, Throttled, Unreachable

TROUBLE: list[ArchiveError] = [
    Unreachable("x"),
    Stalled("x"),
    BodyCut("x"),
    Throttled("x"),
    ServerFault("x", status=502),
    ServerFault("x", status=503),
    ServerFault("x", status=504),
]
