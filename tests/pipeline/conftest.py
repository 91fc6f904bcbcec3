"""The small archive of tests/conftest.py, stocked once and copied for each test: stocking takes as long as a sync."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from fakes.archive import FakeArchive, stock_small


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of an archive that is not served."""
    root = tmp_path_factory.mktemp("stocked") / "upstream"
    stock_small(FakeArchive(root))
    return root


@pytest_asyncio.fixture
async def archive(stocked: Path, tmp_path: Path) -> AsyncIterator[FakeArchive]:
    """A small archive on a real socket: see fakes.archive.stock_small."""
    shutil.copytree(stocked, tmp_path / "upstream")
    async with FakeArchive(tmp_path / "upstream") as running:
        yield running
