"""Taking over trees that other tools left: what checks out is the mirror's, and a sync fetches only the rest."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import pydicom
import pytest
from fakes.archive import FakeArchive
from fakes.dicom import make_series, uid
from fakes.left import by_retriever, by_tcia_utils
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, findings, kinds, settings_for, snapshot, truth
from fakes.process import Striker, run

from mirror.adopt import AdoptionReport, How, adopt
from mirror.errors import ExitCode, SettingsError, StoreFull
from mirror.model import FindingKind, SeriesState
from mirror.tree import LocalStore

SERIES = uid(2, 1, 2, 1)

pytestmark = pytest.mark.asyncio


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


async def adopted(
    mirror: Mirror,
    folder: Path,
    archive: FakeArchive,
    dialect="nbia",
    *,
    how: How = "link",
    dry_run: bool = False,
    **options,
) -> AdoptionReport:
    archive.requests.clear()
    settings = settings_for(archive, dialect, **options)
    return await adopt(folder, mirror.root, settings, how=how, sink=mirror.events.append, dry_run=dry_run)


def by_uid(folder: Path) -> dict[str, Path]:
    """SOPInstanceUID -> where its file lies below a folder."""
    found = {}
    for path in folder.rglob("*.dcm"):
        found[str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)] = path
    return found


@pytest.mark.parametrize(
    ("dialect", "layout", "left"),
    [
        ("nbia", "uid", "classic"),
        ("nbia", "descriptive", "descriptive"),
        ("tcia", "classic", "descriptive"),
        ("nbia", "uid", "tcia_utils"),
    ],
)
async def test_a_whole_tree_is_taken_over_and_nothing_is_fetched(archive, mirror, tmp_path, dialect, layout, left):
    tree = (
        by_tcia_utils(tmp_path, archive)
        if left == "tcia_utils"
        else by_retriever(tmp_path, archive, descriptive=left == "descriptive")
    )
    before = snapshot(tree)
    report = await adopted(mirror, tree, archive, dialect, layout=layout)

    assert (report.state, report.exit_code, report.findings) == ("complete", ExitCode.COMPLETE, ())
    a = report.adoption
    assert (a.dicom, a.adopted, a.linked, a.copied) == (32, 32, 32, 0)
    assert (a.held, a.refused, a.missing, a.series_known, a.series_unknown, a.other_named) == (0, 0, 0, 7, 0, [])
    assert a.files - a.dicom == a.other == len([path for path in before if not path.endswith(".dcm")])
    # One image, to find out what the server can do.
    assert len(asked(archive, "getSingleImage")) == 1
    assert_nothing_wrong(mirror, archive, whole=True)
    assert {row.source for row in mirror.rows()} == {"adopt"}
    check = "header,series-size,series-md5" if dialect == "nbia" else "header,series-size"
    assert {row.verified for row in mirror.rows()} == {check}
    assert snapshot(tree) == before
    assert {(mirror.root / row.path).stat().st_nlink for row in mirror.rows()} == {2}

    after = await mirror.sync(archive, dialect, layout=layout)
    assert (after.exit_code, after.series.kept, after.instances.fetched) == (ExitCode.COMPLETE, 7, 0)
    assert asked(archive, "getSingleImage") == []


async def test_of_a_part_the_rest_is_fetched(archive, mirror, tmp_path):
    missing = [f"{SERIES}.{n}" for n in (10003, 10011)] + [
        u for u, (s, _) in archive.files().items() if s == uid(1, 1, 1, 1)
    ]
    tree = by_retriever(tmp_path, archive, descriptive=True, without=missing)
    report = await adopted(mirror, tree, archive, layout="classic")

    assert (report.state, report.exit_code) == ("complete", ExitCode.COMPLETE)
    assert (report.adoption.adopted, report.adoption.missing, report.series.incomplete) == (27, 2, 1)
    # A list that names what is not in the folder is not asked for again.
    assert len([p for p in asked(archive, "getSOPInstanceUIDs") if p["SeriesInstanceUID"] == SERIES]) == 1
    assert_nothing_wrong(mirror, archive)

    after = await mirror.sync(archive)
    assert after.exit_code == ExitCode.COMPLETE
    assert sorted(p["SOPInstanceUID"] for p in asked(archive, "getSingleImage")) == sorted(missing)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_what_does_not_check_out_stays_and_is_fetched(archive, mirror, tmp_path):
    tree = by_retriever(tmp_path, archive, descriptive=False)
    lies = by_uid(tree)
    flipped, cut, torn, empty = (f"{SERIES}.{n}" for n in (10001, 10002, 10003, 10004))
    body = bytearray(lies[flipped].read_bytes())
    body[-1] ^= 1
    other = uid(1, 1, 1, 1) + ".10001"
    swapped = bytearray(lies[other].read_bytes())
    swapped[-1] ^= 1
    lies[other].write_bytes(swapped)
    lies[flipped].write_bytes(body)
    for victim, size in ((cut, -7), (torn, 140), (empty, 0)):
        lies[victim].write_bytes(lies[victim].read_bytes()[:size])
    before = snapshot(tree)
    report = await adopted(mirror, tree, archive)

    assert (report.state, report.exit_code) == ("incomplete", ExitCode.INCOMPLETE)
    # The one in a series that is otherwise whole is found by the archive's MD5, and nothing else of it is lost.
    assert report.adoption.refused == 3 + 1
    assert {FindingKind.TRUNCATED, FindingKind.NOT_DICOM, FindingKind.MD5_DIFFERS} <= kinds(report)
    for victim in (cut, torn, empty):
        assert any(str(lies[victim]) in finding.detail for finding in report.findings)
    assert other not in mirror.instances()
    assert snapshot(tree) == before

    after = await mirror.sync(archive)
    assert after.exit_code == ExitCode.COMPLETE
    fetched = sorted(p["SOPInstanceUID"] for p in asked(archive, "getSingleImage"))
    # A flipped byte in a series of which more is missing shows when the rest is there.
    assert fetched == sorted([cut, torn, empty, other, flipped])
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_of_two_copies_the_right_one_is_taken(archive, mirror, tmp_path):
    tree = by_retriever(tmp_path, archive, descriptive=False)
    lies = by_uid(tree)
    damaged, twice = uid(1, 1, 1, 1) + ".10001", uid(1, 1, 1, 2) + ".10001"
    body = bytearray(lies[damaged].read_bytes())
    body[-1] ^= 1
    for folder in (tree / "0 first", tree / "~ last"):
        folder.mkdir()
        (folder / "wrong.dcm").write_bytes(body)
    (tree / "again").write_bytes(lies[twice].read_bytes())
    report = await adopted(mirror, tree, archive)
    assert (report.adoption.adopted, report.adoption.held) == (33, 2)
    assert_nothing_wrong(mirror, archive, whole=True)
    assert report.adoption.refused >= 2
    assert report.exit_code == ExitCode.INCOMPLETE


async def test_what_the_archive_does_not_know_is_left(archive, mirror, tmp_path):
    tree = by_tcia_utils(tmp_path, archive)
    strange = uid(9, 9, 9)
    for number, body in enumerate(make_series(series_uid=strange, instances=3)):
        (tree / f"strange-{number}").write_bytes(body)
    unlisted = make_series(
        patient_id="S2-001", study_uid=uid(2, 1, 2), series_uid=SERIES, instances=1, first=50, seed=2, Modality="MR"
    )
    (tree / "unlisted.dcm").write_bytes(unlisted[0])
    (tree / "notes.pdf").write_bytes(b"%PDF-1.4")
    (tree / "series.zip").write_bytes(b"PK\3\4")
    (tree / "link.dcm").symlink_to(tree / "unlisted.dcm")
    (tree / "loop").symlink_to(tree)
    report = await adopted(mirror, tree, archive)

    a = report.adoption
    assert (a.adopted, a.series_unknown, a.unknown, a.refused) == (32, 1, 3, 1)
    assert (a.zips, a.links, a.other_named) == (1, 2, [str(tree / "notes.pdf")])
    assert report.exit_code == ExitCode.INCOMPLETE
    [refused] = findings(report, FindingKind.SERIES_REFUSED)
    assert refused.series_instance_uid == strange
    [told] = findings(report, FindingKind.UNLISTED_INSTANCE)
    assert str(tree / "unlisted.dcm") in told.detail
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_mirror_adopts_more_and_knows_what_it_has(archive, mirror, tmp_path):
    await mirror.sync(archive)
    before = snapshot(mirror.root)
    tree = by_tcia_utils(tmp_path, archive)
    lies = by_uid(tree)
    changed = lies[f"{SERIES}.10005"]
    changed.write_bytes(changed.read_bytes()[:-2] + b"\1\2")
    report = await adopted(mirror, tree, archive, how="move")
    assert (report.adoption.held, report.adoption.adopted, report.adoption.removed) == (31, 0, 31)
    [told] = findings(report, FindingKind.DUPLICATE_INSTANCE)
    assert str(changed) in told.detail
    assert list(tree.rglob("*.dcm")) == [changed]
    assert report.requests.total == 0
    after = snapshot(mirror.root)
    assert {p: b for p, b in after.items() if p[:8] != ".mirror/"} == {
        p: b for p, b in before.items() if p[:8] != ".mirror/"
    }


@pytest.mark.parametrize("how", ["link", "copy", "move"])
async def test_ways_to_take_over(archive, mirror, tmp_path, how):
    tree = by_retriever(tmp_path, archive, descriptive=False)
    numbers = {path.stat().st_ino for path in tree.rglob("*.dcm")}
    report = await adopted(mirror, tree, archive, how=how, layout="classic")
    assert report.exit_code == ExitCode.COMPLETE
    assert_nothing_wrong(mirror, archive, whole=True)
    left = list(tree.rglob("*.dcm"))
    assert len(left) == (0 if how == "move" else 32)
    shared = {(mirror.root / row.path).stat().st_ino for row in mirror.rows()} & numbers
    assert len(shared) == (0 if how == "copy" else 32)
    assert (report.adoption.linked, report.adoption.copied) == ((0, 32) if how == "copy" else (32, 0))
    assert report.adoption.removed == (32 if how == "move" else 0)
    assert (tree / "metadata.csv").exists()


async def test_a_disk_without_links_is_copied_to(archive, mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "hardlink_to", _refuse_link)
    tree = by_tcia_utils(tmp_path, archive)
    report = await adopted(mirror, tree, archive, how="move")
    assert (report.adoption.copied, report.adoption.removed) == (32, 32)
    assert_nothing_wrong(mirror, archive, whole=True)


def _refuse_link(self: Path, target: Path) -> None:
    raise OSError(18, os.strerror(18), str(self))


async def test_copies_need_room(archive, mirror, tmp_path, monkeypatch):
    tree = by_tcia_utils(tmp_path, archive)
    monkeypatch.setattr(LocalStore, "free", lambda self: 1000)
    with pytest.raises(StoreFull, match="nothing was adopted"):
        await adopted(mirror, tree, archive, how="copy")
    assert mirror.tree() == {}
    report = await adopted(mirror, tree, archive)
    assert report.exit_code == ExitCode.COMPLETE


async def test_a_dry_run_changes_nothing(archive, mirror, tmp_path):
    tree = by_tcia_utils(tmp_path, archive, without=[f"{SERIES}.10001"])
    before = snapshot(tmp_path)
    report = await adopted(mirror, tree, archive, how="move", dry_run=True)
    assert (report.state, report.exit_code) == ("planned", ExitCode.COMPLETE)
    assert (report.adoption.dicom, report.adoption.adopted, report.adoption.series_known) == (31, 31, 7)
    assert snapshot(tmp_path) == before
    assert not mirror.root.exists()


async def test_folders_that_cannot_be_adopted(archive, mirror, tmp_path):
    await mirror.sync(archive)
    for folder in (mirror.root, mirror.root / "Brain Beta", mirror.root / ".mirror" / "quarantine"):
        with pytest.raises(SettingsError):
            await adopted(mirror, folder, archive)
    # A folder that the mirror lies in is one: what is the mirror's is left out.
    (tmp_path / "outside.dcm").write_bytes(next(iter(truth(archive).values())))
    report = await adopted(mirror, mirror.root.parent, archive)
    assert report.adoption.dicom == 32 + 1
    assert report.adoption.held == 33


@pytest.mark.parametrize(("how", "call", "number"), [("move", "getMD5Hierarchy", 5), ("copy", "getSOPInstanceUIDs", 4)])
async def test_killed_and_run_again(archive, mirror, tmp_path, how, call, number):
    tree = by_retriever(tmp_path, archive, descriptive=True)
    striker = Striker((number,), signal.SIGKILL)
    archive.faults.add(call, striker)
    argv = ["-m", "mirror", "adopt", str(tree), "--to", str(mirror.root), f"--{how}", "--server", archive.url()]
    ended = await run([sys.executable, *argv], begun=striker.begun)
    assert ended.code == -signal.SIGKILL
    archive.faults.clear()
    # Nothing is lost: each file is where it was or in the tree.
    lies = {
        str(pydicom.dcmread(io.BytesIO(body)).SOPInstanceUID)
        for body in snapshot(tree).values()
        if body[128:132] == b"DICM"
    }
    assert lies | mirror.instances().keys() == truth(archive).keys()

    report = await adopted(mirror, tree, archive, how=how)
    assert report.exit_code == ExitCode.COMPLETE
    assert_nothing_wrong(mirror, archive, whole=True)
    assert len(list(tree.rglob("*.dcm"))) == (0 if how == "move" else 32)
    assert set(mirror.states()) == {SeriesState.COMPLETE}
    assert mirror.parts() == []
