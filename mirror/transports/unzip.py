"""Reading a zip: its members in the order of its directory, one after the other, each in pieces.

Hides the format (APPNOTE.TXT of PKWARE, 4.3; with ZIP64). The standard library's zipfile keeps 60 MB for a series of
92,000 members, and takes three times as long for a small one.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

Bytes = bytes | memoryview

#: The records: end of the directory, what ZIP64 has before that, a member's entry there, a member's own header.
_END = struct.Struct("<4s4H2LH")
_LOCATOR = 20
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_HEADER = struct.Struct("<4s2B4HL2L2H")
#: What may lie behind the end record.
_COMMENT = 0xFFFF
#: Says that the true number is in the ZIP64 field.
_IN_64 = 0xFFFFFFFF
#: Encrypted, patched or strongly encrypted members are not read.
_UNREADABLE = 0x1 | 0x20 | 0x40
_UTF_8 = 0x800
_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
#: Bytes that are read, and unpacked, at once. An entry of the directory has less than half of it.
_STEP = 512 * 1024


class BadZip(Exception):
    """These bytes are no zip, or a member of it cannot be read."""


class Source(Protocol):
    """Where the zip's bytes lie."""

    @property
    def size(self) -> int:
        """How many they are."""
        ...

    def read(self, offset: int, count: int) -> Bytes:
        """`count` bytes from `offset`, or those up to the end. Good until the next call."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """An entry of a zip's directory. `size` and `name` are what it claims, and worth no more than that."""

    name: str
    size: int
    packed: int
    crc: int
    method: int
    flags: int
    #: Where its own header lies, and its name as it stands there.
    offset: int
    raw_name: bytes

    @property
    def is_folder(self) -> bool:
        """It stands for a folder and has no bytes."""
        return self.name.endswith("/")


class Zip:
    """A zip in a source. Blocks where its source does. Raises BadZip where there is no end of a directory."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._end, record = self._find_end()
        *_, length, begin, _ = _END.unpack(record)
        if (large := self._end - _END_64.size - _LOCATOR) >= 0:
            records = bytes(source.read(large, _END_64.size + _LOCATOR))
            if records[:4] == b"PK\6\6" and records[_END_64.size :][:4] == b"PK\6\7":
                self._end = large
                *_, length, begin = _END_64.unpack_from(records)
        self._directory = self._end - length
        # All offsets are from the start of the zip, which need not be that of the source.
        self._before = self._directory - begin
        if self._directory < 0:
            raise BadZip("its directory lies outside of it")

    def _find_end(self) -> tuple[int, bytes]:
        """Where the last end record lies, and its bytes."""
        at = self._source.size - _END.size
        tail = bytes(self._source.read(at, _END.size)) if at >= 0 else b""
        if tail[:4] == b"PK\5\6" and tail[-2:] == b"\0\0":
            return at, tail
        start = max(0, at - _COMMENT)
        tail = bytes(self._source.read(start, _COMMENT + _END.size))
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) - at < _END.size:
            raise BadZip("it has no directory")
        return start + at, tail[at : at + _END.size]

    def members(self) -> Iterator[Member]:
        """What its directory names, in its order; from its start each time. Raises BadZip for a damaged one."""
        position, window, begin = self._directory, b"", self._directory
        while position < self._end:
            at = position - begin
            if len(window) - at < _STEP // 2 and begin + len(window) < self._end:
                window, begin, at = bytes(self._source.read(position, min(_STEP, self._end - position))), position, 0
            if len(window) - at < _ENTRY.size:
                raise BadZip("its directory is cut")
            (
                magic, _, _, _, _, flags, method, _, _, crc, packed, size,
                name_length, extra_length, comment_length, _, _, _, offset,
            ) = _ENTRY.unpack_from(window, at)  # fmt: skip
            if magic != b"PK\1\2":
                raise BadZip("its directory is damaged")
            at += _ENTRY.size
            raw_name = window[at : at + name_length]
            at += name_length
            if _IN_64 in (size, packed, offset):
                size, packed, offset = _large(window[at : at + extra_length], size, packed, offset)
            position = begin + at + extra_length + comment_length
            name = raw_name.decode("utf-8", "replace") if flags & _UTF_8 else raw_name.decode("cp437")
            yield Member(
                name.partition("\0")[0], size, packed, crc, method, flags, offset + self._before, raw_name
            )  # fmt: skip

    def read(self, member: Member) -> Iterator[Bytes]:
        """A member's bytes in pieces, each good until the next; at most as many as it claims.

        Raises BadZip where they cannot be had, or, behind the last piece, where their CRC is not the directory's.
        """
        if member.flags & _UNREADABLE:
            raise BadZip("it is encrypted")
        header = self._source.read(member.offset, _HEADER.size) if member.offset >= 0 else b""
        if len(header) < _HEADER.size or header[:4] != b"PK\3\4":
            raise BadZip("its header is not where the directory says")
        *_, name_length, extra_length = _HEADER.unpack(header)
        start = member.offset + _HEADER.size
        if self._source.read(start, name_length) != member.raw_name:
            raise BadZip("its header has another name than the directory")
        start += name_length + extra_length
        if start + member.packed > self._source.size:
            raise BadZip("it reaches behind the end of the zip")
        crc = 0
        unpack = self._stored if member.method == _STORED else self._unpacked
        for piece in unpack(member, start):
            crc = zlib.crc32(piece, crc)
            yield piece
        if crc != member.crc:
            raise BadZip("its bytes do not have the CRC that the directory gives")

    def _stored(self, member: Member, start: int) -> Iterator[Bytes]:
        end = start + min(member.packed, member.size)
        for position in range(start, end, _STEP):
            yield self._source.read(position, min(_STEP, end - position))

    def _unpacked(self, member: Member, start: int) -> Iterator[Bytes]:
        end, left = start + member.packed, member.size
        if member.method == _LZMA:
            decoder, start = self._lzma(start)
        else:
            decoder = _decoder(member.method)
        while left and not decoder.eof:
            # What was not used of the last piece: zlib hands it back, the others keep it.
            packed: Bytes = getattr(decoder, "unconsumed_tail", b"")
            if not packed and getattr(decoder, "needs_input", True):
                packed = self._source.read(start, min(_STEP, end - start))
                start += len(packed)
            try:
                piece = decoder.decompress(packed, min(left, _STEP))
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise BadZip(str(error)) from error
            if not piece and start >= end and not packed:
                break
            left -= len(piece)
            yield piece

    def _lzma(self, start: int) -> tuple[Any, int]:
        """The decoder that a member's first bytes tell of (APPNOTE.TXT, 5.8), and where its packed bytes begin."""
        head = bytes(self._source.read(start, 9))
        if len(head) < 9 or head[2:4] != b"\5\0":
            raise BadZip("its compression is damaged")
        rest, lc = divmod(head[4], 9)
        pb, lp = divmod(rest, 5)
        dict_size = int.from_bytes(head[5:], "little")
        method = {"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": dict_size}
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[method]), start + 9
        except (lzma.LZMAError, ValueError, OverflowError, MemoryError) as error:
            raise BadZip(f"its compression is damaged: {error}") from error


def _decoder(method: int) -> Any:
    if method == _DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS)
    if method == _BZIP2:
        return bz2.BZ2Decompressor()
    raise BadZip(f"its compression ({method}) is unknown")


def _large(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The true numbers where some are in the ZIP64 field (APPNOTE.TXT, 4.5.3)."""
    at = 0
    while len(extra) - at >= 4:
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            given = iter([int.from_bytes(field[n : n + 8], "little") for n in range(0, len(field) - 7, 8)])
            try:
                size, packed, offset = (
                    next(given) if number == _IN_64 else number for number in (size, packed, offset)
                )
            except (StopIteration, RuntimeError):
                break
            return size, packed, offset
        at += 4 + length
    raise BadZip("its directory is damaged: a ZIP64 field is missing")
