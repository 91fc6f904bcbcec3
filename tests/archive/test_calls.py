"""Every call of the client against our own server on a socket, in both dialects where it exists."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from fakes.archive import FakeArchive
from fakes.dicom import instance_uid, make_series, uid
from fakes.faults import edit_rows, empty
from fakes.servers import asking

from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import find_endpoint
from mirror.archive.endpoints import ENDPOINTS, Format
from mirror.errors import BadAnswer, Refused, ServerFault, SettingsError
from mirror.model import Patient, Series, SeriesSize, Study

ALPHA = uid(1, 1, 1, 1)
BIG = uid(2, 1, 2, 1)


@pytest_asyncio.fixture(params=["nbia", "tcia"])
async def client(archive: FakeArchive, request: pytest.FixtureRequest) -> AsyncIterator[ArchiveClient]:
    async with asking(archive.origin, request.param) as opened:
        yield opened


@pytest_asyncio.fixture
async def nbia(archive: FakeArchive) -> AsyncIterator[ArchiveClient]:
    async with asking(archive.origin, "nbia") as opened:
        yield opened


async def whole(chunks: AsyncIterator[bytes], length: int | None) -> tuple[bytes, int | None]:
    return b"".join([chunk async for chunk in chunks]), length


def test_every_call_of_the_table_has_a_coroutine():
    methods = {name.replace("_", "") for name in dir(ArchiveClient) if not name.startswith("_")}
    assert [call for call in ENDPOINTS if call.lower() not in methods] == []


# Lists


@pytest.mark.asyncio
async def test_values(client: ArchiveClient):
    assert await client.get_collection_values() == ["Brain Beta", "Lung-Alpha"]
    assert await client.get_modality_values() == ["CT", "MR"]
    assert await client.get_modality_values(Collection="lung-alpha") == ["CT", "MR"]
    assert await client.get_modality_values(Collection="Lung-Alpha", BodyPartExamined="BRAIN") == []
    assert await client.get_body_part_values(Collection="Brain Beta") == ["BRAIN", "CHEST"]
    assert await client.get_manufacturer_values(Collection="Brain Beta") == [None, "ACME"]
    assert await client.get_manufacturer_values(Collection="Brain Beta", Modality="CT") == ["ACME"]


@pytest.mark.asyncio
async def test_patients(client: ArchiveClient):
    patients = await (await client.get_patient(collection="Lung-Alpha")).all()
    assert [(p.collection, p.patient_id) for p in patients] == [("Lung-Alpha", "S1-001"), ("Lung-Alpha", "S1-002")]
    assert all(isinstance(p, Patient) and p.raw["PatientSex"] == "F" for p in patients)
    assert await (await client.get_patient(collection="None")).all() == []
    assert await (await client.patients_by_modality(collection="Lung-Alpha", modality="MR")).all() == [
        "S1-001",
        "S1-002",
    ]
    assert await (await client.patients_by_modality(collection="Lung-Alpha", modality="XA")).all() == []


@pytest.mark.asyncio
async def test_studies(client: ArchiveClient):
    studies = await (await client.get_patient_study(collection="Brain Beta")).all()
    assert [(s.patient_id, s.study_instance_uid) for s in studies] == [
        ("S2-001", uid(2, 1, 1)),
        ("S2-001", uid(2, 1, 2)),
    ]
    study = studies[0]
    assert isinstance(study, Study)
    assert (study.collection, study.study_date, study.study_description) == ("Brain Beta", "2001-02-02", "Thorax")
    assert study.raw["SeriesCount"] == 2
    one = await client.get_patient_study(collection="Brain Beta", StudyInstanceUID=uid(2, 1, 2))
    assert [s.study_instance_uid for s in await one.all()] == [uid(2, 1, 2)]
    assert await (await client.get_patient_study(collection="Brain Beta", PatientID="S1-001")).all() == []


@pytest.mark.asyncio
async def test_series(client: ArchiveClient):
    everything = await (await client.get_series()).all()
    assert len(everything) == 7
    (series,) = await (await client.get_series(SeriesInstanceUID=BIG)).all()
    assert isinstance(series, Series)
    assert (series.series_instance_uid, series.collection, series.patient_id) == (BIG, "Brain Beta", "S2-001")
    assert (series.study_instance_uid, series.modality, series.body_part_examined) == (uid(2, 1, 2), "MR", "Brain")
    assert (series.manufacturer, series.series_number, series.image_count) == (None, "7", 12)
    by_model = await client.get_series(Collection="LUNG-ALPHA", Modality="ct", ManufacturerModelName="scan 3000")
    assert len(await by_model.all()) == 2
    assert await (await client.get_series(Collection="None")).all() == []


@pytest.mark.asyncio
async def test_what_only_nbia_says_of_a_series(nbia: ArchiveClient):
    (series,) = await (await nbia.get_series(SeriesInstanceUID=BIG)).all()
    assert (series.date_released, series.data_description_uri) == ("2021-06-16", "https://doi.org/10.1/Brain Beta")
    assert series.file_size == sum(len(body) for body in _big_series())
    assert series.raw["Site"] == "Elsewhere"


def _big_series() -> list[bytes]:
    return make_series(
        patient_id="S2-001", study_uid=uid(2, 1, 2), series_uid=BIG, instances=12, acquisitions=(1, 2), seed=2,
        Modality="MR", BodyPartExamined="BRAIN", Manufacturer=None, SeriesNumber=7,
    )  # fmt: skip


@pytest.mark.asyncio
async def test_sizes(client: ArchiveClient):
    total = sum(len(body) for body in _big_series())
    assert await client.get_series_size(BIG) == SeriesSize(object_count=12, total_size_in_bytes=total)
    assert await client.get_series_size("1.2.3") is None


@pytest.mark.asyncio
async def test_instances(client: ArchiveClient):
    uids = await (await client.get_sop_instance_uids(BIG)).all()
    assert sorted(uids) == [instance_uid(BIG, number) for number in range(1, 13)]
    assert await (await client.get_sop_instance_uids("1.2.3")).all() == []


@pytest.mark.asyncio
async def test_what_is_new_since_a_day(client: ArchiveClient):
    async def patients(since: str) -> list[str]:
        return [
            p.patient_id
            for p in await (await client.new_patients_in_collection(collection="Brain Beta", since=since)).all()
        ]

    async def studies(since: str, **where: str) -> list[str]:
        rows = await client.new_studies_in_patient_collection(collection="Brain Beta", since=since, **where)
        return [s.study_instance_uid for s in await rows.all()]

    assert await patients("2021-06-16") == ["S2-001"]
    assert await patients("2021-06-17") == []
    assert await studies("2021-06-15") == [uid(2, 1, 1), uid(2, 1, 2)]
    assert await studies("2021-06-16") == [uid(2, 1, 2)]
    assert await studies("2021-06-16", PatientID="S9") == []


@pytest.mark.asyncio
async def test_shared_lists(archive: FakeArchive, client: ArchiveClient):
    assert await (await client.contents_by_name("my list")).all() == []
    row = {"SeriesInstanceUID": "1.2", "Collection": "A", "PatientID": "P", "Date Released": "2020-01-31 00:00:00.0"}
    archive.faults.add("ContentsByName", edit_rows(lambda rows: [row]))
    (series,) = await (await client.contents_by_name("my list")).all()
    assert (series.series_instance_uid, series.date_released) == ("1.2", "2020-01-31")
    assert archive.requests[-1] == ("ContentsByName", {"name": "my list"})


@pytest.mark.asyncio
async def test_what_was_updated_since_a_day(nbia: ArchiveClient):
    async def updated(**since: str) -> list[str]:
        return sorted([s.series_instance_uid for s in await (await nbia.get_updated_series(**since)).all()])

    assert await updated(since="2021-06-15") == [BIG]
    assert await updated(since="2021-06-16") == []
    assert len(await updated()) == 7


@pytest.mark.asyncio
async def test_metadata_of_several_series(archive: FakeArchive, nbia: ArchiveClient):
    rows = await (await nbia.get_series_metadata([ALPHA, "1.2.3", BIG])).all()
    by_uid = {row["SeriesInstanceUID"]: row for row in rows}
    assert set(by_uid) == {ALPHA, BIG}
    assert (by_uid[BIG]["Collection"], by_uid[BIG]["ImageCount"], by_uid[BIG]["SeriesNumber"]) == ("Brain Beta", 12, 7)
    assert by_uid[BIG]["DateReleased"] == "2021-06-16"
    assert await (await nbia.get_series_metadata(["1.2.3"])).all() == []
    assert archive.requests[-1][1] == {"list": "1.2.3", "format": "json"}


@pytest.mark.asyncio
async def test_why_a_series_is_hidden(nbia: ArchiveClient):
    (row,) = await (await nbia.get_series_qc_info(ALPHA)).all()
    assert (row["SeriesInstanceUID"], row["Visibility"]) == (ALPHA, "Visible")
    assert await (await nbia.get_series_qc_info("1.2.3")).all() == []


@pytest.mark.asyncio
async def test_descriptions(nbia: ArchiveClient):
    rows = await (await nbia.get_collection_descriptions()).all()
    assert [row["collectionName"] for row in rows] == ["Brain Beta", "Lung-Alpha"]
    (row,) = await (await nbia.get_collection_descriptions(collectionName="Lung-Alpha")).all()
    assert row["descriptionURI"] == "https://doi.org/10.1/Lung-Alpha"
    assert await (await nbia.get_collection_descriptions(collectionName="None")).all() == []


@pytest.mark.asyncio
async def test_rows_of_any_call(client: ArchiveClient):
    rows = await (await client.rows(ENDPOINTS["getPatient"], {"Collection": "Lung-Alpha"})).all()
    assert [row["PatientID"] for row in rows] == ["S1-001", "S1-002"]


@pytest.mark.asyncio
async def test_fields_that_nobody_knows_are_kept_as_they_came(archive: FakeArchive, client: ArchiveClient):
    def novel(rows: list[dict[str, object]]) -> list[dict[str, object]]:
        return [row | {"Novelty": {"a": [1, "01-31-2020"]}, "Null": None} for row in rows]

    archive.faults.add("getSeries", edit_rows(novel))
    (series,) = await (await client.get_series(SeriesInstanceUID=BIG)).all()
    assert series.raw["Novelty"] == {"a": [1, "01-31-2020"]}
    assert "Null" not in series.raw


@pytest.mark.asyncio
async def test_values_reach_the_server_as_they_are(archive: FakeArchive, client: ArchiveClient):
    for value in ("a b+c", "50% & more=less?#", "M\u00fcller/\u738b", "", "..", '"quoted"\\'):
        assert await (await client.get_series(Collection=value, PatientID=value)).all() == []
        assert archive.requests[-1] == ("getSeries", {"Collection": value, "PatientID": value})


# Empties


@pytest.mark.asyncio
async def test_an_empty_body_is_no_rows_where_the_dialect_says_so(archive: FakeArchive):
    archive.faults.add("getSeries", empty())
    async with asking(archive.origin, "nbia") as client:
        assert await (await client.get_series(Collection="x")).all() == []
    async with asking(archive.origin, "tcia") as client:
        with pytest.raises(BadAnswer, match="the body is empty where JSON is due"):
            await client.get_series(Collection="x")


@pytest.mark.parametrize("rows", [[], [{}], [{"ObjectCount": None}], [{"ObjectCount": 0, "TotalSizeInBytes": None}]])
@pytest.mark.asyncio
async def test_every_way_to_say_that_a_series_has_no_size(
    archive: FakeArchive, client: ArchiveClient, rows: list[dict[str, object]]
):
    archive.faults.add("getSeriesSize", edit_rows(lambda _: rows))
    assert await client.get_series_size(ALPHA) is None


@pytest.mark.asyncio
async def test_a_size_in_decimals(archive: FakeArchive, client: ArchiveClient):
    archive.faults.add(
        "getSeriesSize", edit_rows(lambda _: [{"TotalSizeInBytes": "149149266.000000", "ObjectCount": "136"}])
    )
    assert await client.get_series_size(ALPHA) == SeriesSize(object_count=136, total_size_in_bytes=149149266)


@pytest.mark.asyncio
async def test_an_instance_without_a_uid_is_a_bad_answer(archive: FakeArchive, client: ArchiveClient):
    archive.faults.add("getSOPInstanceUIDs", edit_rows(lambda rows: [*rows, {}]))
    with pytest.raises(
        BadAnswer, match=rf"getSOPInstanceUIDs\(SeriesInstanceUID={ALPHA}\).*a row has no SOPInstanceUID"
    ):
        await (await client.get_sop_instance_uids(ALPHA)).all()


@pytest.mark.asyncio
async def test_a_row_that_lacks_its_name_is_a_bad_answer(archive: FakeArchive, client: ArchiveClient):
    archive.faults.add("getSeries", edit_rows(lambda rows: [{"Modality": "CT"}]))
    with pytest.raises(BadAnswer, match=r"getSeries\(Collection=A\) at http.*a row of Series is not usable"):
        await (await client.get_series(Collection="A")).all()


@pytest.mark.asyncio
async def test_a_collection_that_the_row_leaves_out_is_the_one_that_was_asked_for(
    archive: FakeArchive, client: ArchiveClient
):
    archive.faults.add("getSeries", edit_rows(lambda rows: [{"SeriesInstanceUID": "1.2"}]))
    (series,) = await (await client.get_series(Collection="A")).all()
    assert (series.collection, series.patient_id) == ("A", "")


# Digests and files


@pytest.mark.asyncio
async def test_digests(nbia: ArchiveClient):
    bodies = {instance_uid(BIG, n): body for n, body in enumerate(_big_series(), start=1)}
    md5s = {name: hashlib.md5(body).hexdigest() for name, body in bodies.items()}
    first = instance_uid(BIG, 1)
    assert await nbia.get_md5_hash_for_image(first) == md5s[first]
    assert await nbia.get_md5_hash_for_image("1.2.3") is None
    of_series = hashlib.md5("".join(sorted(md5s.values())).encode()).hexdigest()
    assert await nbia.get_md5_hierarchy(SeriesInstanceUID=BIG) == of_series
    assert await nbia.get_md5_hierarchy(SeriesInstanceUID="1.2.3") is None


@pytest.mark.asyncio
async def test_one_file(client: ArchiveClient):
    body = _big_series()[2]
    assert await client.get_single_image(BIG, instance_uid(BIG, 3), whole) == (body, len(body))


@pytest.mark.asyncio
async def test_all_files_of_a_series(archive: FakeArchive, client: ArchiveClient):
    body, _ = await client.get_image(BIG, whole)
    with zipfile.ZipFile(io.BytesIO(body)) as found:
        images = {found.read(name) for name in found.namelist() if name.endswith(".dcm")}
    assert images == set(_big_series())
    with pytest.raises((Refused, ServerFault), match=r"getImage\(SeriesInstanceUID=1\.2\.3\)"):
        await client.get_image("1.2.3", whole)


@pytest.mark.asyncio
async def test_files_with_their_digests(archive: FakeArchive, nbia: ArchiveClient):
    for body, _ in (
        await nbia.get_image(BIG, whole, IncludeMD5="Yes", NewFileNames="Yes"),
        await nbia.get_image_with_md5_hash(BIG, whole),
    ):
        with zipfile.ZipFile(io.BytesIO(body)) as found:
            lines = found.read("md5hashes.csv").decode().splitlines()
            assert lines[0] == "Filename,MD5Hash"
            assert {line.split(",")[1] for line in lines[1:]} == {hashlib.md5(b).hexdigest() for b in _big_series()}
    assert archive.requests[-2] == (
        "getImage",
        {"SeriesInstanceUID": BIG, "IncludeMD5": "Yes", "NewFileNames": "Yes"},
    )


@pytest.mark.asyncio
async def test_a_refused_series_names_the_other_hosts(nbia: ArchiveClient):
    with pytest.raises(Refused, match=r"has not been granted the access.*--server nlst"):
        await nbia.get_image("1.2.3", whole)


# Calls that a dialect lacks

NBIA_ONLY: list[Callable[[ArchiveClient], Awaitable[object]]] = [
    lambda c: c.get_updated_series(),
    lambda c: c.get_series_metadata(["1.2"]),
    lambda c: c.get_series_qc_info("1.2"),
    lambda c: c.get_collection_descriptions(),
    lambda c: c.get_md5_hash_for_image("1.2"),
    lambda c: c.get_md5_hierarchy(),
    lambda c: c.get_image_with_md5_hash("1.2", whole),
]


@pytest.mark.parametrize("call", NBIA_ONLY, ids=range(len(NBIA_ONLY)))
@pytest.mark.asyncio
async def test_a_call_that_the_dialect_lacks_is_told_and_not_sent(
    archive: FakeArchive, call: Callable[[ArchiveClient], Awaitable[object]]
):
    async with asking(archive.origin, "tcia") as client:
        with pytest.raises(SettingsError):
            await call(client)
    assert archive.requests == []


@pytest.mark.asyncio
async def test_a_parameter_that_the_call_lacks_is_told_and_not_sent(archive: FakeArchive, client: ArchiveClient):
    with pytest.raises(SettingsError, match="getSeries has no parameter 'Patient'"):
        await client.get_series(Patient="x")
    assert archive.requests == []


# As it came


async def raw(client: ArchiveClient, call: str, format: Format | None = None, **params: str) -> bytes:
    return b"".join([chunk async for chunk in client.raw(find_endpoint(call), params, format)])


@pytest.mark.asyncio
async def test_answers_as_they_came(archive: FakeArchive, nbia: ArchiveClient):
    assert await raw(nbia, "getCollectionValues") == b'[{"Collection":"Brain Beta"},{"Collection":"Lung-Alpha"}]'
    assert await raw(nbia, "getCollectionValues", Format.CSV) == b"Collection\nBrain Beta\nLung-Alpha\n"
    assert (await raw(nbia, "getCollectionValues", Format.XML)).startswith(b'<?xml version="1.0"')
    assert (await raw(nbia, "getCollectionValues", Format.HTML)).startswith(b"<P ALIGN=")
    assert await raw(nbia, "getSeries", Collection="None") == b""
    assert (
        await raw(nbia, "getSingleImage", SeriesInstanceUID=BIG, SOPInstanceUID=instance_uid(BIG, 1))
        == (_big_series()[0])
    )
    assert (await raw(nbia, "getSeriesMetadata", list=BIG)).startswith(b'"PatientID","PatientName"')


@pytest.mark.asyncio
async def test_a_format_that_the_call_lacks_is_told_and_not_sent(archive: FakeArchive, nbia: ArchiveClient):
    with pytest.raises(SettingsError, match="getImage has no format csv; it has: no format parameter"):
        await raw(nbia, "getImage", Format.CSV, SeriesInstanceUID=BIG)
    with pytest.raises(SettingsError, match="getCollectionDescriptions has no format xml; it has: json"):
        await raw(nbia, "getCollectionDescriptions", Format.XML)
    assert archive.requests == []


@pytest.mark.parametrize("call", [name for name, e in ENDPOINTS.items() if e.tcia])
@pytest.mark.asyncio
async def test_the_document_of_a_call(archive: FakeArchive, call: str):
    async with asking(archive.origin, "tcia") as client:
        (document,) = await client.metadata(call)
    assert call in str(document)


@pytest.mark.asyncio
async def test_nbia_has_no_documents(nbia: ArchiveClient):
    with pytest.raises(SettingsError, match="getSeries: only the tcia dialect has metadata documents"):
        await nbia.metadata("getSeries")


@pytest.mark.asyncio
async def test_a_caller_who_stops_reading_gives_the_slot_back(nbia: ArchiveClient):
    chunks = nbia.raw(ENDPOINTS["getImage"], {"SeriesInstanceUID": BIG})
    assert await anext(chunks)
    assert nbia.pace.statistics().in_flight == 1
    await chunks.aclose()
    assert nbia.pace.statistics().in_flight == 0

    async def begins(chunks: AsyncIterator[bytes], length: int | None) -> bool:
        return bool(await anext(chunks))

    assert await nbia.get_image(BIG, begins)
    assert nbia.pace.statistics().in_flight == 0
