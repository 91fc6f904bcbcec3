"""The table of `status` on paper of different widths."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from mirror.cli.summary import show_status
from mirror.model import CollectionStatus

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
