"""The server beyond single answers: zips, damage, long answers, and a ledger that is written meanwhile."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import pytest
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import instance_uid, make_series, uid

from mirror.errors import SettingsError
from mirror.serve import make_app, serve
from mirror.settings import ServeSettings

ALPHA, BIG = uid(1, 1, 1, 1), uid(2, 1, 2, 1)


async def zip_of(archive: FakeArchive, call: str, **params: str) -> zipfile.ZipFile:
    answer = await ask(archive.url() + call, **params)
    assert answer.status == 200
    assert "Content-Length" not in answer.headers
    return zipfile.ZipFile(io.BytesIO(answer.body))


def held(archive: FakeArchive, series: str) -> list[bytes]:
    """The files of a series by InstanceNumber, which make_series puts into the UIDs."""
    return [body for _, (of, body) in sorted(archive.files().items()) if of == series]


@pytest.mark.asyncio
async def test_get_image_has_the_licence_first_and_numbers_the_files(archive: FakeArchive) -> None:
    with await zip_of(archive, "getImage", SeriesInstanceUID=ALPHA) as zipped:
        assert zipped.namelist() == ["LICENSE", "00000001.dcm", "00000002.dcm", "00000003.dcm"]
        assert zipped.read("LICENSE").decode() == (
            "License Information. The Lung-Alpha collection is distributed under the"
            " Creative Commons Attribution 4.0 International License at https://creativecommons.org/licenses/by/4.0/"
            " By downloading the data, you agree to abide by terms of this license.\n"
        )
        assert [zipped.read(name) for name in zipped.namelist()[1:]] == held(archive, ALPHA)


@pytest.mark.asyncio
async def test_get_image_with_ordered_names_and_hashes(archive: FakeArchive) -> None:
    params = {"SeriesInstanceUID": BIG, "NewFileNames": "Yes", "IncludeMD5": "yes"}
    with await zip_of(archive, "getImage", **params) as zipped:
        # Acquisitions take turns in this series, so that every run is one image long.
        names = [f"{n}-1.dcm" for n in range(1, 13)]
        assert zipped.namelist() == ["LICENSE", *names, "md5hashes.csv"]
        assert [zipped.read(name) for name in names] == held(archive, BIG)
        lines = list(csv.reader(io.StringIO(zipped.read("md5hashes.csv").decode())))
        assert lines[0] == ["Filename", "MD5Hash"]
        assert dict(lines[1:]) == {name: hashlib.md5(zipped.read(name)).hexdigest() for name in names}


@pytest.mark.asyncio
async def test_get_image_with_md5_hash_has_no_licence(archive: FakeArchive) -> None:
    with await zip_of(archive, "getImageWithMD5Hash", SeriesInstanceUID=ALPHA) as zipped:
        assert zipped.namelist() == ["00000001.dcm", "00000002.dcm", "00000003.dcm", "md5hashes.csv"]


@pytest.mark.asyncio
@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.parametrize("damage", ["gone", "shorter", "longer"])
async def test_a_damaged_file_is_never_served_as_if_it_were_whole(
    archive: FakeArchive, dialect: str, damage: str
) -> None:
    sop = instance_uid(ALPHA, 3)
    path = archive.path_of(sop)
    body = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(body[:-1] if damage == "shorter" else body + b"\0")
    url = archive.url("nbia" if dialect == "nbia" else "tcia")
    single = await ask(url + "getSingleImage", SeriesInstanceUID=ALPHA, SOPInstanceUID=sop)
    assert single.status == 500
    assert single.text.count("StoreError") == 1
    assert str(archive.root) not in single.text
    # A small zip has no byte sent when the damage is met, so the status still tells; a large one is cut off.
    try:
        zipped = await ask(url + "getImage", SeriesInstanceUID=ALPHA)
    except aiohttp.ClientError:
        return
    assert zipped.status == 500


@pytest.mark.asyncio
async def test_a_large_zip_is_cut_off_where_a_file_is_gone(archive: FakeArchive) -> None:
    series = uid(9, 1, 1, 1)
    archive.stock("Large", make_series(series_uid=series, instances=3, side=1024))
    archive.path_of(instance_uid(series, 3)).unlink()
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(archive.url() + "getImage", SeriesInstanceUID=series)


@pytest.mark.asyncio
async def test_a_large_file_comes_whole_and_connections_stay_usable(archive: FakeArchive) -> None:
    series = uid(9, 1, 1, 1)
    files = make_series(series_uid=series, instances=2, side=512)
    archive.stock("Large", files)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for number, file in enumerate(files, start=1):
            params = {"SeriesInstanceUID": series, "SOPInstanceUID": instance_uid(series, number)}
            async with session.get(archive.url() + "getSingleImage", params=params) as answer:
                assert answer.content_length == len(file)
                assert await answer.read() == file


@pytest.mark.asyncio
async def test_a_long_answer_is_streamed(archive: FakeArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.serve.answers._BATCH", 20)
    series = uid(9, 1, 1, 1)
    archive.stock("Long", make_series(series_uid=series, instances=50, side=1))
    url = archive.url() + "getSOPInstanceUIDs"
    as_json = await ask(url, SeriesInstanceUID=series)
    as_csv = await ask(url, SeriesInstanceUID=series, format="csv")
    uids = [instance_uid(series, number) for number in range(1, 51)]
    assert [row["SOPInstanceUID"] for row in as_json.rows] == uids
    assert as_csv.text.splitlines() == ["SOPInstanceUID", *uids]
    for answer in (as_json, as_csv):
        assert answer.headers["Transfer-Encoding"] == "chunked"


@pytest.mark.asyncio
async def test_a_client_that_leaves_in_the_middle_does_not_disturb_others(archive: FakeArchive) -> None:
    series = uid(9, 1, 1, 1)
    archive.stock("Large", make_series(series_uid=series, instances=20, side=512))
    for _ in range(3):
        async with (
            aiohttp.ClientSession() as session,
            session.get(archive.url() + "getImage", params={"SeriesInstanceUID": series}) as answer,
        ):
            await answer.content.readexactly(1000)
    assert len((await ask(archive.url() + "getSeries")).rows) == 8


@pytest.mark.asyncio
async def test_reads_go_on_while_the_ledger_is_written(archive: FakeArchive) -> None:
    done = anyio.Event()

    async def write() -> None:
        for number in range(1, 13):
            files = make_series(patient_id="S9", study_uid=uid(9, 1, 1), series_uid=uid(9, 1, 1, number))
            await anyio.to_thread.run_sync(lambda files=files: archive.stock("Growing", files))
        done.set()

    async def read() -> None:
        seen = 0
        while not done.is_set():
            answer = await ask(archive.url() + "getSeries", Collection="Growing")
            rows = answer.rows if answer.body else []
            assert {row["ImageCount"] for row in rows} <= {4}
            assert len(rows) >= seen
            seen = len(rows)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        for _ in range(3):
            tasks.start_soon(read)
    assert len((await ask(archive.url() + "getSeries", Collection="Growing")).rows) == 12


@pytest.mark.asyncio
async def test_serve_tells_its_url_and_ends_when_asked(archive: FakeArchive) -> None:
    stop = anyio.Event()
    urls: list[str] = []

    async def ask_it() -> None:
        answer = await ask(urls[0] + "/nbia-api/services/v4/getCollectionValues")
        assert len(answer.rows) == 2
        stop.set()

    async with anyio.create_task_group() as tasks:

        def ready(url: str) -> None:
            urls.append(url)
            tasks.start_soon(ask_it)

        await serve(archive.root, ServeSettings(port=0), ready=ready, stop=stop)
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(urls[0])


@pytest.mark.asyncio
async def test_serve_ends_when_cancelled(archive: FakeArchive) -> None:
    with anyio.CancelScope() as scope:
        await serve(archive.root, ServeSettings(port=0), ready=lambda url: scope.cancel())
    assert scope.cancelled_caught


@pytest.mark.asyncio
async def test_health_is_that_the_mirror_can_be_read(archive: FakeArchive) -> None:
    ledger = archive.root / ".mirror" / "ledger.sqlite"

    async def health() -> tuple[int, str]:
        answer = await ask(archive.origin + "/healthz")
        return answer.status, answer.text

    assert await health() == (200, "ok\n")
    ledger.rename(archive.root / "gone")
    assert await health() == (503, "SettingsError\n")
    (archive.root / "gone").rename(ledger)
    assert await health() == (200, "ok\n")
    ledger.rename(archive.root / "sound")
    ledger.write_bytes(b"no database" * 100)
    assert await health() == (503, "Damaged\n")
    assert (await ask(archive.origin + "/healthz", "POST")).status == 405


def test_there_must_be_a_mirror(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no mirror here"):
        make_app(tmp_path)
