"""How many requests may be in flight, when the next may begin, when a failed one is tried again: on a fake clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from email.utils import format_datetime

import anyio
import pytest
from fakes.clock import Clock
from fakes.trouble import TROUBLE

from mirror.archive.pacing import Pace, PaceStatistics, seconds_of_retry_after
from mirror.errors import (
    ArchiveError,
    BadAnswer,
    BodyCut,
    NotFound,
    Refused,
    ServerFault,
    Throttled,
)
from mirror.events import Event, LimitChanged
from mirror.settings import ArchiveSettings


def make_pace(clock: Clock, events: list[Event] | None = None, **settings: float) -> Pace:
    told = [] if events is None else events
    return Pace(ArchiveSettings(**settings), told.append, clock.now, clock.sleep)


# How many: what moves the limit is in test_limit.


def test_good_answers_and_trouble_reach_the_limit_and_are_told():
    clock, events = Clock(), list[Event]()
    pace = make_pace(clock, events, connections=6)
    assert pace.statistics() == PaceStatistics(in_flight=0, limit=4, cap=6, marginal=1.0)
    for _ in range(4):
        pace.good(100, seconds=0.1)
    assert events == [], "the limit is not what holds us: nothing is in flight"
    for _ in range(4):
        run_now(pace.acquire())
    for _ in range(4):
        pace.good(100, seconds=0.1)
    assert pace.statistics() == PaceStatistics(in_flight=4, limit=5, cap=6, marginal=1.0)
    run_now(pace.acquire())
    pace.good(100, seconds=0.1)
    pace.trouble(BodyCut("x"))
    assert [(e.connections, e.why) for e in events if isinstance(e, LimitChanged)] == [
        (5, "answers come"), (6, "answers come"), (3, "BodyCut"),
    ]  # fmt: skip


def run_now(coroutine: Coroutine[object, object, None]) -> None:
    """Run what never waits."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


def test_to_be_polite_is_one_request_at_a_time():
    assert make_pace(Clock(), connections=64, polite=True).statistics().cap == 1


HARMLESS = [ServerFault("x", status=500), BadAnswer("x"), NotFound("x"), Refused("x")]


@pytest.mark.parametrize("error", TROUBLE, ids=repr)
def test_trouble_of_the_servers_halves_the_limit(error: ArchiveError):
    events = list[Event]()
    pace = make_pace(Clock(), events, connections=64)
    pace.trouble(error)
    assert events == [LimitChanged(connections=2, why=type(error).__name__)]


@pytest.mark.parametrize("error", HARMLESS, ids=repr)
def test_trouble_with_one_item_leaves_the_limit(error: ArchiveError):
    pace = make_pace(Clock(), connections=64)
    pace.trouble(error)
    assert pace.statistics().limit == 4


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


@pytest.mark.asyncio
async def test_first_come_first_served():
    pace = make_pace(Clock(), connections=1)
    order: list[int] = []

    async def request(number: int) -> None:
        await pace.acquire()
        order.append(number)
        await anyio.lowlevel.checkpoint()
        pace.release()

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(request, number)
    assert order == list(range(10))
    assert pace.statistics().in_flight == 0


@pytest.mark.asyncio
async def test_nobody_overtakes_who_waits():
    pace = make_pace(Clock(), connections=1)
    await pace.acquire()
    order: list[str] = []

    async def waits() -> None:
        async with pace.slot():
            order.append("waited")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waits)
        await anyio.wait_all_tasks_blocked()
        pace.release()
        async with pace.slot():
            order.append("came later")
    assert order == ["waited", "came later"]


@pytest.mark.parametrize("moment", ["while it waits", "as its turn comes", "in the step before its turn"])
@pytest.mark.asyncio
async def test_who_is_cancelled_while_waiting_keeps_no_slot_and_holds_nobody_up(moment: str):
    pace = make_pace(Clock(), connections=1)
    await pace.acquire()
    entered: list[str] = []

    async def request(name: str) -> None:
        async with pace.slot():
            entered.append(name)

    first, second = asyncio.create_task(request("first")), asyncio.create_task(request("second"))
    await anyio.wait_all_tasks_blocked()
    if moment == "as its turn comes":
        pace.release()
        first.cancel()
    else:
        first.cancel()
        if moment == "while it waits":
            await anyio.wait_all_tasks_blocked()
        pace.release()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert entered == ["second"]
    assert pace.statistics().in_flight == 0


@pytest.mark.asyncio
async def test_who_waits_gets_in_when_the_limit_grows():
    pace = make_pace(Clock(), connections=8)
    entered = 0
    leave = anyio.Event()

    async def request() -> None:
        nonlocal entered
        async with pace.slot():
            entered += 1
            await leave.wait()

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(request)
        await anyio.wait_all_tasks_blocked()
        assert entered == 4
        pace.good(0, seconds=0.1)
        await anyio.wait_all_tasks_blocked()
        assert entered == 5
        leave.set()
    assert entered == 8


@pytest.mark.asyncio
async def test_a_slot_is_free_again_when_its_owner_is_cancelled_while_held_back():
    pace = Pace(ArchiveSettings(connections=1), lambda event: None)
    pace.trouble(Throttled("x", retry_after=600.0))
    with anyio.move_on_after(0.01):
        await pace.acquire()
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
async def test_to_be_polite_is_two_seconds_from_the_end_of_one_request_to_the_next():
    clock = Clock(1000.0)
    pace = make_pace(clock, connections=8, polite=True)
    starts: list[float] = []

    async def request() -> None:
        async with pace.slot():
            starts.append(clock.now())
            clock.time += 10.0

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(request)
    assert starts == [1000.0, 1012.0, 1024.0]


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
