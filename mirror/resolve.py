"""What of a scope only the archive can say: the series of its shared lists, and whether it tells what is asked for."""

from __future__ import annotations

from dataclasses import replace

from mirror.archive.client import ArchiveClient
from mirror.archive.endpoints import ENDPOINTS
from mirror.errors import SettingsError
from mirror.model import Scope
from mirror.scope import boundary, describe


async def resolve(scope: Scope, client: ArchiveClient) -> Scope:
    """The same scope with nothing left to ask for: what its shared lists name is among `series`, `lists` is empty.

    Of a shared list only the series that the rest of the scope does not leave out; a listed UID that is excluded as
    such is gone. Safe to repeat. Raises SettingsError where the server's dialect does not tell what the scope asks
    for, and for a list that the archive does not know: it answers it with nothing, as it does an empty one.
    """
    require_known(scope, client)
    excluded = frozenset(scope.exclude.series)
    series = dict.fromkeys(uid for uid in scope.series if uid not in excluded)
    beyond = boundary(scope)
    for name in dict.fromkeys(scope.lists):
        named = 0
        rows = await client.contents_by_name(name)
        async for batch in rows.batches():
            named += len(batch)
            series |= dict.fromkeys(s.series_instance_uid for s in batch if not beyond(s))
        if not named:
            raise SettingsError(
                f"shared list {name!r} names no series at {client.server.base}: no list has that name, or nothing on"
                " it is visible"
            )
    if not series and (scope.series or scope.lists):
        raise SettingsError(f"none of the listed series meets the whole scope: {describe(scope)}")
    return replace(scope, series=tuple(series), lists=())


def require_known(scope: Scope, client: ArchiveClient) -> None:
    """Raises SettingsError where the scope asks for a day of release and the server's rows of series have none."""
    fields = ENDPOINTS["getSeries"].fields(client.server.dialect)
    if scope.released_since and "DateReleased" not in fields:
        raise SettingsError(
            f"released since {scope.released_since}: {client.server.base} speaks the {client.server.dialect} dialect,"
            " which does not tell when a series was released"
        )
