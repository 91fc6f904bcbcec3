"""Night after night: what a run asks for, and that no crash loses a change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fakes.archive import stock_another
from fakes.dicom import uid
from fakes.faults import edit_rows, html, status, where
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, findings

from mirror.crawl import collection
from mirror.errors import ExitCode
from mirror.events import CollectionCrawled
from mirror.ledger import Ledger
from mirror.ledger.file import LedgerFile
from mirror.model import FindingKind, Scope, Walk

pytestmark = pytest.mark.asyncio

NIGHT = Walk()
TODAY = datetime.now(UTC).date().isoformat()
LONG_AGO = "2019-05-05"
LUNG, BRAIN = "Lung-Alpha", "Brain Beta"
QUIET = {"getCollectionValues": 1, "NewPatientsInCollection": 2, "NewStudiesInPatientCollection": 2}
DIALECTS = pytest.mark.parametrize("dialect", ["nbia", "tcia"])


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


@DIALECTS
async def test_an_unchanged_collection_costs_two_requests(archive, mirror, dialect):
    await mirror.sync(archive, dialect, walk=NIGHT)
    assert "getSeries" in archive.counts()
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert (report.exit_code, report.series.kept, report.series.planned) == (0, 7, 0)
    assert dict(archive.counts()) == QUIET
    assert [e.since is not None for e in mirror.events if isinstance(e, CollectionCrawled)] == [True, True]


@DIALECTS
async def test_what_was_released_since_is_found_and_only_that_is_fetched(archive, mirror, dialect):
    await mirror.sync(archive, dialect, walk=NIGHT)
    in_old_study = stock_another(archive, 50, TODAY)
    new_patient = stock_another(archive, 51, TODAY, study=9, patient="S1-777")
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (0, 4)
    assert report.series.planned + report.series.kept == 9, "each is counted once"
    assert {in_old_study, new_patient} <= set(mirror.series())
    assert len(asked(archive, "getSeries")) == 2, "one for each study that is named"
    assert_nothing_wrong(mirror, archive, whole=True)
    # The overlap names both studies again. In the nbia dialect one call tells that nothing in them is new; in the tcia
    # dialect nothing tells, and what is held of them is compared.
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (0, 0)
    if dialect == "nbia":
        # Their day is not over yet: whether they were released once more, the digest of each tells.
        assert dict(archive.counts()) == QUIET | {"getUpdatedSeries": 1, "getMD5Hierarchy": 2}
    else:
        assert (len(asked(archive, "getSeries")), report.instances.reused) == (2, 10)


async def test_more_studies_than_are_walked_one_by_one_are_listed_at_once(archive, mirror, monkeypatch):
    """Or patient by patient, where that is too much: whom NewPatientsInCollection does not name is asked for too."""
    monkeypatch.setattr(collection, "_MANY", 2)
    await mirror.sync(archive, walk=NIGHT)
    news = {stock_another(archive, 60 + study, TODAY, study=study) for study in (1, 2, 3)}
    archive.faults.add("NewPatientsInCollection", edit_rows(lambda _: []), Collection=LUNG)
    archive.faults.add("getSeries", where(lambda asked: "PatientID" not in asked.params, status(500)))
    report = await mirror.sync(archive, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (0, 6)
    assert news <= set(mirror.series())
    assert {p["PatientID"] for p in asked(archive, "getSeries") if "PatientID" in p} == {"S1-001", "S1-002"}
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("many", [200, 0], ids=["by its study", "by its collection"])
async def test_what_is_released_twice_on_one_day_is_found_the_next_night(archive, mirror, nights, monkeypatch, many):
    """Count, length and days are those of the first release, which a night in between has fetched."""
    monkeypatch.setattr("mirror.crawl.collection._MANY", many)
    await mirror.sync(archive, walk=NIGHT)
    series = stock_another(archive, 50, nights.today)
    nights.pass_by(hours=1)
    assert (await mirror.sync(archive, walk=NIGHT)).instances.fetched == 2
    archive.replace(f"{series}.10001")
    nights.pass_by(hours=23)
    assert (await mirror.sync(archive, walk=NIGHT)).instances.fetched == 1
    assert_nothing_wrong(mirror, archive, whole=True)
    nights.pass_by(days=1)
    await mirror.sync(archive, walk=NIGHT)
    assert dict(archive.counts()) == QUIET | {"getUpdatedSeries": 1, "getMD5Hierarchy": 1}
    nights.pass_by(hours=20)
    await mirror.sync(archive, walk=NIGHT)
    assert dict(archive.counts()) == QUIET | {"getUpdatedSeries": 1}, "that day is over everywhere"


async def test_what_has_an_old_day_or_none_is_found_by_the_whole_walk(archive, mirror):
    await mirror.sync(archive, walk=NIGHT)
    hidden_until_now = stock_another(archive, 50, LONG_AGO)
    assert (await mirror.sync(archive, walk=NIGHT)).series.planned == 0
    report = await mirror.sync(archive, walk=Walk(reconcile=True))
    assert (report.series.planned, report.instances.fetched) == (1, 2)
    assert hidden_until_now in mirror.series()
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_the_whole_walk_is_due_by_itself(archive, mirror):
    begin = datetime.now(UTC) - timedelta(days=30)
    archive.now = lambda: begin
    await mirror.sync(archive, walk=NIGHT)
    stock_another(archive, 50, LONG_AGO)
    archive.now = lambda: begin + timedelta(days=6)
    assert (await mirror.sync(archive, walk=NIGHT)).series.planned == 0
    # Nightly runs do not begin at the same minute: the seventh night is a week.
    archive.now = lambda: begin + timedelta(days=7, minutes=-30)
    assert (await mirror.sync(archive, walk=NIGHT, reconcile_every="0")).series.planned == 0
    assert "getPatient" not in archive.counts()
    report = await mirror.sync(archive, walk=NIGHT)
    assert report.series.planned == 1
    assert len(asked(archive, "getMD5Hierarchy")) >= 2, "digests of both collections"
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_since_a_day_of_ones_own(archive, mirror):
    """It asks no less and no more, and where it leaves a gap the watermark stays."""
    await mirror.sync(archive, walk=NIGHT)
    stock_another(archive, 50, LONG_AGO)
    report = await mirror.sync(archive, walk=Walk(since="2019-01-01"))
    assert (report.exit_code, report.instances.fetched) == (0, 2)
    assert {p["fromDate"] for p in asked(archive, "NewStudiesInPatientCollection")} == {"01-01-2019"}
    late = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    before = marks(mirror)
    await mirror.sync(archive, walk=Walk(since=late))
    assert marks(mirror) == before


async def test_since_a_day_of_a_collection_that_is_not_known_leaves_no_watermark(archive, mirror):
    report = await mirror.sync(archive, walk=Walk(since="2021-06-16"))
    assert (report.exit_code, report.series.complete) == (0, 1)
    assert marks(mirror) == []
    report = await mirror.sync(archive, walk=NIGHT)
    assert "getSeries" in archive.counts()
    assert_nothing_wrong(mirror, archive, whole=True)


def marks(mirror: Mirror) -> list[tuple[object, ...]]:
    with Ledger(mirror.root) as ledger:
        return ledger.query("SELECT collection, scope, at, whole_at FROM watermarks ORDER BY 1, 2")


async def test_the_watermark_is_by_the_archive_s_clock_unless_that_is_ahead(archive, mirror):
    archive.now = lambda: datetime(2020, 3, 3, 2, tzinfo=UTC)
    await mirror.sync(archive, walk=NIGHT)
    assert {datetime.fromtimestamp(at, UTC).isoformat() for _, _, at, _ in marks(mirror)} == {
        "2020-03-03T02:00:00+00:00"
    }
    await mirror.sync(archive, walk=NIGHT, overlap="3d")
    assert {p["fromDate"] for p in asked(archive, "NewPatientsInCollection")} == {"02-29-2020"}
    archive.now = lambda: datetime(2091, 3, 3, 2, tzinfo=UTC)
    await mirror.sync(archive, walk=NIGHT)
    assert all(at <= datetime.now(UTC).timestamp() for _, _, at, _ in marks(mirror))


@DIALECTS
async def test_another_scope_has_a_watermark_of_its_own(archive, mirror, dialect):
    """Widened, a scope asks for everything once and fetches the difference; narrowed, it keeps what is held."""
    only_mr = Scope(all=True, modalities=("MR",))
    await mirror.sync(archive, dialect, only_mr, walk=NIGHT)
    held = len(mirror.instances())
    assert 0 < held < 32
    report = await mirror.sync(archive, dialect, walk=NIGHT)
    assert report.instances.fetched == 32 - held
    assert_nothing_wrong(mirror, archive, whole=True)
    assert len({scope for _, scope, *_ in marks(mirror)}) == 2
    report = await mirror.sync(archive, dialect, only_mr, walk=NIGHT)
    assert (report.exit_code, report.series.planned, len(mirror.instances())) == (0, 0, 32)
    assert dict(archive.counts()) == QUIET


async def test_a_collection_that_answers_nonsense_keeps_its_watermark(archive, mirror):
    await mirror.sync(archive, walk=NIGHT)
    before = {name: at for name, _, at, _ in marks(mirror)}
    for fault in (html(), status(500), edit_rows(lambda rows: [{"PatientName": 3}, *rows])):
        archive.faults.clear()
        new = stock_another(archive, 50, TODAY)
        archive.faults.add("NewStudiesInPatientCollection", fault, Collection=LUNG)
        archive.now = lambda: datetime.now(UTC) - timedelta(hours=1)
        report = await mirror.sync(archive, walk=NIGHT)
        assert report.exit_code == ExitCode.INCOMPLETE
        assert [f.collection for f in findings(report, FindingKind.CRAWL_FAILED)] == [LUNG]
        after = {name: at for name, _, at, _ in marks(mirror)}
        assert after[LUNG] == before[LUNG]
        assert after[BRAIN] != before[BRAIN]
    archive.faults.clear()
    archive.now = None
    assert (await mirror.sync(archive, walk=NIGHT)).exit_code == 0
    assert new in mirror.series()
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_named_study_without_a_series_is_no_answer(archive, mirror):
    await mirror.sync(archive, walk=NIGHT)
    stock_another(archive, 50, TODAY)
    before = marks(mirror)
    archive.faults.add("getSeries", edit_rows(lambda _: []), StudyInstanceUID=uid(1, 1, 1))
    report = await mirror.sync(archive, walk=NIGHT)
    assert report.exit_code == ExitCode.INCOMPLETE
    assert [m for m in marks(mirror) if m[0] == LUNG] == [m for m in before if m[0] == LUNG]


async def test_what_an_earlier_run_left_undone_is_done_without_being_named(archive, mirror):
    archive.faults.add("getSingleImage", status(500), SeriesInstanceUID=uid(1, 1, 1, 1))
    report = await mirror.sync(archive, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (3, 29)
    archive.faults.clear()
    report = await mirror.sync(archive, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (0, 3)
    assert "getSeries" not in archive.counts()
    assert_nothing_wrong(mirror, archive, whole=True)


class Crashed(BaseException):
    """The end of the process, for this test."""


@DIALECTS
async def test_a_crash_at_any_step_loses_no_change(archive, mirror, dialect, monkeypatch):
    """Every transaction of a night with changes is once the last that came through, and once the one that did not."""
    night = datetime.now(UTC) - timedelta(days=1000)
    archive.now = lambda: night
    await mirror.sync(archive, dialect, walk=NIGHT)
    real = LedgerFile.transaction
    number = 0
    done = False
    while not done:
        number += 1
        # What came before is out of the overlap's reach, once a run has come through with it.
        night += timedelta(days=4)
        if number % 5 == 1:
            stock_another(archive, 50 + number, night.date().isoformat(), study=1 + number % 3)
        seen = 0

        def struck(self, number=number, **options):
            nonlocal seen
            seen += 1
            if seen == number:
                raise Crashed
            return real(self, **options)

        monkeypatch.setattr(LedgerFile, "transaction", struck)
        try:
            await mirror.sync(archive, dialect, walk=NIGHT, reconcile_every="0")
            done = seen < number
        except BaseException as error:
            assert "Crashed" in repr(error), error  # noqa: PT017 - a group, or the crash itself
        monkeypatch.setattr(LedgerFile, "transaction", real)
    assert number > 10
    await mirror.sync(archive, dialect, walk=NIGHT, reconcile_every="0")
    assert_nothing_wrong(mirror, archive, whole=True)
    assert len(mirror.series()) == 7 + len(range(1, number + 1, 5))
