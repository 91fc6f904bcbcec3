"""What lies on the disk, against what the ledger says of it: one directory, one file at a time. All of it blocks.

The tree is read here with the operating system's own calls and not through the store: a mirror has tens of millions of
small files, and what is done once for each of them decides how long a scrub takes. Nothing is written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from mirror.check import check_instance
from mirror.errors import StoreError
from mirror.ledger import HeldFile, HeldFiles
from mirror.model import TOLERABLE, Finding, FindingKind, Series

#: Files are read in such blocks; a smaller one is read and hashed in one go.
_BLOCK = 1024 * 1024
#: A link is not followed, and a pipe is not waited for.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Not the file's fault: another file would meet the same.
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_KINDS = {
    stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device", stat.S_IFCHR: "a device",
}  # fmt: skip


class Depth(StrEnum):
    """How closely files are looked at."""

    #: Presence and size.
    QUICK = "quick"
    #: SHA-256 of every file.
    SUMS = "sums"
    #: Also whose file it is by its DICOM header.
    DEEP = "deep"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that lies in a directory: its name, and whether it is a file, a directory, or something else."""

    name: str
    what: str

    @property
    def is_file(self) -> bool:
        """A regular file, not a link to one."""
        return self.what == "a file"


@dataclass(frozen=True, slots=True)
class Job:
    """Some files of a series that are looked at in one go; the first job of a series also lists its directory."""

    held: HeldFiles
    files: Sequence[HeldFile]
    first: bool


@dataclass(slots=True)
class Seen:
    """What came of a job."""

    job: Job
    damaged: list[tuple[Finding, HeldFile]] = field(default_factory=list)
    #: What lies in the directory and is no file that is held.
    strays: list[Entry] = field(default_factory=list)
    #: False: a stop came before all files were looked at.
    whole: bool = True
    files: int = 0
    bytes: int = 0


def look_at(root: Path, jobs: Sequence[Job], depth: Depth, stopped: Callable[[], bool]) -> list[Seen]:
    """Do some jobs, one file after the other until a stop."""
    block = memoryview(bytearray(0 if depth is Depth.QUICK else _BLOCK))
    return [_look_at(root / job.held.directory, job, depth, stopped, block) for job in jobs]


def entries(path: str | int | Path) -> Iterator[Entry]:
    """What lies directly in a directory, itself not followed where it is a link. Raises OSError."""
    with os.scandir(path) as found:
        for entry in found:
            # Most are files, and the directory itself says so.
            if entry.is_file(follow_symlinks=False):
                yield Entry(entry.name, "a file")
            else:
                yield Entry(entry.name, _kind_of(entry.stat(follow_symlinks=False).st_mode))


def sha256_of(path: Path) -> bytes | None:
    """A file's SHA-256; None where there is no file that can be read."""
    try:
        handle = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        return _sha256(handle, status.st_size, memoryview(bytearray(_BLOCK))) if stat.S_ISREG(status.st_mode) else None
    except OSError:
        return None
    finally:
        os.close(handle)


def finding_of(held: HeldFiles, file: HeldFile, kind: FindingKind, detail: str) -> Finding:
    """A finding about a file that is held."""
    return Finding(
        kind=kind,
        detail=detail,
        collection=held.series.collection,
        series_instance_uid=held.series.series_instance_uid,
        sop_instance_uid=file.sop_instance_uid,
        path=f"{held.directory}/{file.name}",
    )


def _look_at(path: Path, job: Job, depth: Depth, stopped: Callable[[], bool], block: memoryview) -> Seen:
    seen = Seen(job)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        _refuse_ours(error, path)
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        kind = FindingKind.FILE_MISSING if gone else FindingKind.FILE_UNREADABLE
        said = f"its directory: {error.strerror}"
        seen.damaged = [(finding_of(job.held, file, kind, said), file) for file in job.files]
        seen.files = len(job.files)
        return seen
    try:
        if job.first:
            names = {file.name for file in job.held.files}
            seen.strays = [entry for entry in entries(folder) if entry.name not in names]
        for file in job.files:
            if stopped():
                seen.whole = False
                break
            wrong = _differs(folder, path, file, depth, job.held.series, block)
            seen.files += 1
            if wrong is None:
                seen.bytes += file.bytes
            else:
                seen.damaged.append((finding_of(job.held, file, *wrong), file))
    except OSError as error:
        # The directory itself: what it would not tell is no file's finding.
        raise StoreError(f"{path}: {error.strerror}") from error
    finally:
        os.close(folder)
    return seen


def _differs(
    folder: int, path: Path, file: HeldFile, depth: Depth, series: Series, block: memoryview
) -> tuple[FindingKind, str] | None:
    """In what way a file is not the one that came."""
    handle = -1
    try:
        if depth is Depth.QUICK:
            status = os.stat(file.name, dir_fd=folder, follow_symlinks=False)
        else:
            handle = os.open(file.name, _FLAGS, dir_fd=folder)
            status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return FindingKind.FILE_UNREADABLE, f"it is {_kind_of(status.st_mode)} and no file"
        if status.st_size != file.bytes:
            return FindingKind.FILE_TRUNCATED, f"it has {status.st_size} bytes, {file.bytes} came"
        if depth is Depth.QUICK:
            return None
        digest = _sha256(handle, status.st_size, block)
        if digest != file.sha256:
            return FindingKind.FILE_CHANGED, f"its SHA-256 is {digest.hex()}, it came with {file.sha256.hex()}"
        return _contradicts(handle, file, series) if depth is Depth.DEEP else None
    except FileNotFoundError:
        return FindingKind.FILE_MISSING, "it is not there"
    except OSError as error:
        _refuse_ours(error, path / file.name)
        linked = error.errno == errno.ELOOP
        said = "it is a symbolic link and no file" if linked else f"it cannot be read: {error.strerror}"
        return FindingKind.FILE_UNREADABLE, said
    finally:
        if handle >= 0:
            os.close(handle)


def _sha256(handle: int, size: int, block: memoryview) -> bytes:
    if size <= len(block):
        got = os.readv(handle, [block[:size]]) if size else 0
        if got == size:
            return hashlib.sha256(block[:size]).digest()
        os.lseek(handle, 0, os.SEEK_SET)
    digest = hashlib.sha256()
    while got := os.readv(handle, [block]):
        digest.update(block[:got])
    return digest.digest()


def _contradicts(handle: int, file: HeldFile, series: Series) -> tuple[FindingKind, str] | None:
    """What a header says against the ledger's row of it, though the bytes are those that came."""
    with os.fdopen(handle, "rb", closefd=False) as body:
        verdict = check_instance(body, file.bytes, series, file.sop_instance_uid).verdict
    for finding in verdict.findings:
        # A data set that ends too early was vouched for by the archive's MD5 when it came.
        if finding.kind not in TOLERABLE and finding.kind is not FindingKind.TRUNCATED:
            return finding.kind, finding.detail
    return None


def _refuse_ours(error: OSError, path: Path) -> None:
    if error.errno in _OURS:
        raise StoreError(f"{path}: {error.strerror}") from error


def _kind_of(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a file")
