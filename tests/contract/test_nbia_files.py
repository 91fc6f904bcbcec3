"""The nbia dialect's getDCMImage and getDicomTags, against the files that the archive holds."""

from __future__ import annotations

import io
import zipfile

import pydicom
import pytest
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import instance_uid, make_series, uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

pytestmark = pytest.mark.asyncio

#: Twelve files in two acquisitions.
BIG = uid(2, 1, 2, 1)


async def members(archive: FakeArchive, **params: str) -> dict[str, bytes]:
    """Name -> bytes of what getDCMImage gives, in its order."""
    answer = await ask(archive.url() + "getDCMImage", SeriesInstanceUID=BIG, **params)
    assert answer.status == 200
    with zipfile.ZipFile(io.BytesIO(answer.body)) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


async def test_a_zip_by_numbers_without_a_license(archive: FakeArchive) -> None:
    got = await members(archive)
    named = await ask(archive.url() + "getImage", SeriesInstanceUID=BIG, NewFileNames="Yes")
    with zipfile.ZipFile(io.BytesIO(named.body)) as zipped:
        assert ["LICENSE", *got] == zipped.namelist()
    held = {body for series, body in archive.files().values() if series == BIG}
    assert set(got.values()) == held
    assert len(got) == 12


@pytest.mark.parametrize(("asked", "listed"), [("true", True), ("TRUE", True), ("false", False), ("yes", False)])
async def test_with_md5s_where_one_asks_for_verification(archive: FakeArchive, asked: str, listed: bool) -> None:
    got = await members(archive, MD5Verification=asked, IncludeAnnotation="true")
    assert (list(got)[-1] == "md5hashes.csv") is listed
    assert len(got) == 12 + listed
    if listed:
        lines = got.pop("md5hashes.csv").decode().splitlines()
        assert [line.partition(",")[0] for line in lines] == ["Filename", *got]


async def test_a_series_that_is_not_there(archive: FakeArchive) -> None:
    url = archive.url()
    denied = await ask(url + "getDCMImage", SeriesInstanceUID="1.2.3")
    assert (denied.status, denied.text) == (400, "Image with given SeriesInstanceUID,1.2.3, is not in public domain.")
    denied = await ask(url + "getDicomTags", SeriesUID="1.2.3")
    assert denied.status == 400
    assert denied.text.startswith(
        "The user has not been granted the access to image with given SeriesInstanceUID,1.2.3"
    )


async def test_the_elements_of_one_image(archive: FakeArchive) -> None:
    answer = await ask(archive.url() + "getDicomTags", SeriesUID=BIG)
    assert answer.headers["Content-Type"] == "application/json"
    rows = answer.rows
    assert all(list(row) == ["element", "name", "data"] for row in rows)
    told = {row["element"]: (row["name"], row["data"]) for row in rows}
    assert told["(0008,0060)"] == ("Modality", "MR")
    assert told["(0020,000E)"] == ("Series Instance UID", BIG)
    assert told["(0002,0010)"] == ("Transfer Syntax UID", "1.2.840.10008.1.2.1")
    assert told["(0008,0018)"][1] in {instance_uid(BIG, n) for n in range(1, 13)}
    assert "(7FE0,0010)" not in told
    first = archive.files()[told["(0008,0018)"][1]][1]
    dataset = pydicom.dcmread(io.BytesIO(first), stop_before_pixels=True)
    assert len(rows) == len(dataset) + len(dataset.file_meta)


async def test_what_is_in_a_sequence_follows_it_with_a_mark_for_each_level(archive: FakeArchive) -> None:
    (body,) = make_series(series_uid=uid(5, 5), instances=1)
    dataset = pydicom.dcmread(io.BytesIO(body))
    inner, outer = Dataset(), Dataset()
    inner.CodeValue = "113100"
    outer.ReferencedSOPInstanceUID = "1.2.3"
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    dataset.ReferencedImageSequence = Sequence([outer])
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.add_new(0x00291010, "OB", b"\1\2")
    changed = io.BytesIO()
    dataset.save_as(changed)
    archive.stock("Brain Beta", [changed.getvalue()])
    rows = (await ask(archive.url() + "getDicomTags", SeriesUID=uid(5, 5))).rows
    elements = [row["element"] for row in rows]
    at = elements.index("(0008,1140)")
    assert elements[at : at + 4] == ["(0008,1140)", ">(0008,1155)", ">(0040,A170)", ">>(0008,0100)"]
    assert [row["data"] for row in rows[at : at + 4]] == ["", "1.2.3", "", "113100"]
    told = {row["element"]: row["data"] for row in rows}
    assert told["(0008,0008)"] == "ORIGINAL\\PRIMARY"
    assert told["(0029,1010)"] == ""


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
@pytest.mark.parametrize(("value", "said"), [(b"a\xe9 b", "a\u00e9 b"), (b"1.5 ", "1.5"), (b"\0\0\0\0", "")])
async def test_a_value_that_is_not_what_its_vr_says_is_told_as_it_stands(
    archive: FakeArchive, value: bytes, said: str
) -> None:
    (body,) = make_series(series_uid=uid(5, 6), instances=1, ExposureTime=1234)
    assert body.count(b"IS\x04\x001234") == 1
    archive.stock("Brain Beta", [body.replace(b"IS\x04\x001234", b"IS\x04\x00" + value)])
    answer = await ask(archive.url() + "getDicomTags", SeriesUID=uid(5, 6))
    assert answer.status == 200
    told = {row["element"]: row for row in answer.rows}
    assert told["(0018,1150)"] == {"element": "(0018,1150)", "name": "Exposure Time", "data": said}
    assert told["(0020,000E)"]["data"] == uid(5, 6)


async def test_a_file_that_is_gone_is_a_fault_and_no_empty_answer(archive: FakeArchive) -> None:
    for path in archive.root.rglob("*.dcm"):
        path.unlink()
    answer = await ask(archive.url() + "getDicomTags", SeriesUID=BIG)
    assert (answer.status, answer.text) == (500, "Server was not able to process your request\nStoreError")
