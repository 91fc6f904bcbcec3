"""A header by one walk over the elements, where a file is just as the standard says; `check` has the way for the rest.

pydicom takes half a millisecond for a header, which is more than all else that is done for a small object. So what
nearly every file looks like is read here: a file meta group in order, then explicit or implicit VR little endian, known
VRs, plain ASCII in the identity, and a data set that ends where the file ends. Wherever pydicom would have to guess,
convert, warn or refuse, and wherever anything is cut, the answer is "not here" and never another one than pydicom's;
tests/unit/test_identity.py holds the two against each other, over damaged files too.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import BinaryIO

from mirror.identity.tables import (
    ACQUISITION,
    CHARACTER_SET,
    CHARACTER_SETS,
    CS,
    GROUP_LENGTH,
    INSTANCE,
    ITEM,
    ITEM_BYTES,
    ITEM_END,
    LONG,
    PATIENT,
    PIXEL_DATA,
    SEQUENCE_END,
    SEQUENCES,
    SERIES,
    SHORT,
    SOP_CLASS,
    SOP_INSTANCE,
    SPECIAL,
    SQ,
    STUDY,
    SYNTAXES,
    TRANSFER_SYNTAX,
    UI,
    UL,
)
from mirror.model import Header

#: What a file in memory may be.
Bytes = bytes | bytearray | memoryview

#: So much of a file is worth reading at first; a header that has a large value is read on behind it.
HEAD = 8 * 1024

PREAMBLE = 132
#: Read at one time further on, and at most where a sequence needs it whole.
_MORE = 4 * 1024
_MOST = 1024 * 1024
UNDEFINED = 0xFFFFFFFF
#: Identity and its character set are short; pydicom recurses, and so nothing deep is for here.
_LONGEST_TEXT = 1024
_DEEPEST = 8
#: An IS has twelve characters at most (PS3.5, 6.2).
_NO_NUMBER = 10**12

# An element (PS3.5, 7.1): tag, VR, 16 bits of length; or 32 bits of it, behind two reserved bytes where there is a VR.
# The tag is one number, the group in its lower half.
explicit_at = struct.Struct("<LHH").unpack_from
implicit_at = struct.Struct("<LL").unpack_from
length_at = struct.Struct("<L").unpack_from


class Unusual(Exception):
    """Not for here: pydicom may make something of it, or refuse it."""


class Short(Exception):
    """What is to be read reaches behind the bytes at hand."""


def header_by_walk(head: Bytes, size: int, file: BinaryIO | None = None) -> Header | None:
    """The header of a whole and plain DICOM file of `size` bytes, its data set ending where it ends; None: ask pydicom.

    `head` is all of the file, or where `file` is given (seekable) its first bytes, HEAD for instance. That there is a
    preamble is for the caller to see. Raises the OSError of a file that cannot be read.
    """
    if len(head) != size and (file is None or len(head) > size):
        return None
    try:
        at, implicit = end_of_meta(head)
        texts = _data_set(head, at, size, file, implicit)
    except (Unusual, Short, struct.error, UnicodeDecodeError):
        return None
    return header_of(texts)


def header_of(texts: dict[int, str]) -> Header:
    """The header that these texts are, by tag."""
    get = texts.get
    return Header(
        sop_instance_uid=get(SOP_INSTANCE, ""),
        series_instance_uid=get(SERIES, ""),
        study_instance_uid=get(STUDY, ""),
        patient_id=get(PATIENT, ""),
        sop_class_uid=get(SOP_CLASS, ""),
        acquisition_number=number(get(ACQUISITION, "")),
        instance_number=number(get(INSTANCE, "")),
    )


def number(text: str) -> int | None:
    """The whole number that a text is; None for what is none, or longer than DICOM's numbers are."""
    try:
        value = int(text)
    except ValueError:
        return None
    return value if abs(value) < _NO_NUMBER else None


def end_of_meta(head: Bytes) -> tuple[int, bool]:
    """Where the file meta group ends (PS3.10, 7.1), and whether VRs are implicit behind it."""
    at, before, syntax = PREAMBLE, -1, b""
    while True:
        tag, vr, length = explicit_at(head, at)
        if tag & 0xFFFF != 0x0002:
            break
        # pydicom converts the first element, to see whether the group is readable at all.
        if tag <= before or (before < 0 and (tag, vr, length) != (GROUP_LENGTH, UL, 4)):
            raise Unusual
        before = tag
        value = at + 8
        if vr in LONG:
            (length,) = length_at(head, value)
            value += 4
        elif vr not in SHORT:
            raise Unusual
        at = value + length
        if tag == TRANSFER_SYNTAX:
            if vr != UI:
                raise Unusual
            syntax = bytes(head[value:at]).rstrip(b"\0 ")
    implicit = SYNTAXES.get(syntax)
    # A command set may follow (group 0000), and a data set may be implicit where it says explicit, or the other way.
    if implicit is None or tag & 0xFFFF == 0 or (implicit and 64 < vr & 0xFF < 91 and 64 < vr >> 8 < 91):
        raise Unusual
    return at, implicit


def _data_set(data: Bytes, at: int, size: int, file: BinaryIO | None, implicit: bool) -> dict[int, str]:
    """The texts of a data set from `at`, which has been gone through to the file's end.

    `data` are the file's bytes from `base` on; there is always one element behind the other.
    """
    texts: dict[int, str] = {}
    base = 0
    pixels = False
    # Locals are found sooner, and this is done 100 times for every file there is.
    explicit, special, short, long, undefined = explicit_at, SPECIAL, SHORT, LONG, UNDEFINED
    while base + at < size:
        stop = len(data)
        try:
            while at < stop:
                if implicit:
                    vr = 0
                    tag, length = implicit_at(data, at)
                    value = at + 8
                else:
                    tag, vr, length = explicit(data, at)
                    if vr in short:
                        if tag not in special:
                            at += 8 + length
                            continue
                        value = at + 8
                    elif vr in long:
                        (length,) = length_at(data, at + 8)
                        value = at + 12
                    else:
                        raise Unusual
                if tag in special:
                    kind = special[tag]
                    if kind < 0:
                        raise Unusual
                    if kind == 0:
                        pixels = True
                    elif not pixels:
                        # Of two elements with one tag pydicom takes the last; nobody knows which is meant.
                        if tag in texts:
                            raise Unusual
                        texts[tag] = text_of(data, tag, vr or kind, value, length)
                if length == undefined:
                    if tag == PIXEL_DATA:
                        at = _fragments(data, base, base + value, size, file) - base
                    elif vr == SQ or (implicit and is_sequence(data, tag, value)):
                        at = end_of_sequence(data, value, implicit, 1)
                    else:
                        raise Unusual
                else:
                    at = value + length
        except (Short, struct.error):
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
                    raise Unusual
                base, at, data = base + at, 0, _read(file, base + at, _MORE, size)
                if not data:
                    raise Unusual  # the file is shorter than it was said to be
    # Without pixel data pydicom reads to the file's end, wherever the caller thinks that it is.
    if base + at != size or (file is not None and not pixels and _read(file, size, 1, size + 1)):
        raise Unusual
    return texts


def _read(file: BinaryIO, position: int, length: int, size: int) -> bytes:
    """So many bytes from a position on, or what there is up to `size`."""
    file.seek(position)
    return file.read(min(length, size - position))


def text_of(data: Bytes, tag: int, vr: int, value: int, length: int) -> str:
    """A text without its padding: ASCII, of one character set, and with the VR that it must have."""
    if vr != SPECIAL[tag] or length > _LONGEST_TEXT:
        raise Unusual
    if value + length > len(data):
        raise Short
    text = str(data[value : value + length], "ascii")
    if "\x1b" in text:
        raise Unusual
    if tag == CHARACTER_SET and text.rstrip(" \0") not in CHARACTER_SETS:
        raise Unusual
    return text.strip("\0 ")


def is_sequence(data: Bytes, tag: int, value: int) -> bool:
    """Whether an element of undefined length and no VR is a sequence: the dictionary knows, or its first item tells."""
    if tag in SEQUENCES:
        return True
    if tag & 1 == 0:  # the dictionary has no private tags
        # The package first: of two threads that come in by two of its modules, one would see what is half there.
        import pydicom  # noqa: F401 - for the order of imports, see above
        from pydicom.datadict import dictionary_VR

        with suppress(KeyError):
            return dictionary_VR((tag & 0xFFFF) << 16 | tag >> 16) == "SQ"
    return data[value : value + 4] == ITEM_BYTES


def end_of_sequence(data: Bytes, at: int, implicit: bool, depth: int) -> int:
    """Behind the delimiter of a sequence of undefined length (PS3.5, 7.5) whose items begin at `at`.

    pydicom reads elements where `check` steps over items of defined length: so these have to end where their last
    element ends.
    """
    if depth > _DEEPEST:
        raise Unusual
    while True:
        tag, length = implicit_at(data, at)
        at += 8
        if tag == SEQUENCE_END and length == 0:
            return at
        if tag != ITEM:
            raise Unusual
        end = None if length == UNDEFINED else at + length
        if end is not None and end > len(data):
            raise Short
        at = _item(data, at, end, implicit, depth)


def _item(data: Bytes, at: int, end: int | None, implicit: bool, depth: int) -> int:
    """Behind the elements of an item, which ends at `end`, or where that is None behind its delimiter."""
    while at != end:
        value = at + 8
        if implicit:
            vr = 0
            tag, length = implicit_at(data, at)
        else:
            tag, vr, length = explicit_at(data, at)
        if tag == ITEM_END:
            if end is None and vr == 0 and length == 0:
                return value
            raise Unusual
        if vr in LONG:
            (length,) = length_at(data, value)
            value += 4
        elif not implicit and vr not in SHORT:
            raise Unusual
        if tag == CHARACTER_SET:
            text_of(data, tag, vr or CS, value, length)
        if length != UNDEFINED:
            at = value + length
        elif tag != PIXEL_DATA and (vr == SQ or (implicit and is_sequence(data, tag, value))):
            at = end_of_sequence(data, value, implicit, depth + 1)
        else:
            raise Unusual
        if at > len(data):
            raise Short
        if end is not None and at > end:
            raise Unusual
    return at


def _fragments(data: Bytes, base: int, position: int, size: int, file: BinaryIO | None) -> int:
    """The position behind the delimiter of encapsulated pixel data (PS3.5, A.4) whose items begin at `position`."""
    while True:
        if position + 8 > base + len(data):
            if file is None or position + 8 > size:
                raise Unusual
            base, data = position, _read(file, position, _MORE, size)
            if len(data) < 8:
                raise Unusual
        tag, length = implicit_at(data, position - base)
        position += 8
        if tag == SEQUENCE_END and length == 0:
            return position
        if tag != ITEM or length == UNDEFINED:
            raise Unusual
        position += length
