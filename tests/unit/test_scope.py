"""What a scope means: its words, its boundary, its collections, its fingerprint, and the text it is kept as."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from mirror.errors import ExitCode, SettingsError
from mirror.model import Exclude, Scope, Series
from mirror.scope import boundary, describe, fingerprint, from_json, is_day, names_of, outside, require_sound, to_json

NAMES = ["4D-Lung", "CPTAC-LUAD", "NLST", "TCGA-BRCA", "TCGA-LUAD", "Twin", "TWIN", "odd[1]", "odd1"]
FULL = Scope(
    collections=("TCGA-*", "NLST"),
    patients=("P2", "p1"),
    modalities=("CT", "MR"),
    body_parts=("CHEST",),
    manufacturers=("GE*",),
    released_since="2024-02-29",
    series=("1.2", "1.3"),
    lists=("My List",),
    exclude=Exclude(
        collections=("TCGA-BRCA",), patients=("p3",), modalities=("SR",), body_parts=("x",), manufacturers=("y",),
        series=("1.9",),
    ),
)  # fmt: skip


def series(**facts: Any) -> Series:
    given = {
        "series_instance_uid": "1.2.3", "collection": "TCGA-LUAD", "patient_id": "P1", "study_instance_uid": "1.2",
        "modality": "CT", "body_part_examined": "CHEST", "manufacturer": "GE MEDICAL SYSTEMS",
        "date_released": "2024-03-01",
    }  # fmt: skip
    return Series(**(given | facts))


# Empty, narrowed


@pytest.mark.parametrize(
    ("scope", "empty", "narrowed"),
    [
        (Scope(), True, False),
        (Scope(collections=("A*",)), False, False),
        (Scope(all=True), False, False),
        (Scope(all=True, exclude=Exclude(collections=("A",))), False, False),
        (Scope(series=("1",)), False, True),
        (Scope(lists=("l",)), False, True),
        (Scope(patients=("P",)), True, True),
        (Scope(all=True, manufacturers=("GE",)), False, True),
        (Scope(all=True, released_since="2020-01-01"), False, True),
        (Scope(all=True, exclude=Exclude(modalities=("SR",))), False, True),
        (Scope(exclude=Exclude(series=("1",))), True, True),
    ],
)
def test_what_says_which_part_is_meant_and_what_narrows_it(scope, empty, narrowed):
    assert (scope.is_empty(), scope.is_narrowed()) == (empty, narrowed)


def test_a_scope_can_be_a_key():
    assert {FULL: 1}[replace(FULL)] == 1


# Words


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (Scope(all=True), "all collections"),
        (Scope(collections=("b", "A")), "A, b"),
        (Scope(series=("1", "2")), "listed series; 2 listed series"),
        (Scope(lists=("mine",)), "listed series; shared list mine"),
        (Scope(all=True, modalities=("MR", "CT", "CT")), "all collections; Modality CT or MR"),
        (
            FULL,
            "NLST, TCGA-*; PatientID p1 or P2; Modality CT or MR; BodyPartExamined CHEST; Manufacturer GE*;"
            " released since 2024-02-29; 2 listed series; shared list My List; without Collection TCGA-BRCA;"
            " without PatientID p3; without Modality SR; without BodyPartExamined x; without Manufacturer y;"
            " without 1 listed series",
        ),
    ],
)
def test_a_scope_in_words(scope, words):
    assert describe(scope) == words


def test_a_scope_in_words_for_one_collection_does_not_speak_of_the_others():
    assert describe(Scope(collections=("A", "B"), exclude=Exclude(collections=("C",), modalities=("SR",))), "A") == (
        "A; without Modality SR"
    )


# One series


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (Scope(), ""),
        (Scope(all=True), ""),
        (Scope(collections=("tcga-luad",)), ""),
        (Scope(collections=("NLST", "tcga-*")), ""),
        (Scope(collections=("TCGA-[KL]*",)), ""),
        (Scope(collections=("TCGA-BRC?", "NLST")), "its Collection is TCGA-LUAD, not TCGA-BRC? or NLST"),
        (Scope(collections=("TCGA",)), "its Collection is TCGA-LUAD, not TCGA"),
        (Scope(patients=("p1",)), ""),
        (Scope(patients=("P*",)), "its PatientID is P1, not P*"),
        (Scope(modalities=("mr", "ct")), ""),
        (Scope(modalities=("MR",)), "its Modality is CT, not MR"),
        (Scope(body_parts=("ABDOMEN",)), "its BodyPartExamined is CHEST, not ABDOMEN"),
        (Scope(manufacturers=("ge medical systems",)), ""),
        (Scope(manufacturers=("GE",)), "its Manufacturer is GE MEDICAL SYSTEMS, not GE"),
        (Scope(manufacturers=("siemens*", "ge*")), ""),
        (Scope(released_since="2024-03-01"), ""),
        (Scope(released_since="2024-03-02"), "its DateReleased is 2024-03-01, not 2024-03-02 or later"),
        (Scope(exclude=Exclude(collections=("TCGA-*",))), "its Collection TCGA-LUAD is excluded"),
        (Scope(exclude=Exclude(patients=("p1",))), "its PatientID P1 is excluded"),
        (Scope(exclude=Exclude(modalities=("ct",))), "its Modality CT is excluded"),
        (Scope(exclude=Exclude(body_parts=("Chest",))), "its BodyPartExamined CHEST is excluded"),
        (Scope(exclude=Exclude(manufacturers=("*medical*",))), "its Manufacturer GE MEDICAL SYSTEMS is excluded"),
        (Scope(exclude=Exclude(series=("1.2.3",))), "it is excluded by its UID"),
        (Scope(exclude=Exclude(series=("1.2",), modalities=("SR",), patients=("P",))), ""),
        (Scope(modalities=("CT",), exclude=Exclude(modalities=("CT",))), "its Modality CT is excluded"),
        (Scope(series=("9",), lists=("l",)), ""),
    ],
)
def test_how_a_series_is_outside(scope, said):
    assert outside(series(), scope) == said
    assert boundary(scope)(series()) == said


def test_what_the_archive_does_not_say_meets_no_restriction_and_no_exclusion():
    bare = series(modality=None, body_part_examined=None, manufacturer=None, date_released=None)
    assert outside(bare, Scope(modalities=("CT",))) == "its Modality is (none), not CT"
    assert outside(bare, Scope(manufacturers=("GE*",))) == "its Manufacturer is (none), not GE*"
    assert outside(bare, Scope(released_since="1990-01-01")) == "its DateReleased is (none), not 1990-01-01 or later"
    assert outside(bare, Scope(exclude=Exclude(modalities=("CT",), body_parts=("*",), manufacturers=("*",)))) == ""


def test_a_value_with_a_pattern_s_signs_is_itself_too():
    assert outside(series(collection="odd[1]"), Scope(collections=("ODD[1]",))) == ""
    assert outside(series(manufacturer="*"), Scope(manufacturers=("*",))) == ""
    assert outside(series(patient_id="P[1]"), Scope(patients=("p[1]",))) == ""


def test_many_wanted_values_make_no_endless_message():
    said = outside(series(), Scope(patients=tuple(f"Q{n}" for n in range(5000))))
    assert said.startswith("its PatientID is P1, not Q0 or Q1")
    assert said.endswith("or Q9 or 4990 others")


# Collections


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (Scope(all=True), NAMES),
        (Scope(collections=("nlst", "4d-lung", "NLST")), ["NLST", "4D-Lung"]),
        (Scope(collections=("tcga-*",)), ["TCGA-BRCA", "TCGA-LUAD"]),
        (Scope(collections=("?D-LUNG", "*-luad")), ["4D-Lung", "CPTAC-LUAD", "TCGA-LUAD"]),
        (Scope(collections=("[ct]*luad",)), ["CPTAC-LUAD", "TCGA-LUAD"]),
        (Scope(collections=("Twin",)), ["Twin"]),
        (Scope(collections=("twin",)), ["Twin", "TWIN"]),
        (Scope(collections=("odd[1]",)), ["odd[1]"]),
        (Scope(collections=("ODD[1]",)), ["odd[1]"]),
        (Scope(collections=("odd[[]1]",)), ["odd[1]"]),
        (Scope(collections=("odd[0-9]",)), ["odd1"]),
        (Scope(collections=("tcga-*",), exclude=Exclude(collections=("*-brca", "gone"))), ["TCGA-LUAD"]),
        (Scope(all=True, exclude=Exclude(collections=("t*", "odd*", "nlst"))), ["4D-Lung", "CPTAC-LUAD"]),
        (Scope(series=("1",)), []),
    ],
)
def test_the_collections_that_a_scope_means(scope, expected):
    assert names_of(scope, NAMES) == expected


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (Scope(collections=("NLST", "TCGA-LUDA")), r"'TCGA-LUDA' is not among the 9 of http://a/; .*TCGA-LUAD"),
        (Scope(collections=("TCGA",)), "collection 'TCGA' is not among"),
        (Scope(collections=("NLST", "ACRIN-*")), r"the pattern 'ACRIN-\*' fits none of the 9 collections of http://a/"),
        (Scope(collections=("NLST",), exclude=Exclude(collections=("n*",))), "excludes every .*without Collection n"),
        (Scope(all=True, exclude=Exclude(collections=("*",))), "excludes every"),
    ],
)
def test_a_name_that_means_no_collection_is_told(scope, said):
    with pytest.raises(SettingsError, match=said) as caught:
        names_of(scope, NAMES, "http://a/")
    assert caught.value.exit_code is ExitCode.USAGE


# Fingerprints

WITHIN = [
    Scope(),
    Scope(patients=("P1",)),
    Scope(modalities=("P1",)),
    Scope(modalities=("CT",)),
    Scope(modalities=("CT", "MR")),
    Scope(body_parts=("CHEST",)),
    Scope(manufacturers=("CHEST",)),
    Scope(released_since="2024-01-01"),
    Scope(released_since="2024-01-02"),
    Scope(series=("1.2",)),
    Scope(lists=("1.2",)),
    Scope(exclude=Exclude(patients=("P1",))),
    Scope(exclude=Exclude(modalities=("CT",))),
    Scope(exclude=Exclude(body_parts=("CHEST",))),
    Scope(exclude=Exclude(manufacturers=("CHEST",))),
    Scope(exclude=Exclude(series=("1.2",))),
    Scope(modalities=("CT",), exclude=Exclude(patients=("P1",))),
]


def test_whatever_decides_on_a_series_moves_the_fingerprint():
    for one, other in combinations(WITHIN, 2):
        assert fingerprint(one) != fingerprint(other), (one, other)


def test_the_names_of_collections_do_not_move_the_fingerprint():
    for scope in WITHIN:
        for named in ({"collections": ("A",)}, {"collections": ("A", "B*")}, {"all": True}):
            assert fingerprint(replace(scope, **named)) == fingerprint(scope)
        without = replace(scope, all=True, exclude=replace(scope.exclude, collections=("C",)))
        assert fingerprint(without) == fingerprint(scope)


def test_order_case_and_repetition_do_not_move_the_fingerprint():
    one = Scope(modalities=("CT", "MR"), lists=("A",), exclude=Exclude(patients=("p", "q")))
    other = Scope(modalities=("mr", "ct", "MR"), lists=("a",), exclude=Exclude(patients=("Q", "P", "p")))
    assert fingerprint(one) == fingerprint(other)


def test_fingerprints_are_the_same_in_every_version():
    """They lie in ledgers: another form would make every watermark another's."""
    assert fingerprint(Scope(all=True)) == "44136fa355b3678a"
    assert fingerprint(FULL) == "ab5a73c12b30d069"


# Kept as a text


@pytest.mark.parametrize("scope", [*WITHIN, FULL, Scope(all=True), Scope(collections=("Ä*", 'q"'))], ids=describe)
def test_what_is_kept_comes_back(scope):
    assert from_json(to_json(scope)) == scope


def test_only_what_a_scope_says_is_kept():
    assert to_json(Scope(all=True, modalities=("CT",))) == '{"all":true,"modalities":["CT"]}'


@pytest.mark.parametrize(
    "text",
    ["", "3", "[]", "{", '{"colour": ["red"]}', '{"exclude": {"all": true}}', '{"series": [1]}', '{"exclude": 3}'],
)
def test_a_text_that_is_no_scope_is_refused(text):
    with pytest.raises(SettingsError, match="not a scope that this version knows"):
        from_json(text)


# Soundness


def test_a_sound_scope_is_given_back():
    assert require_sound(FULL) is FULL


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (Scope(collections=("A", " ")), "collections: an empty name"),
        (Scope(all=True, manufacturers=("",)), "manufacturers: an empty name"),
        (Scope(lists=("",)), "lists: an empty name"),
        (Scope(series=("",)), "series: an empty name"),
        (Scope(all=True, exclude=Exclude(series=("",))), "exclude_series: an empty name"),
        (Scope(all=True, exclude=Exclude(collections=("\t",))), "exclude_collections: an empty name"),
        (Scope(all=True, collections=("A", "B")), r"\(A, B\) and --all"),
        (Scope(all=True, released_since="2024-02-30"), "released_since: '2024-02-30' is not right.*YYYY-MM-DD"),
        (Scope(all=True, released_since=""), "released_since"),
    ],
)
def test_an_unsound_scope_is_refused(scope, said):
    with pytest.raises(SettingsError, match=said):
        require_sound(scope)


def test_days():
    assert [is_day(text) for text in ("2024-02-29", "2024-2-29", "20240229", "2024-W01-1", "2023-02-29", "")] == [
        True, False, False, False, False, False,
    ]  # fmt: skip
