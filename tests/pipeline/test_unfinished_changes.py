"""A series that changes before it is complete: what came of it first is no better known than what never came."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.dicom import make_series, uid
from fakes.faults import edit_rows, no_such_call, status
from fakes.mirroring import Mirror, assert_nothing_wrong, some_instance

from mirror.errors import ExitCode
from mirror.events import CollectionCrawled
from mirror.ledger import Ledger
from mirror.model import SeriesState, Walk

pytestmark = pytest.mark.asyncio

NIGHT = Walk()
BRAIN = "Brain Beta"
SERIES = uid(2, 1, 2, 1)
FIRST = f"{SERIES}.10001"


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


@pytest.mark.parametrize("dialect", ["tcia", "nbia"])
async def test_a_change_stays_known_until_the_series_is_complete(archive, mirror, nights, dialect):
    """Nothing but the since-calls tells of it, and they do not name it any more when the series is complete at last."""
    for call in ("getMD5Hierarchy", "getMD5HashForImage"):
        archive.faults.add(call, no_such_call())
    fails = archive.faults.add("getSingleImage", status(500), SOPInstanceUID=some_instance(archive, SERIES, 7))
    await mirror.sync(archive, dialect, walk=NIGHT)
    assert mirror.series()[SERIES].state == SeriesState.INCOMPLETE
    fails.left = 0
    nights.pass_by(days=1)
    archive.replace(FIRST, released=nights.today)
    nights.pass_by(days=3)
    fails = archive.faults.add("getSOPInstanceUIDs", status(500), SeriesInstanceUID=SERIES)
    assert (await mirror.sync(archive, dialect, walk=NIGHT)).exit_code == ExitCode.INCOMPLETE
    fails.left = 0
    nights.pass_by(days=1)
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (ExitCode.COMPLETE, 2)
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("dialect", ["tcia", "nbia"])
async def test_a_second_change_of_what_the_first_left_unfinished(archive, mirror, nights, dialect):
    """What is held came between the two. No digest tells."""
    for call in ("getMD5Hierarchy", "getMD5HashForImage"):
        archive.faults.add(call, no_such_call())
    await mirror.sync(archive, dialect, walk=NIGHT)
    archive.replace(FIRST, released=nights.today)
    nights.pass_by(days=1)
    one_more = edit_rows(lambda rows: [row | {"ObjectCount": 13} for row in rows])
    fails = archive.faults.add("getSeriesSize", one_more, SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (ExitCode.INCOMPLETE, 1)
    fails.left = 0
    nights.pass_by(hours=15)
    archive.replace(FIRST, released=nights.today)
    nights.pass_by(hours=9)
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (ExitCode.COMPLETE, 1)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_longer_successor_of_what_is_held_comes(archive, mirror, nights):
    fails = archive.faults.add("getSingleImage", status(500), SOPInstanceUID=some_instance(archive, SERIES, 7))
    await mirror.sync(archive, "tcia", walk=NIGHT)
    fails.left = 0
    nights.pass_by(days=1)
    longer = make_series(
        patient_id="S2-001", study_uid=uid(2, 1, 2), series_uid=SERIES, instances=1, acquisitions=(1, 2), seed=2,
        Modality="MR", BodyPartExamined="BRAIN", Manufacturer=None, SeriesNumber=7, ImageComments="x" * 64,
    )  # fmt: skip
    archive.stock(BRAIN, longer, released=nights.today)
    report = await mirror.sync(archive, "tcia", walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (ExitCode.COMPLETE, 2)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_series_that_is_both_named_and_unfinished_is_planned_once(archive, mirror, nights):
    archive.faults.add("getSingleImage", status(500), SeriesInstanceUID=SERIES)
    await mirror.sync(archive, walk=NIGHT)
    archive.stamp(SERIES, DateReleased=nights.today)
    report = await mirror.sync(archive, walk=NIGHT)
    (crawled,) = [e for e in mirror.events if isinstance(e, CollectionCrawled) and e.collection == BRAIN]
    assert (crawled.planned, report.series.planned, report.series.kept) == (1, 1, 6)


async def test_what_is_found_unchanged_at_last_was_tried_for_the_last_time(archive, mirror, nights):
    """The attempts that failed do not make the next change wait."""
    await mirror.sync(archive, "tcia", walk=NIGHT)
    archive.stamp(SERIES, DateReleased=nights.today)
    archive.faults.add("getSingleImage", status(500), SOPInstanceUID=FIRST)
    for _ in range(2):
        assert (await mirror.sync(archive, "tcia", walk=NIGHT)).exit_code == ExitCode.INCOMPLETE
    archive.faults.clear()
    assert (await mirror.sync(archive, "tcia", walk=NIGHT)).exit_code == ExitCode.COMPLETE
    with Ledger(mirror.root) as ledger:
        told = ledger.query("SELECT attempts, next_try, finding FROM instances WHERE sop_instance_uid = ?", FIRST)
    assert told == [(0, None, None)]
