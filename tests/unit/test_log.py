"""What the history tells, and how `log` tells it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.records import a_series, hold

from mirror.ledger import Ledger
from mirror.ledger.past import Past
from mirror.model import Happened, HistoryEntry

DAY = 86_400
#: 2026-11-24 02:15 UTC.
NIGHT = 1_795_486_500
OLD, NEW = (hashlib.sha256(body).hexdigest() for body in (b"old", b"new"))


def entry(what: Happened, series: str, *, at: int, why: str = "new", collection: str = "Lung", **more: object):
    facts = {"what": what, "why": why, "collection": collection, "series_instance_uid": series, "at": at, "run": "r1"}
    return HistoryEntry(**(facts | more))  # type: ignore[arg-type] - the fields' own types


ENTRIES = [
    entry(Happened.CAME, "1.1.1", at=NIGHT, instances=125, bytes=63_000_000),
    entry(Happened.CAME, "1.2.1", at=NIGHT + 60, instances=1, bytes=500),
    entry(Happened.CAME, "2.1.1", at=NIGHT + DAY, collection="Brain"),
    entry(
        Happened.CHANGED, "1.1.1", at=NIGHT + 2 * DAY, why="the archive has other bytes for it",
        sop_instance_uid="1.1.1.7", bytes=500, old_sha256=OLD, sha256=NEW, retired=".mirror/retired/r1/Lung/7.dcm",
    ),
    entry(Happened.MISSING, "1.2.1", at=NIGHT + 3 * DAY, why="a whole walk lacked it"),
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A mirror with a history; 1.1.1 and 1.2.1 are of the studies 1.1 and 1.2."""
    with Ledger(tmp_path) as ledger:
        hold(ledger, a_series("1.1.1", collection="Lung", study="1.1"), ["1.1.1.7"])
        hold(ledger, a_series("1.2.1", collection="Lung", study="1.2"), ["1.2.1.1"])
        hold(ledger, a_series("2.1.1", collection="Brain", study="2.1"), ["2.1.1.1"])
        ledger.note(ENTRIES)
    return tmp_path


@pytest.fixture
def past(root: Path) -> Iterator[Past]:
    with Past(root) as opened:
        yield opened


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The root of a mirror from before there was a history."""
    with Ledger(tmp_path / "older") as ledger:
        hold(ledger, a_series("1.1.1", collection="Lung"), ["1.1.1.7"])
        with ledger.transaction() as db:
            db.execute("DROP TABLE history")
            db.execute("PRAGMA user_version = 1")
    return tmp_path / "older"


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ([], [0, 1, 2, 3, 4]),
        (["lung"], [0, 1, 3, 4]),
        (["1.2.1"], [1, 4]),
        (["1.1"], [0, 3]),
        (["1.1.1.7"], [3]),
        (["Brain", "1.2"], [1, 2, 4]),
        (["9.9"], []),
        (["Nowhere"], []),
    ],
)
def test_what_entries_are_about(past, about, told):
    assert list(past.entries(about)) == [ENTRIES[number] for number in told]


def test_since_limit_and_order(past):
    assert list(past.entries(since=NIGHT + 2 * DAY)) == ENTRIES[3:]
    assert list(past.entries(["Lung", "Brain"], since=NIGHT + DAY, limit=2)) == ENTRIES[3:]
    assert list(past.entries(limit=2)) == ENTRIES[-2:]
    assert list(past.entries(limit=2, newest_first=True)) == ENTRIES[:-3:-1]
    assert list(past.entries(newest_first=True)) == ENTRIES[::-1]


def test_when_it_begins(past, older):
    assert past.begins() == NIGHT
    with Past(older) as before:
        assert before.begins() is None
        assert list(before.entries()) == []


def log(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mirror", "log", "--to", str(root), *args], capture_output=True, text=True, timeout=50
    )


def test_lines(root):
    done = log(root, "LUNG", "--since", "2026-11-24")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "2026-11-24 02:15  came       Lung  1.1.1  125 instances, 63.0 MB: new",
        "2026-11-24 02:16  came       Lung  1.2.1  1 instance, 500 B: new",
        f"2026-11-26 02:15  changed    Lung  1.1.1  1.1.1.7  500 B, SHA-256 {OLD[:12]} -> {NEW[:12]}:"
        " the archive has other bytes for it; the old bytes: .mirror/retired/r1/Lung/7.dcm",
        "2026-11-27 02:15  missing    Lung  1.2.1: a whole walk lacked it",
    ]


def test_json_lines(root):
    (line,) = log(root, "1.1.1.7", "--json").stdout.splitlines()
    told = json.loads(line)
    assert HistoryEntry(**told | {"what": Happened(told["what"])}) == ENTRIES[3]


def test_nothing_to_tell(root, older):
    done = log(root, "9.9")
    assert (done.returncode, done.stdout) == (0, "")
    assert "the history of this mirror begins at 2026-11-24 02:15 UTC" in done.stderr
    done = log(older)
    assert (done.returncode, done.stdout) == (0, "")
    assert "kept from the first sync on" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("Lnug",), "'Lnug' is no UID, and no collection of this mirror; the nearest are: Brain, Lung"),
        (("--since", "yesterday"), "option --since: 'yesterday' is not right"),
        (("--limit", "0"), "--limit"),
    ],
)
def test_wrong_usage(root, args, words):
    done = log(root, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
