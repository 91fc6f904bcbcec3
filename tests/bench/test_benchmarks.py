"""The measuring bench at a tiny size: what it serves is an archive, and what it says of a client is true."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from fakes.process import environment

from benchmarks import measure, startup, tables, throttle
from benchmarks.archive import SHAPES, Shape, build

PROJECT = Path(__file__).parents[2]
TINY = Shape(3, 4, ((8, 1), (8, 2)))
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


@pytest.mark.parametrize(
    ("server", "dialect"),
    [
        ("stub", "nbia"),
        ("stub", "tcia"),
        pytest.param("nginx", "nbia", marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed")),
    ],
)
def test_everything_is_brought_and_told_in_the_table(server, dialect, tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--shapes", "small", "--scale", "0.003", "--rounds", "1"]
    command += ["--clients", "bare@2", "ours-instance@2", "ours-zip", "--connections", "3", "--dialects", dialect]
    command += ["--server", server, "--work", str(tmp_path), "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=PROJECT, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    runs = json.loads((tmp_path / "out" / "figures.json").read_text())["runs"]
    assert [(r["client"], r["n"], r["right"], r["missing"], r["wrong"]) for r in runs] == [
        ("bare@2", 2, 50, 0, 0),
        ("ours-instance@2", 2, 50, 0, 0),
        ("ours-zip", 3, 50, 0, 0),
    ]
    assert runs[0]["requests"] == 50
    assert 50 < runs[1]["requests"] < 70
    assert 2 < runs[2]["requests"] < 20
    assert all(run["wall"] > 0 and run["cpu"] > 0 and run["rss"] > 10 for run in runs)
    rows = [line.split(" | ") for line in ended.stdout.splitlines() if line.startswith("| ours")]
    assert [(row[0], row[8:11]) for row in rows] == [
        ("| ours-instance", ["50", "0", "0"]),
        ("| ours-zip", ["50", "0", "0"]),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_objects_are_dicom_and_differ(tmp_path):
    archive = build(tmp_path / "a", TINY)
    again = build(tmp_path / "b", TINY)
    assert archive.objects == again.objects
    assert build(tmp_path / "c", TINY, seed=2).objects != archive.objects
    assert len({o.sha256 for o in archive.objects}) == len({o.uid for o in archive.objects}) == 12
    numbers = []
    for o in archive.objects:
        path = archive.root / "o" / o.series / f"{o.uid}.dcm"
        assert path.stat().st_size == o.bytes
        dataset = pydicom.dcmread(path)
        assert (dataset.SOPInstanceUID, dataset.SeriesInstanceUID) == (o.uid, o.series)
        assert dataset.file_meta.MediaStorageSOPInstanceUID == o.uid
        assert len(dataset.PixelData) == 8 * 8 * 2 * int(dataset.get("NumberOfFrames", 1))
        numbers.append((dataset.SeriesNumber, dataset.InstanceNumber))
    assert numbers == [(series, n) for series in (1, 2, 3) for n in (1, 2, 3, 4)]


def test_what_is_damaged_missing_or_foreign_is_counted(tmp_path):
    archive = build(tmp_path / "archive", TINY)
    tree = tmp_path / "tree"
    shutil.copytree(archive.root / "o", tree)
    (tree / "LICENSE").write_text("no image")
    (tree / ".mirror").mkdir()
    paths = sorted(tree.rglob("*.dcm"))
    shutil.copy(paths[0], tree / ".mirror" / "kept.dcm")
    assert measure.check(tree, archive) == measure.Brought(12, 0, 0)
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-1] + b"?")
    paths[2].write_bytes(b"")
    shutil.copy(paths[3], tree / "twice")
    assert measure.check(tree, archive) == measure.Brought(9, 3, 3)


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    cost = measure.measured(["sleep", "60"], cwd=tmp_path, log=tmp_path / "log", limit=0.2)
    assert cost.status == -9
    assert cost.wall < 30


def run(client: str, wall: float, **other: object) -> dict[str, object]:
    n = client.partition("@")[2]
    same = {"shape": "ct", "link": "loopback", "dialect": "nbia", "status": 0, "cpu": 1.0, "rss": 50.0, "requests": 5}
    size = {"objects": 4, "series": 1, "bytes": 4_000_000, "right": 4, "missing": 0, "wrong": 0, "ok": True}
    return same | size | {"client": client, "n": int(n or 8), "wall": wall} | other


def test_medians_and_ratios():
    runs = [run("bare@16", 1.0), run("bare", 2.0), run("tcia_utils@4", 12.0), run("tcia_utils@10", 8.0)]
    runs += [run("ours-zip", wall) for wall in (9.0, 4.0, 3.0)]
    runs[-1] |= {"right": 3, "missing": 1, "ok": False}
    rows = [line.strip("| ").split(" | ") for line in tables.of(runs).splitlines()[6:]]
    # The bare loop counts with the same number of connections, or the best one where none has it.
    assert [(row[0], row[2], *row[8:]) for row in rows[:-1]] == [
        ("bare", "1.00", "4", "0", "0", "1.00", "8.00"),
        ("bare", "2.00", "4", "0", "0", "1.00", "4.00"),
        ("tcia_utils", "12.00", "4", "0", "0", "0.08", "0.67"),
        ("tcia_utils", "8.00", "4", "0", "0", "0.12", "1.00"),
    ]
    # A client that failed in any round gets no ratios: being fast with less is nothing.
    assert rows[-1][0] == "ours-zip (status 0)"
    assert rows[-1][2] == "4.00"
    assert rows[-1][8:] == ["3", "1", "0"]


@pytest.mark.parametrize(("shape", "objects"), [("ct", 5_750), ("small", 20_000), ("huge", 10), ("single", 20_000)])
def test_the_shapes_are_as_large_as_they_say(shape, objects):
    asked = SHAPES[shape]
    assert asked.series * asked.instances == objects
    assert asked.scaled(1) == asked
    assert asked.scaled(0.0001).series == max(1, asked.series // 10_000)


def test_the_tables_go_between_their_markers(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    page = tmp_path / "performance.md"
    page.write_text(
        "a\n<!-- micro: begin -->\nold\n<!-- micro: end -->\nb\n<!-- tables: begin -->\n<!-- tables: end -->\n"
    )
    tables.write_docs("micro", "| new |")
    told = page.read_text()
    assert told.startswith("a\n<!-- micro: begin -->\n| new |\n\nMeasured on ")
    assert told.endswith("\n<!-- micro: end -->\nb\n<!-- tables: begin -->\n<!-- tables: end -->\n")
    assert "old" not in told
    with pytest.raises(SystemExit, match="no section other"):
        tables.write_docs("other", "")


@pytest.mark.parametrize("section", ["tables", "throttle", "micro", "startup"])
def test_the_docs_have_the_markers(section, tmp_path, monkeypatch):
    shutil.copy(tables.DOCS / "performance.md", tmp_path)
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    tables.write_docs(section, "these figures")
    assert "these figures" in (tmp_path / "performance.md").read_text()


def test_a_start_is_timed_up_to_the_first_request():
    taken = startup.measure(1)
    assert list(taken) == list(startup.TIMED)
    assert all(one.wall > 0 and one.cpu > 0 for one in taken.values())
    sync, *_, nothing = taken.values()
    assert nothing.cpu < sync.cpu
    assert len(startup.table(taken).splitlines()) == 2 + len(taken)
    with pytest.raises(SystemExit, match="failed"):
        startup.interpreter("import nothing_of_that_name")


def test_what_is_refused_counts_after_the_first_minute():
    def line(at: float, requests: int, refused: int, sent: int) -> dict[str, float]:
        return {"at": at, "in_flight": 1, "requests": requests, "refused": refused, "sent": sent}

    trace = [
        line(1000, 0, 0, 0),
        line(1010, 10, 10, 0),
        line(1069, 100, 20, 50),
        line(1070, 200, 20, 100),
        line(1170, 600, 22, 1100),
        line(1180, 600, 22, 1100),
    ]
    assert throttle.told({"trace": trace}) == {
        "refused": pytest.approx(22 / 600),
        "refused_later": pytest.approx(2 / 400),
        "goodput": pytest.approx(10.0),
        "from": 60,
    }
