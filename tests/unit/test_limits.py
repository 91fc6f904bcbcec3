"""What ends a run early: when a job may begin, which limit is told, and that a small limit lets something land."""

from __future__ import annotations

import anyio
import pytest

from mirror.events import BytesReceived, Event, InstancePublished, LimitReached, RequestDone
from mirror.limits import Limits
from mirror.settings import SyncSettings


class Run:
    """A run with a limit of bytes, and what it was told."""

    def __init__(self, max_bytes: str = "100") -> None:
        self.told: list[Event] = []
        self.stop = anyio.Event()
        self.limits = Limits(SyncSettings(max_bytes=max_bytes), self.stop, self.told.append)

    def came(self, size: int, *, call: str = "getSingleImage", landed: bool = True) -> None:
        self.limits(RequestDone(call=call, seconds=0.1, bytes=size))
        if landed:
            self.limits(InstancePublished(series_instance_uid="s", sop_instance_uid="i", bytes=size))

    async def job(self, name: str, size: int, *, landed: bool = True) -> bool:
        if not await self.limits.begin(name, size):
            return False
        self.came(size, landed=landed)
        self.limits.end(name)
        return True


@pytest.mark.asyncio
async def test_a_job_begins_that_just_fits_and_none_that_does_not():
    run = Run()
    assert [await run.job("a", 60), await run.job("b", 40), await run.job("c", 1)] == [True, True, False]
    assert run.stop.is_set()
    assert run.limits.reached == "sync.max_bytes: 100 of 100 bytes are fetched"
    assert run.told == [LimitReached(why=run.limits.reached)]


@pytest.mark.asyncio
async def test_what_would_be_beyond_the_limit_is_named():
    run = Run("1kB")
    assert await run.job("a", 600)
    assert not await run.job("b", 1401)
    assert run.limits.reached == "sync.max_bytes: 600 of 1,000 bytes are fetched, and what comes next has about 1,401"


@pytest.mark.parametrize("comes_to", [60, 10], ids=["as was thought", "less"])
@pytest.mark.asyncio
async def test_a_job_waits_until_it_is_known_what_those_under_way_come_to(comes_to):
    run, order = Run(), []
    assert await run.limits.begin("a", 60)

    async def second() -> None:
        order.append(await run.limits.begin("b", 60))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        assert order == []
        assert not run.stop.is_set()
        run.came(comes_to)
        run.limits.end("a")
    assert order == [comes_to == 10]
    assert run.stop.is_set() is (comes_to == 60)


@pytest.mark.asyncio
async def test_the_first_object_lands_however_small_the_limit_is():
    run = Run("1")
    assert await run.job("a", 500)
    assert not await run.job("b", 1)


@pytest.mark.asyncio
async def test_what_does_not_land_does_not_take_the_place_of_the_first_that_does():
    run = Run()
    assert await run.job("answers 500", 0, landed=False)
    assert await run.job("has wrong bytes", 99, landed=False)
    assert await run.job("lands", 500)
    assert not await run.job("too late", 1)


@pytest.mark.asyncio
async def test_wrong_bytes_do_not_go_on_for_ever():
    run = Run()
    assert await run.job("a", 500, landed=False)
    assert not await run.job("b", 500)
    assert run.limits.reached.startswith("sync.max_bytes: 500 of 100 bytes")


@pytest.mark.asyncio
async def test_only_bodies_of_objects_count():
    run = Run()
    assert await run.job("a", 60)
    run.limits(BytesReceived(count=1000))
    run.came(1000, call="getSOPInstanceUIDs", landed=False)
    assert await run.job("b", 40)
    run.came(1, call="getImage")
    assert not await run.job("c", 1)
    assert run.limits.reached.startswith("sync.max_bytes: 101 of")


@pytest.mark.asyncio
async def test_what_a_server_was_tried_with_before_the_first_job_does_not_count():
    run = Run()
    run.came(500, landed=False)
    assert await run.job("a", 100)
    assert not await run.job("b", 1)


@pytest.mark.asyncio
async def test_a_job_that_has_leave_keeps_it():
    run = Run()
    assert await run.limits.begin("a", 80)
    run.came(200)
    assert await run.limits.begin("a", 80)
    assert not run.stop.is_set()
    run.limits.end("a")
    assert not await run.limits.begin("a", 80)


@pytest.mark.asyncio
async def test_who_was_stopped_before_is_not_ended_by_a_limit():
    run = Run()
    assert await run.job("a", 100)
    run.stop.set()
    assert not await run.job("b", 100)
    assert (run.limits.reached, run.told) == ("", [])


@pytest.mark.asyncio
async def test_without_a_limit_everything_begins_until_the_stop():
    run = Run("0")
    run.came(10**15)
    assert await run.job("a", 10**15)
    assert not run.limits.any
    run.stop.set()
    assert not await run.job("b", 1)
    assert run.told == []
