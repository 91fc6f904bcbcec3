"""What differs between a mirror and another mirror, or a manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fakes.records import a_series, an_instance, hold, plan, the_todo
from msgspec.structs import replace

from mirror.diff import Difference, Kind, against_manifest, against_mirror
from mirror.errors import LedgerError, SettingsError
from mirror.export import export
from mirror.ledger import Comparison, Ledger, Scratch
from mirror.model import Series, SeriesState

#: Three series of two collections, by (collection, patient, study, series), with their instances.
HELD: list[tuple[Series, list[str]]] = [
    (a_series("1.1.1", collection="A", patient="P1", study="1.1", ImageCount=2), ["1.1.1.1", "1.1.1.2"]),
    (a_series("1.2.1", collection="A", patient="P2", study="1.2", ImageCount=1), ["1.2.1.1"]),
    (a_series("2.1.1", collection="B", patient="P1", study="2.1", ImageCount=1), ["2.1.1.1"]),
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The root of a mirror of HELD."""
    with Ledger(tmp_path / "here") as ledger:
        for series, uids in HELD:
            hold(ledger, series, uids)
    return tmp_path / "here"


@pytest.fixture
def there(here: Path, tmp_path: Path) -> Path:
    """The root of another mirror of the same."""
    shutil.copytree(here, tmp_path / "there")
    return tmp_path / "there"


def change(root: Path, series: str, *, body: bytes = b"other") -> None:
    """The first instance of a series has other bytes."""
    with Ledger(root) as ledger:
        plan(ledger, next(s for s, _ in HELD if s.series_instance_uid == series))
        todo = the_todo(ledger, series)
        (uid, name, _), *_ = ledger.held_names(todo.id)
        ledger.record(todo.id, [replace(an_instance(uid, series=series, body=body), name=name)])
        ledger.judge(todo.id, SeriesState.COMPLETE, ())


def also(root: Path, series: Series, uids: Sequence[str], state: SeriesState = SeriesState.COMPLETE) -> None:
    with Ledger(root) as ledger:
        hold(ledger, series, uids, state=state)


def mirrors(here: Path, there: Path, *collections: str, instances: bool = False) -> list[list[Difference]]:
    with Comparison(here) as ours, Comparison(there) as theirs:
        return list(against_mirror(ours, theirs, collections, instances=instances))


def brief(found: list[list[Difference]]) -> list[tuple[str, str, str]]:
    """(kind, UID, what) of every difference."""
    return [(d.kind, d.sop_instance_uid or d.series_instance_uid, d.what) for of_one in found for d in of_one]


# Another mirror


def test_the_same_is_an_empty_list_per_series(here, there):
    assert mirrors(here, there) == [[], [], []]


def test_series_of_one_side(here, there):
    also(here, a_series("1.3.1", collection="A", patient="P3"), ["1.3.1.1", "1.3.1.2"])
    also(there, a_series("1.0.1", collection="A", patient="P0"), ["1.0.1.1"])
    also(there, a_series("3.0.1", collection="C"), ["3.0.1.1"])
    assert brief(mirrors(here, there)) == [
        (Kind.ONLY_HERE, "1.3.1", "2 instances, 14 bytes"),
        (Kind.ONLY_THERE, "1.0.1", ""),
        (Kind.ONLY_THERE, "3.0.1", ""),
    ]


def test_instances_differ_by_their_sha_256(here, there):
    change(there, "1.1.1")
    assert brief(mirrors(here, there)) == [(Kind.DIFFERS, "1.1.1", "instances: 1 differ in SHA-256")]
    assert brief(mirrors(here, there, instances=True)) == [
        (Kind.DIFFERS, "1.1.1", "instances: 1 differ in SHA-256"),
        (Kind.DIFFERS, "1.1.1.1", ""),
    ]


def test_instances_of_one_side(here, there):
    also(here, a_series("4.1", collection="D"), ["4.1.1", "4.1.3", "4.1.4"])
    also(there, a_series("4.1", collection="D"), ["4.1.2", "4.1.3", "4.1.5", "4.1.6"])
    assert brief(mirrors(here, there, "d", instances=True)) == [
        (Kind.DIFFERS, "4.1", "instances: 2 only here, 3 only there"),
        (Kind.ONLY_HERE, "4.1.1", ""),
        (Kind.ONLY_THERE, "4.1.2", ""),
        (Kind.ONLY_HERE, "4.1.4", ""),
        (Kind.ONLY_THERE, "4.1.5", ""),
        (Kind.ONLY_THERE, "4.1.6", ""),
    ]


def test_a_series_in_another_place_is_the_same_series(here, there):
    for root, place in ((here, "P1"), (there, "P9")):
        also(root, a_series("4.1", collection="D", patient=place), ["4.1.1"])
        also(root, a_series("5.1", collection="E" + place), ["5.1.1"])
    told = [
        (Kind.DIFFERS, "4.1", "PatientID: P1 here, P9 there"),
        (Kind.DIFFERS, "5.1", "Collection: EP1 here, EP9 there"),
    ]
    assert brief(mirrors(here, there)) == told
    assert brief(mirrors(here, there, "EP1")) == told[1:]
    assert brief(mirrors(here, there, "EP9")) == told[1:], "the other side's place counts as well"


def test_what_is_not_held_is_not_there(here, there):
    planned = a_series("4.1", collection="D", ImageCount=3)
    for root in (here, there):
        with Ledger(root) as ledger:
            plan(ledger, planned)
    assert brief(mirrors(here, there)) == []
    with Ledger(there) as ledger:
        ledger.record(the_todo(ledger, "4.1").id, [an_instance("4.1.1", series="4.1")])
    assert brief(mirrors(here, there)) == [
        (Kind.INCOMPLETE, "4.1", "instances: 1 only there"),
    ]
    assert brief(mirrors(there, here)) == [(Kind.ONLY_HERE, "4.1", "1 instance, 5 bytes")]


def test_what_is_as_incomplete_on_both_sides_is_the_same(here, there):
    for root in (here, there):
        also(root, a_series("4.1", collection="D"), ["4.1.1"], SeriesState.INCOMPLETE)
    assert mirrors(here, there, "D") == [[]]


def test_collections_that_nobody_has(here, there):
    with pytest.raises(SettingsError, match=r"collection 'AA': neither side has a series of it; did you mean 'A'\?"):
        mirrors(here, there, "AA")
    assert mirrors(here, there, "a") == [[], []]


def test_an_older_ledger_is_told_as_such(here, there):
    with Ledger(there) as ledger, ledger.transaction() as db:
        db.execute("PRAGMA user_version = 1")
    with pytest.raises(LedgerError, match=r"written by an older tcia-mirror .*the next sync brings it up to date"):
        mirrors(here, there)


# A manifest


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def manifest(request: pytest.FixtureRequest, there: Path) -> Callable[[], Path]:
    """Writes the manifest of the other mirror, as it is then, in each format."""

    def write() -> Path:
        return export(there, request.param)[0][0]

    return write


def file_against(here: Path, file: Path, *collections: str, instances: bool = False) -> list[list[Difference]]:
    with Comparison(here) as ours:
        return list(against_manifest(ours, file, collections, instances=instances))


def test_a_manifest_of_instances_is_as_good_as_its_mirror(here, there, manifest):
    assert file_against(here, manifest()) == [[], [], []]
    change(there, "1.1.1")
    also(there, a_series("3.0.1", collection="C"), ["3.0.1.1"])
    also(here, a_series("4.1", collection="D"), ["4.1.1"])
    found = mirrors(here, there, instances=True)
    assert len(brief(found)) == 4
    assert file_against(here, manifest(), instances=True) == found
    assert file_against(here, manifest(), "B") == [[]]


def test_a_manifest_of_series(here, there, manifest):
    def series() -> Path:
        instances = manifest()
        return instances.with_name(f"manifest-series{instances.suffix}")

    assert file_against(here, series()) == [[], [], []]
    change(there, "1.1.1")
    also(there, a_series("4.1", collection="D"), ["4.1.1", "4.1.2"])
    also(here, a_series("4.1", collection="D"), ["4.1.1"])
    also(there, a_series("3.0.1", collection="C"), ["3.0.1.1"])
    assert brief(file_against(here, series())) == [
        (Kind.DIFFERS, "1.1.1", "bytes: 14 here, 12 there"),
        (Kind.ONLY_THERE, "3.0.1", ""),
        (Kind.DIFFERS, "4.1", "instances: 1 here, 2 there; bytes: 5 here, 10 there"),
    ]


def test_rows_in_any_order(here, there):
    file = export(there, "csv")[0][0]
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, *reversed(rows)]))
    assert file_against(here, file) == [[], [], []]


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.tcia"])
def test_a_list_of_series(here, tmp_path, name):
    head = {"list.csv": "SeriesInstanceUID\n", "list.tcia": "ListOfSeriesToDownload=\n"}.get(name, "")
    file = tmp_path / name
    file.write_text(head + "1.1.1\n2.1.1\n1.2.1\n")
    assert file_against(here, file) == [[], [], []]
    file.write_text(head + "1.1.1\n2.1.1\n9.9\n")
    assert brief(file_against(here, file)) == [
        (Kind.ONLY_THERE, "9.9", ""),
        (Kind.ONLY_HERE, "1.2.1", "1 instance, 7 bytes"),
    ]
    also(here, a_series("9.9", collection="D"), [], SeriesState.INCOMPLETE)
    assert brief(file_against(here, file, "B", "D")) == [(Kind.INCOMPLETE, "9.9", "0 instances are held")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.jsonl", b'{"a": 1}\n', "not a table of instances or of series"),
        ("m.parquet", b"PAR1", "not a manifest in Parquet"),
        ("m.csv", b"sop_instance_uid,sha256\n", "the column collection is missing"),
        ("m.txt", b"\xff\xfe", "is not UTF-8 text"),
        ("m.txt", b"hello\n", "'hello' is no SeriesInstanceUID"),
    ],
)
def test_what_is_no_manifest(here, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=words):
        file_against(here, tmp_path / name)


def test_a_sum_that_is_none_names_the_file(here, there):
    file = export(there, "csv")[0][0]
    with Comparison(there) as catalogue:
        (sum_, *_) = (row.sha256 for row in catalogue.instance_rows())
    file.write_text(file.read_text().replace(sum_, "not hex"))
    with pytest.raises(SettingsError, match=r"manifest\.csv: not a SHA-256 in hex"):
        file_against(here, file)


# The scratch ledger


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with Scratch() as opened:
        yield opened


def test_a_scratch_ledger_leaves_nothing(scratch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scratch.put_series(s for s, _ in HELD)
    scratch.put_series(s for s, _ in HELD)
    assert [s.series_instance_uid for s in scratch.known_series("A")] == ["1.1.1", "1.2.1"]
    assert scratch.all_collections() == ["A", "B"]
    assert list(tmp_path.iterdir()) == []
