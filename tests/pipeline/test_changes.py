"""What changes at the archive: only what differs is fetched, the old bytes are kept, and the history tells of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.archive import FakeArchive
from fakes.dicom import make_series, uid
from fakes.faults import edit_rows, no_such_call, status
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, kinds, snapshot, some_instance, truth

from mirror.events import CollectionPlanned
from mirror.ledger import Ledger
from mirror.model import FindingKind, SeriesState, Walk
from mirror.transports import admission
from mirror.tree import LocalStore

pytestmark = pytest.mark.asyncio

NIGHT = Walk()
TODAY = datetime.now(UTC).date().isoformat()
SERIES = uid(2, 1, 2, 1)
DIALECTS = pytest.mark.parametrize("dialect", ["nbia", "tcia"])


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


def replace_first(archive: FakeArchive, number: int = 1, *, released: str = TODAY) -> str:
    """The series' first instances with other bytes of the same length; the first one's UID."""
    uids = [f"{SERIES}.{10_000 + n}" for n in range(1, number + 1)]
    archive.replace(*uids, released=released)
    return uids[0]


def retired(mirror: Mirror) -> dict[str, bytes]:
    """File name -> bytes of everything that is retired."""
    return {path.rsplit("/", 1)[-1]: body for path, body in snapshot(mirror.root / ".mirror" / "retired").items()}


def history(mirror: Mirror, what: str) -> list[tuple[object, ...]]:
    with Ledger(mirror.root) as ledger:
        return ledger.query(
            "SELECT series_instance_uid, sop_instance_uid, lower(hex(old_sha256)), lower(hex(sha256)), retired"
            " FROM history WHERE what = ? AND sop_instance_uid IS NOT NULL ORDER BY id",
            what,
        )


@pytest.mark.parametrize("transport", ["instance", "zip"])
@pytest.mark.parametrize("layout", ["uid", "classic"])
@DIALECTS
async def test_a_replaced_instance_takes_its_place_and_the_old_bytes_are_kept(
    archive, mirror, dialect, layout, transport
):
    await mirror.sync(archive, dialect, walk=NIGHT, layout=layout, transport=transport)
    changed = replace_first(archive)
    old = {row.sop_instance_uid: (row.sha256, row.path) for row in mirror.rows()}
    bytes_before = mirror.instances()[changed]
    report = await mirror.sync(archive, dialect, walk=NIGHT, transport=transport)
    assert (report.exit_code, report.instances.fetched) == (0, 1)
    assert (report.series.planned, report.series.kept) == (1, 6)
    if (dialect, transport) == ("nbia", "instance"):
        assert [p["SOPInstanceUID"] for p in asked(archive, "getSingleImage")] == [changed]
    assert_nothing_wrong(mirror, archive, whole=True)
    new = {row.sop_instance_uid: (row.sha256, row.path) for row in mirror.rows()}
    assert {u for u in new if new[u] != old[u]} == {changed}
    assert new[changed][1] == old[changed][1], "it has the place that it had"
    assert list(retired(mirror).values()) == [bytes_before]
    ((series, instance, was, now, where),) = history(mirror, "changed")
    assert (series, instance, was, now) == (SERIES, changed, old[changed][0], new[changed][0])
    assert (mirror.root / where).read_bytes() == bytes_before
    assert report.run in where
    again = await mirror.sync(archive, dialect, walk=NIGHT, transport=transport)
    assert (again.exit_code, again.instances.fetched) == (0, 0)
    assert len(history(mirror, "changed")) == 1


async def test_a_silent_change_is_found_by_the_archive_s_digests(archive, mirror):
    """Same count, same length, same days: only getMD5Hierarchy tells, and --reconcile asks it."""
    await mirror.sync(archive, walk=NIGHT)
    changed = replace_first(archive, released="2021-06-16")
    for walk in (NIGHT, Walk(full=True)):
        assert (await mirror.sync(archive, walk=walk)).series.planned == 0
    report = await mirror.sync(archive, walk=Walk(reconcile=True))
    assert (report.exit_code, report.series.planned, report.instances.fetched) == (0, 1, 1)
    assert [p["SOPInstanceUID"] for p in asked(archive, "getSingleImage")] == [changed]
    assert_nothing_wrong(mirror, archive, whole=True)
    await mirror.sync(archive, walk=Walk(reconcile=True))
    assert len(asked(archive, "getMD5Hierarchy")) == 2, "one for each collection that agrees"


async def test_a_change_that_both_the_row_and_the_digest_tell_of_is_counted_once(archive, mirror):
    """In a dry run as in the run itself."""
    await mirror.sync(archive, walk=NIGHT)
    replace_first(archive)
    for dry_run in (True, False):
        report = await mirror.sync(archive, walk=Walk(reconcile=True), dry_run=dry_run)
        told = [(e.collection, e.kept, e.changed) for e in mirror.events if isinstance(e, CollectionPlanned)]
        assert told == [("Brain Beta", 2, 1), ("Lung-Alpha", 4, 0)]
    assert (report.series.planned, report.series.kept) == (1, 6)


@pytest.mark.parametrize("lacks", [("getMD5Hierarchy", "getMD5HashForImage"), ("getMD5HashForImage",)])
async def test_a_server_without_digests_is_compared_byte_by_byte(archive, mirror, lacks):
    """That a series' digest differs does not say which of its instances does."""
    for call in lacks:
        archive.faults.add(call, no_such_call())
    await mirror.sync(archive, walk=NIGHT)
    changed = replace_first(archive)
    report = await mirror.sync(archive, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched, report.instances.reused) == (0, 1, 11)
    assert {u for _, u, *_ in history(mirror, "changed")} == {changed}
    assert_nothing_wrong(mirror, archive, whole=True)


@DIALECTS
async def test_a_successor_that_cannot_be_had_leaves_what_is_there(archive, mirror, dialect):
    await mirror.sync(archive, dialect, walk=NIGHT)
    before = mirror.instances()
    changed = replace_first(archive)
    archive.faults.add("getSingleImage", status(500), SOPInstanceUID=changed)
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert (report.exit_code, mirror.series()[SERIES].state) == (3, SeriesState.INCOMPLETE)
    assert mirror.instances() == before, "the old bytes were right until now, and nothing better is at hand"
    assert retired(mirror) == {}
    assert "status 500" in mirror.series()[SERIES].findings
    archive.faults.clear()
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (0, 1)
    assert_nothing_wrong(mirror, archive, whole=True)


class Crashed(BaseException):
    """The end of the process, for this test."""


@pytest.mark.parametrize("layout", ["uid", "classic"])
@DIALECTS
async def test_a_crash_while_instances_are_replaced(archive, mirror, dialect, layout, monkeypatch):
    """Between the new bytes' rename and their row, for each of three instances: the next run puts it right."""
    await mirror.sync(archive, dialect, walk=NIGHT, layout=layout)
    old = truth(archive)
    replace_first(archive, 3)
    real = admission._place
    crashes = 0

    def struck(*args):
        real(*args)
        raise Crashed

    for _ in range(4):
        monkeypatch.setattr(admission, "_place", struck)
        try:
            await mirror.sync(archive, dialect, walk=NIGHT, connections=1)
        except (Crashed, BaseExceptionGroup):
            crashes += 1
        monkeypatch.setattr(admission, "_place", real)
    assert crashes > 1
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert report.exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)
    changed = {u for u, body in truth(archive).items() if body != old[u]}
    assert len(changed) == 3
    assert {u for _, u, *_ in history(mirror, "changed")} == changed
    kept = set(snapshot(mirror.root / ".mirror" / "retired").values())
    assert {old[u] for u in changed} <= kept, "what was right once is never lost"


@DIALECTS
async def test_a_series_that_shrinks_is_believed_the_second_time(archive, mirror, dialect):
    await mirror.sync(archive, dialect, walk=NIGHT)
    gone = some_instance(archive, SERIES, 5)
    bytes_before = mirror.instances()[gone]
    archive.remove(SERIES, gone)
    archive.stamp(SERIES, DateReleased=TODAY)
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert report.exit_code == 3
    assert FindingKind.UNLISTED_INSTANCE in kinds(report)
    assert gone in mirror.instances()
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (0, 0)
    assert_nothing_wrong(mirror, archive, whole=True)
    assert list(retired(mirror).values()) == [bytes_before]
    ((series, instance, *_),) = history(mirror, "left")
    assert (series, instance) == (SERIES, gone)


async def test_a_crash_before_an_unlisted_file_is_removed(archive, mirror, monkeypatch):
    await mirror.sync(archive, walk=NIGHT)
    archive.remove(SERIES, some_instance(archive, SERIES, 5))
    archive.stamp(SERIES, DateReleased=TODAY)
    await mirror.sync(archive, walk=NIGHT)

    def struck(*_):
        raise Crashed

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "remove", struck)
        with pytest.raises((Crashed, BaseExceptionGroup)):
            await mirror.sync(archive, walk=NIGHT)
    assert (await mirror.sync(archive, walk=NIGHT)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)
    assert len(history(mirror, "left")) == 1


async def test_a_list_that_is_too_short_takes_nothing_away(archive, mirror):
    """getSeriesSize says twelve: a list that names eleven, night after night, is not believed."""
    await mirror.sync(archive, walk=NIGHT)
    archive.stamp(SERIES, DateReleased=TODAY)
    archive.faults.add("getSOPInstanceUIDs", edit_rows(lambda rows: rows[1:]), SeriesInstanceUID=SERIES)
    for _ in range(3):
        report = await mirror.sync(archive, walk=NIGHT)
        assert (report.exit_code, len(mirror.instances())) == (3, 32)
        assert FindingKind.COUNT_DIFFERS in kinds(report)
    assert retired(mirror) == {}
    archive.faults.clear()
    assert (await mirror.sync(archive, walk=NIGHT)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_series_that_was_made_anew_under_its_uid(archive, mirror):
    """Every instance has another UID: the new ones come at once, the old ones go when a second list lacks them."""
    await mirror.sync(archive, walk=NIGHT)
    archive.remove(SERIES, *(f"{SERIES}.{10_000 + number}" for number in range(1, 13)))
    archive.stock(
        "Brain Beta",
        make_series(series_uid=SERIES, study_uid=uid(2, 1, 2), patient_id="S2-001", first=101, instances=12, seed=5),
        released=TODAY,
    )
    assert (await mirror.sync(archive, walk=NIGHT)).exit_code == 3
    assert (await mirror.sync(archive, walk=NIGHT)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)
    assert len(retired(mirror)) == 12
