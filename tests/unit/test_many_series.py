"""What is done for many series at once, or left out for those that are known, comes to the same as one by one."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.records import FETCH, KEEP, a_series, hold, plan

from mirror import layout
from mirror.ledger import Catalogue, Ledger
from mirror.model import Presence, SeriesState


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path) as opened:
        yield opened


def row_of(ledger: Ledger, uid: str) -> dict[str, object]:
    names = [name for _, name, *_ in ledger.query("PRAGMA table_info(series)")]
    (values,) = ledger.query("SELECT * FROM series WHERE series_instance_uid = ?", uid)
    return dict(zip(names, values, strict=True))


# A series of which nothing is new


def test_only_the_crawl_is_noted_of_a_series_of_which_nothing_is_new(ledger: Ledger):
    series = a_series("1", ImageCount=1, Modality="CT")
    hold(ledger, series, ["1.1"])
    before, changes = row_of(ledger, "1"), ledger.meta("changes")
    ledger.plan_series(7, "r2", [(series, KEEP, "another")])
    assert row_of(ledger, "1") == before | {"crawl": 7, "why": "unchanged"}
    assert ledger.meta("changes") == changes


def test_a_series_that_was_to_leave_stays_when_it_is_seen_again(ledger: Ledger):
    series = a_series("1")
    hold(ledger, series, ["1.1"])
    ledger.plan_leaving("r1", [(1, "the archive has it no more")])
    ledger.plan_series(7, "r2", [(series, KEEP, "")])
    assert (row_of(ledger, "1")["leaving"], row_of(ledger, "1")["leaving_why"]) == (None, None)


@pytest.mark.parametrize(
    "told",
    [
        a_series("1", ImageCount=1, Modality="CT", LicenseName="another"),
        a_series("1", ImageCount=1, Modality="MR"),
        a_series("1", ImageCount=1, Modality="CT", collection="B"),
    ],
    ids=["a licence", "a modality", "a collection"],
)
def test_what_the_archive_says_anew_is_written_though_nothing_is_fetched(ledger: Ledger, told):
    hold(ledger, a_series("1", ImageCount=1, Modality="CT"), ["1.1"])
    ledger.plan_series(7, "r2", [(told, KEEP, "")])
    held = ledger.held_series("1")
    assert held is not None
    assert (held.series, held.state) == (told, SeriesState.COMPLETE)
    assert row_of(ledger, "1")["modality"] == told.modality


def test_a_series_that_comes_twice_in_one_answer_is_fetched_where_one_of_them_is_new(ledger: Ledger):
    known = a_series("1", ImageCount=1)
    hold(ledger, known, ["1.1"])
    both = [(replace(known, image_count=2), FETCH, ""), (known, KEEP, "")]
    for rows in (both, both[::-1]):
        ledger.plan_series(7, "r2", rows)
        assert [todo.id for todo in ledger.todo("r2", 0, 9)] == [1]


def test_a_missing_series_that_is_listed_again_is_present(ledger: Ledger):
    series = a_series("1")
    hold(ledger, series, ["1.1"])
    with ledger.transaction() as db:
        db.execute("UPDATE series SET presence = ?, missing_since = 5", (Presence.MISSING,))
    ledger.plan_series(7, "r2", [(series, KEEP, "")])
    assert (row_of(ledger, "1")["presence"], row_of(ledger, "1")["missing_since"]) == ("present", None)
    assert ledger.query("SELECT what FROM history WHERE run = 'r2'") == [("returned",)]


def test_series_are_known_by_the_whole_of_their_uids_however_many_are_asked_for(ledger: Ledger):
    uids = ["1.2", "1.2\0", "1.2\0x", "1.2'", '1.2"', "", "\u00e9", "e\u0301", *(f"1.3.{n}" for n in range(1200))]
    plan(ledger, *(a_series(uid) for uid in uids))
    held = ledger.held_among([*uids, "1.4", *uids])
    assert {uid: known.series.series_instance_uid for uid, known in held.items()} == {uid: uid for uid in uids}
    hold(ledger, a_series("1.2\0x"), ["1.2.1"])
    before = row_of(ledger, "1.2\0x")
    ledger.plan_series(7, "r2", [(a_series("1.2\0x"), KEEP, "")])
    assert row_of(ledger, "1.2\0x") == before | {"crawl": 7, "why": "unchanged"}


# Names


def test_directories_are_the_same_whether_claimed_together_or_one_by_one(tmp_path: Path):
    dice = random.Random(1)
    names = ["a", "A", "b", "\u00e9", "e\u0301", "c~1"]
    records = [[(dice.choice(names), dice.choice("xyz")) for _ in range(dice.randrange(4))] for _ in range(300)]
    with Ledger(tmp_path / "one") as one, Ledger(tmp_path / "all") as together:
        singly = [one.claim_directory(parts) for parts in records]
        assert together.claim_directories(records) == singly
        assert together.claim_directories(records) == singly, "repeating a claim gives the same path"
        claimed = "SELECT * FROM directories ORDER BY key"
        assert one.query(claimed) == together.query(claimed)


def test_a_name_that_looks_plain_is_what_it_would_be_if_each_sign_were_looked_at(monkeypatch: pytest.MonkeyPatch):
    dice = random.Random(2)
    signs = "abzAZ09-_.. ~/:*\t\n\x7f\u00e9\u0301\u200b"
    texts = ["".join(dice.choice(signs) for _ in range(dice.randrange(12))) for _ in range(20_000)]
    texts += ["CON", "con.txt", "a.", ".a", " a", "a ", "a. b", "1.2.840", "x\n"]
    quick = [layout.safe_name(text) for text in texts]
    assert sum(name == text for name, text in zip(quick, texts, strict=True)) > 1000
    monkeypatch.setattr(layout, "_PLAIN", re.compile("(?!)"))
    assert quick == [layout.safe_name(text) for text in texts]


# The manifest's order, and its memory


def test_rows_are_in_the_order_of_their_bytes_whatever_the_case_of_collections(ledger: Ledger, tmp_path: Path):
    dice = random.Random(3)
    for number in range(60):
        series = a_series(f"1.{number}", collection=dice.choice(["b", "A", "B", "a", "\u00e9"]))
        series = replace(series, patient_id=dice.choice(["P2", "p1", "P10", ""]), study_instance_uid=dice.choice("12"))
        hold(ledger, series, [f"1.{number}.{n}" for n in range(3)])
    plan(ledger, a_series("2", collection="A"))
    with Catalogue(tmp_path) as catalogue:
        rows = [
            (r.collection, r.patient_id, r.study_instance_uid, r.series_instance_uid) for r in catalogue.series_rows()
        ]
        assert rows == sorted(rows)
        assert len(rows) == 61
        of_instances = [
            (r.collection, r.patient_id, r.study_instance_uid, r.series_instance_uid, r.sop_instance_uid)
            for r in catalogue.instance_rows()
        ]
    assert of_instances == sorted(of_instances)
    assert len(of_instances) == 180


def test_memory_does_not_grow_with_what_is_crawled_or_read(tmp_path: Path):
    def most(series: int) -> int:
        """The most memory that Python objects took for so many series."""
        root = tmp_path / str(series)
        tracemalloc.start()
        try:
            with Ledger(root) as ledger:
                for _ in range(2):
                    for first in range(0, series, 100):
                        batch = [a_series(f"1.{first + n}", SeriesDescription="x" * 200) for n in range(100)]
                        held = ledger.held_among([s.series_instance_uid for s in batch])
                        assert len(held) in (0, 100)
                        ledger.plan_series(1, "r1", [(s, FETCH, f"A/{s.series_instance_uid}") for s in batch])
            with Catalogue(root) as catalogue:
                assert sum(1 for _ in catalogue.series_rows()) == series
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    most(100)
    assert most(4000) < most(1000) + 256 * 1024
