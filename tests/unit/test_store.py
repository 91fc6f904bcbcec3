"""The local store: nothing shows before it is published whole, and nothing stays when it is not."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from mirror.errors import StoreDenied, StoreError, StoreFull
from mirror.model import Finding, FindingKind
from mirror.tree import LocalStore
from mirror.tree.part import BLOCK, SMALL, LocalPart

SIZES = [0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17]
FINDINGS = (
    Finding(kind=FindingKind.TRUNCATED, detail="10 bytes of 20 came", sop_instance_uid="1.2.3"),
    Finding(kind=FindingKind.OTHER_PATIENT, detail="caf\u00e9", sop_instance_uid="1.2.3"),
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def body_of(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def files(root: Path) -> dict[str, bytes]:
    """Every file below the root by its relative path."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def shown(root: Path) -> list[str]:
    """The files that somebody who walks the tree meets."""
    return [name for name in files(root) if not name.startswith(".mirror/")]


async def filled(store: LocalStore, body: bytes, *, chunk: int = 100_000) -> LocalPart:
    part = store.part()
    for start in range(0, len(body), chunk):
        await part.write(body[start : start + chunk])
    await part.finish()
    return part


# Publish


@pytest.mark.parametrize("fsync", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.asyncio
async def test_a_body_of_any_size_is_published_whole(tmp_path: Path, size: int, fsync: bool):
    store, body = LocalStore(tmp_path, fsync=fsync), body_of(size)
    part = store.part()
    for start in range(0, size, 65_521):
        await part.write(body[start : start + 65_521])
        assert (store.names("A/1"), shown(tmp_path)) == ({}, [])
    await part.finish()
    assert part.size == size
    with part.open() as opened:
        assert (bytes(opened) if isinstance(opened, memoryview) else opened.read()) == body
    assert (store.names("A/1"), shown(tmp_path)) == ({}, [])
    digest = part.digest()
    assert (digest.bytes, digest.sha256, digest.md5) == (
        size,
        hashlib.sha256(body).hexdigest(),
        hashlib.md5(body).hexdigest(),
    )
    assert part.digest() == digest
    part.publish("A/1", "x.dcm")
    part.discard()
    assert files(tmp_path) == {"A/1/x.dcm": body}
    assert store.names("A/1") == {"x.dcm": size}
    with store.open("A/1", "x.dcm") as file:
        assert file.read() == body


@pytest.mark.asyncio
async def test_many_bodies_at_a_time_share_what_memory_there_is(tmp_path: Path, store: LocalStore):
    parts = [store.part() for _ in range(100)]
    bodies = [body_of(300_000 + n) for n in range(100)]
    for start in range(0, 300_100, 60_000):
        for part, body in zip(parts, bodies, strict=True):
            await part.write(body[start : start + 60_000])
    held = [len(part._block) for part in parts if part._block is not None]
    assert sum(held) <= 32 * BLOCK + 68 * SMALL
    for number, part in enumerate(parts):
        await part.finish()
        assert part.digest().sha256 == hashlib.sha256(bodies[number]).hexdigest()
        part.publish("A/1", f"{number}.dcm")
    assert files(tmp_path) == {f"A/1/{n}.dcm": body for n, body in enumerate(bodies)}
    # All came back: as many may be had again.
    again = [store.part() for _ in range(32)]
    for part in again:
        await part.write(body_of(200_000))
    assert [part._block is not None and len(part._block) for part in again] == [BLOCK] * 32
    for part in again:
        part.discard()


@pytest.mark.asyncio
async def test_memory_holds_no_more_than_a_block_of_a_body(store: LocalStore):
    part = store.part()
    for _ in range(50):
        await part.write(b"x" * 100_000)
        assert part._block is None or len(part._block) <= BLOCK
    await part.finish()
    assert part.digest().bytes == 5_000_000
    part.discard()


@pytest.mark.asyncio
async def test_what_lay_there_is_replaced(tmp_path: Path, store: LocalStore):
    for body in (b"old", b"new"):
        (await filled(store, body)).publish("A", "x.dcm")
    assert files(tmp_path) == {"A/x.dcm": b"new"}


@pytest.mark.asyncio
async def test_parts_may_be_used_side_by_side(tmp_path: Path, store: LocalStore):
    async def one(number: int) -> None:
        part = await filled(store, body_of(BLOCK + number))
        await asyncio.to_thread(part.publish, f"A/{number % 3}", f"{number}.dcm")

    await asyncio.gather(*(one(number) for number in range(12)))
    assert files(tmp_path) == {f"A/{n % 3}/{n}.dcm": body_of(BLOCK + n) for n in range(12)}


@pytest.mark.asyncio
async def test_bytes_are_flushed_before_they_have_a_name_and_names_when_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_replace(source: str, target: str) -> None:
        steps.append("rename")
        replace(source, target)

    (tmp_path / "A" / "1").mkdir(parents=True)
    store = LocalStore(tmp_path)
    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    for size in (10, BLOCK + 10):
        (await filled(store, body_of(size))).publish("A/1", "x.dcm")
    assert steps == ["file", "rename"] * 2
    steps.clear()
    store.settle("A/1")
    assert steps == ["folder"] * 3, "the series' folder, its parent and the root"
    steps.clear()
    careless = LocalStore(tmp_path, fsync=False)
    (await filled(careless, body_of(BLOCK + 10))).publish("A/1", "y.dcm")
    careless.settle("A/1")
    assert steps == ["rename"]


def test_a_name_that_is_safe_is_not_flushed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = LocalStore(tmp_path)
    flushed: list[str] = []

    def note(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path).as_posix())

    def settled(directory: str) -> list[str]:
        flushed.clear()
        store.settle(directory)
        return list(flushed)

    monkeypatch.setattr(os, "fsync", note)
    store.settle("A/1/x")  # nothing is there, and so nothing is safe
    for name in ("x", "y"):
        (tmp_path / "A" / "1" / name).mkdir(parents=True)
    assert settled("A/1/x") == ["A/1/x", "A/1", "A", "."]
    assert settled("A/1/y") == ["A/1/y", "A/1"]
    # What went when it was empty is made anew, and so is its name.
    for name in ("x", "y"):
        (tmp_path / "A" / "1" / name / "o.dcm").touch()
        store.remove(f"A/1/{name}", "o.dcm")
    assert not (tmp_path / "A").exists()
    (tmp_path / "A" / "1" / "x").mkdir(parents=True)
    assert settled("A/1/x") == ["A/1/x", "A/1", "A", "."]


def test_settling_what_is_not_there_is_nothing(store: LocalStore):
    store.settle("A/none")
    store.settle("")
    assert not (store.root / "A").exists()


# Discard


STAGES = ["fresh", "some bytes", "spilled", "finished small", "finished large", "read", "published", "quarantined"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.asyncio
async def test_a_discarded_part_leaves_nothing_at_any_stage(tmp_path: Path, store: LocalStore, stage: str):
    part = store.part()
    if stage == "some bytes":
        await part.write(b"abc")
    elif stage == "spilled":
        await part.write(body_of(BLOCK + 1))
        await part.write(b"more")
        assert len(files(tmp_path)) == 1, "the part lies out of sight"
    elif stage != "fresh":
        part = await filled(store, body_of(10 if stage == "finished small" else BLOCK + 1))
    kept = {}
    if stage == "read":
        with part.open() as opened:
            assert isinstance(opened, memoryview) or opened.read(10)
    elif stage == "published":
        part.publish("A", "x.dcm")
        kept = {"A/x.dcm": body_of(BLOCK + 1)}
    elif stage == "quarantined":
        part.quarantine("1.2", "x.dcm", ())
        kept = {".mirror/quarantine/1.2/x.dcm": body_of(BLOCK + 1), ".mirror/quarantine/1.2/x.dcm.txt": b""}
    part.discard()
    part.discard()
    assert files(tmp_path) == kept


@pytest.mark.parametrize("turns", range(1, 30))
@pytest.mark.asyncio
async def test_a_write_that_is_cancelled_anywhere_leaves_nothing(tmp_path: Path, store: LocalStore, turns: int):
    async def fill() -> None:
        part = store.part()
        try:
            for _ in range(4):
                await part.write(body_of(BLOCK))
            await part.finish()
        finally:
            part.discard()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fill)
        for _ in range(turns):
            await asyncio.sleep(0 if turns < 10 else 0.0005)  # in the first opening, and later
        tasks.cancel_scope.cancel()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert files(tmp_path) == {}


# Quarantine and its like


@pytest.mark.parametrize("size", [10, BLOCK + 1])
@pytest.mark.asyncio
async def test_bytes_that_were_refused_are_kept_with_the_reasons(tmp_path: Path, store: LocalStore, size: int):
    part = await filled(store, body_of(size))
    part.quarantine("1.2", "1.2.3.dcm", FINDINGS)
    assert files(tmp_path) == {
        ".mirror/quarantine/1.2/1.2.3.dcm": body_of(size),
        ".mirror/quarantine/1.2/1.2.3.dcm.txt": (
            "truncated: 10 bytes of 20 came [1.2.3]\nother-patient: caf\u00e9 [1.2.3]\n".encode()
        ),
    }


@pytest.mark.asyncio
async def test_an_object_that_is_not_what_its_place_says_is_set_aside(tmp_path: Path, store: LocalStore):
    (await filled(store, b"foreign")).publish("A/1", "x.dcm")
    store.set_aside("A/1", "x.dcm", FINDINGS[:1])
    assert files(tmp_path) == {
        ".mirror/quarantine/foreign/A/1/x.dcm": b"foreign",
        ".mirror/quarantine/foreign/A/1/x.dcm.txt": b"truncated: 10 bytes of 20 came [1.2.3]\n",
    }


@pytest.mark.asyncio
async def test_renaming_replaces(tmp_path: Path, store: LocalStore):
    (await filled(store, b"a")).publish("A", "a.dcm")
    (await filled(store, b"b")).publish("A", "b.dcm")
    store.rename("A", "a.dcm", "b.dcm")
    assert files(tmp_path) == {"A/b.dcm": b"a"}
    with pytest.raises(StoreError, match=r"A/c\.dcm: No such file"):
        store.rename("A", "a.dcm", "c.dcm")


def test_names_are_of_files_directly_there(tmp_path: Path, store: LocalStore):
    (tmp_path / "A" / "below").mkdir(parents=True)
    (tmp_path / "A" / "x.dcm").write_bytes(b"123")
    (tmp_path / "A" / "below" / "y.dcm").write_bytes(b"1")
    (tmp_path / "A" / "link.dcm").symlink_to(tmp_path / "A" / "x.dcm")
    (tmp_path / "file").write_bytes(b"1")
    assert store.names("A") == {"x.dcm": 3}
    assert store.names("none") == store.names("A/none") == store.names("file") == {}


def test_opening_what_is_not_there_names_it(tmp_path: Path, store: LocalStore):
    with pytest.raises(StoreError, match=rf"{tmp_path}/A/x\.dcm: No such file or directory"):
        store.open("A", "x.dcm")


def test_what_a_killed_run_left_is_swept_and_nothing_else(tmp_path: Path, store: LocalStore):
    (tmp_path / ".mirror" / "tmp" / "4711-0").write_bytes(b"half")
    (tmp_path / ".mirror" / "tmp" / "4711-1").write_bytes(b"")
    (tmp_path / ".mirror" / "quarantine").mkdir()
    (tmp_path / ".mirror" / "quarantine" / "x").write_bytes(b"kept")
    (tmp_path / "x.dcm").write_bytes(b"kept")
    assert store.sweep() == 2
    assert store.sweep() == 0
    assert sorted(files(tmp_path)) == [".mirror/quarantine/x", "x.dcm"]


def test_free_space_is_the_disks(tmp_path: Path, store: LocalStore):
    free = store.free()
    seen = os.statvfs(tmp_path)
    assert abs(free - seen.f_bavail * seen.f_frsize) < 1 << 30


def test_a_scratch_file_is_gone_when_the_block_ends(tmp_path: Path, store: LocalStore):
    with store.scratch() as path:
        assert not path.exists()
        path.write_bytes(b"zip")
        assert shown(tmp_path) == []
    assert files(tmp_path) == {}

    def broken() -> None:
        with store.scratch() as path:
            path.write_bytes(b"zip")
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert files(tmp_path) == {}
    with store.scratch() as one, store.scratch() as other:
        assert one != other


# What the disk refuses


def refuse(number: int) -> Callable[..., None]:
    def refusing(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    return refusing


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EACCES, StoreDenied),
        (errno.EROFS, StoreDenied),
        (errno.EIO, StoreError),
    ],
)
@pytest.mark.parametrize("size", [10, BLOCK + 10])
@pytest.mark.asyncio
async def test_a_disk_that_refuses_to_flush(
    tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StoreError], size: int
):
    part = store.part()
    await part.write(body_of(size))
    monkeypatch.setattr(os, "fsync", refuse(number))

    async def finish_and_publish() -> None:
        await part.finish()
        part.publish("A", "x.dcm")

    with pytest.raises(StoreError, match=r"\.mirror/tmp/") as caught:
        await finish_and_publish()
    assert type(caught.value) is kind
    part.discard()
    assert files(tmp_path) == {}


@pytest.mark.parametrize("size", [1000, BLOCK, 3 * BLOCK])
@pytest.mark.asyncio
async def test_a_disk_that_is_full_in_the_middle_of_a_body(tmp_path: Path, store: LocalStore, size: int):
    """A limit on the size of files stands for the disk: it takes some bytes and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    part = store.part()

    async def fill_and_publish() -> None:
        await part.write(body_of(size))
        await part.finish()
        part.publish("A", "x.dcm")

    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(StoreFull, match=r"\.mirror/tmp/"):
            await fill_and_publish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    part.discard()
    assert files(tmp_path) == {}


@pytest.mark.asyncio
async def test_a_disk_that_refuses_a_rename(tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch):
    part = await filled(store, body_of(BLOCK + 1))
    monkeypatch.setattr(os, "replace", refuse(errno.EROFS))
    with pytest.raises(StoreDenied, match=r"A/x\.dcm: Read-only file system"):
        part.publish("A", "x.dcm")
    part.discard()
    assert files(tmp_path) == {}


@pytest.mark.asyncio
async def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path, store: LocalStore):
    (tmp_path / "A").write_bytes(b"a file")
    part = await filled(store, b"x")
    with pytest.raises(StoreError, match=r"A/1/x\.dcm: Not a directory"):
        part.publish("A/1", "x.dcm")
    part.discard()
    assert files(tmp_path) == {"A": b"a file"}


def test_a_root_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="Not a directory"):
        LocalStore(tmp_path / "file")


def test_other_questions_to_a_broken_disk(tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".mirror" / "tmp" / "left").write_bytes(b"")
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", refuse(errno.EIO))
        with pytest.raises(StoreError, match="left: Input/output error"):
            store.sweep()
    with monkeypatch.context() as broken:
        broken.setattr(Path, "iterdir", refuse(errno.EACCES))
        with pytest.raises(StoreDenied, match="tmp: Permission denied"):
            store.sweep()
    with monkeypatch.context() as broken:
        broken.setattr(os, "scandir", refuse(errno.EIO))
        with pytest.raises(StoreError, match="A: Input/output error"):
            store.names("A")
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse(errno.EIO))
        with pytest.raises(StoreError, match="Input/output error"):
            store.settle("")
    with monkeypatch.context() as broken:
        broken.setattr("shutil.disk_usage", refuse(errno.EIO))
        with pytest.raises(StoreError, match="Input/output error"):
            store.free()
