"""A ledger made again from the tree and the manifest: the manifest is the same, and a sync fetches what is wrong."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.dicom import make_series, uid
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, kinds, some_instance
from fakes.process import run

from mirror.errors import Damaged, ExitCode, LedgerError, SettingsError
from mirror.export import export
from mirror.ledger import Catalogue, Ledger
from mirror.model import FindingKind, Scope, Walk
from mirror.rebuild import rebuild
from mirror.rebuild import run as rebuilding

TEMPLATE = "{Modality}/{Collection} {PatientID}/{StudyDate} {StudyID}/IM_{SOPInstanceUID}"
SERIES = uid(2, 1, 2, 1)

pytestmark = pytest.mark.asyncio


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


def lose_ledger(mirror: Mirror) -> None:
    for path in (mirror.root / ".mirror").glob("ledger.sqlite*"):
        path.unlink()


def lose_manifest(mirror: Mirror) -> None:
    for path in mirror.root.glob("manifest*"):
        path.unlink()


def manifest(mirror: Mirror) -> tuple[str, str]:
    export(mirror.root, "csv")
    return tuple((mirror.root / name).read_text() for name in ("manifest.csv", "manifest-series.csv"))


@pytest.mark.parametrize(
    ("dialect", "layout"), [("nbia", "uid"), ("tcia", "classic"), ("nbia", "descriptive"), ("tcia", TEMPLATE)]
)
async def test_the_manifest_is_the_same_and_nothing_is_fetched(archive, mirror, dialect, layout):
    await mirror.sync(archive, dialect, layout=layout)
    before, directories = manifest(mirror), claims(mirror)
    lose_ledger(mirror)
    report = await rebuild(mirror.root)
    assert (report.state, report.exit_code, report.findings) == ("complete", ExitCode.COMPLETE, ())
    r = report.rebuilt
    assert (r.manifest_series, r.manifest_instances, r.equal, r.series_complete) == (7, 32, 32, 7)
    assert manifest(mirror) == before
    # A series that comes tomorrow lies beside those of its study.
    assert claims(mirror) == directories
    with Catalogue(mirror.root) as catalogue:
        assert {row.last_sync is not None for row in catalogue.status()} == {True}
        assert catalogue.meta("server") == archive.url(dialect)

    archive.stock(
        "Brain Beta",
        make_series(patient_id="S2-001", study_uid=uid(2, 1, 2), series_uid=uid(2, 1, 2, 9), instances=1, seed=2),
    )
    after = await mirror.sync(archive, dialect)
    assert (after.exit_code, after.series.kept, after.instances.fetched) == (ExitCode.COMPLETE, 7, 1)
    assert_nothing_wrong(mirror, archive, whole=True)


def claims(mirror: Mirror) -> list[tuple[str, ...]]:
    with sqlite3.connect(mirror.root / ".mirror" / "ledger.sqlite") as db:
        rows = db.execute("SELECT key, path, identity FROM directories ORDER BY key").fetchall()
    db.close()
    return rows


async def test_what_was_withdrawn_and_kept_is_that_again(archive, mirror):
    await mirror.sync(archive)
    archive.withdraw(SERIES)
    for _ in range(2):
        await mirror.sync(archive, withdraw_after="0")
    assert mirror.series()[SERIES].state == "withdrawn"
    before = manifest(mirror)
    lose_ledger(mirror)
    await rebuild(mirror.root)
    assert manifest(mirror) == before
    after = await mirror.sync(archive)
    assert (after.exit_code, after.series.planned, len(mirror.instances())) == (ExitCode.COMPLETE, 0, 32)


@pytest.mark.parametrize("layout", ["uid", "classic", "descriptive"])
async def test_without_a_manifest(archive, mirror, layout):
    await mirror.sync(archive, layout=layout)
    before = mirror.tree()
    lose_ledger(mirror)
    lose_manifest(mirror)
    (mirror.root / ".mirror" / "format.json").unlink()
    report = await rebuild(mirror.root)
    assert (report.exit_code, report.rebuilt.unrecorded, report.rebuilt.unplaced) == (ExitCode.COMPLETE, 32, 0)
    assert mirror.states() == {"incomplete": 7}

    after = await mirror.sync(archive)
    assert (after.exit_code, after.instances.fetched, asked(archive, "getSingleImage")) == (ExitCode.COMPLETE, 0, [])
    assert mirror.tree() == before
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_what_is_wrong_is_fetched_and_nothing_else(archive, mirror):
    await mirror.sync(archive, layout="classic")
    flipped, cut, gone = (some_instance(archive, series) for series in (uid(1, 1, 1, 1), uid(1, 1, 1, 2), SERIES))
    paths = {row.sop_instance_uid: mirror.root / row.path for row in mirror.rows()}
    body = bytearray(paths[flipped].read_bytes())
    body[-1] ^= 1
    paths[flipped].write_bytes(body)
    paths[cut].write_bytes(paths[cut].read_bytes()[:-1])
    paths[gone].unlink()
    foreign = paths[gone].with_name("77-77.dcm")
    foreign.write_bytes(b"not an image")
    (foreign.parent / "notes.txt").write_text("mine")
    lose_ledger(mirror)
    report = await rebuild(mirror.root)
    assert (report.state, report.exit_code) == ("incomplete", ExitCode.INCOMPLETE)
    r = report.rebuilt
    assert (r.equal, r.changed, r.missing, r.foreign, r.series_complete) == (29, 2, 3, 1, 4)
    assert kinds(report) == {FindingKind.FILE_CHANGED, FindingKind.FILE_MISSING, FindingKind.FILE_FOREIGN}
    assert bytes(body) in mirror.quarantine().values()

    after = await mirror.sync(archive)
    assert after.exit_code == ExitCode.COMPLETE
    assert sorted(p["SOPInstanceUID"] for p in asked(archive, "getSingleImage")) == sorted([flipped, cut, gone])
    assert (foreign.parent / "notes.txt").read_text() == "mine"
    (foreign.parent / "notes.txt").unlink()
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_what_came_after_the_manifest_is_known_again(archive, mirror):
    await mirror.sync(archive, scope=Scope(collections=("Brain Beta",)))
    old = {path: path.read_bytes() for path in mirror.root.glob("manifest*")}
    archive.stock(
        "Brain Beta",
        make_series(
            patient_id="S2-001", study_uid=uid(2, 1, 2), series_uid=SERIES, instances=2, first=13, seed=2,
            Modality="MR", BodyPartExamined="BRAIN", Manufacturer=None, SeriesNumber=7,
        ),
        released="2022-01-01",
    )  # fmt: skip
    await mirror.sync(archive)
    for path, body in old.items():
        path.write_bytes(body)
    lose_ledger(mirror)
    report = await rebuild(mirror.root)
    assert (report.exit_code, report.rebuilt.equal, report.rebuilt.unrecorded) == (ExitCode.COMPLETE, 20, 14)
    after = await mirror.sync(archive)
    assert (after.exit_code, after.instances.fetched) == (ExitCode.COMPLETE, 0)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_change_meanwhile_is_fetched_where_rows_tell_no_days(archive, mirror):
    """The tcia dialect's since-calls are asked from the day on which the first of what is held was fetched."""
    await mirror.sync(archive, "tcia")
    archive.replace(f"{SERIES}.10001", released=datetime.now(UTC).date().isoformat())
    lose_ledger(mirror)
    assert (await rebuild(mirror.root)).exit_code == ExitCode.COMPLETE
    after = await mirror.sync(archive, "tcia", walk=Walk())
    assert (after.exit_code, after.instances.fetched) == (ExitCode.COMPLETE, 1)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_ledger_that_is_there_is_left_alone(archive, mirror):
    await mirror.sync(archive)
    before = manifest(mirror)
    ledger = mirror.root / ".mirror" / "ledger.sqlite"
    with pytest.raises(SettingsError, match="--force"):
        await rebuild(mirror.root)
    assert (await rebuild(mirror.root, force=True)).exit_code == ExitCode.COMPLETE
    assert manifest(mirror) == before
    assert len(list(ledger.parent.glob("ledger-*.sqlite"))) == 1

    ledger.write_bytes(ledger.read_bytes()[:4096] + b"\7" * 20_000)
    with pytest.raises(Damaged, match="--force"):
        await rebuild(mirror.root)
    assert (await rebuild(mirror.root, force=True)).exit_code == ExitCode.COMPLETE
    assert len(list(ledger.parent.glob("ledger-*.sqlite"))) == 2
    assert (await mirror.sync(archive)).instances.fetched == 0
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_killed_it_goes_on_and_nobody_takes_the_half_for_the_whole(archive, mirror, monkeypatch):
    await mirror.sync(archive)
    before = manifest(mirror)
    lose_ledger(mirror)
    program = (
        "import os, signal, sys, pathlib, mirror.rebuild.run as run, anyio\n"
        "real, seen = run.read_directory, []\n"
        "def reads(*args):\n"
        "    seen.append(1)\n"
        "    if len(seen) == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*args)\n"
        "run.read_directory, run._READERS = reads, 1\n"
        "anyio.run(run.rebuild, pathlib.Path(sys.argv[1]))\n"
    )
    ended = await run([sys.executable, "-c", program, str(mirror.root)])
    assert ended.code == -signal.SIGKILL, ended.err
    with pytest.raises(LedgerError, match="rebuild"):
        Ledger(mirror.root)
    read = []
    monkeypatch.setattr(rebuilding, "read_directory", _spied(rebuilding.read_directory, read))
    report = await rebuild(mirror.root)
    assert report.exit_code == ExitCode.COMPLETE
    # Four were read and three written down, or four.
    assert len(read) in (3, 4)
    assert manifest(mirror) == before
    assert not (mirror.root / ".mirror" / "rebuild").exists()

    # Between the old ledger's going and the new one's coming.
    shutil.copytree(mirror.root / ".mirror", mirror.root / ".mirror" / "rebuild" / ".mirror")
    lose_ledger(mirror)
    with pytest.raises(LedgerError, match="rebuild"):
        Ledger(mirror.root)
    assert (await rebuild(mirror.root)).exit_code == ExitCode.COMPLETE
    assert manifest(mirror) == before


def _spied(real, seen):
    def read(*args):
        seen.append(args)
        return real(*args)

    return read


async def test_a_tree_that_says_nothing_of_its_layout(archive, mirror):
    await mirror.sync(archive, layout=TEMPLATE)
    lose_ledger(mirror)
    (mirror.root / ".mirror" / "format.json").unlink()
    with pytest.raises(SettingsError, match="--layout"):
        await rebuild(mirror.root)
    argv = [sys.executable, "-m", "mirror", "rebuild", "--to", str(mirror.root), "--layout", TEMPLATE]
    ended = await run(argv)
    assert ended.code == ExitCode.COMPLETE, ended.err
    assert "32 as the manifest says" in ended.out
    after = await mirror.sync(archive, layout=TEMPLATE)
    assert (after.exit_code, after.instances.fetched) == (ExitCode.COMPLETE, 0)
