"""The table of `status` on paper of different widths."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from mirror.cli.summary import show_status, show_summary, status_json_dict, too_old
from mirror.errors import ExitCode
from mirror.events import CollectionPlanned, Event, Noticed, RequestDone, SeriesDone, Withdrawn
from mirror.model import CollectionStatus, Finding, FindingKind, Outcome, Series, SeriesState
from mirror.report import Reporter

WHOLE = CollectionStatus(
    collection="A \x1b[1m", series=1200, complete=1200, incomplete=0, quarantined=0, unfinished=0,
    instances=250_000, bytes=125 * 10**9, last_sync=0,
)  # fmt: skip
BROKEN = CollectionStatus(
    collection="B", series=3, complete=1, incomplete=2, quarantined=0, unfinished=0,
    instances=10, bytes=10, last_sync=None,
)  # fmt: skip


def shown(*rows: CollectionStatus, width: int | None) -> list[str]:
    stream = StringIO()
    show_status(Console(file=stream, width=500), rows, width=width)
    return stream.getvalue().splitlines()


def test_every_figure_where_there_is_room():
    lines = shown(WHOLE, BROKEN, width=None)
    assert lines[0].split()[:8] == [
        "collection", "series", "complete", "incomplete", "quarantined", "unfinished", "instances", "bytes",
    ]  # fmt: skip
    assert lines[2].split() == [
        "A", "\ufffd[1m", "1,200", "1,200", "0", "0", "0", "250,000", "125.0", "GB", "1970-01-01", "00:00",
    ]  # fmt: skip
    assert lines[3].split() == ["B", "3", "1", "2", "0", "0", "10", "10", "B", "never"]
    assert lines[-1].split() == ["total", "1,203", "1,201", "2", "0", "0", "250,010", "125.0", "GB"]


@pytest.mark.parametrize(("rows", "kept"), [((WHOLE,), set()), ((WHOLE, BROKEN), {"incomplete"})])
def test_troubles_that_are_not_there_give_way_on_a_narrow_terminal(rows, kept):
    lines = shown(*rows, width=80)
    assert {"incomplete", "quarantined", "unfinished"} & set(lines[0].split()) == kept
    assert max(len(line) for line in lines) <= 80


def test_what_the_archive_has_no_more_has_columns_where_there_is_such():
    lines = shown(WHOLE, replace(BROKEN, missing=1, withdrawn=2), width=None)
    assert lines[0].split()[5:8] == ["unfinished", "missing", "withdrawn"]
    assert lines[3].split()[:8] == ["B", "3", "1", "2", "0", "0", "1", "2"]


# Ages

SYNCED = replace(WHOLE, collection="S", last_complete=1000)
OLD = replace(WHOLE, collection="O", last_complete=400)
GONE = replace(WHOLE, collection="G", withdrawn=1200)


def test_a_mirror_is_as_old_as_its_oldest_collection_that_the_archive_has():
    told = status_json_dict("/m", None, None, [SYNCED, OLD, GONE], now=1100)
    assert (told["last_complete"], told["age_seconds"]) == (400, 700)
    assert [(c["collection"], c["last_complete"], c["age_seconds"]) for c in told["collections"]] == [
        ("S", 1000, 100), ("O", 400, 700), ("G", None, None),
    ]  # fmt: skip
    never = status_json_dict("/m", None, None, [SYNCED, BROKEN], now=1100)
    assert (never["last_complete"], never["age_seconds"]) == (None, None)


def test_collections_that_are_too_old_are_named():
    assert too_old([SYNCED, OLD, GONE, BROKEN], 699, now=1100) == [
        "O: last complete sync: 11 min 40 s ago, 1970-01-01 00:06 UTC",
        "B: last complete sync: never",
    ]
    assert too_old([SYNCED, OLD, GONE], 700, now=1100) == []
    assert too_old([], 700, now=1100) == ["no collection was ever synced"]


# Summaries


def summary(*events: Event) -> list[str]:
    """The lines of a summary about collections."""
    reporter = Reporter()
    for event in events:
        reporter(event)
    stream = StringIO()
    show_summary(Console(file=stream, width=500), reporter.finish("complete", ExitCode.COMPLETE))
    lines = stream.getvalue().splitlines()
    return [line for line in lines[5:] if "findings" not in line and "status 500" not in line]


def judged(collection: str, state: SeriesState, **counts: int) -> SeriesDone:
    series = Series(series_instance_uid="1", collection=collection, patient_id="P", study_instance_uid="2")
    return SeriesDone(outcome=Outcome(series=series, state=state, **counts))


def test_collections_have_a_line_where_something_happened():
    assert summary() == []
    assert summary(
        *(RequestDone(call="getSeries", seconds=1, bytes=1, collection=name) for name in "AABCD"),
        Noticed(finding=Finding(kind=FindingKind.CRAWL_FAILED, detail="status 500", collection="B")),
        CollectionPlanned(collection="A", new=1, changed=2, kept=1200, returned=1, missing=3, withdraw=2),
        CollectionPlanned(collection="C", kept=9),
        judged("A", SeriesState.COMPLETE, fetched=1200, bytes_fetched=5000),
        judged("A", SeriesState.INCOMPLETE, failed=3),
        Withdrawn(collection="A", series_instance_uid="9", how="keep"),
    ) == [
        "  collections",
        "    A: 1 new, 2 changed, 3 missing, 1 returned, 1 withdrawn, 1 not withdrawn; 1 complete, 1 incomplete;"
        " 1,200 instances fetched, 3 failed, 5.0 kB; 2 requests",
        "    B: could not be crawled; 1 requests",
        "    2 other collections unchanged",
    ]
    assert summary(CollectionPlanned(collection="C", kept=9)) == ["  collections", "    1 collection unchanged"]


def test_an_archive_full_of_news_is_not_told_line_by_line():
    lines = summary(*(CollectionPlanned(collection=f"{n:03}", new=1) for n in range(180)))
    assert len(lines) == 32
    assert lines[-1].startswith("    and 150 more, see .mirror/runs/")


def told(*findings: Finding) -> list[str]:
    """The lines of a summary below the number of findings."""
    reporter = Reporter()
    for finding in findings:
        reporter(Noticed(finding=finding))
    stream = StringIO()
    show_summary(Console(file=stream, width=500), reporter.finish("incomplete", ExitCode.INCOMPLETE))
    lines = stream.getvalue().splitlines()
    return lines[lines.index(f"  findings   {len(findings)}") + 1 :]


def unavailable(number: int, detail: str, attempts: int | None = None) -> Finding:
    return Finding(
        kind=FindingKind.UNAVAILABLE, detail=detail, sop_instance_uid=f"1.{number}", attempts=attempts
    )  # fmt: skip


def test_findings_that_say_the_same_are_one_line_and_causes_come_first():
    waiting = [unavailable(n, "not asked for yet") for n in range(50)]
    short = Finding(kind=FindingKind.COUNT_DIFFERS, detail="2 of 52", series_instance_uid="1")
    lost = [unavailable(n, "status 500", 3) for n in (98, 99)]
    assert told(short, *waiting, *lost) == [
        "    unavailable: status 500 [1.98] and 1 more like it",
        "    unavailable: not asked for yet [1.0] and 49 more like it",
        "    count-differs: 2 of 52 [1]",
    ]


def test_findings_of_more_than_ten_sorts_are_counted():
    lines = told(*(unavailable(n, f"status {n // 2}") for n in range(24)))
    assert len(lines) == 11
    assert lines[0] == "    unavailable: status 0 [1.0] and 1 more like it"
    assert lines[-1].startswith("    and 4 more, see .mirror/runs/")
