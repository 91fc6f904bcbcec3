"""A run with worker processes is the run without them: what it brings, what it refuses, what it tells, how it ends."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import anyio
import pytest
from fakes.dicom import instance_uid, uid
from fakes.faults import Fault, cut, flip, html, short, status, swap
from fakes.mirroring import Mirror, assert_nothing_wrong, findings
from fakes.process import Striker, command, run

from mirror.errors import StoreError
from mirror.events import InstancePublished, LimitChanged, RequestDone, RequestStarted
from mirror.model import FindingKind
from mirror.processes import Processes

pytestmark = pytest.mark.asyncio

SERIES = uid(2, 1, 2, 1)
VICTIM = instance_uid(SERIES, 5)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


def left_over(mirror: Mirror) -> list[Path]:
    return list((mirror.root / ".mirror" / "tmp").iterdir())


@pytest.mark.parametrize("layout", ["uid", "classic"])
@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
async def test_it_brings_the_same(archive, mirror, tmp_path, dialect, layout):
    report = await mirror.sync(archive, dialect, processes=2, layout=layout)
    counted = Counter(call for call, _ in archive.requests)
    told = Counter(type(event) for event in mirror.events)
    assert (report.exit_code, report.instances.fetched, report.findings) == (0, 32, ())
    assert_nothing_wrong(mirror, archive, whole=True)
    assert left_over(mirror) == []
    alone = Mirror(tmp_path / "alone")
    other = await alone.sync(archive, dialect, layout=layout)
    assert mirror.tree() == alone.tree()
    assert counted == Counter(call for call, _ in archive.requests)
    assert (report.requests, report.bytes) == (other.requests, other.bytes)
    assert told[InstancePublished] == 32
    assert told[RequestStarted] == told[RequestDone] == report.requests.total


FAULTS: dict[str, tuple[Fault, FindingKind]] = {
    "cut": (cut(0.5), FindingKind.UNAVAILABLE),
    "short": (short(0.6), FindingKind.TRUNCATED),
    "another instance": (swap(SOPInstanceUID=f"{SERIES}.10001"), FindingKind.WRONG_INSTANCE),
    "html": (html(), FindingKind.NOT_DICOM),
    "flipped pixel": (flip(-1), FindingKind.MD5_DIFFERS),
    "500": (status(500), FindingKind.UNAVAILABLE),
    "404": (status(404), FindingKind.UNAVAILABLE),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_what_is_wrong_is_refused_and_told(archive, mirror, name):
    fault, kind = FAULTS[name]
    archive.faults.add("getSingleImage", fault, SOPInstanceUID=VICTIM)
    report = await mirror.sync(archive, processes=2)
    assert report.exit_code == 3
    assert VICTIM in {finding.sop_instance_uid for finding in findings(report, kind)}
    assert_nothing_wrong(mirror, archive)
    assert len(mirror.instances()) == 31
    archive.faults.clear()
    report = await mirror.sync(archive, processes=2)
    assert (report.exit_code, report.instances.fetched) == (0, 1)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_fault_of_the_moment_is_mended(archive, mirror):
    archive.faults.add("getSingleImage", cut(0.5), times=3)
    archive.faults.add("getSingleImage", status(503), times=3)
    report = await mirror.sync(archive, processes=2)
    assert (report.exit_code, report.instances.fetched) == (0, 32)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_the_pace_is_one_for_all(archive, mirror):
    archive.faults.add("getSingleImage", status(429, headers={"Retry-After": "0"}), times=2)
    report = await mirror.sync(archive, processes=2)
    assert report.exit_code == 0
    assert any(event.why == "Throttled" for event in mirror.events if isinstance(event, LimitChanged)), [
        event for event in mirror.events if isinstance(event, LimitChanged)
    ]


@pytest.mark.parametrize("how_many", [1, 2])
async def test_workers_that_die_are_done_without(archive, mirror, monkeypatch, how_many):
    begun: list[Processes] = []
    begin = Processes.__aenter__

    async def remembered(processes: Processes) -> Processes:
        begun.append(await begin(processes))
        return begun[0]

    monkeypatch.setattr(Processes, "__aenter__", remembered)

    def strike() -> None:
        for pid in begun[0].pids[:how_many]:
            os.kill(pid, signal.SIGKILL)

    archive.faults.at_request(len(archive.requests) + 20, strike)
    report = await mirror.sync(archive, processes=2)
    assert (report.exit_code, report.instances.fetched) == (0, 32)
    assert_nothing_wrong(mirror, archive, whole=True)
    assert left_over(mirror) == []


async def test_a_stop_lets_land_what_is_under_way(archive, mirror):
    stop = anyio.Event()
    archive.faults.at_request(24, stop.set)
    report = await mirror.sync(archive, processes=2, stop=stop)
    assert report.exit_code == 130
    assert left_over(mirror) == []
    held = mirror.instances()
    assert 0 < len(held) < 32
    report = await mirror.sync(archive, processes=2)
    assert (report.exit_code, report.instances.fetched) == (0, 32 - len(held))
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_run_that_is_killed_goes_on_with_what_its_workers_published(archive, mirror):
    striker = Striker((15,))
    archive.faults.add("getSingleImage", striker)
    ended = await run(command(archive, mirror.root, "--processes", "2"), begun=striker.begun)
    assert ended.code == -signal.SIGKILL
    archive.faults.clear()
    report = await mirror.sync(archive, processes=2)
    assert report.exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_tree_that_cannot_be_written_ends_the_run(archive, mirror, tmp_path):
    alone = Mirror(tmp_path / "alone")
    await alone.sync(archive)
    # Where the folder of a collection would be, something else lies.
    place = mirror.root / Path(alone.rows()[0].path).parts[0]
    mirror.root.mkdir()
    place.write_bytes(b"in the way")
    with pytest.raises(StoreError, match=place.name):
        await mirror.sync(archive, processes=2)
    assert place.read_bytes() == b"in the way"
    assert left_over(mirror) == []
