"""Is this the object that was asked for, and does the series add up? Bad bytes are a Verdict, never an exception.

An instance is checked before it has a place in the tree: its length, its DICOM preamble (PS3.10, 7.1), whether the
data set ends where the file ends, and the identity in its header. A series is checked when its last instance is in:
number of objects, their bytes, the set of UIDs, and where the archive has one, its digest.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

import pydicom
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from mirror.model import Digest, Finding, FindingKind, Header, Series, SeriesSize, Verdict

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
#: An IS has twelve characters at most (PS3.5, 6.2).
_NO_NUMBER = 10**12
_PIXEL_DATA = (0x7FE0, 0x0010)
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


@dataclass(frozen=True, slots=True)
class Checked:
    """What an instance's header says (None where it could not be read) and the verdict on it."""

    header: Header | None
    verdict: Verdict


def check_instance(
    file: BinaryIO, size: int, series: Series, sop_instance_uid: str | None = None, promised: int | None = None
) -> Checked:
    """Check one file against what was asked for. `file` is seekable; nothing is written.

    `sop_instance_uid` None: any instance of the series will do (a member of a zip). `promised` is the length the
    transport announced. A StudyInstanceUID or PatientID that differs from the archive's row is a tolerable finding.
    """
    found: list[Finding] = []

    def find(kind: FindingKind, detail: str) -> None:
        uid = sop_instance_uid or (header.sop_instance_uid if header else None)
        found.append(
            Finding(
                kind=kind, detail=detail, series_instance_uid=series.series_instance_uid, sop_instance_uid=uid,
                collection=series.collection,
            )
        )  # fmt: skip

    header: Header | None = None
    if promised is not None and size != promised:
        find(FindingKind.TRUNCATED, f"{size} bytes of {promised} came")
        return Checked(None, Verdict(tuple(found)))
    try:
        header, end = read_header(file, size)
    except ValueError as error:
        find(FindingKind.NOT_DICOM, str(error))
        return Checked(None, Verdict(tuple(found)))
    if sop_instance_uid is not None and header.sop_instance_uid != sop_instance_uid:
        find(FindingKind.WRONG_INSTANCE, f"the header says SOPInstanceUID {header.sop_instance_uid or '(none)'}")
    if header.series_instance_uid != series.series_instance_uid:
        find(FindingKind.WRONG_SERIES, f"the header says SeriesInstanceUID {header.series_instance_uid or '(none)'}")
    if end > size:
        find(FindingKind.TRUNCATED, f"the data set needs at least {end} bytes, the file has {size}")
    if series.study_instance_uid and header.study_instance_uid != series.study_instance_uid:
        find(
            FindingKind.OTHER_STUDY,
            f"the header says StudyInstanceUID {header.study_instance_uid or '(none)'},"
            f" the archive {series.study_instance_uid}",
        )
    if header.patient_id != series.patient_id:
        find(
            FindingKind.OTHER_PATIENT,
            f"the header says PatientID {header.patient_id!r}, the archive {series.patient_id!r}",
        )
    return Checked(header, Verdict(tuple(found)))


def read_header(file: BinaryIO, size: int) -> tuple[Header, int]:
    """Identity from a DICOM file's header, and how many bytes its data set needs at least (more than `size`: cut).

    Pixel data are stepped over, not read. Raises ValueError for what is no DICOM file (PS3.10), and the OSError of a
    file that cannot be read.
    """
    file.seek(0)
    start = file.read(_PREAMBLE)
    if start[128:] != b"DICM":
        raise ValueError(f"no DICOM preamble; it begins with {start[:40]!r}" if start else "the file is empty")
    file.seek(0)
    try:
        return _read_header(file, size)
    except RecursionError as error:
        raise ValueError("the header cannot be read: sequences in sequences without end") from error
    except Exception as error:  # pydicom lets zlib's, codecs' and its own errors through on damaged input
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; pydicom's own have no number
        raise ValueError(f"the header cannot be read: {type(error).__name__}: {error}") from error


def _read_header(file: BinaryIO, size: int) -> tuple[Header, int]:
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
        acquisition_number=_number(dataset, "AcquisitionNumber"),
        instance_number=_number(dataset, "InstanceNumber"),
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


def _number(dataset: pydicom.Dataset, name: str) -> int | None:
    try:
        number = int(_text(dataset, name))
    except ValueError:
        return None
    return number if abs(number) < _NO_NUMBER else None


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


def check_series(
    series: Series,
    size: SeriesSize | None,
    *,
    listed: int,
    held: int,
    held_bytes: int,
    unlisted: int,
    digests: tuple[str, str] | None = None,
) -> Verdict:
    """Does a series add up? `digests` is (ours, the archive's) by getMD5Hierarchy, None where it gives none.

    Complete means: everything listed is held and nothing else, and the archive's count and bytes are ours.
    """
    found: list[Finding] = []

    def find(kind: FindingKind, detail: str) -> None:
        found.append(
            Finding(
                kind=kind, detail=detail, collection=series.collection, series_instance_uid=series.series_instance_uid
            )
        )

    if held < listed:
        find(FindingKind.INSTANCES_MISSING, f"{listed - held} of {listed} listed instances are not held")
    if unlisted:
        find(FindingKind.UNLISTED_INSTANCE, f"{unlisted} held instances are not in the archive's list")
    if size is None:
        find(FindingKind.SIZE_UNKNOWN, "getSeriesSize does not know the series")
    else:
        if size.object_count != listed:
            find(FindingKind.COUNT_DIFFERS, f"getSeriesSize says {size.object_count} objects, the list has {listed}")
        if size.total_size_in_bytes is None:
            find(FindingKind.SIZE_UNKNOWN, "getSeriesSize gives no TotalSizeInBytes")
        elif held == listed and size.total_size_in_bytes != held_bytes:
            find(
                FindingKind.SIZE_DIFFERS, f"getSeriesSize says {size.total_size_in_bytes} bytes, {held_bytes} are held"
            )
    if held == listed and digests is not None and digests[0] != digests[1]:
        find(FindingKind.DIGEST_DIFFERS, f"getMD5Hierarchy says {digests[1]}, the held files give {digests[0]}")
    return Verdict(tuple(found))


def series_digest(md5s: Iterable[str]) -> str:
    """The archive's digest of a series: MD5 over its files' MD5s (hex, ascending) joined (getMD5Hierarchy)."""
    digest = hashlib.md5(usedforsecurity=False)
    for md5 in md5s:
        digest.update(md5.encode())
    return digest.hexdigest()


def digest_of(file: BinaryIO) -> Digest:
    """Length, SHA-256 and MD5 of a file from its start; read in blocks."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    file.seek(0)
    while block := file.read(1024 * 1024):
        sha256.update(block)
        md5.update(block)
        size += len(block)
    return Digest(bytes=size, sha256=sha256.hexdigest(), md5=md5.hexdigest())
