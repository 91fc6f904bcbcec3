"""Whoever watches a mirror: a webhook and a file of metrics after a run, and the age of its last complete sync."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fakes.faults import status
from fakes.process import command, run
from fakes.servers import serving
from typer.testing import CliRunner

from mirror.cli.main import add_commands

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def webhook(answer: Callable[[], Awaitable[int]]) -> AsyncIterator[tuple[str, list[Any]]]:
    """A webhook that answers with a status; gives its URL, which is a secret, and what was posted to it."""
    posted: list[Any] = []

    async def take(request: web.Request) -> web.Response:
        posted.append(await request.json())
        return web.Response(status=await answer())

    async with serving(take) as origin:
        yield f"{origin}/s3cret", posted


async def ok() -> int:
    return 200


async def not_found() -> int:
    return 404


def nobody_listens() -> str:
    """An origin on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def status_of(root: Path, *options: str) -> tuple[int, str, str]:
    """What `tcia-mirror status` exits with and writes."""
    ended = CliRunner().invoke(add_commands(), ["status", "--to", str(root), *options])
    return ended.exit_code, ended.stdout, ended.stderr


def value_of(metrics: Path, name: str) -> float:
    """The one sample of that name."""
    (line,) = (line for line in metrics.read_text().splitlines() if line.startswith(f"tcia_mirror_{name}{{"))
    return float(line.split()[-1])


async def test_a_run_tells_its_watchers_and_the_status_its_age(archive, tmp_path):
    root, metrics = tmp_path / "m", tmp_path / "m.prom"
    archive.faults.add("getSingleImage", status(404), SOPInstanceUID=min(archive.files()))
    async with webhook(ok) as (url, posted):
        ended = await run(
            command(archive, root, "--json", "--quiet", "--notify-url", url, "--metrics-file", str(metrics))
        )
    assert (ended.code, ended.err) == (3, "")
    (payload,) = posted
    assert payload["report"] == json.loads(ended.out)
    assert payload["text"].startswith("tcia-mirror: incomplete (exit code 3): all collections to ")
    shares = {share["collection"]: share for share in payload["report"]["collections"]}
    assert sum(share["new"] for share in shares.values()) == 7
    assert sum(share["complete"] for share in shares.values()) == 6
    assert {share["requests"] for share in shares.values()} == {3}
    assert value_of(metrics, "run_exit_code") == 3

    broken = next(name for name, share in shares.items() if share["incomplete"])
    code, out, err = status_of(root, "--json", "--max-age", "1h")
    assert (code, err) == (3, f"tcia-mirror: {broken}: last complete sync: never\n")
    ages = {row["collection"]: row["age_seconds"] for row in json.loads(out)["collections"]}
    assert ages.pop(broken) is None
    assert all(0 <= age < 60 for age in ages.values())


async def test_watchers_that_are_not_there_change_nothing(archive, tmp_path):
    root, gone = tmp_path / "m", nobody_listens()
    ended = await run(
        command(
            archive, root, "--quiet", "--notify-url", f"{gone}/s3cret", "--metrics-file", str(tmp_path / "no" / "m")
        )
    )
    assert (ended.code, ended.out) == (0, "")
    metrics, hook = ended.err.splitlines()
    assert metrics == (
        f"tcia-mirror: warning: the metrics were not written: {tmp_path}/no/m: No such file or directory"
    )
    assert hook.startswith(f"tcia-mirror: warning: the webhook was not told: {gone[7:]}: no connection: ")
    assert "s3cret" not in hook
    code, out, err = status_of(root, "--json", "--max-age", "1h")
    assert (code, err) == (0, "")
    assert 0 <= json.loads(out)["age_seconds"] < 60
    with sqlite3.connect(root / ".mirror" / "ledger.sqlite") as ledger:
        ledger.execute("UPDATE crawls SET synced_at = synced_at - 7200")
    code, _, err = status_of(root, "--max-age", "1h")
    assert code == 3
    assert err.count(": last complete sync: 2 h 0 min ago, ") == 2


async def test_a_signal_ends_the_wait_for_a_webhook_and_not_the_runs_exit_code(archive, tmp_path):
    processes: list[asyncio.subprocess.Process] = []

    async def strike() -> int:
        processes[0].send_signal(signal.SIGTERM)
        await asyncio.sleep(60)
        return 200

    async with webhook(strike) as (url, posted):
        ended = await run(command(archive, tmp_path / "m", "--quiet", "--notify-url", url), begun=processes.append)
    assert (ended.code, len(posted)) == (0, 1)
    assert ended.err == "tcia-mirror: warning: the webhook was not told: stopped while it was asked\n"


async def test_a_run_that_fails_tells_its_watchers_too(tmp_path):
    metrics = tmp_path / "m.prom"
    (tmp_path / "night.toml").write_text(
        f"to = '{tmp_path}/m'\n[archive]\nserver = '{nobody_listens()}/nbia-api/services/v4/'\nattempts = 1\n"
        f"[scope]\nall = true\n[report]\nmetrics_file = '{metrics}'\n"
    )
    argv = [sys.executable, "-m", "mirror", "sync", "--config", str(tmp_path / "night.toml")]
    async with webhook(not_found) as (url, posted):
        ended = await run(argv, REPORT_NOTIFY_URL=url)
    assert (ended.code, ended.out) == (5, "")
    (report,) = (payload["report"] for payload in posted)
    assert (report["state"], report["exit_code"]) == ("failed", 5)
    assert report["error"] in ended.err
    assert f"warning: the webhook was not told: {url[7:-7]}: it answered 404\n" in ended.err
    assert "s3cret" not in ended.err
    assert value_of(metrics, "run_exit_code") == 5
