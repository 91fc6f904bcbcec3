from __future__ import annotations

import io
import zipfile

import aiohttp
import pytest
from fakes.archive import FakeArchive
from fakes.dicom import instance_uid, uid
from fakes.faults import (
    cut,
    delay,
    edit_rows,
    empty,
    flip,
    flip_in_zip,
    html,
    no_such_call,
    redirect,
    short,
    short_zip,
    stall,
    status,
    swap,
)

SERIES = uid(1, 1, 1, 1)
SOP = instance_uid(SERIES, 2)


async def get(archive: FakeArchive, call: str, **params: str) -> tuple[int, aiohttp.typedefs.LooseHeaders, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(archive.url() + call, params=params, allow_redirects=False) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


async def image(archive: FakeArchive) -> bytes:
    return (await get(archive, "getSingleImage", SeriesInstanceUID=SERIES, SOPInstanceUID=SOP))[2]


@pytest.mark.asyncio
async def test_a_rule_is_used_up_and_requests_are_recorded(archive: FakeArchive) -> None:
    archive.faults.add("getSeries", status(503, "later", {"Retry-After": "7"}), times=2, Collection="Lung-Alpha")
    assert (await get(archive, "getSeries", Collection="Brain Beta"))[0] == 200
    code, headers, body = await get(archive, "getSeries", Collection="Lung-Alpha")
    assert (code, headers["Retry-After"], body) == (503, "7", b"later")
    assert (await get(archive, "getSeries", Collection="Lung-Alpha"))[0] == 503
    assert (await get(archive, "getSeries", Collection="Lung-Alpha"))[0] == 200
    assert archive.requests[0] == ("getSeries", {"Collection": "Brain Beta"})
    assert archive.counts() == {"getSeries": 4}


@pytest.mark.asyncio
@pytest.mark.parametrize("call", ["getSingleImage", "getImage", "getSeries"])
async def test_a_cut_body_ends_before_its_end(archive: FakeArchive, call: str) -> None:
    archive.faults.add(call, cut())
    params = {"SeriesInstanceUID": SERIES} | ({"SOPInstanceUID": SOP} if call == "getSingleImage" else {})
    with pytest.raises(aiohttp.ClientPayloadError):
        await get(archive, call, **params)


@pytest.mark.asyncio
async def test_bytes_are_wrong_in_the_way_that_was_asked(archive: FakeArchive) -> None:
    true = await image(archive)
    archive.faults.add("getSingleImage", flip(), times=1)
    archive.faults.add("getSingleImage", short(0.25), times=1)
    archive.faults.add("getSingleImage", swap(SOPInstanceUID=instance_uid(SERIES, 3)), times=1)
    flipped, shorter, swapped = [await image(archive) for _ in range(3)]
    assert flipped[:-1] == true[:-1]
    assert flipped[-1] == true[-1] ^ 0xFF
    assert shorter == true[: len(true) // 4]
    assert swapped == archive.files()[instance_uid(SERIES, 3)][1]
    assert await image(archive) == true


@pytest.mark.asyncio
async def test_zips_lack_an_image_or_hold_another_byte_and_are_sound(archive: FakeArchive) -> None:
    archive.faults.add("getImage", short_zip(2), times=1)
    archive.faults.add("getImage", flip_in_zip(), times=1)
    answers = [await get(archive, "getImage", SeriesInstanceUID=SERIES) for _ in range(3)]
    short_one, flipped, true = [zipfile.ZipFile(io.BytesIO(body)) for _, _, body in answers]
    assert short_one.namelist() == ["LICENSE", "00000001.dcm"]
    assert flipped.testzip() is None
    assert [flipped.read(name) == true.read(name) for name in true.namelist()] == [True, True, True, False]


@pytest.mark.asyncio
async def test_a_stalled_body_is_silent_until_the_client_leaves(archive: FakeArchive) -> None:
    archive.faults.add("getSingleImage", stall())
    true = archive.files()[SOP][1]
    url = archive.url() + "getSingleImage"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, params={"SeriesInstanceUID": SERIES, "SOPInstanceUID": SOP}) as answer,
    ):
        assert answer.content_length == len(true)
        assert await answer.content.readexactly(len(true) // 2) == true[: len(true) // 2]
        assert archive.faults.in_flight == 1


@pytest.mark.asyncio
async def test_other_answers(archive: FakeArchive) -> None:
    archive.faults.add("getSeries", html(), times=1)
    archive.faults.add("getSeries", empty(), times=1)
    archive.faults.add("getSeries", redirect("http://127.0.0.1:1/"), times=1)
    archive.faults.add("getSeries", edit_rows(lambda rows: rows[:1]), times=1)
    archive.faults.add("getSeries", no_such_call(404), times=1)
    archive.faults.add("getSeries", delay(0.001), times=1)
    page, nothing, moved, one, gone, late = [
        await get(archive, "getSeries", SeriesInstanceUID=SERIES) for _ in range(6)
    ]
    assert (page[0], page[1]["Content-Type"]) == (200, "text/html")
    assert page[2].startswith(b"<html>")
    assert (nothing[0], nothing[2]) == (200, b"")
    assert (moved[0], moved[1]["Location"]) == (302, "http://127.0.0.1:1/")
    assert one[2].count(b'"SeriesInstanceUID"') == 1
    assert gone[0] == 404
    assert late[2].count(b'"SeriesInstanceUID"') == 1
