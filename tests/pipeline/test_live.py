"""What a run tells while it is at work, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from fakes.archive import FakeArchive
from fakes.faults import delay
from fakes.mirroring import Mirror

from mirror import live
from mirror.errors import StoreFull
from mirror.live import read_live

pytestmark = pytest.mark.asyncio


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


async def test_a_run_tells_how_far_it_is_and_nothing_is_left_of_it(archive: FakeArchive, mirror: Mirror, monkeypatch):
    monkeypatch.setattr(live, "PERIOD", 0.02)
    archive.faults.add("getSingleImage", delay(0.05))
    seen = []
    async with anyio.create_task_group() as tasks:

        async def look() -> None:
            while True:
                if (found := read_live(mirror.root)) is not None:
                    assert found[1]
                    seen.append(found[0])
                await anyio.sleep(0.01)

        tasks.start_soon(look)
        report = await mirror.sync(archive, connections=2)
        tasks.cancel_scope.cancel()
    assert read_live(mirror.root) is None
    assert [path.name for path in (mirror.root / ".mirror").iterdir() if "live" in path.name] == []
    assert [told["phase"] for told in seen if told["phase"] == "fetch"]
    last = seen[-1]
    assert (last["run"], last["instances"]["planned"], last["series"]["planned"]) == (report.run, 32, 7)
    assert last["bytes"]["planned"] == report.bytes.fetched
    fetched = [told["instances"]["fetched"] for told in seen]
    assert fetched == sorted(fetched)
    assert 0 < fetched[-1] <= 32
    done = [told for told in seen if told["last"]]
    assert done
    assert {told["last"][0]["state"] for told in done} == {"complete"}


async def test_a_run_that_was_killed_is_known_by_its_silence(archive: FakeArchive, mirror: Mirror, monkeypatch):
    archive.faults.add("getSingleImage", delay(0.3))
    command = [sys.executable, "-m", "mirror", "sync", "--all", "--to", str(mirror.root), "--server", archive.url()]
    async with await anyio.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        with anyio.fail_after(30):
            while not ((found := read_live(mirror.root)) and found[0]["phase"] == "fetch"):  # noqa: ASYNC110 - a file has no event
                await anyio.sleep(0.05)
        assert found[0]["pid"] == process.pid
        os.kill(process.pid, signal.SIGKILL)
    told, is_there = read_live(mirror.root)
    assert is_there  # it may be: it spoke a moment ago
    path = mirror.root / ".mirror" / "live.json"
    path.write_text(json.dumps(told | {"at": time.time() - live.SILENT - 1}))
    assert read_live(mirror.root) == ({**told, "at": pytest.approx(time.time() - live.SILENT - 1, abs=5)}, False)
    archive.faults.clear()
    assert (await mirror.sync(archive)).exit_code == 0
    assert read_live(mirror.root) is None


@pytest.mark.parametrize("words", [b"", b"{", b"[]", b'{"at": "soon"}', b"\xff"])
async def test_what_cannot_be_read_is_no_run(tmp_path: Path, words: bytes):
    (tmp_path / ".mirror").mkdir()
    (tmp_path / ".mirror" / "live.json").write_bytes(words)
    assert read_live(tmp_path) is None


async def test_a_run_does_not_fail_for_it(archive: FakeArchive, mirror: Mirror):
    """A folder in its place is what nobody can write over."""
    (mirror.root / ".mirror" / "live.json" / "x").mkdir(parents=True)
    assert (await mirror.sync(archive)).exit_code == 0


async def test_a_run_that_fails_leaves_none(archive: FakeArchive, mirror: Mirror, monkeypatch):
    def full(*_: object) -> None:
        raise StoreFull("no space left")

    monkeypatch.setattr("mirror.pipeline.fetch_planned", full)
    with pytest.raises(StoreFull):
        await mirror.sync(archive)
    assert read_live(mirror.root) is None
