"""The zip format, written from front to back (PKWARE's APPNOTE, 4.3 and 4.5). Hides headers, Zip64 and the directory.

Python's zipfile says a stored entry's length only behind it where it cannot seek, which Java's streams refuse, and
keeps a kilobyte of each entry until the end. Here an entry whose CRC is known says all in front, and its bytes can be
sent as they lie in a file; and the directory, which comes last, waits in a file once it is large.
"""

from __future__ import annotations

import io
import struct
import tempfile
import time
from collections.abc import Iterator
from typing import IO

from msgspec import Struct

#: Compression methods (4.4.5).
STORED, DEFLATED = 0, 8
#: What 32 and 16 bits can say: from here on Zip64 does.
_LONG, _SHORT = 0xFFFFFFFF, 0xFFFF
#: Bits of the flags: the lengths stand behind the entry; its name is UTF-8.
_BEHIND, _UTF8 = 0x0008, 0x0800
#: A plain file that all may read, a folder; as Unix has it, and MS-DOS' bit for a folder.
_FILE, _FOLDER = 0o100644 << 16, 0o040755 << 16 | 0x10
_UNIX = 3
_PLAIN, _ZIP64 = 20, 45
#: Bytes of a directory that are kept in memory, and that are given out at a time.
_SCRATCH = 4 * 1024 * 1024
_BLOCK = 1024 * 1024
_1980 = (1980, 1, 1, 0, 0, 0)


class Entry(Struct, gc=False):
    """One entry on its way out: its name, when it came (seconds since 1970, UTC), its method, and where it begins."""

    name: bytes
    came: int
    method: int
    at: int
    flags: int
    zip64: bool
    crc: int = 0
    packed: int = 0
    length: int = 0


class ZipWriter:
    """One zip. All that its methods give is to be sent, in this order, and the entries' own bytes where they say.

    Use as a context manager.
    """

    def __init__(self) -> None:
        self._at = 0
        self._entries = 0
        self._directory = scratch()

    def __enter__(self) -> ZipWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._directory.close()

    def known(self, name: str, came: int, method: int, crc: int, packed: int, length: int) -> bytes:
        """The header of an entry of which all is known; its `packed` bytes are to follow."""
        entry = self._entry(name, came, method, 0, packed >= _LONG or length >= _LONG)
        entry.crc, entry.packed, entry.length = crc, packed, length
        header = _header(entry)
        self._add(entry, len(header) + packed)
        return header

    def begin(self, name: str, came: int, method: int, expected: int) -> tuple[bytes, Entry]:
        """The header of an entry of about `expected` bytes, whose bytes are to follow, and then `end`."""
        # Deflating makes what cannot be packed a little longer.
        entry = self._entry(name, came, method, _BEHIND, expected * 1.05 >= _LONG)
        return _header(entry), entry

    def end(self, entry: Entry, crc: int, packed: int, length: int) -> bytes:
        """What stands behind the bytes of an entry that was begun. Raises OverflowError where it is far too long."""
        if max(packed, length) >= _LONG and not entry.zip64:
            raise OverflowError(f"{entry.name!r} is longer than was said")
        entry.crc, entry.packed, entry.length = crc, packed, length
        behind = struct.pack("<4sLQQ" if entry.zip64 else "<4sLLL", b"PK\x07\x08", crc, packed, length)
        self._add(entry, len(_header(entry)) + packed + len(behind))
        return behind

    def finish(self) -> Iterator[bytes]:
        """The directory, in blocks, and what says where it is."""
        begin, size = self._at, self._directory.tell()
        self._directory.seek(0)
        while block := self._directory.read(_BLOCK):
            yield block
        if self._entries >= _SHORT or size >= _LONG or begin >= _LONG:
            count = self._entries
            yield struct.pack(
                "<4sQ2H2L4Q", b"PK\x06\x06", 44, _UNIX << 8 | _ZIP64, _ZIP64, 0, 0, count, count, size, begin
            )
            yield struct.pack("<4sLQL", b"PK\x06\x07", 0, begin + size, 1)
        count = min(self._entries, _SHORT)
        yield struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, min(size, _LONG), min(begin, _LONG), 0)

    def _entry(self, name: str, came: int, method: int, flags: int, zip64: bool) -> Entry:
        flags |= 0 if name.isascii() else _UTF8
        return Entry(name.encode(), came, method, self._at, flags, zip64)

    def _add(self, entry: Entry, size: int) -> None:
        # Zip64's field has what does not fit, in this order.
        wide = [n for n in (entry.length, entry.packed, entry.at) if n >= _LONG]
        extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        version = _ZIP64 if entry.zip64 or wide else _PLAIN
        header = struct.pack(
            "<4s6H3L5H2L", b"PK\x01\x02", _UNIX << 8 | version, version, entry.flags, entry.method,
            *_stamp(entry.came), entry.crc, min(entry.packed, _LONG), min(entry.length, _LONG), len(entry.name),
            len(extra), 0, 0, 0, _FOLDER if entry.name.endswith(b"/") else _FILE, min(entry.at, _LONG),
        )  # fmt: skip
        self._directory.write(header + entry.name + extra)
        self._entries += 1
        self._at += size


def scratch() -> IO[bytes]:
    """A file of one's own for a while: in memory while it is small, and where there is nowhere else to be."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return io.BytesIO()
    return tempfile.SpooledTemporaryFile(_SCRATCH)


def _header(entry: Entry) -> bytes:
    """An entry's local header (4.3.7); that of one that was begun says nothing of lengths, before and after."""
    behind = bool(entry.flags & _BEHIND)
    crc, packed, length = (0, 0, 0) if behind else (entry.crc, entry.packed, entry.length)
    extra = struct.pack("<2H2Q", 1, 16, length, packed) if entry.zip64 else b""
    if entry.zip64:
        packed = length = _LONG
    header = struct.pack(
        "<4s5H3L2H", b"PK\x03\x04", _ZIP64 if entry.zip64 else _PLAIN, entry.flags, entry.method,
        *_stamp(entry.came), crc, packed, length, len(entry.name), len(extra),
    )  # fmt: skip
    return header + entry.name + extra


def _stamp(came: int) -> tuple[int, int]:
    """Time and date as MS-DOS has them (4.4.6), UTC."""
    year, month, day, hour, minute, second = max(time.gmtime(came)[:6], _1980)
    return hour << 11 | minute << 5 | second // 2, min(year - 1980, 127) << 9 | month << 5 | day
