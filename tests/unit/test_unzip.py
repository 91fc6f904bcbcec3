"""Zips are read as the standard library reads them, and damaged ones never as something else."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib

import pytest
from fakes.zips import make_zip

from mirror.transports.unzip import BadZip, Member, Zip

CHANCE = random.Random(20261125)
#: Longer than one step of reading, compressible and not, empty.
BODIES = [
    b"",
    b"a",
    bytes(1_300_000),
    CHANCE.randbytes(700_000),
    CHANCE.randbytes(40_000) * 20,
]
KINDS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


class Source:
    """Bytes in memory."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.size = len(body)

    def read(self, offset: int, count: int) -> bytes:
        assert offset >= 0
        assert count >= 0
        return self.body[offset : offset + count]


def read_all(body: bytes) -> dict[str, bytes]:
    zipped = Zip(Source(body))
    return {member.name: b"".join(zipped.read(member)) for member in zipped.members()}


def packed(kind: int, *, zip64: bool = False, comment: bytes = b"") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", kind) as archive:
        for number, body in enumerate(BODIES):
            with archive.open(zipfile.ZipInfo(f"{number}.dcm"), "w", force_zip64=zip64) as file:
                file.write(body)
        archive.comment = comment
    return target.getvalue()


@pytest.mark.parametrize("kind", KINDS, ids=["stored", "deflated", "bzip2", "lzma"])
def test_every_compression(kind):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", kind) as archive:
        for number, body in enumerate(BODIES):
            archive.writestr(f"{number}.dcm", body)
    assert read_all(target.getvalue()) == {f"{n}.dcm": body for n, body in enumerate(BODIES)}


@pytest.mark.parametrize(
    "body",
    [
        packed(zipfile.ZIP_DEFLATED, zip64=True),
        packed(zipfile.ZIP_STORED, comment=b"a comment PK\5\6 that looks like an end" + bytes(30)),
        b"leading" + packed(zipfile.ZIP_STORED),
        packed(zipfile.ZIP_STORED) + b"trailing",
    ],
    ids=["zip64 fields", "comment", "something before", "something behind"],
)
def test_odd_zips_are_read_as_zipfile_reads_them(body):
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            expected = {info.filename: archive.read(info) for info in archive.infolist()}
    except zipfile.BadZipFile:
        with pytest.raises(BadZip):
            read_all(body)
    else:
        assert read_all(body) == expected


def as_zip64(body: bytes) -> bytes:
    """The same zip as one whose sizes, offsets and directory are all told in ZIP64 fields and records."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        start, infos = archive.start_dir, archive.infolist()
    directory = b""
    for info in infos:
        extra = struct.pack("<HHQQQ", 1, 24, info.file_size, info.compress_size, info.header_offset)
        extra = struct.pack("<HHL", 0x5455, 4, 7) + extra
        directory += struct.pack(
            "<4s4B4HL2L5H2L", b"PK\1\2", 45, 3, 45, 0, info.flag_bits, info.compress_type, 0, 0, info.CRC,
            0xFFFFFFFF, 0xFFFFFFFF, len(info.filename), len(extra), 0, 0, 0, 0, 0xFFFFFFFF,
        )  # fmt: skip
        directory += info.filename.encode() + extra
    end = start + len(directory)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, len(infos), len(infos), len(directory), start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return body[:start] + directory + record + locator + last


@pytest.mark.parametrize("before", [b"", b"leading"])
def test_zip64_all_over(before):
    body = before + as_zip64(make_zip([("a.dcm", b"one"), ("b.dcm", b"two" * 1000)]))
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.read("b.dcm") == b"two" * 1000, "the zip is sound"
    assert read_all(body) == {"a.dcm": b"one", "b.dcm": b"two" * 1000}


def test_a_directory_longer_than_one_step_of_reading():
    names = [f"{'x' * 60}{number:07}.dcm" for number in range(9000)]
    body = make_zip([(name, b"") for name in names])
    assert [member.name for member in Zip(Source(body)).members()] == names


@pytest.mark.parametrize("name", ["ä/b.dcm", "a\0hidden.dcm", "日本.dcm"], ids=["umlaut", "nul", "not latin"])
def test_names(name):
    (member,) = Zip(Source(make_zip([(name, b"1")]))).members()
    assert member.name == name.partition("\0")[0]


@pytest.mark.parametrize("body", [b"", b"PK", b"<html>", bytes(21), b"PK\5\6", bytes(70_000)], ids=len)
def test_what_is_no_zip(body):
    with pytest.raises(BadZip):
        Zip(Source(body))


def test_a_member_gives_no_more_than_it_claims():
    """However much is packed behind a claim: it is neither unpacked nor believed."""
    body = bytearray(make_zip([("bomb.dcm", bytes(50_000_000))]))
    at = body.rindex(b"bomb.dcm") - 46
    body[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    zipped = Zip(Source(bytes(body)))
    (member,) = zipped.members()
    pieces = zipped.read(member)
    assert len(next(pieces)) == 1000
    with pytest.raises(BadZip):
        next(pieces)


@pytest.mark.parametrize("flag", [0x1, 0x20, 0x40])
def test_encrypted_members_are_not_read(flag):
    zipped = Zip(Source(make_zip([("a", b"1")])))
    (member,) = zipped.members()
    with pytest.raises(BadZip, match="encrypted"):
        list(zipped.read(Member("a", 1, 1, member.crc, 0, flag, member.offset, member.raw_name)))


@pytest.mark.parametrize("kind", KINDS, ids=["stored", "deflated", "bzip2", "lzma"])
def test_damage_is_told_or_does_not_matter(kind):
    """Whatever bytes are changed: what is read without a word has the CRC that the directory gives, or is refused."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", kind) as archive:
        for number in range(4):
            archive.writestr(f"{number}.dcm", CHANCE.randbytes(300) * 2)
    sound = target.getvalue()
    told = read = 0
    for _ in range(1500):
        damaged = bytearray(sound)
        for _ in range(CHANCE.randrange(1, 4)):
            damaged[CHANCE.randrange(len(damaged))] = CHANCE.randrange(256)
        damaged = damaged[: CHANCE.choice([len(damaged), len(damaged), CHANCE.randrange(len(damaged))])]
        try:
            zipped = Zip(Source(bytes(damaged)))
            for member in zipped.members():
                try:
                    body = b"".join(zipped.read(member))
                except BadZip:
                    told += 1
                else:
                    read += 1
                    assert zlib.crc32(body) == member.crc
                    assert len(body) <= member.size
        except BadZip:
            told += 1
    assert told > 500
    assert read > 500
