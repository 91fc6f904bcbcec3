"""What was retired long ago is deleted, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.mirroring import snapshot
from fakes.records import a_series, hold

from mirror.ledger import Ledger
from mirror.ledger.past import Past
from mirror.model import Happened, HistoryEntry
from mirror.prune import PrunePlan, RetiredRun, plan_prune, prune
from mirror.tree import LocalStore

DAY = 86_400
#: Three runs, the last of them of 2026-11-25 02:15 UTC.
RUNS = ["20260101T000000Z-aaaaaa", "20260901T120000Z-bbbbbb", "20261125T021500Z-cccccc"]
NOW = 1_795_572_900 + DAY


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A mirror of one series, and two files that each of the runs has retired, with the entries that tell of them."""
    store = LocalStore(tmp_path, fsync=False)
    with Ledger(tmp_path) as ledger:
        hold(ledger, a_series("1.1", collection="Lung"), ["1.1.1"])
        for run in RUNS:
            entries = []
            for number, name in enumerate(("1.dcm", "2.dcm")):
                (tmp_path / "Lung").mkdir(exist_ok=True)
                (tmp_path / "Lung" / name).write_bytes(b"bytes")
                entries.append(
                    HistoryEntry(
                        what=Happened.CHANGED, why="other bytes", collection="Lung", series_instance_uid="1.1",
                        sop_instance_uid=f"1.1.{number}", retired=store.retire("Lung", name, run), run=run,
                    )
                )  # fmt: skip
            withdrawn = HistoryEntry(
                what=Happened.WITHDRAWN, why="gone", collection="Lung", series_instance_uid="1.2", instances=7,
                retired=f".mirror/retired/{run}/Lung/1.2", run=run,
            )  # fmt: skip
            ledger.note([*entries, withdrawn])
    return tmp_path


def retired(root: Path) -> list[str]:
    return sorted(snapshot(root / ".mirror" / "retired"))


def pruned(root: Path, older_than: float) -> list[RetiredRun]:
    gone: list[RetiredRun] = []
    store = LocalStore(root)
    with Ledger(root) as ledger:
        prune(ledger, store, plan_prune(store, older_than, NOW), gone.append)
    return gone


@pytest.mark.parametrize(("days", "due"), [(0, 3), (1, 2), (90, 1), (100, 1), (365, 0)])
def test_what_is_due_is_older_than_that(root, days, due):
    plan = plan_prune(LocalStore(root), days * DAY, NOW)
    assert plan == PrunePlan(due=tuple(RetiredRun(run, 2, 10) for run in RUNS[:due]), younger=3 - due, strange=())


def test_it_deletes_what_is_due_and_forgets_where_it_lay(root):
    before = snapshot(root)
    assert pruned(root, 50 * DAY) == [RetiredRun(run, 2, 10) for run in RUNS[:2]]
    left = snapshot(root)
    gone = {path for path in before if path not in left}
    assert gone == {f".mirror/retired/{run}/Lung/{name}" for run in RUNS[:2] for name in ("1.dcm", "2.dcm")}
    with Past(root) as past:
        entries = list(past.entries())
    assert {e.retired for e in entries if e.run in RUNS[:2]} == {None}
    assert all(e.retired for e in entries if e.run == RUNS[2])
    told = [(e.series_instance_uid, e.instances, e.why) for e in entries if e.what is Happened.PRUNED]
    assert told == [
        (series, count, f"retired by the run {run}") for run in RUNS[:2] for series, count in (("1.1", 2), ("1.2", 7))
    ]
    assert pruned(root, 50 * DAY) == []


def test_a_prune_that_was_cut_off_goes_on(root):
    with Ledger(root) as ledger:
        ledger.forget_retired(f".mirror/retired/{RUNS[0]}", "first")
    (root / ".mirror" / "retired" / RUNS[0] / "Lung" / "1.dcm").unlink()
    assert pruned(root, 200 * DAY) == [RetiredRun(RUNS[0], 1, 5)]
    with Past(root) as past:
        assert [e.why for e in past.entries() if e.what is Happened.PRUNED] == ["first", "first"]


def test_what_no_run_has_made_is_left_alone(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept.dcm").write_bytes(b"kept")
    folder = root / ".mirror" / "retired"
    (folder / "mine").mkdir()
    (folder / "20269901T000000Z-aaaaaa").mkdir()
    (folder / "20250101T000000Z-aaaaab").write_bytes(b"a file")
    (folder / "20250101T000000Z-aaaaac").symlink_to(outside)
    (folder / RUNS[0] / "Lung" / "link").symlink_to(outside)
    plan = plan_prune(LocalStore(root), 0, NOW)
    assert plan.strange == ("20250101T000000Z-aaaaab", "20250101T000000Z-aaaaac", "20269901T000000Z-aaaaaa", "mine")
    assert len(pruned(root, 0)) == 3
    assert sorted(path.name for path in folder.iterdir()) == sorted(plan.strange)
    assert (outside / "kept.dcm").read_bytes() == b"kept"


def test_a_mirror_that_retired_nothing(tmp_path):
    Ledger(tmp_path).close()
    assert plan_prune(LocalStore(tmp_path), 0, NOW) == PrunePlan(due=(), younger=0, strange=())


# The command


def command(root: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mirror", "prune", "--to", str(root), *args],
        capture_output=True, text=True, timeout=50, env=os.environ | variables,
    )  # fmt: skip


@pytest.fixture
def old(root: Path) -> str:
    """The name of a run of 100 days ago, the only one that has retired something so long ago or longer."""
    folder = root / ".mirror" / "retired"
    name = time.strftime("%Y%m%dT%H%M%SZ-dddddd", time.gmtime(time.time() - 100 * DAY))
    (folder / RUNS[0]).rename(folder / name)
    young = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(time.time() - 10 * DAY))
    for run in RUNS[1:]:
        (folder / run).rename(folder / f"{young}{run[-6:]}")
    return name


def test_the_command(root, old):
    (root / ".mirror" / "retired" / "mine").mkdir()
    before = retired(root)
    done = command(root, "--dry-run")
    assert done.stdout.splitlines() == [
        f"{old}  2 files, 10 B",
        "would delete 2 files, 10 B of 1 run that began more than 90 d 0 h ago; 2 runs younger",
    ]
    assert ".mirror/retired/mine: no run has made this; it is left alone" in done.stderr
    assert (done.returncode, retired(root)) == (0, before)
    done = command(root, "--older-than", "101d")
    assert (done.returncode, done.stdout.splitlines()) == (
        0, ["deleted 0 files, 0 B of 0 runs that began more than 101 d 0 h ago; 3 runs younger"],
    )  # fmt: skip
    done = command(root, "--json", TCIA_MIRROR_SYNC_PRUNE_AFTER="20d")
    assert json.loads(done.stdout) == {
        "dry_run": False, "older_than_seconds": 20 * DAY, "runs": [{"run": old, "files": 2, "bytes": 10}],
        "younger_runs": 2, "left_alone": ["mine"],
    }  # fmt: skip
    assert retired(root) == [path for path in before if not path.startswith(old)]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--older-than", "soon"), 2, "option --older-than: 'soon' is not right; it should be a length of time"),
        (("--config", "none.toml"), 2, "none.toml: cannot read the settings"),
    ],
)
def test_wrong_usage(root, args, code, words):
    done = command(root, *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_a_folder_without_a_mirror_is_not_made_one(tmp_path):
    done = command(tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])


def test_it_waits_for_nobody(root, old):
    with Ledger(root):
        assert command(root).returncode == 6
        assert command(root, "--dry-run").returncode == 0
    assert any(path.startswith(old) for path in retired(root))
