"""The archive's digests against ours: which series they point at, and what that costs in requests."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio
from fakes.archive import FakeArchive
from fakes.dicom import make_collection, uid
from fakes.faults import html, no_such_call, status
from fakes.servers import asking

from mirror.archive.endpoints import DialectName
from mirror.digests import Level, differing_series, digests_at, highest_level
from mirror.errors import ServerFault
from mirror.ledger import Comparison, Ledger
from mirror.model import Exclude, Presence, Scope, SeriesState

COLLECTION = "Lung"
FIRST, SECOND, THIRD = uid(1, 1, 1, 1), uid(1, 1, 1, 2), uid(1, 1, 2, 1)


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients, two studies of each, two series of each, two files of each."""
    root = tmp_path_factory.mktemp("stocked") / "upstream"
    FakeArchive(root).stock(COLLECTION, make_collection(patients=3, studies=2, series=2, instances=2))
    return root


@pytest_asyncio.fixture
async def archive(stocked: Path, tmp_path: Path) -> AsyncIterator[FakeArchive]:
    shutil.copytree(stocked, tmp_path / "upstream")
    async with FakeArchive(tmp_path / "upstream") as running:
        yield running


@pytest.fixture
def ours(stocked: Path, tmp_path: Path) -> Iterator[Ledger]:
    """The ledger of a mirror that holds all of it."""
    shutil.copytree(stocked, tmp_path / "ours")
    with Ledger(tmp_path / "ours") as ledger:
        yield ledger


def spoil(ledger: Ledger, series: str) -> None:
    """Other bytes are held of one instance of a series than the archive has."""
    with ledger.transaction() as db:
        changed = db.execute(
            "UPDATE instances SET md5 = randomblob(16) WHERE sop_instance_uid = (SELECT min(sop_instance_uid)"
            " FROM instances JOIN series ON id = series WHERE series_instance_uid = ?)",
            (series,),
        )
        assert changed.rowcount == 1


def mark(ledger: Ledger, series: str, **columns: object) -> None:
    """Write into the series' row."""
    with ledger.transaction() as db:
        for column, value in columns.items():
            changed = db.execute(f"UPDATE series SET {column} = ? WHERE series_instance_uid = ?", (value, series))
            assert changed.rowcount == 1


async def found(
    archive: FakeArchive, ledger: Ledger, dialect: DialectName = "nbia", *, top: Level = Level.COLLECTION
) -> tuple[list[str], list[int]]:
    """The series that differ, and how often the archive was asked at each level from the collection down."""
    archive.requests.clear()
    root = ledger.path.parents[1]
    async with asking(archive.origin, dialect, attempts=1) as client:
        with Comparison(root) as held:
            async with aclosing(differing_series(client, held, COLLECTION, top=top)) as differing:
                series = [s async for s in differing]
    asked = [params for call, params in archive.requests if call == "getMD5Hierarchy"]
    levels = [
        sum("Collection" in p and "PatientID" not in p for p in asked),
        *(sum(name in p for p in asked) for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")),
    ]
    return series, levels


def md5(*parts: str) -> str:
    return hashlib.md5("".join(sorted(parts)).encode()).hexdigest()


def test_a_level_is_made_of_the_one_below():
    a, b, c, d = (md5(x) for x in "abcd")
    series = [(("P1", "1", "1.1"), b), (("P1", "1", "1.2"), a), (("P1", "2", "2.1"), c), (("P2", "3", "3.1"), d)]
    studies = [(("P1", "1"), md5(a, b)), (("P1", "2"), md5(c)), (("P2", "3"), md5(d))]
    patients = [(("P1",), md5(md5(a, b), md5(c))), (("P2",), md5(md5(d)))]
    assert list(digests_at(Level.SERIES, series)) == series
    assert list(digests_at(Level.STUDY, series)) == studies
    assert list(digests_at(Level.PATIENT, series)) == patients
    assert list(digests_at(Level.COLLECTION, series)) == [((), md5(patients[0][1], patients[1][1]))]
    assert list(digests_at(Level.PATIENT, [])) == []


def test_what_is_above_something_unknown_is_unknown():
    a, b = md5("a"), md5("b")
    series = [(("P1", "1", "1.1"), None), (("P1", "2", "2.1"), a), (("P2", "3", "3.1"), b)]
    assert list(digests_at(Level.STUDY, series)) == [(("P1", "1"), None), (("P1", "2"), md5(a)), (("P2", "3"), md5(b))]
    assert list(digests_at(Level.PATIENT, series)) == [(("P1",), None), (("P2",), md5(md5(b)))]
    assert list(digests_at(Level.COLLECTION, series)) == [((), None)]


@pytest.mark.parametrize(
    ("scope", "level"),
    [
        (Scope(all=True), Level.COLLECTION),
        (Scope(collections=("A",), patients=("P",)), Level.PATIENT),
        (Scope(collections=("A",), patients=("P",), modalities=("CT",)), Level.STUDY),
        (Scope(all=True, body_parts=("CHEST",)), Level.STUDY),
        (Scope(series=("1.2",), modalities=("CT",)), Level.SERIES),
        (Scope(lists=("mine",)), Level.SERIES),
        (Scope(all=True, released_since="2024-01-01"), Level.STUDY),
        (Scope(all=True, manufacturers=("Acme",)), Level.STUDY),
        (Scope(all=True, exclude=Exclude(patients=("P",))), Level.PATIENT),
        (Scope(all=True, exclude=Exclude(patients=("P",), modalities=("SEG",))), Level.STUDY),
        (Scope(all=True, exclude=Exclude(series=("1.2",))), Level.STUDY),
        (Scope(all=True, exclude=Exclude(collections=("B",))), Level.COLLECTION),
    ],
)
def test_a_scope_says_where_to_begin(scope, level):
    assert highest_level(scope) is level


@pytest.mark.asyncio
async def test_a_collection_that_agrees_costs_one_request(archive, ours):
    assert await found(archive, ours) == ([], [1, 0, 0, 0])


@pytest.mark.asyncio
async def test_it_descends_only_where_something_differs(archive, ours):
    spoil(ours, FIRST)
    spoil(ours, THIRD)
    series, levels = await found(archive, ours)
    assert sorted(series) == [FIRST, THIRD]
    assert levels == [1, 3, 2, 4]


@pytest.mark.asyncio
@pytest.mark.parametrize(("top", "levels"), [(Level.PATIENT, [0, 3, 2, 3]), (Level.STUDY, [0, 0, 6, 3])])
async def test_it_begins_where_the_scope_allows(archive, ours, top, levels):
    spoil(ours, SECOND)
    assert await found(archive, ours, top=top) == ([SECOND], levels)
    # One of the series was asked for to see whether there are digests.
    assert await found(archive, ours, top=Level.SERIES) == ([SECOND], [0, 0, 0, 13])


@pytest.mark.asyncio
@pytest.mark.parametrize("lack", [{"state": SeriesState.INCOMPLETE}, {"doubted": 1}])
async def test_levels_that_are_not_held_whole_are_passed_over(archive, ours, lack):
    mark(ours, FIRST, **lack)
    # The second and third patient, the second study of the first, the other series of the first; and one to begin.
    assert await found(archive, ours) == ([], [0, 2, 1, 2])
    spoil(ours, SECOND)
    spoil(ours, FIRST)
    assert await found(archive, ours) == ([SECOND], [0, 2, 1, 2])


@pytest.mark.asyncio
async def test_series_that_the_archive_lists_no_longer_do_not_count(archive, ours):
    archive.withdraw(FIRST)
    mark(ours, FIRST, presence=Presence.WITHDRAWN)
    assert await found(archive, ours) == ([], [1, 0, 0, 0])
    mark(ours, FIRST, presence=Presence.PRESENT)
    series, levels = await found(archive, ours)
    assert (series, levels) == ([], [1, 3, 2, 2]), "the archive does not tell of it"


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", [no_such_call(404), no_such_call(500), html(), status(403), status(200)])
async def test_an_archive_without_digests_is_not_asked_for_every_series(archive, ours, fault):
    archive.faults.add("getMD5Hierarchy", fault)
    spoil(ours, FIRST)
    assert await found(archive, ours) == ([], [1, 0, 0, 3])


@pytest.mark.asyncio
async def test_a_level_that_is_not_told_falls_to_the_one_below(archive, ours):
    spoil(ours, FIRST)
    archive.faults.add("getMD5Hierarchy", status(500), Collection=COLLECTION)
    series, levels = await found(archive, ours)
    assert (series, levels) == ([FIRST], [1, 3, 6, 3])


@pytest.mark.asyncio
async def test_an_archive_that_is_down_is_no_agreement(archive, ours):
    spoil(ours, FIRST)
    archive.faults.add("*", status(503))
    with pytest.raises(ServerFault, match="getMD5Hierarchy"):
        await found(archive, ours)


@pytest.mark.asyncio
async def test_an_archive_that_goes_down_in_the_middle_is_no_agreement(archive, ours):
    spoil(ours, FIRST)
    archive.faults.add("getCollectionValues", status(503))
    archive.faults.add("getMD5Hierarchy", status(503), StudyInstanceUID=uid(1, 1, 1))
    with pytest.raises(ServerFault, match="getMD5Hierarchy"):
        await found(archive, ours)


@pytest.mark.asyncio
async def test_the_tcia_dialect_has_no_digests(archive, ours):
    spoil(ours, FIRST)
    assert await found(archive, ours, "tcia") == ([], [0, 0, 0, 0])
