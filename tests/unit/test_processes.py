"""Worker processes: every message is answered or its worker is known to be lost, and none outlives the run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
from fakes.working import main

from mirror.processes import Processes, WorkerLost

pytestmark = pytest.mark.asyncio


def is_alive(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> bool:
    for _ in range(3000):
        if not is_alive(pid):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_every_message_gets_its_own_answer(tmp_path: Path):
    async with Processes(3, main, tmp_path) as workers:
        answers = await asyncio.gather(*(workers.ask(("echo", n)) for n in range(300)))
        assert answers == list(range(300))
        assert set(await asyncio.gather(*(workers.ask(("pid", None)) for _ in range(60)))) == set(workers.pids)
    assert [is_alive(pid) for pid in workers.pids] == [False] * 3
    assert len(await asyncio.to_thread(lambda: list(tmp_path.iterdir()))) == 3, "each came to the end of its block"


async def test_messages_of_any_size(tmp_path: Path):
    bodies = [os.urandom(size) for size in (0, 1, 65_535, 3_000_000)]
    async with Processes(1, main, tmp_path) as workers:
        assert await asyncio.gather(*(workers.ask(("echo", body)) for body in bodies)) == bodies


async def test_a_slow_message_keeps_no_other_waiting(tmp_path: Path):
    async with Processes(1, main, tmp_path) as workers:
        slow = asyncio.create_task(workers.ask(("wait", 30.0)))
        assert await workers.ask(("echo", 1)) == 1
        slow.cancel()
    assert await gone(workers.pids[0])


async def test_a_lost_worker_is_told_to_all_who_wait_and_the_others_go_on(tmp_path: Path):
    async with Processes(2, main, tmp_path) as workers:
        waiting = [asyncio.create_task(workers.ask(("wait", 0.5))) for _ in range(4)]
        await asyncio.sleep(0.1)
        with pytest.raises(WorkerLost):
            await workers.ask(("die", None))
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["WorkerLost", "WorkerLost", "float", "float"]
        assert await workers.ask(("echo", "still")) == "still"
        with pytest.raises(WorkerLost):
            await workers.ask(("die", None))
        with pytest.raises(WorkerLost):
            await workers.ask(("echo", "nobody"))


async def test_a_bug_in_a_worker_ends_it_with_its_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    async with Processes(1, main, tmp_path) as workers:
        with pytest.raises(WorkerLost):
            await workers.ask(("raise", "an answer that cannot be"))
    assert "ValueError: an answer that cannot be" in capfd.readouterr().err


async def test_leaving_by_an_error_ends_workers_at_once(tmp_path: Path):
    workers = Processes(2, main, tmp_path)

    async def fail() -> None:
        async with workers:
            await workers.ask(("echo", 1))
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert [is_alive(pid) for pid in workers.pids] == [False] * 2


async def test_an_answer_in_parts_is_never_far_ahead_of_who_takes_it(tmp_path: Path):
    async with Processes(1, main, tmp_path) as workers:
        taken = []
        async for part in workers.follow(("count", 50)):
            taken.append(part)
            assert await workers.ask(("echo", part)) == part
            assert int((tmp_path / "counted").read_text()) <= part + 2
        assert taken == list(range(50))


async def test_a_worker_gives_up_what_nobody_takes(tmp_path: Path):
    async with Processes(1, main, tmp_path) as workers:
        async with aclosing(workers.follow(("count", 1000))) as parts:
            assert [await anext(parts), await anext(parts)] == [0, 1]
        assert await workers.ask(("echo", 1)) == 1
        assert await workers.ask(("wait", 0.0)) == 0.0
        assert (tmp_path / "given-up").exists()
        assert int((tmp_path / "counted").read_text()) < 5


async def test_a_worker_that_is_lost_is_told_behind_its_last_part(tmp_path: Path):
    async with Processes(1, main, tmp_path) as workers:

        async def strike() -> None:
            async for part in workers.follow(("count", 10**9)):
                if part == 3:
                    os.kill(workers.pids[0], signal.SIGKILL)

        with pytest.raises(WorkerLost):
            await strike()
        with pytest.raises(WorkerLost):
            await anext(workers.follow(("count", 1)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_are_for_the_leader(tmp_path: Path, number: signal.Signals):
    async with Processes(1, main, tmp_path) as workers:
        await workers.ask(("echo", 1))
        os.kill(workers.pids[0], number)
        assert await workers.ask(("echo", 2)) == 2


LEADER = """
import asyncio, pathlib, sys
from fakes.working import main
from mirror.processes import Processes

async def lead():
    async with Processes(2, main, pathlib.Path(sys.argv[1])) as workers:
        await workers.ask(("echo", 1))
        print(*workers.pids, flush=True)
        await workers.ask(("wait", 600.0))

asyncio.run(lead())
"""


async def test_workers_end_with_a_leader_that_is_killed(tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    leader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LEADER, str(tmp_path), stdout=subprocess.PIPE, env=environment
    )
    assert leader.stdout is not None
    pids = [int(pid) for pid in (await leader.stdout.readline()).split()]
    assert [is_alive(pid) for pid in pids] == [True, True]
    leader.kill()
    await leader.wait()
    for pid in pids:
        assert await gone(pid)
