"""A download in memory or in a file: the same bytes either way, memory that has bounds, and nothing left behind."""

from __future__ import annotations

import random

import pytest

from mirror.transports.spool import Blocks, Spool
from mirror.tree import LocalStore

MIB = 1024 * 1024
SMALL = 8


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path, fsync=False)


async def spooled(store, blocks, body, *, chunk=100_000, expected=None):
    spool = Spool(store, blocks, expected)
    for begin in range(0, len(body), chunk):
        await spool.write(body[begin : begin + chunk])
    await spool.finish()
    return spool


def files(store):
    return list(store.scratch_folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, SMALL * MIB, SMALL * MIB + 1, 11 * MIB + 5])
@pytest.mark.parametrize("chunk", [65_536, 3 * MIB + 1])
@pytest.mark.asyncio
async def test_what_was_written_is_read_anywhere(store, size, chunk):
    chance = random.Random(size)
    body = chance.randbytes(size)
    spool = await spooled(store, Blocks(), body, chunk=chunk)
    assert spool.size == size
    assert len(files(store)) == (size > SMALL * MIB)
    for begin in [0, size, size + 1, *(chance.randrange(size + 1) for _ in range(30))]:
        count = chance.choice([0, 1, 50, 600_000, 2 * MIB])
        assert bytes(spool.read(begin, count)) == body[begin : begin + count]
    await spool.discard()
    await spool.discard()
    assert files(store) == []


@pytest.mark.asyncio
async def test_what_is_expected_to_be_large_has_one_block(store):
    body = random.Random(1).randbytes(2 * MIB)
    spool = await spooled(store, Blocks(), body, expected=100 * MIB)
    assert len(files(store)) == 1
    assert bytes(spool.read(MIB - 7, 20)) == body[MIB - 7 : MIB + 13]
    await spool.discard()


@pytest.mark.asyncio
async def test_many_at_a_time_share_the_memory(store):
    """Three of eight blocks have all that there is; then downloads go to disk, until some are gone."""
    blocks = Blocks()
    body = random.Random(2).randbytes(SMALL * MIB)
    spools = [await spooled(store, blocks, body) for _ in range(6)]
    on_disk = len(files(store))
    assert 0 < on_disk < 6
    for spool in spools:
        assert bytes(spool.read(5 * MIB - 9, 30)) == body[5 * MIB - 9 : 5 * MIB + 21]
        await spool.discard()
    assert files(store) == []
    again = [await spooled(store, blocks, body) for _ in range(6)]
    assert len(files(store)) == on_disk, "what was given back can be had again"
    for spool in again:
        await spool.discard()


@pytest.mark.parametrize("size", [3 * MIB, 12 * MIB])
@pytest.mark.asyncio
async def test_one_that_breaks_off_leaves_nothing(store, size):
    blocks = Blocks()
    spool = Spool(store, blocks)
    await spool.write(bytes(size))
    await spool.discard()
    assert files(store) == []
    whole = [await spooled(store, blocks, bytes(SMALL * MIB)) for _ in range(3)]
    assert files(store) == [], "its memory is free for others"
    for other in whole:
        await other.discard()
