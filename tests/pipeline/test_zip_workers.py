"""A run whose workers bring zips is the run without them: what it brings, refuses and tells, and how it ends."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from fakes.dicom import make_series, uid
from fakes.faults import Fault, cut, flip_in_zip, html, no_such_call, short, short_zip, status, swap
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, kinds
from fakes.process import Striker, command, run
from fakes.zips import bytes_of, corrupt_member, make_zip, members_of, with_other_pixels

from mirror.errors import StoreError
from mirror.events import BytesReceived, InstancePublished, RequestDone, RequestStarted
from mirror.model import FindingKind, Scope, SeriesState
from mirror.processes import Processes

pytestmark = pytest.mark.asyncio

SERIES = uid(2, 1, 2, 1)
OTHER = uid(2, 1, 1, 1)
LONG = Scope(collections=("Long",))


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


@pytest.fixture
def of_workers(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many parts of errands workers have told, by type."""
    told: Counter[str] = Counter()
    follow = Processes.follow

    async def counted(processes: Processes, message: Any) -> AsyncGenerator[Any]:
        async for part in follow(processes, message):
            told[type(part).__name__] += 1
            yield part

    monkeypatch.setattr(Processes, "follow", counted)
    return told


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Kill so many workers as soon as the first batch of instances is told, so in the middle of unpacking."""

    def arrange(how_many: int) -> None:
        follow, killed = Processes.follow, False

        async def struck(processes: Processes, message: Any) -> AsyncGenerator[Any]:
            nonlocal killed
            async for part in follow(processes, message):
                if isinstance(part, list) and not killed:
                    killed = True
                    for pid in processes.pids[:how_many]:
                        os.kill(pid, signal.SIGKILL)
                yield part

        monkeypatch.setattr(Processes, "follow", struck)

    return arrange


def stock_long(archive, instances: int = 300) -> str:
    """A series of several batches."""
    archive.stock("Long", make_series(series_uid=uid(7, 1, 1), seed=7, instances=instances))
    return uid(7, 1, 1)


def received(mirror: Mirror) -> int:
    """The bytes that the last run told of, as they came or at a request's end."""
    came = sum(event.count for event in mirror.events if isinstance(event, BytesReceived))
    return came + sum(event.untold for event in mirror.events if isinstance(event, RequestDone))


@pytest.mark.parametrize(
    ("dialect", "transport", "layout"),
    [("nbia", "zip", "uid"), ("tcia", "zip", "classic"), ("nbia", "auto", "classic"), ("tcia", "auto", "uid")],
)
async def test_it_brings_the_same(archive, mirror, tmp_path, of_workers, dialect, transport, layout):
    report = await mirror.sync(archive, dialect, processes=2, layout=layout, transport=transport)
    counted = Counter(call for call, _ in archive.requests)
    told = Counter(type(event) for event in mirror.events)
    assert (report.exit_code, report.instances.fetched, report.findings) == (0, 32, ())
    assert_nothing_wrong(mirror, archive, whole=True)
    assert told[InstancePublished] == 32
    assert told[RequestStarted] == told[RequestDone] == report.requests.total
    assert of_workers["_Ended"] == counted["getImage"] > 0
    zips = [event.bytes for event in mirror.events if isinstance(event, RequestDone) and event.call == "getImage"]
    assert (received(mirror) > sum(zips), all(zips)) == (True, True)
    if transport == "zip":
        alone = Mirror(tmp_path / "alone")
        other = await alone.sync(archive, dialect, layout=layout, transport=transport)
        assert mirror.tree() == alone.tree()
        assert counted == Counter(call for call, _ in archive.requests)
        assert (report.requests, report.bytes) == (other.requests, other.bytes)
        assert [row.verified for row in mirror.rows()] == [row.verified for row in alone.rows()]


#: Fault, how many of the 12 images are held after it, and a kind of finding that must be told.
FAULTS: dict[str, tuple[Fault, int, FindingKind]] = {
    "short": (short_zip(3), 9, FindingKind.INSTANCES_MISSING),
    "cut": (cut(0.5), 0, FindingKind.UNAVAILABLE),
    "cut, and the end says so": (short(0.5), 0, FindingKind.UNAVAILABLE),
    "html": (html(), 0, FindingKind.UNAVAILABLE),
    "500": (status(500), 0, FindingKind.UNAVAILABLE),
    "400": (status(400, "The user has not been granted the access"), 0, FindingKind.SERIES_REFUSED),
    "another series": (swap(SeriesInstanceUID=OTHER), 0, FindingKind.WRONG_SERIES),
    "a corrupt member": (corrupt_member("00000005.dcm"), 11, FindingKind.TRUNCATED),
    "a flipped pixel": (flip_in_zip(4), 11, FindingKind.MD5_DIFFERS),
    "two bodies for one": (members_of(with_other_pixels), 11, FindingKind.DUPLICATE_INSTANCE),
    "swollen": (bytes_of(lambda body: body + bytes(4 * 1024 * 1024)), 0, FindingKind.UNAVAILABLE),
    "a swollen member": (
        members_of(lambda members: [*members, ("00000099.dcm", bytes(8 * 1024 * 1024))]),
        0,
        FindingKind.UNAVAILABLE,
    ),
    "a zip in the zip": (members_of(lambda m: [("series.zip", make_zip(m))]), 0, FindingKind.NOT_DICOM),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_what_is_wrong_is_refused_and_told(archive, mirror, of_workers, name):
    fault, held, kind = FAULTS[name]
    archive.faults.add("getImage", fault, SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, processes=2, transport="zip")
    assert (report.exit_code, report.series.complete) == (3, 6)
    assert kind in kinds(report)
    assert {finding.series_instance_uid for finding in report.findings} == {SERIES}
    assert len([u for u in mirror.instances() if u.startswith(SERIES)]) == held
    assert_nothing_wrong(mirror, archive)
    archive.faults.clear()
    healed = await mirror.sync(archive, transport="zip")
    assert (healed.exit_code, healed.instances.fetched) == (0, 12 - held)
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("name", ["cut", "500", "a corrupt member", "a flipped pixel", "two bodies for one"])
async def test_what_is_wrong_for_a_moment_is_mended(archive, mirror, of_workers, name):
    archive.faults.add("getImage", FAULTS[name][0], times=1, SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, processes=2, transport="zip", layout="classic")
    assert (report.exit_code, report.instances.fetched) == (0, 32), report.findings
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_without_lists_count_and_bytes_judge(archive, mirror, of_workers):
    archive.faults.add("getSOPInstanceUIDs", no_such_call())
    archive.faults.add("getImage", short_zip(3), SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, processes=2, transport="zip")
    assert (report.exit_code, report.series.complete) == (3, 6)
    assert FindingKind.COUNT_DIFFERS in kinds(report)
    archive.faults.rules.pop()
    report = await mirror.sync(archive, processes=2, transport="zip")
    assert report.exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_server_without_include_md5(archive, mirror, of_workers):
    words = "Invalid query parameter: 'IncludeMD5'. Allowed parameters are: [SeriesInstanceUID, NewFileNames]"
    archive.faults.add("getImage", status(400, words), IncludeMD5="Yes")
    report = await mirror.sync(archive, processes=2, transport="zip", open_series=1)
    assert (report.exit_code, report.instances.fetched) == (0, 32)
    # The first zip is refused to the worker and to the run; then all know.
    assert (of_workers["_Downloaded"], of_workers["_Ended"]) == (7, 6)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_many_members_come_in_batches(archive, mirror, of_workers):
    stock_long(archive)
    report = await mirror.sync(archive, scope=LONG, processes=2, transport="zip")
    assert (report.exit_code, report.instances.fetched) == (0, 300)
    assert of_workers["list"] >= 4
    assert_nothing_wrong(mirror, archive)


async def test_a_bandwidth_is_for_who_counts_the_bytes(archive, mirror, of_workers):
    ended = await run(
        command(archive, mirror.root, "--processes", "2", "--transport", "zip", "--bandwidth", "100MB/s"),
    )
    assert ended.code == 0, ended.err
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("how_many", [1, 2])
@pytest.mark.parametrize("layout", ["uid", "classic"])
async def test_a_worker_that_dies_while_it_unpacks(archive, mirror, lose, layout, how_many):
    stock_long(archive)
    lose(how_many)
    report = await mirror.sync(archive, scope=LONG, processes=2, transport="zip", layout=layout)
    assert (report.exit_code, report.instances.fetched) == (0, 300)
    assert len(asked(archive, "getImage")) <= 2
    assert_nothing_wrong(mirror, archive)
    assert mirror.states() == {SeriesState.COMPLETE: 1}


async def test_what_a_worker_placed_before_it_died_is_met_whatever_comes_then(archive, mirror, lose):
    """The archive gives the zip once and never again: what lies in the tree has its row nevertheless."""
    series = stock_long(archive)
    lose(2)
    truly = archive.faults.add("getImage", bytes_of(lambda body: body), times=1, SeriesInstanceUID=series)
    archive.faults.add("getImage", status(500), SeriesInstanceUID=series)
    report = await mirror.sync(archive, scope=LONG, processes=2, transport="zip")
    assert truly.used == 1
    assert report.exit_code in (0, 3)
    assert_nothing_wrong(mirror, archive)
    assert report.instances.fetched == len(mirror.instances()) >= 8


async def test_a_stop_lets_land_what_is_under_way(archive, mirror, of_workers):
    stop = anyio.Event()
    seen = 0

    async def stopping(request):
        nonlocal seen
        seen += 1
        if seen == 2:
            stop.set()
        return await request.handler(request.request)

    archive.faults.add("getImage", stopping)
    report = await mirror.sync(archive, processes=2, transport="zip", open_series=1, stop=stop)
    assert report.exit_code == 130
    assert mirror.states()[SeriesState.COMPLETE] == 2
    assert_nothing_wrong(mirror, archive)
    held = len(mirror.instances())
    report = await mirror.sync(archive, processes=2, transport="zip")
    assert (report.exit_code, report.instances.fetched) == (0, 32 - held)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_cancelling_leaves_nothing_half_written(archive, mirror):
    with anyio.CancelScope() as scope:

        async def cancelling(request):
            scope.cancel()
            return await request.handler(request.request)

        archive.faults.add("getImage", cancelling)
        await mirror.sync(archive, processes=2, transport="zip")
    assert scope.cancelled_caught
    assert mirror.parts() == []
    archive.faults.clear()
    assert (await mirror.sync(archive, processes=2, transport="zip")).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("at", [1, 4])
async def test_a_run_that_is_killed_goes_on_with_what_its_workers_placed(archive, mirror, at):
    stock_long(archive)
    striker = Striker((at,))
    archive.faults.add("getImage", striker)
    ended = await run(command(archive, mirror.root, "--processes", "2", "--transport", "zip"), begun=striker.begun)
    assert ended.code == -signal.SIGKILL
    archive.faults.clear()
    report = await mirror.sync(archive, processes=2, transport="zip")
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
        await mirror.sync(archive, processes=2, transport="zip")
    assert place.read_bytes() == b"in the way"
    assert mirror.parts() == []
