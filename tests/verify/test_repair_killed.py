"""A repair that is killed, anywhere: no wrong file ever has a row, and the next repair proves what the first began."""

from __future__ import annotations

import itertools
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fakes.archive import FakeArchive
from fakes.dicom import instance_uid, uid
from fakes.mirroring import Mirror, assert_nothing_wrong, settings_for
from fakes.process import Striker, run

from mirror.ledger import Ledger
from mirror.model import Happened
from mirror.tree import LocalStore
from mirror.tree.part import LocalPart
from mirror.verification import verify

pytestmark = pytest.mark.asyncio

SERIES, OTHER = uid(2, 1, 2, 1), uid(2, 1, 1, 1)
FLIPPED, CUT, GONE = instance_uid(SERIES, 2), instance_uid(SERIES, 9), instance_uid(OTHER, 1)
ONCE = Counter({Happened.DAMAGED: 1, Happened.REPAIRED: 1})
RENAMED, FORGOTTEN = instance_uid(OTHER, 3), instance_uid(OTHER, 4)


@pytest_asyncio.fixture
async def mirror(archive: FakeArchive, tmp_path: Path, request: pytest.FixtureRequest) -> Mirror:
    """A mirror with damage in two series: three instances are lost, one is misplaced, one is unrecorded."""
    made = Mirror(tmp_path / "mirror")
    await made.sync(archive, layout=request.param)
    path = {row.sop_instance_uid: made.root / row.path for row in made.rows()}
    body = bytearray(path[FLIPPED].read_bytes())
    body[-1] ^= 0xFF
    path[FLIPPED].write_bytes(body)
    path[CUT].write_bytes(path[CUT].read_bytes()[:200])
    path[GONE].unlink()
    path[RENAMED].rename(path[RENAMED].parents[1] / "elsewhere.dcm")
    with Ledger(made.root) as ledger, ledger.transaction() as db:
        db.execute("UPDATE instances SET name = NULL, sha256 = NULL WHERE sop_instance_uid = ?", (FORGOTTEN,))
    return made


class Killed(BaseException):
    """What ends the run at the chosen step; nothing in the package may catch it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, number: int, *, after: bool) -> Callable[[], None]:
    """End the run at the `number`th call of a method, before or after it is done. The result undoes it."""
    method = getattr(owner, name)
    # Threads call some of these at the same time: each call draws its own number, once.
    numbers = itertools.count(1)

    def struck(*args: Any, **kwargs: Any) -> Any:
        mine = next(numbers)
        if mine == number and not after:
            raise Killed
        result = method(*args, **kwargs)
        if mine == number:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, struck)
    return lambda: monkeypatch.setattr(owner, name, method)


def entries(mirror: Mirror) -> dict[str, Counter[str]]:
    """SOPInstanceUID -> what the history tells of it."""
    found: dict[str, Counter[str]] = {}
    with Ledger(mirror.root) as ledger:
        for sop, what in ledger.query("SELECT sop_instance_uid, what FROM history WHERE sop_instance_uid IS NOT NULL"):
            found.setdefault(sop, Counter())[what] += 1
    return found


#: Which method, which call of it, and whether it was done before the kill.
STEPS = [
    ("uid", Ledger, "note_damage", 1, False),
    ("classic", Ledger, "note_damage", 1, True),
    ("classic", Ledger, "note_damage", 2, True),
    ("uid", LocalStore, "set_aside", 1, True),
    ("classic", LocalStore, "set_aside", 2, False),
    ("uid", LocalStore, "move", 1, True),
    ("classic", LocalStore, "move", 1, False),
    ("uid", Ledger, "lose", 1, True),
    ("classic", Ledger, "lose", 2, False),
    ("uid", Ledger, "lose", 2, True),
    ("uid", LocalPart, "publish", 2, True),
    ("classic", Ledger, "record", 1, True),
    ("uid", Ledger, "judge", 1, True),
    ("classic", Ledger, "judge", 2, False),
    ("uid", Ledger, "note", 2, False),
    ("classic", Ledger, "note", 2, True),
]


@pytest.mark.parametrize(("mirror", "owner", "name", "number", "after"), STEPS, indirect=["mirror"])
async def test_at_a_step(archive, mirror, monkeypatch, owner, name, number, after):
    settings = settings_for(archive)
    undo = kill_at(monkeypatch, owner, name, number, after=after)
    with pytest.raises(Killed):
        await verify(mirror.root, settings, repair=True)
    undo()
    if after:
        # Whoever comes first, a sync or the next repair: the damage is not forgotten.
        assert (await mirror.sync(archive)).exit_code in (0, 3)
    report = await verify(mirror.root, settings, repair=True)
    assert (report.exit_code, report.open) == (0, 0), report
    assert_nothing_wrong(mirror, archive, whole=True)
    told = entries(mirror)
    assert (told[FLIPPED], told[CUT]) == (ONCE, ONCE)
    # A sync may have missed it first.
    assert told.get(GONE, ONCE) == ONCE
    report = await verify(mirror.root, settings)
    assert (report.exit_code, report.findings) == (0, ())


def command(archive: FakeArchive, root: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "mirror", "verify", "--to", str(root), "--server", archive.url(), *options]


@pytest.mark.parametrize("mirror", ["uid"], indirect=True)
@pytest.mark.parametrize(("call", "number"), [("getSingleImage", 2), ("getMD5Hierarchy", 2)])
async def test_the_command(archive, mirror, call, number):
    striker = Striker((number,))
    archive.faults.add(call, striker)
    ended = await run(command(archive, mirror.root, "--repair"), begun=striker.begun)
    assert ended.code == -signal.SIGKILL
    archive.faults.clear()
    ended = await run(command(archive, mirror.root, "--repair"))
    assert (ended.code, ended.err) == (0, "")
    assert_nothing_wrong(mirror, archive, whole=True)
    told = entries(mirror)
    assert (told[FLIPPED], told[CUT], told[GONE]) == (ONCE, ONCE, ONCE)


@pytest.mark.parametrize("mirror", ["classic"], indirect=True)
async def test_a_signal_ends_the_command_in_order(archive, mirror):
    striker = Striker((1,), signal.SIGTERM)
    archive.faults.add("getSingleImage", striker)
    ended = await run(command(archive, mirror.root, "--repair"), begun=striker.begun)
    assert ended.code == 130
    assert "stopping" in ended.err
    assert "interrupted after" in ended.out
    archive.faults.clear()
    ended = await run(command(archive, mirror.root, "--repair"))
    assert ended.code == 0
    assert_nothing_wrong(mirror, archive, whole=True)
