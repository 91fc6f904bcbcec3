"""A header by one walk over the elements, where a file is just as the standard says; `check` has the way for the rest.

pydicom takes half a millisecond for a header, which is more than all else that is done for a small object. So what
nearly every file looks like is read here: a file meta group in order, then explicit or implicit VR little endian, known
VRs, plain ASCII in the identity, and a data set that ends where the file ends. Wherever pydicom would have to guess,
convert, warn or refuse, and wherever anything is cut, the answer is "not here" and never another one than pydicom's;
tests/unit/test_identity.py holds the two against each other, over damaged files too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO

from mirror.model import Header

#: What a file in memory may be.
Bytes = bytes | bytearray | memoryview

#: So much of a file is worth reading at first; a header that has a large value is read on behind it.
HEAD = 8 * 1024

_PREAMBLE = 132
#: Read at one time further on, and at most where a sequence needs it whole.
_MORE = 4 * 1024
_MOST = 1024 * 1024
_UNDEFINED = 0xFFFFFFFF
#: Identity and its character set are short; pydicom recurses, and so nothing deep is for here.
_LONGEST_TEXT = 1024
_DEEPEST = 8
#: An IS has twelve characters at most (PS3.5, 6.2).
_NO_NUMBER = 10**12

# An element (PS3.5, 7.1): tag, VR, 16 bits of length; or 32 bits of it, behind two reserved bytes where there is a VR.
# The tag is one number, the group in its lower half.
_explicit = struct.Struct("<LHH").unpack_from
_implicit = struct.Struct("<LL").unpack_from
_length = struct.Struct("<L").unpack_from


def _tag(group: int, element: int) -> int:
    return element << 16 | group


def _vrs(text: str) -> Iterable[int]:
    return (int.from_bytes(vr.encode(), "little") for vr in text.split())


_SHORT = frozenset(_vrs("AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"))
_LONG = frozenset(_vrs("OB OD OF OL OV OW SQ SV UC UN UR UT UV"))
_CS, _IS, _LO, _SQ, _UI, _UL = _vrs("CS IS LO SQ UI UL")

_GROUP_LENGTH, _TRANSFER_SYNTAX = _tag(0x0002, 0x0000), _tag(0x0002, 0x0010)
_SOP_CLASS, _SOP_INSTANCE = _tag(0x0008, 0x0016), _tag(0x0008, 0x0018)
_STUDY, _SERIES = _tag(0x0020, 0x000D), _tag(0x0020, 0x000E)
_PATIENT, _ACQUISITION, _INSTANCE = _tag(0x0010, 0x0020), _tag(0x0020, 0x0012), _tag(0x0020, 0x0013)
_CHARACTER_SET = _tag(0x0008, 0x0005)
_PIXEL_DATA = _tag(0x7FE0, 0x0010)
_ITEM, _ITEM_END, _SEQUENCE_END = _tag(0xFFFE, 0xE000), _tag(0xFFFE, 0xE00D), _tag(0xFFFE, 0xE0DD)
_ITEM_BYTES = b"\xfe\xff\x00\xe0"

#: What is not only stepped over: text with its VR, pixel data (0), and what has no business in a data set (-1).
_SPECIAL = {
    _CHARACTER_SET: _CS, _SOP_CLASS: _UI, _SOP_INSTANCE: _UI, _STUDY: _UI, _SERIES: _UI, _PATIENT: _LO,
    _ACQUISITION: _IS, _INSTANCE: _IS,
    # pydicom reads to the first of these: integer, float or double float pixels.
    _PIXEL_DATA: 0, _tag(0x7FE0, 0x0008): 0, _tag(0x7FE0, 0x0009): 0,
    _ITEM_END: -1,
}  # fmt: skip

# What follows of syntaxes, character sets and sequences pydicom knows as well; but to import it takes a good part of a
# run's start, and most runs can do without. The tests hold these tables against pydicom's.

#: Transfer syntaxes (PS3.6, A), and whether VRs are implicit in them. One that is not here may be anything: deflated,
#: big endian, private.
_SYNTAXES = {
    f"1.2.840.10008.1.2{end}".encode(): not end
    for end in (
        "", ".1", ".5", ".7.1", ".7.2", ".7.3",
        ".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".4.92", ".4.93",
        ".4.100", ".4.100.1", ".4.101", ".4.101.1", ".4.102", ".4.102.1", ".4.103", ".4.103.1", ".4.104", ".4.104.1",
        ".4.105", ".4.105.1", ".4.106", ".4.106.1", ".4.107", ".4.108",
        ".4.201", ".4.202", ".4.203", ".4.204", ".4.205",
    )
}  # fmt: skip

#: Character sets (PS3.3, C.12.1.1.2) in the spellings that pydicom knows; none at all is the default one.
_CHARACTER_SETS = frozenset({
    "", "ISO_IR 6", "ISO_IR 13", "ISO_IR 100", "ISO_IR 101", "ISO_IR 109", "ISO_IR 110", "ISO_IR 126", "ISO_IR 127",
    "ISO_IR 138", "ISO_IR 144", "ISO_IR 148", "ISO_IR 166", "ISO_IR 192", "GB18030", "GBK",
    "ISO 2022 IR 6", "ISO 2022 IR 13", "ISO 2022 IR 58", "ISO 2022 IR 87", "ISO 2022 IR 100", "ISO 2022 IR 101",
    "ISO 2022 IR 109", "ISO 2022 IR 110", "ISO 2022 IR 126", "ISO 2022 IR 127", "ISO 2022 IR 138", "ISO 2022 IR 144",
    "ISO 2022 IR 148", "ISO 2022 IR 149", "ISO 2022 IR 159", "ISO 2022 IR 166", "ISO 2022 58", "ISO 2022 GBK",
})  # fmt: skip

#: Sequences that images, plans and structure sets are full of (PS3.6, 6), group and element. There are 1,300 more.
_SEQUENCES = frozenset(
    _tag(group, element)
    for group, elements in {
        0x0008: (
            0x0096, 0x1032, 0x1049, 0x1062, 0x1084, 0x1110, 0x1111, 0x1115, 0x1120, 0x1140, 0x1199,
            0x1200, 0x1250, 0x2112, 0x2218, 0x2220, 0x2228, 0x2229, 0x9092, 0x9121, 0x9124, 0x9154, 0x9215,
        ),
        0x0010: (0x0050, 0x1002),
        0x0012: (0x0064,),
        0x0018: (0x0012, 0x0014, 0x0026, 0x0029, 0x002A, 0x9346),
        0x0020: (0x9071, 0x9111, 0x9113, 0x9116, 0x9221, 0x9222),
        0x0028: (0x3000, 0x3010, 0x3110, 0x9110, 0x9132, 0x9145),
        0x0032: (0x1064,),
        0x0040: (
            0x0008, 0x0100, 0x0260, 0x0275, 0x0321, 0x0340, 0x0440, 0x0555, 0x9096, 0xA043, 0xA073, 0xA168, 0xA170,
            0xA300, 0xA370, 0xA372, 0xA375, 0xA385, 0xA504, 0xA525, 0xA730, 0xE022,
        ),
        0x0054: (0x0012, 0x0013, 0x0016, 0x0022, 0x0032, 0x0052, 0x0062, 0x0072, 0x0220, 0x0222, 0x0300, 0x0302,
                 0x0304, 0x0306, 0x0410, 0x0412, 0x0414),
        0x0062: (0x0002, 0x0003, 0x000A, 0x000F),
        0x0070: (0x0001, 0x0008, 0x0009, 0x005A, 0x0060),
        0x0088: (0x0200,),
        0x3002: (0x0030,),
        0x3004: (0x0010, 0x0050, 0x0060),
        0x3006: (0x0010, 0x0012, 0x0014, 0x0016, 0x0020, 0x0030, 0x0039, 0x0040, 0x0080, 0x0086, 0x00B0),
        0x300A: (0x0010, 0x0040, 0x0048, 0x0070, 0x00B0, 0x00B6, 0x00D1, 0x00E3, 0x00F4, 0x0107, 0x0111,
                 0x011A, 0x0180, 0x0190),
        0x300C: (0x0002, 0x0004, 0x0020, 0x0040, 0x0042, 0x0050, 0x0060, 0x0080),
        0x5200: (0x9229, 0x9230),
    }.items()
    for element in elements
)  # fmt: skip


class _Unusual(Exception):
    """Not for here: pydicom may make something of it, or refuse it."""


class _Short(Exception):
    """What is to be read reaches behind the bytes at hand."""


def scan(head: Bytes, size: int, file: BinaryIO | None = None) -> Header | None:
    """The header of a whole and plain DICOM file of `size` bytes, its data set ending where it ends; None: ask pydicom.

    `head` is all of the file, or where `file` is given (seekable) its first bytes, HEAD for instance. That there is a
    preamble is for the caller to see. Raises the OSError of a file that cannot be read.
    """
    if len(head) != size and (file is None or len(head) > size):
        return None
    try:
        at, implicit = _meta(head)
        texts = _data_set(head, at, size, file, implicit)
    except (_Unusual, _Short, struct.error, UnicodeDecodeError):
        return None
    get = texts.get
    return Header(
        sop_instance_uid=get(_SOP_INSTANCE, ""),
        series_instance_uid=get(_SERIES, ""),
        study_instance_uid=get(_STUDY, ""),
        patient_id=get(_PATIENT, ""),
        sop_class_uid=get(_SOP_CLASS, ""),
        acquisition_number=number(get(_ACQUISITION, "")),
        instance_number=number(get(_INSTANCE, "")),
    )


def number(text: str) -> int | None:
    """The whole number that a text is; None for what is none, or longer than DICOM's numbers are."""
    try:
        value = int(text)
    except ValueError:
        return None
    return value if abs(value) < _NO_NUMBER else None


def _meta(head: Bytes) -> tuple[int, bool]:
    """Where the file meta group ends (PS3.10, 7.1), and whether VRs are implicit behind it."""
    at, before, syntax = _PREAMBLE, -1, b""
    while True:
        tag, vr, length = _explicit(head, at)
        if tag & 0xFFFF != 0x0002:
            break
        # pydicom converts the first element, to see whether the group is readable at all.
        if tag <= before or (before < 0 and (tag, vr, length) != (_GROUP_LENGTH, _UL, 4)):
            raise _Unusual
        before = tag
        value = at + 8
        if vr in _LONG:
            (length,) = _length(head, value)
            value += 4
        elif vr not in _SHORT:
            raise _Unusual
        at = value + length
        if tag == _TRANSFER_SYNTAX:
            if vr != _UI:
                raise _Unusual
            syntax = bytes(head[value:at]).rstrip(b"\0 ")
    implicit = _SYNTAXES.get(syntax)
    # A command set may follow (group 0000), and a data set may be implicit where it says explicit, or the other way.
    if implicit is None or tag & 0xFFFF == 0 or (implicit and 64 < vr & 0xFF < 91 and 64 < vr >> 8 < 91):
        raise _Unusual
    return at, implicit


def _data_set(data: Bytes, at: int, size: int, file: BinaryIO | None, implicit: bool) -> dict[int, str]:
    """The texts of a data set from `at`, which has been gone through to the file's end.

    `data` are the file's bytes from `base` on; there is always one element behind the other.
    """
    texts: dict[int, str] = {}
    base = 0
    pixels = False
    # Locals are found sooner, and this is done 100 times for every file there is.
    explicit, special, short, long, undefined = _explicit, _SPECIAL, _SHORT, _LONG, _UNDEFINED
    while base + at < size:
        stop = len(data)
        try:
            while at < stop:
                if implicit:
                    vr = 0
                    tag, length = _implicit(data, at)
                    value = at + 8
                else:
                    tag, vr, length = explicit(data, at)
                    if vr in short:
                        if tag not in special:
                            at += 8 + length
                            continue
                        value = at + 8
                    elif vr in long:
                        (length,) = _length(data, at + 8)
                        value = at + 12
                    else:
                        raise _Unusual
                if tag in special:
                    kind = special[tag]
                    if kind < 0:
                        raise _Unusual
                    if kind == 0:
                        pixels = True
                    elif not pixels:
                        # Of two elements with one tag pydicom takes the last; nobody knows which is meant.
                        if tag in texts:
                            raise _Unusual
                        texts[tag] = _text(data, tag, vr or kind, value, length)
                if length == undefined:
                    if tag == _PIXEL_DATA:
                        at = _fragments(data, base, base + value, size, file) - base
                    elif vr == _SQ or (implicit and _is_sequence(data, tag, value)):
                        at = _sequence(data, value, implicit, 1)
                    else:
                        raise _Unusual
                else:
                    at = value + length
        except (_Short, struct.error):
            # Read on from this element; where that was the first one at hand, more of it.
            if file is None or base + len(data) >= size or (at == 0 and len(data) >= _MOST):
                raise
            more = _read(file, base + at, _MORE if at else len(data) * 4, size)
            if at == 0 and len(more) <= len(data):
                raise
            base, at, data = base + at, 0, more
        else:
            if base + at < size:
                if file is None:
                    raise _Unusual
                base, at, data = base + at, 0, _read(file, base + at, _MORE, size)
                if not data:
                    raise _Unusual  # the file is shorter than it was said to be
    # Without pixel data pydicom reads to the file's end, wherever the caller thinks that it is.
    if base + at != size or (file is not None and not pixels and _read(file, size, 1, size + 1)):
        raise _Unusual
    return texts


def _read(file: BinaryIO, position: int, length: int, size: int) -> bytes:
    """So many bytes from a position on, or what there is up to `size`."""
    file.seek(position)
    return file.read(min(length, size - position))


def _text(data: Bytes, tag: int, vr: int, value: int, length: int) -> str:
    """A text without its padding: ASCII, of one character set, and with the VR that it must have."""
    if vr != _SPECIAL[tag] or length > _LONGEST_TEXT:
        raise _Unusual
    if value + length > len(data):
        raise _Short
    text = str(data[value : value + length], "ascii")
    if "\x1b" in text:
        raise _Unusual
    if tag == _CHARACTER_SET and text.rstrip(" \0") not in _CHARACTER_SETS:
        raise _Unusual
    return text.strip("\0 ")


def _is_sequence(data: Bytes, tag: int, value: int) -> bool:
    """Whether an element of undefined length and no VR is a sequence: the dictionary knows, or its first item tells."""
    if tag in _SEQUENCES:
        return True
    if tag & 1 == 0:  # the dictionary has no private tags
        # The package first: of two threads that come in by two of its modules, one would see what is half there.
        import pydicom  # noqa: F401
        from pydicom.datadict import dictionary_VR

        with suppress(KeyError):
            return dictionary_VR((tag & 0xFFFF) << 16 | tag >> 16) == "SQ"
    return data[value : value + 4] == _ITEM_BYTES


def _sequence(data: Bytes, at: int, implicit: bool, depth: int) -> int:
    """Behind the delimiter of a sequence of undefined length (PS3.5, 7.5) whose items begin at `at`.

    pydicom reads elements where `check` steps over items of defined length: so these have to end where their last
    element ends.
    """
    if depth > _DEEPEST:
        raise _Unusual
    while True:
        tag, length = _implicit(data, at)
        at += 8
        if tag == _SEQUENCE_END and length == 0:
            return at
        if tag != _ITEM:
            raise _Unusual
        end = None if length == _UNDEFINED else at + length
        if end is not None and end > len(data):
            raise _Short
        at = _item(data, at, end, implicit, depth)


def _item(data: Bytes, at: int, end: int | None, implicit: bool, depth: int) -> int:
    """Behind the elements of an item, which ends at `end`, or where that is None behind its delimiter."""
    while at != end:
        value = at + 8
        if implicit:
            vr = 0
            tag, length = _implicit(data, at)
        else:
            tag, vr, length = _explicit(data, at)
        if tag == _ITEM_END:
            if end is None and vr == 0 and length == 0:
                return value
            raise _Unusual
        if vr in _LONG:
            (length,) = _length(data, value)
            value += 4
        elif not implicit and vr not in _SHORT:
            raise _Unusual
        if tag == _CHARACTER_SET:
            _text(data, tag, vr or _CS, value, length)
        if length != _UNDEFINED:
            at = value + length
        elif tag != _PIXEL_DATA and (vr == _SQ or (implicit and _is_sequence(data, tag, value))):
            at = _sequence(data, value, implicit, depth + 1)
        else:
            raise _Unusual
        if at > len(data):
            raise _Short
        if end is not None and at > end:
            raise _Unusual
    return at


def _fragments(data: Bytes, base: int, position: int, size: int, file: BinaryIO | None) -> int:
    """The position behind the delimiter of encapsulated pixel data (PS3.5, A.4) whose items begin at `position`."""
    while True:
        if position + 8 > base + len(data):
            if file is None or position + 8 > size:
                raise _Unusual
            base, data = position, _read(file, position, _MORE, size)
            if len(data) < 8:
                raise _Unusual
        tag, length = _implicit(data, position - base)
        position += 8
        if tag == _SEQUENCE_END and length == 0:
            return position
        if tag != _ITEM or length == _UNDEFINED:
            raise _Unusual
        position += length
