"""`diff` against an archive: what getSeries tells, what only digests tell, and what the command makes of it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fakes.archive import FakeArchive
from fakes.dicom import instance_uid, make_collection, make_series, uid
from fakes.faults import edit_rows, empty, status
from fakes.servers import asking

from mirror.archive.endpoints import DialectName
from mirror.diff import Difference, Kind, against_archive
from mirror.errors import ArchiveError, BadAnswer, SettingsError
from mirror.ledger import Comparison, Ledger
from mirror.model import Presence, Scope, SeriesState
from mirror.scope import to_json

FIRST, SECOND, THIRD = uid(1, 1, 1, 1), uid(1, 1, 1, 2), uid(1, 2, 1, 1)
BRAIN = uid(2, 1, 1, 1)
DIALECTS = pytest.mark.parametrize("dialect", ["nbia", "tcia"])


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lung: two patients, two series of each; Brain: one series. Three files in each series."""
    root = tmp_path_factory.mktemp("stocked") / "upstream"
    archive = FakeArchive(root)
    archive.stock("Lung", make_collection(patients=2, series=2, instances=3, seed=1))
    archive.stock("Brain", make_collection(patients=1, series=1, instances=3, seed=2))
    return root


@pytest_asyncio.fixture
async def archive(stocked: Path, tmp_path: Path) -> AsyncIterator[FakeArchive]:
    shutil.copytree(stocked, tmp_path / "upstream")
    async with FakeArchive(tmp_path / "upstream") as running:
        yield running


@pytest.fixture
def here(stocked: Path, tmp_path: Path) -> Path:
    """The root of a mirror that holds all of it."""
    shutil.copytree(stocked, tmp_path / "here")
    return tmp_path / "here"


def write(root: Path, sql: str, **args: object) -> None:
    """Change one row of a mirror's ledger."""
    with Ledger(root) as ledger, ledger.transaction() as db:
        assert db.execute(sql, args).rowcount == 1


def spoil(root: Path, sop_instance_uid: str) -> None:
    """Other bytes of the same length are held of an instance than the archive has."""
    write(root, "UPDATE instances SET md5 = randomblob(16) WHERE sop_instance_uid = :uid", uid=sop_instance_uid)


async def differences(
    archive: FakeArchive, here: Path, *collections: str, dialect: DialectName = "nbia", **options: Any
) -> list[list[Difference]]:
    archive.requests.clear()
    async with asking(archive.origin, dialect, attempts=1) as client:
        with Comparison(here) as ours:
            async with aclosing(against_archive(ours, client, collections, **options)) as found:
                return [of_one async for of_one in found]


def brief(found: list[list[Difference]]) -> list[tuple[str, str, str]]:
    """(kind, UID, what) of every difference."""
    return [(d.kind, d.sop_instance_uid or d.series_instance_uid, d.what) for of_one in found for d in of_one]


@DIALECTS
@pytest.mark.asyncio
async def test_a_mirror_that_is_right_costs_two_requests_a_collection(archive, here, dialect):
    assert await differences(archive, here, dialect=dialect) == [[]] * 5
    digests = {"getMD5Hierarchy": 2} if dialect == "nbia" else {}
    assert archive.counts() == {"getSeries": 2} | digests


@DIALECTS
@pytest.mark.asyncio
async def test_what_getseries_tells(archive, here, dialect):
    more = make_series(
        patient_id="S1-001", study_uid=uid(1, 1, 1), series_uid=FIRST, instances=1, first=4, SeriesNumber=1,
    )  # fmt: skip
    archive.stock("Lung", more, released="2024-05-06")
    archive.stock("Lung", make_series(patient_id="S1-009", study_uid=uid(1, 9, 1), series_uid=uid(1, 9, 1, 1)))
    archive.withdraw(SECOND)
    found = await differences(archive, here, "lung", dialect=dialect, instances=True)
    told = {d.series_instance_uid: d for of_one in found for d in of_one if d.sop_instance_uid is None}
    assert {series: d.kind for series, d in told.items()} == {
        FIRST: Kind.DIFFERS, SECOND: Kind.ONLY_HERE, uid(1, 9, 1, 1): Kind.ONLY_THERE,
    }  # fmt: skip
    assert "ImageCount: 3 here, 4 there" in told[FIRST].what
    assert ("DateReleased: 2020-01-31 here, 2024-05-06 there" in told[FIRST].what) == (dialect == "nbia")
    assert told[FIRST].what.endswith("instances: 1 only there")
    assert (told[FIRST].collection, told[FIRST].patient_id) == ("Lung", "S1-001")
    assert brief(found)[1] == (Kind.ONLY_THERE, instance_uid(FIRST, 4), "")
    assert archive.counts()["getSOPInstanceUIDs"] == 1


@pytest.mark.asyncio
async def test_bytes_that_changed_in_silence_are_told_by_digests(archive, here):
    changed = instance_uid(THIRD, 2)
    spoil(here, changed)
    series = (Kind.DIFFERS, THIRD, "the MD5 over its instances")
    assert brief(await differences(archive, here)) == [series]
    assert archive.counts()["getMD5HashForImage"] == 0
    assert brief(await differences(archive, here, instances=True)) == [
        (Kind.DIFFERS, THIRD, "the MD5 over its instances; instances: 1 differ in MD5"),
        (Kind.DIFFERS, changed, ""),
    ]
    assert archive.counts()["getMD5HashForImage"] == 3
    assert brief(await differences(archive, here, dialect="tcia")) == []


@DIALECTS
@pytest.mark.asyncio
async def test_what_is_incomplete_here(archive, here, dialect):
    write(
        here, "UPDATE series SET state = :state WHERE series_instance_uid = :uid",
        state=SeriesState.INCOMPLETE, uid=FIRST,
    )  # fmt: skip
    write(here, "UPDATE instances SET name = NULL WHERE sop_instance_uid = :uid", uid=instance_uid(FIRST, 3))
    series = (Kind.INCOMPLETE, FIRST, "2 of 3 instances are held")
    assert brief(await differences(archive, here, dialect=dialect)) == [series]
    assert archive.counts()["getSOPInstanceUIDs"] == 0
    assert brief(await differences(archive, here, dialect=dialect, instances=True)) == [
        (Kind.INCOMPLETE, FIRST, "2 of 3 instances are held; instances: 1 only there"),
        (Kind.ONLY_THERE, instance_uid(FIRST, 3), ""),
    ]


@DIALECTS
@pytest.mark.asyncio
async def test_a_withdrawn_series_that_is_kept_is_a_note(archive, here, dialect):
    archive.withdraw(BRAIN)
    write(
        here, "UPDATE series SET presence = :presence WHERE series_instance_uid = :uid",
        presence=Presence.WITHDRAWN, uid=BRAIN,
    )  # fmt: skip
    archive.faults.add("getCollectionValues", edit_rows(lambda rows: [r for r in rows if r["Collection"] != "Brain"]))
    ((kind, series, what),) = brief(await differences(archive, here, dialect=dialect))
    assert (kind, series) == (Kind.WITHDRAWN, BRAIN)
    assert what.startswith("3 instances, ")
    with Ledger(here) as ledger, ledger.transaction() as db:
        db.execute("UPDATE instances SET name = NULL WHERE sop_instance_uid LIKE ?", (BRAIN + ".%",))
    assert brief(await differences(archive, here, dialect=dialect)) == [], "what left the mirror is on neither side"


@pytest.mark.asyncio
async def test_a_collection_whose_listing_fails_is_asked_for_by_patient(archive, here):
    rule = archive.faults.add("getSeries", status(500), times=1)
    archive.withdraw(FIRST)
    assert [d[0] for d in brief(await differences(archive, here, "Lung"))] == [Kind.ONLY_HERE]
    assert rule.used == 1
    assert archive.counts()["getSeries"] == 3


@DIALECTS
@pytest.mark.asyncio
async def test_an_empty_listing_of_a_collection_is_not_believed(archive, here, dialect):
    archive.faults.add("getSeries", edit_rows(lambda rows: []) if dialect == "tcia" else empty(), Collection="Lung")
    with pytest.raises(BadAnswer, match=r"getSeries\(Lung\): no series came of a collection that the archive names"):
        await differences(archive, here, dialect=dialect)


@pytest.mark.asyncio
async def test_an_archive_that_is_down_is_no_difference(archive, here):
    archive.faults.add("*", status(503))
    with pytest.raises(ArchiveError, match="503"):
        await differences(archive, here)


@pytest.mark.asyncio
async def test_a_series_whose_instances_cannot_be_listed_still_differs(archive, here):
    spoil(here, instance_uid(FIRST, 1))
    archive.faults.add("getSOPInstanceUIDs", status(500))
    found = brief(await differences(archive, here, instances=True))
    assert found == [(Kind.DIFFERS, FIRST, "the MD5 over its instances")]


@pytest.mark.asyncio
async def test_a_collection_that_neither_side_has(archive, here):
    with pytest.raises(SettingsError, match="collection 'Lungs': neither side has a series of it; did you mean 'Lung'"):
        await differences(archive, here, "Lungs")


@DIALECTS
@pytest.mark.asyncio
async def test_what_the_scope_leaves_out_is_not_missed(archive, here, dialect):
    """Two MR series of Lung are not held; two patients' CT, and Brain, are."""
    with Ledger(here) as ledger, ledger.transaction() as db:
        db.execute("DELETE FROM instances WHERE series IN (SELECT id FROM series WHERE modality = 'MR')")
        db.execute("DELETE FROM series WHERE modality = 'MR'")
    notes: list[str] = []
    scope = Scope(collections=("Brain",), modalities=("ct",))
    found = await differences(archive, here, dialect=dialect, scope=scope, note=notes.append)
    assert found == [[]] * 3
    assert notes == ["2 series of the archive are outside the mirror's scope (Brain; Modality ct)"]
    listed = Scope(series=(FIRST, SECOND))
    found = await differences(archive, here, dialect=dialect, scope=listed, note=notes.append)
    assert brief(found) == [(Kind.ONLY_THERE, SECOND, "")]
    assert len(await differences(archive, here, dialect=dialect)) == 5


# The command


async def command(*args: object) -> tuple[int, str, str]:
    """`tcia-mirror diff`: its exit code, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mirror", "diff", *map(str, args), stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=os.environ | {"TCIA_MIRROR_ARCHIVE_ATTEMPTS": "1"},
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.asyncio
async def test_without_a_server_it_is_the_mirror_s_own(archive, here):
    code, _, err = await command("--to", here)
    assert (code, err.count("server: 'stock' is neither a base URL")) == (2, 1)
    with Ledger(here) as ledger:
        ledger.set_meta(server=archive.url(), dialect="nbia")
    assert await command("--to", here) == (0, "none of the series differ; 5 series alike\n", "")
    with Ledger(here) as ledger:
        ledger.set_meta(scope=to_json(Scope(collections=("Lung",), modalities=("CT",))))
    archive.stock("Brain", make_series(series_uid=uid(2, 9, 9, 9), study_uid=uid(2, 9, 9), Modality="PT"))
    code, out, err = await command("--to", here, "brain")
    assert (code, out) == (0, "none of the series differ; 1 series alike\n")
    assert "1 series of the archive are outside the mirror's scope (Lung; Modality CT) and are not compared" in err
    assert (await command("--to", here, "brain", "--whole"))[0] == 3
    archive.withdraw(uid(2, 9, 9, 9))
    spoil(here, instance_uid(FIRST, 1))
    archive.withdraw(BRAIN)
    archive.faults.add("getCollectionValues", edit_rows(lambda rows: [r for r in rows if r["Collection"] != "Brain"]))
    code, out, err = await command("--to", here, "--instances")
    size = sum(len(body) for series, body in FakeArchive(here).files().values() if series == BRAIN)
    assert (code, err) == (3, "")
    assert out.splitlines() == [
        f"- only here        Brain  S2-001  {BRAIN}: 3 instances, {size} bytes",
        f"~ differs          Lung  S1-001  {FIRST}: the MD5 over its instances; instances: 1 differ in MD5",
        f"    ~ differs          {instance_uid(FIRST, 1)}",
        "2 of the series differ; 3 series alike, 1 only here, 1 differs",
    ]


@pytest.mark.asyncio
async def test_json_and_csv(here, stocked):
    spoiled = instance_uid(FIRST, 1)
    write(here, "UPDATE instances SET sha256 = randomblob(32) WHERE sop_instance_uid = :uid", uid=spoiled)
    code, out, _ = await command("--to", here, "--other", stocked, "--format", "json", "--instances")
    *rows, last = [json.loads(line) for line in out.splitlines()]
    assert (code, [row["sop_instance_uid"] for row in rows]) == (3, [None, spoiled])
    numbers = {"only-here": 0, "only-there": 0, "differs": 1, "incomplete": 0, "withdrawn": 0}
    assert last == {"same": False, "alike": 4, "series": numbers}
    code, out, _ = await command("--to", here, "--other", stocked, "--format", "csv", "--instances")
    assert (code, list(csv.DictReader(io.StringIO(out)))) == (
        3, [{name: value or "" for name, value in row.items()} for row in rows],
    )  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--other", "a", "--manifest", "b"), "exclude each other"),
        (("--format", "xml"), "option --format: 'xml' is not right"),
        (("--other", "nowhere"), "no mirror here"),
        (("--manifest", "nowhere.csv"), "nowhere.csv: cannot read the manifest: No such file"),
    ],
)
async def test_wrong_usage(here, args, words):
    code, out, err = await command("--to", here, *args)
    assert (code, out) == (2, "")
    assert words in err
