"""How fast the archive may be asked: requests in flight, their rate, bytes a second, and when to try again.

`Pace` is the one state of it, shared by all requests to a server:

- in flight: what `Limit` finds that the server bears and that is of use, never above the cap.
- Retry-After holds back every request, not only the one that was told.
- per second: an even spacing, when a rate is set; a rest after each request, when it is to be polite.
- bytes: an `Allowance` for all bodies together, when a bandwidth is set.

`retrying` is the one retry loop: full jitter, a number of tries, a deadline.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import anyio

from mirror.archive.allowance import Allowance
from mirror.archive.limit import Limit
from mirror.errors import (
    ArchiveError,
    BadAnswer,
    BodyCut,
    Fate,
    Interrupted,
    ServerFault,
    Stalled,
    Throttled,
    Unreachable,
)
from mirror.events import EventSink, LimitChanged
from mirror.settings import ArchiveSettings

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

#: Statuses that speak of the server rather than of the thing that was asked for.
_SERVER_TROUBLE = frozenset({502, 503, 504})
#: An answer that is not what the call promises is asked for once more, not for ever.
_BAD_ANSWER_TRIES = 2
#: Status 500 mostly means a file that is missing on the archive's side, and stays so.
_SERVER_FAULT_TRIES = 3
#: Seconds between the end of a request and the next, where `archive.polite` is set.
_POLITE_GAP = 2.0


@dataclass(frozen=True, slots=True)
class PaceStatistics:
    """A snapshot: requests in flight, how many may be, the cap, and what one more would bring (see Limit.marginal)."""

    in_flight: int
    limit: int
    cap: int
    marginal: float


class Pace:
    """The shared limits of all requests to one server. See the module's docstring. For one event loop.

    `sleep` is how a request waits for its turn; `rest` is how a body that is being read waits for bandwidth, `wall`
    the local time by which that has its timetable.
    """

    def __init__(
        self,
        settings: ArchiveSettings,
        sink: EventSink,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = anyio.sleep,
        *,
        rest: Sleep = anyio.sleep,
        wall: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._limit = Limit(1 if settings.polite else settings.connections)
        self._deadline = settings.deadline
        self._interval = 1.0 / settings.rate if settings.rate else 0.0
        self._gap = _POLITE_GAP if settings.polite else 0.0
        self._sink = sink
        self._clock = clock
        self.sleep = sleep
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        #: No request begins before this: it is the rate's or the archive's wish. Whether it need be looked at.
        self._next_start = 0.0
        self._held_until = 0.0
        self._is_held = self._interval > 0 or self._gap > 0
        self._allowance = Allowance(settings.bandwidth, clock, rest, wall) if settings.bandwidth else None
        #: Whether `taken` has to be told of what was read.
        self.metered = self._allowance is not None

    def statistics(self) -> PaceStatistics:
        """What is in flight now."""
        return PaceStatistics(self._in_flight, self._limit.value, self._limit.cap, self._limit.marginal)

    def slot(self) -> _Slot:
        """`acquire` and `release` around an async with block."""
        return _Slot(self)

    async def acquire(self) -> None:
        """Wait for leave to send one request; the leave lasts until `release`, whichever task calls that.

        First come, first served. Who is cancelled here has no leave. Raises Throttled when the archive asked to be
        left alone for longer than any request's deadline.
        """
        if self._in_flight < self._limit.value:
            self._in_flight += 1  # nobody waits while a slot is free
        else:
            # A bare future: this happens for most requests, and a lock or an event costs several times as much.
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    self.release()  # the leave came and the cancellation with it
                raise
        if self._is_held:
            try:
                await self._wait_for_start()
            except BaseException:
                self.release()
                raise

    def release(self) -> None:
        """Give back what `acquire` gave."""
        self._in_flight -= 1
        if self._gap:
            self._next_start = max(self._next_start, self._clock() + self._gap)
        if self._waiting:
            self._admit()

    def good(self, size: int, *, seconds: float | None = None) -> None:
        """A request was answered: its body had `size` bytes, and it took `seconds` from its leave to its body's end.

        Call it before `release`.
        """
        if self._allowance is not None and self._allowance.is_limiting():
            seconds = None  # that was our doing
        limit = self._limit
        before = limit.value
        limit.good(self._clock(), size, seconds, self._in_flight >= before)
        if limit.value != before:
            self._tell()

    def trouble(self, error: ArchiveError) -> None:
        """A request failed. Trouble of the server's halves the limit; trouble with one item does not."""
        now = self._clock()
        asked = 0.0
        if isinstance(error, Throttled) and error.retry_after is not None:
            asked = error.retry_after
            self._held_until = max(self._held_until, now + asked)
            self._is_held = True
        if isinstance(error, BodyCut) or is_outage(error):
            before = self._limit.value
            refused = isinstance(error, Throttled) or (isinstance(error, ServerFault) and error.status == 503)
            self._limit.trouble(now, type(error).__name__, refused=refused, retry_after=asked)
            if self._limit.value != before:
                self._tell()

    async def taken(self, count: int) -> None:
        """So many bytes of a body were read; waits as the bandwidth has it. Needed only where `metered` says so."""
        if self._allowance is not None:
            await self._allowance.take(count)

    async def _wait_for_start(self) -> None:
        # Again after each wait: a request may have been told to hold meanwhile, or another have taken this place.
        while (wait := max(self._held_until, self._next_start) - self._clock()) > 0:
            if wait > self._deadline:
                raise Throttled(
                    f"the archive asks to be left alone for {wait:.0f} s more, longer than archive.deadline"
                )
            await self.sleep(wait)
        if self._interval:
            self._next_start = self._clock() + self._interval
        elif not self._gap:
            self._is_held = False

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self._limit.value:
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)

    def _tell(self) -> None:
        self._admit()
        self._sink(LimitChanged(connections=self._limit.value, why=self._limit.why))


class Unpaced(Pace):
    """For a worker, whose every request has its leave from the run that it works for."""

    async def acquire(self) -> None:
        """Leave at once."""
        self._in_flight += 1

    def release(self) -> None:
        """See Pace."""
        self._in_flight -= 1

    def good(self, size: int, *, seconds: float | None = None) -> None:
        """Of no consequence here: the run is told."""

    def trouble(self, error: ArchiveError) -> None:
        """Of no consequence here: the run is told."""


class _Slot:
    __slots__ = ("_pace",)

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    async def __aenter__(self) -> None:
        await self._pace.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._pace.release()


def is_outage(error: ArchiveError) -> bool:
    """True for an error that speaks of the server, not of what was asked: no connection, silence, 429, 502-504."""
    return isinstance(error, Unreachable | Stalled | Throttled) or (
        isinstance(error, ServerFault) and error.status in _SERVER_TROUBLE
    )


def sleeper(stop: anyio.Event) -> Sleep:
    """A sleep that raises Interrupted as soon as `stop` is set: nobody waits for what a stop has made moot."""

    async def sleep(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await stop.wait()
            raise Interrupted("a stop was asked for")

    return sleep


def seconds_of_retry_after(text: str | None, now: float) -> float | None:
    """Seconds from `now` (since 1970) in either form of the header (RFC 9110, 10.2.3); None: absent or senseless."""
    try:
        seconds = float(text or "nan")
    except ValueError:
        moment = moment_of(text)
        if moment is None:
            return None
        seconds = moment - now
    return max(0.0, seconds) if math.isfinite(seconds) else None


def moment_of(text: str | None) -> float | None:
    """Seconds since 1970 of an HTTP date (RFC 9110, 5.6.7), as in the Date header; None: absent or senseless."""
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError):
        return None


async def retrying(work: Callable[[int], Awaitable[T]], settings: ArchiveSettings, sleep: Sleep = anyio.sleep) -> T:
    """Call `work(try_number)` until it succeeds, its error is not worth a try, or tries or time run out.

    The wait before another try is random between nothing and a window that doubles (full jitter), and at least what
    the server asked for. The last error is raised as it came.
    """
    began = time.monotonic()
    try:
        return await work(1)
    except ArchiveError as error:
        if error.fate is not Fate.RETRY:
            raise
        # The machinery of tries is for the few that need one; it counts this as the first.
        return await _again(work, settings, sleep, began, error)


async def _again(
    work: Callable[[int], Awaitable[T]], settings: ArchiveSettings, sleep: Sleep, began: float, first: ArchiveError
) -> T:
    from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
    from tenacity.wait import wait_random_exponential

    jitter = wait_random_exponential(multiplier=settings.retry_wait, max=settings.retry_max_wait)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, Throttled) and error.retry_after else 0.0
        return max(jitter(state), asked + random.uniform(0, settings.retry_wait) if asked else 0.0)

    def enough(state: RetryCallState) -> bool:
        return state.attempt_number >= settings.attempts or (
            time.monotonic() - began + state.upcoming_sleep >= settings.deadline
        )

    seen = Counter[type[BaseException]]()

    def worth_a_try(error: BaseException) -> bool:
        if isinstance(error, BadAnswer):
            most = _BAD_ANSWER_TRIES
        elif isinstance(error, ServerFault) and error.status not in _SERVER_TROUBLE:
            most = _SERVER_FAULT_TRIES
        else:
            return isinstance(error, ArchiveError) and error.fate is Fate.RETRY
        seen[type(error)] += 1
        return seen[type(error)] < most

    loop = AsyncRetrying(
        stop=enough,
        wait=wait,
        retry=retry_if_exception(worth_a_try),
        sleep=sleep,
        reraise=True,
    )
    tries = 0
    async for attempt in loop:
        with attempt:
            tries += 1
            if tries == 1:
                raise first
            return await work(tries)
    raise AssertionError("tenacity ends by a return or by reraising")
