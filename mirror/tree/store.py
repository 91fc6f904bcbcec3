"""The contract between the data path and where objects lie.

A body on its way in is a `Part`: it has no name in the tree, and nobody who looks at the tree sees it. It becomes an
object by `publish`, in one step that either happens whole or not at all; anything else ends in `quarantine` or
`discard`. Whoever holds a part ends it by one of the three.

Methods that are not coroutines block: call them in a thread. Every failure is a StoreError that names the path.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from mirror.model import Digest, Finding


class Part(Protocol):
    """A body on its way in. Small ones stay in memory; how large a one may get does not depend on memory."""

    @property
    def size(self) -> int:
        """Bytes so far."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        ...

    async def finish(self) -> None:
        """Note that no more bytes come; from now on the part can be read."""
        ...

    def put(self, chunk: bytes | memoryview) -> None:
        """As `write`, for who is in a thread already."""
        ...

    def end(self) -> None:
        """As `finish`, for who is in a thread already."""
        ...

    def open(self) -> AbstractContextManager[BinaryIO | memoryview]:
        """The bytes of a finished part: a seekable file, or all of them, good inside the block."""
        ...

    def digest(self) -> Digest:
        """Length, SHA-256 and MD5 of the bytes."""
        ...

    def publish(self, directory: str, name: str) -> None:
        """Give the object its place, atomically; what lay there is replaced. The part is used up."""
        ...

    def quarantine(self, folder: str, name: str, findings: tuple[Finding, ...]) -> None:
        """Set the bytes aside with the reasons, for a person to look at. The part is used up."""
        ...

    def discard(self) -> None:
        """Forget the bytes. Safe to repeat, and after publish or quarantine."""
        ...


class Store(Protocol):
    """A tree of objects below one root. Paths are relative, with forward slashes, already made safe by layout."""

    def part(self) -> Part:
        """A new, empty part."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """A path for a file that is gone when the block ends (a zip on its way in)."""
        ...

    def names(self, directory: str) -> dict[str, int]:
        """Name and size of the objects directly in a directory; empty where there is none."""
        ...

    def open(self, directory: str, name: str) -> BinaryIO:
        """An object, for reading."""
        ...

    def rename(self, directory: str, old: str, new: str) -> None:
        """Give an object another name in its directory; what had that name is replaced."""
        ...

    def move(self, directory: str, name: str, to: tuple[str, str]) -> bool:
        """Give an object that lies elsewhere below the root its place, a directory and a name; False where that is
        taken.
        """
        ...

    def set_aside(self, directory: str, name: str, findings: tuple[Finding, ...]) -> None:
        """Move an object that is not what its place says to quarantine, beside what was set aside there before."""
        ...

    def retire(self, directory: str, name: str, run: str) -> str:
        """Keep an object's bytes among what is retired, by this run; it also keeps its place until it is replaced or
        removed. Where the bytes lie now comes back, below the root. Safe to repeat.
        """
        ...

    def remove(self, directory: str, name: str) -> None:
        """Take an object out of the tree, and directories that are empty then. Safe to repeat."""
        ...

    def retired(self) -> dict[str, bool]:
        """What there is where retired bytes lie, by name, in order: True for a folder, which a run has made."""
        ...

    def retired_size(self, run: str) -> tuple[int, int]:
        """How many files a run's retired bytes are, and how many bytes."""
        ...

    def drop_retired(self, run: str) -> None:
        """Delete what a run has retired, for good. Links are deleted, never followed. Safe to repeat."""
        ...

    def settle(self, directory: str) -> None:
        """Make the names in a directory survive a power cut, as far as the settings ask for it."""
        ...

    def free(self) -> int | None:
        """Bytes that can still be written; None where that has no meaning."""
        ...

    def probe(self) -> float:
        """Seconds that it takes to place a small object: measured by doing it, out of sight."""
        ...

    def sweep(self) -> int:
        """Remove what an earlier run left half-written; how many files that were. Only while holding the lock."""
        ...

    def sweep_of(self, pid: int) -> None:
        """Remove what a process of this run that has ended left half-written. Safe to repeat."""
        ...

    def twin(self) -> Callable[[], Store]:
        """What makes a store of the same place in another process; it can be pickled."""
        ...
