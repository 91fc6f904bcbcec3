"""What lies below the mirror's directories and is no file that is held: whose is it?

    misplaced    the bytes of an instance whose own place is empty
    unrecorded   an instance of a known series, at the name it should have, that the ledger lacks
    foreign      anything else

What lies in the root, and folders there that no collection claims, are not ours: they are counted, and left alone.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from mirror.check import check_instance, read_header
from mirror.layout import ROOT_FILES, Layout
from mirror.ledger import Ledger, Whereabouts
from mirror.model import Finding, FindingKind, Header
from mirror.verification.files import Entry, entries, sha256_of


@dataclass(frozen=True, slots=True)
class Stray:
    """Something that lies where nothing is held; `owner` is where it belongs, for what is misplaced or unrecorded."""

    finding: Finding
    directory: str
    name: str
    owner: Whereabouts | None = None
    sha256: bytes | None = None


class Strays:
    """Finds files without rows. Memory does not grow with their number, but for the entries of one directory."""

    def __init__(self, root: Path, ledger: Ledger, layout: Layout, stop: anyio.Event) -> None:
        self._root = root
        self._ledger = ledger
        self._layout = layout
        self._stop = stop
        #: Entries of the root that are none of the mirror's.
        self.not_ours = 0

    async def walk(self) -> AsyncIterator[Stray]:
        """Every stray in directories that the mirror claims and that are no series' own."""
        top = await self._entries("")
        folders = {e.name: e for e in top if e.name != ".mirror" and e.name.casefold() not in ROOT_FILES}
        claimed = await self._ledger.run(self._ledger.claimed_directories, [*folders])
        self.not_ours = len(folders.keys() - claimed.keys())
        pending = [name for name, own in claimed.items() if not own]
        for name in claimed:
            if folders[name].is_file:
                yield _foreign("", folders[name], "a file stands where a directory of the mirror belongs")
        while pending and not self._stop.is_set():
            directory = pending.pop()
            found = await self._entries(directory)
            below = {f"{directory}/{entry.name}": entry for entry in found}
            claimed = await self._ledger.run(self._ledger.claimed_directories, [*below])
            for path, entry in below.items():
                if path not in claimed:
                    async for stray in self.judge(directory, [entry]):
                        yield stray
                elif entry.is_file:
                    yield _foreign(directory, entry, "a file stands where a directory of the mirror belongs")
                elif not claimed[path]:
                    pending.append(path)

    async def judge(self, directory: str, found: Sequence[Entry]) -> AsyncIterator[Stray]:
        """What these entries of a directory are; of a directory among them, all that is in it."""
        pending = [(directory, entry) for entry in found]
        while pending and not self._stop.is_set():
            folder, entry = pending.pop()
            if entry.is_file:
                yield await self._judge(folder, entry)
            elif entry.what == "a directory":
                path = f"{folder}/{entry.name}"
                pending += [(path, below) for below in await self._entries(path)]
            else:
                yield _foreign(folder, entry, f"{entry.what}, and no file of the mirror")

    async def _entries(self, directory: str) -> list[Entry]:
        """What lies in a directory; nothing where it cannot be read: its files are found to be missing."""

        def read() -> list[Entry]:
            try:
                return sorted(entries(self._root / directory), key=lambda entry: entry.name, reverse=True)
            except OSError:
                return []

        return await anyio.to_thread.run_sync(read)

    async def _judge(self, directory: str, entry: Entry) -> Stray:
        path = self._root / directory / entry.name
        header = await anyio.to_thread.run_sync(_header_of, path)
        if header is None:
            return _foreign(directory, entry, "no DICOM file, and none of the mirror's")
        uid = header.sop_instance_uid
        owner = await self._ledger.run(self._ledger.whereabouts, header.series_instance_uid, uid)
        if owner is None:
            return _foreign(directory, entry, f"of a series that the mirror has not, {header.series_instance_uid}")
        sha256 = await anyio.to_thread.run_sync(sha256_of, path)
        known = sha256 is not None and owner.sha256 == sha256
        if owner.name is not None:
            place = f"{owner.directory}/{owner.name}"
            if known and await anyio.to_thread.run_sync(_is_empty, self._root / place):
                return _stray(FindingKind.FILE_MISPLACED, directory, entry, f"its place is {place}", owner, sha256)
            return _foreign(directory, entry, f"a copy of {uid}, whose place is {place}")
        here = directory == owner.directory and self._layout.may_name(entry.name, uid)
        if here and (known or (owner.sha256 is None and await anyio.to_thread.run_sync(_is_sound, path, owner, uid))):
            said = "an instance that the ledger lacks"
            return _stray(FindingKind.FILE_UNRECORDED, directory, entry, said, owner, sha256)
        if known:
            said = f"its place is in {owner.directory}"
            return _stray(FindingKind.FILE_MISPLACED, directory, entry, said, owner, sha256)
        return _foreign(directory, entry, f"calls itself {uid}, and nothing says that it is")


def _header_of(path: Path) -> Header | None:
    try:
        with path.open("rb") as file:
            return read_header(file, file.seek(0, 2))[0]
    except (OSError, ValueError):
        return None


def _is_sound(path: Path, owner: Whereabouts, sop_instance_uid: str) -> bool:
    try:
        with path.open("rb") as file:
            return check_instance(file, file.seek(0, 2), owner.series, sop_instance_uid).verdict.ok
    except OSError:
        return False


def _is_empty(place: Path) -> bool:
    return not os.path.lexists(place)


def _foreign(directory: str, entry: Entry, detail: str) -> Stray:
    return _stray(FindingKind.FILE_FOREIGN, directory, entry, detail)


def _stray(
    kind: FindingKind,
    directory: str,
    entry: Entry,
    detail: str,
    owner: Whereabouts | None = None,
    sha256: bytes | None = None,
) -> Stray:
    path = f"{directory}/{entry.name}" if directory else entry.name
    finding = Finding(
        kind=kind,
        detail=detail,
        collection=owner.series.collection if owner else None,
        series_instance_uid=owner.series.series_instance_uid if owner else None,
        sop_instance_uid=owner.sop_instance_uid if owner else None,
        path=os.fsencode(path).decode("utf-8", "replace"),
    )
    return Stray(finding, directory, entry.name, owner, sha256)
