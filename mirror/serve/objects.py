"""One object of the mirror: found in the ledger, and its file open to be sent.

Hides that a quick disk is asked in the event loop and a slow one by threads. Promises that the file is as long as the
ledger says, and that what is sent of it first does not have to be waited for any more.
"""

from __future__ import annotations

import os
import time
from io import FileIO

from aiohttp import web
from msgspec import Struct

from mirror.errors import StoreError
from mirror.serve.served import Served
from mirror.threads import Inline, Threads

#: Threads that look objects up; mean seconds up to which the loop does it, and for how many it leaves it to them then.
_LOOKUPS, _QUICK, _REST = 8, 0.001, 1000
#: Bytes that a thread fetches from a slow disk, so that the loop does not wait for them when it sends them.
_AHEAD = 1024 * 1024


class Opened(Struct, frozen=True, gc=False):
    """An object's file, to be closed by who has it; its length in bytes, and its SHA-256 as lower-case hex."""

    file: FileIO
    length: int
    sha256: str


class Objects:
    """Finds objects: of these there are many, and each is little work. Belongs to one event loop."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._root = str(served.root)
        self._threads = Threads(_LOOKUPS, "lookup")
        self._here = Inline(soon=_QUICK, rest=_REST)
        self._here.begin(0.0)

    async def find(self, request: web.Request, sop_instance_uid: str, series_instance_uid: str) -> Opened | None:
        """The object, or None where this request may not see it or the mirror does not hold it.

        Raises StoreError where its file is missing or has another length.
        """
        if not self._here.suits(0):
            return await self._threads.run(self._open, request, sop_instance_uid, series_instance_uid, _AHEAD)
        began = time.perf_counter()
        try:
            # One byte: a disk that is slow shows it here, where it is noticed, and not while the file is sent.
            return self._open(request, sop_instance_uid, series_instance_uid, 1)
        finally:
            self._here.learn(time.perf_counter() - began)

    def _open(self, request: web.Request, sop_instance_uid: str, series_instance_uid: str, ahead: int) -> Opened | None:
        row = self._served.ask(request, lambda catalogue: catalogue.instance(sop_instance_uid, series_instance_uid))
        if row is None:
            return None
        path, length = row["path"], row["bytes"]
        try:
            file = FileIO(f"{self._root}/{path}")
            try:
                actual = os.fstat(file.fileno()).st_size
                if actual != length:
                    raise StoreError(f"{path}: {actual} bytes, but the ledger says {length}")
                os.pread(file.fileno(), ahead, 0)
            except BaseException:
                file.close()
                raise
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        return Opened(file, length, row["sha256"])
