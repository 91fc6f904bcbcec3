"""Clocks that only move when somebody moves them: one by sleeping, an archive's by a test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio

from fakes.archive import FakeArchive


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


class Nights:
    """The clock of an archive: two in the morning, until time passes by."""

    def __init__(self, archive: FakeArchive) -> None:
        self.now = datetime(2024, 5, 1, 2, tzinfo=UTC)
        archive.now = lambda: self.now

    @property
    def today(self) -> str:
        """The ISO day."""
        return self.now.date().isoformat()

    def pass_by(self, **time: float) -> None:
        """Move on by days, hours or minutes."""
        self.now += timedelta(**time)
