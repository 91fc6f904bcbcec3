"""A download on its way: in memory while it is small and there is room, in a file otherwise."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiofiles
import anyio
import anyio.to_thread

from mirror.errors import store_errors
from mirror.tree import Store

_BLOCK = 1024 * 1024
#: Blocks that one download may have in memory, and those of a run together besides the first of each.
_SMALL = 8
_MOST = 24


class Blocks:
    """Memory that the downloads of a run share: blocks that are used again, and a bounded number of them.

    Of the run's blocks these are one of so many `shares`.
    """

    def __init__(self, shares: int = 1) -> None:
        self._free: list[memoryview] = []
        self._left = _MOST // shares

    def take(self, *, first: bool) -> memoryview | None:
        """A block of anything; None where there is no more. The first of a download it always gets."""
        if not first:
            if not self._left:
                return None
            self._left -= 1
        return self._free.pop() if self._free else memoryview(bytearray(_BLOCK))

    def give(self, block: memoryview, *, first: bool) -> None:
        """Take a block back that nobody looks at any more."""
        self._left += not first
        if len(self._free) < _MOST:
            self._free.append(block)


class Spool:
    """Bytes that come one after the other, and are read anywhere when all are here. An unzip.Source.

    Ends by `discard`, which may be repeated. Failures are StoreErrors. `expected`: about how many bytes will come.
    """

    def __init__(self, store: Store, blocks: Blocks, expected: int | None = None) -> None:
        self._store = store
        self._shared = blocks
        self._blocks: list[memoryview] = []
        self._fill = 0
        #: What will not stay in memory whole has no more than a block of it.
        self._most = 1 if expected is not None and expected > _SMALL * _BLOCK else _SMALL
        #: The file's name, for as long as it is needed; the file, while it is written, and to read it.
        self._scratch = ExitStack()
        self._path: Path | None = None
        self._file: Any = None
        self._handle: int | None = None
        self.size = 0

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        begin = 0
        while begin < len(chunk):
            if not self._blocks or self._fill == _BLOCK:
                await self._more()
            end = min(len(chunk), begin + _BLOCK - self._fill)
            self._blocks[-1][self._fill : self._fill + end - begin] = memoryview(chunk)[begin:end]
            self._fill += end - begin
            self.size += end - begin
            begin = end

    async def _more(self) -> None:
        """Make room for a block of bytes: in memory, or by writing what is there."""
        block = None
        if self._file is None and len(self._blocks) < self._most:
            block = self._shared.take(first=not self._blocks)
        if block is not None:
            self._blocks.append(block)
        else:
            await self._spill()
        self._fill = 0

    async def _spill(self) -> None:
        # Shielded: a thread goes on when its caller is cancelled, and would write behind our back.
        with anyio.CancelScope(shield=True):
            if self._file is None:
                self._path = self._scratch.enter_context(self._store.scratch())
                with store_errors(self._path):
                    self._file = await aiofiles.open(self._path, "wb", buffering=0)
            with store_errors(self._path):
                for block in self._blocks:
                    rest = block if block is not self._blocks[-1] else block[: self._fill]
                    while rest:
                        rest = rest[await self._file.write(rest) :]
        while len(self._blocks) > 1:
            self._shared.give(self._blocks.pop(), first=False)

    async def finish(self) -> None:
        """Note that no more bytes come; from now on it can be read."""
        if self._file is not None:
            await self._spill()
            await self._close()

    async def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with anyio.CancelScope(shield=True), store_errors(self._path):
                await file.close()

    def read(self, offset: int, count: int) -> bytes | memoryview:
        """See unzip.Source. Blocks where the bytes are in a file."""
        count = max(0, min(count, self.size - offset))
        if self._path is not None:
            with store_errors(self._path):
                if self._handle is None:
                    self._handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                return os.pread(self._handle, count, offset)
        number, begin = divmod(offset, _BLOCK)
        if begin + count <= _BLOCK:
            return self._blocks[number][begin : begin + count] if count else b""
        pieces = [self._blocks[number][begin:]]
        while (left := count - sum(map(len, pieces))) > 0:
            number += 1
            pieces.append(self._blocks[number][:left])
        return b"".join(pieces)

    async def discard(self) -> None:
        """Forget the bytes. Nobody reads them any more."""
        await self._close()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._path is not None:
            # The disk may take its time over a large file.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._scratch.close)
        while self._blocks:
            block = self._blocks.pop()
            self._shared.give(block, first=not self._blocks)
