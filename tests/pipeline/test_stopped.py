"""Stopping in order: what is in flight lands, nothing half-written stays, the next run finishes. One run at a time."""

from __future__ import annotations

import asyncio
import json
import signal

import anyio
import pytest
from fakes.faults import Asked, hold
from fakes.mirroring import Mirror, asked, assert_nothing_wrong
from fakes.process import Striker, command, run

from mirror.errors import ExitCode, Locked
from mirror.model import Digest, SeriesState
from mirror.tree.part import LocalPart


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


@pytest.mark.parametrize(
    ("number", "call", "at", "options"),
    [
        (signal.SIGTERM, "getSeries", 2, ()),
        (signal.SIGINT, "getSingleImage", 6, ()),
        (signal.SIGTERM, "getSingleImage", 6, ("--layout", "classic")),
        (signal.SIGTERM, "getImage", 2, ("--transport", "zip")),
        (signal.SIGTERM, "getMD5Hierarchy", 1, ()),
    ],
)
@pytest.mark.asyncio
async def test_a_signal_drains_the_run(archive, mirror, number, call, at, options):
    striker = Striker((at,), number)
    archive.faults.add(call, striker)
    argv = command(archive, mirror.root, "--json", *options)
    # One series at a time, so that there is always one that is not begun.
    ended = await run(argv, begun=striker.begun, SYNC_OPEN_SERIES="1")
    assert ended.code == ExitCode.INTERRUPTED
    report = json.loads(ended.out.splitlines()[-1])
    assert (report["state"], report["exit_code"]) == ("interrupted", 130)
    (written,) = (mirror.root / ".mirror" / "runs").glob("*.json")
    assert json.loads(written.read_text()) == report
    assert mirror.parts() == []
    held = mirror.instances()
    assert len(held) == report["instances"]["fetched"] < 32

    archive.faults.clear()
    transport = "zip" if call == "getImage" else "instance"
    finished = await mirror.sync(archive, transport=transport)
    assert (finished.exit_code, finished.instances.fetched) == (0, 32 - len(held))
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_a_second_signal_ends_it_at_once(archive, mirror):
    gate = asyncio.Event()
    held, seen = hold(gate), 0
    processes: list[asyncio.subprocess.Process] = []

    async def twice(request: Asked):
        nonlocal seen
        seen += 1
        if seen == 4:
            processes[0].send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)  # two signals at once may arrive as one
            processes[0].send_signal(signal.SIGTERM)
        return await held(request)

    archive.faults.add("getSingleImage", twice)
    ended = await run(command(archive, mirror.root), begun=processes.append)
    gate.set()
    assert ended.code == ExitCode.INTERRUPTED
    assert mirror.parts() == []
    archive.faults.clear()
    assert (await mirror.sync(archive)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("transport", ["instance", "zip"])
@pytest.mark.asyncio
async def test_a_stop_takes_no_new_series(archive, mirror, transport):
    stop = anyio.Event()

    async def stopping(request: Asked):
        stop.set()
        return await request.handler(request.request)

    archive.faults.add("getSeriesSize", stopping)
    report = await mirror.sync(archive, stop=stop, transport=transport, open_series=1)
    assert (report.state, report.exit_code) == ("interrupted", ExitCode.INTERRUPTED)
    # One series at a time: the second is never begun.
    assert len(asked(archive, "getSeriesSize")) == 1
    assert mirror.states()[SeriesState.PLANNED] == 6
    archive.faults.clear()
    assert (await mirror.sync(archive, transport=transport)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_a_stop_that_comes_when_all_is_done_interrupts_nothing(archive, mirror):
    stop = anyio.Event()
    seen = 0

    async def last(request: Asked):
        nonlocal seen
        seen += 1
        if seen == 7:
            stop.set()
        return await request.handler(request.request)

    archive.faults.add("getMD5Hierarchy", last)
    report = await mirror.sync(archive, stop=stop)
    assert (report.state, report.exit_code) == ("complete", ExitCode.COMPLETE)
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_cancelling_leaves_nothing_half_written(archive, mirror):
    with anyio.CancelScope() as scope:

        async def cancelling(request: Asked):
            scope.cancel()
            return await request.handler(request.request)

        archive.faults.add("getSingleImage", cancelling)
        await mirror.sync(archive)
    assert scope.cancelled_caught
    assert mirror.parts() == []
    archive.faults.clear()
    assert (await mirror.sync(archive)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_a_second_run_is_told_who_holds_the_mirror(archive, mirror):
    gate, crawling = asyncio.Event(), asyncio.Event()
    pids: list[int] = []

    async def waiting(request: Asked):
        crawling.set()
        return await hold(gate)(request)

    archive.faults.add("getSeries", waiting)
    first = asyncio.create_task(run(command(archive, mirror.root), begun=lambda process: pids.append(process.pid)))
    await crawling.wait()

    second = await run(command(archive, mirror.root))
    assert second.code == ExitCode.LOCKED
    assert f"held by process {pids[0]} on " in second.err
    for dry_run in (False, True):
        with pytest.raises(Locked, match=f"process {pids[0]} "):
            await Mirror(mirror.root).sync(archive, dry_run=dry_run)

    archive.faults.clear()
    gate.set()
    ended = await first
    assert (ended.code, ended.err.count("Traceback")) == (0, 0)
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("transport", ["instance", "zip"])
@pytest.mark.asyncio
async def test_cancelling_while_a_body_is_checked_never_hangs(archive, mirror, monkeypatch, transport):
    """The thread that checks it must not wait for a loop that waits for the thread."""
    digest, loop, seen = LocalPart.digest, asyncio.get_running_loop(), 0
    scopes: list[anyio.CancelScope] = []

    def cancelling(part: LocalPart) -> Digest:
        nonlocal seen
        seen += 1
        if seen % 4 == 0:
            loop.call_soon_threadsafe(scopes[-1].cancel)
        return digest(part)

    monkeypatch.setattr(LocalPart, "digest", cancelling)
    # Each run gets a few instances further.
    for _ in range(8):
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await mirror.sync(archive, transport=transport)
        assert mirror.parts() == []
    monkeypatch.undo()
    assert (await mirror.sync(archive, transport=transport)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)
