"""The pace of a real client against real sockets: a server that throttles, a bandwidth, one request at a time."""

from __future__ import annotations

import asyncio
from datetime import datetime

import anyio
import pytest
from aiohttp import web
from fakes.archive import FakeArchive
from fakes.clock import Clock
from fakes.dicom import uid
from fakes.servers import Events, asking, serving
from typer.testing import CliRunner

from mirror import pipeline
from mirror.archive.client import ArchiveClient
from mirror.archive.pacing import Pace
from mirror.cli.main import add_commands
from mirror.errors import SettingsError
from mirror.events import LimitChanged, ignore
from mirror.settings import ArchiveSettings, Settings

BIG = uid(2, 1, 2, 1)
ROWS = b'[{"Collection": "A"}]'


@pytest.mark.asyncio
async def test_a_server_that_throttles_is_asked_for_no_more_than_it_gives():
    inside = answered = refused = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal inside, answered, refused
        if inside == 3:
            refused += 1
            return web.Response(status=429)
        inside += 1
        await asyncio.sleep(0.02)
        inside -= 1
        answered += 1
        return web.Response(body=ROWS)

    async def asks(client: ArchiveClient) -> None:
        for _ in range(20):
            assert await client.get_collection_values() == ["A"]

    async with (
        serving(handler) as origin,
        asking(origin, connections=8, attempts=20, retry_max_wait=0.01) as client,
    ):
        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(asks, client)
        assert client.pace.statistics().in_flight == 0
        assert client.pace.statistics().limit <= 4
    assert answered == 16 * 20
    assert 1 <= refused < 0.05 * answered


@pytest.mark.asyncio
async def test_a_good_server_is_asked_by_as_many_as_are_allowed(archive: FakeArchive):
    """However little there is to gain on a loopback: the default cap is reached, and kept."""
    events = Events()
    async with asking(archive.origin, sink=events) as client:

        async def asks() -> None:
            for _ in range(10):
                await client.get_series_size(BIG)

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(asks)
        assert client.pace.statistics().limit == 8
    assert [event.connections for event in events if isinstance(event, LimitChanged)] == [5, 6, 7, 8]


@pytest.mark.asyncio
async def test_bodies_are_read_no_faster_than_the_bandwidth(archive: FakeArchive):
    clock = Clock()
    settings = ArchiveSettings(bandwidth="00:00-12:00 1kB/s")
    for hour, limited in ((6, True), (13, False)):
        async with asking(archive.origin) as client:
            wall = datetime(2024, 1, 1, hour)
            client._line.pace = Pace(
                settings, ignore, clock.now, clock.sleep, rest=clock.sleep, wall=lambda wall=wall: wall
            )
            begin, read = clock.now(), 0

            async def receive(chunks: object, length: int | None) -> None:
                nonlocal read
                async for chunk in chunks:  # type: ignore[attr-defined]
                    read += len(chunk)

            await client.get_image(BIG, receive)
            assert read > 2000
            assert clock.now() - begin == pytest.approx(read / 1000 if limited else 0.0, abs=0.6)


def test_the_options_reach_the_run(tmp_path, monkeypatch):
    seen: list[ArchiveSettings] = []

    async def engine(root: object, scope: object, settings: Settings, **_: object) -> None:
        seen.append(settings.archive)
        raise SettingsError("that is enough")

    monkeypatch.setattr(pipeline, "sync", engine)
    sync = ["sync", "A", "--to", str(tmp_path), "--quiet"]
    runner = CliRunner()
    runner.invoke(add_commands(), [*sync, "--polite", "--bandwidth", "20MB/s", "--rate", "3", "--connections", "256"])
    runner.invoke(add_commands(), sync)
    assert [(s.polite, s.bandwidth, s.rate, s.connections) for s in seen] == [
        (True, "20MB/s", 3.0, 256),
        (False, "", 0.0, 8),
    ]
