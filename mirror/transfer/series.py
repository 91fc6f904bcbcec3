"""One series, from taken up to judged."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mirror.check import check_series, series_digest
from mirror.errors import ArchiveError, BadAnswer, Fate, Interrupted, NotFound, Refused, ServerFault, StoreFull
from mirror.events import SeriesDone
from mirror.layout import number_names
from mirror.ledger import JUDGED, SeriesTotals, Todo
from mirror.model import (
    TOLERABLE,
    Finding,
    FindingKind,
    Happened,
    HistoryEntry,
    Outcome,
    SeriesSize,
    SeriesState,
    Verdict,
    Why,
)
from mirror.transfer.opened import TOLD, Kit, OpenSeries, Transport
from mirror.transfer.recovery import expose_damaged, recover, retire_unlisted

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
        FindingKind.INSTANCE_DOUBTED,
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
    open_series = OpenSeries(kit, todo)
    # Before anything is asked: whatever the archive says now, the next run must find rows that tell the truth.
    await recover(open_series, transport.source)
    try:
        await _settle_doubt(open_series)
        while True:
            size = await kit.client.get_series_size(todo.series.series_instance_uid)
            if open_series.round == 1:
                await _check_space(open_series, size)
            await transport.fetch(open_series, size)
            standing = await open_series.turn(lambda: _stand(open_series))
            if kit.stop.is_set() and not standing.is_whole:
                return None
            verdict, verified = await _judge(open_series, size, standing)
            if any(f.kind in _SAY_NOT_WHICH for f in verdict.findings) and await expose_damaged(open_series):
                standing = await open_series.turn(lambda: _stand(open_series))
                verdict, verified = await _judge(open_series, size, standing)
            if _shrank(verdict) and await retire_unlisted(open_series):
                standing = await open_series.turn(lambda: _stand(open_series))
                verdict, verified = await _judge(open_series, size, standing)
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


async def _settle_doubt(open_series: OpenSeries) -> None:
    """A change that the archive tells of: does its digest say which instances it is, or must all be compared?"""
    kit, todo = open_series.kit, open_series.todo
    if not todo.doubted:
        return
    told = None
    if kit.client.server.dialect == "nbia":
        told = await _archive_digest(kit, todo.series.series_instance_uid)
    # Where there is a digest, it judges the series when all of it is here, and names what is not the archive's.
    open_series.by_digest = told is not None
    if told is None:
        await kit.ledger.run(kit.ledger.doubt, todo.id, None)


def _shrank(verdict: Verdict) -> bool:
    """Everything listed adds up by count, bytes and digest; what is held besides may have left the archive."""
    return {finding.kind for finding in verdict.findings} == {FindingKind.UNLISTED_INSTANCE}


async def _check_space(open_series: OpenSeries, size: SeriesSize | None) -> None:
    """Refuse to begin a series that the disk cannot hold: the plan did not know its size, or others write here too."""
    free = open_series.free
    if free is None or size is None or size.total_size_in_bytes is None or size.total_size_in_bytes + SPARE <= free:
        return
    totals = await open_series.kit.ledger.run(open_series.kit.ledger.totals, open_series.todo.id, 0)
    needed = size.total_size_in_bytes - totals.held_bytes
    if needed > 0 and needed + SPARE > free:
        raise StoreFull(
            f"{open_series.todo.directory}: the series needs {needed:,} bytes and {SPARE:,} to spare, {free:,} are free"
        )


@dataclass(frozen=True, slots=True)
class _Standing:
    """How much of a series is here, and our digest of it where it is all here and the archive may have one."""

    totals: SeriesTotals
    digest: str | None

    @property
    def is_whole(self) -> bool:
        return self.totals.held == self.totals.listed > 0 and not self.totals.doubted


def _stand(open_series: OpenSeries) -> _Standing:
    """Write what has come, and see how the series stands. In the ledger's thread."""
    kit, todo = open_series.kit, open_series.todo
    open_series.write()
    totals = kit.ledger.totals(todo.id, open_series.listing)
    if totals.held != totals.listed or kit.client.server.dialect != "nbia":
        return _Standing(totals, None)
    return _Standing(totals, series_digest(kit.ledger.md5s(todo.id, open_series.listing)))


async def _judge(open_series: OpenSeries, size: SeriesSize | None, standing: _Standing) -> tuple[Verdict, str]:
    """The verdict on a series, and how it was verified besides its instances' own checks."""
    kit, todo = open_series.kit, open_series.todo
    totals = standing.totals
    digests: tuple[str, str] | None = None
    if standing.digest is not None:
        theirs = await _archive_digest(kit, todo.series.series_instance_uid)
        if theirs is not None:
            digests = (standing.digest, theirs)
        elif open_series.by_digest:
            # It has told of a change, and does not tell any more what it is.
            open_series.by_digest = False
            await kit.ledger.run(kit.ledger.doubt, todo.id, None)
            totals = await kit.ledger.run(kit.ledger.totals, todo.id, open_series.listing)
    verdict = check_series(
        todo.series,
        size,
        listed=totals.listed,
        held=totals.held,
        held_bytes=totals.held_bytes - totals.unlisted_bytes,
        unlisted=totals.unlisted,
        doubted=totals.doubted,
        digests=digests,
    )
    return verdict, f"{JUDGED},series-md5" if digests else JUDGED


async def _archive_digest(kit: Kit, series_instance_uid: str) -> str | None:
    """getMD5Hierarchy of a series; None where the server has no such call or no digest.

    Raises the ArchiveError of an archive that is down: its silence must not pass for a server without digests.
    """
    if not kit.digest_call.is_there:
        return None
    try:
        digest = await kit.client.get_md5_hierarchy(SeriesInstanceUID=series_instance_uid)
    except (NotFound, Refused, ServerFault, BadAnswer) as error:
        if await kit.client.is_down(error):
            raise
        if isinstance(error, NotFound):
            kit.digest_call.missed()
        return None
    kit.digest_call.answered()
    return digest


async def _commit(open_series: OpenSeries, verdict: Verdict, verified: str) -> Outcome:
    """Name the files as the layout numbers them, make them durable, and write the verdict."""
    kit, todo = open_series.kit, open_series.todo
    findings = [*verdict.findings, *open_series.noticed]
    if not verdict.ok:
        findings += await kit.ledger.run(_in_vain, open_series)
    tolerated = TOLERABLE if kit.settings.on_other_identity == "keep" else frozenset[FindingKind]()
    # Causes, then what they add up to, then what is told besides.
    findings.sort(key=lambda f: 2 if f.kind in tolerated else 1 if f.kind in _COUNTS else 0)
    state = SeriesState.COMPLETE
    if not verdict.ok:
        bad = any(f.kind in BAD_BYTES - tolerated for f in findings)
        state = SeriesState.QUARANTINED if bad else SeriesState.INCOMPLETE
    elif kit.layout.numbered:
        await kit.ledger.run(_number, open_series)
    if kit.inline.suits(0):
        kit.store.settle(todo.directory)
    else:
        await kit.threads.run(kit.store.settle, todo.directory)
    await open_series.turn(lambda: kit.ledger.judge(todo.id, state, findings, verified, _history(open_series, state)))
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


def _in_vain(open_series: OpenSeries) -> list[Finding]:
    """What could not be had, with how often that was tried. In the ledger's thread."""
    found = []
    for uid, attempts, next_try, kind, detail in open_series.kit.ledger.asked_in_vain(
        open_series.todo.id, open_series.listing, TOLD
    ):
        finding = open_series.finding(kind or FindingKind.UNAVAILABLE, detail or "could not be had", uid)
        found.append(replace(finding, attempts=attempts, next_try=next_try))
    return found


def _history(open_series: OpenSeries, state: SeriesState) -> list[HistoryEntry]:
    """What became of the series in this run, where something did."""
    kit, series = open_series.kit, open_series.todo.series
    why_fetched = open_series.todo.why
    # What a repair brings is told instance by instance, by who proves it.
    if why_fetched is Why.DAMAGED or not (open_series.fetched or why_fetched in (Why.NEW, Why.CHANGED)):
        return []
    totals = kit.ledger.totals(open_series.todo.id, open_series.listing)
    why = f"{open_series.todo.why}; {state}"
    if open_series.fetched:
        why += f"; {open_series.fetched} instances fetched"
    return [
        HistoryEntry(
            what=Happened.CHANGED if open_series.todo.why is Why.CHANGED else Happened.CAME,
            why=why,
            collection=series.collection,
            series_instance_uid=series.series_instance_uid,
            instances=totals.held + totals.unlisted,
            bytes=totals.held_bytes,
            run=kit.run,
        )
    ]


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
