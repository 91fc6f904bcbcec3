"""Every file that is held, read once: series by series, least recently verified first.

    ledger -> [bunches of jobs] -> threads: look at the files -> what was seen, series by series -> judged

A job is some files of one series; small series are bunched, since handing work to a thread costs as much as reading a
small file. Series that were read whole and are sound are noted as verified, in batches. Hides how the work is cut.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from mirror.ledger import HeldFile, HeldFiles, Ledger, Turn
from mirror.model import Finding
from mirror.verification.files import Depth, Entry, Job, Seen, look_at
from mirror.verification.report import Tally

#: A job and a bunch of jobs are so many files or bytes: some hundredths of a second.
_FILES, _BYTES = 256, 16 * 1024 * 1024
#: Rows that are read from the ledger in one go.
_ROWS = 2000
#: Series are noted as verified when so many have gathered, or so many seconds have passed.
_MARKED, _MARK_EVERY = 500, 5.0


@dataclass(frozen=True, slots=True)
class Budget:
    """When a run ends though there is more to look at: after so many seconds, or bytes of files; None: no limit."""

    seconds: float | None = None
    bytes: int | None = None


@dataclass(slots=True)
class Judged:
    """A series whose files have been looked at."""

    held: HeldFiles
    jobs: int
    damaged: list[tuple[Finding, HeldFile]] = field(default_factory=list)
    strays: list[Entry] = field(default_factory=list)
    whole: bool = True


#: Takes a series that was looked at; True where nothing is wrong with it.
Judge = Callable[[Judged], Awaitable[bool]]


@dataclass(slots=True)
class Scan:
    """One walk through the series of a mirror, up to `end`."""

    root: Path
    ledger: Ledger
    depth: Depth
    tally: Tally
    stop: anyio.Event
    judge: Judge
    end: Turn
    #: Where the walk stands: all series up to here have been dealt out.
    at: Turn
    _open: dict[int, Judged] = field(default_factory=dict)
    _verified: list[int] = field(default_factory=list)
    _marked_at: float = field(default_factory=time.monotonic)

    async def run(self, collections: Sequence[str], budget: Budget, began: float) -> None:
        """Look at all series, or at as many as the budget and a stop allow; at one at least."""
        threads = max(2, os.cpu_count() or 2)
        limiter = anyio.CapacityLimiter(threads)
        send, receive = anyio.create_memory_object_stream[list[Job]](threads)
        async with anyio.create_task_group() as tasks, receive:
            tasks.start_soon(self._deal, send, collections, budget, began)
            # Twice as many as there are threads: some wait for the ledger, or for an archive.
            for _ in range(2 * threads):
                tasks.start_soon(self._work, receive.clone(), limiter)
        await self._mark()

    async def _deal(
        self, send: MemoryObjectSendStream[list[Job]], collections: Sequence[str], budget: Budget, began: float
    ) -> None:
        """Cut series into jobs, and hand them out in bunches."""
        dealt = 0
        bunch: list[Job] = []
        async with send:
            while page := await self.ledger.run(self.ledger.held_files, collections, self.at, self.end, _ROWS):
                for held in page:
                    spent = (budget.bytes is not None and dealt >= budget.bytes) or (
                        budget.seconds is not None and time.monotonic() - began >= budget.seconds
                    )
                    if self.stop.is_set() or (spent and dealt):
                        page = []
                        break
                    jobs = list(_cut(held))
                    self._open[held.id] = Judged(held, len(jobs))
                    self.at = held.turn
                    dealt += max(1, held.bytes)
                    for job in jobs:
                        bunch.append(job)
                        if _is_full(bunch):
                            await send.send(bunch)
                            bunch = []
                if not page:
                    break
            if bunch:
                await send.send(bunch)

    async def _work(self, receive: MemoryObjectReceiveStream[list[Job]], limiter: anyio.CapacityLimiter) -> None:
        async with receive:
            async for bunch in receive:
                done = await anyio.to_thread.run_sync(
                    look_at, self.root, bunch, self.depth, self.stop.is_set, limiter=limiter
                )
                for seen in done:
                    await self._take(seen)

    async def _take(self, seen: Seen) -> None:
        """Put what was seen to the rest of its series; judge the series when all of it is in."""
        self.tally.looked(seen.files, seen.bytes)
        judged = self._open[seen.job.held.id]
        judged.jobs -= 1
        judged.damaged += seen.damaged
        judged.strays += seen.strays
        judged.whole = judged.whole and seen.whole
        if judged.jobs:
            return
        del self._open[judged.held.id]
        sound = await self.judge(judged)
        if not judged.whole:
            return
        self.tally.series += 1
        if sound and self.depth is not Depth.QUICK:
            self._verified.append(judged.held.id)
            if len(self._verified) >= _MARKED or time.monotonic() - self._marked_at >= _MARK_EVERY:
                await self._mark()

    async def _mark(self) -> None:
        """Note the series that were found sound; they go behind all others."""
        series, self._verified, self._marked_at = self._verified, [], time.monotonic()
        if series:
            at = max(int(time.time()), self.end[0] + 1)
            await self.ledger.run(self.ledger.mark_verified, series, at)


def _cut(held: HeldFiles) -> Iterator[Job]:
    """A series in jobs; one that holds nothing still has a directory to list."""
    files: list[HeldFile] = []
    size, first = 0, True
    for file in held.files:
        files.append(file)
        size += file.bytes
        if len(files) >= _FILES or size >= _BYTES:
            yield Job(held, files, first)
            files, size, first = [], 0, False
    if files or first:
        yield Job(held, files, first)


def _is_full(bunch: Sequence[Job]) -> bool:
    files = sum(len(job.files) + 1 for job in bunch)
    return files >= _FILES or sum(file.bytes for job in bunch for file in job.files) >= _BYTES
