"""The installed command as a process, and faults that strike at it from the archive's side."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from fakes.archive import FakeArchive
from fakes.faults import Asked
from mirror.archive.endpoints import DialectName


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (a signal's number, negative) and what it printed."""

    code: int
    out: str
    err: str


def command(archive: FakeArchive, root: Path, *options: str, dialect: DialectName = "nbia") -> list[str]:
    """`tcia-mirror sync` of all the archive has."""
    return [
        sys.executable,
        "-m",
        "mirror",
        "sync",
        "--all",
        "--to",
        str(root),
        "--server",
        archive.url(dialect),
        *options,
    ]


def environment(**settings: str) -> dict[str, str]:
    """The environment of a process that waits for nothing; `settings` by variable, without the prefix."""
    settings = {"ARCHIVE_RETRY_WAIT": "0.01", "ARCHIVE_RETRY_MAX_WAIT": "0.05", "SYNC_FSYNC": "false"} | settings
    return unmeasured() | {f"TCIA_MIRROR_{name}": value for name, value in settings.items()}


def unmeasured(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a process whose coverage nobody asks for: it starts faster, runs twice as fast, and may be
    killed or kept from writing, when coverage could save nothing anyway.
    """
    return {name: value for name, value in environ.items() if not name.startswith("COVERAGE_")}


async def run(
    argv: list[str],
    *,
    begun: Callable[[asyncio.subprocess.Process], None] = lambda process: None,
    before: Callable[[], None] | None = None,
    **settings: str,
) -> Ended:
    """Run to the end; `begun` is given the process, `before` is called in the child before the command begins."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**settings),
        preexec_fn=before,
    )
    begun(process)
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode or 0, out.decode(), err.decode())


@dataclass
class Striker:
    """A fault that answers truly, but sends its process signals first: at the `at`th of its requests, and so on.

    `once`: that request waits until this is true. How far the process is with its other requests, no count tells.
    """

    at: tuple[int, ...]
    number: signal.Signals = signal.SIGKILL
    once: Callable[[], object] = lambda: True
    process: asyncio.subprocess.Process | None = None
    seen: int = 0

    def begun(self, process: asyncio.subprocess.Process) -> None:
        """Aim at this process."""
        self.process = process

    async def __call__(self, asked: Asked) -> web.StreamResponse:
        self.seen += 1
        if self.seen in self.at:
            assert self.process is not None
            async with asyncio.timeout(60):
                while not self.once():  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
            self.process.send_signal(self.number)
            if self.number is signal.SIGKILL:
                await self.process.wait()
        return await asked.handler(asked.request)
