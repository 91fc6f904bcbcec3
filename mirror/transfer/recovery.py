"""What lies in a series' directory: against the ledger's rows, to take up an interrupted run; against the archive's
digests, to find the one file that does not let a series add up.
"""

from __future__ import annotations

import time

import anyio.to_thread

from mirror.check import check_instance, digest_of
from mirror.errors import BadAnswer, NotFound, Refused, ServerFault
from mirror.model import Finding, FindingKind, Instance, SeriesState, Verdict
from mirror.transfer.opened import OpenSeries, tolerance


async def recover(open_series: OpenSeries, source: str) -> None:
    """Meet the files in the series' directory with the ledger's rows of it.

    A row without its file is forgotten. A file without a row was published by a run that was killed before it wrote
    the row: its header and bytes decide, and what checks out is not fetched again. What has a name of ours and does
    not check out is set aside. All other files are nobody's business.

    A row is believed by name and size, but for a series that was left open where files are numbered: a power cut may
    have left names on the disk that the ledger gives to others, and images of one series share their size.
    """
    kit, todo = open_series.kit, open_series.todo
    doubted = kit.layout.numbered and todo.state is SeriesState.OPEN
    files = await anyio.to_thread.run_sync(kit.store.names, todo.directory)
    rows = await kit.ledger.run(kit.ledger.held_names, todo.id)
    known = {name for _, name, size in rows if files.get(name) == size and not doubted}
    unseen = {uid: name for uid, name, _ in rows if name not in known}
    if unseen and not doubted:
        await kit.ledger.run(kit.ledger.forget, todo.id, [*unseen])
        unseen = {}
    for name in sorted(set(files) - known):
        if not kit.layout.may_name(name):
            continue
        found = await anyio.to_thread.run_sync(_identify, open_series, name, source)
        if isinstance(found, Instance) and found.header.sop_instance_uid in unseen:
            found = await _as_recorded(open_series, found)
        if not isinstance(found, Instance):
            await anyio.to_thread.run_sync(kit.store.set_aside, todo.directory, name, found.findings)
            continue
        uid = found.header.sop_instance_uid
        if uid in unseen:
            if unseen.pop(uid) != name:
                await kit.ledger.run(kit.ledger.rename, todo.id, [(uid, name)])
        # A file of an instance that is held, or under another's name, can only be somebody's copy.
        elif kit.layout.may_name(name, uid) and await open_series.held_as(uid) is None:
            await open_series.published(found, reused=True)
    if unseen:
        await kit.ledger.run(kit.ledger.forget, todo.id, [*unseen])
    await open_series.flush()


async def _as_recorded(open_series: OpenSeries, found: Instance) -> Instance | Verdict:
    """The instance, or the verdict that it has not the bytes that were checked when it came."""
    held = await open_series.held_as(found.header.sop_instance_uid)
    if held == found.digest.sha256:
        return found
    said = f"the file has SHA-256 {found.digest.sha256}, it came with {held}"
    return Verdict((open_series.finding(FindingKind.MD5_DIFFERS, said, found.header.sop_instance_uid),))


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


async def expose_damaged(open_series: OpenSeries) -> bool:
    """Set aside held files whose MD5 is not the one that the archive gives; True where there was one.

    For a series that does not add up though it is all there: a file was damaged on its way, or the archive has
    replaced it. What is set aside in the first round is fetched in the second; what is still wrong then is lost.
    A server that has no MD5s of single files leaves all as it is.
    """
    kit, todo = open_series.kit, open_series.todo
    if kit.client.server.dialect != "nbia":
        return False
    exposed = False
    for uid, name, _ in await kit.ledger.run(kit.ledger.held_names, todo.id):
        if open_series.round == 2 and uid not in open_series.damaged:
            continue
        try:
            theirs = await kit.client.get_md5_hash_for_image(uid)
        except (NotFound, Refused, ServerFault, BadAnswer):
            break
        ours = await kit.ledger.run(kit.ledger.held_digest, todo.id, uid)
        if theirs is None or ours is None or theirs == ours.md5:
            continue
        exposed = True
        open_series.damaged.add(uid)
        said = f"the archive says MD5 {theirs}, the file has {ours.md5}"
        await _withdraw(open_series, name, open_series.finding(FindingKind.MD5_DIFFERS, said, uid))
    await open_series.flush()
    return exposed


async def withdraw_doubtful(open_series: OpenSeries) -> None:
    """Set aside instances that came with two bodies: nothing tells which of the two is the archive's."""
    doubtful = {f.sop_instance_uid: f for f in open_series.noticed if f.kind is FindingKind.DUPLICATE_INSTANCE}
    if not doubtful:
        return
    for uid, name, _ in await open_series.kit.ledger.run(open_series.kit.ledger.held_names, open_series.todo.id):
        if uid in doubtful:
            await _withdraw(open_series, name, doubtful[uid])
    await open_series.flush()


async def _withdraw(open_series: OpenSeries, name: str, finding: Finding) -> None:
    """An instance is held no longer. In the first round it is fetched again, in the second it is lost."""
    kit, todo = open_series.kit, open_series.todo
    await kit.ledger.run(kit.ledger.forget, todo.id, [finding.sop_instance_uid or ""])
    await anyio.to_thread.run_sync(kit.store.set_aside, todo.directory, name, (finding,))
    if open_series.round == 2:
        await open_series.lost(finding)
