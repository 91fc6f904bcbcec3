"""A clock that only moves when somebody sleeps by it."""

from __future__ import annotations

import anyio


class Clock:
    """`now()` is the time, `sleep` moves it; whoever sleeps to an earlier moment than others wakes no later."""

    def __init__(self, time: float = 1000.0) -> None:
        self.time = time
        #: Every sleep that was asked for, in order.
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        wake = self.time + seconds
        await anyio.lowlevel.checkpoint()
        self.time = max(self.time, wake)
