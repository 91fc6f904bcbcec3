"""The table of `status` on paper of different widths."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from mirror.cli.summary import show_status, show_summary
from mirror.errors import ExitCode
from mirror.events import Noticed
from mirror.model import CollectionStatus, Finding, FindingKind
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
