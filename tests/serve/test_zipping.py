"""Zips that are made while they are sent."""

from __future__ import annotations

import io
import random
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.errors import StoreError
from mirror.serve.zipping import BLOCK, Member, md5_list, zip_batches


def file_member(path: Path, content: bytes, length: int | None = None) -> Member:
    path.write_bytes(content)
    return Member(path.name, path, len(content) if length is None else length)


def zip_pieces(members: list[Member]) -> Iterator[bytes]:
    """What is sent of a deflated zip, batch by batch."""
    for batch in zip_batches(members):
        yield b"".join(part for part in batch if isinstance(part, bytes))


def test_members_come_in_order_and_whole(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(3 * BLOCK + 7)
    members = [
        Member.text("LICENSE", "Read this.\n"),
        file_member(tmp_path / "00000001.dcm", noise),
        file_member(tmp_path / "00000002.dcm", b""),
    ]
    pieces = list(zip_pieces(members))
    assert len(pieces) >= 3
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert [(i.filename, i.file_size) for i in archive.infolist()] == [
            ("LICENSE", 11),
            ("00000001.dcm", len(noise)),
            ("00000002.dcm", 0),
        ]
        assert archive.read("LICENSE") == b"Read this.\n"
        assert archive.read("00000001.dcm") == noise


def test_a_large_member_is_announced_as_zip64(tmp_path: Path) -> None:
    member = file_member(tmp_path / "large.dcm", b"x" * BLOCK, length=4 * 2**30)
    pieces = zip_pieces([member])
    with pytest.raises(StoreError):
        list(pieces)
    first = next(zip_pieces([file_member(tmp_path / "noise", random.Random(2).randbytes(4 * BLOCK), 4 * 2**30)]))
    assert first[4:6] == b"\x2d\x00"  # version needed: 4.5, which is Zip64


@pytest.mark.parametrize("length", [9, 11])
def test_a_file_of_another_length_never_ends_in_a_sound_zip(tmp_path: Path, length: int) -> None:
    noise = random.Random(5).randbytes(3 * BLOCK)
    members = [file_member(tmp_path / "1.dcm", noise), file_member(tmp_path / "2.dcm", b"0123456789", length)]
    sent: list[bytes] = []
    with pytest.raises(StoreError, match=r"2\.dcm"):
        sent.extend(zip_pieces(members))
    assert sent
    assert not zipfile.is_zipfile(io.BytesIO(b"".join(sent)))


def test_a_file_that_is_gone_never_ends_in_a_sound_zip(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        list(zip_pieces([Member("1.dcm", tmp_path / "gone.dcm", 10)]))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    member = file_member(tmp_path / "1.dcm", random.Random(3).randbytes(BLOCK) * 100)
    tracemalloc.start()
    try:
        length = sum(len(piece) for piece in zip_pieces([member]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert length > 50 * BLOCK
    assert peak < 10 * BLOCK


def test_a_zip_can_be_left_unfinished(tmp_path: Path) -> None:
    pieces = zip_pieces([file_member(tmp_path / "1.dcm", random.Random(4).randbytes(8 * BLOCK))])
    next(pieces)
    pieces.close()
    assert next(pieces, None) is None


def test_hashes_are_listed_unquoted() -> None:
    assert md5_list([("00000001.dcm", "9a1b"), ("00000002.dcm", "0f3c")]) == (
        "Filename,MD5Hash\n00000001.dcm,9a1b\n00000002.dcm,0f3c\n"
    )
