"""A series that the archive gives no more: believed late, acted on only when nothing went wrong, and never in bulk."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.archive import FakeArchive, stock_another
from fakes.clock import Nights
from fakes.dicom import make_series, uid
from fakes.faults import edit_rows, status
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, findings, kinds, snapshot, truth

from mirror.errors import ExitCode
from mirror.events import CollectionPlanned, Withdrawn
from mirror.ledger import Catalogue, Ledger
from mirror.model import FindingKind, Presence, Scope, SeriesState, Walk
from mirror.tree import LocalStore

pytestmark = pytest.mark.asyncio

NIGHT = Walk()
WHOLE = Walk(reconcile=True)
SERIES = uid(2, 1, 2, 1)
DIALECTS = pytest.mark.parametrize("dialect", ["nbia", "tcia"])


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


def brain(archive: FakeArchive) -> set[str]:
    """The series of the second collection."""
    return {of for of, _ in archive.files().values() if of.startswith(f"{uid(2)}.")}


def happened(mirror: Mirror, series: str = SERIES) -> list[str]:
    with Ledger(mirror.root) as ledger:
        rows = ledger.query(
            "SELECT what FROM history WHERE series_instance_uid = ? AND sop_instance_uid IS NULL ORDER BY id", series
        )
    return [what for (what,) in rows]


async def withdrawn(mirror: Mirror, archive: FakeArchive, nights: Nights, dialect="nbia", **options):
    """A mirror whose archive hid a series: missing last night, due tonight."""
    await mirror.sync(archive, dialect, walk=NIGHT, **options)
    archive.withdraw(SERIES)
    nights.pass_by(days=1)
    report = await mirror.sync(archive, dialect, walk=WHOLE, **options)
    assert (report.exit_code, mirror.presence(SERIES)) == (0, Presence.MISSING)
    nights.pass_by(days=1)


@DIALECTS
async def test_absent_once_is_missing_absent_twice_a_day_apart_is_withdrawn(archive, mirror, nights, dialect):
    await mirror.sync(archive, dialect, walk=NIGHT)
    archive.withdraw(SERIES)
    nights.pass_by(days=1)
    await mirror.sync(archive, dialect, walk=NIGHT)
    assert mirror.presence(SERIES) == Presence.PRESENT, "the since-calls cannot tell"
    report = await mirror.sync(archive, dialect, walk=WHOLE)
    assert (report.exit_code, mirror.presence(SERIES)) == (0, Presence.MISSING)
    assert [e.missing for e in mirror.events if isinstance(e, CollectionPlanned) and e.missing] == [1]
    nights.pass_by(hours=20)
    await mirror.sync(archive, dialect, walk=WHOLE)
    assert mirror.presence(SERIES) == Presence.MISSING, "not a day yet"
    nights.pass_by(hours=4)
    report = await mirror.sync(archive, dialect, walk=WHOLE)
    assert (report.exit_code, mirror.presence(SERIES)) == (0, Presence.WITHDRAWN)
    # Once for it, and once for a series that is there: silence must mean something.
    assert len(asked(archive, "getSeriesQCInfo")) == (2 if dialect == "nbia" else 0)
    assert happened(mirror) == ["came", "missing", "withdrawn"]
    # By default its files stay, and the manifest says what they are.
    assert len(mirror.instances()) == 32
    assert mirror.series()[SERIES].state == "withdrawn"
    with Catalogue(mirror.root) as catalogue:
        assert SERIES not in {row["SeriesInstanceUID"] for row in catalogue.series({})}, "nobody is given it on"
        assert sum(row.withdrawn for row in catalogue.status()) == 1


@DIALECTS
async def test_an_updated_series_vanishes_for_a_while(archive, mirror, nights, dialect):
    """It is listed again before it is withdrawn, and what changed meanwhile is fetched."""
    await mirror.sync(archive, dialect, walk=NIGHT)
    archive.withdraw(SERIES)
    nights.pass_by(days=1)
    await mirror.sync(archive, dialect, walk=WHOLE)
    archive.give_back(SERIES)
    archive.replace(f"{SERIES}.10001")
    nights.pass_by(days=2)
    report = await mirror.sync(archive, dialect, walk=WHOLE)
    assert (report.exit_code, report.instances.fetched, mirror.presence(SERIES)) == (0, 1, Presence.PRESENT)
    assert [e.returned for e in mirror.events if isinstance(e, CollectionPlanned) and e.returned] == [1]
    assert_nothing_wrong(mirror, archive, whole=True)
    assert happened(mirror) == ["came", "missing", "returned", "changed"]
    nights.pass_by(days=9)
    await mirror.sync(archive, dialect, walk=WHOLE)
    assert mirror.presence(SERIES) == Presence.PRESENT, "the clock began anew"


@pytest.mark.parametrize("layout", ["uid", "classic"])
@pytest.mark.parametrize("how", ["retire", "delete"])
async def test_what_becomes_of_the_files(archive, mirror, nights, how, layout):
    before = {u: body for u, (of, body) in archive.files().items() if of == SERIES}
    await withdrawn(mirror, archive, nights, layout=layout)
    report = await mirror.sync(archive, walk=WHOLE, on_withdrawn=how)
    assert report.exit_code == 0
    assert [e.how for e in mirror.events if isinstance(e, Withdrawn)] == [how]
    assert len(mirror.instances()) == 20
    assert_nothing_wrong(mirror, archive, whole=False)
    kept = snapshot(mirror.root / ".mirror" / "retired")
    assert sorted(kept.values()) == (sorted(before.values()) if how == "retire" else [])
    # It comes back as it was, all of it fetched.
    archive.give_back(SERIES)
    nights.pass_by(days=1)
    report = await mirror.sync(archive, walk=WHOLE, on_withdrawn=how)
    assert (report.exit_code, report.instances.fetched) == (0, 12)
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_a_dry_run_tells_and_does_nothing(archive, mirror, nights):
    await withdrawn(mirror, archive, nights)
    stock_another(archive, 50, nights.today)
    before = snapshot(mirror.root)
    report = await mirror.sync(archive, walk=WHOLE, on_withdrawn="delete", dry_run=True)
    after = snapshot(mirror.root)
    assert report.state == "planned"
    assert [f.series_instance_uid for f in findings(report, FindingKind.WITHDRAWN)] == [SERIES]
    assert [(e.collection, e.withdraw) for e in mirror.events if isinstance(e, CollectionPlanned) and e.withdraw] == [
        ("Brain Beta", 1)
    ]
    # The lock says who held it last; nothing else has moved.
    assert {path for path in before | after if before.get(path) != after.get(path)} <= {".mirror/lock"}


@pytest.mark.parametrize("trouble", ["an instance", "a collection"])
async def test_never_in_a_run_with_errors(archive, mirror, nights, trouble):
    await withdrawn(mirror, archive, nights)
    if trouble == "an instance":
        archive.stamp(uid(1, 1, 1, 1), DateReleased="2024-05-02")
        archive.faults.add("getSeriesSize", edit_rows(lambda rows: [rows[0] | {"ObjectCount": 99}]))
    else:
        archive.faults.add("getSeries", status(500), Collection="Lung-Alpha")
        archive.faults.add("getSeries", status(500), PatientID="S1-001")
    report = await mirror.sync(archive, walk=WHOLE, on_withdrawn="delete")
    assert report.exit_code == ExitCode.INCOMPLETE
    assert (len(mirror.instances()), mirror.presence(SERIES)) == (32, Presence.MISSING)
    archive.faults.clear()
    await mirror.sync(archive, walk=WHOLE, on_withdrawn="delete")
    assert (len(mirror.instances()), mirror.presence(SERIES)) == (20, Presence.WITHDRAWN)


async def test_the_archive_must_confirm_it(archive, mirror, nights):
    """A server that lists too little says with getSeriesQCInfo that the series is visible."""
    await withdrawn(mirror, archive, nights)
    archive.faults.add("getSeriesQCInfo", edit_rows(lambda rows: [row | {"Visibility": "Visible"} for row in rows]))
    report = await mirror.sync(archive, walk=WHOLE, on_withdrawn="delete")
    assert (report.exit_code, len(mirror.instances()), mirror.presence(SERIES)) == (0, 32, Presence.MISSING)
    assert "visible" in findings(report, FindingKind.MISSING_UPSTREAM)[0].detail
    archive.faults.clear()
    archive.faults.add("getSeriesQCInfo", status(500))
    report = await mirror.sync(archive, walk=WHOLE, on_withdrawn="delete")
    assert (len(mirror.instances()), mirror.presence(SERIES)) == (32, Presence.MISSING)


async def test_silence_confirms_nothing_where_the_archive_has_none_to_tell_of(archive, mirror, nights):
    """To one whose rights have ended, getSeriesQCInfo tells of no series at all."""
    await withdrawn(mirror, archive, nights)
    archive.faults.add("getSeriesQCInfo", status(204))
    report = await mirror.sync(archive, walk=WHOLE, on_withdrawn="delete")
    assert (len(mirror.instances()), mirror.presence(SERIES)) == (32, Presence.MISSING)
    assert "its silence tells nothing" in findings(report, FindingKind.MISSING_UPSTREAM)[0].detail


async def test_what_another_archive_showed_is_not_missing_here(archive, mirror, nights, tmp_path):
    await mirror.sync(archive, walk=NIGHT)
    async with FakeArchive(tmp_path / "second") as second:
        second.now = archive.now
        second.stock("Third", make_series(patient_id="S3-001", study_uid=uid(3, 1, 1), series_uid=uid(3, 1, 1, 1)))
        nights.pass_by(days=1)
        assert (await mirror.sync(second, walk=WHOLE)).exit_code == 0
    assert {mirror.presence(series) for series in brain(archive)} == {Presence.PRESENT}


async def test_not_more_than_max_withdraw_without_force(archive, mirror, nights):
    """A collection that vanishes whole is told, and stays until somebody says that it may go."""
    await mirror.sync(archive, walk=NIGHT)
    for series in brain(archive):
        archive.withdraw(series)
    for _ in range(2):
        nights.pass_by(days=1)
        report = await mirror.sync(archive, walk=WHOLE, on_withdrawn="delete")
    assert report.exit_code == ExitCode.INCOMPLETE
    assert "3 are due" in findings(report, FindingKind.WITHDRAWAL_REFUSED)[0].detail
    assert len(asked(archive, "getSeriesQCInfo")) == 3, "no more are asked about than it takes to refuse"
    assert len(mirror.instances()) == 32
    report = await mirror.sync(archive, walk=Walk(reconcile=True, force=True), on_withdrawn="retire")
    assert (report.exit_code, len(mirror.instances())) == (0, 12)
    assert_nothing_wrong(mirror, archive)
    nights.pass_by(days=1)
    assert (await mirror.sync(archive, walk=NIGHT)).exit_code == 0
    assert asked(archive, "getSeries") == [], "nobody asks after a collection that is withdrawn"


@pytest.mark.parametrize("how", ["missing", "withdrawn"])
async def test_a_collection_that_comes_back_is_seen_at_once(archive, mirror, nights, how):
    """Its days of release are old: the since-calls would not tell of it."""
    await mirror.sync(archive, walk=NIGHT)
    gone = brain(archive)
    for series in gone:
        archive.withdraw(series)
    for _ in range(2):
        nights.pass_by(days=1)
        await mirror.sync(archive, walk=Walk(force=how == "withdrawn"), on_withdrawn="delete")
    assert mirror.presence(SERIES) == how
    for series in gone:
        archive.give_back(series)
    nights.pass_by(days=1)
    assert (await mirror.sync(archive, walk=NIGHT)).exit_code == 0
    assert mirror.presence(SERIES) == Presence.PRESENT
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("modalities", [(), ("MR",)])
async def test_a_scope_goes_on_when_all_of_a_collection_is_withdrawn(archive, mirror, nights, modalities):
    """It names the collection, and may leave some of it out: that nothing is there any more is no mistake of its."""
    scope = Scope(collections=("Lung-Alpha", "Brain Beta"), modalities=modalities)
    await mirror.sync(archive, scope=scope, walk=NIGHT)
    held = {row.series_instance_uid for row in mirror.rows()} & brain(archive)
    for series in brain(archive):
        archive.withdraw(series)
    for _ in range(2):
        nights.pass_by(days=1)
        await mirror.sync(archive, scope=scope, walk=Walk(reconcile=True, force=True))
    assert {mirror.presence(series) for series in held} == {Presence.WITHDRAWN}
    nights.pass_by(days=1)
    stock_another(archive, 50, nights.today, modality="MR")
    report = await mirror.sync(archive, scope=scope, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (0, 2)


async def test_a_narrowed_scope_of_which_all_is_withdrawn(archive, mirror, nights):
    """Other series of its collection are there."""
    scope = Scope(collections=("Brain Beta",), modalities=("MR",))
    await mirror.sync(archive, scope=scope, walk=NIGHT)
    held = {row.series_instance_uid for row in mirror.rows()}
    for series in held:
        archive.withdraw(series)
    for _ in range(2):
        nights.pass_by(days=1)
        await mirror.sync(archive, scope=scope, walk=Walk(reconcile=True, force=True))
    assert {mirror.presence(series) for series in held} == {Presence.WITHDRAWN}


class Crashed(BaseException):
    """The end of the process, for this test."""


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Ledger, "begin_leaving"), (LocalStore, "retire"), (LocalStore, "remove"), (Ledger, "finish_leaving")],
)
@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_on_the_way_out(archive, mirror, nights, monkeypatch, owner, name, after):
    before = truth(archive)
    await withdrawn(mirror, archive, nights)
    real = getattr(owner, name)

    def struck(*args, **kwargs):
        if after:
            real(*args, **kwargs)
        raise Crashed

    monkeypatch.setattr(owner, name, struck)
    with pytest.raises((Crashed, BaseExceptionGroup)):
        await mirror.sync(archive, walk=WHOLE, on_withdrawn="retire")
    monkeypatch.setattr(owner, name, real)
    # The next run does not even walk whole, and finishes what was decided.
    first_undone = name == "begin_leaving" and not after
    await mirror.sync(archive, walk=WHOLE if first_undone else NIGHT, on_withdrawn="retire")
    assert mirror.presence(SERIES) == Presence.WITHDRAWN
    assert len(mirror.instances()) == 20
    assert_nothing_wrong(mirror, archive)
    kept = set(snapshot(mirror.root / ".mirror" / "retired").values()) | set(mirror.instances().values())
    assert set(before.values()) <= kept
    assert happened(mirror) == ["came", "missing", "withdrawn"]


async def test_what_is_outside_a_narrowed_scope_goes_when_told(archive, mirror, nights):
    await mirror.sync(archive, walk=NIGHT)
    narrow = Scope(collections=("Lung-Alpha",))
    report = await mirror.sync(archive, scope=narrow, walk=NIGHT)
    assert (report.exit_code, len(mirror.instances())) == (0, 32)
    told = Walk(retire_outside=True, force=True)
    report = await mirror.sync(archive, scope=narrow, walk=Walk(retire_outside=True))
    assert FindingKind.WITHDRAWAL_REFUSED in kinds(report)
    report = await mirror.sync(archive, scope=narrow, walk=told)
    assert (report.exit_code, len(mirror.instances())) == (0, 12)
    assert {row.collection for row in mirror.series().values()} == {"Lung-Alpha"}
    assert len(snapshot(mirror.root / ".mirror" / "retired")) == 20
    assert happened(mirror) == ["came", "left"]
    # Widened again, only the difference is fetched, as if it were new.
    report = await mirror.sync(archive, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (0, 20)
    assert_nothing_wrong(mirror, archive, whole=True)
    assert mirror.states() == {SeriesState.COMPLETE: 7}


async def test_a_scope_that_let_others_go_keeps_its_watermark(archive, mirror):
    await mirror.sync(archive, walk=NIGHT)
    only_mr = Scope(all=True, modalities=("MR",))
    await mirror.sync(archive, scope=only_mr, walk=Walk(retire_outside=True, force=True))
    await mirror.sync(archive, scope=only_mr, walk=NIGHT)
    assert asked(archive, "getSeries") == []


async def test_what_was_not_let_go_in_a_run_with_errors_waits_to_be_told_again(archive, mirror, nights):
    """A series that is withdrawn and kept is outside the scope: only a run that is told to takes it out."""
    await withdrawn(mirror, archive, nights)
    await mirror.sync(archive, walk=WHOLE)
    assert (mirror.presence(SERIES), len(mirror.instances())) == (Presence.WITHDRAWN, 32)
    nights.pass_by(days=1)
    archive.stamp(uid(1, 1, 1, 1), DateReleased=nights.today)
    archive.faults.add("getSeriesSize", edit_rows(lambda rows: [rows[0] | {"ObjectCount": 99}]))
    narrow = Scope(collections=("Lung-Alpha",))
    told = Walk(retire_outside=True, full=True, force=True)
    assert (await mirror.sync(archive, scope=narrow, walk=told)).exit_code == ExitCode.INCOMPLETE
    archive.faults.clear()
    assert (await mirror.sync(archive, scope=narrow, walk=NIGHT)).exit_code == 0
    assert len(mirror.instances()) == 32
