"""`tcia-mirror demo`, as the README's first command runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.process import unmeasured


def _demo(tmp_path: Path, *options: str, measured: bool = False) -> subprocess.CompletedProcess[str]:
    # Its own folder for temporary files, to see what is left there.
    (tmp_path / "tmp").mkdir(exist_ok=True)
    environment = {**(os.environ if measured else unmeasured()), "TMPDIR": str(tmp_path / "tmp"), "COLUMNS": "80"}
    command = [sys.executable, "-m", "mirror", "demo", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.timeout(130)
def test_it_mirrors_twice_and_leaves_nothing(tmp_path: Path) -> None:
    done = _demo(tmp_path, measured=True)
    assert done.returncode == 0, done.stderr
    assert "29 of 29 files are the archive's, byte for byte" in done.stdout
    lines = done.stdout.splitlines()
    (head,) = (line for line in lines if line.startswith("collection "))
    assert head.split()[:8] == [
        "collection", "series", "complete", "incomplete", "quarantined", "unfinished", "instances", "bytes",
    ]  # fmt: skip
    (chest,) = (line for line in lines if line.startswith("Demo-Chest "))
    assert chest.split()[1:7] == ["5", "5", "0", "0", "0", "9"]
    assert len([line for line in lines if line.endswith(" files") and "1.2.826." in line]) == 13, "no line is broken"
    assert "5 files were added; 5 were fetched, by 5 calls of getSingleImage" in done.stdout
    assert "34 of 34 files are the archive's, byte for byte" in done.stdout
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "Warning" not in done.stderr


@pytest.mark.timeout(130)
def test_keep_keeps_a_mirror_that_can_be_read(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert _demo(tmp_path, "--keep", str(kept)).returncode == 0
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=kept / "mirror", check=False)
    assert sums.returncode == 0
    again = _demo(tmp_path, "--keep", str(kept))
    assert again.returncode == 2
    assert "is not empty" in again.stderr
