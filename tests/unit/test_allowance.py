"""Bytes a second for all bodies together, by a timetable: on a fake clock."""

from __future__ import annotations

from datetime import datetime, timedelta

import anyio
import pytest
from fakes.clock import Clock

from mirror.archive.pacing import Pace
from mirror.events import ignore
from mirror.settings import ArchiveSettings


class Day(Clock):
    """A clock that knows the local time as well: a Monday from midnight."""

    def wall(self) -> datetime:
        return datetime(2024, 1, 1) + timedelta(seconds=self.time)


def metered(clock: Day, bandwidth: str) -> Pace:
    settings = ArchiveSettings(bandwidth=bandwidth)
    return Pace(settings, ignore, clock.now, clock.sleep, rest=clock.sleep, wall=clock.wall)


@pytest.mark.asyncio
async def test_without_a_bandwidth_nothing_is_metered():
    clock = Clock()
    pace = Pace(ArchiveSettings(), ignore, clock.now, clock.sleep, rest=clock.sleep)
    assert not pace.metered
    await pace.taken(10**12)
    assert clock.slept == []


@pytest.mark.asyncio
async def test_a_bandwidth_holds_for_all_bodies_together():
    clock = Day(0.0)
    pace = metered(clock, "1MB/s")
    assert pace.metered

    async def body() -> None:
        for _ in range(100):
            await pace.taken(100_000)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(body)
    assert clock.now() == pytest.approx(40.0, abs=0.5)


@pytest.mark.asyncio
async def test_what_was_not_used_is_not_made_up_for():
    clock = Day(0.0)
    pace = metered(clock, "1MB/s")
    await pace.taken(1)
    clock.time = 3600.0
    for _ in range(100):
        await pace.taken(100_000)
    assert clock.now() == pytest.approx(3610.0, abs=0.6)


@pytest.mark.asyncio
async def test_a_window_that_begins_or_ends_during_a_run_is_obeyed_at_once():
    clock = Day(8 * 3600 - 10.0)
    pace = metered(clock, "08:00-18:00 1MB/s, else full")
    for _ in range(10):
        await pace.taken(10**9)
        clock.time += 1.0
    assert clock.slept == []
    assert clock.now() == 8 * 3600
    for _ in range(100):
        await pace.taken(100_000)
    assert clock.now() == pytest.approx(8 * 3600 + 10, abs=0.6)
    clock.time = 18 * 3600 - 2.0
    await pace.taken(100_000_000)
    assert clock.now() <= 18 * 3600 + 5, "who waits for a debt of the day does not wait for it at night"
    clock.slept.clear()
    await pace.taken(10**12)
    assert clock.slept == []


@pytest.mark.asyncio
async def test_answers_that_the_bandwidth_slows_down_say_nothing_of_the_server():
    clock, limits = Day(0.0), list[int]()
    pace = metered(clock, "00:00-12:00 1MB/s")
    for _ in range(8):
        await pace.acquire()
        pace.good(1000, seconds=0.1)
    for seconds in [0.1] * 200 + [100.0] * 100:
        clock.time += seconds
        pace.good(1000, seconds=seconds)
        limits.append(pace.statistics().limit)
    assert set(limits) == {8}
