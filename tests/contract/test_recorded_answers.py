"""Rows that the real server sent: the client's half reads them, the server's half writes them again."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from mirror.archive.dialects import decode_row, encode_row
from mirror.archive.endpoints import ENDPOINTS, Format
from mirror.archive.fields import FIELDS, canonical
from mirror.archive.rows import as_noun
from mirror.model import Patient, Series, Study
from mirror.serve.formats import encode_rows

DATA = Path(__file__).parent.parent / "data"
V1: dict[str, list[dict[str, Any]]] = json.loads((DATA / "nbia-v1-answers.json").read_text())


def test_get_series_comes_back_byte_for_byte() -> None:
    (wire,) = json.loads((DATA / "nbia-v4-getSeries.json").read_text())
    row = decode_row(wire)
    again = encode_row(ENDPOINTS["getSeries"], "nbia", row)
    body = b"".join(encode_rows(ENDPOINTS["getSeries"], "nbia", Format.JSON, [again]))
    assert body == json.dumps([wire], separators=(",", ":")).encode()


def test_get_series_is_read_as_a_series() -> None:
    (wire,) = json.loads((DATA / "nbia-v4-getSeries.json").read_text())
    series = as_noun(Series, decode_row(wire))
    assert (series.collection, series.patient_id, series.image_count) == ("VICTRE", "1215936303", 57)
    assert (series.file_size, series.date_released) == (165975906, "2019-03-08")
    assert (series.study_date, series.max_submission_timestamp) == ("2018-01-06", "2019-02-25")
    assert series.study_description == "DBT Reconstructed Volume"
    assert series.license_name == "Creative Commons Attribution 3.0 Unported License"


def test_get_updated_series_comes_back_under_the_newer_name_of_its_time_stamp() -> None:
    wire = json.loads((DATA / "nbia-v4-getUpdatedSeries.json").read_text())
    again = encode_row(ENDPOINTS["getUpdatedSeries"], "nbia", decode_row(wire))
    newer = {("MaxSubmissionTimestamp" if name == "TimeStamp" else name): value for name, value in wire.items()}
    assert list(again.items()) == list(newer.items())


def test_series_metadata_comes_back_line_for_line() -> None:
    text = (DATA / "nbia-v4-getSeriesMetadata.csv").read_text()
    rows = [decode_row(wire) for wire in csv.DictReader(io.StringIO(text))]
    endpoint = ENDPOINTS["getSeriesMetadata"]
    again = b"".join(encode_rows(endpoint, "nbia", Format.CSV, [encode_row(endpoint, "nbia", row) for row in rows]))
    assert again.decode().splitlines() == text.splitlines()
    assert (rows[0]["SeriesNumber"], rows[0]["FileSize"], rows[0]["StudyDate"]) == (500, 26405888, "1997-09-15")


@pytest.mark.parametrize(("call", "row"), [(call, row) for call, rows in V1.items() for row in rows])
def test_version_1_rows_have_canonical_names_and_iso_days(call: str, row: dict[str, Any]) -> None:
    read = decode_row(row)
    assert len(read) == len(row)
    assert set(read) <= set(FIELDS)
    for name, value in row.items():
        if isinstance(value, str) and value.endswith(".0") and " " in value:
            assert read[canonical(name)] == value[:10]
        else:
            assert read[canonical(name)] == value


def test_version_1_rows_are_read_as_nouns() -> None:
    series = as_noun(Series, decode_row(V1["getSeries"][2]))
    assert (series.modality, series.series_number, series.max_submission_timestamp) == ("SEG", "1000", "2014-12-19")
    assert (series.file_size, series.date_released) == (None, None)
    patient = as_noun(Patient, decode_row(V1["NewPatientsInCollection"][0]))
    assert (patient.collection, patient.patient_id) == ("CBIS-DDSM", "Mass-Training_P_01009_RIGHT_CC_1")
    study = as_noun(Study, decode_row(V1["NewStudiesInPatientCollection"][0]))
    assert (study.study_date, study.study_id) == ("2016-07-21", "DDSM")


def test_the_retired_server_writes_decimals_as_text_and_days_in_iso() -> None:
    row = {"SeriesInstanceUID": "1.2", "SeriesNumber": 500, "SeriesDate": "1997-09-15", "ImageCount": 50}
    wire = encode_row(ENDPOINTS["getSeries"], "tcia", row)
    assert wire == row | {"SeriesNumber": "500.000000"}
    assert encode_row(ENDPOINTS["getSeriesSize"], "tcia", {"TotalSizeInBytes": 149149266, "ObjectCount": 274}) == {
        "TotalSizeInBytes": "149149266.000000",
        "ObjectCount": 274,
    }
    assert decode_row(wire) == row
