"""Calls in threads: each comes back to who made it, whatever else happens meanwhile."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from itertools import count

import anyio
import pytest

from mirror.threads import Threads

pytestmark = pytest.mark.asyncio


def names(prefix: str) -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)}


async def test_each_call_gets_its_own_result():
    threads = Threads(4, "own")
    results = await asyncio.gather(*(threads.run(lambda n=n: n * n) for n in range(500)))
    assert results == [n * n for n in range(500)]
    assert await threads.run(divmod, 17, 5) == (3, 2)
    assert await threads.run(int, "ff", base=16) == 255


async def test_an_error_comes_back_as_it_was_raised():
    threads = Threads(2, "error")
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0)
    assert await threads.run(divmod, 1, 1) == (1, 0)


async def test_one_thread_does_one_thing_at_a_time_and_in_order():
    threads, order, inside = Threads(1, "single"), [], []

    def work(number: int) -> int:
        inside.append(number)
        time.sleep(0.001)
        order.append((number, len(inside)))
        inside.clear()
        return number

    assert await asyncio.gather(*(threads.run(work, n) for n in range(30))) == list(range(30))
    assert order == [(n, 1) for n in range(30)]


async def test_no_more_threads_than_allowed_and_more_than_one_when_calls_wait():
    threads, ran, together = Threads(3, "many"), set(), threading.Barrier(3, timeout=30)

    def meet() -> None:
        ran.add(threading.current_thread().name)
        together.wait()

    # They end only when three of them are at work at the same time.
    await asyncio.gather(*(threads.run(meet) for _ in range(60)))
    assert len(ran) == 3 == len(names("many"))


async def test_a_cancelled_caller_waits_for_the_end_of_what_has_begun():
    threads, begun, ended, go = Threads(1, "cancelled"), threading.Event(), [], threading.Event()

    def work() -> None:
        begun.set()
        go.wait(30)
        ended.append(True)

    async def caller() -> None:
        try:
            await threads.run(work)
        finally:
            ended.append(len(ended))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller)
        assert await asyncio.to_thread(begun.wait, 30)
        tasks.cancel_scope.cancel()
        asyncio.get_running_loop().call_later(0.05, go.set)
    assert ended == [True, 1]


async def test_what_has_not_begun_is_taken_back_by_cancellation():
    threads, go, ran = Threads(1, "taken-back"), threading.Event(), []
    first = asyncio.create_task(threads.run(go.wait, 30))
    second = asyncio.create_task(threads.run(ran.append, 2))
    await anyio.sleep(0.01)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()
    assert await first is True
    assert await threads.run(lambda: list(ran)) == []


async def test_threads_end_with_their_object():
    threads = Threads(2, "ending")
    await asyncio.gather(*(threads.run(time.sleep, 0.001) for _ in range(40)))
    assert names("ending")
    del threads
    gc.collect()
    for _ in range(1000):
        if not names("ending"):
            break
        await anyio.sleep(0.01)
    assert names("ending") == set()


async def test_a_later_loop_may_use_them_too():
    threads = Threads(2, "loops")

    def in_a_loop_of_its_own(number: int) -> int:
        return asyncio.run(threads.run(lambda: number + 1))

    assert await threads.run(lambda: 1) == 1
    assert await asyncio.to_thread(in_a_loop_of_its_own, 5) == 6


async def test_many_at_random_lose_nothing():
    threads, numbers = Threads(8, "random"), count()
    seen = await asyncio.gather(*(threads.run(next, numbers) for _ in range(5000)))
    assert sorted(seen) == list(range(5000))
