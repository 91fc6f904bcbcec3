"""How long a sync takes from the start of its process to its first request: what every run pays before any work.

    python -m benchmarks.startup               seconds, medians of nine

A sync is a process of its own and its server is this one: the clock runs from just before the process is made to the
arrival of its first request, and the sync is then ended. Beside it stands what an interpreter takes for aiohttp alone,
and for what a worker process imports. One try of each goes before, so that files and bytecode are in memory.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import tables
from benchmarks.archive import PREFIX

#: Seconds after which something is wrong.
_LIMIT = 60.0
PROJECT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Taken:
    """What one start took: seconds by the clock, and of the processor."""

    wall: float
    cpu: float


def first_request(*options: str) -> Taken:
    """A sync into an empty folder, up to its first request."""
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryDirectory(prefix="tcia-start-") as folder:
        server.settimeout(_LIMIT)
        base = f"http://127.0.0.1:{server.getsockname()[1]}{PREFIX['nbia']}"
        began = time.perf_counter()
        process = _start("-m", "mirror", "sync", "Bench", "--to", f"{folder}/mirror", "--server", base, *options)
        try:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(_LIMIT)
                if not connection.recv(1):
                    raise SystemExit("the sync closed its connection without a request")
                arrived = time.perf_counter()
        finally:
            process.kill()
            cpu = _cpu_of(process)
    return Taken(arrived - began, cpu)


def interpreter(code: str) -> Taken:
    """An interpreter that runs a line of code, from its start to its end."""
    began = time.perf_counter()
    process = _start("-c", code)
    cpu = _cpu_of(process)
    taken = Taken(time.perf_counter() - began, cpu)
    if process.returncode:
        raise SystemExit(f"python -c {code!r} failed")
    return taken


def _cpu_of(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process to end; the seconds of the processor that it took."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
    )


#: What is timed, by the words of the table.
TIMED: dict[str, Callable[[], Taken]] = {
    "`sync --json --quiet`, to its first request": lambda: first_request("--json", "--quiet"),
    "the modules of a worker process": lambda: interpreter("import mirror.transports.workers"),
    "`python -c 'import aiohttp'`": lambda: interpreter("import aiohttp"),
    "`python -c pass`": lambda: interpreter("pass"),
}


def measure(rounds: int) -> dict[str, Taken]:
    """The medians of each. They take turns, so that whatever else the machine does meets all alike."""
    taken: dict[str, list[Taken]] = {name: [] for name in TIMED}
    for number in range(rounds + 1):
        for name, timed in TIMED.items():
            one = timed()
            if number:
                taken[name].append(one)
    return {name: Taken(median(t.wall for t in all_), median(t.cpu for t in all_)) for name, all_ in taken.items()}


def table(taken: dict[str, Taken]) -> str:
    """The figures as Markdown."""
    rows = [f"| {name} | {one.wall:.2f} | {one.cpu:.2f} |" for name, one in taken.items()]
    return "\n".join(["| from the start of a process | wall s | CPU s |", "|---|---|---|", *rows])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    asked = parser.parse_args()
    text = table(measure(asked.rounds))
    print(text)
    if asked.write_docs:
        tables.write_docs("startup", text)


if __name__ == "__main__":
    main()
