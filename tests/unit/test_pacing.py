"""How many requests may be in flight, when the next may begin, when a failed one is tried again: on a fake clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import format_datetime

import anyio
import pytest
from fakes.clock import Clock

from mirror.archive.pacing import Pace, retrying, seconds_of_retry_after
from mirror.errors import (
    ArchiveError,
    BadAnswer,
    BodyCut,
    NotFound,
    Refused,
    ServerFault,
    Stalled,
    StoreFull,
    Throttled,
    Unreachable,
)
from mirror.events import Event, LimitChanged
from mirror.settings import ArchiveSettings


def make_pace(clock: Clock, events: list[Event] | None = None, **settings: float) -> Pace:
    told = [] if events is None else events
    return Pace(ArchiveSettings(**settings), told.append, clock.now, clock.sleep)


def answer(pace: Pace, clock: Clock, *, times: int, size: int = 0, seconds: float = 1.0) -> None:
    """So many good answers, one every so many seconds."""
    for _ in range(times):
        clock.time += seconds
        pace.good(size)


# How many


def test_it_begins_with_four_or_with_the_cap_where_that_is_lower():
    assert make_pace(Clock(), connections=64).statistics().limit == 4
    assert make_pace(Clock(), connections=2).statistics().limit == 2


def test_the_limit_grows_by_one_a_window_and_never_above_the_cap():
    clock, events = Clock(), list[Event]()
    pace = make_pace(clock, events, connections=6)
    answer(pace, clock, times=7)
    assert pace.statistics().limit == 4, "a window is twice the limit in answers"
    answer(pace, clock, times=1)
    assert pace.statistics().limit == 5
    answer(pace, clock, times=10)
    assert pace.statistics().limit == 6
    answer(pace, clock, times=1000)
    assert pace.statistics().limit == 6
    assert [e.connections for e in events if isinstance(e, LimitChanged)] == [5, 6]


def test_the_limit_goes_down_by_one_when_throughput_falls_but_not_below_the_start():
    clock = Clock()
    pace = make_pace(clock, connections=16)
    answer(pace, clock, times=8 + 10, seconds=0.1)
    assert pace.statistics().limit == 6
    answer(pace, clock, times=12, seconds=0.2)
    assert pace.statistics().limit == 5
    for seconds in (0.4, 0.8, 1.6, 3.2):
        answer(pace, clock, times=10, seconds=seconds)
    assert pace.statistics().limit == 4


def test_throughput_counts_bytes_as_well_as_answers():
    clock = Clock()
    pace = make_pace(clock, connections=16)
    answer(pace, clock, times=8, size=10_000_000)
    answer(pace, clock, times=10, size=1_000)
    assert pace.statistics().limit == 4


TROUBLE = [
    Unreachable("x"),
    Stalled("x"),
    BodyCut("x"),
    Throttled("x"),
    ServerFault("x", status=502),
    ServerFault("x", status=503),
    ServerFault("x", status=504),
]
HARMLESS = [ServerFault("x", status=500), BadAnswer("x"), NotFound("x"), Refused("x")]


@pytest.mark.parametrize("error", TROUBLE, ids=repr)
def test_trouble_of_the_servers_halves_the_limit(error: ArchiveError):
    clock, events = Clock(), list[Event]()
    pace = make_pace(clock, events, connections=64)
    pace.trouble(error)
    assert pace.statistics().limit == 2
    assert events == [LimitChanged(connections=2, why=type(error).__name__)]


@pytest.mark.parametrize("error", HARMLESS, ids=repr)
def test_trouble_with_one_item_leaves_the_limit(error: ArchiveError):
    pace = make_pace(Clock(), connections=64)
    pace.trouble(error)
    assert pace.statistics().limit == 4


def test_requests_that_fail_together_are_one_trouble():
    clock = Clock()
    pace = make_pace(clock, connections=64)
    for _ in range(5):
        pace.trouble(BodyCut("x"))
    assert pace.statistics().limit == 2
    clock.time += 1.5
    pace.trouble(BodyCut("x"))
    assert pace.statistics().limit == 1
    clock.time += 1.5
    pace.trouble(BodyCut("x"))
    assert pace.statistics().limit == 1, "one may always be in flight"


def test_after_trouble_the_limit_grows_again():
    clock = Clock()
    pace = make_pace(clock, connections=8)
    answer(pace, clock, times=100, seconds=0.01)
    pace.trouble(BodyCut("x"))
    assert pace.statistics().limit == 4
    answer(pace, clock, times=8 + 10 + 12 + 14, seconds=1.0)
    assert pace.statistics().limit == 8


@pytest.mark.asyncio
async def test_no_more_than_the_limit_are_in_flight_and_a_slot_is_free_again_after_a_failure():
    pace = make_pace(Clock(), connections=3)
    most = 0

    async def request(number: int) -> None:
        nonlocal most
        try:
            async with pace.slot():
                most = max(most, pace.statistics().in_flight)
                await anyio.lowlevel.checkpoint()
                if number % 2:
                    raise BadAnswer("x")
        except BadAnswer:
            pass

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(request, number)
    assert most == 3
    assert pace.statistics().in_flight == 0


@pytest.mark.asyncio
async def test_a_slot_is_given_back_whoever_ends_the_request():
    pace = make_pace(Clock(), connections=1)

    async def chunks() -> AsyncIterator[int]:
        async with pace.slot():
            yield 1
            yield 2

    async def begin() -> AsyncIterator[int]:
        body = chunks()
        assert await anext(body) == 1
        return body

    bodies: list[AsyncIterator[int]] = []

    async def in_a_task() -> None:
        bodies.append(await begin())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(in_a_task)
    assert pace.statistics().in_flight == 1
    await bodies.pop().aclose()  # type: ignore[attr-defined] - an async generator
    assert pace.statistics().in_flight == 0


# When


@pytest.mark.asyncio
async def test_a_rate_spaces_the_starts_evenly():
    clock = Clock(1000.0)
    pace = make_pace(clock, connections=8, rate=4.0)
    starts: list[float] = []

    async def request() -> None:
        async with pace.slot():
            starts.append(clock.now())
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(request)
    assert starts == [1000.0, 1000.25, 1000.5, 1000.75, 1001.0, 1001.25]


@pytest.mark.asyncio
async def test_without_a_rate_nobody_waits():
    clock = Clock()
    pace = make_pace(clock, connections=8)
    for _ in range(5):
        async with pace.slot():
            pass
    assert clock.slept == []


@pytest.mark.asyncio
async def test_retry_after_holds_back_every_request():
    clock = Clock(1000.0)
    pace = make_pace(clock, connections=4)
    pace.trouble(Throttled("x", retry_after=7.0))
    starts: list[float] = []

    async def request() -> None:
        async with pace.slot():
            starts.append(clock.now())

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(request)
    assert starts == [1007.0] * 3


@pytest.mark.asyncio
async def test_a_wish_told_while_waiting_is_obeyed():
    clock = Clock(1000.0)
    wishes = [20.0, 1.0]

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        if wishes:
            pace.trouble(Throttled("x", retry_after=wishes.pop(0)))

    pace = Pace(ArchiveSettings(), lambda event: None, clock.now, sleep)
    pace.trouble(Throttled("x", retry_after=5.0))
    async with pace.slot():
        assert clock.now() == 1026.0
    assert clock.slept == [5.0, 20.0, 1.0]


@pytest.mark.asyncio
async def test_a_shorter_wish_shortens_nothing():
    clock = Clock(1000.0)
    pace = make_pace(clock)
    pace.trouble(Throttled("x", retry_after=20.0))
    pace.trouble(Throttled("x", retry_after=1.0))
    async with pace.slot():
        assert clock.now() == 1020.0


@pytest.mark.asyncio
async def test_a_wish_is_never_cut_short_and_one_beyond_the_deadline_is_an_error():
    clock = Clock(1000.0)
    pace = make_pace(clock, deadline=900.0)
    pace.trouble(Throttled("x", retry_after=899.0))
    async with pace.slot():
        assert clock.now() == 1899.0
    pace.trouble(Throttled("x", retry_after=86_400.0))
    with pytest.raises(Throttled, match="left alone for 86400 s more"):
        await pace.slot().__aenter__()
    assert clock.now() == 1899.0
    assert pace.statistics().in_flight == 0


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90.0),
        (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), 0.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
        ("Mon, 99 Jan 2024 00:00:00 GMT", None),
    ],
)
def test_retry_after_in_both_its_forms(text: str | None, seconds: float | None):
    assert seconds_of_retry_after(text, NOW) == seconds


# Again


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
