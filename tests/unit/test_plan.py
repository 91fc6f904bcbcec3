"""What is to be done about a series, from the archive's view and ours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mirror.model import Action, Series, SeriesState, Why
from mirror.plan import STAMPS, decide

HELD = Series(
    series_instance_uid="1.2.3",
    collection="A",
    patient_id="P",
    study_instance_uid="1.2",
    image_count=3,
    file_size=300,
    max_submission_timestamp="2019-02-25",
    date_released="2019-03-08",
)
OTHER = {"image_count": 4, "file_size": 301, "max_submission_timestamp": "2020-01-01", "date_released": "2018-01-01"}


def test_what_is_not_known_is_new():
    assert decide(HELD, None, None) == Action(fetch=True, why=Why.NEW)


@pytest.mark.parametrize("state", [s for s in SeriesState if s is not SeriesState.COMPLETE])
def test_what_was_begun_and_is_not_complete_is_fetched_and_says_what_it_was(state: SeriesState):
    assert decide(HELD, HELD, state) == Action(fetch=True, why=Why.UNFINISHED, detail=f"was {state}")


def test_what_is_complete_and_unchanged_is_kept():
    assert decide(HELD, HELD, SeriesState.COMPLETE) == Action(fetch=False, why=Why.UNCHANGED)


@pytest.mark.parametrize("name", STAMPS)
def test_each_stamp_that_moved_is_a_change_and_is_told(name: str):
    upstream = replace(HELD, **{name: OTHER[name]})
    action = decide(upstream, HELD, SeriesState.COMPLETE)
    assert (action.fetch, action.why) == (True, Why.CHANGED)
    assert action.detail == f"{name} {getattr(HELD, name)} -> {OTHER[name]}"


@pytest.mark.parametrize("name", STAMPS)
def test_a_stamp_that_one_side_does_not_say_is_no_change(name: str):
    for upstream, held in ((replace(HELD, **{name: None}), HELD), (HELD, replace(HELD, **{name: None}))):
        assert decide(upstream, held, SeriesState.COMPLETE).fetch is False


def test_several_changes_are_all_told():
    action = decide(replace(HELD, **OTHER), HELD, SeriesState.COMPLETE)
    assert action.detail == (
        "image_count 3 -> 4, file_size 300 -> 301, max_submission_timestamp 2019-02-25 -> 2020-01-01,"
        " date_released 2019-03-08 -> 2018-01-01"
    )


def test_words_of_the_row_do_not_count():
    upstream = replace(HELD, series_description="other", modality="CT", license_name="CC0", raw={"x": 1})
    assert decide(upstream, HELD, SeriesState.COMPLETE).fetch is False


def test_nothing_held_to_a_count_of_none_is_a_change():
    assert decide(replace(HELD, image_count=0), HELD, SeriesState.COMPLETE).why is Why.CHANGED
