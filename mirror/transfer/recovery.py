"""What lies in a series' directory against what the ledger says of it: how an interrupted run is taken up again."""

from __future__ import annotations

import time
from pathlib import PurePosixPath

import anyio.to_thread

from mirror.check import check_instance, digest_of
from mirror.model import Instance, SeriesState, Verdict
from mirror.transfer.opened import OpenSeries, tolerance


async def recover(open_series: OpenSeries, source: str) -> None:
    """Meet the files in the series' directory with the ledger's rows of it.

    A row without its file is forgotten. A file without a row was published by a run that was killed before it wrote
    the row: its header and bytes decide, and what checks out is not fetched again. One that does not check out but
    has a name that an instance could need is set aside; files of other kinds are nobody's business.
    """
    kit, todo = open_series.kit, open_series.todo
    files = await anyio.to_thread.run_sync(kit.store.names, todo.directory)
    rows = await kit.ledger.run(kit.ledger.held_names, todo.id)
    if not files and not rows:
        return
    # A run that was killed while it renamed may have left one instance under another's name: then no row is believed.
    believe = not (kit.layout.numbered and todo.state is SeriesState.OPEN)
    known = {name for _, name, size in rows if believe and files.get(name) == size}
    gone = [uid for uid, name, _ in rows if name not in known]
    if gone:
        await kit.ledger.run(kit.ledger.forget, todo.id, gone)
    suffix = PurePosixPath(kit.layout.file_name("1")).suffix
    for name in sorted(set(files) - known):
        if PurePosixPath(name).suffix != suffix:
            continue
        found = await anyio.to_thread.run_sync(_identify, open_series, name, source)
        if isinstance(found, Instance):
            await open_series.published(found, reused=True)
        else:
            await anyio.to_thread.run_sync(kit.store.set_aside, todo.directory, name, found.findings)
    await open_series.flush()


def _identify(open_series: OpenSeries, name: str, source: str) -> Instance | Verdict:
    """The instance that a file of the tree is, or why it is none of this series. Blocks."""
    kit, todo = open_series.kit, open_series.todo
    with kit.store.open(todo.directory, name) as file:
        size = file.seek(0, 2)
        checked = tolerance(kit.settings, check_instance(file, size, todo.series))
        if checked.header is None or not checked.verdict.ok:
            return checked.verdict
        return Instance(
            header=checked.header,
            digest=digest_of(file),
            name=name,
            source=source,
            fetched_at=int(time.time()),
            verified="header",
        )
