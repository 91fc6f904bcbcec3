"""Servers by name and URL, parameters and rows in both spellings, and what a status means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mirror.archive.dialects import (
    KNOWN_SERVERS,
    decode_day,
    decode_row,
    encode_day,
    encode_params,
    encode_row,
    error_of,
    find_endpoint,
    find_server,
    unknown_series_hint,
)
from mirror.archive.endpoints import ENDPOINTS, DialectName
from mirror.errors import ArchiveError, BadAnswer, NotFound, Refused, ServerFault, SettingsError, Throttled

NBIA = find_server("http://x/nbia-api/services/v4/")
TCIA = find_server("http://x/services/v4/TCIA/query/")

# Servers


@pytest.mark.parametrize(
    ("text", "base", "dialect"),
    [
        ("nbia", "https://nbia.cancerimagingarchive.net/nbia-api/services/v4/", "nbia"),
        ("NBIA", "https://nbia.cancerimagingarchive.net/nbia-api/services/v4/", "nbia"),
        ("nlst", "https://nlst.cancerimagingarchive.net/nbia-api/services/v4/", "nbia"),
        ("tcia", "https://services.cancerimagingarchive.net/services/v4/TCIA/query/", "tcia"),
        ("https://a.example/nbia-api/services/v4/", "https://a.example/nbia-api/services/v4/", "nbia"),
        ("https://a.example/nbia-api/services/v4", "https://a.example/nbia-api/services/v4/", "nbia"),
        ("https://a.example/nbia-api/services/v4//", "https://a.example/nbia-api/services/v4/", "nbia"),
        (" https://a.example/nbia-api/v4/ ", "https://a.example/nbia-api/v4/", "nbia"),
        ("https://a.example", "https://a.example/nbia-api/services/v4/", "nbia"),
        ("https://a.example/", "https://a.example/nbia-api/services/v4/", "nbia"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/nbia-api/services/v4/", "nbia"),
        ("http://[::1]:8080/", "http://[::1]:8080/nbia-api/services/v4/", "nbia"),
        ("https://a.example/services/v4/TCIA/query", "https://a.example/services/v4/TCIA/query/", "tcia"),
        ("https://a.example/services/v4/TCIA/query/", "https://a.example/services/v4/TCIA/query/", "tcia"),
        ("https://a.example/services/v4/TCIA", "https://a.example/services/v4/TCIA/query/", "tcia"),
        ("https://a.example/services/v4/TCIA/", "https://a.example/services/v4/TCIA/query/", "tcia"),
        ("HTTPS://a.example/services/v4/TCIA/", "https://a.example/services/v4/TCIA/query/", "tcia"),
    ],
)
def test_a_server_by_its_name_or_url(text: str, base: str, dialect: DialectName):
    server = find_server(text)
    assert (server.base, server.dialect) == (base, dialect)


def test_a_dialect_that_is_given_wins_over_the_path():
    assert find_server("http://a.example", "tcia").base == "http://a.example/services/v4/TCIA/query/"
    assert find_server("http://a.example/odd/place", "tcia").dialect == "tcia"
    assert find_server("http://a.example/odd/query", "nbia").dialect == "nbia"
    assert find_server("nlst", "nbia") == KNOWN_SERVERS["nlst"]


def test_a_name_and_another_dialect_than_it_speaks_is_an_error():
    with pytest.raises(SettingsError, match="server 'tcia' speaks the tcia dialect, not nbia"):
        find_server("tcia", "nbia")


def test_the_retired_host_warns_by_name_and_by_url():
    assert "retired by TCIA in 2022" in find_server("tcia").warning
    assert find_server("https://services.cancerimagingarchive.net/services/v4/TCIA") == find_server("tcia")
    assert find_server("nbia").warning == find_server("nlst").warning == ""
    assert find_server("https://services.cancerimagingarchive.net").warning == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nbai", "did you mean 'nbia'?"),
        ("tcai", "did you mean 'tcia'?"),
        ("nothing like it", "neither a base URL (http://... or https://...) nor one of nbia, nlst, tcia"),
        ("", "neither a base URL"),
        ("ftp://a.example/", "neither a base URL"),
        ("a.example/nbia-api/services/v4", "neither a base URL"),
        ("http://", "neither a base URL"),
        ("http:///path", "neither a base URL"),
        ("http://[::1", "neither a base URL"),
        ("http://a.example:port/", "neither a base URL"),
        ("http://a.example:99999/", "neither a base URL"),
        ("http://a.example:0/", "neither a base URL"),
        ("https://a.example/v4?api_key=1", "must end with its path"),
        ("https://a.example/v4#part", "must end with its path"),
    ],
)
def test_what_is_no_server(text: str, said: str):
    with pytest.raises(SettingsError) as caught:
        find_server(text)
    assert said in str(caught.value)


def test_credentials_in_a_url_are_refused_and_not_repeated():
    with pytest.raises(SettingsError, match="token_file") as caught:
        find_server("https://someone:s3cret@a.example/nbia-api/services/v4/")
    assert "s3cret" not in str(caught.value)
    assert "someone" not in str(caught.value)
    with pytest.raises(SettingsError, match="without") as caught:
        find_server("https://someone:s3cret@a.example/v4?x=1")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "call", "url"),
    [
        (NBIA, "getSeries", "http://x/nbia-api/services/v4/getSeries"),
        (NBIA, "PatientsByModality", "http://x/nbia-api/services/v4/getPatientByCollectionAndModality"),
        (NBIA, "ContentsByName", "http://x/nbia-api/services/v1/getContentsByName"),
        (TCIA, "getSeries", "http://x/services/v4/TCIA/query/getSeries"),
        (TCIA, "PatientsByModality", "http://x/services/v4/TCIA/query/PatientsByModality"),
        (TCIA, "ContentsByName", "http://x/services/v4/SharedList/query/ContentsByName"),
    ],
)
def test_where_a_call_lies(server: Any, call: str, url: str):
    assert server.url(ENDPOINTS[call]) == url


def test_a_call_that_a_dialect_lacks_is_an_error():
    with pytest.raises(SettingsError, match="getUpdatedSeries does not exist in the tcia dialect"):
        TCIA.url(ENDPOINTS["getUpdatedSeries"])


# Calls


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("getSeries", "getSeries"),
        ("PatientsByModality", "PatientsByModality"),
        ("getPatientByCollectionAndModality", "PatientsByModality"),
        ("ContentsByName", "ContentsByName"),
        ("getContentsByName", "ContentsByName"),
    ],
)
def test_a_call_by_the_name_it_has_in_any_dialect(call: str, name: str):
    assert find_endpoint(call).name == name


@pytest.mark.parametrize(("call", "near"), [("getseries", "getSeries"), ("getPatients", "getPatient")])
def test_an_unknown_call_names_the_nearest(call: str, near: str):
    with pytest.raises(SettingsError, match=rf"unknown call '{call}'; did you mean {near}\? The calls are: get"):
        find_endpoint(call)


def test_an_unknown_call_with_nothing_near_lists_all():
    with pytest.raises(SettingsError) as caught:
        find_endpoint("xyzzy")
    assert str(caught.value).startswith("unknown call 'xyzzy'. The calls are: getCollectionValues, ")
    assert str(caught.value).endswith(", ".join(list(ENDPOINTS)[-2:]))


# Parameters


def test_parameters_by_either_name():
    new = ENDPOINTS["NewPatientsInCollection"]
    for name in ("Date", "fromDate"):
        given = {"Collection": "A", name: "2020-01-31"}
        assert encode_params(new, "nbia", given) == {"Collection": "A", "fromDate": "01-31-2020"}
    assert encode_params(new, "tcia", {"Collection": "A", "Date": "2020-01-31"}) == {
        "Collection": "A",
        "Date": "2020-01-31",
    }


def test_a_value_is_sent_as_it_is():
    series = ENDPOINTS["getSeries"]
    given = {"Collection": " a+b&c=d é", "PatientID": "2020-01-31", "Manufacturer": ""}
    assert encode_params(series, "nbia", given) == given
    updated = ENDPOINTS["getUpdatedSeries"]
    assert encode_params(updated, "nbia", {"Date": "01-31-2020"}) == {"fromDate": "01-31-2020"}
    assert encode_params(updated, "nbia", {"Date": "yesterday"}) == {"fromDate": "yesterday"}
    assert encode_params(updated, "nbia", {}) == {}


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
def test_an_unknown_parameter_names_those_there_are(dialect: DialectName):
    with pytest.raises(SettingsError, match=r"getSeriesSize has no parameter 'Series'; it takes: SeriesInstanceUID$"):
        encode_params(ENDPOINTS["getSeriesSize"], dialect, {"Series": "1.2"})
    with pytest.raises(SettingsError, match="getCollectionValues has no parameter 'x'; it takes: none"):
        encode_params(ENDPOINTS["getCollectionValues"], dialect, {"x": "1"})


def test_a_parameter_of_the_other_dialect_is_unknown():
    given = {"SeriesInstanceUID": "1.2", "IncludeMD5": "Yes"}
    assert encode_params(ENDPOINTS["getImage"], "nbia", given) == given
    with pytest.raises(SettingsError, match="getImage has no parameter 'IncludeMD5'"):
        encode_params(ENDPOINTS["getImage"], "tcia", given)
    with pytest.raises(SettingsError, match="NewPatientsInCollection has no parameter 'fromDate'"):
        encode_params(ENDPOINTS["NewPatientsInCollection"], "tcia", {"Collection": "A", "fromDate": "2020-01-31"})


def test_a_missing_parameter_is_named_as_the_dialect_spells_it():
    with pytest.raises(SettingsError, match="NewPatientsInCollection needs the parameter fromDate"):
        encode_params(ENDPOINTS["NewPatientsInCollection"], "nbia", {"Collection": "A"})
    with pytest.raises(SettingsError, match="NewPatientsInCollection needs the parameter Date"):
        encode_params(ENDPOINTS["NewPatientsInCollection"], "tcia", {"Collection": "A"})


# Days


@pytest.mark.parametrize(
    ("wire", "day"),
    [
        ("01-31-2020", "2020-01-31"),
        ("2020-01-31", "2020-01-31"),
        ("2020-01-31 13:14:15.0", "2020-01-31"),
        ("2020-01-31T13:14:15", "2020-01-31"),
        ("20200131", "20200131"),
        ("01/31/2020", "01/31/2020"),
        ("", ""),
        ("unknown", "unknown"),
    ],
)
def test_days_from_the_wire(wire: str, day: str):
    assert decode_day(wire) == day


def test_days_to_the_wire():
    assert encode_day("nbia", "2020-01-31") == "01-31-2020"
    assert encode_day("tcia", "2020-01-31") == "2020-01-31"
    assert encode_day("nbia", "unknown") == "unknown"


# Rows


def test_both_spellings_become_one_row():
    nbia = {
        "PatientId": "P1", "StudyDesc": "Thorax", "MaxSubmissionTimestamp": "02-25-2019", "ImageCount": 57,
        "FileSize": 165975906, "SeriesNumber": 5.0, "Authorized": 1,
    }  # fmt: skip
    tcia = {
        "PatientID": "P1", "StudyDescription": "Thorax", "TimeStamp": "2019-02-25 11:12:13.0", "ImageCount": "57",
        "FileSize": "165975906.000000", "SeriesNumber": "5.000000", "Authorized": "1",
    }  # fmt: skip
    assert decode_row(nbia) == decode_row(tcia)
    assert decode_row(nbia) == {
        "PatientID": "P1", "StudyDescription": "Thorax", "MaxSubmissionTimestamp": "2019-02-25", "ImageCount": 57,
        "FileSize": 165975906, "SeriesNumber": 5, "Authorized": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "decoded"),
    [
        ("SeriesNumber", 5.5, 5.5),
        ("SeriesNumber", "5.500000", 5.5),
        ("SeriesNumber", 500, 500),
        ("SeriesNumber", "-3", -3),
        ("LongitudinalTemporalOffsetFromEvent", "-12.25", -12.25),
        ("TotalSizeInBytes", "149149266.000000", 149149266),
        ("TotalSizeInBytes", "9007199254740993", 9007199254740993),
        ("ImageCount", 57.0, 57),
        ("FileSize", 2**63 - 1, 2**63 - 1),
        ("ImageCount", " ", None),
        ("PatientID", 1215936303, "1215936303"),
        ("PatientID", "0071", "0071"),
        ("Unheard", {"of": [1, "2"]}, {"of": [1, "2"]}),
        ("Unheard", "01-31-2020", "01-31-2020"),
    ],
)
def test_values(name: str, value: object, decoded: object):
    got = decode_row({name: value})[name]
    assert got == decoded
    assert type(got) is type(decoded)


def test_a_null_is_left_out():
    assert decode_row({"Modality": None, "Unheard": None, "Collection": "A"}) == {"Collection": "A"}


@pytest.mark.parametrize("value", ["many", "1e3", [], {}, "nan", "1.2.3", "inf", 1e400, 2**63, "9" * 30])
def test_a_number_that_is_none_is_a_bad_answer(value: object):
    with pytest.raises(BadAnswer, match=r"ImageCount is .*, which is not a number"):
        decode_row({"ImageCount": value})


def test_a_row_on_its_way_back_has_the_dialects_fields_and_all_it_came_with():
    wire = {
        "SeriesInstanceUID": "1.2.3", "SeriesNumber": 5, "PatientID": "P1", "AdmittingDiagnosisDescription": "x",
        "ImageCount": 3, "MaxSubmissionTimestamp": "02-25-2019", "StudyDesc": "Thorax", "StudyDate": "01-06-2018",
        "Novelty": "kept",
    }  # fmt: skip
    row = decode_row(wire)
    assert encode_row(ENDPOINTS["getSeries"], "nbia", row) == wire
    assert list(encode_row(ENDPOINTS["getSeries"], "nbia", row)) == list(wire)
    assert encode_row(ENDPOINTS["getSeries"], "tcia", row) == {
        "SeriesInstanceUID": "1.2.3", "SeriesNumber": "5.000000", "PatientID": "P1", "ImageCount": 3,
        "Novelty": "kept",
    }  # fmt: skip
    size = {"TotalSizeInBytes": 1806, "ObjectCount": 3}
    assert encode_row(ENDPOINTS["getSeriesSize"], "nbia", size) == size
    assert encode_row(ENDPOINTS["getSeriesSize"], "tcia", size) == {
        "TotalSizeInBytes": "1806.000000",
        "ObjectCount": 3,
    }
    assert decode_row(encode_row(ENDPOINTS["getSeriesSize"], "tcia", size)) == size


# Statuses

TEXT = b"The user has not been granted the access to image with given SeriesInstanceUID,1.2.3."


@pytest.mark.parametrize(
    ("status", "retry_after", "kind"),
    [
        (400, None, Refused),
        (401, None, Refused),
        (403, None, Refused),
        (404, None, NotFound),
        (405, None, Refused),
        (429, None, Throttled),
        (429, 7.0, Throttled),
        (471, None, Refused),
        (500, None, ServerFault),
        (502, None, ServerFault),
        (503, None, ServerFault),
        (503, 7.0, Throttled),
        (504, None, ServerFault),
        (571, None, ServerFault),
        (302, None, ServerFault),
        (206, None, ServerFault),
    ],
)
def test_what_a_status_means(status: int, retry_after: float | None, kind: type[ArchiveError]):
    error = error_of(NBIA, ENDPOINTS["getCollectionValues"], status, b"", asked="a()", retry_after=retry_after)
    assert type(error) is kind
    assert error.asked == "a()"
    assert f"status {status}" in str(error)
    if isinstance(error, Throttled):
        assert error.retry_after == retry_after
    if isinstance(error, ServerFault):
        assert error.status == status


@pytest.mark.parametrize("server", [NBIA, TCIA], ids=["nbia", "tcia"])
@pytest.mark.parametrize("call", ["getImage", "getSingleImage", "getSeriesSize"])
def test_a_refused_series_may_lie_on_another_host(server: Any, call: str):
    error = error_of(server, ENDPOINTS[call], 400, TEXT, asked="a()")
    assert TEXT.decode() in str(error)
    assert "NLST has its own (--server nlst)" in str(error)
    assert "(--server tcia)" in str(error)
    assert "(--server nbia)" in str(error)


def test_a_refused_list_has_no_such_hint():
    error = error_of(NBIA, ENDPOINTS["getCollectionValues"], 400, b"Invalid query parameter: 'x'", asked="a()")
    assert str(error) == "a(): status 400: Invalid query parameter: 'x'"


def test_a_refused_user_is_not_sent_to_another_host():
    for status in (401, 403):
        assert "--server" not in str(error_of(NBIA, ENDPOINTS["getImage"], status, b"", asked="a()"))


def test_the_servers_words_are_told_on_one_line_and_not_without_end():
    told = {"errorDescription": "Mandatory\n Attribute", "suggestedAction": "none", "detailedMessage": "Missing : [X]"}
    error = error_of(TCIA, ENDPOINTS["getSeriesSize"], 571, json.dumps(told).encode(), asked="a()")
    assert error.reason == "status 571: Mandatory Attribute; Missing : [X]"
    error = error_of(TCIA, ENDPOINTS["getSeriesSize"], 500, b'{"errorMessage":"no"}', asked="a()")
    assert error.reason == "status 500: no"
    assert error_of(TCIA, ENDPOINTS["getSeriesSize"], 500, b'{"other":"x"}', asked="a()").reason == (
        'status 500: {"other":"x"}'
    )
    assert len(error_of(NBIA, ENDPOINTS["getSeries"], 500, b"x" * 4096, asked="a()").reason) < 400
    assert error_of(NBIA, ENDPOINTS["getSeries"], 500, b"\xff\xfe", asked="a()").reason == "status 500: \ufffd\ufffd"


def test_an_unknown_series_is_told_with_the_hosts_it_may_be_on():
    assert unknown_series_hint(NBIA).startswith("http://x/nbia-api/services/v4/ does not list it; a series may lie on")
