"""Canonical rows as nouns, and as the ledger keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from mirror.archive.rows import as_noun, from_json, to_json
from mirror.errors import BadAnswer
from mirror.model import Collection, Patient, Series, SeriesSize, Study

SERIES: dict[str, Any] = {
    "SeriesInstanceUID": "1.2.3",
    "Collection": "VICTRE",
    "PatientID": "P1",
    "StudyInstanceUID": "1.2",
}


def test_a_whole_row():
    row = SERIES | {
        "Modality": "MG", "BodyPartExamined": "BREAST", "Manufacturer": "Acme", "SeriesNumber": 5,
        "SeriesDescription": "cc", "StudyDate": "2018-01-06", "StudyDescription": "d", "ImageCount": 57,
        "FileSize": 165975906, "MaxSubmissionTimestamp": "2019-02-25", "DateReleased": "2019-03-08",
        "LicenseName": "CC BY 3.0", "LicenseURI": "http://x", "DataDescriptionURI": "https://doi.org/1",
        "ProtocolName": "p", "Unheard": [1],
    }  # fmt: skip
    assert as_noun(Series, row) == Series(
        series_instance_uid="1.2.3", collection="VICTRE", patient_id="P1", study_instance_uid="1.2", modality="MG",
        body_part_examined="BREAST", manufacturer="Acme", series_number="5", series_description="cc",
        study_date="2018-01-06", study_description="d", image_count=57, file_size=165975906,
        max_submission_timestamp="2019-02-25", date_released="2019-03-08", license_name="CC BY 3.0",
        license_uri="http://x", data_description_uri="https://doi.org/1", raw=row,
    )  # fmt: skip


def test_what_the_archive_leaves_out_is_none():
    series = as_noun(Series, SERIES)
    assert (series.modality, series.image_count, series.file_size, series.date_released) == (None,) * 4
    assert series.raw == SERIES


@pytest.mark.parametrize("missing", ["SeriesInstanceUID", "Collection"])
def test_a_row_without_what_names_it_is_a_bad_answer(missing: str):
    row = {name: value for name, value in SERIES.items() if name != missing}
    with pytest.raises(BadAnswer, match=r"a row of Series is not usable: .*missing required field"):
        as_noun(Series, row)


def test_what_may_be_null_in_the_archive_is_the_empty_identifier():
    series = as_noun(Series, {"SeriesInstanceUID": "1.2.3", "Collection": "A"})
    assert (series.patient_id, series.study_instance_uid) == ("", "")
    assert as_noun(Patient, {"Collection": "A"}).patient_id == ""


def test_what_is_known_fills_in_what_is_missing_and_no_more():
    assert as_noun(Patient, {"PatientID": "P1"}, collection="A").collection == "A"
    assert as_noun(Patient, {"PatientID": "P1", "Collection": "B"}, collection="A").collection == "B"
    assert as_noun(Study, {"StudyInstanceUID": "1"}, collection="A", patient_id="P").patient_id == "P"


@pytest.mark.parametrize(
    ("name", "value"), [("ImageCount", "57"), ("ImageCount", 5.5), ("Collection", 5), ("FileSize", [])]
)
def test_a_value_of_another_type_is_a_bad_answer(name: str, value: object):
    with pytest.raises(BadAnswer, match="a row of Series is not usable"):
        as_noun(Series, SERIES | {name: value})


def test_numbers_of_series_are_text():
    assert as_noun(Series, SERIES | {"SeriesNumber": 5.5}).series_number == "5.5"
    assert as_noun(Series, SERIES | {"SeriesNumber": 0}).series_number == "0"


def test_the_other_nouns():
    assert as_noun(Collection, {"Collection": "A"}) == Collection(collection="A")
    assert as_noun(SeriesSize, {"TotalSizeInBytes": 10, "ObjectCount": 2}) == SeriesSize(
        total_size_in_bytes=10, object_count=2
    )
    row = {"Collection": "A", "PatientID": "P", "StudyInstanceUID": "1", "StudyID": "7", "StudyDate": "2018-01-06"}
    study = as_noun(Study, row)
    assert (study.study_id, study.study_date, study.study_description, study.raw) == ("7", "2018-01-06", None, row)


def test_a_size_without_bytes_says_so():
    with pytest.raises(BadAnswer, match="SeriesSize"):
        as_noun(SeriesSize, {"TotalSizeInBytes": 10})
    assert as_noun(SeriesSize, {"ObjectCount": 2}).total_size_in_bytes is None


def test_a_bad_row_is_quoted_but_not_without_end():
    with pytest.raises(BadAnswer) as caught:
        as_noun(Series, {"SeriesDescription": "x" * 10_000})
    assert len(str(caught.value)) < 400


def test_a_row_is_kept_whole():
    row = SERIES | {"Unheard": {"a": [1, 2.5, None, "Ångström\u2028"]}, "n": 2**53 + 1}
    assert from_json(to_json(row)) == row
