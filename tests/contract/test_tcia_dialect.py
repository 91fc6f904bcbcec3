"""The server in the tcia dialect, against what is known of the retired middleware."""

from __future__ import annotations

import io
import zipfile

import pytest
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import instance_uid, uid

from mirror.archive.endpoints import ENDPOINTS

ALPHA, BIG = uid(1, 1, 1, 1), uid(2, 1, 2, 1)


@pytest.mark.asyncio
async def test_no_rows_are_an_empty_array(archive: FakeArchive) -> None:
    for call in ("getSeries?Collection=NoSuch", "getSOPInstanceUIDs?SeriesInstanceUID=1.2", "getPatient?Collection="):
        answer = await ask(archive.url("tcia") + call)
        assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, b"[]", "application/json")
    shared = await ask(archive.origin + "/services/v4/SharedList/query/ContentsByName", name="some-list")
    assert (shared.status, shared.body) == (200, b"[]")


@pytest.mark.asyncio
async def test_unknown_parameters_and_formats_do_not_matter(archive: FakeArchive) -> None:
    answer = await ask(archive.url("tcia") + "getCollectionValues", api_key="k", format="bogus")
    assert answer.rows == [{"Collection": "Brain Beta"}, {"Collection": "Lung-Alpha"}]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("call", "missing"),
    [
        ("getSeriesSize", "SeriesInstanceUID"),
        ("getImage", "SeriesInstanceUID"),
        ("getSingleImage?SeriesInstanceUID=1", "SOPInstanceUID"),
        ("PatientsByModality?Collection=X", "Modality"),
        ("NewPatientsInCollection", "Collection, Date"),
        ("../../SharedList/query/ContentsByName", "name"),
    ],
)
async def test_a_missing_parameter_is_471(archive: FakeArchive, call: str, missing: str) -> None:
    answer = await ask(archive.url("tcia") + call)
    assert (answer.status, answer.headers["Content-Type"]) == (471, "application/json")
    assert set(answer.rows) == {"errorDescription", "suggestedAction", "detailedMessage"}
    name = call.partition("?")[0].rpartition("/")[2]
    assert answer.rows["detailedMessage"] == f"{name}: Mandatory Attribute Missing : [{missing}]"


@pytest.mark.asyncio
async def test_an_unknown_call_is_500(archive: FakeArchive) -> None:
    answer = await ask(archive.url("tcia") + "getUpdatedSeries")
    assert (answer.status, answer.rows) == (500, {"errorMessage": "QueryEndpoint [getUpdatedSeries] not found"})
    described = await ask(archive.url("tcia") + "getUpdatedSeries/metadata")
    assert described.rows == {"errorMessage": "QueryEndpoint [getUpdatedSeries] not found"}
    shared = await ask(archive.origin + "/services/v4/SharedList/query/getSeries")
    assert (shared.status, shared.rows) == (500, {"errorMessage": "QueryEndpoint [getSeries] not found"})


@pytest.mark.asyncio
async def test_a_path_that_leads_to_no_profile_is_404(archive: FakeArchive) -> None:
    for path in ("/services/v4/TCIA/fakeEndpoint", "/services/v3/TCIA/fakeEndpoint", "/services/v4/Other/query/x"):
        assert (await ask(archive.origin + path)).status == 404


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "call", ["getSeries", "getSeries/metadata", "getPatient?format=csv", "getSeriesSize", "nosuch"]
)
async def test_the_version_before_answers_the_same(archive: FakeArchive, call: str) -> None:
    """TCIApathfinder asks it."""
    newer = await ask(archive.url("tcia") + call)
    older = await ask(archive.url("tcia").replace("/v4/", "/v3/") + call, api_key="k")
    assert (older.status, older.body) == (newer.status, newer.body)
    assert older.headers["Content-Type"] == newer.headers["Content-Type"]


@pytest.mark.asyncio
async def test_series_rows_have_the_old_fields_days_and_numbers(archive: FakeArchive) -> None:
    (row,) = (await ask(archive.url("tcia") + "getSeries", SeriesInstanceUID=BIG)).rows
    assert list(row.items()) == [
        ("SeriesInstanceUID", BIG),
        ("StudyInstanceUID", uid(2, 1, 2)),
        ("Modality", "MR"),
        ("SeriesDate", "2001-02-03"),
        ("SeriesDescription", "Axial, 1 mm"),
        ("BodyPartExamined", "Brain"),
        ("SeriesNumber", "7.000000"),
        ("Collection", "Brain Beta"),
        ("PatientID", "S2-001"),
        ("ManufacturerModelName", "Scan 3000"),
        ("SoftwareVersions", "1.0"),
        ("ImageCount", 12),
    ]


@pytest.mark.asyncio
async def test_the_size_is_text_with_decimals_and_always_a_row(archive: FakeArchive) -> None:
    size = sum(len(body) for series, body in archive.files().values() if series == ALPHA)
    url = archive.url("tcia") + "getSeriesSize"
    known = await ask(url, SeriesInstanceUID=ALPHA)
    assert known.rows == [{"TotalSizeInBytes": f"{size}.000000", "ObjectCount": 3}]
    assert (await ask(url, SeriesInstanceUID="1.2.3")).rows == [{"ObjectCount": 0}]


@pytest.mark.asyncio
async def test_since_takes_iso_days_inclusive(archive: FakeArchive) -> None:
    url = archive.url("tcia")
    new = url + "NewPatientsInCollection"
    on_the_day = await ask(new, Collection="Brain Beta", Date="2021-06-16")
    assert [row["PatientID"] for row in on_the_day.rows] == ["S2-001"]
    assert (await ask(new, Collection="Brain Beta", Date="2021-06-17")).rows == []
    assert (await ask(new, Collection="Brain Beta", Date="06-16-2021")).rows == []
    assert len((await ask(new, Collection="Lung-Alpha", Date="0001-01-01")).rows) == 2
    studies = await ask(url + "NewStudiesInPatientCollection", Collection="Brain Beta", Date="2021-06-16")
    expected = {"Collection": "Brain Beta", "PatientID": "S2-001", "StudyInstanceUID": uid(2, 1, 2)}
    assert studies.rows == [expected]


@pytest.mark.asyncio
async def test_patients_by_modality(archive: FakeArchive) -> None:
    answer = await ask(archive.url("tcia") + "PatientsByModality", Collection="Lung-Alpha", Modality="ct")
    assert answer.rows == [{"PatientID": "S1-001"}, {"PatientID": "S1-002"}]


@pytest.mark.asyncio
async def test_a_call_may_be_a_form(archive: FakeArchive) -> None:
    answer = await ask(archive.url("tcia") + "getPatient", "POST", [("Collection", "Brain Beta")])
    assert [row["PatientID"] for row in answer.rows] == ["S2-001"]


@pytest.mark.asyncio
async def test_a_single_image_and_a_pair_that_does_not_match(archive: FakeArchive) -> None:
    url = archive.url("tcia") + "getSingleImage"
    sop = instance_uid(ALPHA, 1)
    assert (await ask(url, SeriesInstanceUID=ALPHA, SOPInstanceUID=sop)).body == archive.files()[sop][1]
    answer = await ask(url, SeriesInstanceUID=BIG, SOPInstanceUID=sop)
    message = "java.lang.IndexOutOfBoundsException: Index: 0, Size: 0"
    assert (answer.status, answer.rows) == (500, {"errorMessage": message})


@pytest.mark.asyncio
async def test_the_zip_has_a_folder_and_numbered_files(archive: FakeArchive) -> None:
    answer = await ask(archive.url("tcia") + "getImage", SeriesInstanceUID=ALPHA)
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Disposition"] == 'attachment;filename="bindaas-blob-download.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive_:
        uids = [instance_uid(ALPHA, n) for n in (1, 2, 3)]
        assert archive_.namelist() == ["./", *(f"./{n}-{sop}.dcm" for n, sop in enumerate(uids, start=1))]
        assert [archive_.read(name) for name in archive_.namelist()[1:]] == [archive.files()[sop][1] for sop in uids]


@pytest.mark.asyncio
async def test_every_call_describes_itself(archive: FakeArchive) -> None:
    for endpoint in ENDPOINTS.values():
        if endpoint.tcia is None or endpoint.tcia.startswith(".."):
            continue
        document = (await ask(f"{archive.url('tcia')}{endpoint.tcia}/metadata")).rows
        assert document["name"] == endpoint.tcia
        assert [attribute["name"] for attribute in document["returnAttributes"]] == list(endpoint.tcia_fields)
    document = (await ask(archive.url("tcia") + "getSeriesSize/metadata")).rows
    assert [(p["name"], p["required"]) for p in document["queryParameters"]] == [
        ("SeriesInstanceUID", True),
        ("format", False),
    ]
    assert document["returnTypes"] == ["JSON", "CSV", "XML", "HTML"]
    shared = (await ask(archive.origin + "/services/v4/SharedList/query/ContentsByName/metadata")).rows
    assert shared["queryParameters"][0]["description"] == "Name of the shared list"
    series = (await ask(archive.url("tcia") + "getSeries/metadata")).rows["returnAttributes"]
    assert {"name": "Modality", "dicomTag": "0008,0060"}.items() <= series[2].items()
