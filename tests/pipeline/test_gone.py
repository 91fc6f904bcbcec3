"""An archive that is not there, or goes away: the run ends, what was published stays, and the next run goes on."""

from __future__ import annotations

import pytest
from aiohttp import web
from fakes.archive import FakeArchive
from fakes.faults import Asked
from fakes.manners import gone
from fakes.mirroring import Mirror, assert_nothing_wrong, settings_for

from mirror.errors import ArchiveError, ExitCode, Unreachable
from mirror.events import InstancePublished
from mirror.model import Scope
from mirror.pipeline import sync


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


@pytest.mark.asyncio
async def test_an_archive_that_is_not_there(tmp_path):
    async with FakeArchive(tmp_path / "upstream") as archive:
        settings = settings_for(archive)
    with pytest.raises(Unreachable, match="getCollectionValues") as caught:
        await sync(tmp_path / "mirror", Scope(all=True), settings)
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    with pytest.raises(Unreachable):
        await sync(tmp_path / "dry", Scope(all=True), settings, dry_run=True)
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("transport", "call", "number"),
    [
        ("instance", "getSeries", 1),
        ("instance", "getSeriesSize", 3),
        ("zip", "getSeriesSize", 3),
        ("instance", "getSOPInstanceUIDs", 4),
        ("zip", "getSOPInstanceUIDs", 4),
        ("instance", "getMD5Hierarchy", 2),
        ("zip", "getMD5Hierarchy", 2),
        ("instance", "getSingleImage", 5),
        ("zip", "getImage", 5),
    ],
)
@pytest.mark.asyncio
async def test_an_archive_that_goes_away_ends_the_run_and_the_next_goes_on(archive, mirror, transport, call, number):
    seen = 0

    async def last(request: Asked) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        if seen == number:
            archive.faults.rules.insert(0, archive.faults.add("*", gone()))
        return await request.handler(request.request)

    archive.faults.add(call, last)
    with pytest.raises(ArchiveError) as caught:
        await mirror.sync(archive, transport=transport)
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert mirror.parts() == []
    held = mirror.instances()
    published = {e.sop_instance_uid for e in mirror.events if isinstance(e, InstancePublished)}
    assert published <= held.keys()
    (report,) = (mirror.root / ".mirror" / "runs").glob("*.json")
    assert '"state": "failed"' in report.read_text()

    archive.faults.clear()
    report = await mirror.sync(archive, transport=transport)
    assert (report.exit_code, report.instances.fetched) == (0, 32 - len(held))
    assert_nothing_wrong(mirror, archive, whole=True)
