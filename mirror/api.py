"""The public functions: what the command does, for programs and notebooks.

Coroutines, to be awaited; `run` calls one from plain code, also inside a notebook whose event loop is running.
Importing this is cheap: what a function needs is imported when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
import anyio.to_thread

from mirror.errors import SettingsError
from mirror.events import EventSink, ignore
from mirror.model import CollectionStatus, Scope
from mirror.settings import ArchiveSettings, Settings, read_token

if TYPE_CHECKING:
    from mirror.manifest import InstanceRow
    from mirror.report import RunReport
    from mirror.verification import VerifyReport

T = TypeVar("T")


async def sync(
    *collections: str,
    to: str | os.PathLike[str],
    all: bool = False,
    patients: Sequence[str] = (),
    modalities: Sequence[str] = (),
    body_parts: Sequence[str] = (),
    manufacturers: Sequence[str] = (),
    released_since: str | None = None,
    series: Sequence[str] = (),
    lists: Sequence[str] = (),
    scope: Scope | None = None,
    server: str | None = None,
    settings: Settings | None = None,
    token: str | None = None,
    sink: EventSink = ignore,
    stop: anyio.Event | None = None,
    dry_run: bool = False,
) -> RunReport:
    """Mirror a part of the archive into the folder `to`. Safe to repeat; see `tcia-mirror sync`.

    `scope` stands for all arguments that say which part; it is the one that takes exclusions. Where no argument says
    it, the mirror repeats what its last sync was about. `server` overrides the settings' own, `token` the one of
    `archive.token_file`. Events go to `sink` as they happen.
    Returns the run report, whose `exit_code` is 0 when everything asked for is complete and verified. Raises
    MirrorError for what ends a run.
    """
    from mirror.pipeline import sync as sync_scope

    settings = settings or Settings()
    if server is not None:
        settings = replace(settings, archive=replace(settings.archive, server=server))
    told = Scope(
        collections=collections,
        all=all,
        patients=tuple(patients),
        modalities=tuple(modalities),
        body_parts=tuple(body_parts),
        manufacturers=tuple(manufacturers),
        released_since=released_since,
        series=tuple(series),
        lists=tuple(lists),
    )
    if scope is not None and told != Scope():
        raise SettingsError("scope says which part of the archive is meant; leave the other arguments of it out")
    token = token or read_token(settings.archive, {})
    return await sync_scope(Path(to), scope or told, settings, token=token, sink=sink, stop=stop, dry_run=dry_run)


async def verify(
    *collections: str,
    to: str | os.PathLike[str],
    depth: Literal["quick", "sums", "deep"] = "sums",
    repair: bool = False,
    server: str | None = None,
    settings: Settings | None = None,
    token: str | None = None,
    sink: EventSink = ignore,
    stop: anyio.Event | None = None,
) -> VerifyReport:
    """Compare the tree of the mirror `to` with what it knows, and mend it with `repair`; see `tcia-mirror verify`.

    `server` takes the place of the mirror's own archive. Safe to repeat. Returns the report, whose `exit_code` is 0
    when all is sound, or was repaired. Raises MirrorError for what ends a run; an archive that is down is in the
    report.
    """
    from mirror.verification import Depth
    from mirror.verification import verify as verify_tree

    settings = settings or Settings()
    return await verify_tree(
        Path(to),
        settings,
        collections=collections,
        depth=Depth(depth),
        repair=repair,
        server=server,
        token=token or read_token(settings.archive, {}),
        sink=sink,
        stop=stop,
    )


async def status(root: str | os.PathLike[str]) -> list[CollectionStatus]:
    """What a mirror holds, per collection. Raises SettingsError where there is no mirror."""
    from mirror.ledger import Catalogue

    def read() -> list[CollectionStatus]:
        with Catalogue(Path(root)) as catalogue:
            return catalogue.status()

    return await anyio.to_thread.run_sync(read)


def read_manifest(root: str | os.PathLike[str]) -> Iterator[InstanceRow]:
    """The rows of <root>/manifest.csv, one by one. Raises SettingsError where there is none."""
    from mirror.manifest import read_csv

    path = Path(root) / "manifest.csv"
    try:
        file = path.open(encoding="utf-8", newline="")
    except FileNotFoundError as error:
        raise SettingsError(
            f"{path}: no manifest here; `tcia-mirror sync` and `tcia-mirror export` write one"
        ) from error
    with file:
        yield from read_csv(file)


async def query(
    call: str,
    params: Mapping[str, str] | None = None,
    *,
    server: str | None = None,
    settings: ArchiveSettings | None = None,
    token: str | None = None,
) -> list[dict[str, Any]]:
    """The rows of any call of the API, canonical (archive/endpoints: one spelling for both dialects).

    `params` by their canonical names, days as YYYY-MM-DD. `server` overrides the settings' own; without either it is
    the live archive. `token` overrides the one of `token_file`. Raises SettingsError for a call that does not
    answer rows, and ArchiveError.
    """
    from mirror.archive.client import ArchiveClient
    from mirror.archive.dialects import find_endpoint, server_of
    from mirror.archive.endpoints import Answer

    endpoint = find_endpoint(call)
    if endpoint.answer is not Answer.ROWS:
        raise SettingsError(f"{endpoint.name} answers no rows; `tcia-mirror query` gives any answer as it comes")
    settings = settings or ArchiveSettings()
    if server is not None:
        settings = replace(settings, server=server)
    token = token or read_token(settings, {})
    async with ArchiveClient(server_of(settings), settings, token=token) as client:
        return await (await client.rows(endpoint, params or {})).all()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine from plain code, also where an event loop runs already (a notebook): then in a thread."""

    async def main() -> T:
        return await work

    # A thread of its own has no running loop, whatever the caller's has.
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(anyio.run, main).result()
