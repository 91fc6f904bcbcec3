"""DICOM files taken apart and put together wrongly: what a reader of headers may be given, the same for the same seed.

A file is cut into pieces where elements begin and end, inside sequences and pixel data of undefined length too. Pieces
are lost, doubled, moved, changed in one field or replaced, so that what comes out is often nearly right: well formed,
but with two SOPInstanceUIDs, an item that is a byte too long, or a VR that no one knows.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_SHORT = (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"UI", b"UL", b"US")
_NO_VRS = (b"XX", b"ui", b"\0\0", b"A\xff", b"Zz", b"  ", b"ZZ", b"O1")
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"

#: Identity, its character set, what ends a data set or a file meta group, and some that are only passed by.
TAGS = [
    (0x0008, 0x0005), (0x0008, 0x0016), (0x0008, 0x0018), (0x0010, 0x0020), (0x0020, 0x000D), (0x0020, 0x000E),
    (0x0020, 0x0012), (0x0020, 0x0013), (0x7FE0, 0x0008), (0x7FE0, 0x0009), (0x7FE0, 0x0010), (0x7FE0, 0x0001),
    (0x7FE1, 0x0010), (0x0000, 0x0000), (0x0000, 0x0002), (0x0002, 0x0000), (0x0002, 0x0010), (0x0002, 0x0100),
    (0x0008, 0x1140), (0x0008, 0x1032), (0x0040, 0x0275), (0x5400, 0x0100), (0x6000, 0x3000), (0x0009, 0x1010),
    (0x0011, 0x0010), (0x0088, 0x0200), (0xFFFC, 0xFFFC), (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD),
    (0x0020, 0x4000), (0x0008, 0x0001), (0x0030, 0x0020), (0x4141, 0x4242), (0x7FFF, 0xFFFF), (0x0001, 0x0001),
]  # fmt: skip
_WANTED = frozenset(struct.pack("<HH", *tag) for tag in (*TAGS[:8], (0x0002, 0x0000), (0x0002, 0x0010)))
VALUES = [
    b"", b"1.2.3.4", b"1.2.3\0", b"1.2.840.10008.5.1.4.1.1.2\0", b"P-001 ", b" P ", b"\0\0", b" \0 \0", b"7", b"-12 ",
    b"+5", b"1_0", b"1.5", b"9" * 13, b"9" * 30, b"0x1F", b"ISO_IR 100", b"ISO_IR 192", b"ISO_IR 6 ", b"GB18030 ",
    b"\\ISO 2022 IR 87", b"ISO 2022 IR 100\\ISO 2022 IR 87", b"ISO-IR 100", b"NO SUCH SET", b"a\0b", b"ISO_IR 192\\GBK",
    b"M\xfcller", b"\xe7\x8e\x8b", b"a\x1b$Bb", b"A\\B", b"\\", b"x" * 64, b"y" * 1025, b"1" * 5000, b"\xff" * 6,
    b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0", b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.5\0", b"1.2.840.113619.5.2", b"1.2.840.10008.1.2.1 ", b"1.2\\1.2",
    b"\x0a\0\0\0", b"\t7\n", b"\xd9\xa7", b"utf8",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pieces:
    """A file cut where elements begin and end; `implicit` is how its data set is written."""

    name: str
    pieces: tuple[bytes, ...]
    implicit: bool

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


def take_apart(name: str, body: bytes) -> Pieces:
    """The pieces of a little endian file; what cannot be told apart (big endian, deflated, cut) is one piece."""
    pieces = [body[:132]]
    at = 132
    while body[at : at + 2] == b"\x02\x00":
        at = _element(body, at, pieces, implicit=False)
    first = body[at + 4 : at + 6]
    implicit = not (first.isalpha() and first.isupper())
    syntax = b"".join(pieces)
    if b"1.2.840.10008.1.2.2\0" in syntax or b"1.2.840.10008.1.2.1.99" in syntax:
        return Pieces(name, (*pieces, body[at:]), implicit)
    while at < len(body):
        at = _element(body, at, pieces, implicit=implicit)
    return Pieces(name, tuple(pieces), implicit)


def _element(body: bytes, at: int, pieces: list[bytes], *, implicit: bool) -> int:
    """One piece more, and where it ends. The content of what has an undefined length is left for the next pieces."""
    if len(body) < at + 8:
        pieces.append(body[at:])
        return len(body)
    tag, vr = body[at : at + 4], body[at + 4 : at + 6]
    if implicit or tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
        value, length = at + 8, int.from_bytes(body[at + 4 : at + 8], "little")
    elif vr in _LONG:
        value, length = at + 12, int.from_bytes(body[at + 8 : at + 12], "little")
    else:
        value, length = at + 8, int.from_bytes(body[at + 6 : at + 8], "little")
    end = value if length == _UNDEFINED else min(value + length, len(body))
    pieces.append(body[at:end])
    return end


def put_together_wrongly(file: Pieces, draw: random.Random) -> bytes:
    """The file with one to four things changed in it."""
    pieces = list(file.pieces)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
        draw.choice(_CHANGES)(pieces, draw, file.implicit)
    body = b"".join(pieces)
    if draw.random() < 0.15:
        body = _cut(body, pieces, draw)
    if draw.random() < 0.05:
        body += draw.choice((b"\0", b"\0" * 7, b"\0" * 8, b"\0" * 130, b"\x01", b"\x08\0\x18\0UI\x02\x001\0"))
    return body


def element(draw: random.Random, *, implicit: bool, deep: int = 0) -> bytes:
    """Some element: well formed more often than not."""
    tag = struct.pack("<HH", *draw.choice(TAGS))
    chance = draw.random()
    if chance < 0.25 and deep < 4:
        vr = b"SQ" if draw.random() < 0.9 else draw.choice((b"UN", b"OB", b"UT"))
        value, defined = sequence(draw, implicit=implicit, deep=deep + 1)
        return _head(tag, vr, len(value) if defined else _UNDEFINED, implicit=implicit) + value
    value = draw.choice(VALUES) if chance < 0.9 else draw.randbytes(draw.randrange(40))
    vr = _likely_vr(tag) if draw.random() < 0.7 else draw.choice((*_SHORT, *_LONG, *_NO_VRS))
    return _head(tag, vr, len(value), implicit=implicit) + value


def sequence(draw: random.Random, *, implicit: bool, deep: int) -> tuple[bytes, bool]:
    """The value of a sequence, and whether its length is to be defined."""
    items = b""
    inner = implicit if draw.random() < 0.95 else not implicit
    for _ in range(draw.randrange(4)):
        value = b"".join(element(draw, implicit=inner, deep=deep) for _ in range(draw.randrange(4)))
        if draw.random() < 0.5:
            off = draw.choice((-8, -1, 1, 2, 8)) if draw.random() < 0.05 else 0
            items += _ITEM + struct.pack("<L", max(0, len(value) + off)) + value
        else:
            end = b"\0\0\0\0" if draw.random() < 0.95 else draw.choice((b"\1\0\0\0", b"OB\0\0", b"UI\2\0"))
            items += _ITEM + b"\xff" * 4 + value + (_ITEM_END + end if draw.random() < 0.97 else b"")
    defined = draw.random() < 0.2
    end = b"\0\0\0\0" if draw.random() < 0.95 else b"\4\0\0\0"
    return items if defined else items + (_SEQUENCE_END + end if draw.random() < 0.97 else b""), defined


def _likely_vr(tag: bytes) -> bytes:
    group, number = struct.unpack("<HH", tag)
    if (group, number) == (0x0008, 0x0005):
        return b"CS"
    if (group, number) == (0x0010, 0x0020):
        return b"LO"
    if (group, number) in ((0x0020, 0x0012), (0x0020, 0x0013)):
        return b"IS"
    if group in (0x7FE0, 0x7FE1, 0x6000, 0x5400):
        return b"OB"
    return b"UL" if number == 0 else b"UI"


def _head(tag: bytes, vr: bytes, length: int, *, implicit: bool) -> bytes:
    if implicit:
        return tag + struct.pack("<L", length)
    if vr in _LONG:
        return tag + vr + b"\0\0" + struct.pack("<L", length)
    return tag + vr + struct.pack("<H", length & 0xFFFF)


def _one(pieces: list[bytes], draw: random.Random) -> int:
    """Which piece: often one of identity, hardly ever the preamble, and rather a small one than pixels."""
    if draw.random() < 0.35 and (wanted := [n for n, piece in enumerate(pieces) if piece[:4] in _WANTED]):
        return draw.choice(wanted)
    for _ in range(4):
        at = draw.randrange(len(pieces))
        if at and len(pieces[at]) < 4096:
            break
    return at


def _lose(pieces: list[bytes], draw: random.Random, implicit: bool) -> None:
    del pieces[_one(pieces, draw)]
    if not pieces:
        pieces.append(b"")


def _double(pieces: list[bytes], draw: random.Random, implicit: bool) -> None:
    pieces.insert(draw.randrange(1, len(pieces) + 1), pieces[_one(pieces, draw)])


def _swap(pieces: list[bytes], draw: random.Random, implicit: bool) -> None:
    a, b = _one(pieces, draw), _one(pieces, draw)
    pieces[a], pieces[b] = pieces[b], pieces[a]


def _insert(pieces: list[bytes], draw: random.Random, implicit: bool) -> None:
    how = implicit if draw.random() < 0.95 else not implicit
    pieces.insert(draw.randrange(1, len(pieces) + 1), element(draw, implicit=how))


def _wrap(pieces: list[bytes], draw: random.Random, implicit: bool) -> None:
    """Some elements become those of an item."""
    a = draw.randrange(1, len(pieces) + 1)
    b = min(len(pieces), a + draw.randrange(1, 6))
    value = b"".join(pieces[a:b])
    tag = struct.pack("<HH", *draw.choice(((0x0008, 0x1140), (0x0040, 0x0275), (0x0009, 0x1010), (0x7FE0, 0x0010))))
    off = draw.choice((-2, -1, 1, 2)) if draw.random() < 0.1 else 0
    if draw.random() < 0.5:
        value = _ITEM + struct.pack("<L", max(0, len(value) + off)) + value
    else:
        value = _ITEM + b"\xff" * 4 + value + _ITEM_END + b"\0" * 4
    if draw.random() < 0.8:
        pieces[a:b] = [_head(tag, b"SQ", _UNDEFINED, implicit=implicit) + value + _SEQUENCE_END + b"\0" * 4]
    else:
        pieces[a:b] = [_head(tag, b"SQ", len(value), implicit=implicit) + value]


def _retag(pieces: list[bytes], draw: random.Random, implicit: bool) -> None:
    at = _one(pieces, draw)
    pieces[at] = struct.pack("<HH", *draw.choice(TAGS)) + pieces[at][4:]


def _other_vr(pieces: list[bytes], draw: random.Random, implicit: bool) -> None:
    at = _one(pieces, draw)
    piece, vr = pieces[at], draw.choice((*_SHORT, *_LONG, *_NO_VRS))
    if draw.random() < 0.5:
        pieces[at] = piece[:4] + vr + piece[6:]
    else:
        value = piece[12 if piece[4:6] in _LONG else 8 :]
        pieces[at] = _head(piece[:4], vr, len(value), implicit=False) + value


def _other_length(pieces: list[bytes], draw: random.Random, implicit: bool) -> None:
    at = _one(pieces, draw)
    piece = pieces[at]
    place, size = (4, 4) if implicit else (8, 4) if piece[4:6] in _LONG else (6, 2)
    was = int.from_bytes(piece[place : place + size], "little")
    length = draw.choice((was + 1, was - 1, was + 2, was + 8, was - 8, 0, 0xFFFF, _UNDEFINED, draw.randrange(1 << 20)))
    pieces[at] = piece[:place] + (length % (1 << 8 * size)).to_bytes(size, "little") + piece[place + size :]


def _other_value(pieces: list[bytes], draw: random.Random, implicit: bool) -> None:
    """Another value, its length right; or as many other bytes."""
    at = _one(pieces, draw)
    piece = pieces[at]
    begins = 8 if implicit or piece[4:6] not in _LONG else 12
    value = draw.choice(VALUES)
    if draw.random() < 0.5:
        pieces[at] = _head(piece[:4], piece[4:6], len(value), implicit=implicit and piece[:1] != b"\2") + value
    else:
        pieces[at] = (
            piece[:begins] + value.ljust(len(piece) - begins, b" \0"[draw.random() < 0.5 :][:1])[: len(piece) - begins]
        )


def _flip(pieces: list[bytes], draw: random.Random, implicit: bool) -> None:
    at = _one(pieces, draw)
    piece = bytearray(pieces[at])
    if piece:
        place = draw.randrange(min(len(piece), 12) if draw.random() < 0.7 else len(piece))
        piece[place] = draw.choice((0, 0xFF, piece[place] ^ (1 << draw.randrange(8)), draw.randrange(256)))
        pieces[at] = bytes(piece)


def _cut(body: bytes, pieces: list[bytes], draw: random.Random) -> bytes:
    """Up to a place near the end of a piece."""
    end = sum(map(len, pieces[: draw.randrange(len(pieces)) + 1])) + draw.randrange(-13, 14)
    return body[: max(0, end)]


_CHANGES: tuple[Callable[[list[bytes], random.Random, bool], None], ...] = (
    _lose, _double, _swap, _insert, _insert, _wrap, _retag, _other_vr, _other_length, _other_value, _other_value, _flip,
)  # fmt: skip
