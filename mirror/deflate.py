"""Deflate and CRC-32: by Intel's ISA-L where it is installed (extra `fast`), several times as fast, or else by zlib.

What comes out is deflate all the same (RFC 1951), of about the same length; it is not byte for byte the other's.
"""

from __future__ import annotations

import zlib
from typing import Protocol

try:
    from isal import isal_zlib
except ImportError:  # without the extra
    isal_zlib = None  # type: ignore[assignment]  # mypy has it as a module and nothing else

#: DICOM and lists of rows gain little by a higher level, which costs three times as much.
_LEVEL = 1


class Deflater(Protocol):
    """Packs one stream, part by part."""

    def compress(self, data: bytes, /) -> bytes:
        """What is to be sent now of what was given so far."""
        ...

    def flush(self) -> bytes:
        """What is still to be sent."""
        ...


def deflater(*, gzip: bool = False) -> Deflater:
    """A packer of one bare stream, as a zip has it, or with gzip's frame (RFC 1952)."""
    packer: Deflater = (isal_zlib or zlib).compressobj(_LEVEL, zlib.DEFLATED, 31 if gzip else -zlib.MAX_WBITS)
    return packer


def crc32(data: bytes | memoryview, before: int = 0) -> int:
    """The CRC-32 of some bytes, going on from that of those before."""
    return int((isal_zlib or zlib).crc32(data, before))
