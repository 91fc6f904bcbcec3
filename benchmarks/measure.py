"""One client as a process: what it cost and what it brought."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.archive import Archive

_PREAMBLE = 132


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds, CPU seconds, peak resident MB of all its processes together, exit status, and what it printed."""

    wall: float
    cpu: float
    rss: float
    status: int
    out: str


@dataclass(frozen=True, slots=True)
class Brought:
    """Objects that are byte for byte the archive's, those that are not there, and files that are none of them."""

    right: int
    missing: int
    wrong: int


def measured(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None, log: Path, limit: float = 1800.0
) -> Cost:
    """Run a command to its end in a session of its own; after `limit` seconds it is killed (status -9).

    What it prints on stderr goes to the end of the file `log`. CPU is of the process and all children it waited for.
    """
    with log.open("ab") as errors:
        errors.write(f"\n$ {' '.join(command)[:2000]}\n".encode())
        errors.flush()
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    watch = _Watch(process.pid, limit)
    watch.start()
    assert process.stdout is not None
    try:
        with process.stdout:
            out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # the bench is to end: so is its client
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        watch.end()
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(
        wall, usage.ru_utime + usage.ru_stime, watch.peak / 1e6, process.returncode, out.decode(errors="replace")
    )


class _Watch(threading.Thread):
    """Looks at the memory of a session's processes now and then, and ends them when they take too long.

    Not ru_maxrss: that begins with what the process had that started the client, which is this bench. Pages that
    several processes share count once for each.
    """

    def __init__(self, session: int, limit: float) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._session = session
        self._ended = threading.Event()
        self._limit = limit

    def run(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(0.1):
            sizes = [_memory(pid) for pid in self._members()]
            self.peak = max(self.peak, sum(now for now, _ in sizes), *(most for _, most in sizes), 0)
            if time.monotonic() - began > self._limit:
                os.killpg(self._session, signal.SIGKILL)
                return

    def end(self) -> None:
        self._ended.set()
        self.join()

    def _members(self) -> list[int]:
        members = []
        for path in Path("/proc").iterdir():
            if path.name.isdecimal():
                try:
                    fields = (path / "stat").read_bytes().rpartition(b")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self._session:
                    members.append(int(path.name))
        return members


def _memory(pid: int) -> tuple[int, int]:
    """(resident bytes now, the most it ever had)."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        now, most = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    except (OSError, KeyError):
        return 0, 0
    return now, most


def check(folder: Path, archive: Archive) -> Brought:
    """Compare every DICOM file below `folder` with the archive's objects, whatever its name. Nothing is believed.

    What our mirror keeps beside its tree (.mirror/) does not count, and a file without a DICOM preamble is wrong only
    where its name says that it is one.
    """
    due = Counter(o.sha256 for o in archive.objects)
    paths = []
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".mirror"]
        paths += [Path(at, name) for name in names]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = Counter(digest for digest in threads.map(_digest, paths, chunksize=64) if digest is not None)
    right = (found & due).total()
    return Brought(right, len(archive.objects) - right, (found - due).total())


def _digest(path: Path) -> str | None:
    """The SHA-256 of a DICOM file, or of one that says it is; None for any other."""
    with path.open("rb", buffering=0) as file:
        start = file.read(_PREAMBLE)
        if start[128:] != b"DICM" and path.suffix != ".dcm":
            return None
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()
