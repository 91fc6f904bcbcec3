"""A change of which the archive tells in a way that is easily missed: no run may take it for known."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.archive import stock_another
from fakes.dicom import make_series, uid
from fakes.faults import after, delay, edit_rows, no_such_call, status
from fakes.mirroring import Mirror, asked, assert_nothing_wrong

from mirror.errors import ExitCode, ServerFault
from mirror.model import Scope, Walk

pytestmark = pytest.mark.asyncio

NIGHT = Walk()
SERIES = uid(2, 1, 2, 1)
FIRST = f"{SERIES}.10001"
BRAIN = Scope(collections=("Brain Beta",))


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
async def test_a_second_change_within_the_overlap(archive, mirror, nights, dialect):
    """The study is named by the since-calls already, for the first one."""
    await mirror.sync(archive, dialect, BRAIN, walk=NIGHT)
    for _ in range(2):
        nights.pass_by(hours=15)
        archive.replace(FIRST, released=nights.today)
        nights.pass_by(hours=9)
        assert (await mirror.sync(archive, dialect, BRAIN, walk=NIGHT)).instances.fetched == 1
        assert "getSeries" in archive.counts()
    await mirror.sync(archive, dialect, walk=NIGHT)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_second_change_on_one_day_where_rows_tell_no_days(archive, mirror, nights):
    await mirror.sync(archive, "tcia", walk=NIGHT)
    nights.pass_by(days=1)
    archive.replace(FIRST, released=nights.today)
    await mirror.sync(archive, "tcia", walk=NIGHT)
    archive.replace(FIRST, released=nights.today)
    nights.pass_by(days=1)
    assert (await mirror.sync(archive, "tcia", walk=NIGHT)).instances.fetched == 1
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("walk", [Walk(), Walk(full=True), Walk(reconcile=True)])
async def test_a_whole_walk_asks_for_what_its_rows_do_not_tell(archive, mirror, nights, walk):
    """After two weeks without a run a whole walk is due by itself, and the change is older than the overlap."""
    await mirror.sync(archive, "tcia", walk=NIGHT)
    nights.pass_by(days=1)
    archive.replace(FIRST, released=nights.today)
    nights.pass_by(days=13)
    assert (await mirror.sync(archive, "tcia", walk=walk)).instances.fetched == 1
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_scope_that_is_new_forgets_no_change_of_what_is_held(archive, mirror, nights):
    await mirror.sync(archive, "tcia", walk=NIGHT)
    nights.pass_by(days=1)
    archive.replace(FIRST, released=nights.today)
    nights.pass_by(days=13)
    assert (await mirror.sync(archive, "tcia", BRAIN, walk=NIGHT)).instances.fetched == 1
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("held_by", ["since a day", "its UID", "a scope that was narrowed"])
async def test_a_scope_without_a_watermark_asks_of_what_is_held(archive, mirror, nights, held_by):
    """The rows of the tcia dialect tell no days: the since-calls are asked from the last sight of what is held on."""
    if held_by == "since a day":
        await mirror.sync(archive, "tcia", walk=Walk(since="2001-01-01"))
    elif held_by == "its UID":
        await mirror.sync(archive, "tcia", Scope(series=(SERIES,)), walk=NIGHT)
    else:
        await mirror.sync(archive, "tcia", walk=NIGHT)
        only_mr = Scope(all=True, modalities=("MR",))
        await mirror.sync(archive, "tcia", only_mr, walk=Walk(retire_outside=True, force=True))
    assert FIRST in mirror.instances()
    nights.pass_by(days=1)
    archive.replace(FIRST, released=nights.today)
    nights.pass_by(days=5)
    assert (await mirror.sync(archive, "tcia", walk=NIGHT)).exit_code == ExitCode.COMPLETE
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_two_collections_that_differ_in_case_are_named_each_for_itself(archive, mirror, nights):
    """The serving side does not mind case: the crawl of the twin gets to see the studies that ours are told by."""
    archive.stock("BRAIN BETA", make_series(study_uid=uid(9, 1), series_uid=uid(9, 1, 1), instances=2))
    names = [{"Collection": name} for name in ("Brain Beta", "BRAIN BETA", "Lung-Alpha")]
    archive.faults.add("getCollectionValues", edit_rows(lambda _: names))
    # The twin's studies come between the list of ours and their series.
    archive.faults.add("getSeries", delay(0.2), Collection="Brain Beta")
    await mirror.sync(archive, "tcia", walk=NIGHT)
    nights.pass_by(days=1)
    archive.replace(FIRST, released=nights.today)
    report = await mirror.sync(archive, "tcia", walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (ExitCode.COMPLETE, 1)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_night_in_the_other_dialect_takes_nothing_away_that_tells_of_a_change(archive, mirror, nights):
    """The rows of the tcia dialect tell no days and no sizes: those of the nbia dialect are still compared with."""
    for call in ("getMD5Hierarchy", "getMD5HashForImage"):
        archive.faults.add(call, no_such_call())
    for dialect in ("nbia", "tcia"):
        await mirror.sync(archive, dialect, walk=NIGHT)
        nights.pass_by(days=1)
    archive.replace(FIRST, released=nights.today)
    nights.pass_by(days=1)
    report = await mirror.sync(archive, "nbia", walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (ExitCode.COMPLETE, 1)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_study_of_which_getupdatedseries_tells_a_part_is_walked(archive, mirror, nights):
    """It answers with the rights of a guest; what we may see besides is in NewStudiesInPatientCollection's count."""
    await mirror.sync(archive, walk=NIGHT)
    stock_another(archive, 50, nights.today)
    await mirror.sync(archive, walk=NIGHT)
    hidden = stock_another(archive, 51, nights.today)
    others = edit_rows(lambda rows: [row for row in rows if row["SeriesInstanceUID"] != hidden])
    archive.faults.add("getUpdatedSeries", others)
    report = await mirror.sync(archive, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (ExitCode.COMPLETE, 2)
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("code", [500, 503])
@pytest.mark.parametrize("told", [0, 1, 2])
async def test_a_digest_that_is_not_told_any_more_is_no_agreement(archive, mirror, nights, code, told):
    """getSeriesSize and the list agree with what is held; only the digest tells of the change."""
    await mirror.sync(archive, scope=BRAIN, walk=NIGHT)
    archive.replace(FIRST, released=nights.today)
    archive.faults.add("getMD5Hierarchy", after(told, status(code)))
    if code == 503:
        archive.faults.add("getCollectionValues", after(1, status(503)))
        with pytest.raises(ServerFault):
            await mirror.sync(archive, scope=BRAIN, walk=NIGHT)
        archive.faults.clear()
    report = await mirror.sync(archive, scope=BRAIN, walk=NIGHT)
    if told < 2:
        assert report.exit_code == ExitCode.COMPLETE
    archive.faults.clear()
    assert (await mirror.sync(archive, scope=BRAIN, walk=NIGHT)).exit_code == ExitCode.COMPLETE
    assert {params["SOPInstanceUID"] for params in asked(archive, "getSingleImage")} <= {FIRST}
    await mirror.sync(archive, walk=NIGHT)
    assert_nothing_wrong(mirror, archive, whole=True)
