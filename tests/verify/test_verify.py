"""What a verification looks at, in which order, what it asks the archive, and what becomes of what it finds."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import anyio
import pytest
import pytest_asyncio
from fakes.archive import FakeArchive
from fakes.dicom import instance_uid, uid
from fakes.faults import status
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, settings_for

from mirror.errors import ExitCode, Locked, SettingsError
from mirror.events import Event, FilesVerified
from mirror.ledger import Ledger
from mirror.manifest import InstanceRow
from mirror.model import Finding, Happened
from mirror.model import FindingKind as K
from mirror.settings import Settings
from mirror.verification import Budget, Depth, VerifyReport, verify

pytestmark = pytest.mark.asyncio

SERIES = uid(2, 1, 2, 1)


@pytest_asyncio.fixture
async def mirror(archive: FakeArchive, tmp_path: Path) -> Mirror:
    made = Mirror(tmp_path / "mirror")
    await made.sync(archive)
    archive.requests.clear()
    return made


def rows_of(mirror: Mirror, series: str = SERIES) -> list[InstanceRow]:
    return sorted((row for row in mirror.rows() if row.series_instance_uid == series), key=lambda row: row.path)


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-1] ^= 0xFF
    path.write_bytes(body)


def kinds(report: VerifyReport) -> Counter[K]:
    return Counter(finding.kind for finding in report.findings)


def verified(mirror: Mirror) -> dict[str, int]:
    with Ledger(mirror.root) as ledger:
        return dict(ledger.query("SELECT series_instance_uid, verified_at FROM series"))


def history(mirror: Mirror, *what: Happened) -> list[tuple[str, str]]:
    with Ledger(mirror.root) as ledger:
        return [
            (happened, sop)
            for happened, sop in ledger.query(
                "SELECT what, sop_instance_uid FROM history WHERE sop_instance_uid IS NOT NULL ORDER BY id"
            )
            if happened in what
        ]


REPAIRS = (Happened.DAMAGED, Happened.REPAIRED, Happened.CHANGED, Happened.LEFT)


async def test_a_sound_mirror(archive, mirror):
    before = verified(mirror)
    report = await verify(mirror.root, settings_for(archive))
    size = sum(len(body) for body in mirror.tree().values())
    assert (report.state, report.exit_code, report.findings) == ("sound", 0, ())
    assert (report.series, report.files, report.bytes, report.series_left) == (7, 32, size, 0)
    assert set(before.values()) == {0}
    assert min(verified(mirror).values()) > 0
    assert archive.requests == []


async def test_quick_sees_presence_and_size_and_calls_nothing_verified(archive, mirror):
    gone, cut, flipped = (mirror.root / row.path for row in rows_of(mirror)[:3])
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    flip(flipped)
    report = await verify(mirror.root, settings_for(archive), depth=Depth.QUICK)
    assert kinds(report) == {K.FILE_MISSING: 1, K.FILE_TRUNCATED: 1}
    assert report.files == 32
    assert set(verified(mirror).values()) == {0}
    report = await verify(mirror.root, settings_for(archive))
    assert kinds(report) == {K.FILE_MISSING: 1, K.FILE_TRUNCATED: 1, K.FILE_CHANGED: 1}
    assert [uid for uid, at in verified(mirror).items() if not at] == [SERIES]


async def test_slices_of_a_budget_go_through_all_of_it(archive, mirror):
    settings = settings_for(archive)
    seen: list[int] = []
    for _ in range(7):
        report = await verify(mirror.root, settings, budget=Budget(bytes=1))
        assert (report.series, report.series_left, report.exit_code) == (1, 6, 0)
        seen.append(sum(at > 0 for at in verified(mirror).values()))
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    first = verified(mirror)
    report = await verify(mirror.root, settings, budget=Budget(seconds=0.0))
    assert (report.series, report.series_left) == (1, 6)
    again = [series for series, at in verified(mirror).items() if at != first[series]]
    assert len(again) == 1
    assert first[again[0]] == min(first.values())


async def test_what_was_verified_lately_is_left_out(archive, mirror):
    settings = settings_for(archive)
    await verify(mirror.root, settings, collections=("lung-alpha",))
    report = await verify(mirror.root, settings, not_since=3600)
    assert (report.series, report.files) == (3, 20)
    assert (await verify(mirror.root, settings, not_since=3600)).series == 0
    assert (await verify(mirror.root, settings)).series == 7


async def test_named_collections_and_no_others(archive, mirror):
    lung = next(mirror.root / row.path for row in mirror.rows() if row.collection == "Lung-Alpha")
    flip(lung)
    (mirror.root / "Brain Beta" / "notes.txt").write_text("x")
    report = await verify(mirror.root, settings_for(archive), collections=("Brain Beta",))
    assert (report.exit_code, report.series) == (0, 3)
    report = await verify(mirror.root, settings_for(archive), collections=("Brain Beta", "Lung-Alpha"))
    assert kinds(report) == {K.FILE_CHANGED: 1}
    with pytest.raises(SettingsError, match="no collection 'Liver'"):
        await verify(mirror.root, settings_for(archive), collections=("Liver",))


async def test_a_stop_ends_it_and_the_next_run_goes_on(archive, mirror):
    stop = anyio.Event()

    def sink(event: Event) -> None:
        if isinstance(event, FilesVerified):
            stop.set()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mirror.verification.scan._FILES", 3)
        report = await verify(mirror.root, settings_for(archive), sink=sink, stop=stop)
    assert (report.exit_code, report.state) == (ExitCode.INTERRUPTED, "interrupted")
    done = sum(at > 0 for at in verified(mirror).values())
    assert 0 < report.files < 32
    assert done == report.series < 7
    report = await verify(mirror.root, settings_for(archive), not_since=3600)
    assert (report.exit_code, report.series) == (0, 7 - done)


async def test_one_at_a_time(archive, mirror):
    with Ledger(mirror.root), pytest.raises(Locked):
        await verify(mirror.root, settings_for(archive))
    with pytest.raises(SettingsError, match="no mirror here"):
        await verify(mirror.root / "nothing", settings_for(archive))


# Deep


async def test_deep_sees_rows_that_went_to_each_other_s_files(archive, mirror):
    one, two = rows_of(mirror)[:2]
    with Ledger(mirror.root) as ledger, ledger.transaction() as db:
        for row, other in ((one, two), (two, one)):
            db.execute(
                "UPDATE instances SET name = ?, sha256 = ?, md5 = ? WHERE sop_instance_uid = ?",
                (Path(other.path).name, bytes.fromhex(other.sha256), bytes.fromhex(other.md5), row.sop_instance_uid),
            )
    settings = settings_for(archive)
    assert (await verify(mirror.root, settings)).exit_code == 0
    report = await verify(mirror.root, settings, depth=Depth.DEEP)
    assert (report.exit_code, kinds(report)) == (ExitCode.DAMAGE, {K.WRONG_INSTANCE: 2})
    report = await verify(mirror.root, settings, depth=Depth.DEEP, repair=True)
    assert (report.exit_code, report.mended) == (0, {"changed": 2})
    assert_nothing_wrong(mirror, archive, whole=True)


def replace_upstream(archive: FakeArchive, sop: str) -> bytes:
    """The archive has other pixels for an instance from now on."""
    path = archive.path_of(sop)
    flip(path)
    body = path.read_bytes()
    with Ledger(archive.root) as ledger, ledger.transaction() as db:
        db.execute(
            "UPDATE instances SET sha256 = ?, md5 = ? WHERE sop_instance_uid = ?",
            (hashlib.sha256(body).digest(), hashlib.md5(body).digest(), sop),
        )
    return body


async def test_deep_with_a_server_compares_the_archive_s_digests(archive, mirror):
    sop = instance_uid(SERIES, 3)
    new = replace_upstream(archive, sop)
    settings, url = settings_for(archive), archive.url()
    assert (await verify(mirror.root, settings, depth=Depth.DEEP)).digests == 0
    report = await verify(mirror.root, settings, depth=Depth.DEEP, server=url)
    assert (report.exit_code, report.digests) == (ExitCode.DAMAGE, 7)
    assert [(f.kind, f.sop_instance_uid) for f in report.findings] == [(K.MD5_DIFFERS, sop)]
    assert len(asked(archive, "getMD5Hierarchy")) == 7
    assert len(asked(archive, "getMD5HashForImage")) == 12
    report = await verify(mirror.root, settings, depth=Depth.DEEP, server=url, repair=True)
    assert (report.exit_code, report.mended) == (0, {"changed": 1}), report
    assert mirror.instances()[sop] == new
    assert_nothing_wrong(mirror, archive, whole=True)


# Repair


async def test_what_the_archive_has_changed_meanwhile_is_told(archive, mirror):
    sop = instance_uid(SERIES, 5)
    old = mirror.instances()[sop]
    new = replace_upstream(archive, sop)
    (mirror.root / next(row.path for row in mirror.rows() if row.sop_instance_uid == sop)).write_bytes(b"rotten")
    report = await verify(mirror.root, settings_for(archive), repair=True)
    assert (report.exit_code, report.mended) == (0, {"changed": 1})
    assert history(mirror, *REPAIRS) == [(Happened.DAMAGED, sop), (Happened.CHANGED, sop)]
    assert mirror.instances()[sop] == new != old
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_an_archive_that_is_down_and_comes_back(archive, mirror):
    row = rows_of(mirror)[4]
    sound = (mirror.root / row.path).read_bytes()
    flip(mirror.root / row.path)
    rotten = (mirror.root / row.path).read_bytes()
    settings = settings_for(archive, attempts=1)
    archive.faults.add("getSOPInstanceUIDs", status(503))
    archive.faults.add("getSeriesSize", status(503))
    archive.faults.add("getCollectionValues", status(503))
    report = await verify(mirror.root, settings, repair=True)
    assert (report.exit_code, report.state, report.open) == (ExitCode.UNREACHABLE, "failed", 1)
    assert "503" in (report.error or "")
    assert mirror.quarantine()[f"foreign/{row.path}"] == rotten
    assert not (mirror.root / row.path).exists()
    archive.faults.clear()

    report = await verify(mirror.root, settings)
    assert (report.exit_code, kinds(report)) == (ExitCode.DAMAGE, {K.FILE_MISSING: 1})
    assert K.FILE_CHANGED in report.findings[0].detail
    report = await verify(mirror.root, settings, repair=True)
    assert (report.exit_code, report.mended) == (0, {"repaired": 1})
    assert (mirror.root / row.path).read_bytes() == sound
    sop = row.sop_instance_uid
    assert history(mirror, *REPAIRS) == [(Happened.DAMAGED, sop), (Happened.REPAIRED, sop)]
    assert (await verify(mirror.root, settings)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_what_the_archive_cannot_give_stays_open(archive, mirror):
    row = rows_of(mirror)[0]
    (mirror.root / row.path).unlink()
    archive.faults.add("getSingleImage", status(500), SOPInstanceUID=row.sop_instance_uid)
    for _ in range(2):
        report = await verify(mirror.root, settings_for(archive), repair=True)
        assert (report.exit_code, report.state, report.open) == (ExitCode.DAMAGE, "damaged", 1)
        assert asked(archive, "getSingleImage") != []
        archive.requests.clear()
    archive.faults.clear()
    # Whoever brings it, the next repair proves it.
    await mirror.sync(archive)
    report = await verify(mirror.root, settings_for(archive), repair=True)
    assert (report.exit_code, report.mended) == (0, {"repaired": 1})
    assert archive.requests == [] or asked(archive, "getSingleImage") == [
        {"SeriesInstanceUID": SERIES, "SOPInstanceUID": row.sop_instance_uid}
    ]


async def test_what_the_archive_no_longer_lists_has_left(archive, mirror):
    row = rows_of(mirror)[0]
    (mirror.root / row.path).unlink()
    with Ledger(archive.root) as ledger, ledger.transaction() as db:
        db.execute("DELETE FROM instances WHERE sop_instance_uid = ?", (row.sop_instance_uid,))
    report = await verify(mirror.root, settings_for(archive), repair=True)
    assert (report.exit_code, report.mended) == (0, {"left": 1})
    assert (await verify(mirror.root, settings_for(archive))).exit_code == 0


async def test_bytes_that_are_set_aside_twice_are_both_kept(archive, mirror):
    path = mirror.root / rows_of(mirror)[0].path
    for body in (b"one", b"two"):
        path.write_bytes(body)
        report = await verify(mirror.root, settings_for(archive), repair=True)
        assert report.exit_code == 0
    kept = {name: body for name, body in mirror.quarantine().items() if not name.endswith(".txt")}
    assert sorted(kept.values()) == [b"one", b"two"]
    assert all(b"file-truncated" in body for name, body in mirror.quarantine().items() if name.endswith(".txt"))


async def test_files_of_a_directory_that_is_lost(archive, mirror):
    folder = (mirror.root / rows_of(mirror)[0].path).parent
    folder.rename(mirror.root.parent / "lost")
    folder.write_bytes(b"a file in its place")
    report = await verify(mirror.root, settings_for(archive))
    assert kinds(report) == {K.FILE_MISSING: 12, K.FILE_FOREIGN: 1}
    report = await verify(mirror.root, settings_for(archive), repair=True)
    assert (report.exit_code, report.mended) == (0, {"repaired": 12, "set aside": 1})
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_folder_that_is_elsewhere_is_followed(archive, mirror):
    """Where a disk was too small, somebody has put a collection on another and left a link."""
    (mirror.root / "Lung-Alpha").rename(mirror.root.parent / "elsewhere")
    (mirror.root / "Lung-Alpha").symlink_to(mirror.root.parent / "elsewhere")
    row = next(row for row in mirror.rows() if row.collection == "Lung-Alpha")
    assert (await verify(mirror.root, settings_for(archive))).exit_code == 0
    (mirror.root / "Lung-Alpha" / "notes.txt").write_text("x")
    flip(mirror.root / row.path)
    report = await verify(mirror.root, settings_for(archive), repair=True)
    assert (report.exit_code, report.mended) == (0, {"repaired": 1, "set aside": 1})
    (mirror.root / "Lung-Alpha").unlink()
    (mirror.root.parent / "elsewhere").rename(mirror.root / "Lung-Alpha")
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_whose_server_is_asked(archive, mirror):
    (mirror.root / rows_of(mirror)[0].path).unlink()
    with Ledger(mirror.root) as ledger:
        own = ledger.meta("server")
        ledger.set_meta(server="http://127.0.0.1:1/nbia-api/services/v4/")
    settings = Settings(archive=settings_for(archive, attempts=1).archive)
    assert own == archive.url().rstrip("/") + "/"
    assert (await verify(mirror.root, settings, repair=True)).exit_code == ExitCode.UNREACHABLE
    assert archive.requests == []
    report = await verify(mirror.root, settings, repair=True, server=archive.url("tcia"))
    assert (report.exit_code, report.mended) == (0, {"repaired": 1})


async def test_a_finding_names_its_place_first():
    finding = Finding(kind=K.FILE_CHANGED, detail="d", sop_instance_uid="1.2", path="A/b.dcm")
    assert str(finding) == "file-changed: d [A/b.dcm]"
