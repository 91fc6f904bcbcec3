"""A body on its way into a tree on a POSIX file system: in memory while it is small, in a file of its own otherwise."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from mirror.errors import store_errors
from mirror.model import Digest, Finding
from mirror.threads import Threads

#: Bodies up to this size stay in memory until they are placed; larger ones go to disk in blocks of it.
BLOCK = 1024 * 1024
#: Most bodies need no more than this.
SMALL = 128 * 1024
#: Large blocks that may be out at a time: more than bodies are under way with the usual settings. A body that gets none
#: goes to disk in small ones, so that memory does not grow with the connections.
_LARGE = 32
#: Blocks that are kept for the next bodies.
_KEPT = 64


class Buffers:
    """Blocks of memory that are used again: memory that is touched for the first time costs more than the copy into it.

    Blocks are of SMALL or BLOCK bytes; of the latter there are so many at most. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[memoryview]] = {SMALL: [], BLOCK: []}
        self._lock = threading.Lock()
        self._large = 0

    def take(self, size: int) -> memoryview:
        """A block of that size, of anything; a small one where all large ones are out."""
        with self._lock:
            if size == BLOCK:
                if self._large < _LARGE:
                    self._large += 1
                else:
                    size = SMALL
            free = self._free[size]
            if free:
                return free.pop()
        return memoryview(bytearray(size))

    def give(self, block: memoryview) -> None:
        """Take back a block that nobody looks at any more."""
        with self._lock:
            self._large -= len(block) == BLOCK
            free = self._free[len(block)]
            if len(free) < _KEPT:
                free.append(block)


class Places(Protocol):
    """What a part asks of the store that it is on its way into."""

    @property
    def fsync(self) -> bool:
        """Whether files are flushed before they are named."""
        ...

    @property
    def writers(self) -> Threads:
        """Who writes the blocks of large bodies."""
        ...

    def new_name(self) -> str:
        """Where a part may lie."""
        ...

    def place(self, source: str, target: str) -> None:
        """Rename a file into its place."""
        ...

    def target(self, directory: str, name: str) -> str:
        """The path of an object."""
        ...

    def quarantine_path(self, folder: str, name: str) -> Path:
        """The path of a body that was refused."""
        ...


class LocalPart:
    """See tree.store.Part."""

    def __init__(self, store: Places, buffers: Buffers) -> None:
        self._store = store
        self._buffers = buffers
        #: The bytes that are not on disk yet: the first `_fill` of the block.
        self._block: memoryview | None = None
        self._fill = 0
        #: A string: each object passes here, and making a Path costs as much as the rename.
        self._path: str | None = None
        self._handle: int | None = None
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashed = 0
        self.size = 0

    async def write(self, chunk: bytes) -> None:
        """See Part."""
        begin = 0
        while begin < len(chunk):
            if not self._has_room(len(chunk) - begin):
                await self._store.writers.run(self._spill)
            begin = self._take(chunk, begin)

    async def finish(self) -> None:
        """See Part."""
        if self._handle is not None:
            await self._store.writers.run(self._close)

    def put(self, chunk: bytes | memoryview) -> None:
        """See Part."""
        begin = 0
        while begin < len(chunk):
            if not self._has_room(len(chunk) - begin):
                self._spill()
            begin = self._take(chunk, begin)

    def end(self) -> None:
        """See Part."""
        if self._handle is not None:
            self._close()

    def _has_room(self, wanted: int) -> bool:
        """Whether a byte at least of so many more finds room in memory; a small block grows for it where it can."""
        block = self._block
        if block is None:
            block = self._block = self._buffers.take(SMALL if wanted <= SMALL else BLOCK)
        elif len(block) == SMALL and self._fill + wanted > SMALL:
            larger = self._buffers.take(BLOCK)
            larger[: self._fill] = block[: self._fill]
            self._buffers.give(block)
            block = self._block = larger
        return self._fill < len(block)

    def _take(self, chunk: bytes | memoryview, begin: int) -> int:
        """Take what the block has room for; where the rest begins."""
        assert self._block is not None
        end = min(len(chunk), begin + len(self._block) - self._fill)
        fill = self._fill + end - begin
        self._block[self._fill : fill] = chunk if end - begin == len(chunk) else memoryview(chunk)[begin:end]
        self.size += end - begin
        self._fill = fill
        return end

    def _spill(self) -> None:
        """Write and hash what is in memory. Blocks; the caller waits for the end of it, whatever happens."""
        if self._path is None:
            self._path = self._store.new_name()
        with store_errors(self._path):
            if self._handle is None:
                self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            self._write(self._handle)
        self._hash()
        self._fill = 0

    def _close(self) -> None:
        self._spill()
        with store_errors(self._path):
            handle, self._handle = self._handle, None
            assert handle is not None
            try:
                if self._store.fsync:
                    os.fsync(handle)
            finally:
                os.close(handle)

    def _write(self, handle: int) -> None:
        written = 0
        while self._block is not None and written < self._fill:
            written += os.write(handle, self._block[written : self._fill])

    def _hash(self) -> None:
        if self._block is not None:
            bytes_ = self._block[: self._fill]
            self._sha256.update(bytes_)
            self._md5.update(bytes_)
            self._hashed += self._fill

    @contextmanager
    def open(self) -> Iterator[BinaryIO | memoryview]:
        """See Part."""
        if self._path is None:
            yield self._block[: self._fill] if self._block is not None else memoryview(b"")
            return
        with store_errors(self._path), open(self._path, "rb") as file:  # noqa: PTH123 - a string: a Path costs as much as the rename
            yield file

    def digest(self) -> Digest:
        """See Part."""
        if self._hashed < self.size:
            self._hash()
        return Digest(bytes=self.size, sha256=self._sha256.hexdigest(), md5=self._md5.hexdigest())

    def publish(self, directory: str, name: str) -> None:
        """See Part."""
        self.move(self._store.target(directory, name))

    def quarantine(self, folder: str, name: str, findings: tuple[Finding, ...]) -> None:
        """See Part."""
        target = self._store.quarantine_path(folder, name)
        with store_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.with_name(target.name + ".txt").write_text(reasons_of(findings), encoding="utf-8")
        self.move(str(target))

    def move(self, target: str) -> None:
        """Give the bytes this path, by one rename. The part is used up."""
        if self._path is None:
            self._path = self._store.new_name()
            with store_errors(self._path):
                handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                try:
                    self._write(handle)
                    if self._store.fsync:
                        os.fsync(handle)
                finally:
                    os.close(handle)
        self._store.place(self._path, target)
        self._path = None
        self._release()

    def discard(self) -> None:
        """See Part."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108 - a string, as above
            self._path = None
        self._release()

    def _release(self) -> None:
        block, self._block, self._fill = self._block, None, 0
        if block is not None:
            self._buffers.give(block)


def reasons_of(findings: tuple[Finding, ...]) -> str:
    """What lies beside bytes that were refused or set aside: a line per finding."""
    return "".join(f"{finding}\n" for finding in findings)
