"""Faults of zips: other members, other bytes, members that cannot be read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

from aiohttp import web

from fakes.faults import Asked, Fault

Members = list[tuple[str, bytes]]


def bytes_of(change: Callable[[bytes], bytes]) -> Fault:
    """The true answer with other bytes, and their length."""

    async def fault(asked: Asked) -> web.StreamResponse:
        true = await asked.truth()
        return web.Response(status=true.status, body=change(true.body), headers=true.headers)

    return fault


def members_of(change: Callable[[Members], Members], *, stored: bool = False) -> Fault:
    """A sound zip of other members than the true ones. `stored`: not compressed."""

    def rezipped(body: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(body)) as source:
            members = [(info.filename, source.read(info)) for info in source.infolist()]
        return make_zip(change(members), stored=stored)

    return bytes_of(rezipped)


def make_zip(members: Members, *, stored: bool = False) -> bytes:
    """A zip, as a file that cannot seek is written."""
    target = io.BytesIO()
    kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(target, "w", kind) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return target.getvalue()


def corrupt_member(name: str) -> Fault:
    """A zip in which one member's bytes are not those that its CRC was made of."""

    def corrupted(body: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(body)) as source:
            members = [(info.filename, source.read(info)) for info in source.infolist()]
        plain = bytearray(make_zip(members, stored=True))
        with zipfile.ZipFile(io.BytesIO(bytes(plain))) as source:
            start = source.getinfo(name).header_offset
            size = source.getinfo(name).file_size
        plain[start + 30 + len(name) + size // 2] ^= 0xFF
        return bytes(plain)

    return bytes_of(corrupted)


def with_other_pixels(members: Members) -> Members:
    """A second member for an instance, with the same header and other pixels; the list of MD5s is gone."""
    images = [(name, body) for name, body in members if is_image(name)]
    body = images[0][1]
    return [*images, ("00000099.dcm", body[:-1] + bytes([body[-1] ^ 0xFF]))]


def is_image(name: str) -> bool:
    """True for a member that is an image."""
    return name.endswith(".dcm")


def claim_size(number: int, more: int) -> Fault:
    """A zip whose directory says that one of its images is longer than it is; its bytes and its CRC are sound."""

    def claimed(body: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(body)) as source:
            member = [info for info in source.infolist() if is_image(info.filename)][number]
        changed = bytearray(body)
        # In the central directory the name follows 46 bytes of which the size is the 24th to the 27th.
        at = body.rindex(member.filename.encode()) - 46
        assert body[at : at + 4] == b"PK\x01\x02"
        changed[at + 24 : at + 28] = (member.file_size + more).to_bytes(4, "little")
        return bytes(changed)

    return bytes_of(claimed)
