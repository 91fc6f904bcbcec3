"""What lies in a series' directory against what the ledger says of it: how an interrupted run is taken up again."""

from __future__ import annotations

import time

import anyio.to_thread

from mirror.check import check_instance, digest_of
from mirror.model import Instance, Verdict
from mirror.transfer.opened import OpenSeries, tolerance


async def recover(open_series: OpenSeries, source: str) -> None:
    """Meet the files in the series' directory with the ledger's rows of it.

    A row without its file is forgotten. A file without a row was published by a run that was killed before it wrote
    the row: its header and bytes decide, and what checks out is not fetched again. What has a name of ours and does
    not check out is set aside. All other files are nobody's business.
    """
    kit, todo = open_series.kit, open_series.todo
    files = await anyio.to_thread.run_sync(kit.store.names, todo.directory)
    rows = await kit.ledger.run(kit.ledger.held_names, todo.id)
    known = {name for _, name, size in rows if files.get(name) == size}
    gone = [uid for uid, name, _ in rows if name not in known]
    if gone:
        await kit.ledger.run(kit.ledger.forget, todo.id, gone)
    for name in sorted(set(files) - known):
        if not kit.layout.may_name(name):
            continue
        found = await anyio.to_thread.run_sync(_identify, open_series, name, source)
        if not isinstance(found, Instance):
            await anyio.to_thread.run_sync(kit.store.set_aside, todo.directory, name, found.findings)
            continue
        uid = found.header.sop_instance_uid
        # A file of an instance that is held, or under another's name, can only be somebody's copy.
        if kit.layout.may_name(name, uid) and await open_series.held_as(uid) is None:
            await open_series.published(found, reused=True)
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
