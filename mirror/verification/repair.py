"""What is done about damage: out of the tree, out of the ledger, fetched again, and proved.

    remember   the SHA-256 that the instance had goes into the history, for good
    set aside  what lies in its place goes to quarantine; nothing is deleted
    forget     its row says that it is not held, and the series is planned, in one transaction
    fetch      as any other planned series: what is held and sound is not touched
    prove      the file is read again; it has the bytes from before the damage, or those the archive has now

Killed between any two of these, the tree has no wrong file with a row, and the next repair goes on from the history.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from mirror.layout import Layout
from mirror.ledger import Damage, HeldFile, HeldFiles, Ledger, Whereabouts
from mirror.model import Finding, FindingKind, Happened, HistoryEntry, SeriesState
from mirror.tree import Store
from mirror.verification.files import sha256_of
from mirror.verification.report import Tally
from mirror.verification.strays import Stray

_PAGE = 200
#: Findings whose bytes stay in their place: the transfer finds out what the archive has, and retires them.
_STAYS = frozenset({FindingKind.MD5_DIFFERS})


@dataclass(frozen=True, slots=True)
class Repair:
    """Acts on what a verification finds, for one run of it. Each method is safe to repeat."""

    root: Path
    ledger: Ledger
    store: Store
    layout: Layout
    tally: Tally
    run: str

    async def damaged(self, held: HeldFiles, damaged: Sequence[tuple[Finding, HeldFile]]) -> None:
        """Take damaged files out of tree and ledger, and plan their series for this run."""
        ledger = self.ledger
        entries = [
            _entry(Happened.DAMAGED, f"{f.kind}: {f.detail}", f, self.run, old_sha256=file.sha256.hex())
            for f, file in damaged
        ]
        await ledger.run(ledger.note_damage, entries)

        def set_aside() -> None:
            for finding, file in damaged:
                if finding.kind is not FindingKind.FILE_MISSING and finding.kind not in _STAYS:
                    self.store.set_aside(held.directory, file.name, (finding,))
            # A name that came back after a power cut, without a row, would be believed by its header.
            self.store.settle(held.directory)

        await anyio.to_thread.run_sync(set_aside)
        lost = [file.sop_instance_uid for finding, file in damaged if finding.kind not in _STAYS]
        await ledger.run(ledger.lose, held.id, lost, self.run)

    async def stray(self, stray: Stray) -> None:
        """Give a misplaced file its place, have an unrecorded one recorded, and set a foreign one aside."""
        owner, finding = stray.owner, stray.finding
        if owner is None:
            await anyio.to_thread.run_sync(self.store.set_aside, stray.directory, stray.name, (finding,))
            self.tally.mend("set aside", finding.path or "")
        elif finding.kind is FindingKind.FILE_MISPLACED and owner.name is not None:
            entry = _entry(Happened.REPAIRED, f"it lay at {finding.path}", finding, self.run, sha256=_hex(stray))
            if await self._move(stray, owner, owner.name):
                await self.ledger.run(self.ledger.note, [entry])
                self.tally.mend("moved", finding.path or "")
        else:
            why = f"{finding.kind}: {finding.detail}"
            entry = _entry(Happened.DAMAGED, why, finding, self.run, old_sha256=_hex(stray))
            await self.ledger.run(self.ledger.note_damage, [entry])
            uid = owner.sop_instance_uid
            unrecorded = finding.kind is FindingKind.FILE_UNRECORDED
            if unrecorded or await self._move(stray, owner, self.layout.file_name(uid)):
                # The file has no row: taken up again, the series checks it where it lies.
                await self.ledger.run(self.ledger.lose, owner.id, [], self.run)

    async def _move(self, stray: Stray, owner: Whereabouts, name: str) -> bool:
        to = owner.directory, name
        moved = await anyio.to_thread.run_sync(self.store.move, stray.directory, stray.name, to)
        if moved:
            await anyio.to_thread.run_sync(self.store.settle, owner.directory)
        else:
            self.tally.stuck += 1
        return moved

    async def prove(self, collections: Sequence[str]) -> int:
        """Read again what was damaged and came back, and write down how each damage ended; how many are open still."""
        still_open = 0
        async for damage in damages(self.ledger, self.run, collections):
            ended, sha256 = await anyio.to_thread.run_sync(self._proof, damage)
            if ended is None:
                still_open += 1
                continue
            uid, path = damage.sop_instance_uid, damage.directory
            if damage.file is not None:
                path = f"{path}/{damage.file.name}"
            if damage.closed is None:
                entry = HistoryEntry(
                    what=ended,
                    why=_ENDED[ended],
                    collection=damage.collection,
                    series_instance_uid=damage.series_instance_uid,
                    sop_instance_uid=uid,
                    old_sha256=damage.sha256.hex(),
                    sha256=sha256.hex() if sha256 else None,
                    run=self.run,
                )
                await self.ledger.run(self.ledger.note, [entry])
            self.tally.mend(str(ended), path)
        return still_open

    def _proof(self, damage: Damage) -> tuple[Happened | None, bytes | None]:
        """How a damage ended, None: it has not; and the SHA-256 that the file has now. Blocks."""
        if damage.file is None:
            gone = damage.state is SeriesState.COMPLETE
            return (Happened.LEFT if gone else damage.closed), None
        there = sha256_of(self.root / damage.directory / damage.file.name)
        if there != damage.file.sha256:
            return None, None
        if there != damage.sha256:
            return Happened.CHANGED, there
        doubted = damage.why.partition(":")[0] in _STAYS
        return (None if doubted and damage.state is not SeriesState.COMPLETE else Happened.REPAIRED), there


_ENDED = {
    Happened.REPAIRED: "it has the bytes from before the damage",
    Happened.CHANGED: "it came again with other bytes: the archive has changed it",
    Happened.LEFT: "damaged, and the archive does not list it any more",
}


async def damages(ledger: Ledger, run: str, collections: Sequence[str]) -> AsyncIterator[Damage]:
    """Damages that are open or were found by this run, in the order in which they were found."""
    after = 0
    while page := await ledger.run(ledger.damages, run, collections, after, _PAGE):
        for damage in page:
            yield damage
        after = page[-1].id


def _hex(stray: Stray) -> str | None:
    return stray.sha256.hex() if stray.sha256 else None


def _entry(
    what: Happened, why: str, finding: Finding, run: str, *, old_sha256: str | None = None, sha256: str | None = None
) -> HistoryEntry:
    return HistoryEntry(
        what=what,
        why=why,
        collection=finding.collection or "",
        series_instance_uid=finding.series_instance_uid or "",
        sop_instance_uid=finding.sop_instance_uid,
        old_sha256=old_sha256,
        sha256=sha256,
        run=run,
    )
