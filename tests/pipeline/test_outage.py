"""An archive that is there and gives nothing, one that asks for patience, and a proxy that packs what it passes on."""

from __future__ import annotations

import gzip
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from fakes.faults import status
from fakes.mirroring import ALL, Mirror, settings_for

from mirror.errors import ExitCode, ServerFault, Throttled
from mirror.events import RequestDone
from mirror.pipeline import sync
from mirror.serve import make_app
from mirror.settings import ArchiveSettings, ServeSettings, Settings


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


@pytest.mark.parametrize("code", [502, 503, 504])
@pytest.mark.asyncio
async def test_a_server_in_maintenance_ends_the_run_and_counts_against_no_object(archive, mirror, code):
    archive.faults.add("*", status(code), times=None)
    # Only what comes after the crawl meets the maintenance.
    archive.faults.rules[0].left = 0

    def begin(event):
        if isinstance(event, RequestDone) and event.call == "getSingleImage":
            archive.faults.rules[0].left = None

    with pytest.raises(ServerFault) as caught:
        await sync(mirror.root, ALL, settings_for(archive), sink=begin)
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    archive.faults.clear()
    report = await sync(mirror.root, ALL, settings_for(archive))
    assert report.state == "complete"
    assert report.findings == ()


@pytest.mark.asyncio
async def test_a_stop_waits_for_no_retry_after(archive, mirror):
    stop = anyio.Event()
    archive.faults.add("getSingleImage", status(503, headers={"Retry-After": "600"}))

    def told(event):
        if isinstance(event, RequestDone) and event.error == "Throttled":
            stop.set()

    with anyio.fail_after(20):
        report = await sync(mirror.root, ALL, settings_for(archive), sink=told, stop=stop)
    assert (report.state, report.exit_code) == ("interrupted", ExitCode.INTERRUPTED)
    # Nobody asked in vain: the next run asks for all of it at once.
    archive.faults.clear()
    again = await sync(mirror.root, ALL, settings_for(archive))
    assert again.state == "complete"
    assert again.instances.fetched + report.instances.fetched == 32


@pytest.mark.asyncio
async def test_an_archive_that_asks_for_a_day_of_rest_ends_the_run(archive, mirror):
    archive.faults.add("getSingleImage", status(429, headers={"Retry-After": "86400"}))
    with anyio.fail_after(20), pytest.raises(Throttled, match="asks to wait 86400 s"):
        await sync(mirror.root, ALL, settings_for(archive))


@pytest.mark.asyncio
async def test_a_proxy_that_packs_bodies_changes_nothing(stocked, mirror):
    @web.middleware
    async def pack(request, handler):
        answer = await handler(request)
        if request.path.endswith("getSingleImage"):
            uid = request.query["SOPInstanceUID"]
            (path,) = stocked.rglob(f"{uid}.dcm")
            return web.Response(body=gzip.compress(path.read_bytes()), headers={"Content-Encoding": "gzip"})
        return answer

    runner = web.AppRunner(make_app(stocked, ServeSettings(compress=False), [pack]))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        archive = ArchiveSettings(server=f"http://127.0.0.1:{runner.addresses[0][1]}", retry_wait=0.01)
        report = await sync(mirror.root, ALL, Settings(archive=archive))
    finally:
        await runner.cleanup()
    assert report.state == "complete"
    assert report.instances.fetched == 32
