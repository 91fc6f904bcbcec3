"""What a display says about a run: events fed by hand, time moved by hand."""

from __future__ import annotations

import io
import json

import pytest
from msgspec.structs import replace
from rich.console import Console

from mirror.cli.bars import Bars
from mirror.cli.progress import FINDINGS_SHOWN, JsonLines, Lines, Silent
from mirror.cli.tally import Tally
from mirror.errors import ExitCode
from mirror.events import (
    BytesReceived,
    CollectionCrawled,
    CollectionPlanned,
    Event,
    Exported,
    InstanceFailed,
    InstancePublished,
    LimitChanged,
    Noticed,
    Planned,
    RequestDone,
    RequestStarted,
    RunStarted,
    ScopeFound,
    SeriesDone,
    SeriesOpened,
    Stopping,
    TransportChosen,
    Withdrawn,
)
from mirror.model import Finding, FindingKind, Outcome, Series, SeriesState
from mirror.report import Reporter

STARTED = RunStarted(run="r1", server="http://a/", root="/m", scope="all of it", connections=8)
CRAWLED = CollectionCrawled(collection="A", patients=1, studies=2, series=3, planned=2, planned_bytes=4_000_000)
PLANNED = Planned(collections=2, series=4, kept=1, objects=40, bytes=4_000_000, free=10**12)
LOST = Finding(kind=FindingKind.UNAVAILABLE, detail="status 500", sop_instance_uid="1.2.3", attempts=2)
FAILED = InstanceFailed(series_instance_uid="s", sop_instance_uid="1.2.3", finding=LOST)
PUBLISHED = InstancePublished(series_instance_uid="s", sop_instance_uid="i", bytes=100_000)
DONE = SeriesDone(
    outcome=Outcome(
        series=Series(series_instance_uid="s", collection="A", patient_id="P", study_instance_uid="t"),
        state=SeriesState.COMPLETE,
        fetched=10,
        bytes_fetched=1_000_000,
    )
)
EVERYTHING: list[Event] = [
    STARTED, ScopeFound(collections=2), RequestStarted(call="getSeries"),
    RequestDone(call="getSeries", seconds=1, bytes=50), BytesReceived(count=50),
    RequestStarted(call="getSingleImage"), RequestStarted(call="getSingleImage"),
    CRAWLED, CollectionPlanned(collection="A", new=2, kept=1, objects=40, bytes=4_000_000), PLANNED,
    TransportChosen(transport="zip", why="it gave no single instance"), LimitChanged(connections=4, why="status 429"),
    SeriesOpened(series_instance_uid="s", collection="A", listed=10, to_fetch=10),
    BytesReceived(count=100_000), RequestDone(call="getSingleImage", seconds=1, bytes=100_000, retried=True), PUBLISHED,
    FAILED, DONE, Noticed(finding=LOST), Exported(path="/m/manifest.csv", rows=9), Stopping(),
]  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gone(io.StringIO):
    """A stream whose reader went away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def lines_of(*events: Event) -> list[str]:
    stream = io.StringIO()
    display = Lines(stream, clock=Clock())
    for event in events:
        display(event)
    return stream.getvalue().splitlines()


def json_lines_of(*events: Event) -> list[dict]:
    stream = io.StringIO()
    display = JsonLines(stream, clock=Clock(), now=lambda: 0.5)
    for event in events:
        display(event)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_lines_of_a_run():
    assert lines_of(*EVERYTHING) == [
        "run r1: all of it from http://a/ to /m",
        "crawled A: 1 patients, 2 studies, 3 series, 2 to fetch (4.0 MB)",
        "plan: 4 series to fetch (40 objects, 4.0 MB), 1 kept; 1.0 TB free",
        "transport zip: it gave no single instance",
        "finding: unavailable: status 500 [1.2.3] (asked 2 times)",
        "finding: unavailable: status 500 [1.2.3] (asked 2 times)",
        "wrote /m/manifest.csv (9 rows)",
        "stopping: what is in flight is being finished; a second signal ends the run at once",
    ]


def test_what_left_and_since_when_was_asked():
    gone = Withdrawn(collection="A", series_instance_uid="1.2", how="retire")
    assert lines_of(replace(CRAWLED, since="2024-05-01"), gone) == [
        "crawled A since 2024-05-01: 1 patients, 2 studies, 3 series, 2 to fetch (4.0 MB)",
        "withdrawn: 1.2 of A (files retired)",
    ]
    (row,) = json_lines_of(gone)
    assert (row["event"], row["collection"], row["series_instance_uid"], row["how"]) == (
        "withdrawn", "A", "1.2", "retire",
    )  # fmt: skip


def test_objects_have_no_line_of_their_own():
    assert lines_of(PUBLISHED, BytesReceived(count=1), RequestDone(call="getSingleImage", seconds=1, bytes=1)) == []


def test_a_line_says_where_the_run_stands_when_the_last_is_old_enough():
    stream, clock = io.StringIO(), Clock()
    display = Lines(stream, every=5.0, clock=clock)
    for event in (ScopeFound(collections=2), LimitChanged(connections=8, why="start")):
        display(event)
    display(RequestStarted(call="getSeries"))
    display(RequestDone(call="getSeries", seconds=1, bytes=50))
    display.tick()
    clock.now += 4.9
    display.tick()
    assert stream.getvalue() == ""
    clock.now += 0.1
    display.tick()
    display.tick()
    assert stream.getvalue() == (
        "crawling: 0 of 2 collections, 0 series, 1 requests, 0 B/s, 0 of 8 connections in use\n"
    )
    display(CRAWLED)
    display(PLANNED)
    for _ in range(10):
        display(BytesReceived(count=100_000))
        display(PUBLISHED)
    display(DONE)
    display(RequestStarted(call="getSingleImage"))
    display(RequestDone(call="getSingleImage", seconds=1, bytes=50, retried=True))
    display(Stopping())
    clock.now += 5.0
    display.tick()
    assert stream.getvalue().splitlines()[-1] == (
        "fetching: 1 of 4 series, 10 of 40 objects, 1.0 MB of 4.0 MB, 100.0 kB/s, 30 s left, 0 of 8 connections in use,"
        " 1 of 2 requests retried, stopping"
    )


def test_a_flood_of_findings_is_cut_and_the_cut_is_told():
    lines = lines_of(*[FAILED] * (FINDINGS_SHOWN + 5))
    assert len(lines) == FINDINGS_SHOWN
    assert "more findings" in lines[-1]
    assert "more findings" not in lines[-2]


def test_what_a_server_says_cannot_steer_the_terminal():
    evil = Finding(kind=FindingKind.SERIES_REFUSED, detail="\x1b]0;owned\x07\x9b31m\r\n\u202etxt")
    (line,) = lines_of(Noticed(finding=evil))
    assert line.isprintable()
    assert "owned" in line


def test_the_json_lines_of_a_run():
    rows = json_lines_of(*EVERYTHING)
    assert [row["event"] for row in rows] == [
        "run-started", "scope-found", "collection-crawled", "collection-planned", "planned",
        "transport-chosen", "limit-changed",
        "finding", "series-done", "finding", "exported", "stopping",
    ]  # fmt: skip
    assert {(row["time"], row["run"]) for row in rows} == {("1970-01-01T00:00:00.500Z", "r1")}
    by_name = {row["event"]: row for row in rows}
    assert by_name["planned"]["objects"] == 40
    assert by_name["finding"]["kind"] == "unavailable"
    assert "collection" not in by_name["finding"]
    assert by_name["series-done"]["instances"] == {"fetched": 10, "reused": 0, "failed": 0}
    assert by_name["series-done"]["state"] == "complete"


def test_json_progress_comes_by_the_second_and_the_report_last():
    stream, clock = io.StringIO(), Clock()
    display = JsonLines(stream, clock=clock)
    for event in (STARTED, CRAWLED, PLANNED):
        display(event)
    for _ in range(10):
        display(BytesReceived(count=100_000))
        display(PUBLISHED)
        display.tick()
        clock.now += 0.25
    report = Reporter().finish("complete", ExitCode.COMPLETE, bytes_held=7)
    display.close(report)
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    progress = [row for row in rows if row.get("event") == "progress"]
    assert len(progress) == 2
    assert progress[-1]["objects"] == {"done": 9, "failed": 0, "total": 40}
    assert progress[-1]["bytes"] == {"done": 900_000, "total": 4_000_000, "per_second": 400_000}
    assert progress[-1]["seconds_left"] == 8
    assert rows[-1] == report.to_json_dict()


def test_quiet_json_is_the_report_alone():
    stream, clock = io.StringIO(), Clock()
    display = JsonLines(stream, only_report=True, clock=clock)
    for event in EVERYTHING:
        display(event)
    clock.now += 100
    display.tick()
    report = Reporter().finish("complete", ExitCode.COMPLETE)
    display.close(report)
    assert json.loads(stream.getvalue()) == report.to_json_dict()


@pytest.mark.parametrize("kind", [Lines, JsonLines])
def test_a_display_whose_reader_went_away_raises_nothing(kind):
    clock = Clock()
    with kind(Gone(), clock=clock) as display:
        for event in EVERYTHING:
            display(event)
        clock.now += 100
        display.tick()
        display.close(Reporter().finish("complete", ExitCode.COMPLETE))
    assert display.tally.objects_done == 1


def test_the_silent_display_says_nothing(capsys):
    with Silent() as display:
        for event in EVERYTHING:
            display(event)
        display.tick()
        display.close(Reporter().finish("complete", ExitCode.COMPLETE))
    assert capsys.readouterr() == ("", "")


def test_the_bars_show_how_far_each_thing_is():
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, width=100, force_terminal=False)
    bars = Bars(console, clock=clock)
    for event in EVERYTHING[:-1]:
        bars(event)
    clock.now += 2
    bars(BytesReceived(count=200_000))
    console.print(bars.draw())
    shown = stream.getvalue()
    assert "1 of 2" in shown
    assert "1 of 4" in shown
    assert "2 of 40" in shown
    assert "300.0 kB of 4.0 MB" in shown
    assert "150.0 kB/s, 24 s left, 1 of 4 connections in use, 1 of 2 requests retried, 2 findings" in shown


def test_the_bars_leave_the_terminal_as_it_was():
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=True)
    with Bars(console) as bars:
        for event in EVERYTHING:
            bars(event)
    shown = stream.getvalue()
    assert "finding: unavailable: status 500 [1.2.3]" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


def test_a_tally_without_totals_tells_no_time_left():
    tally = Tally()
    for event in (STARTED, Planned(collections=1, series=1, kept=0, objects=None, bytes=None, free=None), PUBLISHED):
        tally.fold(event)
    tally.sample(0.0)
    tally.sample(1.0)
    assert tally.eta() is None
    assert tally.bytes_done == 100_000


def test_time_left_is_told_by_objects_where_bytes_are_unknown():
    tally = Tally()
    tally.fold(Planned(collections=1, series=1, kept=0, objects=11, bytes=None, free=None))
    tally.sample(0.0)
    tally.fold(PUBLISHED)
    tally.sample(2.0)
    assert tally.eta() == 20.0


def test_bytes_that_are_no_objects_do_not_fill_the_bar():
    tally = Tally()
    tally.fold(BytesReceived(count=999))
    tally.fold(PLANNED)
    assert tally.bytes_done == 0
    tally.fold(BytesReceived(count=10**9))
    assert tally.bytes_done == 4_000_000
