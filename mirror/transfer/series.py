"""One series, from taken up to judged."""

from __future__ import annotations

from dataclasses import replace

import anyio.to_thread

from mirror.check import check_series, series_digest
from mirror.errors import ArchiveError, BadAnswer, Fate, Interrupted, NotFound, Refused, ServerFault, StoreFull
from mirror.events import SeriesDone
from mirror.layout import number_names
from mirror.ledger import Todo
from mirror.model import TOLERABLE, FindingKind, Outcome, SeriesSize, SeriesState, Verdict
from mirror.transfer.opened import TOLD, Kit, OpenSeries, Transport
from mirror.transfer.recovery import expose_damaged, recover

#: Disk space that is left alone.
SPARE = 64 * 1024 * 1024
#: Findings that say that bytes came and were wrong.
BAD_BYTES = frozenset(
    {
        FindingKind.NOT_DICOM,
        FindingKind.TRUNCATED,
        FindingKind.WRONG_INSTANCE,
        FindingKind.WRONG_SERIES,
        FindingKind.OTHER_STUDY,
        FindingKind.OTHER_PATIENT,
        FindingKind.MD5_DIFFERS,
    }
)
#: Findings that say that a series does not add up, and not why.
_COUNTS = frozenset(
    {
        FindingKind.INSTANCES_MISSING,
        FindingKind.UNLISTED_INSTANCE,
        FindingKind.COUNT_DIFFERS,
        FindingKind.SIZE_DIFFERS,
        FindingKind.SIZE_UNKNOWN,
        FindingKind.DIGEST_DIFFERS,
    }
)
#: Findings that say that some held bytes are not the archive's, and not which.
_SAY_NOT_WHICH = frozenset({FindingKind.DIGEST_DIFFERS, FindingKind.SIZE_DIFFERS})


async def transfer(kit: Kit, todo: Todo, transport: Transport) -> Outcome | None:
    """Fetch one series and judge it. None when a stop came first: it stays open, and what came is kept.

    Safe to repeat. Raises StoreError, LedgerError, and the ArchiveError of an archive that is down; whatever else is
    wrong with the series is a finding of the outcome.
    """
    open_series = OpenSeries(kit, todo, listing=await kit.ledger.run(kit.ledger.open_series, todo.id))
    # Before anything is asked: whatever the archive says now, the next run must find rows that tell the truth.
    await recover(open_series, transport.source)
    try:
        while True:
            size = await kit.client.get_series_size(todo.series.series_instance_uid)
            if open_series.round == 1:
                await _check_space(open_series, size)
            await transport.fetch(open_series, size)
            await open_series.flush()
            if kit.stop.is_set() and not await _is_whole(open_series):
                return None
            verdict, verified = await _judge(open_series, size)
            if any(f.kind in _SAY_NOT_WHICH for f in verdict.findings) and await expose_damaged(open_series):
                verdict, verified = await _judge(open_series, size)
            # What could not be had is known; only a disagreement about the list itself is worth another list.
            if verdict.ok or open_series.failed or open_series.round == 2:
                break
            await open_series.begin_round_two()
    except Interrupted:
        await open_series.drained()
        await open_series.flush()
        return None
    except ArchiveError as error:
        await open_series.drained()
        await open_series.flush()
        if await kit.client.is_down(error):
            raise
        kind = FindingKind.UNAVAILABLE if error.fate is Fate.RETRY else FindingKind.SERIES_REFUSED
        verdict, verified = Verdict((open_series.finding(kind, str(error)),)), ""
    return await _commit(open_series, verdict, verified if verdict.ok else "")


async def _check_space(open_series: OpenSeries, size: SeriesSize | None) -> None:
    """Refuse to begin a series that the disk cannot hold: the plan did not know its size, or others write here too."""
    kit = open_series.kit
    free = await anyio.to_thread.run_sync(kit.store.free)
    if free is None or size is None or size.total_size_in_bytes is None:
        return
    totals = await kit.ledger.run(kit.ledger.totals, open_series.todo.id, 0)
    needed = size.total_size_in_bytes - totals.held_bytes
    if needed > 0 and needed + SPARE > free:
        raise StoreFull(
            f"{open_series.todo.directory}: the series needs {needed:,} bytes and {SPARE:,} to spare, {free:,} are free"
        )


async def _is_whole(open_series: OpenSeries) -> bool:
    ledger = open_series.kit.ledger
    totals = await ledger.run(ledger.totals, open_series.todo.id, open_series.listing)
    return totals.held == totals.listed > 0


async def _judge(open_series: OpenSeries, size: SeriesSize | None) -> tuple[Verdict, str]:
    """The verdict on a series, and how it was verified besides its instances' own checks."""
    kit, todo = open_series.kit, open_series.todo
    totals = await kit.ledger.run(kit.ledger.totals, todo.id, open_series.listing)
    digests: tuple[str, str] | None = None
    if totals.held == totals.listed and kit.client.server.dialect == "nbia":
        theirs = await _archive_digest(kit, todo.series.series_instance_uid)
        if theirs is not None:
            ours = await kit.ledger.run(lambda: series_digest(kit.ledger.md5s(todo.id)))
            digests = (ours, theirs)
    verdict = check_series(
        todo.series,
        size,
        listed=totals.listed,
        held=totals.held,
        held_bytes=totals.held_bytes,
        unlisted=totals.unlisted,
        digests=digests,
    )
    return verdict, "series-size,series-md5" if digests else "series-size"


async def _archive_digest(kit: Kit, series_instance_uid: str) -> str | None:
    """getMD5Hierarchy of a series; None where the server has no such call or no digest."""
    try:
        return await kit.client.get_md5_hierarchy(SeriesInstanceUID=series_instance_uid)
    except (NotFound, Refused, ServerFault, BadAnswer):
        return None


async def _commit(open_series: OpenSeries, verdict: Verdict, verified: str) -> Outcome:
    """Name the files as the layout numbers them, make them durable, and write the verdict."""
    kit, todo = open_series.kit, open_series.todo
    findings = [*verdict.findings, *open_series.noticed]
    for uid, attempts, next_try, kind, detail in await kit.ledger.run(
        kit.ledger.asked_in_vain, todo.id, open_series.listing, TOLD
    ):
        finding = open_series.finding(kind or FindingKind.UNAVAILABLE, detail or "could not be had", uid)
        findings.append(replace(finding, attempts=attempts, next_try=next_try))
    tolerated = TOLERABLE if kit.settings.on_other_identity == "keep" else frozenset[FindingKind]()
    # Causes, then what they add up to, then what is told besides.
    findings.sort(key=lambda f: 2 if f.kind in tolerated else 1 if f.kind in _COUNTS else 0)
    state = SeriesState.COMPLETE
    if not verdict.ok:
        bad = any(f.kind in BAD_BYTES - tolerated for f in findings)
        state = SeriesState.QUARANTINED if bad else SeriesState.INCOMPLETE
    elif kit.layout.numbered:
        await kit.ledger.run(_number, open_series)
    await anyio.to_thread.run_sync(kit.store.settle, todo.directory)
    await kit.ledger.run(kit.ledger.judge, todo.id, state, findings, verified)
    outcome = Outcome(
        series=todo.series,
        state=state,
        fetched=open_series.fetched,
        reused=open_series.reused,
        failed=open_series.failed,
        bytes_fetched=open_series.bytes_fetched,
        findings=tuple(findings),
    )
    kit.sink(SeriesDone(outcome=outcome))
    return outcome


def _number(open_series: OpenSeries) -> None:
    """Give a complete series the numbered names of its layout. Blocks.

    Names swap among themselves when an instance came in between, so each file goes by way of its provisional name,
    which is its own. From before the first is moved until all lie flushed in place the ledger knows none of them: it
    must never give one instance's name to another, not even after a power cut. A run that ends here leaves files that
    `recover` knows by their headers.
    """
    kit, todo = open_series.kit, open_series.todo
    rows = kit.ledger.numbering(todo.id)
    final = number_names([(uid, acquisition, instance) for uid, _, acquisition, instance in rows])
    moving = [(uid, name) for uid, name, _, _ in rows if name != final[uid]]
    if not moving:
        return
    kit.ledger.forget(todo.id, [uid for uid, _ in moving], durable=True)
    for uid, name in moving:
        if name != kit.layout.file_name(uid):
            kit.store.rename(todo.directory, name, kit.layout.file_name(uid))
    for uid, _ in moving:
        kit.store.rename(todo.directory, kit.layout.file_name(uid), final[uid])
    kit.store.settle(todo.directory)
    kit.ledger.rename(todo.id, [(uid, final[uid]) for uid, _ in moving])
