"""One writer per mirror: an advisory lock on <root>/.mirror/lock that names its holder.

The kernel lets go of the lock when the process ends, however it ends; a left-over file locks nobody out.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import IO

from mirror.errors import Locked, store_errors


def take_lock(root: Path) -> IO[str]:
    """Hold <root>/.mirror/lock until it is closed or the process ends. Raises Locked with the holder's words."""
    path = root / ".mirror" / "lock"
    with store_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "an unknown process"
        file.close()
        raise Locked(f"{root}: held by {holder}; wait for it to end, or stop it") from error
    file.seek(0)
    file.truncate()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
    file.flush()
    return file
