"""One writer per mirror: an advisory lock on <root>/.mirror/lock that names its holder.

The kernel lets go of the lock when the process ends, however it ends; a left-over file locks nobody out.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from mirror.errors import Locked, StoreError, store_errors


def take_lock(root: Path) -> BinaryIO:
    """Hold <root>/.mirror/lock until it is closed or the process ends.

    Raises Locked with the holder's words, and StoreError where there can be no such file or no lock on it.
    """
    path = root / ".mirror" / "lock"
    with store_errors(path), ExitStack() as opened:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (NotADirectoryError, FileExistsError) as error:
            raise StoreError(f"{path.parent if root.is_dir() else root}: is not a folder") from error
        # Unbuffered: words that the disk does not take fail here, not when the file is closed.
        file = opened.enter_context(path.open("a+b", buffering=0))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().decode("utf-8", "replace").strip() or "an unknown process"
            raise Locked(f"{root}: held by {holder}; wait for it to end, or stop it") from error
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())
        opened.pop_all()
    return file
