"""Fixtures that all tests share. Stand-ins are in fakes/; see there."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
from fakes import loopback
from fakes.archive import FakeArchive, stock_small
from fakes.clock import Nights

import mirror.ledger.history
import mirror.ledger.ledger

loopback.keep_in()


@pytest.fixture(autouse=True)
def _stays_on_this_machine() -> Iterator[None]:
    """Fail a test that asked for another host."""
    yield
    strays, loopback.strays[:] = loopback.strays[:], []
    assert strays == [], "a test tried to leave this machine"


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the small archive, stocked once and copied for each test: stocking takes as long as a sync."""
    root = tmp_path_factory.mktemp("stocked") / "upstream"
    stock_small(FakeArchive(root))
    return root


@pytest_asyncio.fixture
async def archive(stocked: Path, tmp_path: Path) -> AsyncIterator[FakeArchive]:
    """A small archive on a real socket: see fakes.archive.stock_small."""
    shutil.copytree(stocked, tmp_path / "upstream")
    async with FakeArchive(tmp_path / "upstream") as running:
        yield running


@pytest.fixture
def nights(archive: FakeArchive) -> Nights:
    """The archive's clock."""
    return Nights(archive)


@pytest.fixture
def ledgers_clock(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ledgers write down when something happened by the tests' clock."""
    clock = SimpleNamespace(time=lambda: nights.now.timestamp())
    for module in (mirror.ledger.ledger, mirror.ledger.history):
        monkeypatch.setattr(module, "time", clock)
