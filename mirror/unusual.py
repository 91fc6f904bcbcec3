"""A header by pydicom, where a file is not as plain as `identity` wants it: what every DICOM file can go through.

pydicom says what the header is; whether the data set ends where the file ends is for a walk over its elements, since
pydicom reads no further than the pixel data. Raises whatever pydicom does: `check` makes findings of that.
Imported when the first such file comes, for pydicom is large.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO, Literal, cast

import pydicom
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from mirror.identity import number
from mirror.model import Header

_PREAMBLE = 132
_TAGS = {
    name: Tag(name)
    for name in (
        "SOPClassUID",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "StudyInstanceUID",
        "PatientID",
        "SpecificCharacterSet",
        "AcquisitionNumber",
        "InstanceNumber",
    )
}
#: The last group that the tags above are of.
_LAST_GROUP = 0x0020
#: So much of a deflated data set is inflated for its header, and in such steps the rest is gone through.
_INFLATED = 8 * 1024 * 1024
_STEP = 256 * 1024
_UNDEFINED = 0xFFFFFFFF
#: Begins another character set in the middle of a text (PS3.5, 6.1.2.5.3).
_ESCAPE = b"\x1b"
_PIXEL_DATA = (0x7FE0, 0x0010)
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


def read_by_pydicom(file: BinaryIO, size: int) -> tuple[Header, int]:
    """As read_header, the way that every file can go; raises whatever pydicom does. For what `identity` leaves."""
    file.seek(0)
    try:
        dataset = pydicom.dcmread(
            cast("BinaryIO", _InSteps(file)), stop_before_pixels=True, specific_tags=list(_TAGS.values())
        )
    except _Deflated:
        return _read_deflated(file, size)
    walk = _Walk(file, size, little=bool(dataset.is_little_endian), implicit=bool(dataset.is_implicit_VR))
    return _identity(dataset), walk.end()


def _identity(dataset: pydicom.Dataset) -> Header:
    return Header(
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        series_instance_uid=_text(dataset, "SeriesInstanceUID"),
        study_instance_uid=_text(dataset, "StudyInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        sop_class_uid=_text(dataset, "SOPClassUID"),
        acquisition_number=number(_text(dataset, "AcquisitionNumber")),
        instance_number=number(_text(dataset, "InstanceNumber")),
    )


class _Deflated(Exception):
    """The data set that begins here is deflated, and was about to be inflated whole."""


class _InSteps:
    """A file that is never read to its end at once: pydicom does so only to inflate what may be a thousand times it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise _Deflated
        return self._file.read(size)


def _read_deflated(file: BinaryIO, size: int) -> tuple[Header, int]:
    """A deflated data set (PS3.5, A.5) from where the file stands, in bounded memory.

    Its first elements are identity enough; the rest is inflated and forgotten, for only its end says that it is whole.
    """
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    head = bytearray()
    while not inflate.eof:
        packed = inflate.unconsumed_tail or file.read(_STEP)
        inflated = inflate.decompress(packed, _STEP)
        if not packed and not inflated:
            break
        head += inflated[: _INFLATED - len(head)]

    def behind(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return tag.group > _LAST_GROUP

    dataset = read_dataset(
        io.BytesIO(head), is_implicit_VR=False, is_little_endian=True, stop_when=behind,
        specific_tags=list(_TAGS.values()),
    )  # fmt: skip
    return _identity(dataset), size if inflate.eof else size + 1


def _text(dataset: pydicom.Dataset, name: str) -> str:
    """An element's text without DICOM's padding; not validated, since the archive's bytes are kept as they are."""
    element = dataset.get_item(_TAGS[name])
    value = None if element is None else element.value
    if isinstance(value, bytes):
        if value.isascii() and _ESCAPE not in value:
            return value.decode("ascii").strip("\0 ")
        value = dataset[_TAGS[name]].value
    if isinstance(value, MultiValue):
        value = "\\".join(str(part) for part in value)
    return "" if value is None else str(value).strip("\0 ")


class _Walk:
    """Steps over the elements of a data set (PS3.5, 7.1) to see where it ends; values are not read.

    A position beyond `size` means that the file is cut. Sequences of undefined length are walked inside, items of
    encapsulated pixel data one by one (PS3.5, A.4). Whether VRs are explicit is seen from the data set itself: there
    are files whose transfer syntax says otherwise, and readers take them.
    """

    def __init__(self, file: BinaryIO, size: int, *, little: bool, implicit: bool) -> None:
        self._file = file
        self._size = size
        self._order: Literal["<", ">"] = "<" if little else ">"
        self._implicit = implicit

    def end(self) -> int:
        """Where the data set ends, or a position beyond the file."""
        # The file meta group is explicit little endian, whatever follows it (PS3.10, 7.1).
        position = self._elements(_PREAMBLE, "<", implicit=False, group=2)
        return self._elements(position, self._order, implicit=self._is_implicit(position, expected=self._implicit))

    def _is_implicit(self, position: int, *, expected: bool) -> bool:
        """Whether the element at `position` has no VR; what is expected where there is no element."""
        self._file.seek(position + 4)
        vr = self._file.read(2)
        return expected if len(vr) < 2 else not (vr.isalpha() and vr.isupper())

    def _elements(self, position: int, order: str, *, implicit: bool, group: int | None = None) -> int:
        """Over elements from `position`: to the file's end, or behind an item's delimiter, or to another group."""
        while position < self._size:
            self._file.seek(position)
            head = self._file.read(12)
            if len(head) < 8:
                # Zeros behind the data set are padding that some writers leave; anything else was cut.
                return self._size if not head.strip(b"\0") else position + 8
            tag = struct.unpack(order + "HH", head[:4])
            if group is not None and tag[0] != group:
                return position
            if tag == _ITEM_END:
                return position + 8
            vr = b"" if implicit else head[4:6]
            if implicit:
                length, position = struct.unpack(order + "L", head[4:8])[0], position + 8
            elif vr in _LONG_VRS:
                length, position = (*struct.unpack(order + "L", head[8:].ljust(4, b"\0")), position + 12)
            else:
                length, position = (*struct.unpack(order + "H", head[6:8]), position + 8)
            if length != _UNDEFINED:
                position += length
            elif tag == _PIXEL_DATA:
                position = self._items(position, order, nested=None)
            else:
                # Undefined length and VR UN: the items are implicit little endian (PS3.5, 6.2.2).
                position = self._items(position, "<" if vr == b"UN" else order, nested=implicit or vr == b"UN")
        return position

    def _items(self, position: int, order: str, *, nested: bool | None) -> int:
        """Over items to behind the sequence's delimiter. `nested`: their elements are implicit; None: fragments."""
        while position + 8 <= self._size:
            self._file.seek(position)
            *tag, length = struct.unpack(order + "HHL", self._file.read(8))
            position += 8
            if tuple(tag) == _SEQUENCE_END:
                return position
            if tuple(tag) != _ITEM or (length == _UNDEFINED and nested is None):
                return self._size + 1
            if length != _UNDEFINED:
                position += length
            else:
                implicit = bool(nested) or self._is_implicit(position, expected=False)
                position = self._elements(position, order, implicit=implicit)
        return max(position, self._size + 1)
