"""The nouns' few rules."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from mirror import model
from mirror.model import TOLERABLE, Finding, FindingKind, Scope, Series, SeriesState, Verdict

NOUNS = [kind for kind in vars(model).values() if isinstance(kind, type) and is_dataclass(kind)]


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.__name__)
def test_nouns_are_frozen_and_small(noun: type):
    assert noun.__dataclass_params__.frozen  # type: ignore[attr-defined] - of every dataclass
    assert not hasattr(object.__new__(noun), "__dict__")


def test_a_noun_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Scope().all = True  # type: ignore[misc] - that is the point


@pytest.mark.parametrize(
    ("scope", "empty"),
    [
        (Scope(), True),
        (Scope(patients=("P1",), modalities=("CT",), body_parts=("CHEST",)), True),
        (Scope(collections=("A",)), False),
        (Scope(all=True), False),
        (Scope(series=("1.2",)), False),
    ],
)
def test_a_scope_that_names_no_part_of_the_archive_is_empty(scope: Scope, empty: bool):
    assert scope.is_empty() is empty


def test_a_raw_row_does_not_show():
    series = Series(series_instance_uid="1", collection="A", patient_id="P", study_instance_uid="2", raw={"a": "long"})
    assert "long" not in repr(series)
    assert [f.name for f in fields(Series)][-1] == "raw"


def test_a_finding_in_words_names_the_narrowest_place():
    finding = Finding(kind=FindingKind.TRUNCATED, detail="10 bytes of 20 came", collection="A")
    assert str(finding) == "truncated: 10 bytes of 20 came [A]"
    finding = Finding(kind=FindingKind.TRUNCATED, detail="d", collection="A", series_instance_uid="1.2")
    assert str(finding) == "truncated: d [1.2]"
    finding = Finding(kind=FindingKind.TRUNCATED, detail="d", series_instance_uid="1.2", sop_instance_uid="1.2.3")
    assert str(finding) == "truncated: d [1.2.3]"
    assert str(Finding(kind=FindingKind.STALE_SERVER, detail="d")) == "stale-server: d"


@pytest.mark.parametrize("kind", FindingKind)
def test_which_findings_make_a_verdict_bad(kind: FindingKind):
    finding = Finding(kind=kind, detail="d")
    tolerable = kind.value in {
        "other-study", "other-patient", "malformed", "stale-server", "missing-upstream", "withdrawn",
        "left-over",
    }  # fmt: skip
    assert (kind in TOLERABLE) is tolerable
    assert Verdict((finding,)).ok is tolerable
    assert Verdict((finding,), strict=True).ok is False


def test_one_serious_finding_among_tolerable_ones_is_enough():
    mild, bad = (Finding(kind=k, detail="d") for k in (FindingKind.OTHER_STUDY, FindingKind.TRUNCATED))
    assert Verdict((mild, bad)).ok is False
    assert Verdict((mild, mild)).ok is True
    assert Verdict().ok is True
    assert Verdict(strict=True).ok is True


def test_words_are_an_interface():
    """These stand in ledgers, reports and logs that exist."""
    assert [s.value for s in SeriesState] == ["planned", "open", "complete", "incomplete", "quarantined"]
    assert [s.value for s in model.Why] == ["new", "changed", "unfinished", "damaged", "unchanged"]
    assert [p.value for p in model.Presence] == ["present", "missing", "withdrawn"]
    happened = ["came", "changed", "left", "missing", "withdrawn", "returned", "damaged", "repaired", "pruned"]
    assert [h.value for h in model.Happened] == happened
    words = {
        "not-dicom", "truncated", "malformed", "wrong-instance", "wrong-series", "other-study", "other-patient",
        "md5-differs", "digest-differs", "unavailable", "count-differs", "size-differs", "size-unknown",
        "instances-missing", "duplicate-instance", "unlisted-instance", "series-refused", "crawl-failed",
        "stale-server", "missing-upstream", "withdrawn", "withdrawal-refused", "file-missing", "file-truncated",
        "file-changed", "file-unreadable", "file-misplaced", "file-unrecorded", "file-foreign", "left-over",
    }  # fmt: skip
    assert words <= {kind.value for kind in FindingKind}
