"""What a server can do is learned from a few series, not from one that happens to be broken."""

from __future__ import annotations

import pytest
from fakes.dicom import uid
from fakes.faults import no_such_call, redirect, status
from fakes.mirroring import Mirror, asked, settings_for

from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import find_server
from mirror.errors import Unreachable
from mirror.events import TransportChosen
from mirror.transports import Capabilities, probe

BROKEN, SOUND, OTHER = uid(2, 1, 2, 1), uid(2, 1, 1, 1), uid(1, 1, 1, 1)


async def probed(archive, uids) -> Capabilities:
    async with ArchiveClient(find_server(archive.url()), settings_for(archive).archive) as client:
        return await probe(client, uids)


@pytest.mark.parametrize("call", ["getSOPInstanceUIDs", "getSingleImage"])
@pytest.mark.asyncio
async def test_one_broken_series_is_not_the_server(archive, call):
    archive.faults.add(call, status(500), SeriesInstanceUID=BROKEN)
    assert await probed(archive, [BROKEN, SOUND]) == Capabilities(lists=True, singles=True)
    alone = Capabilities(lists=call == "getSingleImage", singles=False)
    assert await probed(archive, [BROKEN]) == alone


@pytest.mark.asyncio
async def test_a_list_that_only_one_series_has_is_there(archive):
    archive.faults.add("getSingleImage", no_such_call())
    archive.faults.add("getSOPInstanceUIDs", status(500), SeriesInstanceUID=BROKEN)
    archive.faults.add("getSOPInstanceUIDs", status(500), SeriesInstanceUID=OTHER)
    assert await probed(archive, [BROKEN, SOUND, OTHER]) == Capabilities(lists=True, singles=False)


@pytest.mark.asyncio
async def test_a_server_that_can_is_asked_once_and_one_that_cannot_of_every_series(archive):
    assert await probed(archive, [SOUND, BROKEN, OTHER]) == Capabilities(lists=True, singles=True)
    assert [params["SeriesInstanceUID"] for params in asked(archive, "getSOPInstanceUIDs")] == [SOUND]
    archive.requests.clear()
    archive.faults.add("getSOPInstanceUIDs", no_such_call(404))
    assert await probed(archive, [SOUND, BROKEN, OTHER]) == Capabilities(lists=False, singles=False)
    assert [p["SeriesInstanceUID"] for p in asked(archive, "getSOPInstanceUIDs")] == [SOUND, BROKEN, OTHER]


@pytest.mark.asyncio
async def test_an_archive_that_is_down_can_not_nothing(archive):
    archive.faults.add("*", redirect("http://127.0.0.1:1/"))
    with pytest.raises(Unreachable):
        await probed(archive, [SOUND, BROKEN])


@pytest.mark.parametrize(
    ("transport", "told"),
    [
        ("instance", []),
        ("zip", [("zip", "the settings say so")]),
    ],
)
@pytest.mark.asyncio
async def test_a_run_says_which_transport_it_takes_and_why(archive, tmp_path, transport, told):
    mirror = Mirror(tmp_path / "mirror")
    assert (await mirror.sync(archive, transport=transport)).state == "complete"
    assert [(e.transport, e.why) for e in mirror.events if isinstance(e, TransportChosen)] == told


@pytest.mark.asyncio
async def test_a_run_over_zips_without_a_list_says_so(archive, tmp_path):
    archive.faults.add("getSOPInstanceUIDs", no_such_call())
    mirror = Mirror(tmp_path / "mirror")
    assert (await mirror.sync(archive, transport="auto")).state == "complete"
    (chosen,) = [e for e in mirror.events if isinstance(e, TransportChosen)]
    assert chosen.transport == "zip"
    assert "lists no instances" in chosen.why
