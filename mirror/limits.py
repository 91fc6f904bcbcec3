"""What ends a run early and in order: so many bytes fetched (`sync.max_bytes`), so long at work (`sync.max_duration`).

A limit does what a first signal does: it sets the run's stop. Bytes are those of objects' bodies as they came over the
wire, tries that failed included. A job, which is one object or one series as a zip, begins only when it fits beside
what is fetched and what is under way; where nobody knows its size, what is in flight may come on top of the limit.
Until something has landed one job at a time begins whatever its size: so each run gets on by an object at least, and
a row of runs comes to an end however small their limit is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio

from mirror.archive.endpoints import ENDPOINTS, Answer
from mirror.errors import Interrupted
from mirror.events import Event, EventSink, InstancePublished, LimitReached, Planned, RequestDone, ignore
from mirror.settings import SyncSettings, bytes_of, seconds_of

#: Seconds that what is in flight has to land after `sync.max_duration`, before it is cut off.
GRACE = 300.0
#: The calls whose bodies are objects.
_OBJECTS = frozenset(name for name, call in ENDPOINTS.items() if call.answer in (Answer.ZIP, Answer.DICOM))


class Limits:
    """The limits of one run, told its events. Without settings there are none."""

    def __init__(
        self, settings: SyncSettings | None = None, stop: anyio.Event | None = None, sink: EventSink = ignore
    ) -> None:
        self._settings = settings or SyncSettings()
        #: Most bytes and seconds; 0: no limit.
        self.bytes = bytes_of(self._settings.max_bytes)
        self.seconds = seconds_of(self._settings.max_duration)
        #: Which limit set the stop, in words; "" as long as none did.
        self.reached = ""
        self._stop = stop or anyio.Event()
        self._sink = sink
        self._deadline = float("inf")
        self._planned = self._begun = self._landed = False
        self._fetched = 0
        #: What is under way, and the bytes that it may come to.
        self._under_way: dict[Hashable, int] = {}
        self._ended = anyio.Event()

    @property
    def any(self) -> bool:
        """True when there is a limit."""
        return bool(self.bytes or self.seconds)

    def __call__(self, event: Event) -> None:
        """Count what was fetched. Never raises."""
        match event:
            # Not what was asked before the first job, to see what the server can: it brings nothing into the tree.
            case RequestDone(call=call, bytes=size) if self._begun and call in _OBJECTS:
                self._fetched += size
            case InstancePublished(reused=False):
                self._landed = True
            case Planned():
                self._planned = True
            case _:
                pass

    @asynccontextmanager
    async def watched(self, asked: anyio.Event) -> AsyncIterator[None]:
        """A run's time begins here. Meanwhile the stop is set when `asked` is, and when the time is up."""
        if self.seconds:
            self._deadline = anyio.current_time() + self.seconds
        async with anyio.create_task_group() as tasks:

            async def hear() -> None:
                await asked.wait()
                self._stop.set()

            async def wait() -> None:
                await anyio.sleep_until(self._deadline)
                so_far = "" if self._planned else ", and the crawl is not; it begins anew with what it has not finished"
                self._reach(f"sync.max_duration: {self._settings.max_duration} are over{so_far}")

            tasks.start_soon(hear)
            if self.seconds:
                tasks.start_soon(wait)
            yield
            tasks.cancel_scope.cancel()

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """What is done herein is cut off when it goes on for too long after the time was up."""
        with anyio.CancelScope(deadline=self._deadline + GRACE) as scope:
            try:
                yield
            except* Interrupted:
                # A request that is no series' own, such as whether the archive is down, was waiting when the stop came.
                pass
        if scope.cancelled_caught and self.reached:
            self._tell(f"{self.reached}; what did not land in {GRACE:.0f} s after that was cut off")

    async def begin(self, job: Hashable, size: int) -> bool:
        """Wait for leave to begin a job of about `size` bytes (0: nobody knows). False: the run stops.

        What is given leave says by `end` that it has ended. Until then it is safe to repeat.
        """
        while not self._stop.is_set():
            if not self.bytes or job in self._under_way:
                return True
            if self._fits(size):
                self._begun = True
                self._under_way[job] = size
                return True
            if not self._under_way:
                self._reach(self._bytes_told(size))
            else:
                # What is under way may come to less than was thought.
                await self._ended.wait()
        return False

    def end(self, job: Hashable) -> None:
        """A job has ended, well or not, or never began."""
        if self._under_way.pop(job, None) is not None:
            self._ended.set()
            self._ended = anyio.Event()

    def _fits(self, size: int) -> bool:
        if self._fetched + sum(self._under_way.values()) + max(size, 1) <= self.bytes:
            return True
        return not (self._under_way or self._landed) and self._fetched < self.bytes

    def _bytes_told(self, size: int) -> str:
        more = "" if self._fetched >= self.bytes else f", and what comes next has about {size:,}"
        return f"sync.max_bytes: {self._fetched:,} of {self.bytes:,} bytes are fetched{more}"

    def _reach(self, why: str) -> None:
        # Who was asked to stop before that stops for that reason.
        if not self._stop.is_set():
            self._stop.set()
            self._tell(why)

    def _tell(self, why: str) -> None:
        self.reached = why
        self._sink(LimitReached(why=why))
