"""What lies in a series' directory: against the ledger's rows, to take up an interrupted run; against the archive's
digests, to find the one file that does not let a series add up.
"""

from __future__ import annotations

import time

import anyio.to_thread

from mirror.check import check_instance, digest_of
from mirror.errors import BadAnswer, NotFound, Refused, ServerFault, StoreError
from mirror.model import Finding, FindingKind, Happened, HistoryEntry, Instance, SeriesState, Verdict
from mirror.transfer.opened import OpenSeries, tolerance


async def recover(open_series: OpenSeries, source: str) -> None:
    """Take a series up: open it in the ledger, and meet the files in its directory with the ledger's rows of it.

    A row without its file is forgotten. A file without a row was published by a run that was killed before it wrote
    the row: its header and bytes decide, and what checks out is not fetched again. What has a name of ours and does
    not check out is set aside. All other files are nobody's business.

    A row is believed by name and size, but for a series that was left open where files are numbered: a power cut may
    have left names on the disk that the ledger gives to others, and images of one series share their size. Nor is it
    believed of an instance in doubt: a run that was killed may have replaced the file and not the row.
    """
    kit, todo = open_series.kit, open_series.todo
    doubted = kit.layout.numbered and todo.state is SeriesState.OPEN

    def survey() -> tuple[dict[str, int], list[tuple[str, str, int]]]:
        open_series.listing = kit.ledger.open_series(todo.id)
        open_series.free = kit.store.free()
        _forget_replaced(open_series)
        return kit.store.names(todo.directory), kit.ledger.held_names(todo.id)

    files, rows = await open_series.turn(survey)
    known = {name for _, name, size in rows if files.get(name) == size and not doubted}
    unseen = {uid: name for uid, name, _ in rows if name not in known}
    if unseen and not doubted:
        await kit.ledger.run(kit.ledger.forget, todo.id, [*unseen])
        unseen = {}
    await _meet(open_series, set(files) - known, unseen, source, reused=True)


async def meet_placed(open_series: OpenSeries, source: str) -> None:
    """Meet the files that somebody of this run has placed, and did not live to tell of: as files without a row.

    Only for a series that was taken up by this run, and of which nobody else has a body under way.
    """
    kit, todo = open_series.kit, open_series.todo
    await open_series.flush()

    def survey() -> set[str]:
        return {*kit.store.names(todo.directory)} - {name for _, name, _ in kit.ledger.held_names(todo.id)}

    await _meet(open_series, await kit.ledger.run(survey), {}, source, reused=False)


async def _meet(open_series: OpenSeries, names: set[str], unseen: dict[str, str], source: str, *, reused: bool) -> None:
    """Look at files that no row knows by their name. `unseen`: instances that have a row and no such file -> its name.

    What checks out is noted, `reused` or as fetched; what has a name of ours and does not is set aside.
    """
    kit, todo = open_series.kit, open_series.todo
    for name in sorted(names):
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
        elif await kit.ledger.run(kit.ledger.has_left, todo.id, uid, found.digest.sha256):
            # Its bytes are retired; the run that took it away was killed before this was done.
            await anyio.to_thread.run_sync(kit.store.remove, todo.directory, name)
        # A file of an instance that is held, or under another's name, can only be somebody's copy.
        elif kit.layout.may_name(name, uid) and await open_series.held(uid) is None:
            await open_series.published(found, reused=reused)
    if unseen:
        await kit.ledger.run(kit.ledger.forget, todo.id, [*unseen])
    await open_series.flush()


def _forget_replaced(open_series: OpenSeries) -> None:
    """Forget instances in doubt whose file is not as the row says: they are fetched and compared as new ones."""
    kit, todo = open_series.kit, open_series.todo
    recorded = kit.ledger.doubted_names(todo.id)
    if not recorded:
        return
    names = {uid: name for uid, name, _ in kit.ledger.held_names(todo.id)}
    gone = []
    for uid, sha256 in recorded.items():
        try:
            with kit.store.open(todo.directory, names[uid]) as file:
                same = digest_of(file).sha256 == sha256
        except StoreError:
            same = False
        if not same:
            gone.append(uid)
    if gone:
        kit.ledger.forget(todo.id, gone)


async def _as_recorded(open_series: OpenSeries, found: Instance) -> Instance | Verdict:
    """The instance, or the verdict that it has not the bytes that were checked when it came."""
    held = await open_series.held(found.header.sop_instance_uid)
    if held is not None and held.digest.sha256 == found.digest.sha256:
        return found
    came = held.digest.sha256 if held else "another"
    said = f"the file has SHA-256 {found.digest.sha256}, it came with {came}"
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
    """Find held files whose MD5 is not the one that the archive gives; True where there was one.

    For a series that does not add up though it is all there. What was judged complete before was right then: the
    archive has replaced it, and it stays in its place, in doubt, until its successor comes. Anything else was damaged
    on its way: it is set aside and fetched again in the second round, and what is still wrong then is lost. Where a
    server has no MD5s of single files, a change that it tells of makes all of the series doubted; nothing else does.
    """
    kit, todo = open_series.kit, open_series.todo
    if kit.client.server.dialect != "nbia":
        return False
    exposed = False
    untold = False
    replaced: list[str] = []
    for uid, name, _ in await kit.ledger.run(kit.ledger.held_names, todo.id):
        if open_series.round == 2 and uid not in open_series.damaged:
            continue
        try:
            theirs = await kit.client.get_md5_hash_for_image(uid)
        except (NotFound, Refused, ServerFault, BadAnswer) as error:
            if await kit.client.is_down(error):
                raise
            untold = True
            break
        ours = await kit.ledger.run(kit.ledger.held, todo.id, uid)
        if theirs is None or ours is None or theirs == ours.digest.md5:
            continue
        exposed = True
        open_series.damaged.add(uid)
        said = f"the archive says MD5 {theirs}, the file has {ours.digest.md5}"
        finding = open_series.finding(FindingKind.MD5_DIFFERS, said, uid)
        if not ours.was_right:
            await _withdraw(open_series, name, finding)
        elif open_series.round == 1:
            replaced.append(uid)
        elif uid not in open_series.vain:
            await open_series.lost(finding)
    if untold and open_series.by_digest:
        # It tells that there is a change, and not of which instances: once, all are compared.
        open_series.by_digest, exposed = False, True
        await kit.ledger.run(kit.ledger.doubt, todo.id, None)
    elif replaced:
        await kit.ledger.run(kit.ledger.doubt, todo.id, replaced)
    await open_series.flush()
    return exposed


async def retire_unlisted(open_series: OpenSeries) -> bool:
    """Take out of the tree what the archive's list lacked in an earlier run and lacks now; True where there was any.

    Only for a list that agrees with the archive's count. The bytes are kept among what is retired.
    """
    kit, todo = open_series.kit, open_series.todo
    gone = await kit.ledger.run(kit.ledger.note_unlisted, todo.id, open_series.listing, kit.run)
    for uid, name, digest in gone:
        retired = await anyio.to_thread.run_sync(kit.store.retire, todo.directory, name, kit.run)
        entry = HistoryEntry(
            what=Happened.LEFT,
            why="the archive does not list it any more",
            collection=todo.series.collection,
            series_instance_uid=todo.series.series_instance_uid,
            sop_instance_uid=uid,
            bytes=digest.bytes,
            old_sha256=digest.sha256,
            retired=retired,
            run=kit.run,
        )
        await kit.ledger.run(kit.ledger.forget, todo.id, [uid], history=[entry])
        await anyio.to_thread.run_sync(kit.store.remove, todo.directory, name)
    return bool(gone)


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
