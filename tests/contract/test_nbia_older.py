"""The nbia server's calls before v4, and its tokens, against what its source and recorded answers say."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fakes.archive import RELEASED, FakeArchive
from fakes.asking import ask
from fakes.dicom import instance_uid, make_series, uid

from mirror.archive.endpoints import ENDPOINTS
from mirror.archive.fields import FIELDS
from mirror.archive.older import OLDER
from mirror.lists import make_list

ALPHA, BETA = uid(1, 1, 1, 1), uid(2, 1, 1, 1)
BIG = uid(2, 1, 2, 1)
V1: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent.parent / "data" / "nbia-v1-answers.json").read_text()
)
STAMP = re.compile(r"\d{4}-\d\d-\d\d 00:00:00\.0")
VERSIONS = ("../v1/", "../v2/")
versions = pytest.mark.parametrize("version", VERSIONS)

pytestmark = pytest.mark.asyncio


async def rows(archive: FakeArchive, call: str, **params: str) -> list[dict[str, Any]]:
    answer = await ask(archive.url() + call, **params)
    assert answer.status == 200, answer.text
    return json.loads(answer.body) if answer.body else []


@pytest.mark.parametrize("path", OLDER)
async def test_every_older_call_is_lax_known_and_of_fields_that_are_known(path: str) -> None:
    endpoint = OLDER[path]
    assert endpoint.lax
    assert endpoint.older
    assert path.startswith("../")
    assert [name for name in endpoint.nbia_fields if endpoint.canonical(name) not in FIELDS] == []
    assert endpoint.name in ENDPOINTS or endpoint.name == "getSeriesMetaData"


@pytest.mark.parametrize("call", [c for c in V1 if f"../v1/{c}" in OLDER])
async def test_recorded_answers_have_the_fields_that_are_served_in_that_order(call: str) -> None:
    served = list(OLDER[f"../v1/{call}"].nbia_fields)
    for row in V1[call]:
        assert list(row) == [name for name in served if name in row]


@versions
async def test_series_have_time_stamps_and_the_names_of_old(archive: FakeArchive, version: str) -> None:
    old = await rows(archive, version + "getSeries", format="json", whatever="1")
    new = await rows(archive, "getSeries")
    assert [row["SeriesInstanceUID"] for row in old] == [row["SeriesInstanceUID"] for row in new]
    for before, after in zip(old, new, strict=True):
        assert set(before) <= set(OLDER[version + "getSeries"].nbia_fields)
        assert before["FileSize"] == after["FileSize"]
        month, day, year = after["DateReleased"].split("-")
        assert before["DateReleased"] == f"{year}-{month}-{day} 00:00:00.0"
        assert STAMP.fullmatch(before["TimeStamp"])
        assert "Authorized" not in before


@versions
async def test_filters_and_values_regard_the_case(archive: FakeArchive, version: str) -> None:
    assert await rows(archive, "getSeries", BodyPartExamined="BRAIN") != []
    stored = {row["BodyPartExamined"] for row in await rows(archive, version + "getSeries")}
    values = {row["BodyPartExamined"] for row in await rows(archive, version + "getBodyPartValues")}
    assert values == stored
    assert "Brain" in values
    exact = await rows(archive, version + "getSeries", BodyPartExamined="Brain")
    assert exact != []
    assert {row["BodyPartExamined"] for row in exact} == {"Brain"}
    assert await rows(archive, version + "getSeries", BodyPartExamined="bRAIN") == []


@versions
async def test_new_is_after_the_day_and_days_are_spelled_in_two_ways(archive: FakeArchive, version: str) -> None:
    year, month, day = RELEASED.split("-")
    before = {"Collection": "Lung-Alpha", "Date": "2020/01/30"}
    that_day = {"Collection": "Lung-Alpha", "Date": f"{year}/{month}/{day}"}
    for call in ("NewPatientsInCollection", "NewStudiesInPatientCollection"):
        assert len(await rows(archive, version + call, **before)) == 2
        assert await rows(archive, version + call, **that_day) == []
        assert await rows(archive, version + call, Collection="Lung-Alpha", Date="01-30-2020") == []
        missing = await ask(archive.url() + version + call, Collection="Lung-Alpha", fromDate="2020/01/30")
        assert (missing.status, missing.text) == (400, ENDPOINTS[call].missing)
    updated = await rows(archive, version + "getUpdatedSeries", fromDate="30/01/2020")
    assert {row["Collection"] for row in updated} >= {"Lung-Alpha"}
    assert {tuple(row)[-1] for row in updated} == {"DateReleased"}
    late = await rows(archive, version + "getUpdatedSeries", fromDate=f"{day}/{month}/{year}")
    assert "Lung-Alpha" not in {row["Collection"] for row in late}
    assert await rows(archive, version + "getUpdatedSeries", fromDate="01-30-2020") == []


@versions
async def test_patients_studies_and_sizes(archive: FakeArchive, version: str) -> None:
    patients = await rows(archive, version + "getPatient", Collection="Lung-Alpha")
    assert [row["PatientId"] for row in patients] == [
        row["PatientId"] for row in await rows(archive, "getPatient", Collection="Lung-Alpha")
    ]
    assert all("Authorized" not in row and row["Phantom"] == "NO" for row in patients)
    studies = await rows(archive, version + "getPatientStudy", Collection="Lung-Alpha")
    assert studies != []
    assert all(STAMP.fullmatch(row["StudyDate"]) for row in studies)
    by_modality = await rows(
        archive, version + "getPatientByCollectionAndModality", Collection="Lung-Alpha", Modality="CT"
    )
    assert [list(row) for row in by_modality] == [["PatientId"]] * len(by_modality)
    size = await rows(archive, version + "getSeriesSize", SeriesInstanceUID=BIG)
    assert size == await rows(archive, "getSeriesSize", SeriesInstanceUID=BIG)
    assert (await ask(archive.url() + version + "getSeriesSize", SeriesInstanceUID="1.2.3")).body == b"[{}]"
    assert await rows(archive, version + "getSOPInstanceUIDs", SeriesInstanceUID=BIG) == await rows(
        archive, "getSOPInstanceUIDs", SeriesInstanceUID=BIG
    )


@versions
async def test_metadata_of_one_series_is_text(archive: FakeArchive, version: str) -> None:
    url = archive.url() + version + "getSeriesMetaData"
    (row,) = await rows(archive, version + "getSeriesMetaData", SeriesInstanceUID=ALPHA)
    (series,) = await rows(archive, "getSeries", SeriesInstanceUID=ALPHA)
    (study,) = await rows(archive, "getPatientStudy", StudyInstanceUID=series["StudyInstanceUID"])
    assert all(isinstance(value, str) for value in row.values())
    assert (row["Series UID"], row["Subject ID"]) == (ALPHA, series["PatientID"])
    assert (row["Number of Images"], row["File Size"]) == (str(series["ImageCount"]), str(series["FileSize"]))
    assert row["Study Date"] == series["StudyDate"]
    assert row.get("File Location") == study.get("StudyID")
    assert row["SOP Class UID"].startswith("1.2.840.10008.5.1.4.1.1.")
    assert row["Annotation Size"] == "0"
    text = (await ask(url, SeriesInstanceUID=ALPHA, format="csv")).text
    (line,) = csv.DictReader(io.StringIO(text))
    assert list(line) == list(OLDER["../v1/getSeriesMetaData"].nbia_fields)
    assert {name: value for name, value in line.items() if value} == row
    unknown = await ask(url, SeriesInstanceUID="1.2.3")
    assert (unknown.status, unknown.body) == (204, b"")
    assert (await ask(url)).status == 400


@versions
async def test_csv_is_quoted_only_where_a_comma_stands(archive: FakeArchive, version: str) -> None:
    """The NBIA Data Retriever cuts a line at its commas, and takes what is between them for numbers and folders."""
    given = {"SeriesDescription": 'Axial, "thin"', "StudyDescription": "Head, neck", "Manufacturer": "A, B"}
    archive.stock(
        "Brain Beta",
        make_series(series_uid=uid(5, 5), study_uid=uid(5, 4), patient_id="S5", instances=1, **given),
        extra=lambda row: {"ProtocolName": "one, two"},
    )
    head, line = (
        await ask(archive.url() + version + "getSeriesMetaData", SeriesInstanceUID=uid(5, 5), format="csv")
    ).text.splitlines()
    assert head == ",".join(OLDER[version + "getSeriesMetaData"].nbia_fields)
    parts = line.split(",")
    assert (parts[0], parts[1], parts[4], parts[10]) == (uid(5, 5), "Brain Beta", "S5", "CT")
    assert (parts[6], parts[8], parts[9]) == ("Head  neck", 'Axial  "thin"', "A  B")
    assert (int(parts[12]), int(parts[18])) == (1, 0)
    assert int(parts[13]) > 100
    text = (await ask(archive.url() + version + "getSeries", SeriesInstanceUID=uid(5, 5), format="csv")).text
    assert text.startswith("SeriesInstanceUID,StudyInstanceUID,")
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["SeriesDescription"], row["ProtocolName"]) == ('Axial, "thin"', "one, two")
    assert row["Collection"] == "Brain Beta"


async def test_a_shared_list_has_time_stamps_too(archive: FakeArchive) -> None:
    make_list(archive.root, "a list", [ALPHA])
    for version in VERSIONS:
        (row,) = await rows(archive, version + "getContentsByName", name="A List")
        assert STAMP.fullmatch(row["Date Released"])
        assert STAMP.fullmatch(row["SeriesDate"])
        recorded = V1["getContentsByName"][0]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d 00:00:00\.0", recorded["SeriesDate"])


async def test_a_shared_list_of_the_tcia_dialect_has_plain_days(archive: FakeArchive) -> None:
    make_list(archive.root, "a list", [ALPHA])
    (row,) = (await ask(archive.origin + "/services/v4/SharedList/query/ContentsByName", name="a list")).rows
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["SeriesDate"])
    assert "Date Released" not in row


@versions
async def test_files(archive: FakeArchive, version: str) -> None:
    base = archive.url() + version
    plain = await ask(base + "getImage", SeriesInstanceUID=ALPHA, IncludeMD5="Yes")
    names = zipfile.ZipFile(io.BytesIO(plain.body)).namelist()
    assert names[0] == "LICENSE"
    assert "md5hashes.csv" not in names
    hashed = zipfile.ZipFile(io.BytesIO((await ask(base + "getImageWithMD5Hash", SeriesInstanceUID=ALPHA)).body))
    assert hashed.namelist()[-1] == "md5hashes.csv"
    one = await ask(base + "getSingleImage", SeriesInstanceUID=ALPHA, SOPInstanceUID=instance_uid(ALPHA, 1))
    same = await ask(archive.url() + "getSingleImage", SeriesInstanceUID=ALPHA, SOPInstanceUID=instance_uid(ALPHA, 1))
    assert one.body == same.body != b""
    digest = await ask(base + "getM5HashForImage", SOPInstanceUid=instance_uid(ALPHA, 1))
    assert digest.text == (await ask(archive.url() + "getMD5HashForImage", SOPInstanceUID=instance_uid(ALPHA, 1))).text
    assert re.fullmatch("[0-9a-f]{32}", digest.text)


async def test_what_each_version_says_of_a_series_that_is_not_there(archive: FakeArchive) -> None:
    for version, told in zip(VERSIONS, ("is not in public domain.", "Please contact System Admin"), strict=True):
        answer = await ask(archive.url() + version + "getImage", SeriesInstanceUID="1.2.3")
        assert answer.status == 400
        assert told in answer.text


@versions
async def test_a_shared_list_that_is_not_there(archive: FakeArchive, version: str) -> None:
    assert (await ask(archive.url() + version + "getContentsByName", name="no-such-list")).body == b""
    assert (await ask(archive.url() + version + "getContentsByName")).status == 400


async def test_counts_without_a_version_are_criteria_and_texts(archive: FakeArchive) -> None:
    for call, name in (
        ("getCollectionValuesAndCounts", "Collection"),
        ("getModalityValuesAndCounts", "Modality"),
        ("getBodyPartValuesAndCounts", "BodyPart"),
        ("getManufacturerValuesAndCounts", "Manufacturer"),
    ):
        new = await rows(archive, call)
        old = await rows(archive, "../" + call)
        assert [(r.get("criteria"), r["count"]) for r in old] == [(r.get(name), str(r["Count"])) for r in new]
        assert new != []


async def test_descriptions_and_tags_without_a_version(archive: FakeArchive) -> None:
    (row,) = await rows(archive, "../getCollectionDescriptions", collectionName="Brain Beta")
    assert row["description"] == f"See {row['descriptionURI']}"
    assert row["collectionDescTimestamp"] > 1_500_000_000_000
    tags = await rows(archive, "../getDicomTags", SeriesUID=BETA)
    assert tags == await rows(archive, "getDicomTags", SeriesUID=BETA)
    assert tags != []


TOKEN = [("grant_type", "password"), ("username", "nbia_guest"), ("password", ""), ("client_id", "NBIA")]


@pytest.mark.parametrize("path", ["../../oauth/token", "../oauth/token"])
async def test_a_guest_gets_a_token_that_every_call_takes(archive: FakeArchive, path: str) -> None:
    answer = await ask(archive.url() + path, "POST", TOKEN)
    assert answer.status == 200
    token = answer.rows
    assert token["token_type"] == "Bearer"
    assert int(token["expires_in"]) > 0
    refreshed = await ask(
        archive.url() + path, "POST", [("grant_type", "refresh_token"), ("refresh_token", token["refresh_token"])]
    )
    assert refreshed.rows["access_token"] == token["access_token"]
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    with_it = await ask(archive.url() + "../v2/getCollectionValues", headers=bearer)
    assert with_it.rows == [{"Collection": "Brain Beta"}, {"Collection": "Lung-Alpha"}]
    assert (await ask(archive.url() + "../../logout", headers=bearer)).status == 200


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ([], 400, "invalid_request"),
        ([("grant_type", "implicit")], 400, "unsupported_grant_type"),
        ([("grant_type", "password"), ("username", "somebody")], 401, "invalid_grant"),
        ([("grant_type", "refresh_token"), ("refresh_token", "other")], 401, "invalid_grant"),
    ],
)
async def test_nobody_else_gets_one(archive: FakeArchive, form: list[tuple[str, str]], status: int, error: str) -> None:
    answer = await ask(archive.url() + "../../oauth/token", "POST", form)
    assert (answer.status, answer.rows) == (status, {"error": error})
