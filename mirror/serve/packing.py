"""Packed bodies: which way a client takes (RFC 9110, 12.5.3), and the packing itself, part by part."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

try:
    import zstandard
except ImportError:  # without the extra, clients get gzip
    zstandard = None  # type: ignore[assignment]  # mypy has it as a module and nothing else

from mirror.deflate import deflater

#: The quickest that still takes nine tenths off a list.
_ZSTD_LEVEL = 1


class Packer(Protocol):
    """Packs one body. `str` of it is its Content-Encoding."""

    def pack(self, part: bytes) -> bytes:
        """What is to be sent now of what was given so far."""
        ...

    def end(self) -> bytes:
        """What is still to be sent."""
        ...


class _Gzip:
    def __init__(self) -> None:
        self._packer = deflater(gzip=True)

    def __str__(self) -> str:
        return "gzip"

    def pack(self, part: bytes) -> bytes:
        return self._packer.compress(part)

    def end(self) -> bytes:
        return self._packer.flush()


class _Zstd:
    def __init__(self) -> None:
        self._packer = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()

    def __str__(self) -> str:
        return "zstd"

    def pack(self, part: bytes) -> bytes:
        return self._packer.compress(part)

    def end(self) -> bytes:
        return self._packer.flush()


def packer_for(request: web.Request) -> Packer | None:
    """What packs a body for the client that asks; None where it takes none of ours."""
    takes = _weights(request.headers.get("Accept-Encoding", ""))
    other = takes.get("*", 0.0)
    if zstandard is not None and takes.get("zstd", 0.0) > 0 and takes["zstd"] >= takes.get("gzip", other):
        return _Zstd()
    return _Gzip() if takes.get("gzip", other) > 0 else None


def _weights(header: str) -> dict[str, float]:
    """Codings by how much a client wants them; 0: not at all."""
    weights: dict[str, float] = {}
    for item in header.split(","):
        coding, _, rest = item.partition(";")
        name, _, weight = rest.partition("=")
        try:
            weights[coding.strip().lower()] = float(weight) if name.strip().lower() == "q" else 1.0
        except ValueError:
            continue
    return weights
