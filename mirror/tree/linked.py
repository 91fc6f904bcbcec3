"""A file that lies elsewhere on the same disk, taken into a local store by a hard link: no byte is copied."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mirror.check import digest_of
from mirror.errors import store_errors
from mirror.model import Digest, Finding
from mirror.tree.local import LocalStore

#: What disks say that have no links, or no further one of this file from here.
NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})


def link_part(store: LocalStore, source: Path) -> LinkedPart | None:
    """A part that is `source` under a second name; None where the disk gives none. Blocks.

    Whoever writes into the file at `source` later writes into the object as well. Raises the OSError of a source that
    is not there, and StoreError where the store takes nothing.
    """
    path = store.new_path()
    try:
        path.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in NO_LINKS:
            return None
        with store_errors(path):
            raise
    return LinkedPart(store, path)


class LinkedPart:
    """See tree.store.Part; it is whole from the beginning. What is refused goes no further: the source has it."""

    def __init__(self, store: LocalStore, path: Path) -> None:
        self._store = store
        self._path: Path | None = path
        self._digest: Digest | None = None
        with store_errors(path):
            self.size = path.stat().st_size

    async def write(self, chunk: bytes) -> None:
        """Not to be called: the source has all bytes."""
        raise NotImplementedError  # no stub: a link cannot take bytes without changing the source

    async def finish(self) -> None:
        """See Part."""

    def put(self, chunk: bytes | memoryview) -> None:
        """Not to be called: the source has all bytes."""
        raise NotImplementedError  # no stub: a link cannot take bytes without changing the source

    def end(self) -> None:
        """See Part."""

    @contextmanager
    def open(self) -> Iterator[BinaryIO | memoryview]:
        """See Part."""
        with self._opened() as file:
            yield file

    def digest(self) -> Digest:
        """See Part."""
        if self._digest is None:
            with self._opened() as file:
                self._digest = digest_of(file)
        return self._digest

    def publish(self, directory: str, name: str) -> None:
        """See Part."""
        if self._store.fsync:
            with self._opened() as file, store_errors(self._path):
                os.fsync(file.fileno())
        target = self._store.target(directory, name)
        # Two names of one file: a rename from one to the other is a success that changes nothing (POSIX).
        self._store.place(str(self._at()), target)
        self.discard()

    def quarantine(self, folder: str, name: str, findings: tuple[Finding, ...]) -> None:
        """Forget the link: the bytes stay where they were found."""
        self.discard()

    def discard(self) -> None:
        """See Part."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._path = None

    def _opened(self) -> BinaryIO:
        with store_errors(self._path):
            return self._at().open("rb")

    def _at(self) -> Path:
        if self._path is None:
            raise FileNotFoundError(errno.ENOENT, "the part is used up")
        return self._path
