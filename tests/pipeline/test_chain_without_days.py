"""Mirrors of a mirror that knows no days of release, since it has its content over the tcia dialect."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from fakes.archive import FakeArchive, stock_another
from fakes.dicom import uid
from fakes.mirroring import Mirror

from mirror.model import Walk

pytestmark = pytest.mark.asyncio

NIGHT = Walk()
SERIES = uid(2, 1, 2, 1)


@pytest.mark.parametrize("what", ["a new series", "a changed series"])
@pytest.mark.parametrize("dialects", ["tcia tcia", "tcia nbia", "tcia nbia nbia", "nbia tcia nbia", "tcia tcia tcia"])
async def test_news_go_down_a_chain_in_ordinary_nights(archive, tmp_path, nights, ledgers_clock, dialects, what):
    """What has no day of release is named by the day on which it came; that its row is as before tells nothing."""
    mirrors = [(Mirror(tmp_path / str(n)), dialect) for n, dialect in enumerate(dialects.split())]
    async with AsyncExitStack() as stack:
        servers = [archive]
        for mirror, _ in mirrors[:-1]:
            servers.append(await stack.enter_async_context(FakeArchive(mirror.root)))
            servers[-1].now = archive.now

        async def night() -> None:
            for (mirror, dialect), server in zip(mirrors, servers, strict=True):
                assert (await mirror.sync(server, dialect, walk=NIGHT)).exit_code == 0

        await night()
        nights.pass_by(days=1)
        if what == "a new series":
            stock_another(archive, 50, nights.today)
        else:
            archive.replace(f"{SERIES}.10001", released=nights.today)
        await night()
        first, *others = [mirror.instances() for mirror, _ in mirrors]
        assert [other == first for other in others] == [True] * len(others)
        # A comparison is a judgement, and so news for the next one down; one night each, and it is over.
        for _ in range(1 + len(mirrors)):
            nights.pass_by(days=5)
            await night()
        assert "getSingleImage" not in [call for call, _ in servers[-1].requests]


async def test_whoever_changes_to_the_tcia_dialect_does_not_go_by_days_that_the_other_told(
    archive, tmp_path, nights, ledgers_clock
):
    first, second = Mirror(tmp_path / "a"), Mirror(tmp_path / "b")
    await first.sync(archive, "nbia", walk=NIGHT)
    async with FakeArchive(first.root) as server:
        server.now = archive.now
        await second.sync(server, walk=NIGHT)
        nights.pass_by(days=5)
        archive.replace(f"{SERIES}.10001", released=nights.today)
        await first.sync(archive, "tcia", walk=NIGHT)
        assert first.instances() == {name: body for name, (_, body) in archive.files().items()}
        await second.sync(server, walk=NIGHT)
        assert second.instances() == first.instances()
