"""Fixtures that all tests share. Stand-ins are in fakes/; see there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from fakes.archive import FakeArchive, stock_small


@pytest_asyncio.fixture
async def archive(tmp_path: Path) -> AsyncIterator[FakeArchive]:
    """A small archive on a real socket: see fakes.archive.stock_small."""
    async with FakeArchive(tmp_path / "upstream") as running:
        stock_small(running)
        yield running
