"""Blocking work beside the event loop: calls go in one by one, results come back many at a time.

A hop to a thread and back costs more than hashing and writing a small object. Here a thread that has work takes the
next call without sleeping in between, and the loop is woken once for all the results that have gathered: under load
a hop costs a tenth of what it costs alone.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

import anyio

P = ParamSpec("P")
T = TypeVar("T")

#: One more thread begins when so many calls wait for each that is at work. Threads share one interpreter lock: more of
#: them help where calls wait for a disk, and cost where calls compute.
_WAITING = 8
#: Bytes of a call that may be made in the loop; how long the disk may take for one, and how long all of it.
_SMALL = 128 * 1024
_QUICK = 0.0002
_SOON = 0.005
#: A single one counts as no more than so many times as long.
_OUTLIER = 4


class Inline:
    """Whether a short call is made in the event loop itself: a small body checked and placed, a row looked up.

    Where a disk answers sooner than a thread does, a thread costs more than it saves: loop and thread then fight for
    the interpreter, at every system call of either. It is so with a file system in memory, or when nothing is flushed;
    a disk that gets slower is found out, and threads do it from then on, or for the next `rest` calls.
    """

    def __init__(self, *, soon: float = _SOON, rest: int | None = None) -> None:
        #: Mean seconds of a call up to which the loop may wait for it.
        self._soon = soon
        self._rest = rest
        self._resting = 0
        self._may = False
        self._seconds = 0.0

    def begin(self, seconds: float) -> None:
        """The disk takes so long for a small object."""
        self._may = seconds < _QUICK

    def suits(self, size: int) -> bool:
        """Whether to do it here for so many bytes."""
        if self._seconds >= self._soon and self._rest is not None:
            self._resting += 1
            if self._resting > self._rest:
                # A few tries, unless they are slow as well.
                self._resting, self._seconds = 0, 0.75 * self._soon
        return self._may and size <= _SMALL and self._seconds < self._soon

    def learn(self, seconds: float) -> None:
        """It has taken so long here."""
        # One that takes long for another reason, such as the first to want pydicom, says little of the disk.
        self._seconds += (min(seconds, _OUTLIER * self._soon) - self._seconds) / 32


class Threads:
    """At most `most` threads that work calls off, in the order in which they came.

    They begin when there is work for them, and end with this object. Calls come from one event loop. With `most` 1,
    calls exclude each other.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._desk = _Desk()
        self._begun = 0
        weakref.finalize(self, self._desk.wake.put, False)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises, called in a thread. Not cut short by cancellation: its end is waited for."""
        desk = self._desk
        call = _Call(
            (lambda: work(*args, **kwargs)) if args or kwargs else work, asyncio.get_running_loop().create_future()
        )
        with desk.lock:
            desk.calls.append(call)
            wanted = desk.awake == 0 or (desk.awake < self._most and len(desk.calls) > _WAITING * desk.awake)
            if wanted:
                desk.awake += 1
                begin = self._begun < desk.awake
                self._begun += begin
        if wanted:
            desk.wake.put(True)
            if begin:
                threading.Thread(target=desk.work_off, name=f"{self._name}-{self._begun}", daemon=True).start()
        try:
            await call.future
        except asyncio.CancelledError:
            # The thread goes on whatever happens here, and its caller must not run ahead of it.
            with anyio.CancelScope(shield=True):
                await desk.end_of(call)
            raise
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    @property
    def are_idle(self) -> bool:
        """Whether no call is at work or waits. For the loop, which alone brings calls: it stays so until it does."""
        with self._desk.lock:
            return not (self._desk.awake or self._desk.calls)


class _Call:
    """A call, what came of it, and who waits for that."""

    __slots__ = ("ended", "error", "future", "result", "work")

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[None]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = False

    def perform(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:
            self.error = error


class _Desk:
    """What the loop and the threads share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls: deque[_Call] = deque()
        self.done: list[_Call] = []
        #: Threads that are at work; a token in `wake` is on its way to each that is to be. False ends all.
        self.awake = 0
        self.wake: SimpleQueue[bool] = SimpleQueue()

    def work_off(self) -> None:
        """What a thread does."""
        while self.wake.get():
            while (call := self._next()) is not None:
                call.perform()
                with self.lock:
                    call.ended = True
                    self.done.append(call)
                    first = len(self.done) == 1
                if first:
                    # A loop that is closed waits for nothing any more.
                    with suppress(RuntimeError):
                        call.future.get_loop().call_soon_threadsafe(self.deliver)
        self.wake.put(False)

    def _next(self) -> _Call | None:
        with self.lock:
            if self.calls:
                return self.calls.popleft()
            self.awake -= 1
            return None

    def deliver(self) -> None:
        """Wake those whose calls have ended. In the loop."""
        with self.lock:
            done, self.done = self.done, []
        for call in done:
            if not call.future.done():
                call.future.set_result(None)

    async def end_of(self, call: _Call) -> None:
        """Take a call back that has not begun; wait for the end of one that has."""
        with self.lock:
            if call in self.calls:
                self.calls.remove(call)
                return
            if call.ended:
                return
            call.future = asyncio.get_running_loop().create_future()
        await call.future
