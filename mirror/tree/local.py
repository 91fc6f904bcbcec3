"""A store on a POSIX file system.

    <root>/.mirror/tmp/          bodies on their way in; swept at the start of a run
    <root>/.mirror/quarantine/   <SeriesInstanceUID>/<SOPInstanceUID>.dcm and .txt with the reasons
    <root>/.mirror/retired/      <run>/<directory>/<name>: bytes that were right, until the archive changed its mind

Publishing is: all bytes written, flushed (setting sync.fsync), then one rename. Parts lie in one folder, not beside
their target: no tool that walks the tree meets one, and a sweep is one listing whatever the tree's size.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO

from mirror.errors import store_errors
from mirror.model import Finding
from mirror.threads import Threads
from mirror.tree.part import Buffers, LocalPart, reasons_of

#: How a disk is probed: objects, and their bytes.
_PROBES, _PROBED = 5, 32 * 1024
#: Threads that write blocks of large bodies.
_WRITERS = 4
#: So many folders are known to be safe.
_SAFE = 4096
#: Bytes of a name that leave room for an extension of it.
_LONGEST = 240

_NUMBERS = count()


class LocalStore:
    """See tree.store.Store. Parts may be used side by side; one run at a time (the ledger's lock) uses a root."""

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self.root = root
        self._fsync = fsync
        self._tmp = root / ".mirror" / "tmp"
        self._quarantine = root / ".mirror" / "quarantine"
        self._retired = root / ".mirror" / "retired"
        self._buffers = Buffers()
        #: Folders whose own names were flushed: those above the last series.
        self._safe: set[Path] = set()
        #: See Places.
        self.writers = Threads(_WRITERS, "write")
        with store_errors(self._tmp):
            self._tmp.mkdir(parents=True, exist_ok=True)

    def part(self) -> LocalPart:
        """See Store."""
        return LocalPart(self, self._buffers)

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

    def move(self, directory: str, name: str, to: tuple[str, str]) -> bool:
        """See Store."""
        path, target = self.root / directory / name, self.root.joinpath(*to)
        with store_errors(target):
            if os.path.lexists(target):
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        return True

    def set_aside(self, directory: str, name: str, findings: tuple[Finding, ...]) -> None:
        """See Store."""
        path = self.root / directory / name
        folder = self._quarantine / "foreign" / directory
        with store_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            target = next(free for free in _free_names(folder / name) if not os.path.lexists(free))
            # A name that a disk bears may leave no room for more behind it.
            reasons = target.with_name(f"{os.fsdecode(os.fsencode(target.name)[:_LONGEST])}.txt")
            reasons.write_text(reasons_of(findings), encoding="utf-8", errors="replace")
            path.rename(target)

    def retire(self, directory: str, name: str, run: str) -> str:
        """See Store."""
        path = self.root / directory / name
        folder = self._retired / run / directory
        with store_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            for target in _free_names(folder / name):
                with suppress(FileExistsError):
                    self._link(path, target)
                    break
                if target.samefile(path):
                    break
        if self._fsync:
            self._flush_up(folder)
        return target.relative_to(self.root).as_posix()

    def _link(self, path: Path, target: Path) -> None:
        """The bytes at `path` under a second name, which must be free; a copy where the disk has no links."""
        try:
            target.hardlink_to(path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS, errno.EXDEV):
                raise
            copy = self.new_path()
            shutil.copyfile(path, copy)
            if self._fsync:
                with copy.open("rb+") as file:
                    os.fsync(file.fileno())
            if target.exists():
                copy.unlink()
                raise FileExistsError(errno.EEXIST, "is there already", str(target)) from error
            copy.replace(target)

    def remove(self, directory: str, name: str) -> None:
        """See Store."""
        path = self.root / directory / name
        with store_errors(path):
            path.unlink(missing_ok=True)
            # Directories that are empty now go with it, up to the root; one that is not empty ends that.
            for folder in path.parents:
                if folder == self.root:
                    break
                try:
                    self._safe.discard(folder)
                    folder.rmdir()
                except OSError:
                    break

    def retired(self) -> dict[str, bool]:
        """See Store."""
        with store_errors(self._retired):
            try:
                entries = sorted(os.scandir(self._retired), key=lambda entry: entry.name)
            except FileNotFoundError:
                return {}
            return {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}

    def retired_size(self, run: str) -> tuple[int, int]:
        """See Store."""
        files = size = 0
        with store_errors(self._retired / run):
            for folder, _, names in os.walk(self._retired / run, onerror=_raise):
                files += len(names)
                size += sum((Path(folder) / name).lstat().st_size for name in names)
        return files, size

    def drop_retired(self, run: str) -> None:
        """See Store."""
        path = self._retired / run
        self._safe.clear()
        with store_errors(path), suppress(FileNotFoundError):
            shutil.rmtree(path)

    def settle(self, directory: str) -> None:
        """See Store."""
        if not self._fsync:
            return
        self._flush_up(self.root / directory)

    def _flush_up(self, folder: Path) -> None:
        """Flush a folder, and those above it that have its name and so on, up to one whose name is known to be safe."""
        flushed = []
        for above in (folder, *folder.parents):
            if not above.is_dir():
                continue
            _flush_folder(above)
            if above == self.root or above in self._safe:
                break
            flushed.append(above)
        if len(self._safe) > _SAFE:
            self._safe.clear()
        # Not the folder itself: nothing else is made in that of a series.
        self._safe.update(above for above in flushed if above != folder)

    def free(self) -> int:
        """See Store."""
        with store_errors(self.root):
            return shutil.disk_usage(self.root).free

    def probe(self) -> float:
        """See Store."""
        took = []
        for _ in range(_PROBES):
            part = self.part()
            part.put(bytes(_PROBED))
            path = self.new_path()
            began = time.perf_counter()
            try:
                part.move(str(path))
            finally:
                took.append(time.perf_counter() - began)
                part.discard()
                path.unlink(missing_ok=True)
        return sorted(took)[len(took) // 2]

    def sweep_of(self, pid: int) -> None:
        """See Store."""
        for path in self._tmp.glob(f"{pid}-*"):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def twin(self) -> Callable[[], LocalStore]:
        """See Store."""
        return partial(LocalStore, self.root, fsync=self._fsync)

    def sweep(self) -> int:
        """See Store."""
        with store_errors(self._tmp):
            left = list(self._tmp.iterdir())
        for path in left:
            with store_errors(path):
                path.unlink(missing_ok=True)
        return len(left)

    # For LocalPart: see Places

    def new_name(self) -> str:
        """A path in the folder of parts that no other part of this process has."""
        return f"{self._tmp}/{os.getpid()}-{next(_NUMBERS)}"

    def new_path(self) -> Path:
        """As `new_name`."""
        return Path(self.new_name())

    def place(self, source: str, target: str) -> None:
        """Rename a written and flushed file into its place."""
        with store_errors(target):
            try:
                os.replace(source, target)  # noqa: PTH105 - strings: a Path costs as much as the rename
            except FileNotFoundError:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)  # noqa: PTH105 - as above

    def target(self, directory: str, name: str) -> str:
        """The path of an object."""
        return f"{self.root}/{directory}/{name}"

    def quarantine_path(self, folder: str, name: str) -> Path:
        """The path of a body that was refused."""
        return self._quarantine / folder / name

    @property
    def fsync(self) -> bool:
        """Whether files are flushed before they are named."""
        return self._fsync


def _free_names(path: Path) -> Iterator[Path]:
    """`path`, then names like it: one folder never holds two bodies of one name by replacing the first."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.name}~{number}")


def _raise(error: OSError) -> None:
    raise error


def _flush_folder(folder: Path) -> None:
    with store_errors(folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
