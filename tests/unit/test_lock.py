"""One writer per mirror: who holds it, and what happens when the holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from mirror.errors import ExitCode, Locked, StoreDenied, StoreError, StoreFull
from mirror.ledger import Ledger
from mirror.ledger.lock import take_lock

HOLDER = """
import sys, time
from pathlib import Path
from mirror.ledger.lock import take_lock
held = take_lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of tmp_path."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_second_is_told_who_the_first_is(tmp_path: Path, holder: subprocess.Popen[str]):
    with pytest.raises(Locked) as caught:
        take_lock(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}: held by process {holder.pid} on {socket.gethostname()} since 20")
    assert said.endswith("; wait for it to end, or stop it")
    assert caught.value.exit_code is ExitCode.LOCKED


def test_a_ledger_is_not_opened_without_the_lock(tmp_path: Path, holder: subprocess.Popen[str]):
    with pytest.raises(Locked):
        Ledger(tmp_path)
    assert not (tmp_path / ".mirror" / "ledger.sqlite").exists()


def test_a_holder_that_is_killed_holds_nothing(tmp_path: Path, holder: subprocess.Popen[str]):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with take_lock(tmp_path):
        text = (tmp_path / ".mirror" / "lock").read_text()
    assert text.startswith(f"process {os.getpid()} on {socket.gethostname()} since 20")
    assert text.count("\n") == 1, "the words of the one before are gone"


def test_a_lock_that_was_let_go_can_be_taken_again(tmp_path: Path):
    take_lock(tmp_path).close()
    with take_lock(tmp_path), pytest.raises(Locked):
        take_lock(tmp_path)


def test_a_holder_without_words_is_unknown(tmp_path: Path):
    (tmp_path / ".mirror").mkdir()
    with (tmp_path / ".mirror" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Locked, match="held by an unknown process"):
            take_lock(tmp_path)


@pytest.mark.parametrize("below", [".", "mirrors/lung"])
def test_a_root_that_cannot_be_a_folder_is_named(tmp_path: Path, below: str):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        take_lock(tmp_path / "file" / below)
    assert str(caught.value) == f"{tmp_path / 'file' / below}: is not a folder"


def test_a_file_in_place_of_the_folder_of_our_own_is_named(tmp_path: Path):
    (tmp_path / ".mirror").write_text("")
    with pytest.raises(StoreError, match=r"/\.mirror: is not a folder$"):
        take_lock(tmp_path)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EACCES, StoreDenied), (errno.EROFS, StoreDenied), (errno.ENOSPC, StoreFull)]
)
def test_a_folder_that_takes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StoreError]
):
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"\.mirror/lock") as caught:
        take_lock(tmp_path / "root")
    assert type(caught.value) is kind


def test_a_disk_that_is_full_when_the_holder_signs_is_full(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(StoreFull, match=r"\.mirror/lock"):
            take_lock(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    take_lock(tmp_path).close()


def test_a_file_system_that_has_no_locks_is_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(file: IO[str], how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match="No locks available") as caught:
        take_lock(tmp_path)
    assert caught.value.exit_code is ExitCode.DISK
