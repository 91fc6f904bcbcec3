"""Whoever reads what a command writes may leave, and a disk may be full: what the command exits with, and tells."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from fakes.archive import FakeArchive
from fakes.faults import status

from mirror.cli.streams import is_read, lasting_streams

PROGRAM = str(Path(sys.executable).with_name("tcia-mirror"))
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("TCIA_MIRROR_")} | {"TCIA_MIRROR_SYNC_FSYNC": "false"}
FULL = "tcia-mirror: standard output: No space left on device\n"


@contextmanager
def nobody() -> Iterator[IO[bytes]]:
    """A pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as file:
        yield file


@contextmanager
def full_disk() -> Iterator[IO[bytes]]:
    """A file that takes nothing."""
    with Path("/dev/full").open("wb", buffering=0) as file:
        yield file


async def into(out: IO[bytes], *args: str, err: IO[bytes] | None = None) -> tuple[int, str]:
    """What a command exits with and writes on stderr, its stdout being `out`."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *args, env=CLEAN, stdout=out, stderr=err or asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, (said or b"").decode()


def commands(archive: FakeArchive, root: Path) -> dict[str, list[str]]:
    return {
        "status": ["status", "--to", str(archive.root)],
        "status --json": ["status", "--to", str(archive.root), "--json"],
        "export": ["export", "--to", str(archive.root), "--format", "tcia"],
        "query": ["query", "getSeries", "--server", archive.url()],
        "sync": ["sync", "Lung-Alpha", "--to", str(root), "--server", archive.url()],
        "sync --json": ["sync", "Lung-Alpha", "--to", str(root), "--server", archive.url(), "--json"],
        "--help": ["--help"],
    }


COMMANDS = ["status", "status --json", "export", "query", "sync", "sync --json", "--help"]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.asyncio
async def test_a_reader_that_has_left_changes_nothing(archive, tmp_path, name):
    with nobody() as out:
        code, err = await into(out, *commands(archive, tmp_path / "m")[name])
    assert code == 0
    assert "tcia-mirror:" not in err
    assert "Traceback" not in err
    if name.startswith("sync"):
        (report,) = (tmp_path / "m" / ".mirror" / "runs").iterdir()
        assert json.loads(report.read_text())["state"] == "complete"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.asyncio
async def test_a_full_disk_is_one_line_and_exit_code_7(archive, tmp_path, name):
    with full_disk() as out:
        code, err = await into(out, *commands(archive, tmp_path / "m")[name])
    assert code == 7
    assert err.endswith(FULL)
    assert err.count("tcia-mirror:") == 1
    assert "Traceback" not in err


@pytest.mark.asyncio
async def test_what_a_run_comes_to_is_its_exit_code_also_when_nobody_reads(archive, tmp_path):
    archive.faults.add("getSingleImage", status(404), SOPInstanceUID=min(archive.files()))
    args = commands(archive, tmp_path / "m")["sync"]
    with nobody() as out:
        assert (await into(out, *args, err=out))[0] == 3
    with full_disk() as out:
        assert (await into(out, *args))[0] == 7


@pytest.mark.asyncio
async def test_an_error_keeps_its_exit_code_whoever_has_left(tmp_path):
    args = ["status", "--to", str(tmp_path)]
    with nobody() as out:
        assert (await into(out, *args, err=out))[0] == 2
    with full_disk() as out:
        assert (await into(out, *args, err=out))[0] == 2


def test_a_command_can_see_that_nobody_reads_any_more(monkeypatch):
    with nobody() as out:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, write_through=True))
        with lasting_streams() as streams:
            assert is_read(sys.stdout)
            sys.stdout.buffer.write(b"x" * 100_000)
            assert not is_read(sys.stdout)
            sys.stdout.buffer.write(b"x" * 100_000)
            assert streams.failure() is None
        sys.stdout.detach()


def test_streams_that_are_closed_take_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with lasting_streams() as streams:
        sys.stdout.write("to nobody")
        assert not is_read(sys.stdout)
        assert not sys.stdout.isatty()
        with pytest.raises(io.UnsupportedOperation):
            sys.stdout.fileno()
        assert streams.failure() is None
    assert sys.stdout is None


def test_what_is_written_arrives_and_the_streams_come_back(capsys):
    before = sys.stdout
    with lasting_streams() as streams:
        sys.stdout.write("h\u00e9llo\n")
        sys.stderr.write("err\n")
        assert is_read(sys.stdout)
        assert streams.failure() is None
    assert sys.stdout is before
    assert is_read(sys.stdout)
    assert capsys.readouterr() == ("h\u00e9llo\n", "err\n")
