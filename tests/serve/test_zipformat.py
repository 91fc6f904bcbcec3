"""The zip format: read back by Python's zipfile, and front to back by our own reader."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
from pathlib import Path

import pytest

import mirror.deflate
from mirror.serve.zipformat import STORED, ZipWriter
from mirror.serve.zipping import BLOCK, Member, zip_batches

CAME = 1_700_000_001  # 2023-11-14 22:13:21 UTC; MS-DOS counts in twos


def zipped(members: list[Member], *, stored: bool = False) -> bytes:
    """All of it, files among them read as a sender would."""
    body = b""
    for batch in zip_batches(members, stored=stored):
        for part in batch:
            body += part if isinstance(part, bytes) else os.pread(part.file.fileno(), part.length, part.begin)
    return body


@pytest.fixture(params=["isal", "zlib"])
def packer(request, monkeypatch):
    """With the extra, and without it."""
    if request.param == "zlib":
        monkeypatch.setattr(mirror.deflate, "isal_zlib", None)
    else:
        assert mirror.deflate.isal_zlib is not None
    return request.param


@pytest.mark.parametrize("stored", [True, False])
def test_a_zip_is_what_zipfile_reads(tmp_path: Path, packer, stored) -> None:
    noise = random.Random(1)
    bodies = {
        "LICENSE": b"Read this.\n",
        "folder/": b"",
        "small.dcm": noise.randbytes(1000),
        "empty.dcm": b"",
        "between.dcm": noise.randbytes(300_000) + bytes(300_000),
        "large.dcm": noise.randbytes(2 * BLOCK) + bytes(9 * BLOCK + 1),
        "nömé.dcm": b"x",
    }
    members = []
    for number, (name, body) in enumerate(bodies.items()):
        file = tmp_path / str(number)
        file.write_bytes(body)
        members.append(Member(name, file, len(body), came=CAME))
    with zipfile.ZipFile(io.BytesIO(zipped(members, stored=stored))) as archive:
        assert archive.testzip() is None
        assert {i.filename: archive.read(i) for i in archive.infolist()} == bodies
        assert [i.filename for i in archive.infolist()] == list(bodies)
        for entry in archive.infolist():
            assert entry.date_time == (2023, 11, 14, 22, 13, 20)
            assert entry.compress_type == (zipfile.ZIP_DEFLATED if not stored and entry.file_size else STORED)
            assert entry.external_attr >> 16 == (0o040755 if entry.is_dir() else 0o100644)
        # Stored or small, an entry says its length in front: those who read front to back need it.
        behind = {i.filename for i in archive.infolist() if i.flag_bits & 8}
    assert behind == (set() if stored else {"between.dcm", "large.dcm"})


def test_the_same_series_is_the_same_zip(tmp_path: Path) -> None:
    file = tmp_path / "1"
    file.write_bytes(random.Random(2).randbytes(200_000))
    members = [Member("1.dcm", file, 200_000, came=CAME), Member.text("LICENSE", "words")]
    assert zipped(members) == zipped(members)


@pytest.mark.parametrize("seed", range(30))
def test_any_names_and_bytes(seed: int) -> None:
    chance = random.Random(seed)
    entries = [
        ("".join(chance.choices("abcäß漢/.", k=chance.randint(1, 40))), chance.randbytes(chance.randint(0, 300)))
        for _ in range(chance.randint(0, 8))
    ]
    body = zipped([Member(name, content, len(content)) for name, content in entries], stored=chance.random() < 0.5)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert [(i.filename, archive.read(i)) for i in archive.infolist()] == entries


def test_beyond_four_gigabytes(tmp_path: Path) -> None:
    """Entries that begin there, and one that is longer, by what is known in front and by what stands behind."""
    far = 2**32 + 5
    target = tmp_path / "large.zip"
    with ZipWriter() as writer, target.open("wb") as out:
        out.write(writer.known("far.bin", CAME, STORED, 0, far, far))
        out.seek(far, os.SEEK_CUR)
        header, entry = writer.begin("behind.bin", CAME, STORED, far)
        out.write(header)
        out.seek(far, os.SEEK_CUR)
        out.write(writer.end(entry, 0, far, far))
        out.write(writer.known("last.txt", CAME, STORED, 0x352441C2, 3, 3) + b"abc")
        for block in writer.finish():
            out.write(block)
    with zipfile.ZipFile(target) as archive:
        assert [(i.filename, i.file_size, i.compress_size) for i in archive.infolist()] == [
            ("far.bin", far, far),
            ("behind.bin", far, far),
            ("last.txt", 3, 3),
        ]
        assert archive.read("last.txt") == b"abc"
        with archive.open("far.bin") as entry_file:
            assert entry_file.read(10) == bytes(10)
        assert archive.infolist()[2].header_offset > 2 * far


def test_what_is_longer_than_was_said_is_refused() -> None:
    with ZipWriter() as writer:
        _, entry = writer.begin("x", CAME, STORED, 10)
        with pytest.raises(OverflowError):
            writer.end(entry, 0, 2**32, 2**32)


def test_more_entries_than_sixteen_bits_count(monkeypatch) -> None:
    many = 70_000
    body = zipped([Member(f"{n}.txt", b"", 0) for n in range(many)])
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert len(archive.infolist()) == many
    assert struct.unpack("<H", body[-12:-10]) == (0xFFFF,)


def test_nowhere_to_keep_the_directory(monkeypatch) -> None:
    """A container whose file system cannot be written keeps it in memory."""

    def nowhere() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    body = zipped([Member.text("LICENSE", "words")])
    assert zipfile.ZipFile(io.BytesIO(body)).read("LICENSE") == b"words"
