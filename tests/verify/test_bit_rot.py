"""Some fifty damages of every kind, by a seed: all are found, all are mended, and nothing else is touched."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakes.archive import FakeArchive
from fakes.dicom import make_collection
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, settings_for

from mirror.errors import ExitCode
from mirror.ledger import Ledger
from mirror.manifest import InstanceRow
from mirror.model import FindingKind as K
from mirror.verification import Depth, VerifyReport, verify

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with enough files for fifty damages."""
    root = tmp_path_factory.mktemp("stocked") / "upstream"
    archive = FakeArchive(root)
    archive.stock("Lung-Alpha", make_collection(patients=2, series=3, instances=10, seed=1, side=8))
    archive.stock("Brain Beta", make_collection(patients=2, series=1, instances=15, seed=2, side=8))
    return root


@dataclass
class Rot:
    """Damages a mirror's tree, and keeps account of what a verification is to find: (kind, path)."""

    mirror: Mirror
    seed: int
    expected: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: What was done to files that have a row, so that a repair has to fetch them.
    lost: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.rows = self.mirror.rows()
        self.random.shuffle(self.rows)

    def path(self, row: InstanceRow) -> Path:
        return self.mirror.root / row.path

    def expect(self, kind: K, path: str) -> None:
        self.expected[kind, path] += 1

    def missing(self) -> None:
        row = self.rows.pop()
        self.path(row).unlink()
        self.lose(K.FILE_MISSING, row)

    def lose(self, kind: K, row: InstanceRow) -> None:
        self.expect(kind, row.path)
        self.lost += 1

    def truncated(self) -> None:
        row = self.rows.pop()
        os.truncate(self.path(row), self.random.randrange(row.bytes))
        self.lose(K.FILE_TRUNCATED, row)

    def grown(self) -> None:
        row = self.rows.pop()
        with self.path(row).open("ab") as file:
            file.write(self.random.randbytes(1 + self.random.randrange(100)))
        self.lose(K.FILE_TRUNCATED, row)

    def flipped(self) -> None:
        row = self.rows.pop()
        body = bytearray(self.path(row).read_bytes())
        body[self.random.randrange(len(body))] ^= 1 << self.random.randrange(8)
        self.path(row).write_bytes(body)
        self.lose(K.FILE_CHANGED, row)

    def directory(self) -> None:
        row = self.rows.pop()
        self.path(row).unlink()
        self.path(row).mkdir()
        (self.path(row) / "inside.txt").write_text("x")
        self.lose(K.FILE_UNREADABLE, row)

    def dangling(self) -> None:
        row = self.rows.pop()
        self.path(row).unlink()
        self.path(row).symlink_to("nowhere")
        self.lose(K.FILE_UNREADABLE, row)

    def looping(self) -> None:
        row = self.rows.pop()
        self.path(row).unlink()
        self.path(row).symlink_to(self.path(row).name)
        self.lose(K.FILE_UNREADABLE, row)

    def pipe(self) -> None:
        row = self.rows.pop()
        self.path(row).unlink()
        os.mkfifo(self.path(row))
        self.lose(K.FILE_UNREADABLE, row)

    def swapped(self) -> None:
        one, two = self.rows.pop(), self.rows.pop()
        bodies = self.path(one).read_bytes(), self.path(two).read_bytes()
        self.path(one).write_bytes(bodies[1])
        self.path(two).write_bytes(bodies[0])
        for row in (one, two):
            self.lose(K.FILE_CHANGED if len(bodies[0]) == len(bodies[1]) else K.FILE_TRUNCATED, row)

    def renamed(self) -> None:
        row = self.rows.pop()
        other = self.path(row).with_name(f"{self.path(row).stem} (1).dcm")
        self.path(row).rename(other)
        self.expect(K.FILE_MISPLACED, other.relative_to(self.mirror.root).as_posix())

    def moved(self) -> None:
        """Up to the study's directory, which the walk through directories without series finds."""
        row = self.rows.pop()
        other = self.path(row).parents[1] / self.path(row).name
        self.path(row).rename(other)
        self.expect(K.FILE_MISPLACED, other.relative_to(self.mirror.root).as_posix())
        self.expect(K.FILE_MISSING, row.path)

    def foreign(self) -> None:
        folder = self.path(self.random.choice(self.rows)).parents[self.random.randrange(4)]
        path = folder / f"notes-{self.random.randrange(10**6)}.txt"
        path.write_bytes(self.random.randbytes(50))
        self.expect(K.FILE_FOREIGN, path.relative_to(self.mirror.root).as_posix())

    def folder(self) -> None:
        path = self.path(self.random.choice(self.rows)).parent / f"new-{self.random.randrange(10**6)}" / "below" / "x"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        self.expect(K.FILE_FOREIGN, path.relative_to(self.mirror.root).as_posix())

    def copied(self) -> None:
        row = self.random.choice(self.rows)
        path = self.path(row).with_name(f"copy-{self.random.randrange(10**6)}.dcm")
        path.write_bytes(self.path(row).read_bytes())
        self.expect(K.FILE_FOREIGN, path.relative_to(self.mirror.root).as_posix())

    def unrecorded(self) -> None:
        row = self.rows.pop()
        with Ledger(self.mirror.root) as ledger, ledger.transaction() as db:
            db.execute(
                "UPDATE instances SET name = NULL, sha256 = NULL WHERE sop_instance_uid = ?", (row.sop_instance_uid,)
            )
        self.expect(K.FILE_UNRECORDED, row.path)

    def left_over(self) -> None:
        path = self.mirror.root / ".mirror" / "tmp" / f"4711-{self.random.randrange(10**6)}"
        path.write_bytes(b"half")
        self.expect(K.LEFT_OVER, path.relative_to(self.mirror.root).as_posix())


KINDS = (
    Rot.missing, Rot.truncated, Rot.grown, Rot.flipped, Rot.directory, Rot.dangling, Rot.looping, Rot.pipe, Rot.swapped,
    Rot.renamed, Rot.moved, Rot.foreign, Rot.folder, Rot.copied, Rot.unrecorded, Rot.left_over,
)  # fmt: skip


def told(report: VerifyReport) -> Counter[tuple[str, str]]:
    return Counter((finding.kind, finding.path or "") for finding in report.findings)


@pytest.mark.parametrize(("layout", "dialect", "depth"), [("uid", "nbia", Depth.SUMS), ("classic", "tcia", Depth.DEEP)])
async def test_fifty_damages_of_every_kind(archive, tmp_path, layout, dialect, depth):
    mirror = Mirror(tmp_path / "mirror")
    await mirror.sync(archive, dialect, layout=layout)
    sound = mirror.tree()
    rot = Rot(mirror, seed=4)
    for number in range(50):
        KINDS[number % len(KINDS)](rot)
    (mirror.root / "mine.txt").write_text("beside the mirror")
    untouched = {row.path: (mirror.root / row.path).stat() for row in rot.rows}

    settings = settings_for(archive, dialect)
    found = await verify(mirror.root, settings, depth=depth)
    assert told(found) == rot.expected
    assert (found.exit_code, found.state, found.not_ours) == (ExitCode.DAMAGE, "damaged", 1)

    archive.requests.clear()
    repaired = await verify(mirror.root, settings, depth=depth, repair=True)
    assert (repaired.exit_code, repaired.state, repaired.open) == (0, "repaired", 0), repaired
    assert {kind for kind, _ in told(repaired)} == {kind for kind, _ in rot.expected}
    assert len(asked(archive, "getSingleImage")) == rot.lost
    assert mirror.tree() == sound | {"mine.txt": b"beside the mirror"}
    (mirror.root / "mine.txt").unlink()
    assert_nothing_wrong(mirror, archive, whole=True)
    for path, before in untouched.items():
        after = (mirror.root / path).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), path

    again = await verify(mirror.root, settings, depth=depth)
    assert (again.exit_code, again.state, told(again)) == (0, "sound", Counter())
    assert again.files == len(sound)
