"""Is this the object that was asked for, and does the series add up? Bad bytes are a Verdict, never an exception.

An instance is checked before it has a place in the tree: its length, its DICOM preamble (PS3.10, 7.1), whether the
data set ends where the file ends, and the identity in its header. A series is checked when its last instance is in:
number of objects, their bytes, the set of UIDs, and where the archive has one, its digest.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from msgspec import Struct

from mirror.identity import HEAD, Bytes, scan
from mirror.model import Digest, Finding, FindingKind, Header, Series, SeriesSize, Verdict

_PREAMBLE = 132
_NOTHING_FOUND = Verdict()


class Checked(Struct, frozen=True):
    """What an instance's header says (None where it could not be read) and the verdict on it."""

    header: Header | None
    verdict: Verdict


def check_instance(
    file: BinaryIO | Bytes, size: int, series: Series, sop_instance_uid: str | None = None, promised: int | None = None
) -> Checked:
    """Check one file against what was asked for. `file` is seekable, or all of its bytes; nothing is written.

    `sop_instance_uid` None: any instance of the series will do (a member of a zip). `promised` is the length the
    transport announced. A StudyInstanceUID or PatientID that differs from the archive's row is a tolerable finding.
    """
    if promised is not None and size != promised:
        return _found(None, series, sop_instance_uid, (FindingKind.TRUNCATED, f"{size} bytes of {promised} came"))
    try:
        header, end = read_header(file, size)
    except ValueError as error:
        return _found(None, series, sop_instance_uid, (FindingKind.NOT_DICOM, str(error)))
    if (
        (sop_instance_uid is None or header.sop_instance_uid == sop_instance_uid)
        and header.series_instance_uid == series.series_instance_uid
        and end <= size
        and (not series.study_instance_uid or header.study_instance_uid == series.study_instance_uid)
        and header.patient_id == series.patient_id
    ):
        return Checked(header, _NOTHING_FOUND)
    return _found(header, series, sop_instance_uid, *_differences(header, end, size, series, sop_instance_uid))


def _differences(
    header: Header, end: int, size: int, series: Series, sop_instance_uid: str | None
) -> Iterator[tuple[FindingKind, str]]:
    if sop_instance_uid is not None and header.sop_instance_uid != sop_instance_uid:
        yield FindingKind.WRONG_INSTANCE, f"the header says SOPInstanceUID {header.sop_instance_uid or '(none)'}"
    if header.series_instance_uid != series.series_instance_uid:
        yield FindingKind.WRONG_SERIES, f"the header says SeriesInstanceUID {header.series_instance_uid or '(none)'}"
    if end > size:
        yield FindingKind.TRUNCATED, f"the data set needs at least {end} bytes, the file has {size}"
    if series.study_instance_uid and header.study_instance_uid != series.study_instance_uid:
        yield (
            FindingKind.OTHER_STUDY,
            f"the header says StudyInstanceUID {header.study_instance_uid or '(none)'},"
            f" the archive {series.study_instance_uid}",
        )
    if header.patient_id != series.patient_id:
        yield (
            FindingKind.OTHER_PATIENT,
            f"the header says PatientID {header.patient_id!r}, the archive {series.patient_id!r}",
        )


def _found(
    header: Header | None, series: Series, sop_instance_uid: str | None, *differences: tuple[FindingKind, str]
) -> Checked:
    uid = sop_instance_uid or (header.sop_instance_uid if header else None)
    findings = (
        Finding(
            kind=kind, detail=detail, series_instance_uid=series.series_instance_uid, sop_instance_uid=uid,
            collection=series.collection,
        )
        for kind, detail in differences
    )  # fmt: skip
    return Checked(header, Verdict(tuple(findings)))


def read_header(file: BinaryIO | Bytes, size: int) -> tuple[Header, int]:
    """Identity from a DICOM file's header, and how many bytes its data set needs at least (more than `size`: cut).

    `file` is seekable, or all of its bytes. Pixel data are stepped over, not read. Raises ValueError for what is no
    DICOM file (PS3.10), and the OSError of a file that cannot be read.
    """
    opened: BinaryIO | None = None
    if isinstance(file, Bytes):
        start = file
    else:
        opened = file
        opened.seek(0)
        start = opened.read(HEAD)
    if start[128:_PREAMBLE] != b"DICM":
        raise ValueError(f"no DICOM preamble; it begins with {bytes(start[:40])!r}" if start else "the file is empty")
    try:
        if (header := scan(start, size, opened)) is not None:
            return header, size
        # It brings pydicom, which is large, and most runs meet no header that wants it.
        from mirror.unusual import read_by_pydicom

        return read_by_pydicom(io.BytesIO(start) if opened is None else opened, size)
    except ImportError:
        raise  # ours, and no word about the file
    except RecursionError as error:
        raise ValueError("the header cannot be read: sequences in sequences without end") from error
    except Exception as error:  # pydicom lets zlib's, codecs' and its own errors through on damaged input
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; pydicom's own have no number
        raise ValueError(f"the header cannot be read: {type(error).__name__}: {error}") from error


def check_series(
    series: Series,
    size: SeriesSize | None,
    *,
    listed: int,
    held: int,
    held_bytes: int,
    unlisted: int,
    doubted: int = 0,
    digests: tuple[str, str] | None = None,
) -> Verdict:
    """Does a series add up? `digests` is (ours, the archive's) by getMD5Hierarchy, None where it gives none.

    Complete means: everything listed is held and nothing else, and the archive's count and bytes are ours. `held`,
    `held_bytes` and ours are of what is listed; `unlisted` is held besides; `doubted` may have other bytes there now.
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
    if doubted:
        find(FindingKind.INSTANCE_DOUBTED, f"the archive may have other bytes for {doubted} held instances")
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
