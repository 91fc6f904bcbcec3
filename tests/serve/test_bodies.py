"""How bodies go out: HEAD, conditions, ranges, packed lists, and clients that stop reading."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zipfile
from contextlib import asynccontextmanager, suppress

import pytest
import zstandard
from aiohttp import web
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import instance_uid, make_series, uid

from mirror.ledger import Catalogue
from mirror.serve import make_app
from mirror.serve.bodies import Bodies
from mirror.settings import ServeSettings

SERIES = uid(9, 1, 1, 1)
NOTHING = {"Accept-Encoding": "identity"}


@pytest.fixture(params=[16, 512, 2500], ids=["small", "large", "huge"])
def file(request, archive: FakeArchive) -> bytes:
    """The one file of a series that a connection takes at once, or in two, or in many stretches."""
    (body,) = make_series(series_uid=SERIES, instances=1, side=request.param)
    archive.stock("One", [body])
    return body


async def image(archive: FakeArchive, method: str = "GET", **headers: str):
    of = {"SeriesInstanceUID": SERIES, "SOPInstanceUID": instance_uid(SERIES, 1)}
    return await ask(archive.url() + "getSingleImage", method, headers=headers, **of)


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [("bytes=100-", 100, None), ("bytes=0-0", 0, 1), ("bytes=100-199", 100, 200), ("bytes=-50", -50, None)],
)
@pytest.mark.asyncio
async def test_a_range(archive, file, asked, begin, end):
    answer = await image(archive, Range=asked)
    wanted = file[begin:end]
    first = begin % len(file)
    assert (answer.status, answer.body) == (206, wanted)
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(wanted) - 1}/{len(file)}"


@pytest.mark.asyncio
async def test_a_range_that_ends_beyond_the_file_ends_with_it(archive, file):
    answer = await image(archive, Range=f"bytes={len(file) - 3}-{len(file) + 100}")
    assert (answer.status, answer.body) == (206, file[-3:])


@pytest.mark.asyncio
async def test_a_range_behind_the_file(archive, file):
    answer = await image(archive, Range=f"bytes={len(file)}-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(file)}")


@pytest.mark.parametrize("asked", ["bytes=5-1", "lines=1-2", "bytes=a-b", "bytes=0-1,5-6"])
@pytest.mark.asyncio
async def test_what_is_no_range_is_the_whole(archive, file, asked):
    answer = await image(archive, Range=asked)
    assert (answer.status, answer.body) == (200, file)


@pytest.mark.asyncio
async def test_a_range_of_another_object_is_the_whole(archive, file):
    tag = (await image(archive)).headers["ETag"]
    assert (await image(archive, Range="bytes=1-", **{"If-Range": '"other"'})).body == file
    assert (await image(archive, Range="bytes=1-", **{"If-Range": tag})).body == file[1:]


@pytest.mark.asyncio
async def test_who_has_an_object_is_told_so(archive, file):
    first = await image(archive)
    assert first.headers["Accept-Ranges"] == "bytes"
    again = await image(archive, **{"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    other = await image(archive, **{"If-None-Match": '"other"'})
    assert (other.status, other.body) == (200, file)


@pytest.mark.asyncio
async def test_the_head_of_an_object(archive, file):
    answer = await image(archive, "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(file))


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_the_head_of_a_list_and_of_a_zip(archive: FakeArchive, dialect, monkeypatch):
    whole = await ask(archive.url(dialect) + "getSeries", headers=NOTHING)
    head = await ask(archive.url(dialect) + "getSeries", "HEAD", headers=NOTHING)
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(whole.body)))
    monkeypatch.setattr("mirror.serve.answers._BATCH", 2)
    assert (await ask(archive.url(dialect) + "getSeries", "HEAD")).status == 200
    zipped = await ask(archive.url(dialect) + "getImage", "HEAD", SeriesInstanceUID=uid(1, 1, 1, 1))
    assert (zipped.status, zipped.body) == (200, b"")


@pytest.mark.parametrize("batch", [2, 2000], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("takes", "coding"),
    [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, zstd", "zstd"),
        ("gzip;q=1, zstd;q=0.5", "gzip"),
        ("*", "gzip"),
        ("*, gzip;q=0", None),
        ("gzip;q=0", None),
        ("br", None),
        ("gzip;q=mad", None),
    ],
)
@pytest.mark.asyncio
async def test_lists_are_packed_as_the_client_takes_them(archive: FakeArchive, monkeypatch, batch, takes, coding):
    monkeypatch.setattr("mirror.serve.answers._BATCH", batch)
    plain = await ask(archive.url() + "getSeries", headers=NOTHING)
    assert "Content-Encoding" not in plain.headers
    packed = await ask(archive.url() + "getSeries", headers={"Accept-Encoding": takes}, unpack=False)
    assert packed.headers.get("Content-Encoding") == coding
    assert packed.headers["Vary"] == "Accept-Encoding"
    body = {
        "gzip": gzip.decompress,
        "zstd": lambda told: zstandard.ZstdDecompressor().decompressobj().decompress(told),
        None: bytes,
    }[coding](packed.body)
    assert body == plain.body
    assert coding is None or len(packed.body) < len(body) / 2


@pytest.mark.asyncio
async def test_without_the_extra_lists_are_packed_by_gzip(archive: FakeArchive, monkeypatch):
    monkeypatch.setattr("mirror.serve.packing.zstandard", None)
    for takes, coding in (("gzip, zstd", "gzip"), ("zstd", None)):
        answer = await ask(archive.url() + "getSeries", headers={"Accept-Encoding": takes}, unpack=False)
        assert answer.headers.get("Content-Encoding") == coding


@pytest.mark.asyncio
async def test_who_has_a_list_is_told_so_until_it_is_another(archive: FakeArchive):
    url = archive.url() + "getSeries"
    first = await ask(url, headers=NOTHING)
    tag = {"If-None-Match": first.headers["ETag"]}
    for takes in ("identity", "gzip"):
        again = await ask(url, headers={**tag, "Accept-Encoding": takes})
        assert (again.status, again.body) == (304, b"")
    archive.stock("More", make_series(series_uid=uid(8, 1, 1, 1), instances=1))
    other = await ask(url, headers=tag)
    assert (other.status, len(other.rows)) == (200, len(json.loads(first.body)) + 1)


@asynccontextmanager
async def raw_client(port: int, request: str):
    """A connection with a small buffer that has sent this request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(request.encode())
    await writer.drain()
    try:
        yield reader
    finally:
        writer.close()


async def until_cut(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends, whichever way."""
    came = b""
    with suppress(ConnectionError):
        while chunk := await reader.read(1 << 20):
            came += chunk
    return came


@pytest.mark.parametrize("call", ["getSingleImage", "getImage"])
@pytest.mark.asyncio
async def test_who_takes_nothing_is_cut_off(archive: FakeArchive, call, monkeypatch):
    # Noise of more than the buffers of both ends hold.
    (body,) = make_series(series_uid=SERIES, instances=1, side=4096)
    archive.stock("One", [body])
    runner = web.AppRunner(make_app(archive.root, ServeSettings(progress_timeout=0.5)), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    of = f"SeriesInstanceUID={SERIES}"
    if call == "getSingleImage":
        of += f"&SOPInstanceUID={instance_uid(SERIES, 1)}"
    try:
        ask_for = f"GET /nbia-api/services/v4/{call}?{of} HTTP/1.1\r\nHost: x\r\n\r\n"
        async with raw_client(port, ask_for) as reader:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(2)
            assert len(await until_cut(reader)) < len(body)
    finally:
        await runner.cleanup()


@pytest.mark.asyncio
async def test_an_object_that_gets_shorter_while_it_is_sent_does_not_look_whole(archive: FakeArchive):
    (body,) = make_series(series_uid=SERIES, instances=1, side=4096)
    archive.stock("One", [body])
    with Catalogue(archive.root) as catalogue:
        row = catalogue.instance(instance_uid(SERIES, 1))
    assert row is not None
    path = archive.root / row["path"]
    of = f"SeriesInstanceUID={SERIES}&SOPInstanceUID={instance_uid(SERIES, 1)}"
    port = int(archive.origin.rpartition(":")[2])
    ask_for = f"GET /nbia-api/services/v4/getSingleImage?{of} HTTP/1.1\r\nHost: x\r\n\r\n"
    async with raw_client(port, ask_for) as reader:
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        with path.open("r+b") as file:
            file.truncate(len(body) // 4)
        assert len(await until_cut(reader)) < len(body)


@pytest.mark.asyncio
async def test_who_takes_too_long_for_a_list_is_cut_off(archive: FakeArchive, monkeypatch, caplog):
    """Though it takes a little all the time: the ledger's log grows for as long."""
    monkeypatch.setattr("mirror.serve.answers._BATCH", 1)
    settings = ServeSettings(list_timeout=0.3, compress=False)

    async def slow(self, request, response, batch):
        await write(self, request, response, batch)
        await asyncio.sleep(0.2)

    write = Bodies._write
    monkeypatch.setattr(Bodies, "_write", slow)
    runner = web.AppRunner(make_app(archive.root, settings), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        ask_for = "GET /nbia-api/services/v4/getSeries HTTP/1.1\r\nHost: x\r\n\r\n"
        async with raw_client(port, ask_for) as reader:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            assert not (await until_cut(reader)).endswith(b"0\r\n\r\n")
    finally:
        await runner.cleanup()
    assert "has not taken all of it within 0.3 s" in caplog.text


# Zips of files that are sent as they lie


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.asyncio
async def test_a_stored_zip_of_large_files(archive: FakeArchive, version):
    """In chunks, and to a client that knows none, such as nginx as it comes."""
    files = make_series(series_uid=SERIES, instances=5, side=1200)
    archive.stock("One", files)
    host, port = archive.origin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    path = f"/nbia-api/services/v4/getImage?SeriesInstanceUID={SERIES}"
    asked = f"GET {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: identity\r\n\r\n"
    writer.write(asked.encode())
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert (b"Transfer-Encoding: chunked" in head) == (version == "1.1")
    if version == "1.1":
        body = dechunked(body)
    with zipfile.ZipFile(io.BytesIO(body)) as zipped:
        assert zipped.testzip() is None
        assert [zipped.read(f"0000000{n}.dcm") for n in range(1, 6)] == files


def dechunked(body: bytes) -> bytes:
    """The body that was sent in chunks, which must end."""
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert body == b"\r\n"
            return whole
        whole += body[:length]
        assert body[length : length + 2] == b"\r\n"
        body = body[length + 2 :]
