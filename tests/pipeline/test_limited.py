"""Runs that end by a limit of their own: in order, with a code of their own, and each gets on."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from fakes.archive import FakeArchive
from fakes.dicom import make_series, uid
from fakes.faults import Asked, Fault, cut, hold, short_zip, status
from fakes.mirroring import ALL, Mirror, asked, assert_nothing_wrong, settings_for, some_instance, truth
from fakes.process import command, environment, run

from mirror import limits
from mirror.errors import ExitCode
from mirror.events import Event, LimitReached, RequestDone, RunStarted, Stopping
from mirror.model import Scope, SeriesState, Walk
from mirror.pipeline import sync
from mirror.report import RunReport

SERIES = uid(2, 1, 2, 1)  # twelve files
OFTEN = 30


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


def size_of(archive: FakeArchive, series: str = SERIES) -> int:
    return sum(len(body) for of, body in archive.files().values() if of == series)


async def until_done(
    mirror: Mirror, archive: FakeArchive, check: Callable[[RunReport], None], **options: Any
) -> list[RunReport]:
    """One run after the other until one does not end by its limit; each is as a run should be."""
    reports: list[RunReport] = []
    while not reports or reports[-1].exit_code == ExitCode.LIMITED:
        assert len(reports) < OFTEN, "the runs get nowhere"
        reports.append(await mirror.sync(archive, walk=Walk(), **options))
        assert_nothing_wrong(mirror, archive)
        check(reports[-1])
    return reports


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_runs_of_so_many_bytes_come_to_the_whole_mirror(archive, mirror, dialect):
    most = 12_000
    biggest = max(map(len, truth(archive).values()))

    def bounded(report: RunReport) -> None:
        # The tcia dialect's rows do not say how large a series is: what was in flight came on top.
        beyond = 0 if dialect == "nbia" else 8 * biggest
        assert 0 < report.bytes.fetched <= most + beyond
        assert sum(e.bytes for e in mirror.events if isinstance(e, RequestDone) and e.call == "getSingleImage") == (
            report.bytes.fetched
        )
        if report.exit_code == ExitCode.LIMITED:
            assert report.state == "limited"
            assert (report.limit or "").startswith("sync.max_bytes: ")
            assert report.to_json_dict()["limit"] == report.limit
            assert [e.why for e in mirror.events if isinstance(e, LimitReached)] == [report.limit]
            assert not any(isinstance(e, Stopping) for e in mirror.events), "nobody has asked it to stop"

    reports = await until_done(mirror, archive, bounded, dialect=dialect, max_bytes=str(most))
    assert len(reports) > 1
    assert (reports[-1].exit_code, reports[-1].state, reports[-1].limit) == (0, "complete", None)
    assert sum(report.instances.fetched for report in reports) == 32
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_a_limit_below_the_first_object_lets_one_land_in_each_run(archive, mirror):
    scope = Scope(series=(uid(1, 1, 1, 1),))

    def one(report: RunReport) -> None:
        assert report.instances.fetched == 1

    reports = await until_done(mirror, archive, one, scope=scope, max_bytes="1")
    assert [report.exit_code for report in reports] == [8, 8, 0]


@pytest.mark.asyncio
async def test_zips_are_counted_whole_and_those_that_are_always_short_let_the_others_by(archive, mirror):
    """However small the limit: a row of runs ends, with all that can be had."""
    for first in (uid(1, 1, 1, 1), uid(2, 1, 1, 1)):
        archive.faults.add("getImage", short_zip(), SeriesInstanceUID=first)

    def at_most_one(report: RunReport) -> None:
        series = report.series
        assert series.complete + series.incomplete <= 1

    reports = await until_done(mirror, archive, at_most_one, transport="zip", max_bytes="1")
    assert reports[-1].exit_code == ExitCode.INCOMPLETE
    assert mirror.states()[SeriesState.COMPLETE] == 5
    assert len(mirror.instances()) == 30
    # Two are left, one more than the limit lets a run look at, and no run can bring them: that is no 8 for ever.
    assert reports[-1].series.incomplete == 1
    archive.faults.clear()
    assert (await mirror.sync(archive, transport="zip")).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_an_object_that_never_comes_does_not_hold_up_the_others(archive, mirror):
    scope = Scope(series=(uid(1, 1, 1, 1), uid(1, 2, 1, 1)))
    never = some_instance(archive, scope.series[0])
    archive.faults.add("getSingleImage", status(500), SOPInstanceUID=never)
    reports = await until_done(mirror, archive, lambda report: None, scope=scope, max_bytes="1", attempts=1)
    assert reports[-1].exit_code == ExitCode.INCOMPLETE
    assert set(mirror.instances()) == {sop for sop, (of, _) in archive.files().items() if of in scope.series} - {never}


@pytest.mark.asyncio
async def test_bytes_of_bodies_that_break_off_count(archive, mirror):
    """Else a proxy that cuts every body would have a quota fetched many times over."""
    archive.faults.add("getSingleImage", cut(0.9))
    size = size_of(archive) // 12
    report = await mirror.sync(archive, max_bytes=str(2 * size), connections=1, attempts=2)
    assert (report.exit_code, report.instances.fetched) == (ExitCode.LIMITED, 0)
    assert len(asked(archive, "getSingleImage")) <= 6


@pytest.mark.asyncio
async def test_a_limit_that_all_fits_into_ends_nothing(archive, mirror):
    most = sum(map(len, truth(archive).values()))
    report = await mirror.sync(archive, max_bytes=str(most), max_duration="7d")
    assert (report.exit_code, report.state, report.limit) == (0, "complete", None)
    assert not any(isinstance(e, LimitReached) for e in mirror.events)
    assert_nothing_wrong(mirror, archive, whole=True)


class Clocked:
    """A run whose time is up while the archive holds back an answer to `call`: it answers when the limit is reached."""

    def __init__(self, archive: FakeArchive, call: str, *, after: int = 3, answer: bool = True) -> None:
        self.events: list[Event] = []
        self.gate = asyncio.Event()
        self._answer = answer
        self._seen, self._after = 0, after
        self._held: Fault = hold(self.gate)
        archive.faults.add(call, self._fault)

    async def _fault(self, request: Asked) -> Any:
        self._seen += 1
        if self._seen < self._after:
            return await request.handler(request.request)
        return await self._held(request)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, LimitReached) and self._answer:
            self.gate.set()

    async def sync(self, mirror: Mirror, archive: FakeArchive, scope: Scope = ALL, *, attempts: int = 3) -> RunReport:
        settings = settings_for(archive, max_duration="2s", open_series=1, attempts=attempts)
        archive.requests.clear()
        return await sync(mirror.root, scope, settings, sink=self)


@pytest.mark.asyncio
async def test_when_the_time_is_up_what_is_in_flight_lands(archive, mirror):
    run = Clocked(archive, "getSingleImage")
    report = await run.sync(mirror, archive, Scope(series=(SERIES,)))
    assert (report.exit_code, report.state, report.limit) == (8, "limited", "sync.max_duration: 2s are over")
    # Two came at once. What was in flight came when the time was up, what was in the queue did not.
    in_flight = len(asked(archive, "getSingleImage"))
    assert 3 <= report.instances.fetched == in_flight <= 2 + 8
    assert_nothing_wrong(mirror, archive)
    report_file = mirror.root / ".mirror" / "runs" / f"{report.run}.json"
    assert json.loads(report_file.read_text())["limit"] == report.limit

    # The next run goes on from the plan: no more is asked of the crawl than on any other night.
    archive.faults.clear()
    finished = await mirror.sync(archive, scope=Scope(series=(SERIES,)), walk=Walk())
    assert (finished.exit_code, finished.instances.fetched) == (0, 12 - report.instances.fetched)
    assert_nothing_wrong(mirror, archive)


@pytest.mark.asyncio
async def test_the_run_after_a_limit_asks_no_more_of_the_crawl_than_on_any_night(archive, mirror):
    assert (await mirror.sync(archive, max_bytes="4kB")).exit_code == ExitCode.LIMITED
    assert len(asked(archive, "getSeries")) == 2
    finished = await mirror.sync(archive, walk=Walk())
    assert finished.exit_code == 0
    assert asked(archive, "getSeries") == asked(archive, "getPatient") == []
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_what_does_not_land_in_time_is_cut_off(archive, mirror, monkeypatch):
    monkeypatch.setattr(limits, "GRACE", 0.5)
    run = Clocked(archive, "getSingleImage", answer=False)
    report = await run.sync(mirror, archive)
    run.gate.set()
    assert (report.exit_code, report.state) == (8, "limited")
    assert report.limit == "sync.max_duration: 2s are over; what did not land in 0 s after that was cut off"
    assert report.instances.fetched == 2
    assert mirror.parts() == []
    archive.faults.clear()
    finished = await mirror.sync(archive, walk=Walk())
    assert (finished.exit_code, finished.instances.fetched) == (0, 30)
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_time_that_is_up_during_the_crawl_leaves_the_watermark_where_it_was(archive, mirror):
    run = Clocked(archive, "getSeries", after=2)
    report = await run.sync(mirror, archive)
    assert (report.exit_code, report.instances.fetched) == (8, 0)
    assert "and the crawl is not" in (report.limit or "")
    # One collection had come whole, and is not walked again; the other is.
    archive.faults.clear()
    finished = await mirror.sync(archive, walk=Walk())
    assert finished.exit_code == 0
    assert len(asked(archive, "getSeries")) == 1
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_a_limit_while_the_archive_holds_everybody_back(archive, mirror):
    """Who waits for another try, or to ask whether the archive is down, waits no more."""
    archive.faults.add("getSingleImage", status(503, headers={"Retry-After": "100"}))
    report = await Clocked(archive, "nothing").sync(mirror, archive, attempts=1)
    assert (report.exit_code, report.state, report.limit) == (8, "limited", "sync.max_duration: 2s are over")
    archive.faults.clear()
    assert (await mirror.sync(archive)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_a_stop_that_comes_before_the_limit_is_what_ends_the_run(archive, mirror):
    stop = anyio.Event()

    async def stopping(request: Asked):
        stop.set()
        return await request.handler(request.request)

    archive.faults.add("getSingleImage", stopping, times=1)
    report = await mirror.sync(archive, stop=stop, max_bytes="1", max_duration="7d")
    assert (report.exit_code, report.state, report.limit) == (130, "interrupted", None)


@pytest.mark.asyncio
async def test_no_withdrawal_in_a_limited_run(archive, mirror, nights):
    options: dict[str, Any] = {"on_withdrawn": "retire", "max_withdraw": 9, "max_withdraw_percent": 100.0}
    assert (await mirror.sync(archive, **options)).exit_code == 0
    archive.withdraw(SERIES)
    nights.pass_by(days=2)
    assert (await mirror.sync(archive, **options)).exit_code == 0
    archive.stock("Lung-Alpha", make_series(series_uid=uid(9, 9), instances=4, seed=9), released="2026-01-01")
    nights.pass_by(days=2)
    limited = await mirror.sync(archive, max_bytes="1", **options)
    assert limited.exit_code == ExitCode.LIMITED
    assert mirror.presence(SERIES) == "missing"
    nights.pass_by(days=2)
    assert (await mirror.sync(archive, **options)).exit_code == 0
    assert mirror.presence(SERIES) == "withdrawn"


@pytest.mark.asyncio
async def test_a_dry_run_tells_the_limits_and_is_not_ended_by_the_one_of_bytes(archive, mirror):
    report = await mirror.sync(archive, dry_run=True, max_bytes="1KiB", max_duration="1h30m")
    assert (report.exit_code, report.state) == (0, "planned")
    (started,) = (e for e in mirror.events if isinstance(e, RunStarted))
    assert (started.max_bytes, started.max_seconds) == (1024, 5400)


@pytest.mark.asyncio
async def test_more_than_the_limit_need_not_fit_on_the_disk(archive, mirror, monkeypatch):
    monkeypatch.setattr("mirror.tree.local.LocalStore.free", lambda store: 64 * 1024 * 1024 + 20_000)
    assert (await mirror.sync(archive, max_bytes="2000")).exit_code == ExitCode.LIMITED


@pytest.mark.asyncio
async def test_the_command_ends_with_8_and_says_why(archive, mirror):
    ended = await run(command(archive, mirror.root, "--max-bytes", "4kB"))
    assert ended.code == 8
    assert ended.out.splitlines()[0].startswith("limited after ")
    assert ended.out.splitlines()[1].startswith("  limit      sync.max_bytes: ")
    assert "limit: sync.max_bytes: " in ended.err
    assert "Traceback" not in ended.err
    wrong = await run(command(archive, mirror.root, "--max-duration", "8 hours"))
    assert (wrong.code, "option --max-duration" in wrong.err) == (2, True)
    told = await run(command(archive, mirror.root, "--max-duration", "8h", "--max-bytes", "1GB", "--dry-run"))
    assert "limits: a run ends in order after 1.0 GB fetched or 8 h 0 min" in told.out
    done = await run(command(archive, mirror.root, "--max-bytes", "1GB"))
    assert done.code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize(("signals", "code"), [(1, 8), (2, 130)], ids=["one", "two"])
@pytest.mark.asyncio
async def test_signals_while_it_stops_for_a_limit(archive, mirror, signals, code):
    """It stops in order already: the first changes nothing, the second ends it at once."""
    gate, waiting = asyncio.Event(), asyncio.Event()

    async def held(request: Asked):
        waiting.set()
        return await hold(gate)(request)

    archive.faults.add("getSingleImage", held)
    argv = command(archive, mirror.root, "--json", "--max-duration", "4s")
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, env=environment(SYNC_OPEN_SERIES="1"), stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []

    async def until(event: str) -> None:
        while not lines or lines[-1].get("event") != event:
            lines.append(json.loads(await process.stdout.readline()))  # type: ignore[union-attr]

    await waiting.wait()
    await until("limit-reached")
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
        if signals == 1:
            await until("stopping")
            gate.set()
        elif lines[-1].get("event") != "stopping":
            # Two signals at once may arrive as one.
            await until("stopping")
    out, err = await process.communicate()
    gate.set()
    assert (process.returncode, err.count(b"Traceback")) == (code, 0)
    assert json.loads(out.splitlines()[-1])["exit_code"] == code
    assert mirror.parts() == []
    archive.faults.clear()
    assert (await mirror.sync(archive)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)
