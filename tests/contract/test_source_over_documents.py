"""Where the archive's published description and its server's source disagree, this server follows the source."""

from __future__ import annotations

import pytest
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import instance_uid, uid

ALPHA = uid(1, 1, 1, 1)
UNKNOWN = "1.2.3"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (f"getSeriesSize?SeriesInstanceUID={UNKNOWN}", 200),
        (f"getSOPInstanceUIDs?SeriesInstanceUID={UNKNOWN}", 200),
        (f"getMD5HashForImage?SOPInstanceUID={UNKNOWN}", 200),
        (f"getImage?SeriesInstanceUID={UNKNOWN}", 400),
        (f"getDicomTags?SeriesUID={UNKNOWN}", 400),
        (f"getSingleImage?SeriesInstanceUID={UNKNOWN}&SOPInstanceUID={UNKNOWN}", 500),
    ],
)
@pytest.mark.asyncio
async def test_what_is_not_known_is_never_a_404(archive: FakeArchive, request_: str, status: int) -> None:
    assert (await ask(archive.url() + request_)).status == status


@pytest.mark.asyncio
async def test_an_unknown_doi_is_no_404_either(archive: FakeArchive) -> None:
    form = [("DOI", "10.1/unknown"), ("CollectionOrSeries", "series")]
    assert (await ask(archive.url() + "getCollectionOrSeriesForDOI", "POST", form=form)).status == 200


@pytest.mark.asyncio
async def test_a_size_is_a_list_of_one_row(archive: FakeArchive) -> None:
    (row,) = (await ask(archive.url() + "getSeriesSize", SeriesInstanceUID=ALPHA)).rows
    assert list(row) == ["TotalSizeInBytes", "ObjectCount"]


@pytest.mark.asyncio
async def test_updated_series_are_those_after_a_day_that_need_not_be_given(archive: FakeArchive) -> None:
    rows = (await ask(archive.url() + "getUpdatedSeries")).rows
    assert rows
    assert all("MaxSubmissionTimestamp" in row and "TimeStamp" not in row for row in rows)
    newest = max(row["DateReleased"][6:] + row["DateReleased"][:5] for row in rows)
    day = f"{newest[4:]}-{newest[:4]}"
    of_that_day = [row for row in rows if row["DateReleased"] == day]
    assert of_that_day
    assert (await ask(archive.url() + "getUpdatedSeries", fromDate=day)).body == b""


@pytest.mark.parametrize("call", ["getPatient", "getPatientStudy"])
@pytest.mark.asyncio
async def test_no_collection_need_be_named(archive: FakeArchive, call: str) -> None:
    assert len({row["Collection"] for row in (await ask(archive.url() + call)).rows}) == 2


@pytest.mark.asyncio
async def test_new_patients_have_a_patient_id_spelled_so_and_no_birth_date(archive: FakeArchive) -> None:
    params = {"Collection": "Lung-Alpha", "fromDate": "01-01-2000"}
    rows = (await ask(archive.url() + "NewPatientsInCollection", **params)).rows
    assert rows
    assert all("PatientId" in row and not {"PatientID", "PatientBirthDate"} & row.keys() for row in rows)


@pytest.mark.asyncio
async def test_days_have_dashes_and_begin_with_the_month(archive: FakeArchive) -> None:
    days = [row["StudyDate"] for row in (await ask(archive.url() + "getPatientStudy")).rows if "StudyDate" in row]
    assert days
    assert all((day[2], day[5], len(day)) == ("-", "-", 10) and 1 <= int(day[:2]) <= 12 for day in days)


@pytest.mark.asyncio
async def test_counts_have_capital_names(archive: FakeArchive) -> None:
    for row in (await ask(archive.url() + "getCollectionValuesAndCounts")).rows:
        assert {"Collection", "Count"} <= row.keys()


@pytest.mark.parametrize(
    "request_",
    [
        f"getMD5HashForImage?SOPInstanceUID={instance_uid(ALPHA, 1)}&format=json",
        "getCollectionDescriptions?format=csv",
    ],
)
@pytest.mark.asyncio
async def test_some_calls_know_no_format(archive: FakeArchive, request_: str) -> None:
    answer = await ask(archive.url() + request_)
    assert (answer.status, answer.text.split(".")[0]) == (400, "Invalid query parameter: 'format'")


@pytest.mark.asyncio
async def test_metadata_is_spelled_with_a_small_d_in_v4_alone(archive: FakeArchive) -> None:
    form = [("list", ALPHA)]
    assert (await ask(archive.url() + "getSeriesMetadata", "POST", form=form)).status == 200
    assert (await ask(archive.url() + "getSeriesMetaData", "POST", form=form)).status == 500
    older = archive.origin + "/nbia-api/services/v1/getSeriesMetaData"
    assert (await ask(older, SeriesInstanceUID=ALPHA)).status == 200


@pytest.mark.asyncio
async def test_descriptions_have_neither_time_nor_author(archive: FakeArchive) -> None:
    rows = (await ask(archive.url() + "getCollectionDescriptions")).rows
    assert [list(row) for row in rows] == [["description", "id", "collectionName", "descriptionURI"]] * 2


@pytest.mark.asyncio
async def test_a_name_is_spelled_as_the_server_spells_it(archive: FakeArchive) -> None:
    form = [("DOI", "https://doi.org/10.1/Brain Beta"), ("CollectionOrSeries", "series")]
    rows = (await ask(archive.url() + "getCollectionOrSeriesForDOI", "POST", form=form)).rows
    assert rows
    assert all("thirdPartyAnanlysis" in row and "thirdPartyAnalysis" not in row for row in rows)


@pytest.mark.parametrize(
    "call", ["getSOPInstanceUIDs", "getSingleImage", "getDCMImage", "getDeniedSeries", "getSeriesQCInfo"]
)
@pytest.mark.asyncio
async def test_calls_that_are_not_described_are_there(archive: FakeArchive, call: str) -> None:
    method = "POST" if call == "getSeriesQCInfo" else "GET"
    params = {} if method == "POST" else {"SeriesInstanceUID": ALPHA}
    if call == "getDeniedSeries":
        params = {"seriesList": UNKNOWN}
    if call == "getSingleImage":
        params["SOPInstanceUID"] = instance_uid(ALPHA, 1)
    answer = await ask(archive.url() + call, method, form=[("seriesId", ALPHA)] if method == "POST" else None, **params)
    assert (answer.status, bool(answer.body)) == (200, True)
