"""Killed at any moment, the next run goes on: nothing that was published is fetched again, the tree is the same."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from fakes.dicom import instance_uid, make_series, uid
from fakes.faults import status
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, snapshot, sums_pass, truth
from fakes.process import Striker, command, run

from mirror.errors import ExitCode
from mirror.ledger import Ledger
from mirror.model import Scope, SeriesState
from mirror.tree import LocalStore
from mirror.tree.part import LocalPart

SERIES = uid(2, 1, 2, 1)
BRAIN = Scope(collections=("Brain Beta",))


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


async def killed(archive, mirror: Mirror, call: str, number: int, *options: str, least: int = 0) -> dict[str, bytes]:
    """Kill a run of the command when the archive is asked for the `number`th `call`; what lies in the tree then.

    That request waits until there are `least` files.
    """
    striker = Striker((number,), once=lambda: len(list(mirror.root.rglob("*.dcm"))) >= least)
    archive.faults.add(call, striker)
    archive.requests.clear()
    ended = await run(command(archive, mirror.root, *options), begun=striker.begun)
    assert ended.code == -signal.SIGKILL
    archive.faults.clear()
    held = mirror.instances()
    true = truth(archive)
    assert {u: true[u] for u in held} == held
    return held


@pytest.mark.parametrize(
    ("layout", "call", "number"),
    [
        ("uid", "getSeries", 2),
        ("uid", "getSingleImage", 9),
        ("classic", "getSingleImage", 20),
        ("descriptive", "getSingleImage", 32),
        ("{PatientID}/{Modality}/IM_{SOPInstanceUID}", "getSingleImage", 27),
        ("classic", "getMD5Hierarchy", 1),
        ("classic", "getMD5Hierarchy", 7),
    ],
)
@pytest.mark.asyncio
async def test_instance_by_instance(archive, mirror, tmp_path, layout, call, number):
    held = await killed(archive, mirror, call, number, "--layout", layout)
    if call == "getMD5Hierarchy":
        assert len(held) >= 3
    first = Counter(params["SOPInstanceUID"] for params in asked(archive, "getSingleImage"))

    report = await mirror.sync(archive, layout=layout)
    second = Counter(params["SOPInstanceUID"] for params in asked(archive, "getSingleImage"))
    assert report.exit_code == ExitCode.COMPLETE
    assert held.keys() & second.keys() == set()
    assert {u: (first + second)[u] for u in held} == dict.fromkeys(held, 1)
    assert report.instances.fetched == 32 - len(held)
    assert_nothing_wrong(mirror, archive, whole=True)

    undisturbed = Mirror(tmp_path / "undisturbed")
    await undisturbed.sync(archive, layout=layout)
    assert mirror.tree() == undisturbed.tree()


@pytest.mark.parametrize(("layout", "number"), [("uid", 1), ("classic", 4), ("uid", 7)])
@pytest.mark.asyncio
async def test_zip_by_zip(archive, mirror, tmp_path, layout, number):
    held = await killed(archive, mirror, "getImage", number, "--layout", layout, "--transport", "zip")
    complete = {row.series_instance_uid for row in mirror.series().values() if row.state == SeriesState.COMPLETE}

    report = await mirror.sync(archive, layout=layout, transport="zip")
    assert report.exit_code == ExitCode.COMPLETE
    assert {params["SeriesInstanceUID"] for params in asked(archive, "getImage")} & complete == set()
    assert report.instances.fetched == 32 - len(held)
    assert_nothing_wrong(mirror, archive, whole=True)

    undisturbed = Mirror(tmp_path / "undisturbed")
    await undisturbed.sync(archive, layout=layout)
    assert mirror.tree() == undisturbed.tree()


@pytest.mark.asyncio
async def test_killed_again_and_again(archive, mirror):
    held = 0
    for number, more in ((12, 4), (9, 1), (9, 1)):
        least = held + more
        held = len(await killed(archive, mirror, "getSingleImage", number, "--layout", "classic", least=least))
        assert held >= least
    held = len(mirror.instances())
    report = await mirror.sync(archive)
    assert (report.exit_code, report.instances.fetched) == (0, 32 - held)
    assert_nothing_wrong(mirror, archive, whole=True)


# In this process, between two particular steps


class Killed(BaseException):
    """What ends the run at the chosen step; nothing in the package may catch it."""


def kill_at(monkeypatch, owner: type, name: str, number: int, *, after: bool = False) -> Callable[[], None]:
    """End the run at the `number`th call of a method, before or after it is done. The result undoes it."""
    method = getattr(owner, name)
    seen = 0

    def struck(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        now = seen == number
        if now and not after:
            raise Killed
        result = method(*args, **kwargs)
        if now:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, struck)
    return lambda: monkeypatch.setattr(owner, name, method)


STEPS = [
    (Ledger, "finish_crawl", 1),
    (Ledger, "open_series", 2),
    (Ledger, "list_instances", 2),
    (LocalPart, "publish", 1),
    (LocalPart, "publish", 13),
    (Ledger, "record", 1),
    (Ledger, "record", 3),
    (LocalStore, "rename", 2),
    (LocalStore, "rename", 14),
    (Ledger, "rename", 2),
    (Ledger, "forget", 2),
    (LocalStore, "settle", 2),
    (Ledger, "judge", 1),
    (Ledger, "judge", 3),
]


@pytest.mark.parametrize(("owner", "name", "number"), STEPS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.asyncio
async def test_at_a_step(archive, mirror, monkeypatch, owner, name, number, after):
    undo = kill_at(monkeypatch, owner, name, number, after=after)
    with pytest.raises(Killed):
        await mirror.sync(archive, scope=BRAIN, layout="classic")
    undo()
    held = mirror.instances()
    first = Counter(params["SOPInstanceUID"] for params in asked(archive, "getSingleImage"))

    report = await mirror.sync(archive, scope=BRAIN)
    second = Counter(params["SOPInstanceUID"] for params in asked(archive, "getSingleImage"))
    assert (report.exit_code, report.instances.fetched) == (0, 20 - len(held))
    assert {u: (first + second)[u] for u in held} == dict.fromkeys(held, 1)
    assert_nothing_wrong(mirror, archive)
    assert mirror.states() == {SeriesState.COMPLETE: 3}
    names = sorted(row.path.rsplit("/", 1)[-1] for row in mirror.rows() if row.series_instance_uid == SERIES)
    assert names == sorted(f"{n}-1.dcm" for n in range(1, 13))


@pytest.mark.parametrize("number", [1, 12, 13, 14, 25])
@pytest.mark.parametrize("trouble", [False, True])
@pytest.mark.asyncio
async def test_while_the_numbers_of_a_series_move_up(archive, mirror, monkeypatch, number, trouble):
    """An instance came in at the front: every file gets the name that its neighbour has."""
    await mirror.sync(archive, scope=BRAIN, layout="classic")
    first = make_series(
        patient_id="S2-001", study_uid=uid(2, 1, 2), series_uid=SERIES, instances=1, first=0, acquisitions=(3,), seed=2
    )  # fmt: skip
    archive.stock("Brain Beta", first, released="2021-06-17")
    undo = kill_at(monkeypatch, LocalStore, "rename", number)
    with pytest.raises(Killed):
        await mirror.sync(archive, scope=BRAIN)
    undo()
    # Whatever was going on there: what the ledger says of a file is true of it.
    assert (await mirror.sync(archive, scope=Scope(collections=("Lung-Alpha",)))).exit_code == 0
    assert sums_pass(mirror.root)
    if trouble:
        # The run in between gets nowhere with this series; it must leave no row that lies about its file.
        archive.faults.add("getSeriesSize", status(500), SeriesInstanceUID=SERIES)
        assert (await mirror.sync(archive, scope=BRAIN)).exit_code == ExitCode.INCOMPLETE
        assert_nothing_wrong(mirror, archive)
        archive.faults.clear()
    report = await mirror.sync(archive, scope=BRAIN)
    assert (report.exit_code, report.instances.fetched) == (0, 0)
    assert_nothing_wrong(mirror, archive)
    path = {row.sop_instance_uid: row.path.rsplit("/", 1)[-1] for row in mirror.rows()}
    assert [path[instance_uid(SERIES, n)] for n in range(13)] == [f"{n}-1.dcm" for n in range(1, 14)]


@pytest.mark.parametrize("layout", ["classic", "descriptive"])
@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.asyncio
async def test_numbers_that_a_power_cut_left_on_the_wrong_files(archive, mirror, layout, damaged):
    """The disk has lost renames that the ledger knows of; images of one series have one size."""
    await mirror.sync(archive, scope=BRAIN, layout=layout)
    rows = sorted((row for row in mirror.rows() if row.series_instance_uid == SERIES), key=lambda row: row.path)
    one, two = (mirror.root / row.path for row in rows[3:5])
    assert one.stat().st_size == two.stat().st_size
    bodies = one.read_bytes(), two.read_bytes()
    one.write_bytes(bodies[1][:-1] + bytes([bodies[1][-1] ^ 0xFF]) if damaged else bodies[1])
    two.write_bytes(bodies[0])
    with Ledger(mirror.root) as ledger:
        ((id_,),) = ledger.query("SELECT id FROM series WHERE series_instance_uid = ?", SERIES)
        ledger.open_series(id_)

    # By the tcia dialect, which has no digest that would tell.
    report = await mirror.sync(archive, "tcia", scope=BRAIN)
    assert (report.exit_code, report.instances.fetched) == (0, int(damaged))
    assert [p["SOPInstanceUID"] for p in asked(archive, "getSingleImage")] == [rows[4].sop_instance_uid] * damaged
    assert_nothing_wrong(mirror, archive)
    assert mirror.states() == {SeriesState.COMPLETE: 3}
    again = {row.sop_instance_uid: row for row in mirror.rows()}
    for row in rows:
        assert again[row.sop_instance_uid].path == row.path
        if not damaged:
            assert again[row.sop_instance_uid].verified == row.verified


@pytest.mark.asyncio
async def test_the_ledger_forgets_numbers_for_good_before_they_move_and_learns_them_when_they_lie(
    archive, mirror, monkeypatch
):
    steps: list[str] = []

    def note(owner: type, name: str, step: Callable[..., str]) -> None:
        method = getattr(owner, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            steps.append(step(**kwargs))
            return method(*args, **kwargs)

        monkeypatch.setattr(owner, name, noted)

    note(Ledger, "forget", lambda durable=False: "forget for good" if durable else "forget")
    note(Ledger, "rename", lambda: "learn")
    note(LocalStore, "rename", lambda: "move")
    note(LocalStore, "settle", lambda: "settle")
    await mirror.sync(archive, scope=Scope(series=(SERIES,)), layout="classic")
    assert steps == ["forget for good", *["move"] * 12, "settle", "learn", "settle"]


@pytest.mark.asyncio
async def test_parts_that_a_kill_left_are_swept(archive, mirror):
    part = mirror.root / ".mirror" / "tmp" / "4711-0"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half a body")
    assert (await mirror.sync(archive)).exit_code == 0
    assert mirror.parts() == []


@pytest.mark.parametrize("damage", [b"", b"half", None])
@pytest.mark.asyncio
async def test_a_file_that_a_power_cut_left_torn_is_set_aside_and_fetched(archive, mirror, monkeypatch, damage):
    undo = kill_at(monkeypatch, Ledger, "judge", 2)
    with pytest.raises(Killed):
        await mirror.sync(archive)
    undo()
    unfinished = {row.path for row in mirror.rows() if row.series_state != SeriesState.COMPLETE}
    held = {path: body for path, body in mirror.tree().items() if path in unfinished}
    path = min(held)
    (mirror.root / path).write_bytes(held[path][:-100] if damage is None else damage)
    report = await mirror.sync(archive)
    assert report.exit_code == 0
    assert len(mirror.instances()) == 32
    assert_nothing_wrong(mirror, archive, whole=True)
    assert any(text for path, text in mirror.quarantine().items() if path.endswith(".txt"))


@pytest.mark.parametrize("layout", ["uid", "classic", "{PatientID}/{SeriesInstanceUID}/{SOPInstanceUID}"])
@pytest.mark.asyncio
async def test_files_of_others_in_a_series_directory_are_left_alone(archive, mirror, layout):
    archive.faults.add("getSingleImage", status(500), SOPInstanceUID=f"{SERIES}.10012")
    await mirror.sync(archive, layout=layout)
    archive.faults.clear()
    row = next(row for row in mirror.rows() if row.series_instance_uid == SERIES)
    folder = (mirror.root / row.path).parent
    copy = bytearray((mirror.root / row.path).read_bytes())
    copy[-1] ^= 0xFF
    ours = set(snapshot(folder))
    others = {"notes.txt": b"look here", "0 copy.dcm": bytes(copy), ".hidden": b"", "thumbs": b"?"}
    for name, body in others.items():
        (folder / name).write_bytes(body)

    report = await mirror.sync(archive)
    assert (report.exit_code, report.instances.fetched, report.instances.reused) == (0, 1, 0)
    assert {name: body for name, body in snapshot(folder).items() if name in others} == others
    assert len(snapshot(folder)) == len(ours) + 1 + len(others)
    for name in others:
        (folder / name).unlink()
    assert_nothing_wrong(mirror, archive, whole=True)
