"""Who is measured: each client's command line. A client is written NAME[+OPTION[=VALUE]...][@N].

N is the number of connections, threads or processes; without it the link's own. Options are given to ours alone:
`ours-instance+processes=2@32` is `sync --transport instance --connections 32 --processes 2`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.archive import COLLECTION, PREFIX, Archive

HERE = Path(__file__).parent
PROJECT = HERE.parent


@dataclass(frozen=True, slots=True)
class Job:
    """What a client is to do: bring `archive` from the server at `origin` into `folder` over N connections."""

    archive: Archive
    origin: str
    folder: Path
    n: int
    cache: Path
    #: A folder for lists of URLs.
    scratch: Path
    #: Another checkout whose sync is measured as "other-...".
    other: Path | None = None

    @property
    def base(self) -> str:
        """The server's base URL in the archive's dialect."""
        return self.origin + PREFIX[self.archive.dialect]

    def listed(self, name: str, line: Callable[[str, int], str]) -> Path:
        """A file with a line for each object, made of its URL and number."""
        path = self.scratch / name
        path.write_text("".join(line(self.origin + p, n) for n, p in enumerate(self.archive.paths())))
        return path


@dataclass(frozen=True, slots=True)
class Client:
    """A client as it was written."""

    text: str
    name: str
    options: tuple[str, ...]
    n: int | None

    @property
    def is_ours(self) -> bool:
        """Our own sync, of this checkout or of the other."""
        return self.name.partition("-")[0] in ("ours", "other")

    @property
    def keeps_files(self) -> bool:
        """Whether there is something to compare afterwards."""
        return self.name != "bare"


def parse(text: str) -> Client:
    """A client from its text. Raises SystemExit for one that is none."""
    head, _, number = text.partition("@")
    name, *options = head.split("+")
    known = name in _COMMANDS or name.partition("-")[0] in ("ours", "other")
    if not known or (number and not number.isdecimal()):
        raise SystemExit(f"{text!r} is no client; they are ours-TRANSPORT, other-TRANSPORT, {', '.join(_COMMANDS)}")
    return Client(text, name, tuple(options), int(number) if number else None)


def command_of(client: Client, job: Job) -> tuple[list[str], dict[str, str]]:
    """(command, environment). Raises LookupError where the tool is not installed."""
    if client.is_ours:
        return _ours(client, job)
    return _COMMANDS[client.name](job), dict(os.environ)


def _ours(client: Client, job: Job) -> tuple[list[str], dict[str, str]]:
    whose, _, transport = client.name.partition("-")
    tree = PROJECT if whose == "ours" else job.other
    if tree is None:
        raise LookupError("--other names no checkout")
    command = [sys.executable, "-m", "mirror", "sync", COLLECTION, "--to", str(job.folder), "--server", job.base]
    command += ["--json", "--quiet", "--connections", str(job.n), "--transport", transport]
    for option in client.options:
        name, has_value, value = option.partition("=")
        command += [f"--{name}", value] if has_value else [f"--{name}"]
    return command, os.environ | {"PYTHONPATH": str(tree)}


def _bare(job: Job) -> list[str]:
    return [sys.executable, str(HERE / "bare.py"), job.origin, str(job.archive.root / "urls"), str(job.n)]


def _cp(job: Job) -> list[str]:
    return ["cp", "-r", str(job.archive.root / "o"), str(job.folder)]


def _curl(job: Job) -> list[str]:
    config = job.listed("curl", lambda url, n: f'url = "{url}"\noutput = "{job.folder}/{n}.dcm"\n')
    return [_found("curl"), "--silent", "--show-error", "--parallel", "--parallel-max", str(job.n), "-K", str(config)]


def _wget2(job: Job) -> list[str]:
    urls = job.listed("wget2", lambda url, _: f"{url}\n")
    return [
        _found("wget2"), "--quiet", f"--max-threads={job.n}", "--no-config", "--input-file", str(urls),
        "--directory-prefix", str(job.folder),
    ]  # fmt: skip


def _aria2c(job: Job) -> list[str]:
    urls = job.listed("aria2c", lambda url, n: f"{url}\n out={n}.dcm\n")
    return [
        _found("aria2c"), "--no-conf", "--quiet", f"--max-concurrent-downloads={job.n}", "--file-allocation=none",
        "--max-connection-per-server=1", "--dir", str(job.folder), "--input-file", str(urls),
    ]  # fmt: skip


def _tcia_utils(job: Job) -> list[str]:
    return _python_tool(job, "tcia_utils")


def _nbiatoolkit(job: Job) -> list[str]:
    return _python_tool(job, "nbiatoolkit")


def _python_tool(job: Job, name: str) -> list[str]:
    python = job.cache / name / "bin" / "python"
    if not python.exists():
        raise LookupError(f"no environment at {python.parent.parent}")
    if job.archive.dialect != "nbia":
        raise LookupError(f"{name} speaks the nbia dialect only")
    return [str(python), str(HERE / f"launch_{name}.py"), job.base, COLLECTION, str(job.folder), str(job.n)]


def _found(binary: str) -> str:
    path = shutil.which(binary)
    if path is None:
        raise LookupError(f"{binary} is not installed")
    return path


_COMMANDS: dict[str, Callable[[Job], list[str]]] = {
    "bare": _bare,
    "cp": _cp,
    "curl": _curl,
    "wget2": _wget2,
    "aria2c": _aria2c,
    "tcia_utils": _tcia_utils,
    "nbiatoolkit": _nbiatoolkit,
}

OURS = ("ours-instance", "ours-zip", "ours-auto")
#: The clients of each link where the command line names none, and the connections that they get.
DEFAULTS: dict[str, tuple[tuple[str, ...], int]] = {
    "loopback": (
        (
            "bare",
            "cp",
            "curl",
            "wget2",
            "aria2c",
            "tcia_utils@4",
            "tcia_utils@10",
            "nbiatoolkit@1",
            "nbiatoolkit@4",
            *OURS,
        ),
        16,
    ),
    "long": (("bare", "bare@128", "curl", "tcia_utils@10", "tcia_utils@32", "nbiatoolkit@4", *OURS), 32),
    "slow": (("bare@8", "bare@16", "bare@32", "bare@64", "tcia_utils@10", "tcia_utils@32", *OURS), 64),
}
