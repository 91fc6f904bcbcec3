"""What the ledger promises: versions, transactions, and one series' way from planned to judged."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from fakes.records import (
    FETCH,
    KEEP,
    a_loss,
    a_patient,
    a_series,
    a_study,
    an_instance,
    hold,
    plan,
    the_todo,
)
from msgspec.structs import replace

from mirror.errors import Damaged, LedgerError, StoreDenied, StoreFull, TooNew
from mirror.ledger import Came, Catalogue, Held, Ledger, PlanSize, SeriesTotals
from mirror.ledger.schema import MIGRATIONS
from mirror.model import Action, Finding, FindingKind, SeriesState, Why


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path) as opened:
        yield opened


def file_of(root: Path) -> Path:
    return root / ".mirror" / "ledger.sqlite"


# The file


def test_a_new_ledger_has_the_newest_version(tmp_path: Path):
    Ledger(tmp_path).close()
    with sqlite3.connect(file_of(tmp_path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_opening_it_again_changes_nothing(tmp_path: Path):
    for _ in range(2):
        with Ledger(tmp_path) as ledger:
            ledger.set_meta(server="nbia")
            assert ledger.meta("server") == "nbia"


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path):
    Ledger(tmp_path).close()
    with sqlite3.connect(file_of(tmp_path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    for opened in (Ledger, Catalogue):
        with pytest.raises(TooNew, match=rf"written by a newer tcia-mirror \(ledger version {len(MIGRATIONS) + 1}"):
            opened(tmp_path)


def test_a_migration_that_breaks_off_has_not_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Ledger(tmp_path).close()
    bad = "CREATE TABLE half (x); CREATE TABLE meta (twice);"
    monkeypatch.setattr("mirror.ledger.schema.MIGRATIONS", (*MIGRATIONS, bad))
    with pytest.raises(LedgerError, match="already exists"):
        Ledger(tmp_path)
    with sqlite3.connect(file_of(tmp_path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)
    db.close()
    monkeypatch.setattr("mirror.ledger.schema.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE half (x);"))
    Ledger(tmp_path).close()
    with sqlite3.connect(file_of(tmp_path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    db.close()


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path):
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).write_bytes(b"this is no database, whatever its name says" * 100)
    for opened in (Ledger, Catalogue):
        with pytest.raises(Damaged, match=r"ledger\.sqlite: file is not a database"):
            opened(tmp_path)


def test_a_database_with_a_torn_page_is_damaged(tmp_path: Path):
    with Ledger(tmp_path) as ledger:
        for number in range(200):
            plan(ledger, a_series(f"1.2.{number}"))
    file = file_of(tmp_path)
    body = bytearray(file.read_bytes())
    body[4096 : len(body)] = b"\xaa" * (len(body) - 4096)
    file.write_bytes(body)
    with pytest.raises(Damaged), Catalogue(tmp_path) as catalogue:
        list(catalogue.series_rows())


def test_a_ledger_that_is_a_folder_is_denied(tmp_path: Path):
    file_of(tmp_path).mkdir(parents=True)
    with pytest.raises(StoreDenied, match="unable to open"):
        Ledger(tmp_path)


def test_a_failed_opening_lets_go_of_the_lock(tmp_path: Path):
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).write_bytes(b"garbage" * 1000)
    for _ in range(2):
        with pytest.raises(Damaged):
            Ledger(tmp_path)
    file_of(tmp_path).unlink()
    Ledger(tmp_path).close()


def test_closing_is_safe_to_repeat(tmp_path: Path):
    ledger = Ledger(tmp_path)
    ledger.set_meta(layout="uid")
    ledger.close()
    ledger.close()
    with Ledger(tmp_path) as again:
        assert again.meta("layout") == "uid"


def test_a_log_that_grew_behind_a_reader_is_cut_to_size_when_the_reader_is_gone(tmp_path: Path, monkeypatch):
    """A server keeps its connections, so that no run is the last to close the ledger and to take the log away."""
    pages = 50
    monkeypatch.setattr("mirror.ledger.connection._LOG_PAGES", pages)
    log = file_of(tmp_path).with_name("ledger.sqlite-wal")
    Ledger(tmp_path).close()
    with Catalogue(tmp_path) as catalogue:
        with catalogue.snapshot():
            assert catalogue.meta("server") is None
            with Ledger(tmp_path) as ledger:
                for number in range(100):
                    plan(ledger, a_series(f"1.2.{number}"))
            assert log.stat().st_size > 4 * pages * 4096
        with Ledger(tmp_path) as ledger:
            for number in range(2):
                plan(ledger, a_series(f"1.3.{number}"))
        assert log.stat().st_size < 1.1 * pages * 4096


def test_the_log_stays_short_beside_readers_of_whom_one_is_always_there(tmp_path: Path, monkeypatch):
    """As with a server that is much asked: no moment comes at which nobody reads what was before."""
    monkeypatch.setattr("mirror.ledger.connection._LOG_PAGES", 50)
    log = file_of(tmp_path).with_name("ledger.sqlite-wal")
    longest = 0
    done = threading.Event()

    def read(seconds: float) -> None:
        with Catalogue(tmp_path) as catalogue:
            while not done.is_set():
                with catalogue.snapshot():
                    catalogue.meta("server")
                    time.sleep(seconds)

    async def write() -> None:
        nonlocal longest
        for number in range(300):
            await ledger.run(plan, ledger, a_series(f"1.2.{number}"))
            longest = max(longest, log.stat().st_size)

    with Ledger(tmp_path) as ledger:
        readers = [threading.Thread(target=read, args=[seconds]) for seconds in (0.01, 0.02, 0.03)]
        for reader in readers:
            reader.start()
        try:
            anyio.run(write)
        finally:
            done.set()
            for reader in readers:
                reader.join()
    assert longest < 1200 * 4096, "a wait may be in vain once or twice; without any it is 2500 pages"


def test_who_reads_for_long_does_not_stop_the_writer_each_time(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("mirror.ledger.connection._LOG_PAGES", 10)
    monkeypatch.setattr("mirror.ledger.connection._PATIENCE", 50)

    async def write() -> None:
        for number in range(200):
            await ledger.run(plan, ledger, a_series(f"1.2.{number}"))

    with Ledger(tmp_path) as ledger, Catalogue(tmp_path) as catalogue, catalogue.snapshot():
        catalogue.meta("server")
        began = time.monotonic()
        anyio.run(write)
        assert time.monotonic() - began < 15, "each of 150 would take 30 s"


# Transactions


def test_what_breaks_off_inside_has_not_happened(ledger: Ledger):
    good, bad = a_series("1"), a_series("2")
    with pytest.raises(AttributeError):
        ledger.plan_series(1, "r1", [(good, FETCH, "d1"), (bad, None, "d2")])  # type: ignore[list-item] - that is the point
    assert ledger.held_series("1") is None
    plan(ledger, good)
    id_ = the_todo(ledger, "1").id
    with suppress(ZeroDivisionError), ledger.transaction(changes=True) as db:
        db.execute("UPDATE series SET state = 'complete'")
        _ = 1 / 0
    assert the_todo(ledger, "1").state is SeriesState.PLANNED
    assert ledger.meta("changes") is None
    ledger.open_series(id_)
    assert the_todo(ledger, "1").state is SeriesState.OPEN


def test_a_disk_that_is_full_is_told_and_what_was_there_stays(ledger: Ledger):
    plan(ledger, a_series("1"))
    (pages,) = ledger.query("PRAGMA page_count")[0]
    ledger.query(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFull, match=r"ledger\.sqlite: no space left on the disk"):
        plan(ledger, *(a_series(f"1.{n}", SeriesDescription="x" * 4000) for n in range(50)))
    assert [t.series.series_instance_uid for t in ledger.todo("r1", 0, 100)] == ["1"]
    ledger.query("PRAGMA max_page_count = 1000000")
    plan(ledger, a_series("2"))
    assert len(ledger.todo("r1", 0, 100)) == 2


def test_a_bug_in_a_question_looks_like_one(ledger: Ledger):
    with pytest.raises(sqlite3.ProgrammingError):
        ledger.query("SELECT ?, ?", 1)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.record(99, [an_instance("1.2.3.1")])


def test_a_rehearsal_leaves_nothing_behind(tmp_path: Path):
    with Ledger(tmp_path) as ledger:
        plan(ledger, a_series("1"))
        ledger.claim_directory([("A", "A")])
    with Ledger(tmp_path, rehearse=True) as rehearsal:
        plan(rehearsal, a_series("2"), a_series("1", ImageCount=7), run="r2")
        assert rehearsal.claim_directory([("a", "a")]) != "a"
        rehearsal.set_meta(server="x")
        rehearsal.finish_crawl(rehearsal.begin_crawl("A", "A", 1))
        rehearsal.record(the_todo(rehearsal, "1", "r2").id, [an_instance("1.1")])
        with suppress(ZeroDivisionError), rehearsal.transaction() as db:
            db.execute("DELETE FROM instances")
            db.execute("DELETE FROM series")
            _ = 1 / 0
        assert len(rehearsal.todo("r2", 0, 9)) == 2, "a step that failed is undone by itself"
    with Ledger(tmp_path) as ledger:
        assert ledger.held_series("2") is None
        assert ledger.todo("r2", 0, 9) == []
        assert ledger.meta("server") is None
        assert ledger.meta("changes") is None
        assert ledger.query("SELECT count(*) FROM crawls") == [(0,)]
        assert ledger.query("SELECT path FROM directories") == [("A",)]
        assert ledger.bytes_held() == 0


@pytest.mark.asyncio
async def test_calls_from_tasks_are_queued_one_by_one(ledger: Ledger):
    inside = most = 0

    def work(number: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        plan(ledger, a_series(f"1.{number}"))
        time.sleep(0.001)
        inside -= 1
        return number

    numbers: list[int] = []

    async def one(number: int) -> None:
        numbers.append(await ledger.run(work, number))

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(one, number)
    assert (sorted(numbers), most) == (list(range(10)), 1)
    assert len(ledger.todo("r1", 0, 100)) == 10


# Crawl and plan


def test_patients_and_studies_can_be_written_again(ledger: Ledger):
    first, second = ledger.begin_crawl("A", "A", 1), ledger.begin_crawl("A", "A", 2)
    ledger.put_patients(first, [a_patient("P2"), a_patient("P1", PatientSex="F"), a_patient("P0", collection="B")])
    ledger.put_patients(second, [a_patient("P1", PatientSex="M")])
    assert ledger.patient_ids(first) == ["P0", "P2"]
    assert ledger.patient_ids(second) == ["P1"]
    ledger.put_studies(first, [a_study("1.2", StudyDescription="old"), a_study("1.2", patient="P2")])
    ledger.put_studies(second, [a_study("1.2", StudyDescription="new")])
    study = ledger.study("A", "P1", "1.2")
    assert study is not None
    assert study.study_description == "new"
    assert ledger.study("A", "P2", "1.2") is not None
    assert ledger.study("A", "P3", "1.2") is None


def test_a_series_is_known_with_every_field_it_came_with(ledger: Ledger):
    series = a_series("1", ImageCount=3, Novelty={"a": [1]}, SeriesNumber=5)
    plan(ledger, series)
    held = ledger.held_series("1")
    assert held is not None
    assert (held.series, held.state) == (series, SeriesState.PLANNED)
    assert held.series.raw["Novelty"] == {"a": [1]}
    assert ledger.held_series("2") is None
    assert (ledger.directory_of("1"), ledger.directory_of("2")) == ("A/1", None)


@pytest.mark.parametrize(
    ("state", "action", "becomes", "planned"),
    [
        (SeriesState.COMPLETE, KEEP, SeriesState.COMPLETE, False),
        (SeriesState.COMPLETE, Action(fetch=True, why=Why.CHANGED), SeriesState.PLANNED, True),
        (SeriesState.INCOMPLETE, Action(fetch=True, why=Why.UNFINISHED), SeriesState.PLANNED, True),
        (SeriesState.QUARANTINED, Action(fetch=True, why=Why.UNFINISHED), SeriesState.PLANNED, True),
        (SeriesState.OPEN, Action(fetch=True, why=Why.UNFINISHED), SeriesState.OPEN, True),
        (SeriesState.PLANNED, Action(fetch=True, why=Why.UNFINISHED), SeriesState.PLANNED, True),
    ],
)
def test_planning_a_known_series(
    ledger: Ledger, state: SeriesState, action: Action, becomes: SeriesState, planned: bool
):
    plan(ledger, a_series("1"))
    id_ = the_todo(ledger, "1").id
    if state is SeriesState.OPEN:
        ledger.open_series(id_)
    elif state is not SeriesState.PLANNED:
        ledger.judge(id_, state, ())
    plan(ledger, a_series("1", ImageCount=9, collection="B"), run="r2", action=action)
    held = ledger.held_series("1")
    assert held is not None
    assert (held.state, held.series.image_count, held.series.collection) == (becomes, 9, "B")
    assert [t.id for t in ledger.todo("r2", 0, 9)] == ([id_] if planned else [])
    assert ledger.todo("r1", 0, 9) == [], "only the newest run's plan stands"
    assert ledger.directory_of("1") == "A/1", "a series keeps its directory for life"


def test_planning_twice_is_planning_once(ledger: Ledger):
    for _ in range(2):
        plan(ledger, a_series("1"), a_series("2"))
    assert [t.series.series_instance_uid for t in ledger.todo("r1", 0, 9)] == ["1", "2"]


def test_the_todo_comes_in_pages(ledger: Ledger):
    plan(ledger, *(a_series(f"1.{n}") for n in range(5)))
    seen, after = [], 0
    while page := ledger.todo("r1", after, 2):
        seen += [(t.series.series_instance_uid, t.directory, t.state) for t in page]
        after = page[-1].id
    assert seen == [(f"1.{n}", f"A/1.{n}", SeriesState.PLANNED) for n in range(5)]
    ledger.judge(1, SeriesState.COMPLETE, ())
    assert len(ledger.todo("r1", 0, 9)) == 4


def test_what_was_taken_up_often_comes_by_turns(ledger: Ledger):
    plan(ledger, *(a_series(f"1.{n}") for n in range(4)))
    for series, times in ((1, 5), (2, 4), (3, 3)):
        for _ in range(times):
            ledger.open_series(series)
    assert [t.id for t in ledger.todo("r1", 0, 9, taken_up=4)] == [3, 4]
    assert ledger.taken_up_often("r1", 4) == [2, 1]
    assert ledger.taken_up_often("r2", 4) == []


def test_in_vain_is_what_was_taken_up_often_and_judged(ledger: Ledger):
    plan(ledger, a_series("1"), a_series("2"))
    for series in (1, 2):
        for _ in range(4):
            ledger.open_series(series)
    ledger.judge(1, SeriesState.INCOMPLETE, ())
    ledger.judge(2, SeriesState.INCOMPLETE, ())
    plan(ledger, a_series("1"), a_series("2"), run="r2")
    assert ledger.is_left_in_vain("r2", 4)
    assert not ledger.is_left_in_vain("r2", 5)
    plan(ledger, a_series("3"), run="r2")
    assert not ledger.is_left_in_vain("r2", 4)
    for _ in range(4):
        ledger.open_series(3)
    assert not ledger.is_left_in_vain("r2", 4), "it may only be large"


def test_the_size_of_a_plan(ledger: Ledger):
    hold(ledger, a_series("1", ImageCount=2, FileSize=6), ["1.1", "1.2"])
    plan(ledger, a_series("1", ImageCount=5, FileSize=100), run="r2", action=Action(fetch=True, why=Why.CHANGED))
    plan(ledger, a_series("2", ImageCount=10, FileSize=1000), run="r2")
    plan(ledger, a_series("3", collection="B", ImageCount=4, FileSize=40), run="r2")
    plan(ledger, a_series("4", collection="B", ImageCount=4), run="r2", action=Action(fetch=True, why=Why.UNFINISHED))
    plan(ledger, a_series("5", collection="C"), run="r2")
    assert ledger.plan_sizes("r2") == [
        PlanSize("A", new=1, changed=1, unfinished=0, objects=13, bytes=1094),
        PlanSize("B", new=1, changed=0, unfinished=1, objects=8, bytes=None),
        PlanSize("C", new=1, changed=0, unfinished=0, objects=None, bytes=None),
    ]
    assert ledger.plan_sizes("r9") == []
    assert ledger.bytes_held() == 6


def test_a_series_that_shrank_takes_nothing_off_the_others(ledger: Ledger):
    hold(ledger, a_series("1", ImageCount=2, FileSize=6), ["1.1", "1.2"])
    plan(ledger, a_series("1", ImageCount=1, FileSize=3), run="r2", action=Action(fetch=True, why=Why.CHANGED))
    plan(ledger, a_series("2", ImageCount=1, FileSize=10), run="r2")
    (size,) = ledger.plan_sizes("r2")
    assert (size.objects, size.bytes) == (1, 10)


# Directories


def test_a_directory_is_had_by_who_claims_it_first(ledger: Ledger):
    assert ledger.claim_directory([("Lung", "Lung"), ("P1", "P1")]) == "Lung/P1"
    assert ledger.claim_directory([("Lung", "Lung"), ("P2", "P2")]) == "Lung/P2"
    assert ledger.claim_directory([("Lung", "Lung"), ("P1", "P1")]) == "Lung/P1"
    assert ledger.claim_directory([]) == ""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("P1", "p1"),
        ("STRASSE", "straße"),
        ("\u00c5ngstr\u00f6m", "A\u030angstro\u0308m"),
        ("\u212bngstrom", "\u00e5ngstrom"),
        ("\u03b1\u0345\u0301", "\u03b1\u0301\u0345"),
        ("same", "same"),
    ],
)
def test_two_records_never_share_a_directory_even_where_case_and_forms_fold(ledger: Ledger, first: str, second: str):
    one = ledger.claim_directory([("A", "A"), (first, "identity one")])
    two = ledger.claim_directory([("A", "A"), (second, "identity two")])
    suffix = hashlib.sha256(b"\0A\0identity two").hexdigest()[:8]
    assert (one, two) == (f"A/{first}", f"A/{second}~{suffix}")
    assert ledger.claim_directory([("A", "A"), (second, "identity two")]) == two
    assert ledger.claim_directory([("A", "A"), (first, "identity one")]) == one


def test_what_lies_below_follows_its_parent(ledger: Ledger):
    ledger.claim_directory([("A", "A"), ("S", "S")])
    below = ledger.claim_directory([("a", "a"), ("S", "S")])
    parent = ledger.claim_directory([("a", "a")])
    assert below == f"{parent}/S"
    assert parent.startswith("a~")


def test_one_name_in_two_places_is_no_clash(ledger: Ledger):
    assert ledger.claim_directory([("A", "A"), ("S", "1")]) == "A/S"
    assert ledger.claim_directory([("B", "B"), ("S", "2")]) == "B/S"


def test_a_third_of_the_same_name_is_told_apart_as_well(ledger: Ledger):
    paths = {ledger.claim_directory([(name, name)]) for name in ("abc", "ABC", "Abc", "aBC")}
    assert len({path.casefold() for path in paths}) == 4


def test_claims_are_the_same_whatever_came_between(tmp_path: Path):
    with Ledger(tmp_path) as ledger:
        before = ledger.claim_directory([("x", "1"), ("y", "2")]), ledger.claim_directory([("X", "3"), ("y", "4")])
    with Ledger(tmp_path) as ledger:
        ledger.claim_directory([("Z", "9")])
        after = ledger.claim_directory([("x", "1"), ("y", "2")]), ledger.claim_directory([("X", "3"), ("y", "4")])
    assert before == after


def test_an_identity_of_any_characters_can_claim(ledger: Ledger):
    assert ledger.claim_directory([("A", "A"), ("x", "\x00\x1f/../\u202e'; --")]) == "A/x"
    assert ledger.claim_directory([("A", "A"), ("x", "\x00\x1f/../\u202e'; -+")]).startswith("A/x~")


# One series


def opened(ledger: Ledger, uids: list[str]) -> tuple[int, int]:
    plan(ledger, a_series())
    id_ = the_todo(ledger).id
    listing = ledger.open_series(id_)
    ledger.list_instances(id_, listing, uids)
    return id_, listing


def test_every_listing_has_a_number_of_its_own(ledger: Ledger):
    plan(ledger, a_series())
    id_ = the_todo(ledger).id
    assert [ledger.open_series(id_) for _ in range(3)] == [1, 2, 3]


def test_what_is_wanted_comes_in_order_and_in_pages(ledger: Ledger):
    id_, listing = opened(ledger, ["1.3", "1.1", "1.2", "1.4"])
    assert ledger.wanted(id_, listing, "", 2, 0) == [("1.1", False), ("1.2", False)]
    assert ledger.wanted(id_, listing, "1.2", 2, 0) == [("1.3", False), ("1.4", False)]
    assert ledger.wanted(id_, listing, "1.4", 2, 0) == []
    assert ledger.wanted(id_, listing + 1, "", 9, 0) == []


def test_what_is_held_or_not_yet_due_is_not_wanted(ledger: Ledger):
    id_, listing = opened(ledger, ["1.1", "1.2", "1.3"])
    ledger.record(id_, [an_instance("1.1")], [a_loss("1.2", next_try=1000)])
    assert ledger.wanted(id_, listing, "", 9, 999) == [("1.3", False)]
    assert ledger.wanted(id_, listing, "", 9, 1000) == [("1.2", False), ("1.3", False)]
    again = ledger.open_series(id_)
    ledger.list_instances(id_, again, ["1.1", "1.3", "1.4"])
    assert ledger.wanted(id_, again, "", 9, 9999) == [("1.3", False), ("1.4", False)]


def test_failures_are_counted_over_all_runs_until_it_comes(ledger: Ledger):
    id_, listing = opened(ledger, ["1.1", "1.2"])
    assert ledger.attempts(id_, "1.1") == 0
    assert ledger.attempts(id_, "9.9") == 0
    for count in (1, 2, 3):
        ledger.record(id_, [], [a_loss("1.1", next_try=count * 100)])
        assert ledger.attempts(id_, "1.1") == count
    # What was never asked for was not asked for in vain.
    assert ledger.asked_in_vain(id_, listing, 9) == [("1.1", 3, 300, FindingKind.UNAVAILABLE, "status 500")]
    ledger.record(id_, [], [a_loss("1.2", next_try=7)])
    assert [uid for uid, *_ in ledger.asked_in_vain(id_, listing, 9)] == ["1.1", "1.2"]
    assert [uid for uid, *_ in ledger.asked_in_vain(id_, listing, 1)] == ["1.1"]
    ledger.record(id_, [an_instance("1.1")])
    assert ledger.attempts(id_, "1.1") == 0
    assert ledger.asked_in_vain(id_, listing, 9) == [("1.2", 1, 7, FindingKind.UNAVAILABLE, "status 500")]


def test_a_durable_transaction_is_flushed_and_the_others_are_as_before(ledger: Ledger):
    def level() -> int:
        return ledger.query("PRAGMA synchronous")[0][0]

    before = level()
    with ledger.transaction(durable=True):
        assert level() == 2  # FULL: the write-ahead log is flushed at each commit
    assert level() == before == 1
    with suppress(ZeroDivisionError), ledger.transaction(durable=True):
        raise ZeroDivisionError
    assert level() == before


def test_recording_what_is_held_can_be_repeated(ledger: Ledger):
    id_, listing = opened(ledger, ["1.1"])
    for _ in range(2):
        ledger.record(id_, [an_instance("1.1"), an_instance("1.9")])
    assert ledger.totals(id_, listing) == SeriesTotals(listed=1, held=1, held_bytes=6, unlisted=1, unlisted_bytes=3)
    assert ledger.held_names(id_) == [("1.1", "1.1.dcm", 3), ("1.9", "1.9.dcm", 3)]
    instance = an_instance("1.1", body=b"other")
    ledger.record(id_, [instance])
    assert ledger.held(id_, "1.1") == Held("1.1.dcm", instance.digest, doubted=False, was_right=False)
    assert ledger.held(id_, "1.2") is None


def test_totals_against_a_listing(ledger: Ledger):
    id_, first = opened(ledger, ["1.1", "1.2", "1.3"])
    ledger.record(id_, [an_instance("1.1"), an_instance("1.2")])
    assert ledger.totals(id_, first) == SeriesTotals(listed=3, held=2, held_bytes=6, unlisted=0)
    second = ledger.open_series(id_)
    ledger.list_instances(id_, second, ["1.2", "1.4"])
    assert ledger.totals(id_, second) == SeriesTotals(listed=2, held=1, held_bytes=6, unlisted=1, unlisted_bytes=3)
    ledger.list_held(id_, second)
    assert ledger.totals(id_, second) == SeriesTotals(listed=3, held=2, held_bytes=6, unlisted=0)
    ledger.forget(id_, ["1.1"])
    assert ledger.totals(id_, second) == SeriesTotals(listed=3, held=1, held_bytes=3, unlisted=0)
    assert ledger.totals(99, 1) == SeriesTotals(0, 0, 0, 0)
    assert ledger.bytes_held() == 3


def test_what_was_forgotten_is_wanted_again(ledger: Ledger):
    id_, listing = opened(ledger, ["1.1"])
    ledger.record(id_, [an_instance("1.1")])
    assert ledger.wanted(id_, listing, "", 9, 0) == []
    ledger.forget(id_, ["1.1"])
    assert ledger.wanted(id_, listing, "", 9, 0) == [("1.1", False)]


def test_md5s_come_in_the_order_the_archive_digests_them(ledger: Ledger):
    uids = [f"1.{n}" for n in range(20)]
    id_, listing = opened(ledger, uids)
    ledger.record(id_, [an_instance(uid) for uid in [*uids[:15], "9.9"]])
    assert list(ledger.md5s(id_, listing)) == sorted(hashlib.md5(uid.encode()).hexdigest() for uid in uids[:15])


def test_numbering_is_by_instance_number_then_uid_and_unnumbered_last(ledger: Ledger):
    id_, _ = opened(ledger, [])
    numbers = {"1.1": 10, "1.2": 2, "1.3": None, "1.4": 2, "1.5": -1}
    ledger.record(id_, [an_instance(uid, number=number) for uid, number in numbers.items()])
    assert [uid for uid, _, _, _ in ledger.numbering(id_)] == ["1.5", "1.2", "1.4", "1.1", "1.3"]
    assert ledger.numbering(id_)[0] == ("1.5", "1.5.dcm", 1, -1)
    ledger.rename(id_, [("1.5", "1-1.dcm")])
    assert ledger.held_names(id_)[-1] == ("1.5", "1-1.dcm", 3)


def test_a_judged_series_is_no_longer_planned_and_keeps_its_findings(ledger: Ledger, tmp_path: Path):
    id_, _ = opened(ledger, ["1.1", "1.2"])
    ledger.record(id_, [an_instance("1.1"), an_instance("1.2")])
    finding = Finding(kind=FindingKind.OTHER_PATIENT, detail="d", series_instance_uid="1.2.3")
    ledger.judge(id_, SeriesState.COMPLETE, [finding], "series-size,series-md5")
    assert ledger.todo("r1", 0, 9) == []
    with Catalogue(tmp_path) as catalogue:
        assert [row.verified for row in catalogue.instance_rows()] == ["length,header,series-size,series-md5"] * 2
        assert [row.findings for row in catalogue.series_rows()] == ["other-patient: d [1.2.3]"]


def test_how_it_was_verified_is_said_once(ledger: Ledger, tmp_path: Path):
    id_, _ = opened(ledger, ["1.1"])
    ledger.record(id_, [an_instance("1.1")])
    for how in ("series-size", "series-size", "", "series-size,series-md5"):
        ledger.judge(id_, SeriesState.COMPLETE, (), how)
    with Catalogue(tmp_path) as catalogue:
        (row,) = catalogue.instance_rows()
    assert row.verified.split(",") == ["length", "header", "series-size", "series-md5"]


def test_changes_are_counted_where_what_is_held_changes(ledger: Ledger):
    id_, listing = opened(ledger, ["1.1"])
    assert ledger.meta("changes") is None
    steps = [
        (lambda: ledger.record(id_, [an_instance("1.1")]), 1),
        (lambda: ledger.record(id_, [], [a_loss("1.1")]), 1),
        (lambda: ledger.rename(id_, [("1.1", "x.dcm")]), 2),
        (lambda: ledger.forget(id_, ["1.1"]), 3),
        (lambda: ledger.judge(id_, SeriesState.INCOMPLETE, ()), 4),
        (lambda: ledger.list_held(id_, listing), 4),
    ]
    for step, count in steps:
        step()
        assert ledger.meta("changes") == str(count)


def test_what_is_held_in_doubt_is_wanted_until_it_is_trusted_or_comes_anew(ledger: Ledger):
    id_, listing = opened(ledger, ["1.1", "1.2", "1.3"])
    ledger.record(id_, [an_instance("1.1"), an_instance("1.2")])
    ledger.doubt(id_, None)
    assert ledger.wanted(id_, listing, "", 9, 0) == [("1.1", True), ("1.2", True), ("1.3", False)]
    assert ledger.totals(id_, listing).doubted == 2
    ledger.trust(id_, ["1.1"])
    ledger.record(id_, [an_instance("1.2")])
    assert ledger.wanted(id_, listing, "", 9, 0) == [("1.3", False)]
    ledger.doubt(id_, ["1.2", "1.3"])
    assert ledger.doubted_names(id_).keys() == {"1.2"}, "what is not held cannot be doubted"


def test_an_instance_that_comes_with_other_bytes_has_changed(ledger: Ledger):
    id_, _ = opened(ledger, ["1.1", "1.2"])
    first = an_instance("1.1")
    came = Came("run-1", "Lung", "1", {})
    ledger.record(id_, [first], came=came)
    ledger.record(id_, [first], came=came)
    assert history(ledger) == []
    other = replace(first, digest=replace(first.digest, sha256="ab" * 32))
    kept = ".mirror/retired/run-2/d/1.1.dcm"
    ledger.record(id_, [other], came=Came("run-2", "Lung", "1", {"1.1": kept}))
    assert history(ledger) == [("run-2", "changed", "1.1", first.digest.sha256, "ab" * 32, kept)]
    # Also when its file was gone in between: what it was is not forgotten with it.
    ledger.forget(id_, ["1.1"])
    ledger.record(id_, [first], came=Came("run-3", "Lung", "1", {}))
    assert history(ledger)[1:] == [("run-3", "changed", "1.1", "ab" * 32, first.digest.sha256, None)]


def history(ledger: Ledger) -> list[tuple[object, ...]]:
    return ledger.query(
        "SELECT run, what, sop_instance_uid, lower(hex(old_sha256)), lower(hex(sha256)), retired FROM history"
        " ORDER BY id"
    )


def test_what_two_lists_lack_has_left(ledger: Ledger):
    id_, _ = opened(ledger, ["1.1", "1.2"])
    ledger.record(id_, [an_instance("1.1"), an_instance("1.2")])
    second = ledger.open_series(id_)
    ledger.list_instances(id_, second, ["1.1"])
    assert ledger.note_unlisted(id_, second, "run-1") == []
    assert ledger.note_unlisted(id_, second, "run-1") == [], "the same run is no second opinion"
    assert [uid for uid, _, _ in ledger.note_unlisted(id_, second, "run-2")] == ["1.2"]
    third = ledger.open_series(id_)
    ledger.list_instances(id_, third, ["1.1", "1.2"])
    fourth = ledger.open_series(id_)
    ledger.list_instances(id_, fourth, ["1.1"])
    assert ledger.note_unlisted(id_, fourth, "run-3") == [], "it was listed again in between"
