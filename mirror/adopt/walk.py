"""Every file below a folder, by its header, into the scratch file. Nothing is followed and nothing is changed.

Directories are open one per level and files are read in small batches, so memory does not grow with the folder.
Names say nothing: what a file is, its header says.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread

from mirror.adopt.report import NAMED, Adoption
from mirror.check import read_header
from mirror.ledger.found import FoundFiles
from mirror.model import Finding, FindingKind

_BATCH = 64
_READERS = 4
_PREAMBLE = 128
#: What the tools of the field leave beside images, in lower case.
_COMPANY = frozenset({"license", "metadata.csv", "md5hashes.csv", "dicomdir", "results.json"})
_COMPANY_SUFFIXES = (".json", ".csv", ".tcia", ".txt", ".xlsx", ".log")

#: Told of each file or folder that cannot be read, or is no DICOM though it says so.
Tell = Callable[[Finding], None]


@dataclass(slots=True)
class _Batch:
    """Files of one folder, and what reading them came to."""

    folder: Path
    names: list[str]
    rows: list[tuple[str, str, str, int]] = field(default_factory=list)
    refused: list[Finding] = field(default_factory=list)
    zips: int = 0
    other: list[str] = field(default_factory=list)


async def walk(folder: Path, root: Path, found: FoundFiles, adoption: Adoption, tell: Tell, stop: anyio.Event) -> None:
    """Note every DICOM file below `folder` in `found`, and count the others. The mirror at `root` is left out."""
    send, receive = anyio.create_memory_object_stream[_Batch](_READERS)

    async def read_on() -> None:
        async with receive.clone() as batches:
            async for batch in batches:
                await anyio.to_thread.run_sync(_read, batch)
                if batch.rows:
                    await found.run(found.add, batch.folder, batch.rows)
                _count(adoption, batch)
                for finding in batch.refused:
                    tell(finding)

    async with send, receive, anyio.create_task_group() as readers:
        for _ in range(_READERS):
            readers.start_soon(read_on)
        walked = _Walk(folder, root, adoption, tell)
        batches = walked.batches()
        with ExitStack() as opened:
            opened.callback(batches.close)
            while not stop.is_set():
                batch = await anyio.to_thread.run_sync(next, batches, None)
                if batch is None:
                    break
                await send.send(batch)
        await send.aclose()


class _Walk:
    """The files below a folder, batch by batch."""

    def __init__(self, folder: Path, root: Path, adoption: Adoption, tell: Tell) -> None:
        self._folder = folder
        self._adoption = adoption
        self._tell = tell
        # By number, since the mirror may be met under another name.
        self._left_out = _number(root) if root.exists() else None

    def batches(self) -> Generator[_Batch, None, None]:
        """Blocks."""
        pending: list[tuple[Path, Iterator[os.DirEntry[str]]]] = []
        names: list[str] = []
        self._enter(pending, self._folder)
        while pending:
            path, entries = pending[-1]
            entry = self._next(path, entries)
            below = None
            if entry is not None:
                if entry.is_symlink():
                    self._adoption.files += 1
                    self._adoption.links += 1
                elif entry.is_dir():
                    below = path / entry.name
                elif entry.is_file():
                    self._adoption.files += 1
                    names.append(entry.name)
            if names and (entry is None or below is not None or len(names) == _BATCH):
                yield _Batch(path, names)
                names = []
            if entry is None:
                pending.pop()
            elif below is not None:
                self._enter(pending, below)

    def _enter(self, pending: list[tuple[Path, Iterator[os.DirEntry[str]]]], path: Path) -> None:
        try:
            if _number(path) != self._left_out:
                pending.append((path, os.scandir(path)))
        except OSError as error:
            self._unreadable(path, error)

    def _next(self, path: Path, entries: Iterator[os.DirEntry[str]]) -> os.DirEntry[str] | None:
        try:
            return next(entries, None)
        except OSError as error:
            self._unreadable(path, error)
            return None

    def _unreadable(self, path: Path, error: OSError) -> None:
        self._adoption.refused += 1
        self._tell(unreadable(path, error))


def unreadable(path: Path, error: OSError) -> Finding:
    """The finding about a file or folder that the disk does not give."""
    return Finding(kind=FindingKind.FILE_UNREADABLE, detail=f"{path}: {error.strerror or error}")


def _number(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _read(batch: _Batch) -> None:
    """Read the headers of a batch. Blocks."""
    for name in batch.names:
        path = batch.folder / name
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                try:
                    header, end = read_header(file, size)
                    if end > size and not header.sop_instance_uid:
                        raise ValueError(f"cut off: it needs at least {end} bytes and has {size}")
                except ValueError as error:
                    file.seek(_PREAMBLE)
                    if file.read(4) == b"DICM" or name.lower().endswith(".dcm"):
                        said = f"{path}: {error}"
                        batch.refused.append(Finding(kind=FindingKind.NOT_DICOM, detail=said))
                    elif name.lower().endswith(".zip"):
                        batch.zips += 1
                    else:
                        batch.other.append(name)
                    continue
        except OSError as error:
            batch.refused.append(unreadable(path, error))
            continue
        if header.series_instance_uid and header.sop_instance_uid:
            batch.rows.append((header.series_instance_uid, header.sop_instance_uid, name, size))
        else:
            batch.other.append(name)  # DICOM, but no instance of a series: a DICOMDIR


def _count(adoption: Adoption, batch: _Batch) -> None:
    adoption.dicom += len(batch.rows)
    adoption.refused += len(batch.refused)
    adoption.zips += batch.zips
    adoption.other += len(batch.other)
    for name in batch.other:
        if name.lower() not in _COMPANY and not name.lower().endswith(_COMPANY_SUFFIXES):
            # The first by path, not by time: what is told must not depend on the order of the disk.
            bisect.insort(adoption.other_named, str(batch.folder / name))
            del adoption.other_named[NAMED:]
