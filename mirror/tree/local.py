"""A store on a POSIX file system.

    <root>/.mirror/tmp/          bodies on their way in; swept at the start of a run
    <root>/.mirror/quarantine/   <SeriesInstanceUID>/<SOPInstanceUID>.dcm and .txt with the reasons

Publishing is: all bytes written, flushed (setting sync.fsync), then one rename. Parts lie in one folder, not beside
their target: no tool that walks the tree meets one, and a sweep is one listing whatever the tree's size.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import aiofiles
import anyio
import anyio.to_thread

from mirror.errors import store_errors
from mirror.model import Digest, Finding

#: Bodies up to this size are written in one thread hop together with their check; larger ones stream in such blocks.
BLOCK = 1024 * 1024

_NUMBERS = count()


class LocalStore:
    """See tree.store.Store. Parts may be used side by side; one run at a time (the ledger's lock) uses a root."""

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self.root = root
        self._fsync = fsync
        self._tmp = root / ".mirror" / "tmp"
        self._quarantine = root / ".mirror" / "quarantine"
        with store_errors(self._tmp):
            self._tmp.mkdir(parents=True, exist_ok=True)

    def part(self) -> LocalPart:
        """See Store."""
        return LocalPart(self)

    @property
    def scratch_folder(self) -> Path:
        """Where parts and other files that have no name in the tree lie."""
        return self._tmp

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """See Store."""
        path = self.new_path()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def names(self, directory: str) -> dict[str, int]:
        """See Store."""
        path = self.root / directory
        with store_errors(path):
            try:
                entries = list(os.scandir(path))
            except (FileNotFoundError, NotADirectoryError):
                return {}
            return {e.name: e.stat(follow_symlinks=False).st_size for e in entries if e.is_file(follow_symlinks=False)}

    def open(self, directory: str, name: str) -> BinaryIO:
        """See Store."""
        path = self.root / directory / name
        with store_errors(path):
            return path.open("rb")

    def rename(self, directory: str, old: str, new: str) -> None:
        """See Store."""
        path = self.root / directory
        with store_errors(path / new):
            (path / old).replace(path / new)

    def set_aside(self, directory: str, name: str, findings: tuple[Finding, ...]) -> None:
        """See Store."""
        path = self.root / directory / name
        target = self._quarantine / "foreign" / directory
        with store_errors(path):
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{name}.txt").write_text(_reasons(findings), encoding="utf-8")
            path.replace(target / name)

    def settle(self, directory: str) -> None:
        """See Store."""
        if not self._fsync:
            return
        path = self.root / directory
        # The directory's own name was made in its parent, and so on up to the root.
        for folder in (path, *path.parents):
            if folder.is_dir():
                with store_errors(folder):
                    handle = os.open(folder, os.O_RDONLY)
                    try:
                        os.fsync(handle)
                    finally:
                        os.close(handle)
            if folder == self.root:
                break

    def free(self) -> int:
        """See Store."""
        with store_errors(self.root):
            return shutil.disk_usage(self.root).free

    def sweep(self) -> int:
        """See Store."""
        with store_errors(self._tmp):
            left = list(self._tmp.iterdir())
        for path in left:
            with store_errors(path):
                path.unlink(missing_ok=True)
        return len(left)

    # For LocalPart

    def new_path(self) -> Path:
        """A name in the folder of parts that no other part of this process has."""
        return self._tmp / f"{os.getpid()}-{next(_NUMBERS)}"

    def place(self, source: Path, target: Path) -> None:
        """Rename a written and flushed file into its place."""
        with store_errors(target):
            try:
                source.replace(target)
            except FileNotFoundError:
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)

    def target(self, directory: str, name: str) -> Path:
        """The path of an object."""
        return self.root / directory / name

    def quarantine_path(self, folder: str, name: str) -> Path:
        """The path of a body that was refused."""
        return self._quarantine / folder / name

    @property
    def fsync(self) -> bool:
        """Whether files are flushed before they are named."""
        return self._fsync


class LocalPart:
    """See tree.store.Part."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._pending = bytearray()
        self._path: Path | None = None
        self._file: Any = None
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashed = 0
        self.size = 0

    async def write(self, chunk: bytes) -> None:
        """See Part."""
        self._pending += chunk
        self.size += len(chunk)
        if len(self._pending) >= BLOCK:
            await self._spill()

    async def finish(self) -> None:
        """See Part."""
        if self._file is None:
            return
        await self._spill()
        with store_errors(self._path), anyio.CancelScope(shield=True):
            await self._file.flush()
            if self._store.fsync:
                await anyio.to_thread.run_sync(os.fsync, self._file.fileno())
            await self._file.close()
        self._file = None

    async def _spill(self) -> None:
        block = bytes(self._pending)
        self._pending.clear()
        if self._path is None:
            self._path = self._store.new_path()
        # Shielded: a thread goes on when its caller is cancelled, and would make the file behind the back of `discard`.
        with store_errors(self._path), anyio.CancelScope(shield=True):
            if self._file is None:
                self._file = await aiofiles.open(self._path, "xb")
            await self._file.write(block)
        await anyio.to_thread.run_sync(self._hash, block)

    def _hash(self, block: bytes | bytearray) -> None:
        self._sha256.update(block)
        self._md5.update(block)
        self._hashed += len(block)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """See Part."""
        if self._path is None:
            yield io.BytesIO(self._pending)
            return
        with store_errors(self._path), self._path.open("rb") as file:
            yield file

    def digest(self) -> Digest:
        """See Part."""
        if self._hashed < self.size:
            self._hash(self._pending)
        return Digest(bytes=self.size, sha256=self._sha256.hexdigest(), md5=self._md5.hexdigest())

    def publish(self, directory: str, name: str) -> None:
        """See Part."""
        self._move(self._store.target(directory, name))

    def quarantine(self, folder: str, name: str, findings: tuple[Finding, ...]) -> None:
        """See Part."""
        target = self._store.quarantine_path(folder, name)
        with store_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.with_name(target.name + ".txt").write_text(_reasons(findings), encoding="utf-8")
        self._move(target)

    def _move(self, target: Path) -> None:
        if self._path is None:
            self._path = self._store.new_path()
            with store_errors(self._path), self._path.open("xb") as file:
                file.write(self._pending)
                if self._store.fsync:
                    file.flush()
                    os.fsync(file.fileno())
        self._store.place(self._path, target)
        self._path = None
        self._pending.clear()

    def discard(self) -> None:
        """See Part."""
        if self._file is not None:
            # aiofiles closes in a thread; here there may be no loop left to wait in.
            self._file._file.close()  # noqa: SLF001 - its public close is a coroutine
            self._file = None
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._path = None
        self._pending.clear()


def _reasons(findings: tuple[Finding, ...]) -> str:
    return "".join(f"{finding}\n" for finding in findings)
