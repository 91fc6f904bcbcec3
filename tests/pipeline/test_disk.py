"""A disk that is full, or cannot be written: exit 7, the path in the message, and nothing torn."""

from __future__ import annotations

import resource

import pytest
from fakes.dicom import make_series, uid
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, truth
from fakes.process import command, run

from mirror.errors import ExitCode, MirrorError, StoreError, StoreFull
from mirror.model import Scope
from mirror.transfer import SPARE
from mirror.tree import LocalStore

LARGE = Scope(collections=("Large",))


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


@pytest.mark.parametrize("transport", ["instance", "zip"])
@pytest.mark.asyncio
async def test_a_plan_that_the_disk_cannot_hold_fetches_nothing(archive, mirror, monkeypatch, transport):
    needed = sum(map(len, truth(archive).values()))
    monkeypatch.setattr(LocalStore, "free", lambda _: needed + SPARE - 1)
    with pytest.raises(StoreFull, match=f"the plan needs {needed:,} bytes") as caught:
        await mirror.sync(archive, transport=transport)
    assert caught.value.exit_code == ExitCode.DISK
    assert asked(archive, "getSingleImage") == asked(archive, "getImage") == asked(archive, "getSeriesSize") == []
    (report,) = (mirror.root / ".mirror" / "runs").glob("*.json")
    assert '"exit_code": 7' in report.read_text()
    monkeypatch.setattr(LocalStore, "free", lambda _: needed + SPARE)
    if transport == "instance":
        assert (await mirror.sync(archive, transport=transport)).exit_code == 0


@pytest.mark.asyncio
async def test_a_mirror_with_nothing_to_fetch_needs_no_space(archive, mirror, monkeypatch):
    await mirror.sync(archive)
    monkeypatch.setattr(LocalStore, "free", lambda _: 1000)
    report = await mirror.sync(archive)
    assert (report.exit_code, report.series.kept) == (0, 7)


@pytest.mark.asyncio
async def test_a_disk_that_others_fill_meanwhile_stops_the_run_before_the_next_series(archive, mirror, monkeypatch):
    free = iter([10**12] * 3 + [0] * 1000)
    monkeypatch.setattr(LocalStore, "free", lambda _: next(free))
    with pytest.raises(StoreFull, match="the series needs"):
        await mirror.sync(archive, open_series=1)
    assert mirror.parts() == []
    monkeypatch.undo()
    assert (await mirror.sync(archive)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


def largest_file(size: int):
    """What a child does first: no file it writes can grow beyond `size`."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(
    ("transport", "limit"), [("instance", 1024 * 1024), ("instance", 2 * 1024 * 1024), ("zip", 2 * 1024 * 1024)]
)
@pytest.mark.asyncio
async def test_a_write_that_fails_in_the_middle_of_an_object(archive, mirror, transport, limit):
    archive.stock("Large", make_series(series_uid=uid(8, 1, 1), instances=2, side=1100, seed=8))
    argv = [*command(archive, mirror.root, "--transport", transport)]
    ended = await run(argv, before=largest_file(limit))
    assert ended.code == ExitCode.DISK
    assert str(mirror.root) in ended.err
    assert "Traceback" not in ended.err
    assert mirror.parts() == []
    true = truth(archive)
    assert {u: true[u] for u in mirror.instances()} == mirror.instances()

    report = await mirror.sync(archive, transport=transport)
    assert report.exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("kibibytes", [1, 60, 110])
@pytest.mark.asyncio
async def test_a_ledger_that_cannot_grow(archive, mirror, kibibytes):
    ended = await run(command(archive, mirror.root), before=largest_file(kibibytes * 1024))
    assert ended.code == ExitCode.DISK
    assert "Traceback" not in ended.err
    assert ".mirror" in ended.err
    report = await mirror.sync(archive)
    assert report.exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_a_root_that_cannot_be_made(archive, tmp_path):
    (tmp_path / "file").write_text("here")
    for root in (tmp_path / "file" / "mirror", tmp_path / "file"):
        with pytest.raises(StoreError) as caught:
            await Mirror(root).sync(archive)
        assert caught.value.exit_code == ExitCode.DISK
        assert str(root) in str(caught.value)
        ended = await run(command(archive, root))
        assert (ended.code, "Traceback" in ended.err) == (ExitCode.DISK, False)
        assert str(root) in ended.err
    assert (tmp_path / "file").read_text() == "here"


@pytest.mark.asyncio
async def test_a_file_where_a_directory_should_be(archive, mirror):
    mirror.root.mkdir()
    (mirror.root / "Lung-Alpha").write_text("mine")
    with pytest.raises(StoreError, match="Lung-Alpha"):
        await mirror.sync(archive)
    assert (mirror.root / "Lung-Alpha").read_text() == "mine"
    assert mirror.parts() == []
    (mirror.root / "Lung-Alpha").unlink()
    assert (await mirror.sync(archive)).exit_code == 0
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_an_export_that_cannot_be_written_costs_no_file(archive, mirror):
    (mirror.root / "SHA256SUMS").mkdir(parents=True)
    with pytest.raises(MirrorError, match="SHA256SUMS"):
        await mirror.sync(archive)
    assert len(mirror.instances()) == 32
    (mirror.root / "SHA256SUMS").rmdir()
    report = await mirror.sync(archive)
    assert (report.exit_code, report.instances.fetched) == (0, 0)
    assert_nothing_wrong(mirror, archive, whole=True)
