"""`tcia-mirror verify` as a process: what it prints, where, and what it exits with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import pytest_asyncio
from fakes.archive import FakeArchive
from fakes.mirroring import Mirror
from fakes.process import Ended, run
from typer.testing import CliRunner

from mirror.cli.app import app
from mirror.cli.verify import read_budget
from mirror.errors import SettingsError
from mirror.ledger import Ledger
from mirror.verification import Budget


@pytest_asyncio.fixture
async def root(archive: FakeArchive, tmp_path: Path) -> Path:
    made = Mirror(tmp_path / "mirror")
    await made.sync(archive)
    return made.root


async def verify(root: Path, *options: str) -> Ended:
    return await run([sys.executable, "-m", "mirror", "verify", "--to", str(root), *options])


@pytest.mark.asyncio
async def test_what_is_found_is_told_and_mended(root):
    path = min((root / "Brain Beta").rglob("*.dcm"))
    path.write_bytes(b"short")
    (root / "Brain Beta" / "a\x1b[31mb.txt").write_text("x")
    (root / "mine").mkdir()
    where = path.relative_to(root).as_posix()

    ended = await verify(root)
    lines = ended.out.splitlines()
    assert (ended.code, ended.err) == (4, "")
    assert any(line.startswith("file-truncated: it has 5 bytes, ") and line.endswith(f"[{where}]") for line in lines)
    assert (
        "file-foreign: no DICOM file, and none of the mirror's [Brain Beta/a\N{REPLACEMENT CHARACTER}[31mb.txt]"
        in lines
    )
    assert "damaged after 0 s" in lines
    assert "  found      1 file-foreign, 1 file-truncated" in lines
    assert "  not ours   1 beside the mirror's own, left alone" in lines

    ended = await verify(root, "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["exit_code"], report["state"]) == (4, 4, "damaged")
    assert report["found"] == {"file-foreign": 1, "file-truncated": 1}
    assert {finding["kind"]: finding["path"] for finding in report["findings"]}["file-truncated"] == where

    ended = await verify(root, "--repair", "--deep")
    assert (ended.code, ended.err) == (0, "")
    assert f"repaired: {where}" in ended.out
    assert "  mended     1 repaired, 1 set aside" in ended.out.splitlines()


@pytest.mark.asyncio
async def test_an_archive_that_is_not_there(root):
    min(root.rglob("*.dcm")).unlink()
    ended = await verify(root, "--repair", "--server", "http://127.0.0.1:1")
    assert ended.code == 5
    assert "failed after" in ended.out
    assert ended.err.startswith("tcia-mirror: ")


@pytest.mark.asyncio
async def test_while_another_run_holds_the_mirror(root):
    with Ledger(root):
        ended = await verify(root)
    assert ended.code == 6
    assert "held by process" in ended.err


def test_contradicting_options(tmp_path):
    ended = CliRunner().invoke(app, ["verify", "--to", str(tmp_path), "--quick", "--deep"])
    assert isinstance(ended.exception, SettingsError)
    assert "exclude each other" in str(ended.exception)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("2h", Budget(seconds=7200)),
        ("90m", Budget(seconds=5400)),
        ("500GB", Budget(bytes=500 * 10**9)),
        (" 1.5 tb ", Budget(bytes=15 * 10**11)),
        ("8kB", Budget(bytes=8000)),
    ],
)
def test_budgets(text: str, budget: Budget):
    assert read_budget(text) == budget


@pytest.mark.parametrize("text", ["500", "", "2 hours", "GB", "-1h"])
def test_what_is_no_budget(text: str):
    with pytest.raises(SettingsError, match="--budget"):
        read_budget(text)
