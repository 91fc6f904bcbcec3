"""A mirror of a mirror of a mirror, over real sockets: the same bytes, and the same news night by night."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest
from fakes.archive import FakeArchive, stock_another
from fakes.asking import ask
from fakes.dicom import uid
from fakes.mirroring import Mirror, assert_nothing_wrong

from mirror.archive.dialects import find_server
from mirror.archive.endpoints import DialectName
from mirror.errors import SettingsError
from mirror.ledger import Catalogue, Ledger
from mirror.model import Presence, Walk
from mirror.rebuild import rebuild
from mirror.settings import ServeSettings

pytestmark = pytest.mark.asyncio

NIGHT = Walk()
WHOLE = Walk(reconcile=True)
SERIES = uid(2, 1, 2, 1)
#: Columns that tell of a mirror's own doing: by which call an instance came, when, and what was compared.
OWN = {"source": "", "fetched_at": "", "verified": ""}


#: Columns of a series that the tcia dialect does not tell.
NOT_BY_TCIA = frozenset(
    [
        "study_date",
        "study_description",
        "file_size",
        "date_released",
        "license_name",
        "license_uri",
        "data_description_uri",
    ]
)


@dataclass
class Chain:
    """Mirrors, each of the one before, and the servers they ask: the archive first."""

    mirrors: list[Mirror]
    servers: list[FakeArchive]

    async def night(self, *dialects: DialectName, walk: Walk = NIGHT, **options) -> list[int]:
        """A run of each, from the archive on, by its own dialect or all by one; their exit codes."""
        return [
            (await mirror.sync(server, dialect, walk=walk, **options)).exit_code
            for mirror, server, dialect in zip(self.mirrors, self.servers, cycle(dialects or ("nbia",)), strict=False)
        ]


@asynccontextmanager
async def chained(archive: FakeArchive, tmp_path: Path, *, by_ingest: bool = False) -> AsyncIterator[Chain]:
    """Three mirrors; each is served, with the archive's clock."""
    chain = Chain([Mirror(tmp_path / name) for name in "abc"], [archive])
    async with AsyncExitStack() as stack:
        for mirror in chain.mirrors:
            server = await stack.enter_async_context(FakeArchive(mirror.root, ServeSettings(by_ingest=by_ingest)))
            server.now = archive.now
            chain.servers.append(server)
        yield chain


def assert_same(chain: Chain, archive: FakeArchive) -> None:
    first, *others = chain.mirrors
    assert_nothing_wrong(first, archive)
    assert first.tree()
    for other in others:
        assert other.tree() == first.tree()
        for name in ("SHA256SUMS", "manifest-series.csv", "LICENSES", "CITATIONS"):
            assert (other.root / name).read_bytes() == (first.root / name).read_bytes(), name
        content = [[_content(row) for row in mirror.rows()] for mirror in (first, other)]
        assert content[0] == content[1]


def _content(row):
    return {name: getattr(row, name) for name in row.__struct_fields__ if name not in OWN}


def _of_both(row):
    return {name: getattr(row, name) for name in row.__struct_fields__ if name not in NOT_BY_TCIA}


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
async def test_three_mirrors_are_one(archive, tmp_path, dialect):
    async with chained(archive, tmp_path) as chain:
        assert await chain.night(dialect) == [0, 0, 0]
        assert_same(chain, archive)


@pytest.mark.parametrize("dialects", ["nbia tcia nbia", "tcia nbia tcia"])
async def test_of_three_mirrors_by_both_dialects_all_but_what_one_cannot_tell_is_one(archive, tmp_path, dialects):
    async with chained(archive, tmp_path) as chain:
        assert await chain.night(*dialects.split()) == [0, 0, 0]
        first, *others = chain.mirrors
        for other in others:
            assert other.tree() == first.tree()
            assert (other.root / "SHA256SUMS").read_bytes() == (first.root / "SHA256SUMS").read_bytes()
            assert [_content(row) for row in other.rows()] == [_content(row) for row in first.rows()]
            assert [_of_both(row) for row in other.series().values()] == [
                _of_both(row) for row in first.series().values()
            ]


async def test_news_and_changes_go_down_the_chain_night_by_night(archive, tmp_path, nights):
    async with chained(archive, tmp_path) as chain:
        await chain.night()
        nights.pass_by(days=1)
        new = stock_another(archive, 50, nights.today)
        archive.replace(f"{SERIES}.10001", released=nights.today)
        assert await chain.night() == [0, 0, 0]
        assert [new in mirror.series() for mirror in chain.mirrors] == [True] * 3
        assert_same(chain, archive)


@pytest.mark.parametrize("how", ["retire", "delete"])
async def test_a_withdrawal_goes_down_the_chain(archive, tmp_path, nights, how):
    async with chained(archive, tmp_path) as chain:
        await chain.night()
        archive.withdraw(SERIES)
        # Ordinary nights: every third walks a collection whole, and each mirror needs two of these that lack a series.
        for _ in range(21):
            nights.pass_by(days=1)
            assert await chain.night(on_withdrawn=how, reconcile_every="3d") == [0, 0, 0]
        assert [mirror.presence(SERIES) for mirror in chain.mirrors] == [Presence.WITHDRAWN] * 3
        assert [len(mirror.instances()) for mirror in chain.mirrors] == [20] * 3
        assert_same(chain, archive)


@pytest.mark.parametrize("by_ingest", [False, True])
async def test_what_a_mirror_got_back_is_news_for_who_follows_it_by_the_day_of_ingest(
    archive, tmp_path, nights, ledgers_clock, by_ingest
):
    """Its day of release is long ago, and it is judged as before: that it came back is what is new."""
    async with chained(archive, tmp_path, by_ingest=by_ingest) as chain:
        first, second = chain.mirrors[:2]
        await chain.night()
        archive.withdraw(SERIES)
        for _ in range(4):
            nights.pass_by(days=8)
            await chain.night(walk=WHOLE)
        assert [mirror.presence(SERIES) for mirror in (first, second)] == [Presence.WITHDRAWN] * 2
        archive.give_back(SERIES)
        nights.pass_by(days=1)
        await first.sync(archive, walk=WHOLE)
        assert first.presence(SERIES) == Presence.PRESENT
        nights.pass_by(hours=1)
        await second.sync(chain.servers[1], walk=NIGHT)
        assert (second.presence(SERIES) == Presence.PRESENT) == by_ingest
        await second.sync(chain.servers[1], walk=WHOLE)
        assert second.presence(SERIES) == Presence.PRESENT
        assert second.instances() == first.instances()


@pytest.mark.parametrize("by_ingest", [False, True])
@pytest.mark.parametrize("what", ["a new series", "a changed series"])
async def test_a_mirror_that_lags_behind_is_followed_by_the_day_of_ingest(
    archive, tmp_path, nights, ledgers_clock, by_ingest, what
):
    """The first mirror sleeps for longer than the second's overlap: by days of release the second misses the news."""
    async with chained(archive, tmp_path, by_ingest=by_ingest) as chain:
        first, second = chain.mirrors[:2]
        await chain.night()
        nights.pass_by(days=1)
        series = SERIES
        if what == "a new series":
            series = stock_another(archive, 50, nights.today)
        else:
            archive.replace(f"{SERIES}.10001", released=nights.today)
        for _ in range(3):
            nights.pass_by(days=1)
            await second.sync(chain.servers[1], walk=NIGHT)
        nights.pass_by(days=1)
        await first.sync(archive, walk=NIGHT)
        nights.pass_by(hours=1)
        await second.sync(chain.servers[1], walk=NIGHT)
        has_it = series in second.series() and second.instances() == first.instances()
        assert has_it == by_ingest
        await second.sync(chain.servers[1], walk=WHOLE)
        assert second.instances() == first.instances()
        assert_nothing_wrong(second, archive, whole=True)


async def test_what_comes_late_on_the_day_of_the_last_sync_is_asked_for(archive, tmp_path, nights, ledgers_clock):
    """Even without an overlap: a whole day is asked for again, and getUpdatedSeries' bound is the day before."""
    async with chained(archive, tmp_path, by_ingest=True) as chain:
        first, second = chain.mirrors[:2]
        await first.sync(archive, walk=NIGHT)
        await second.sync(chain.servers[1], walk=NIGHT, overlap="0s")
        nights.pass_by(hours=21)  # 23:00 on the same day
        series = stock_another(archive, 50, nights.today)
        await first.sync(archive, walk=NIGHT)
        nights.pass_by(hours=3)
        await second.sync(chain.servers[1], walk=NIGHT, overlap="0s")
        assert series in second.series()


async def test_each_mirror_tells_where_its_content_is_from(archive, tmp_path):
    async with chained(archive, tmp_path) as chain:
        await chain.night()
        urls = [server.url() for server in chain.servers]
        for position, mirror in enumerate(chain.mirrors):
            with Catalogue(mirror.root) as catalogue:
                assert catalogue.meta("server") == urls[position]
                assert catalogue.meta("source_chain") == ", ".join(reversed(urls[:position]))
        answer = await ask(chain.servers[3].url() + "getCollectionValues")
        assert answer.headers["X-TCIA-Mirror-Source"] == ", ".join(reversed(urls[:3]))


async def test_where_its_content_is_from_is_known_after_a_rebuild(archive, tmp_path):
    async with chained(archive, tmp_path) as chain:
        await chain.night()
        root, urls = chain.mirrors[2].root, [server.url() for server in chain.servers]
        for file in (root / ".mirror").glob("ledger.sqlite*"):
            file.unlink()
        await rebuild(root)
        with Catalogue(root) as catalogue:
            assert catalogue.meta("source_chain") == ", ".join(reversed(urls[:2]))


async def test_a_rebuild_for_another_server_forgets_the_sources_of_the_one_before(archive, tmp_path):
    async with chained(archive, tmp_path) as chain:
        await chain.night()
        root = chain.mirrors[2].root
        for server in (find_server(archive.url()), None):
            await rebuild(root, server=server, force=True)
            with Catalogue(root) as catalogue:
                assert (catalogue.meta("server"), catalogue.meta("source_chain")) == (archive.url(), "")


async def test_who_does_not_name_its_sources_is_the_source(archive, tmp_path):
    first, second = Mirror(tmp_path / "a"), Mirror(tmp_path / "b")
    await first.sync(archive)
    async with FakeArchive(first.root, ServeSettings(name_source=False)) as server:
        answer = await ask(server.url() + "getCollectionValues")
        assert "X-TCIA-Mirror-Source" not in answer.headers
        assert (await second.sync(server)).exit_code == 0
        with Catalogue(second.root) as catalogue:
            assert (catalogue.meta("server"), catalogue.meta("source_chain")) == (server.url(), "")


async def test_two_mirrors_of_each_other_are_found_out(archive, tmp_path):
    """They would give each other on for ever what the archive withdrew."""
    async with chained(archive, tmp_path) as chain:
        first, second = chain.mirrors[:2]
        await first.sync(archive)
        await second.sync(chain.servers[1])
        # The server of the first mirror says who it is a mirror of: now of the second.
        with Ledger(first.root) as ledger:
            ledger.set_meta(server=chain.servers[2].url(), source_chain=chain.servers[1].url())
    async with FakeArchive(first.root) as again:
        with Ledger(first.root) as ledger:
            ledger.set_meta(source_chain=again.url())
        with pytest.raises(SettingsError, match="from itself"):
            await second.sync(again)
