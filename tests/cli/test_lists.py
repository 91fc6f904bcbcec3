"""`tcia-mirror lists`: what it makes, shows and deletes, what it refuses, and that a list reaches a mirror of ours."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import uid
from fakes.mirroring import Mirror, snapshot
from fakes.process import Ended, run
from fakes.threaded import serving_in_a_thread

from mirror.archive.dialects import TCIA_PREFIX
from mirror.errors import ExitCode
from mirror.ledger import take_lock
from mirror.lists import all_lists, make_list, series_of
from mirror.rebuild import rebuild

CT, MR, BRAIN = uid(1, 1, 1, 1), uid(1, 2, 1, 2), uid(2, 1, 2, 1)
TCIA_LISTS = TCIA_PREFIX.replace("TCIA", "SharedList")


async def lists(archive: FakeArchive, action: str, *words: str) -> Ended:
    command = [sys.executable, "-m", "mirror", "lists", action, *words, "--from", str(archive.root)]
    return await run(command)


async def make(archive: FakeArchive, *words: str) -> Ended:
    done = await lists(archive, "make", *words)
    assert done.code == 0, done.err
    return done


async def contents(archive: FakeArchive, name: str) -> list[str]:
    """What both dialects say is on a list, which is the same."""
    nbia = await ask(archive.origin + "/nbia-api/services/v1/getContentsByName", name=name)
    tcia = await ask(archive.origin + TCIA_LISTS + "ContentsByName", name=name)
    assert (nbia.status, tcia.status) == (200, 200)
    uids = [row["SeriesInstanceUID"] for row in tcia.rows]
    assert [row["SeriesInstanceUID"] for row in (nbia.rows if nbia.body else [])] == uids
    return uids


@pytest.mark.asyncio
async def test_series_manifests_and_collections_make_one_list(archive: FakeArchive, tmp_path: Path) -> None:
    cart = tmp_path / "cart.tcia"
    cart.write_text(f"databasketId=cart.tcia\nmanifestVersion=3.0\nListOfSeriesToDownload=\n{BRAIN}\n{CT}\n")
    table = tmp_path / "table.csv"
    table.write_text(f"Subject,SeriesInstanceUID\nx,{MR}\n")
    words = ("--manifest", str(cart), "--manifest", str(table), "--series", CT)
    done = await make(archive, "Mixed cart", *words)
    assert done.out == "list Mixed cart: 3 series\n"
    assert await contents(archive, "mixed CART") == [CT, BRAIN, MR]

    await make(archive, "Mixed cart", "--collection", "lung-*", "--json")
    lung = [uid(1, p, 1, s) for p in (1, 2) for s in (1, 2)]
    assert await contents(archive, "Mixed cart") == lung
    assert len(snapshot(archive.root / ".mirror" / "lists")) == 1, "made again, it is the one list of that name"


@pytest.mark.asyncio
async def test_rows_are_those_of_the_dialect(archive: FakeArchive) -> None:
    await make(archive, "one", "--series", CT)
    nbia = await ask(archive.origin + "/nbia-api/services/v1/getContentsByName", name="one")
    assert nbia.headers["Content-Type"].startswith("application/json")
    assert nbia.rows[0]["Date Released"].startswith(("01-31-2020", "2020-01-31"))
    tcia = await ask(archive.origin + TCIA_LISTS + "ContentsByName", name="one")
    assert tcia.rows[0]["SeriesNumber"].endswith(".000000")
    assert "Date Released" not in tcia.rows[0]


@pytest.mark.parametrize("name", ["none such", "", "../../lists/one", "\0", "x" * 3000])
@pytest.mark.asyncio
async def test_a_list_that_is_not_there_has_no_rows(archive: FakeArchive, name: str) -> None:
    await make(archive, "one", "--series", CT)
    assert await contents(archive, name) == []
    nbia = await ask(archive.origin + "/nbia-api/services/v1/getContentsByName", name=name)
    assert nbia.body == b""


@pytest.mark.asyncio
async def test_what_is_not_shown_any_more_is_left_out(archive: FakeArchive) -> None:
    await make(archive, "pair", "--series", CT, "--series", BRAIN)
    archive.withdraw(CT)
    assert await contents(archive, "pair") == [BRAIN]
    shown = await lists(archive, "show", "pair")
    assert [line.split()[:2] for line in shown.out.splitlines()[1:]] == [[CT, "-"], [BRAIN, "Brain"]]
    assert json.loads((await lists(archive, "show", "--json")).out)["lists"][0]["shown"] == 1
    archive.give_back(CT)
    assert await contents(archive, "pair") == [CT, BRAIN]


@pytest.mark.asyncio
async def test_unknown_series_are_named_and_nothing_is_made(archive: FakeArchive) -> None:
    archive.withdraw(MR)
    done = await lists(archive, "make", "bad", "--series", CT, "--series", uid(7), "--series", MR)
    assert done.code == ExitCode.USAGE
    assert f"series {uid(7)}, {MR}: not in this mirror" in done.err
    assert (await lists(archive, "show")).out.split() == ["list", "series", "shown", "made"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("make", "x"), "say what is on the list"),
        (("make", "x", "--collection", "Lung-Alfa"), "Lung-Alpha"),
        (("make", " ", "--series", CT), "1 to 200 characters"),
        (("make", "a\nb", "--series", CT), "1 to 200 characters"),
        (("make", "x", "--manifest", "not-there.tcia"), "not-there.tcia"),
        (("show", "lumg"), "the nearest are: lung"),
        (("delete", "lumg"), "the nearest are: lung"),
    ],
)
@pytest.mark.asyncio
async def test_what_is_wrong_is_told(archive: FakeArchive, words: tuple[str, ...], told: str) -> None:
    await make(archive, "lung", "--series", CT)
    done = await lists(archive, *words)
    assert done.code == ExitCode.USAGE
    assert told in done.err
    assert await contents(archive, "lung") == [CT]


@pytest.mark.asyncio
async def test_no_mirror_is_made_by_asking_for_lists(archive: FakeArchive, tmp_path: Path) -> None:
    for words in (["show"], ["make", "x", "--series", CT], ["delete", "x"]):
        done = await run([sys.executable, "-m", "mirror", "lists", *words, "--from", str(tmp_path / "nothing")])
        assert (done.code, "no mirror here" in done.err) == (ExitCode.USAGE, True)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.asyncio
async def test_a_list_is_deleted_and_no_series_with_it(archive: FakeArchive) -> None:
    await make(archive, "Gone", "--series", CT)
    done = await lists(archive, "delete", "gone")
    assert done.out == "list Gone: deleted; it had 1 series\n"
    assert await contents(archive, "Gone") == []
    assert (await ask(archive.url() + "getSeries", SeriesInstanceUID=CT)).rows
    assert (await lists(archive, "delete", "gone")).code == ExitCode.USAGE


@pytest.mark.asyncio
async def test_lists_are_made_while_a_sync_holds_the_mirror(archive: FakeArchive) -> None:
    with take_lock(archive.root):
        await make(archive, "beside", "--series", CT)
        assert await contents(archive, "beside") == [CT]
        assert (await lists(archive, "delete", "beside")).code == 0


@pytest.mark.asyncio
async def test_a_list_outlives_a_rebuild(archive: FakeArchive, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    await mirror.sync(archive)
    command = [sys.executable, "-m", "mirror", "lists", "make", "kept", "--series", CT, "--from", str(mirror.root)]
    assert (await run(command)).code == 0
    before = snapshot(mirror.root / ".mirror" / "lists")
    await rebuild(mirror.root, force=True)
    await mirror.sync(archive)
    assert snapshot(mirror.root / ".mirror" / "lists") == before
    async with FakeArchive(mirror.root) as served:
        assert await contents(served, "kept") == [CT]


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_a_mirror_of_ours_takes_exactly_what_is_listed(
    archive: FakeArchive, tmp_path: Path, dialect: str
) -> None:
    await make(archive, "Two of them", "--series", MR, "--series", BRAIN)
    root = tmp_path / "chained"
    words = ("sync", "--to", str(root), "--server", archive.url(dialect), "--list", "two of them")  # type: ignore[arg-type]
    assert (await run([sys.executable, "-m", "mirror", *words])).code == 0
    held = {row.series_instance_uid: row.state for row in Mirror(root).series().values()}
    assert held == {MR: "complete", BRAIN: "complete"}
    files = {sop: body for sop, (series, body) in archive.files().items() if series in held}
    assert Mirror(root).instances() == files


@pytest.mark.asyncio
async def test_the_list_s_file_is_itself_a_manifest(archive: FakeArchive, tmp_path: Path) -> None:
    await make(archive, "plain", "--series", MR)
    (file,) = (archive.root / ".mirror" / "lists").iterdir()
    command = [sys.executable, "-m", "mirror", "sync", "--to", str(tmp_path / "m"), "--server", archive.url()]
    assert (await run([*command, "--manifest", str(file)])).code == 0
    assert set(Mirror(tmp_path / "m").series()) == {MR}


@pytest.mark.asyncio
async def test_a_list_that_is_read_while_it_is_made_is_whole(archive: FakeArchive) -> None:
    small, large = [CT, MR], [uid(4, number) for number in range(2000)]

    def make_again(series: list[str]) -> None:
        for _ in range(30):
            make_list(archive.root, "contended", series)

    make_list(archive.root, "contended", small)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, make_again, small)
        tasks.start_soon(anyio.to_thread.run_sync, make_again, large)
        for _ in range(60):
            read = await anyio.to_thread.run_sync(lambda: list(series_of(archive.root, "contended")))
            assert read in (small, large)
    assert len(list((archive.root / ".mirror" / "lists").iterdir())) == 1, "no part is left"


def test_what_a_killed_maker_left_goes_when_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / ".mirror" / "lists"
    folder.mkdir(parents=True)
    old, young = folder / ".0123.part", folder / ".4567.part"
    for part in (old, young):
        part.write_text("# shared list")
    os.utime(old, (0, 0))
    make_list(tmp_path, "next", [CT])
    assert (old.exists(), young.exists()) == (False, True)
    assert [known.name for known in all_lists(tmp_path)] == ["next"]


@pytest.mark.asyncio
async def test_a_list_shows_nobody_what_is_not_for_them(archive: FakeArchive, tmp_path: Path) -> None:
    make_list(archive.root, "mixed", [CT, BRAIN])
    (tmp_path / "tokens.toml").write_text('[anonymous]\ncollections = ["Brain*"]\n')
    with serving_in_a_thread(archive.root, tokens_file=str(tmp_path / "tokens.toml")) as origin:
        for path in ("/nbia-api/services/v1/getContentsByName", TCIA_LISTS + "ContentsByName"):
            rows = (await ask(origin + path, name="mixed")).rows
            assert [row["SeriesInstanceUID"] for row in rows] == [BRAIN]
