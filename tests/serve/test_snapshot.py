"""What one answer shows: one moment of the ledger, while a sync writes; and of incomplete series what is held."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import socket
import sqlite3
import time
import tracemalloc
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from fakes.archive import FakeArchive, stock_another
from fakes.asking import ask
from fakes.dicom import instance_uid, make_series, uid

from mirror.ledger import Catalogue, Ledger
from mirror.serve.queries import hierarchy_digest
from mirror.serve.served import Served
from mirror.settings import ServeSettings

ALPHA = uid(1, 1, 1, 1)


def test_all_questions_of_an_answer_are_of_one_moment(archive_root) -> None:
    with Catalogue(archive_root.root) as catalogue:
        with catalogue.snapshot():
            before = hierarchy_digest(catalogue, {"Collection": "Lung-Alpha"})
            series = stock_another(archive_root, 50, "2024-01-01")
            archive_root.replace(instance_uid(ALPHA, 1))
            assert hierarchy_digest(catalogue, {"Collection": "Lung-Alpha"}) == before
            assert list(catalogue.instances(series)) == []
            assert catalogue.series_size(series) is None
        assert hierarchy_digest(catalogue, {"Collection": "Lung-Alpha"}) != before
        assert len(list(catalogue.instances(series))) == 2


def test_what_may_not_be_seen_is_of_the_same_moment(archive_root) -> None:
    with Catalogue(archive_root.root) as catalogue:
        with catalogue.snapshot():
            catalogue.show_only(["Lung-*"])
            with Ledger(archive_root.root) as ledger, ledger.transaction() as db:
                db.execute("UPDATE series SET collection = 'Secret' WHERE series_instance_uid = ?", (ALPHA,))
            assert catalogue.collections() == ["Lung-Alpha"]
        with catalogue.snapshot():
            catalogue.show_only(["Lung-*"])
            assert catalogue.collections() == ["Lung-Alpha"]


@pytest.fixture
def archive_root(stocked, tmp_path) -> FakeArchive:
    """The small archive, which is not served."""
    shutil.copytree(stocked, tmp_path / "upstream")
    return FakeArchive(tmp_path / "upstream")


@pytest.mark.asyncio
@pytest.mark.parametrize("call", ["getSeries", "getSeriesMetadata"])
async def test_a_long_list_for_a_slow_client_is_as_it_was_at_its_start(archive_root, call) -> None:
    """Metadata of a series are three questions, asked anew for each row."""
    rows = 10_000
    many(archive_root, rows)
    async with FakeArchive(archive_root.root, ServeSettings(compress=False)) as archive:
        url = archive.url() + call
        async with aiohttp.ClientSession(read_bufsize=1024) as session:
            listed = ",".join(f"{ALPHA}.{n}" for n in range(rows))
            asked = (
                session.get(url) if call == "getSeries" else session.post(url, data={"list": listed, "format": "json"})
            )
            async with asked as response:
                assert response.status == 200
                body = await response.content.read(1000)
                await asyncio.to_thread(retitle, archive)
                body += await response.read()
        told = [row for row in json.loads(body) if row["SeriesInstanceUID"].startswith(f"{ALPHA}.")]
        assert len(told) == rows
        assert {row.get("SeriesDescription", row.get("Series Description")) for row in told} == {"before"}
        after = await ask(archive.url() + "getSeries")
        assert b"before" not in after.body


def many(archive: FakeArchive, rows: int) -> None:
    """Give the ledger that many more complete series."""
    with Ledger(archive.root) as ledger, ledger.transaction() as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(series)") if row[1] not in ("id", "raw")]
        chosen = ", ".join("series_instance_uid || '.' || n" if c == "series_instance_uid" else c for c in columns)
        db.execute(
            f"WITH RECURSIVE c (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n + 1 < {rows})"
            f" INSERT INTO series ({', '.join(columns)}, raw) SELECT {chosen}, json_set(raw, '$.SeriesDescription',"
            " 'before', '$.SeriesInstanceUID', series_instance_uid || '.' || n)"
            " FROM series, c WHERE series_instance_uid = ?",
            (ALPHA,),
        )


def retitle(archive: FakeArchive) -> None:
    with Ledger(archive.root) as ledger, ledger.transaction() as db:
        db.execute("UPDATE series SET raw = json_set(raw, '$.SeriesDescription', 'after')")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("asked", "zip_method", "holds"),
    [
        ("GET getImage?SeriesInstanceUID={one}", "deflated", False),
        ("GET getImage?SeriesInstanceUID={one}", "stored", False),
        ("POST getManifestForCollection", "deflated", False),
        ("GET getSeries", "deflated", True),
    ],
)
async def test_only_a_list_keeps_what_a_sync_writes_in_the_log_while_it_is_sent(
    archive_root, asked, zip_method, holds
) -> None:
    """A client may take hours for a zip. A list is read as it is sent, and of one moment."""
    one = uid(9, 1, 1, 1)
    archive_root.stock("One", make_series(series_uid=one, instances=1, side=4096))
    many(archive_root, 30_000)
    method, call = asked.format(one=one).split(" ", 1)
    async with (
        FakeArchive(archive_root.root, ServeSettings(compress=False, zip_method=zip_method)) as archive,
        slow_client(archive, method, call, "collection=Lung-Alpha" if method == "POST" else "") as reader,
    ):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await asyncio.to_thread(retitle, archive)
        assert await asyncio.to_thread(is_log_held, archive.root) == holds
        end = b""
        while part := await reader.read(1 << 20):
            end = end[-7:] + part
        assert end.endswith(b"\r\n0\r\n\r\n"), "it came to its end all the same"


@asynccontextmanager
async def slow_client(archive: FakeArchive, method: str, call: str, body: str) -> AsyncIterator[asyncio.StreamReader]:
    """A client that takes no more than little buffers hold until it reads; its connection ends with the answer."""
    host, port = archive.origin.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    kind = "application/x-www-form-urlencoded"
    head = f"Host: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(f"{method} /nbia-api/services/v4/{call} HTTP/1.1\r\n{head}{body}".encode())
    try:
        yield reader
    finally:
        writer.close()


def is_log_held(root: Path) -> bool:
    """Whether somebody reads the ledger as it was before the last write, so that its log cannot be begun anew."""
    with closing(sqlite3.connect(root / ".mirror" / "ledger.sqlite", timeout=0, isolation_level=None)) as db:
        (held, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return bool(held)


@pytest.mark.asyncio
async def test_memory_does_not_grow_with_a_manifest(archive_root, monkeypatch) -> None:
    monkeypatch.setattr("mirror.serve.zipformat._SCRATCH", 64 * 1024)
    rows = 30_000
    many(archive_root, rows)
    async with FakeArchive(archive_root.root) as archive, aiohttp.ClientSession() as session:
        url, form = archive.url() + "getManifestForCollection", {"collection": "Lung-Alpha"}
        async with session.post(url, data={"collection": "Brain Beta"}) as response:  # what is loaded once
            await response.read()
        tracemalloc.start()
        try:
            async with session.post(url, data=form) as response:
                assert response.headers["Content-Type"] == "application/x-nbia-manifest-file"
                length = lines = 0
                async for part in response.content.iter_any():
                    length += len(part)
                    lines += part.count(b"\n")
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert lines > rows
    assert most < length / 2


@pytest.mark.asyncio
async def test_a_zip_never_has_other_bytes_than_the_ledger_said(archive: FakeArchive) -> None:
    """A sync puts a file in its place before the ledger says so: one of the same length is told by its digest."""
    path = archive.path_of(instance_uid(ALPHA, 2))
    with Ledger(archive.root) as ledger, ledger.transaction() as db:
        db.execute("UPDATE instances SET fetched_at = ?", (int(time.time()) - 86400,))
    zipped = await ask(archive.url() + "getImage", SeriesInstanceUID=ALPHA)
    with zipfile.ZipFile(io.BytesIO(zipped.body)) as whole:
        assert len(whole.namelist()) == 4
    body = path.read_bytes()
    part = path.with_name("part")
    part.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    part.replace(path)
    try:
        zipped = await ask(archive.url() + "getImage", SeriesInstanceUID=ALPHA)
    except aiohttp.ClientError:
        return
    assert zipped.status == 500


@pytest.mark.asyncio
@pytest.mark.parametrize("incomplete", [False, True])
async def test_of_incomplete_series_what_is_held_is_shown_when_it_is_to_be(archive_root, incomplete) -> None:
    empty = uid(1, 1, 1, 2)
    with Ledger(archive_root.root) as ledger, ledger.transaction() as db:
        number = "(SELECT id FROM series WHERE series_instance_uid = ?)"
        db.execute("UPDATE series SET state = 'incomplete' WHERE series_instance_uid IN (?, ?)", (ALPHA, empty))
        db.execute(
            f"UPDATE instances SET name = NULL WHERE series = {number} AND sop_instance_uid = ?",
            (ALPHA, instance_uid(ALPHA, 2)),
        )
        db.execute(f"UPDATE instances SET name = NULL WHERE series = {number}", (empty,))
    async with FakeArchive(archive_root.root, ServeSettings(incomplete=incomplete)) as archive:
        url = archive.url()
        series = {row["SeriesInstanceUID"]: row for row in json.loads((await ask(url + "getSeries")).body)}
        assert (ALPHA in series) == incomplete
        assert empty not in series, "nothing of it is held"
        single = await ask(url + "getSingleImage", SeriesInstanceUID=ALPHA, SOPInstanceUID=instance_uid(ALPHA, 1))
        zipped = await ask(url + "getImage", SeriesInstanceUID=ALPHA)
        size = await ask(url + "getSeriesSize", SeriesInstanceUID=ALPHA)
        async with (
            aiohttp.ClientSession() as session,
            session.post(url + "getMD5Hierarchy", data={"SeriesInstanceUID": ALPHA}) as answer,
        ):
            digest = await answer.read()
        listed = await ask(url + "getSOPInstanceUIDs", SeriesInstanceUID=ALPHA)
        new = await ask(url + "getUpdatedSeries", fromDate="01-01-2019")
        assert (ALPHA in new.text) == incomplete
        if not incomplete:
            assert (single.status, zipped.status) == (500, 400)
            assert (size.body, digest, listed.body) == (b"", b"", b"")
            return
        assert single.status == 200
        with zipfile.ZipFile(io.BytesIO(zipped.body)) as whole:
            sizes = [info.file_size for info in whole.infolist() if info.filename.endswith(".dcm")]
        (told,) = json.loads(size.body)
        assert (
            len(sizes) == int(told["ObjectCount"]) == series[ALPHA]["ImageCount"] == len(json.loads(listed.body)) == 2
        )
        assert sum(sizes) == float(told["TotalSizeInBytes"]) == series[ALPHA]["FileSize"]
        assert len(digest) == 32
        other = await ask(url + "getSingleImage", SeriesInstanceUID=ALPHA, SOPInstanceUID=instance_uid(ALPHA, 2))
        assert other.status == 500


class Snatched(list):
    """A pool whose last connection is gone as soon as somebody has seen it."""

    def __bool__(self) -> bool:
        return True


@pytest.mark.asyncio
async def test_a_connection_that_another_thread_was_quicker_to_take_is_not_missed(archive_root) -> None:
    served = Served(archive_root.root, ServeSettings())
    served._idle = Snatched()
    request = make_mocked_request("GET", "/")
    assert served.ask(request, lambda catalogue: catalogue.collections())
    served._idle = Snatched()
    async with served.catalogue(request) as catalogue:
        assert catalogue.collections()
    for idle in served._idle:
        idle.close()
