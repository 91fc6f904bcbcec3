"""Parts of the archive told by pattern, maker, day, shared list or exclusion; and the part that a mirror repeats."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.dicom import make_series, uid
from fakes.faults import Fault, edit_rows, status
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, findings

from mirror.errors import ArchiveError, ExitCode, NoScope, SettingsError
from mirror.events import RunStarted
from mirror.ledger import Ledger
from mirror.model import Exclude, FindingKind, Scope
from mirror.scope import to_json

BRAIN_CT, BRAIN_MR, BIG = uid(2, 1, 1, 1), uid(2, 1, 1, 2), uid(2, 1, 2, 1)
BRAIN = {BRAIN_CT, BRAIN_MR, BIG}
LUNG_CT = {uid(1, p, 1, 1) for p in (1, 2)}
LUNG = LUNG_CT | {uid(1, p, 1, 2) for p in (1, 2)}


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


def held(mirror: Mirror) -> set[str]:
    return {row.series_instance_uid for row in mirror.rows()}


def scope_told(mirror: Mirror) -> str:
    return next(event.scope for event in mirror.events if isinstance(event, RunStarted))


def shared_list(*series: str) -> Fault:
    """A shared list that names series of the small archive by rows such as the archive's."""

    def row(series_uid: str) -> dict[str, Any]:
        lung = series_uid in LUNG
        return {
            "SeriesInstanceUID": series_uid,
            "Collection": "Lung-Alpha" if lung else "Brain Beta",
            "PatientID": "P",
            "StudyInstanceUID": series_uid.rpartition(".")[0],
            "Modality": "CT" if series_uid in LUNG_CT | {BRAIN_CT} else "MR",
        }

    return edit_rows(lambda _: [row(series_uid) for series_uid in series])


SCOPES = [
    (Scope(collections=("*-alpha",)), LUNG),
    (Scope(collections=("?*",), modalities=("CT",), exclude=Exclude(collections=("brain*",))), LUNG_CT),
    (Scope(all=True, exclude=Exclude(modalities=("mr",), patients=("s1-002",))), {uid(1, 1, 1, 1), BRAIN_CT}),
    (Scope(all=True, exclude=Exclude(manufacturers=("*",))), {BIG}),
    (Scope(collections=("Brain Beta",), exclude=Exclude(body_parts=("BRAIN",), series=(BRAIN_MR,))), {BRAIN_CT}),
    (Scope(series=(BIG, BRAIN_CT), exclude=Exclude(series=(BIG,))), {BRAIN_CT}),
]


@pytest.mark.parametrize(("scope", "expected"), SCOPES, ids=map(str, range(len(SCOPES))))
@pytest.mark.asyncio
async def test_patterns_and_exclusions_take_what_they_say(archive, mirror, scope, expected):
    report = await mirror.sync(archive, "tcia", scope)
    assert (report.exit_code, report.series.complete) == (ExitCode.COMPLETE, len(expected))
    assert held(mirror) == expected
    assert_nothing_wrong(mirror, archive)


@pytest.mark.asyncio
async def test_released_since_a_day(archive, mirror):
    report = await mirror.sync(archive, scope=Scope(all=True, released_since="2021-06-16"))
    assert (report.exit_code, held(mirror)) == (0, {BIG})
    # Nothing is released yet: no error, and it comes when it does.
    later = Scope(all=True, released_since="2030-01-01")
    report = await mirror.sync(archive, scope=later)
    assert (report.exit_code, report.series.planned) == (0, 0)
    new = uid(5, 1, 1)
    archive.stock("New", make_series(series_uid=new, seed=5), released="2030-01-01")
    report = await mirror.sync(archive, scope=later)
    assert (report.exit_code, held(mirror)) == (0, {BIG, new})


@pytest.mark.asyncio
async def test_a_dialect_without_days_of_release_refuses_to_be_asked_for_one(archive, mirror):
    with pytest.raises(SettingsError, match=r"released since 2021-06-16: .*the tcia dialect, which does not tell"):
        await mirror.sync(archive, "tcia", Scope(all=True, released_since="2021-06-16"))
    assert mirror.tree() == {}


@pytest.mark.asyncio
async def test_a_pattern_that_fits_nothing_is_a_usage_error(archive, mirror):
    with pytest.raises(SettingsError, match=r"the pattern 'TCGA-\*' fits none of the 2 collections of http"):
        await mirror.sync(archive, scope=Scope(collections=("Lung-Alpha", "TCGA-*")))
    assert mirror.tree() == {}


# Shared lists


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_a_shared_list_means_its_series_and_joins_those_listed(archive, mirror, dialect):
    archive.faults.add("ContentsByName", shared_list(BIG, *LUNG), name="my list")
    scope = Scope(lists=("my list",), series=(BRAIN_CT,), modalities=("CT",))
    report = await mirror.sync(archive, dialect, scope)
    # What is listed and not CT is left out, as it would be of a collection.
    assert (report.exit_code, held(mirror)) == (0, LUNG_CT | {BRAIN_CT})
    assert scope_told(mirror).endswith("; 1 listed series; shared list my list")
    assert_nothing_wrong(mirror, archive)


@pytest.mark.asyncio
async def test_a_shared_list_is_read_anew_by_every_run(archive, mirror):
    rule = archive.faults.add("ContentsByName", shared_list(BRAIN_CT))
    assert (await mirror.sync(archive, scope=Scope(lists=("mine",)))).exit_code == 0
    rule.fault = shared_list(BRAIN_CT, BRAIN_MR)
    report = await mirror.sync(archive, scope=Scope())
    assert (report.exit_code, report.series.kept, held(mirror)) == (0, 1, {BRAIN_CT, BRAIN_MR})


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_a_shared_list_that_the_archive_does_not_know(archive, mirror, dialect):
    archive.faults.add("ContentsByName", shared_list(BIG), name="mine")
    with pytest.raises(SettingsError, match="shared list 'yours' names no series at http"):
        await mirror.sync(archive, dialect, Scope(lists=("mine", "yours"), series=(BRAIN_CT,)))
    with pytest.raises(SettingsError, match=r"none of the listed series meets the whole scope: .*shared list mine"):
        await mirror.sync(archive, dialect, Scope(lists=("mine",), modalities=("CT",)))
    assert mirror.tree() == {}


@pytest.mark.asyncio
async def test_a_list_that_cannot_be_had_now_is_the_archives_error(archive, mirror):
    archive.faults.add("ContentsByName", status(500))
    with pytest.raises(ArchiveError, match=r"ContentsByName\(name=mine\)"):
        await mirror.sync(archive, scope=Scope(lists=("mine",)))


@pytest.mark.asyncio
async def test_a_listed_series_that_an_exclusion_leaves_out_is_told(archive, mirror):
    scope = Scope(series=(BRAIN_CT, BRAIN_MR), exclude=Exclude(modalities=("MR",)))
    report = await mirror.sync(archive, scope=scope)
    (told,) = findings(report, FindingKind.SERIES_REFUSED)
    assert (report.exit_code, told.series_instance_uid) == (ExitCode.INCOMPLETE, BRAIN_MR)
    assert told.detail == "the scope leaves it out: its Modality MR is excluded"


# The part that a mirror repeats


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.asyncio
async def test_a_sync_that_says_nothing_repeats_the_last_that_did(archive, mirror, dry_run):
    await mirror.sync(archive, scope=Scope(collections=("Lung-Alpha",)))
    await mirror.sync(archive, scope=Scope(collections=("brain*",), exclude=Exclude(modalities=("MR",))))
    new = uid(2, 3, 1, 1)
    archive.stock("Brain Beta", make_series(series_uid=new, study_uid=uid(2, 3, 1), patient_id="S2-003", seed=9))
    archive.stock("Lung-Alpha", make_series(series_uid=uid(1, 9, 1, 1), patient_id="S1-009", seed=10))
    report = await mirror.sync(archive, scope=Scope(), dry_run=dry_run)
    assert (report.exit_code, report.series.planned, report.series.kept) == (0, 1, 1)
    assert scope_told(mirror) == "brain*; without Modality MR"
    assert held(mirror) == LUNG | {BRAIN_CT} | (set() if dry_run else {new})
    assert {p["Collection"] for p in asked(archive, "getSeries")} == {"Brain Beta"}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.asyncio
async def test_a_folder_that_has_no_part_to_repeat(archive, mirror, dry_run):
    with pytest.raises(NoScope, match="the scope is empty"):
        await mirror.sync(archive, scope=Scope(), dry_run=dry_run)
    assert not mirror.root.exists()
    # A rehearsal and a crawl that fails leave none.
    await mirror.sync(archive, dry_run=True)
    with pytest.raises(SettingsError):
        await mirror.sync(archive, scope=Scope(collections=("Lung",)))
    with pytest.raises(NoScope, match=f"no sync of {mirror.root} has left one"):
        await mirror.sync(archive, scope=Scope(), dry_run=dry_run)
    # What only narrows is not taken for nothing.
    assert (await mirror.sync(archive, scope=Scope(collections=("Lung-Alpha",)))).exit_code == 0
    with pytest.raises(NoScope):
        await mirror.sync(archive, scope=Scope(modalities=("CT",)), dry_run=dry_run)


@pytest.mark.asyncio
async def test_a_crawl_that_fails_leaves_the_part_as_it_was(archive, mirror):
    scope = Scope(collections=("Lung-Alpha",))
    await mirror.sync(archive, scope=scope)
    with pytest.raises(SettingsError, match="'Lung' is not among"):
        await mirror.sync(archive, scope=Scope(collections=("Lung",)))
    with Ledger(mirror.root) as ledger:
        assert ledger.meta("scope") == to_json(scope)
        ledger.set_meta(scope='{"colour":["red"]}')
    with pytest.raises(SettingsError, match="not a scope that this version knows"):
        await mirror.sync(archive, scope=Scope())
    assert (await mirror.sync(archive, scope=scope)).exit_code == 0
    assert (await mirror.sync(archive, scope=Scope())).exit_code == 0


@pytest.mark.asyncio
async def test_a_part_that_is_narrowed_keeps_what_is_held_and_a_wider_one_fetches_the_difference(archive, mirror):
    for scope, fetched, there in (
        (Scope(collections=("Lung-Alpha",), modalities=("CT",)), 2, LUNG_CT),
        (Scope(collections=("Lung-Alpha",)), 2, LUNG),
        (Scope(collections=("Lung-Alpha",), patients=("S1-001",)), 0, LUNG),
        (Scope(all=True), 3, LUNG | BRAIN),
    ):
        report = await mirror.sync(archive, scope=scope)
        assert (report.exit_code, report.series.planned, held(mirror)) == (0, fetched, there)
    assert_nothing_wrong(mirror, archive, whole=True)
