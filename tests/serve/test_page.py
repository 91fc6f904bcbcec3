"""The page at `/` and what it asks the server, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from fakes.dicom import instance_uid, make_series, uid
from pydicom.data import get_testdata_file

from mirror.ledger import Catalogue, Ledger
from mirror.serve import make_app
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


async def preview(client: aiohttp.ClientSession, series: str, **params: str) -> tuple[int, bytes, str | None]:
    (first, *_) = await ask(client, "instances", uid=series)
    async with client.get("/_page/preview", params={"uid": series, "instance": first["uid"], **params}) as answer:
        return answer.status, await answer.read(), answer.headers.get("X-Frames")


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
    rest = await ask(client, "instances", uid=SERIES, after=first[-1]["uid"])
    assert len(first) == 50
    assert {i["uid"] for i in first + rest} == {instance_uid(SERIES, n) for n in range(1, 61)}


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
        status, body, count = await preview(client, str(row["uid"]))
        if status == 200:
            assert body.startswith(b"\x89PNG\r\n\x1a\n")
            pictures += 1
            frames.add(count)
        else:
            assert (status, body) == (422, b"This instance has no pixels.")
            words += 1
    assert (pictures, words) == (3, 1)
    assert "30" in frames


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
    assert quiet == {"writing": False, "to_do": 0}
    assert busy == {"writing": True, "to_do": 0}
