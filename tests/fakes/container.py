"""A container of the built image, as an engine would run it, by what Linux gives to root: namespaces and a chroot.

The first process is the image's entrypoint, the root file system is read-only and nothing is mounted over it but
/dev, /proc and /data; there is no /tmp to write to and no HOME. Only the network is this machine's.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fakes.process import Ended, Striker, run

#: Its words: the root file system, what lies at /data, rw or ro, user and group, the command. The root becomes a mount
#: point of its own, since only those can be made read-only.
_BEGIN = """
mount --bind "$1" "$1"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount --bind "$2" "$1/data"
mount -o "remount,bind,$3" "$1/data"
mount -o remount,bind,ro "$1"
exec chroot --userspec="$4" --groups= "$1" /usr/bin/env -i "${@:5}"
"""
#: The first child is process 1 of the new namespace. Ends as it does: its exit code, or 128 and the signal's number.
_CONTAIN = ["unshare", "--mount", "--propagation", "private", "--pid", "bash", "-c", '"$@" & wait $!', "contain"]
KILLED = 128 + signal.SIGKILL
#: Waits for nothing, as fakes.process.environment.
_SETTINGS = {"ARCHIVE_RETRY_WAIT": "0.01", "ARCHIVE_RETRY_MAX_WAIT": "0.05", "ARCHIVE_ATTEMPTS": "2"}


@dataclass(frozen=True)
class Image:
    """The built image in `folder`: `image.json`, what buildah tells of it, and `root`, its files."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """User, Env, Entrypoint and so on, as an engine reads them."""
        told = json.loads((self.folder / "image.json").read_text("utf-8"))
        return dict(told["Docker"]["config"])

    @property
    def root(self) -> Path:
        return (self.folder / "root").resolve()


@dataclass(frozen=True)
class Container:
    """How a container is run: of which image, with which folder at /data (rw, ro), as whom (uid:gid, or as it says)."""

    image: Image
    data: Path
    user: str = ""
    mode: str = "rw"

    @property
    def ids(self) -> tuple[int, int]:
        uid, _, gid = (self.user or self.image.config["User"]).partition(":")
        return int(uid), int(gid)

    def command(self, *words: str, entrypoint: list[str] | None = None, **settings: str) -> list[str]:
        """The command that runs it. `settings`: variables without their prefix, over those of the image."""
        config = self.image.config
        uid, gid = self.ids
        begin = ["bash", "-euc", _BEGIN, "begin", str(self.image.root), str(self.data), self.mode, f"+{uid}:+{gid}"]
        variables = [f"TCIA_MIRROR_{name}={value}" for name, value in (_SETTINGS | settings).items()]
        program = [*(config["Entrypoint"] if entrypoint is None else entrypoint), *(words or config["Cmd"])]
        return [*_CONTAIN, *begin, "-C", config["WorkingDir"], *config["Env"], *variables, *program]

    async def run(self, *words: str, entrypoint: list[str] | None = None, **settings: str) -> Ended:
        """Run it to its end."""
        return await run(self.command(*words, entrypoint=entrypoint, **settings))

    async def struck(self, striker: Striker, *words: str, **settings: str) -> Ended:
        """Run it to the end that the striker, a fault of the archive, gives it: it aims at the first process."""
        return await run(self.command(*words, **settings), begun=lambda p: striker.begun(Inside(p)))

    async def execute(self, inside: Inside, *program: str) -> Ended:
        """Run a program in the running container beside its first process, as `docker exec` does."""
        uid, gid = self.ids
        enter = ["nsenter", "--target", str(inside.first), "--mount", "--pid", "--root", f"--setgid={gid}"]
        return await run([*enter, f"--setuid={uid}", "/usr/bin/env", "-i", *self.image.config["Env"], *program])


class Inside:
    """The first process of a running container, by the process that made the container. A Striker may aim at it."""

    def __init__(self, outside: asyncio.subprocess.Process) -> None:
        self._outside = outside

    @property
    def first(self) -> int:
        """Its process id, as seen from here."""
        maker = self._outside.pid
        [child] = Path(f"/proc/{maker}/task/{maker}/children").read_text().split()
        return int(child)

    def send_signal(self, number: int) -> None:
        os.kill(self.first, number)

    async def wait(self) -> int:
        return await self._outside.wait()
