"""When a failed request is tried again, and how often: on a fake clock."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from fakes.clock import Clock
from fakes.trouble import TROUBLE

from mirror.archive.pacing import retrying
from mirror.errors import (
    ArchiveError,
    BadAnswer,
    BodyCut,
    NotFound,
    Refused,
    ServerFault,
    StoreFull,
    Throttled,
)
from mirror.settings import ArchiveSettings


class Work:
    """Fails with these errors, one a call, then gives its number of calls."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.numbers: list[int] = []

    async def __call__(self, number: int) -> int:
        self.numbers.append(number)
        if self.errors:
            raise self.errors.pop(0)
        return len(self.numbers)


async def run(work: Callable[[int], object], clock: Clock | None = None, **settings: float) -> object:
    clock = clock or Clock()
    return await retrying(work, ArchiveSettings(**settings), clock.sleep)  # type: ignore[arg-type] - any awaitable


@pytest.mark.asyncio
async def test_what_succeeds_is_asked_once():
    work, clock = Work(), Clock()
    assert await run(work, clock) == 1
    assert (work.numbers, clock.slept) == ([1], [])


@pytest.mark.parametrize("error", TROUBLE, ids=repr)
@pytest.mark.asyncio
async def test_trouble_of_the_servers_is_tried_as_often_as_the_settings_say(error: ArchiveError):
    work = Work(*[error] * 10)
    with pytest.raises(type(error)) as caught:
        await run(work, attempts=4)
    assert caught.value is error
    assert work.numbers == [1, 2, 3, 4]
    assert await run(Work(error, error), attempts=3) == 3


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (ServerFault("x", status=500), 3),
        (ServerFault("x", status=501), 3),
        (BadAnswer("x"), 2),
        (NotFound("x"), 1),
        (Refused("x"), 1),
        (StoreFull("x"), 1),
        (ValueError("a bug"), 1),
    ],
    ids=repr,
)
@pytest.mark.asyncio
async def test_how_often_the_rest_is_tried(error: Exception, tries: int):
    work = Work(*[error] * 10)
    with pytest.raises(type(error)):
        await run(work, attempts=5)
    assert len(work.numbers) == tries


@pytest.mark.asyncio
async def test_one_attempt_means_one():
    work = Work(BadAnswer("x"))
    with pytest.raises(BadAnswer):
        await run(work, attempts=1)
    assert work.numbers == [1]


@pytest.mark.asyncio
async def test_the_wait_is_random_in_a_window_that_doubles_up_to_its_limit():
    windows = [2.0, 4.0, 8.0, 10.0, 10.0]
    waits: list[list[float]] = [[] for _ in windows]
    for _ in range(200):
        clock = Clock()
        await run(Work(*[BodyCut("x")] * 5), clock, attempts=6, retry_wait=2.0, retry_max_wait=10.0)
        for seen, wait in zip(waits, clock.slept, strict=True):
            seen.append(wait)
    for window, seen in zip(windows, waits, strict=True):
        assert 0 <= min(seen) < 0.1 * window
        assert 0.9 * window < max(seen) <= window


@pytest.mark.asyncio
async def test_the_server_is_given_the_time_it_asks_for_and_not_all_come_back_at_once():
    waits = []
    for _ in range(100):
        clock = Clock()
        await run(Work(Throttled("x", retry_after=30.0)), clock, retry_wait=2.0)
        waits += clock.slept
    assert min(waits) >= 30.0
    assert max(waits) <= 32.0
    assert len(set(waits)) > 50


@pytest.mark.asyncio
async def test_no_try_begins_that_would_begin_after_the_deadline():
    work, clock = Work(Throttled("x", retry_after=301.0)), Clock()
    with pytest.raises(Throttled):
        await run(work, clock, deadline=300.0)
    assert (work.numbers, clock.slept) == ([1], [])


@pytest.mark.asyncio
async def test_tries_that_took_too_long_are_the_last():
    async def slow(number: int) -> None:
        await anyio.sleep(0.02)
        numbers.append(number)
        raise BodyCut("x")

    numbers: list[int] = []
    with pytest.raises(BodyCut):
        await run(slow, attempts=20, deadline=0.01, retry_wait=0.0001)
    assert numbers == [1]


@pytest.mark.asyncio
async def test_each_kind_of_failure_has_its_own_count():
    """Two bad answers end it; one bad answer among cut bodies does not."""
    cut, bad = BodyCut("cut"), BadAnswer("bad")
    assert await run(Work(cut, bad, cut), attempts=5) == 4
    with pytest.raises(BadAnswer):
        await run(Work(bad, cut, bad), attempts=5)
    fault = ServerFault("x", status=500)
    assert await run(Work(cut, cut, fault, fault), attempts=6) == 5


@pytest.mark.asyncio
async def test_the_first_try_counts_towards_the_deadline():
    async def slow_once(number: int) -> None:
        numbers.append(number)
        await anyio.sleep(0.02 if number == 1 else 0)
        raise BodyCut("x")

    numbers: list[int] = []
    with pytest.raises(BodyCut):
        await run(slow_once, attempts=20, deadline=0.01, retry_wait=0.0001)
    assert numbers == [1]
