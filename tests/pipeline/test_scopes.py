"""Which part of the archive a run takes, what it plans, and what it does when the archive's side of it is unsound."""

from __future__ import annotations

import pytest
from aiohttp import web
from fakes.dicom import make_series, uid
from fakes.faults import Asked, cut, delay, edit_rows, empty, html, stall, status
from fakes.manners import ignoring
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, findings, kinds, snapshot, truth
from msgspec.structs import replace

from mirror.errors import ArchiveError, BadAnswer, ExitCode, ServerFault, SettingsError
from mirror.events import CollectionPlanned, Planned
from mirror.ledger import Catalogue
from mirror.model import FindingKind, Scope, SeriesState

SERIES = uid(2, 1, 2, 1)


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


def held_series(mirror: Mirror) -> set[str]:
    return {row.series_instance_uid for row in mirror.rows()}


# Scopes

LUNG = {uid(1, p, 1, s) for p in (1, 2) for s in (1, 2)}
SCOPES = [
    (Scope(collections=("lung-ALPHA",)), LUNG),
    (Scope(collections=("Brain Beta", "brain beta", "Lung-Alpha")), LUNG | {uid(2, 1, 1, 1), uid(2, 1, 1, 2), SERIES}),
    (Scope(all=True, patients=("S1-002",)), {uid(1, 2, 1, 1), uid(1, 2, 1, 2)}),
    (Scope(all=True, patients=("s1-002", "S2-001"), modalities=("mr",)), {uid(1, 2, 1, 2), uid(2, 1, 1, 2), SERIES}),
    (Scope(collections=("Brain Beta",), body_parts=("BRAIN",)), {SERIES}),
    (Scope(all=True, modalities=("CT", "MR"), body_parts=("chest",)), LUNG | {uid(2, 1, 1, 1), uid(2, 1, 1, 2)}),
    (Scope(series=(SERIES, uid(1, 1, 1, 1), SERIES)), {SERIES, uid(1, 1, 1, 1)}),
    (Scope(series=(SERIES, uid(1, 1, 1, 1)), modalities=("MR",)), {SERIES}),
]


@pytest.mark.parametrize(("scope", "expected"), SCOPES, ids=[str(scope) for scope, _ in SCOPES])
@pytest.mark.parametrize(("dialect", "ignorant"), [("nbia", False), ("tcia", True)])
@pytest.mark.asyncio
async def test_a_scope_is_neither_widened_nor_narrowed(archive, mirror, dialect, scope, expected, ignorant):
    if ignorant:
        archive.faults.add("getSeries", ignoring("PatientID", "Modality", "BodyPartExamined"))
        archive.faults.add("getPatientStudy", ignoring("PatientID"))
    report = await mirror.sync(archive, dialect, scope)
    refused = scope.series and scope.modalities
    assert report.exit_code == (ExitCode.INCOMPLETE if refused else ExitCode.COMPLETE)
    assert (report.series.planned, report.series.complete) == (len(expected), len(expected))
    assert held_series(mirror) == expected
    assert_nothing_wrong(mirror, archive)
    assert mirror.instances() == {u: body for u, (series, body) in archive.files().items() if series in expected}


@pytest.mark.asyncio
async def test_runs_of_several_scopes_make_one_mirror(archive, mirror):
    for scope in (Scope(series=(SERIES,)), Scope(collections=("Lung-Alpha",)), Scope(all=True, modalities=("CT",))):
        assert (await mirror.sync(archive, scope=scope)).exit_code == 0
        assert_nothing_wrong(mirror, archive)
    report = await mirror.sync(archive)
    assert (report.exit_code, report.series.kept, report.series.planned) == (0, 6, 1)
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize(
    ("name", "nearest"), [("Lung-Alfa", "Lung-Alpha"), ("brain-beta", "Brain Beta"), ("LUNG_ALPHA", "Lung-Alpha")]
)
@pytest.mark.asyncio
async def test_an_unknown_collection_is_told_with_the_nearest(archive, mirror, name, nearest):
    with pytest.raises(SettingsError, match=f"{name}.*nearest.*{nearest}") as caught:
        await mirror.sync(archive, scope=Scope(collections=("Brain Beta", name)))
    assert caught.value.exit_code == ExitCode.USAGE
    assert mirror.tree() == {}
    # Nothing is settled yet: the next run may choose another layout.
    assert (await mirror.sync(archive, layout="classic")).exit_code == 0


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (Scope(collections=("Lung-Alpha",), patients=("S1-02",)), "of Lung-Alpha has PatientID 'S1-02'.*S1-002"),
        (Scope(collections=("Lung-Alpha",), modalities=("XX",)), "of Lung-Alpha has Modality 'XX'.*: CT, MR$"),
        (Scope(all=True, body_parts=("CHESS",)), "at http.* has BodyPartExamined 'CHESS'.*CHEST"),
        (Scope(all=True, patients=("S1-001",), body_parts=("BRAIN",)), "the whole scope: .*S1-001.*BRAIN"),
        (
            Scope(collections=("Brain Beta",), patients=("S2-001",), modalities=("XX", "YY")),
            "of Brain Beta has Modality 'XX' or 'YY'",
        ),
    ],
    ids=str,
)
@pytest.mark.asyncio
async def test_restrictions_that_leave_nothing_are_a_usage_error(archive, mirror, dialect, dry_run, scope, said):
    with pytest.raises(SettingsError, match=said):
        await mirror.sync(archive, dialect, scope, dry_run=dry_run)
    assert mirror.tree() == {}
    # What the archive cannot say is left out of the message.
    archive.faults.add("getModalityValues", status(500))
    archive.faults.add("getBodyPartValues", status(500))
    with pytest.raises(SettingsError, match="no series"):
        await mirror.sync(archive, dialect, scope)


@pytest.mark.asyncio
async def test_restrictions_may_leave_nothing_of_some_collections(archive, mirror):
    report = await mirror.sync(archive, scope=Scope(all=True, patients=("S2-001",)))
    assert (report.exit_code, report.series.complete) == (0, 3)
    again = await mirror.sync(archive, scope=Scope(all=True, patients=("S2-001",)))
    assert (again.exit_code, again.series.kept) == (0, 3)


@pytest.mark.asyncio
async def test_restrictions_and_a_collection_that_cannot_be_crawled_are_no_usage_error(archive, mirror):
    archive.faults.add("getPatient", status(500), Collection="Brain Beta")
    report = await mirror.sync(archive, scope=Scope(all=True, body_parts=("BRAIN",)))
    assert (report.exit_code, kinds(report)) == (ExitCode.INCOMPLETE, {FindingKind.CRAWL_FAILED})


@pytest.mark.asyncio
async def test_a_listed_series_that_the_scope_itself_leaves_out(archive, mirror):
    scope = Scope(collections=("Lung-Alpha",), series=(SERIES, uid(1, 1, 1, 1)))
    report = await mirror.sync(archive, scope=scope)
    assert (report.exit_code, report.series.complete) == (ExitCode.INCOMPLETE, 1)
    (finding,) = report.findings
    assert (finding.kind, finding.series_instance_uid) == (FindingKind.SERIES_REFUSED, SERIES)
    assert finding.detail == "the scope leaves it out: its Collection is Brain Beta, not Lung-Alpha"


@pytest.mark.parametrize(
    ("asked_for", "expected"),
    [
        ("Lung-Alpha", LUNG),
        ("LUNG-ALPHA", {uid(9, 1, 1)}),
        ("lung-alpha", LUNG | {uid(9, 1, 1)}),
    ],
)
@pytest.mark.asyncio
async def test_two_collections_that_differ_in_case_only(archive, mirror, asked_for, expected):
    archive.stock("LUNG-ALPHA", make_series(study_uid=uid(9, 1), series_uid=uid(9, 1, 1), instances=2))
    # The serving side takes both for one, as a server that does not mind case does with its parameters.
    both = edit_rows(lambda _: [{"Collection": name} for name in ("Brain Beta", "LUNG-ALPHA", "Lung-Alpha")])
    archive.faults.add("getCollectionValues", both)
    report = await mirror.sync(archive, scope=Scope(collections=(asked_for,)))
    assert (report.exit_code, report.series.planned) == (0, len(expected))
    assert held_series(mirror) == expected
    assert_nothing_wrong(mirror, archive)


@pytest.mark.asyncio
async def test_no_scope_is_a_usage_error_and_leaves_nothing(archive, mirror):
    with pytest.raises(SettingsError, match="scope is empty"):
        await mirror.sync(archive, scope=Scope(patients=("S1-001",)))
    assert not mirror.root.exists()
    assert archive.requests == []


@pytest.mark.asyncio
async def test_another_layout_than_the_mirrors_is_refused(archive, mirror):
    await mirror.sync(archive, layout="classic")
    before = snapshot(mirror.root)
    with pytest.raises(SettingsError, match=r"laid out as 'classic'"):
        await mirror.sync(archive, layout="uid")
    after = snapshot(mirror.root)
    assert {path for path in before | after if before.get(path) != after.get(path)} <= {".mirror/lock"}


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_an_unknown_series_is_a_finding_that_names_the_other_hosts(archive, mirror, dialect):
    report = await mirror.sync(archive, dialect, Scope(series=("1.2.3.4", SERIES)))
    assert (report.exit_code, report.series.complete, report.instances.fetched) == (ExitCode.INCOMPLETE, 1, 12)
    (finding,) = report.findings
    assert (finding.kind, finding.series_instance_uid) == (FindingKind.SERIES_REFUSED, "1.2.3.4")
    assert "--server nlst" in finding.detail
    assert_nothing_wrong(mirror, archive)


@pytest.mark.asyncio
async def test_many_listed_series_of_which_some_cannot_be_asked_for(archive, mirror):
    broken = uid(1, 1, 1, 1)
    archive.faults.add("getSeries", status(500), SeriesInstanceUID=broken)
    listed = tuple(series for series, _ in archive.files().values())
    report = await mirror.sync(archive, scope=Scope(series=tuple(dict.fromkeys(listed))))
    assert (report.exit_code, report.series.complete) == (ExitCode.INCOMPLETE, 6)
    assert [f.series_instance_uid for f in findings(report, FindingKind.UNAVAILABLE)] == [broken]


@pytest.mark.asyncio
async def test_listed_series_of_one_study_lie_in_one_folder(archive, mirror):
    """However long the study's row takes to come, which gives the folder its name."""
    archive.faults.add("getPatientStudy", delay(0.2))
    await mirror.sync(archive, scope=Scope(series=(uid(2, 1, 1, 1), uid(2, 1, 1, 2))), layout="descriptive")
    assert len(held_series(mirror)) == 2
    assert len({row.path.split("/")[2] for row in mirror.rows()}) == 1


# An unsound crawl


@pytest.mark.parametrize("fault", [status(500), cut(0.4), stall(0.4)])
@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_a_collection_too_large_for_one_answer_is_asked_for_by_patient(archive, mirror, dialect, fault):
    async def coarse(request: Asked) -> web.StreamResponse:
        if "PatientID" in request.params:
            return await request.handler(request.request)
        return await fault(request)

    archive.faults.add("getSeries", coarse, Collection="Lung-Alpha")
    report = await mirror.sync(archive, dialect, progress_timeout=1.0)
    assert (report.exit_code, report.findings) == (0, ())
    by_patient = sorted(p["PatientID"] for p in asked(archive, "getSeries") if "PatientID" in p)
    assert by_patient == ["S1-001", "S1-002"]
    assert_nothing_wrong(mirror, archive, whole=True)


GARBAGE = {
    "html": html(),
    "not json": status(200, "Server is busy"),
    "not rows": status(200, '"rows"'),
    "rows without their UID": edit_rows(lambda rows: [{"Modality": "CT"}]),
    "one row without its UID": edit_rows(lambda rows: [*rows, {"Modality": "CT"}]),
    "numbers that are none": edit_rows(lambda rows: [row | {"ImageCount": "many"} for row in rows]),
    "nothing": empty(),
    "400": status(400),
    "404": status(404),
}


@pytest.mark.parametrize("name", sorted(GARBAGE))
@pytest.mark.asyncio
async def test_a_collection_that_cannot_be_crawled_does_not_hold_up_the_others(archive, mirror, name):
    archive.faults.add("getSeries", GARBAGE[name], Collection="Lung-Alpha")
    report = await mirror.sync(archive)
    assert (report.state, report.exit_code) == ("incomplete", ExitCode.INCOMPLETE)
    assert [(f.kind, f.collection) for f in report.findings] == [(FindingKind.CRAWL_FAILED, "Lung-Alpha")]
    assert mirror.states() == {SeriesState.COMPLETE: 3}
    assert_nothing_wrong(mirror, archive)
    with Catalogue(mirror.root) as catalogue:
        assert [status.collection for status in catalogue.status() if status.last_sync is not None] == ["Brain Beta"]

    archive.faults.clear()
    healed = await mirror.sync(archive)
    assert (healed.exit_code, healed.series.planned, healed.series.kept) == (0, 4, 3)
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("call", ["getPatient", "getPatientStudy"])
@pytest.mark.parametrize("fault", [html(), status(500)])
@pytest.mark.asyncio
async def test_a_collection_whose_patients_or_studies_cannot_be_had(archive, mirror, call, fault):
    archive.faults.add(call, fault, Collection="Brain Beta")
    report = await mirror.sync(archive)
    assert (report.exit_code, kinds(report)) == (ExitCode.INCOMPLETE, {FindingKind.CRAWL_FAILED})
    assert held_series(mirror) == LUNG


@pytest.mark.parametrize(("call", "dialect"), [("getCollectionValues", "nbia"), ("getSeries", "tcia")])
@pytest.mark.parametrize("fault", [html(), status(500), status(400), empty()])
@pytest.mark.asyncio
async def test_an_archive_that_answers_nothing_of_use_ends_the_run(archive, mirror, call, dialect, fault):
    archive.faults.add(call, fault)
    with pytest.raises(ArchiveError) as caught:
        await mirror.sync(archive, dialect)
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    (report,) = (mirror.root / ".mirror" / "runs").glob("*.json")
    assert '"state": "failed"' in report.read_text()


@pytest.mark.asyncio
async def test_an_archive_without_a_collection_is_no_complete_mirror(archive, mirror):
    archive.faults.add("getCollectionValues", status(200, "[]"))
    with pytest.raises(BadAnswer, match="getCollectionValues"):
        await mirror.sync(archive)


@pytest.mark.asyncio
async def test_what_the_archive_says_of_a_held_series_is_kept_up_to_date(archive, mirror):
    """A licence that changes upstream reaches the manifest, though no file of the series moves."""
    await mirror.sync(archive)
    changed = "https://creativecommons.org/licenses/by-nc/4.0/"
    archive.faults.add("getSeries", edit_rows(lambda rows: [row | {"LicenseURI": changed} for row in rows]))
    report = await mirror.sync(archive)
    assert (report.series.planned, report.instances.fetched) == (0, 0)
    assert {row.license_uri for row in mirror.series().values()} == {changed}
    assert changed in (mirror.root / "LICENSES").read_text()
    assert changed in (mirror.root / "manifest-series.csv").read_text()


# Plans


def plan_of(mirror: Mirror) -> tuple[list[CollectionPlanned], Planned]:
    (planned,) = [event for event in mirror.events if isinstance(event, Planned)]
    return [event for event in mirror.events if isinstance(event, CollectionPlanned)], replace(planned, free=None)


@pytest.mark.asyncio
async def test_a_dry_run_changes_nothing_and_says_what_a_run_does(archive, mirror):
    rehearsed = await mirror.sync(archive, dry_run=True)
    assert (rehearsed.state, rehearsed.exit_code) == ("planned", ExitCode.COMPLETE)
    assert not mirror.root.exists()
    assert asked(archive, "getSingleImage") == asked(archive, "getSOPInstanceUIDs") == []
    plan = plan_of(mirror)
    assert (plan[1].series, plan[1].objects, plan[1].bytes) == (7, 32, sum(map(len, truth(archive).values())))
    report = await mirror.sync(archive)
    assert plan_of(mirror) == plan
    assert (report.series.planned, report.instances.fetched, report.bytes.fetched) == (
        plan[1].series, plan[1].objects, plan[1].bytes,
    )  # fmt: skip

    archive.stock("Brain Beta", make_series(series_uid=SERIES, study_uid=uid(2, 1, 2), patient_id="S2-001", first=13,
                                            instances=2, seed=2), released="2022-01-01")  # fmt: skip
    archive.stock("New", make_series(series_uid=uid(5, 1, 1), seed=5))
    before = snapshot(mirror.root)
    await mirror.sync(archive, dry_run=True)
    after = snapshot(mirror.root)
    # The lock says who held it last; nothing else has moved.
    assert {path for path in before | after if before.get(path) != after.get(path)} <= {".mirror/lock"}
    changed = plan_of(mirror)
    assert [(p.collection, p.new, p.changed, p.kept, p.objects) for p in changed[0]] == [
        ("Brain Beta", 0, 1, 2, 2), ("Lung-Alpha", 0, 0, 4, 0), ("New", 1, 0, 0, 4),
    ]  # fmt: skip
    report = await mirror.sync(archive)
    assert plan_of(mirror) == changed
    assert (report.exit_code, report.instances.fetched) == (0, 6)
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("layout", ["uid", "classic"])
@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_of_a_series_that_grew_only_the_new_instance_is_fetched(archive, mirror, dialect, layout):
    await mirror.sync(archive, dialect, layout=layout)
    archive.stock("Brain Beta", make_series(series_uid=SERIES, study_uid=uid(2, 1, 2), patient_id="S2-001", first=13,
                                            instances=1, seed=2), released="2021-06-16")  # fmt: skip
    report = await mirror.sync(archive, dialect)
    assert (report.exit_code, report.series.planned, report.series.kept) == (0, 1, 6)
    # The tcia dialect has no digests: what a changed series held before is compared byte by byte, and stays.
    numbers = [13] if dialect == "nbia" else [*range(1, 14)]
    fetched = sorted(p["SOPInstanceUID"] for p in asked(archive, "getSingleImage"))
    assert fetched == [f"{SERIES}.100{number:02}" for number in numbers]
    assert (report.instances.fetched, report.instances.reused) == (1, len(numbers) - 1)
    assert asked(archive, "getSOPInstanceUIDs") == [{"SeriesInstanceUID": SERIES}]
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_an_instance_that_the_archive_replaced_is_fetched_anew(archive, mirror):
    await mirror.sync(archive, "nbia")
    other = make_series(series_uid=SERIES, study_uid=uid(2, 1, 2), patient_id="S2-001", instances=1, seed=77)
    archive.stock("Brain Beta", other, released="2022-02-02")
    report = await mirror.sync(archive, "nbia")
    assert report.exit_code == 0
    assert {p["SOPInstanceUID"] for p in asked(archive, "getSingleImage")} == {f"{SERIES}.10001"}
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_a_series_that_the_archive_withdrew_stays(archive, mirror):
    await mirror.sync(archive)
    archive.withdraw(SERIES)
    report = await mirror.sync(archive)
    assert (report.exit_code, report.series.kept) == (0, 6)
    assert len(mirror.instances()) == 32


@pytest.mark.asyncio
async def test_the_error_of_a_failed_crawl_says_which_request_failed(archive, mirror):
    archive.faults.add("getSeries", status(500, "java.lang.OutOfMemoryError"))
    with pytest.raises(ServerFault, match=r"getSeries\(.*OutOfMemoryError"):
        await mirror.sync(archive, scope=Scope(collections=("Brain Beta",)))
