"""Memory does not grow with the size of a series, nor with the size of an object."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from fakes.archive import FakeArchive
from fakes.dicom import make_series, uid
from fakes.process import unmeasured

MIB = 1024 * 1024
#: A sync in a process of its own, away from the archive; prints the most memory that Python objects took meanwhile.
DRIVER = """
import pathlib, sys, tracemalloc
import anyio
from mirror.model import Scope
from mirror.pipeline import sync
from mirror.settings import ArchiveSettings, Settings, SyncSettings
root, server, transport = sys.argv[1:]
settings = Settings(archive=ArchiveSettings(server=server), sync=SyncSettings(transport=transport, fsync=False))
tracemalloc.start()
report = anyio.run(lambda: sync(pathlib.Path(root), Scope(all=True), settings))
print(int(report.exit_code), report.instances.fetched, tracemalloc.get_traced_memory()[1])
"""


async def peak(tmp_path: Path, name: str, transport: str, *, instances: int, side: int) -> int:
    """The most memory that a sync of one series took, in bytes."""
    async with FakeArchive(tmp_path / f"upstream-{name}") as archive:
        archive.stock("One", make_series(series_uid=uid(1, 1, 1), instances=instances, side=side))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DRIVER, str(tmp_path / f"{name}-{transport}"), archive.url(), transport,
            env=unmeasured(), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
    code, fetched, most = map(int, out.split())
    assert (code, fetched) == (0, instances)
    return most


@pytest.mark.parametrize("transport", ["instance", "zip"])
@pytest.mark.asyncio
async def test_of_a_series(tmp_path, transport):
    # As many as are under way at a time, or more: up to there it grows.
    few = await peak(tmp_path, "few", transport, instances=60, side=200)
    many = await peak(tmp_path, "many", transport, instances=200, side=200)
    # The bodies of the 140 more are over 10 MiB.
    assert many - few < 4 * MIB


@pytest.mark.parametrize("transport", ["instance", "zip"])
@pytest.mark.asyncio
async def test_of_an_object(tmp_path, transport):
    # Of 64 MiB; a sync of a small object takes over one.
    assert await peak(tmp_path, "large", transport, instances=1, side=5793) < 12 * MIB
