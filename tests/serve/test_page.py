"""The page at `/` and what it asks the server, over real sockets."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from fakes.dicom import instance_uid, make_series, uid
from pydicom import dcmread
from pydicom.data import get_testdata_file

from mirror.ledger import Catalogue, Ledger, browsing
from mirror.serve import make_app
from mirror.serve.page import pixels
from mirror.serve.stock import stock

SERIES, HOSTILE = uid(1, 1, 1), "<script>alert(1)</script>"


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    stock(tmp_path, "Lung", make_series(patient_id=HOSTILE, series_uid=SERIES, instances=60), released="2020-01-31")
    for name in ("CT_small.dcm", "JPEG2000.dcm", "rtplan.dcm", "examples_ybr_color.dcm"):
        stock(tmp_path, "Real", [Path(str(get_testdata_file(name, download=False)))], released="2020-01-31")
    (tmp_path / ".mirror" / "runs").mkdir(exist_ok=True)
    (tmp_path / ".mirror" / "runs" / "20200101T000000Z-abcdef.json").write_text('{"exit_code": 0}')
    runner = web.AppRunner(make_app(tmp_path), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


async def ask(client: aiohttp.ClientSession, path: str, **params: str):
    async with client.get(f"/_page/{path}", params=params) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        return await answer.json()


async def series_of_real(client: aiohttp.ClientSession) -> dict[str, dict[str, object]]:
    found = {}
    for patient in await ask(client, "patients", collection="Real"):
        for row in await ask(client, "series", collection="Real", patient=patient):
            found[str(row["Modality"]) + str(row["SeriesDescription"])] = row
    return found


async def preview(client: aiohttp.ClientSession, series: str, **params: str) -> tuple[int, bytes, dict[str, Any]]:
    (first, *_) = await ask(client, "instances", uid=series)
    async with client.get("/_page/preview", params={"uid": series, "instance": first["uid"], **params}) as answer:
        return answer.status, await answer.read(), json.loads(answer.headers.get("X-Preview", "{}"))


@pytest.mark.asyncio
async def test_the_page_allows_no_inline_script_and_no_other_host(client: aiohttp.ClientSession) -> None:
    async with client.get("/") as answer:
        text = await answer.text()
        assert answer.status == 200
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "http" not in text
    for name in ("page.js", "page.css", "icon.svg"):
        async with client.get(f"/_page/static/{name}") as answer:
            assert answer.status == 200
    async with client.get("/_page/static/..%2froutes.py") as answer:
        assert answer.status == 404


@pytest.mark.asyncio
async def test_from_collections_to_instances_by_pages(client: aiohttp.ClientSession) -> None:
    lung, real = await ask(client, "collections")
    assert (lung["collection"], lung["series"], lung["complete"], lung["images"]) == ("Lung", 1, 1, 60)
    assert real["collection"] == "Real"
    assert await ask(client, "patients", collection="Lung", contains="SCRIPT") == [HOSTILE]
    assert await ask(client, "patients", collection="Lung", contains="nobody") == []
    assert await ask(client, "patients", collection="Lung", after=HOSTILE) == []
    (row,) = await ask(client, "series", collection="Lung", patient=HOSTILE)
    assert (row["uid"], row["state"]) == (SERIES, "complete")
    assert await ask(client, "series", collection="Lung", patient=HOSTILE, study=row["study"], id=str(row["id"])) == []
    first = await ask(client, "instances", uid=SERIES)
    rest = await ask(client, "instances", uid=SERIES, after=first[-1]["uid"], number=str(first[-1]["number"]))
    assert len(first) == 50
    assert [i["uid"] for i in first + rest] == [instance_uid(SERIES, n) for n in range(1, 61)]
    assert [i["number"] for i in first + rest] == list(range(1, 61))


@pytest.mark.asyncio
async def test_what_is_withdrawn_is_not_shown(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger, ledger.transaction() as db:
        db.execute("UPDATE series SET presence = 'withdrawn' WHERE series_instance_uid = ?", (SERIES,))
    assert [row["collection"] for row in await ask(client, "collections")] == ["Real"]
    assert await ask(client, "patients", collection="Lung") == []
    assert await ask(client, "instances", uid=SERIES) == []
    async with client.get("/_page/one", params={"uid": SERIES}) as answer:
        assert answer.status == 404


@pytest.mark.asyncio
async def test_previews_of_real_files(client: aiohttp.ClientSession) -> None:
    pictures = words = 0
    frames = set()
    for row in (await series_of_real(client)).values():
        status, body, told = await preview(client, str(row["uid"]))
        if status == 200:
            assert body.startswith(b"\x89PNG\r\n\x1a\n")
            pictures += 1
            frames.add(told["frames"])
        else:
            assert (status, body) == (422, b"This instance has no pixels.")
            words += 1
    assert (pictures, words) == (3, 1)
    assert 30 in frames


@pytest.mark.asyncio
async def test_a_frame_that_is_not_there_and_a_file_that_is_broken(
    client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    row = next(row for row in (await series_of_real(client)).values() if row["Modality"] == "CT")
    status, body, _ = await preview(client, str(row["uid"]), frame="7")
    assert (status, body) == (422, b"There is no frame 8.")
    with Catalogue(tmp_path) as catalogue:
        for held in catalogue.instances(str(row["uid"])):
            (tmp_path / held["path"]).write_bytes(b"nothing")
    assert (await preview(client, str(row["uid"])))[:2] == (422, b"This file cannot be drawn.")


@pytest.mark.asyncio
async def test_header_manifest_and_runs(client: aiohttp.ClientSession) -> None:
    tags = await ask(client, "tags", uid=SERIES, instance=instance_uid(SERIES, 1))
    assert {"element": "(0010,0020)", "name": "Patient ID", "data": HOSTILE} in tags
    async with client.get("/_page/manifest", params={"uid": SERIES}) as answer:
        assert (await answer.text()).splitlines()[-1] == SERIES
    (run,) = await ask(client, "runs")
    # Its report says little: then the name is all there is.
    assert run == {"run": "20200101T000000Z-abcdef"}
    assert await ask(client, "run", name=run["run"]) == {"exit_code": 0}
    for name in ("../ledger", "none"):
        async with client.get("/_page/run", params={"name": name}) as answer:
            assert answer.status == 404


@pytest.mark.asyncio
async def test_the_events_tell_that_somebody_writes(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with client.get("/_page/events") as answer:
        quiet = json.loads((await answer.content.readuntil(b"\n\n"))[6:])
        with Ledger(tmp_path) as ledger:
            ledger.set_meta(server="another")
        busy = json.loads((await answer.content.readuntil(b"\n\n"))[6:])
    no_run = {"live": None, "is_there": False, "to_do": 0}
    assert quiet == {**no_run, "writing": False}
    assert busy == {**no_run, "writing": True}


# Searching


@pytest.mark.asyncio
async def test_series_are_searched_step_by_step(client: aiohttp.ClientSession, monkeypatch) -> None:
    monkeypatch.setattr(browsing, "_STEP", 1)
    rows, after, steps = [], 0, 0
    while after is not None:
        step = await ask(client, "search", collection="Real", words="1CT1", id=str(after))
        assert step["after"] is None or step["after"] > after
        rows, after, steps = rows + step["rows"], step["after"], steps + 1
    assert steps > 4  # one a series, and one more that finds none
    assert [row["Modality"] for row in rows] == ["CT"]
    monkeypatch.undo()
    for words, count in (("", 4), ("CT nothing", 0), ("1ct1", 1), (rows[0]["uid"][:-3], 1), ("é", 0)):
        found = await ask(client, "search", collection="Real", words=words)
        assert (len(found["rows"]), found["after"]) == (count, None), words
    assert (await ask(client, "search", collection="Nowhere", words="ct")) == {"rows": [], "after": None}


@pytest.mark.asyncio
async def test_what_is_withdrawn_ends_no_search(client: aiohttp.ClientSession, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(browsing, "_STEP", 1)
    first = (await ask(client, "search", collection="Real", words=""))["rows"][0]
    with Ledger(tmp_path) as ledger, ledger.transaction() as db:
        db.execute("UPDATE series SET presence = 'withdrawn' WHERE series_instance_uid = ?", (first["uid"],))
    step = await ask(client, "search", collection="Real", words="")
    assert step["rows"] == []
    assert step["after"] is not None


@pytest.mark.asyncio
async def test_a_place_is_found_by_what_it_begins_with(client: aiohttp.ClientSession) -> None:
    async def found(text: str) -> list[set[str]]:
        return [set(place) for place in await ask(client, "find", text=text)]

    assert await found("lun") == [{"collection"}]
    assert await found("<script") == [{"collection", "patient"}]
    assert await found(SERIES) == [{"collection", "patient", "series"}]
    assert {"collection", "patient", "study"} in await found(SERIES[:-3])
    assert await found(instance_uid(SERIES, 7)) == [{"collection", "patient", "series", "instance"}]
    assert await found("9.9.9") == await found("") == await found("%") == await found("'") == []


@pytest.mark.asyncio
async def test_a_whole_patient_id_is_found_before_those_that_begin_so(
    client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    for number in range(24):
        files = make_series(patient_id=f"7{number:02}", series_uid=uid(7, number + 1, 1), instances=1)
        stock(tmp_path, f"A{number % 2}", files, released="2020-01-31")
    stock(tmp_path, "Z", make_series(patient_id="7", series_uid=uid(8, 1, 1), instances=1), released="2020-01-31")
    places = await ask(client, "find", text="7")
    assert places[0] == {"collection": "Z", "patient": "7"}
    assert len(places) == 20


@pytest.mark.asyncio
async def test_what_is_not_complete_is_told_with_its_findings(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    assert await ask(client, "unfinished", collection="Lung") == []
    with Ledger(tmp_path) as ledger, ledger.transaction() as db:
        db.execute(
            "UPDATE series SET state = 'incomplete', findings = '[\"too few\"]' WHERE series_instance_uid = ?",
            (SERIES,),
        )
        db.execute(
            "UPDATE instances SET name = NULL WHERE sop_instance_uid <> ? AND sop_instance_uid LIKE ? || '.%'",
            (instance_uid(SERIES, 1), SERIES),
        )
    (row,) = await ask(client, "unfinished", collection="Lung")
    assert (row["state"], row["findings"], row["complete"]) == ("incomplete", ["too few"], False)
    assert 0 < row["bytes"] < row["told"]
    lung, _ = await ask(client, "collections")
    assert (lung["complete"], lung["incomplete"], lung["bytes"], lung["told"]) == (0, 1, row["bytes"], row["told"])


# Windows, and what a picture may take


async def ct(client: aiohttp.ClientSession) -> str:
    return next(str(row["uid"]) for row in (await series_of_real(client)).values() if row["Modality"] == "CT")


@pytest.mark.asyncio
async def test_a_picture_through_another_window(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    series = await ct(client)
    with Catalogue(tmp_path) as catalogue:
        path = tmp_path / next(catalogue.instances(series))["path"]
    dataset = dcmread(path)
    dataset.WindowCenter, dataset.WindowWidth = ["40", "-600"], ["400", "1500"]
    dataset.WindowCenterWidthExplanation = ["SOFT", "LUNG"]
    dataset.save_as(path)
    status, own, told = await preview(client, series)
    assert status == 200
    assert told["windows"] == [
        {"center": 40, "width": 400, "name": "SOFT"}, {"center": -600, "width": 1500, "name": "LUNG"},
    ]  # fmt: skip
    narrow = (await preview(client, series, center="40", width="1"))[1]
    grey = {byte for row in pixels_of(narrow) for byte in row}
    assert grey <= {0, 128, 255}
    assert len({byte for row in pixels_of(own) for byte in row}) > 20
    for center, width in (("nan", "1"), ("1", "0"), ("1", "-5"), ("x", "1"), ("inf", "inf")):
        assert (await preview(client, series, center=center, width=width))[1] == own


def pixels_of(png: bytes) -> list[bytes]:
    """The rows of a grey PNG as the page makes them."""
    width, height = struct.unpack(">II", png[16:24])
    data = zlib.decompress(png[png.index(b"IDAT") + 4 : -16])
    return [data[y * (width + 1) + 1 : (y + 1) * (width + 1)] for y in range(height)]


@pytest.mark.parametrize("missing", ["numpy", "pylibjpeg openjpeg PIL"])
@pytest.mark.asyncio
async def test_without_the_extra_a_picture_says_what_is_missing(
    client: aiohttp.ClientSession, tmp_path_factory, monkeypatch, missing: str
) -> None:
    shadow = tmp_path_factory.mktemp("shadow")
    for name in missing.split():
        (shadow / f"{name}.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(shadow))
    row = next(row for row in (await series_of_real(client)).values() if row["Modality"] == "NM")
    status, body, _ = await preview(client, str(row["uid"]))
    assert (status, body) == (
        422, b"No decoder here for JPEG 2000 Image Compression; tcia-mirror[page] brings the usual ones.",
    )  # fmt: skip


@pytest.mark.asyncio
async def test_a_file_that_is_too_large_for_a_picture(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    series = await ct(client)
    with Catalogue(tmp_path) as catalogue:
        path = tmp_path / next(catalogue.instances(series))["path"]
    dataset = dcmread(path)
    dataset.Rows = dataset.Columns = 40_000
    del dataset.PixelData
    dataset.save_as(path)
    size = 40_000 * 40_000 * 2
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, size))
        file.truncate(file.tell() + size)  # a hole
    assert (await preview(client, series))[:2] == (422, b"This file takes more memory than a preview may.")


@pytest.mark.asyncio
async def test_a_picture_that_takes_too_long(client: aiohttp.ClientSession, monkeypatch) -> None:
    monkeypatch.setattr(pixels, "_SECONDS", 0.01)
    assert (await preview(client, SERIES))[:2] == (422, b"Rendering took too long.")


@pytest.mark.asyncio
async def test_numbers_that_are_none(client: aiohttp.ClientSession) -> None:
    for text in ("x", "-1", "9" * 30, "²", "1e3"):
        first = await ask(client, "search", collection="Real", words="", id=text)
        assert len(first["rows"]) == 4
        await ask(client, "instances", uid=SERIES, after="1", number=text)
