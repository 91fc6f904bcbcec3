"""How fast the archive may be asked: requests in flight, requests per second, and when to try again.

`Pace` is the one state of it, shared by all requests to a server:

- in flight: grows by one after each window of good answers while throughput does not fall, never above the cap;
  halves when the server shows trouble (429, 502-504, stalls, broken connections), once per window.
- Retry-After holds back every request, not only the one that was told.
- per second: an even spacing, when a rate is set.

`retrying` is the one retry loop: full jitter, a number of tries, a deadline.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_random_exponential

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
_START = 4


@dataclass(frozen=True, slots=True)
class PaceStatistics:
    """A snapshot: requests in flight, how many may be, and the cap."""

    in_flight: int
    limit: int
    cap: int


class Pace:
    """The shared limits of all requests to one server. See the module's docstring."""

    def __init__(
        self,
        settings: ArchiveSettings,
        sink: EventSink,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self._cap = settings.connections
        self._deadline = settings.deadline
        self._limiter = anyio.CapacityLimiter(min(_START, self._cap))
        self._interval = 1.0 / settings.rate if settings.rate else 0.0
        self._sink = sink
        self._clock = clock
        self.sleep = sleep
        self._next_start = 0.0
        self._held_until = 0.0
        self._window_start = clock()
        self._window_answers = 0
        self._window_bytes = 0
        self._last_throughput = 0.0
        self._last_halving = float("-inf")

    def statistics(self) -> PaceStatistics:
        """What is in flight now."""
        return PaceStatistics(self._limiter.borrowed_tokens, int(self._limiter.total_tokens), self._cap)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for leave to send one request; the leave lasts until its body has been read.

        Raises Throttled when the archive asked to be left alone for longer than any request's deadline.
        """
        # Not on behalf of the task: a body that is an async generator may be ended by another one than began it.
        borrower = object()
        await self._limiter.acquire_on_behalf_of(borrower)
        try:
            # Again after each wait: a request may have been told to hold meanwhile, or another have taken this place.
            while (wait := max(self._held_until, self._next_start) - self._clock()) > 0:
                if wait > self._deadline:
                    raise Throttled(
                        f"the archive asks to be left alone for {wait:.0f} s more, longer than archive.deadline"
                    )
                await self.sleep(wait)
            self._next_start = self._clock() + self._interval
            yield
        finally:
            self._limiter.release_on_behalf_of(borrower)

    def good(self, size: int) -> None:
        """A request was answered; `size` is its body in bytes."""
        now = self._clock()
        self._window_answers += 1
        # Every answer counts as a kilobyte as well, so that small objects tell of throughput too.
        self._window_bytes += size + 1024
        limit = int(self._limiter.total_tokens)
        if self._window_answers < 2 * limit:
            return
        throughput = self._window_bytes / max(now - self._window_start, 1e-6)
        if throughput >= 0.9 * self._last_throughput:
            self._set_limit(limit + 1, "throughput holds")
        elif limit > _START:
            self._set_limit(limit - 1, "throughput fell")
        self._last_throughput = throughput
        self._begin_window(now)

    def trouble(self, error: ArchiveError) -> None:
        """A request failed. Trouble of the server's halves the limit; trouble with one item does not."""
        now = self._clock()
        if isinstance(error, Throttled) and error.retry_after is not None:
            self._held_until = max(self._held_until, now + error.retry_after)
        overloaded = isinstance(error, BodyCut) or is_outage(error)
        # All requests in flight fail together when a server is overloaded: that is one trouble, not eight.
        if overloaded and now - self._last_halving > 1.0:
            self._last_halving = now
            self._set_limit(int(self._limiter.total_tokens) // 2, type(error).__name__)
            self._last_throughput = 0.0
            self._begin_window(now)

    def _begin_window(self, now: float) -> None:
        self._window_start, self._window_answers, self._window_bytes = now, 0, 0

    def _set_limit(self, limit: int, why: str) -> None:
        limit = max(1, min(limit, self._cap))
        if limit != self._limiter.total_tokens:
            self._limiter.total_tokens = limit
            self._sink(LimitChanged(connections=limit, why=why))


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
        try:
            seconds = parsedate_to_datetime(text or "").timestamp() - now
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


async def retrying(work: Callable[[int], Awaitable[T]], settings: ArchiveSettings, sleep: Sleep = anyio.sleep) -> T:
    """Call `work(try_number)` until it succeeds, its error is not worth a try, or tries or time run out.

    The wait before another try is random between nothing and a window that doubles (full jitter), and at least what
    the server asked for. The last error is raised as it came.
    """
    jitter = wait_random_exponential(multiplier=settings.retry_wait, max=settings.retry_max_wait)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, Throttled) and error.retry_after else 0.0
        return max(jitter(state), asked + random.uniform(0, settings.retry_wait) if asked else 0.0)

    tries = 0
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
        stop=stop_after_attempt(settings.attempts) | stop_before_delay(settings.deadline),
        wait=wait,
        retry=retry_if_exception(worth_a_try),
        sleep=sleep,
        reraise=True,
    )
    async for attempt in loop:
        with attempt:
            tries += 1
            return await work(tries)
    raise AssertionError("tenacity ends by a return or by reraising")
