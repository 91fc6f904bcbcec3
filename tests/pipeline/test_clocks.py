"""Clocks that are wrong for a night, the archive's or ours: nothing leaves by them, and no change is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes.archive import stock_another
from fakes.dicom import uid
from fakes.mirroring import Mirror, assert_nothing_wrong

from mirror.crawl import crawler
from mirror.model import Presence, Walk

pytestmark = pytest.mark.asyncio

NIGHT = Walk()
WHOLE = Walk(reconcile=True)
SERIES = uid(2, 1, 2, 1)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


@pytest.mark.parametrize("whose", ["the archive's", "ours"])
async def test_a_night_with_a_clock_that_is_behind_ages_nothing(archive, mirror, nights, monkeypatch, whose):
    """A proxy's old answer, or a machine that begins at 1970: nothing is missing since then."""
    await mirror.sync(archive, walk=NIGHT)
    archive.withdraw(SERIES)
    nights.pass_by(days=1)
    right = nights.now
    with monkeypatch.context() as patch:
        if whose == "ours":
            patch.setattr(crawler, "time", SimpleNamespace(time=lambda: 1000.0))
        else:
            nights.now = right - timedelta(days=120)
        await mirror.sync(archive, walk=WHOLE)
    nights.now = right + timedelta(minutes=10)
    await mirror.sync(archive, walk=WHOLE, on_withdrawn="delete")
    assert (mirror.presence(SERIES), len(mirror.instances())) == (Presence.MISSING, 32)


async def test_a_night_with_clocks_that_are_ahead_hides_no_change(archive, mirror, nights, monkeypatch):
    await mirror.sync(archive, walk=NIGHT)
    right = nights.now
    nights.now = datetime(2091, 1, 1, tzinfo=UTC)
    with monkeypatch.context() as patch:
        patch.setattr(crawler, "time", SimpleNamespace(time=nights.now.timestamp))
        await mirror.sync(archive, walk=NIGHT)
    nights.now = right + timedelta(days=1)
    stock_another(archive, 50, nights.today)
    nights.pass_by(days=9)
    report = await mirror.sync(archive, walk=NIGHT)
    assert (report.exit_code, report.instances.fetched) == (0, 2)
    assert_nothing_wrong(mirror, archive, whole=True)
