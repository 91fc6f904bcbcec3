"""The server in the nbia dialect, against what the source of the archive's server says it answers."""

from __future__ import annotations

import hashlib

import pytest
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import instance_uid, make_series, uid

ALPHA, BETA = uid(1, 1, 1, 1), uid(2, 1, 1, 1)
BIG = uid(2, 1, 2, 1)

VECTORS = [
    ("getCollectionValues?x=1", 400, "Invalid query parameter: 'x'. Allowed parameters are: [format]"),
    ("getSeries?Collection=NoSuch", 200, ""),
    ("getSeries?Collection=", 200, ""),
    ("getSeries?Collection=NoSuch&format=bogus", 200, ""),
    ("getSeries?Collection=Lung-Alpha&format=bogus", 500, "Server was not able to process your request"),
    ("getSeriesSize", 400, "A parameter, SeriesInstanceUID is required for this API call."),
    ("getSeriesSize?SeriesInstanceUID=1.2.3", 200, ""),
    ("getSOPInstanceUIDs?SeriesInstanceUID=1.2.3", 200, ""),
    ("getImage", 400, "A parameter, SeriesInstanceUID, is required for this API call."),
    (
        "getImage?SeriesInstanceUID=1.2.3",
        400,
        "The user has not been granted the access to image with given SeriesInstanceUID,1.2.3."
        " Please contact System Admin to resolve this issue.",
    ),
    (
        "getImageWithMD5Hash?SeriesInstanceUID=1.2.3",
        400,
        "The user has not been granted the access to image with given SeriesInstanceUID,1.2.3."
        " Please contact System Admin to resolve this issue.",
    ),
    (
        f"getSingleImage?SeriesInstanceUID={ALPHA}&SOPInstanceUID={instance_uid(BETA, 1)}",
        500,
        "Server was not able to process your request\nnull",
    ),
    (
        "NewPatientsInCollection?Collection=Lung-Alpha",
        400,
        "A parameter, Collection and Date are required for this API call.",
    ),
    ("NewPatientsInCollection?Collection=Lung-Alpha&fromDate=2020-01-01", 200, ""),
    ("NewStudiesInPatientCollection?Collection=Lung-Alpha&fromDate=15-01-2020", 200, ""),
    ("getUpdatedSeries?fromDate=2020-01-01", 200, ""),
    ("getMD5HashForImage?SOPInstanceUID=1.2.3", 200, ""),
    (
        "getPatientByCollectionAndModality?Collection=X",
        400,
        "A parameter, Collection and Modality, are required for this API call.",
    ),
    ("getSeriesMetadata", 500, "Server was not able to process your request\nHTTP 405 Method Not Allowed"),
    ("getNoSuchThing", 500, "Server was not able to process your request\nHTTP 404 Not Found"),
    ("../v1/getContentsByName?name=some-list&format=csv", 200, ""),
    ("../v1/getContentsByName", 400, "A parameter, name is required for this API call."),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("request_", "status", "body"), VECTORS)
async def test_vector(archive: FakeArchive, request_: str, status: int, body: str) -> None:
    answer = await ask(archive.url() + request_)
    assert (answer.status, answer.text) == (status, body)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("request_", "start"),
    [
        ("getSeries?collection=Lung-Alpha", "Invalid query parameter: 'collection'. Allowed parameters are: ["),
        (f"getImage?SeriesInstanceUID={ALPHA}&format=zip", "Invalid query parameter: 'format'. Allowed"),
        ("NewPatientsInCollection?Collection=X&Date=2020-01-01", "Invalid query parameter: 'Date'. Allowed"),
        ("getImage?api_key=k", "Invalid query parameter: 'api_key'. Allowed"),
        ("getCollectionDescriptions?format=json", "Invalid query parameter: 'format'. Allowed"),
    ],
)  # fmt: skip
async def test_an_unknown_parameter_is_refused_before_a_missing_one(
    archive: FakeArchive, request_: str, start: str
) -> None:
    answer = await ask(archive.url() + request_)
    assert answer.status == 400
    assert answer.text.startswith(start)


@pytest.mark.asyncio
async def test_no_rows_have_no_content_type(archive: FakeArchive) -> None:
    answer = await ask(archive.url() + "getSeries", Collection="NoSuch")
    assert answer.headers["Content-Length"] == "0"
    assert "Content-Type" not in answer.headers
    digest = await ask(archive.url() + "getMD5HashForImage", SOPInstanceUID="1.2.3")
    assert digest.headers["Content-Type"] == "text/plain"


@pytest.mark.asyncio
async def test_a_missing_parameter_is_told_in_text_that_claims_to_be_json(archive: FakeArchive) -> None:
    answer = await ask(archive.url() + "getSeriesSize")
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.asyncio
async def test_get_series_has_the_table_s_fields_in_order(archive: FakeArchive) -> None:
    answer = await ask(archive.url() + "getSeries", SeriesInstanceUID=BIG)
    assert answer.headers["Content-Type"] == "application/json"
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    (row,) = answer.rows
    assert list(row.items()) == [
        ("SeriesInstanceUID", BIG),
        ("StudyInstanceUID", uid(2, 1, 2)),
        ("Modality", "MR"),
        ("SeriesDate", "02-03-2001"),
        ("SeriesDescription", "Axial, 1 mm"),
        ("BodyPartExamined", "Brain"),
        ("SeriesNumber", 7),
        ("Collection", "Brain Beta"),
        ("Site", "Elsewhere"),
        ("PatientID", "S2-001"),
        ("PatientSex", "F"),
        ("PatientAge", "061Y"),
        ("ManufacturerModelName", "Scan 3000"),
        ("SoftwareVersions", "1.0"),
        ("ImageCount", 12),
        ("MaxSubmissionTimestamp", "06-16-2021"),
        ("LicenseName", "Creative Commons Attribution 4.0 International License"),
        ("LicenseURI", "https://creativecommons.org/licenses/by/4.0/"),
        ("DataDescriptionURI", "https://doi.org/10.1/Brain Beta"),
        ("FileSize", sum(len(body) for series, body in archive.files().values() if series == BIG)),
        ("ReleasedStatus", "Yes"),
        ("DateReleased", "06-16-2021"),
        ("StudyDesc", "Thorax"),
        ("StudyDate", "02-03-2001"),
        ("ThirdPartyAnalysis", "NO"),
        ("Authorized", 1),
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({}, 7),
        ({"Collection": "lung-alpha"}, 4),
        ({"Collection": "Lung"}, 0),
        ({"PatientID": "s1-002"}, 2),
        ({"StudyInstanceUID": uid(1, 1, 1)}, 2),
        ({"SeriesInstanceUID": ALPHA}, 1),
        ({"Modality": "mr"}, 4),
        ({"BodyPartExamined": "BRAIN"}, 1),
        ({"ManufacturerModelName": "SCAN 3000", "Collection": "Brain Beta"}, 3),
        ({"Manufacturer": "acme"}, 6),
        ({"Collection": "Lung-Alpha", "PatientID": "S2-001"}, 0),
    ],
)
async def test_get_series_matches_whole_values_without_regard_to_case(
    archive: FakeArchive, params: dict[str, str], count: int
) -> None:
    answer = await ask(archive.url() + "getSeries", **params)
    assert len(answer.rows if answer.body else []) == count


@pytest.mark.asyncio
async def test_values_are_upper_case_distinct_and_ascending_with_null_first(archive: FakeArchive) -> None:
    url = archive.url()
    assert (await ask(url + "getCollectionValues")).body == b'[{"Collection":"Brain Beta"},{"Collection":"Lung-Alpha"}]'
    assert (await ask(url + "getBodyPartValues")).rows == [{"BodyPartExamined": "BRAIN"}, {"BodyPartExamined": "CHEST"}]
    assert (await ask(url + "getManufacturerValues")).body == b'[{},{"Manufacturer":"ACME"}]'
    assert (await ask(url + "getModalityValues", BodyPartExamined="brain")).rows == [{"Modality": "MR"}]
    assert (await ask(url + "getModalityValues", Collection="Lung-Alpha")).rows == [
        {"Modality": "CT"},
        {"Modality": "MR"},
    ]


@pytest.mark.asyncio
async def test_get_patient_compares_the_id_with_case_and_fills_in_nulls(archive: FakeArchive) -> None:
    (row,) = (await ask(archive.url() + "getPatient", PatientId="S1-002")).rows
    assert row == {
        "PatientId": "S1-002",
        "PatientName": "S1-002",
        "PatientSex": "F",
        "Collection": "Lung-Alpha",
        "Phantom": "NO",
        "SpeciesCode": "337915000",
        "SpeciesDescription": "Homo sapiens",
        "Authorized": 1,
    }
    assert (await ask(archive.url() + "getPatient", PatientId="s1-002")).body == b""
    by_modality = await ask(archive.url() + "getPatientByCollectionAndModality", Collection="Brain Beta", Modality="MR")
    assert by_modality.rows == [{"PatientId": "S2-001", "Authorized": 1}]


@pytest.mark.asyncio
async def test_studies_count_their_series_and_since_counts_only_the_newer(archive: FakeArchive) -> None:
    archive.stock(
        "Brain Beta",
        make_series(patient_id="S2-001", study_uid=uid(2, 1, 1), series_uid=uid(2, 1, 1, 9), StudyDate="20010202"),
        released="2022-03-01",
    )
    url = archive.url()
    rows = (await ask(url + "getPatientStudy", StudyInstanceUID=uid(2, 1, 1))).rows
    assert [(row["SeriesCount"], row["PatientID"], row["StudyDate"]) for row in rows] == [(3, "S2-001", "02-02-2001")]
    since = await ask(url + "NewStudiesInPatientCollection", Collection="brain beta", fromDate="06-16-2021")
    assert [(row["StudyInstanceUID"], row["SeriesCount"]) for row in since.rows] == [
        (uid(2, 1, 1), 1),
        (uid(2, 1, 2), 1),
    ]
    none = await ask(
        url + "NewStudiesInPatientCollection", Collection="Brain Beta", fromDate="06-16-2021", PatientID="other"
    )
    assert none.body == b""


@pytest.mark.asyncio
@pytest.mark.parametrize(("day", "found"), [("01-31-2020", True), ("1-31-2020", True), ("02-01-2020", False)])
async def test_new_patients_include_the_day_itself(archive: FakeArchive, day: str, found: bool) -> None:
    answer = await ask(archive.url() + "NewPatientsInCollection", Collection="Lung-Alpha", fromDate=day)
    assert [row["PatientId"] for row in (answer.rows if answer.body else [])] == ["S1-001", "S1-002"] * found


@pytest.mark.asyncio
async def test_updated_series_leave_the_day_itself_out(archive: FakeArchive) -> None:
    url = archive.url() + "getUpdatedSeries"
    assert len((await ask(url)).rows) == 7
    assert [row["SeriesInstanceUID"] for row in (await ask(url, fromDate="06-15-2021")).rows] == [BIG]
    assert (await ask(url, fromDate="06-16-2021")).body == b""


@pytest.mark.asyncio
async def test_what_has_no_day_of_release_is_in_no_since_call(archive: FakeArchive) -> None:
    archive.stamp(BIG, DateReleased=None)
    url = archive.url()
    assert BIG not in {row["SeriesInstanceUID"] for row in (await ask(url + "getUpdatedSeries")).rows}
    brain = {"Collection": "Brain Beta", "fromDate": "01-01-1900"}
    studies = (await ask(url + "NewStudiesInPatientCollection", **brain)).rows
    assert uid(2, 1, 2) not in {row["StudyInstanceUID"] for row in studies}
    assert (await ask(url + "getSeries", SeriesInstanceUID=BIG)).rows


@pytest.mark.asyncio
async def test_size_and_instances_of_a_series(archive: FakeArchive) -> None:
    size = sum(len(body) for series, body in archive.files().values() if series == ALPHA)
    answer = await ask(archive.url() + "getSeriesSize", SeriesInstanceUID=ALPHA)
    assert answer.body == b'[{"TotalSizeInBytes":%d,"ObjectCount":3}]' % size
    uids = await ask(archive.url() + "getSOPInstanceUIDs", SeriesInstanceUID=ALPHA)
    assert uids.rows == [{"SOPInstanceUID": instance_uid(ALPHA, n)} for n in (1, 2, 3)]


@pytest.mark.asyncio
async def test_get_single_image_gives_the_file(archive: FakeArchive) -> None:
    sop = instance_uid(ALPHA, 2)
    answer = await ask(archive.url() + "getSingleImage", SeriesInstanceUID=ALPHA, SOPInstanceUID=sop)
    assert answer.body == archive.files()[sop][1]
    assert answer.headers["Content-Type"] == "application/dicom"
    assert answer.headers["Content-Disposition"] == f"attachment; filename={sop}.dcm"


@pytest.mark.asyncio
async def test_a_withdrawn_series_does_not_exist(archive: FakeArchive) -> None:
    archive.withdraw(BIG)
    url = archive.url()
    assert (await ask(url + "getSeries", SeriesInstanceUID=BIG)).body == b""
    assert (await ask(url + "getImage", SeriesInstanceUID=BIG)).status == 400
    answer = await ask(url + "getSingleImage", SeriesInstanceUID=BIG, SOPInstanceUID=instance_uid(BIG, 1))
    assert (answer.status, answer.headers["Content-Type"]) == (500, "text/plain")


def _md5(text: str | bytes) -> str:
    return hashlib.md5(text if isinstance(text, bytes) else text.encode()).hexdigest()


@pytest.mark.asyncio
async def test_digests_of_every_level(archive: FakeArchive) -> None:
    hashes: dict[str, list[str]] = {}
    for series, body in archive.files().values():
        hashes.setdefault(series, []).append(_md5(body))
    of_series = {series: _md5("".join(sorted(below))) for series, below in hashes.items()}

    def of_study(study: str) -> str:
        return _md5("".join(sorted(digest for series, digest in of_series.items() if series.startswith(study + "."))))

    patients = [_md5(of_study(uid(1, patient, 1))) for patient in (1, 2)]
    url = archive.url() + "getMD5Hierarchy"
    for form, digest in [
        ([("SeriesInstanceUID", BIG)], of_series[BIG]),
        ([("StudyInstanceUID", uid(1, 1, 1))], of_study(uid(1, 1, 1))),
        ([("PatientID", "S1-002"), ("Collection", "Lung-Alpha")], patients[1]),
        ([("Collection", "lung-alpha")], _md5("".join(sorted(patients)))),
        ([("Collection", "NoSuch")], ""),
        ([("SeriesInstanceUID", "1.2.3")], ""),
    ]:
        answer = await ask(url, "POST", form)
        assert (answer.status, answer.headers["Content-Type"], answer.text) == (200, "text/plain", digest)
    sop = instance_uid(ALPHA, 1)
    assert (await ask(archive.url() + "getMD5HashForImage", SOPInstanceUID=sop)).text == _md5(archive.files()[sop][1])


@pytest.mark.asyncio
async def test_series_metadata_joins_series_study_and_patient(archive: FakeArchive) -> None:
    url = archive.url() + "getSeriesMetadata"
    answer = await ask(url, "POST", [("list", f"{ALPHA},1.2.3"), ("list", BIG), ("format", "JSON")])
    by_series = {row["SeriesInstanceUID"]: row for row in answer.rows}
    assert list(by_series) == [ALPHA, BIG]
    row = by_series[ALPHA]
    assert (row["PatientID"], row["Phantom"], row["StudyID"]) == ("S1-001", "NO", "1")
    assert (row["PixelSpacing(mm)-Row"], row["SliceThickness(mm)"]) == ("0.500000", "1.000000")
    assert (row["SeriesNumber"], row["ImageCount"], row["Authorized"]) == ("1.000000", 3, "1")
    as_csv = await ask(url, "POST", [("list", ALPHA)])
    assert as_csv.headers["Content-Disposition"] == 'attachment; filename="SeriesMetaData.csv"'
    assert as_csv.text.startswith('"PatientID","PatientName",')
    missing = await ask(url, "POST", [("format", "csv")])
    expected = "A form parameter, list, containing at least one SeriesInstanceUID is required."
    assert (missing.status, missing.text) == (400, expected)


@pytest.mark.asyncio
async def test_the_state_of_series_is_told_for_held_ones(archive: FakeArchive) -> None:
    url = archive.url() + "getSeriesQCInfo"
    answer = await ask(url, "POST", [("seriesId", ALPHA), ("seriesId", BETA), ("format", "json")])
    assert [(row["SeriesInstanceUID"], row["Visibility"]) for row in answer.rows] == [
        (ALPHA, "Visible"),
        (BETA, "Visible"),
    ]
    assert (await ask(url, "POST", [])).status == 204
    assert (await ask(url, "POST", [("seriesId", "1.2.3")])).body == b""


@pytest.mark.asyncio
async def test_qc_info_tells_a_hidden_series_from_one_that_is_gone(archive: FakeArchive) -> None:
    archive.withdraw(ALPHA)
    archive.remove(BETA)
    url = archive.url() + "getSeriesQCInfo"
    asked = [("seriesId", ALPHA), ("seriesId", BETA), ("seriesId", BIG), ("format", "json")]
    rows = (await ask(url, "POST", asked)).rows
    assert {row["SeriesInstanceUID"]: row["Visibility"] for row in rows} == {ALPHA: "Not Visible", BIG: "Visible"}
    hidden = next(row for row in rows if row["SeriesInstanceUID"] == ALPHA)
    assert (hidden["PatientID"], hidden["ImageCount"]) == ("S1-001", 3)
    archive.give_back(ALPHA)
    (shown,) = (await ask(url, "POST", asked[:1] + asked[-1:])).rows
    assert shown == hidden | {"Visibility": "Visible"}


@pytest.mark.asyncio
async def test_descriptions_say_what_the_rows_say(archive: FakeArchive) -> None:
    url = archive.url() + "getCollectionDescriptions"
    assert (await ask(url, collectionName="Lung-Alpha")).rows == [
        {
            "description": None,
            "id": 2,
            "collectionName": "Lung-Alpha",
            "descriptionURI": "https://doi.org/10.1/Lung-Alpha",
        }
    ]
    assert [row["collectionName"] for row in (await ask(url)).rows] == ["Brain Beta", "Lung-Alpha"]
    unknown = await ask(url, collectionName="lung-alpha")
    assert (unknown.body, unknown.headers["Content-Type"]) == (b"[]", "application/json")
