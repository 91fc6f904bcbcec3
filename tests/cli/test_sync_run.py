"""`tcia-mirror sync` as a process against an archive on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fakes.archive import FakeArchive
from fakes.faults import Asked, hold, status

PROGRAM = str(Path(sys.executable).with_name("tcia-mirror"))
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("TCIA_MIRROR_")}
NO_FSYNC = {"TCIA_MIRROR_SYNC_FSYNC": "false"}


async def begin(*args: str, cwd: Path, **variables: str) -> asyncio.subprocess.Process:
    """A process that does not wait for the disk, unless `variables` say so."""
    return await asyncio.create_subprocess_exec(
        PROGRAM, "sync", *args,
        cwd=cwd, env=CLEAN | NO_FSYNC | variables, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def run(*args: str, cwd: Path, **variables: str) -> tuple[int, str, str]:
    process = await begin(*args, cwd=cwd, **variables)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def hold_images(archive: FakeArchive) -> tuple[asyncio.Event, asyncio.Event]:
    """Keep every getSingleImage waiting for the second event; the first is set once one was asked for."""
    asked, gate = asyncio.Event(), asyncio.Event()
    held = hold(gate)

    async def fault(request: Asked) -> web.StreamResponse:
        asked.set()
        return await held(request)

    archive.faults.add("getSingleImage", fault)
    return asked, gate


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.asyncio
async def test_a_mirror_from_a_settings_file_then_a_run_that_finds_nothing_to_do(archive, tmp_path):
    (tmp_path / "nightly.toml").write_text(
        f"to = 'm'\n[archive]\nserver = '{archive.url()}'\n[scope]\ncollections = ['lung-alpha']\n"
    )
    code, out, err = await run("--config", "nightly.toml", "--json", cwd=tmp_path, TCIA_MIRROR_SYNC_FSYNC="true")
    assert (code, err) == (0, "")
    told = rows(out)
    assert [row["event"] for row in told[:2]] == ["run-started", "scope-found"]
    report = told[-1]
    assert (report["state"], report["exit_code"]) == ("complete", 0)
    assert report["series"] == {"planned": 4, "complete": 4, "incomplete": 0, "quarantined": 0, "kept": 0}
    assert report["instances"] == {"fetched": 12, "reused": 0, "failed": 0}
    assert report["requests"]["by_call"]["getSingleImage"] == 12
    assert json.loads((tmp_path / "m" / ".mirror" / "runs" / f"{report['run']}.json").read_text()) == report
    assert len(list((tmp_path / "m").rglob("*.dcm"))) == 12

    code, out, err = await run("--config", "nightly.toml", cwd=tmp_path)
    assert code == 0
    assert "plan: 0 series to fetch (0 objects, 0 B), 4 kept" in err
    assert out.startswith("complete after ")
    assert archive.counts()["getSingleImage"] == 12


@pytest.mark.asyncio
async def test_a_job_is_the_whole_line_and_the_mirror_repeats_it(archive, tmp_path):
    (tmp_path / "jobs.toml").write_text(
        f"to = 'm'\n[archive]\nserver = '{archive.url()}'\n[scope]\nall = true\n"
        "[jobs.nightly-ct]\ncollections = ['lung-*']\nmodalities = ['CT']\n"
    )
    code, _, err = await run("--job", "nightly-ct", cwd=tmp_path, TCIA_MIRROR_CONFIG="jobs.toml")
    assert code == 0
    assert "lung-*; Modality CT from " in err
    assert len(list((tmp_path / "m").rglob("*.dcm"))) == 6
    code, _, err = await run("--to", "m", "--server", archive.url(), cwd=tmp_path)
    assert code == 0
    assert "lung-*; Modality CT from " in err
    code, out, err = await run("--job", "nightly-c", "--config", "jobs.toml", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "no job 'nightly-c'; the nearest are: nightly-ct" in err


@pytest.mark.asyncio
async def test_a_dry_run_prints_the_plan_and_leaves_nothing(archive, tmp_path):
    code, out, _ = await run("--all", "--to", "m", "--server", archive.url(), "--dry-run", cwd=tmp_path)
    assert code == 0
    assert "plan: 7 series to fetch in 2 collections, 32 objects" in out
    assert archive.counts()["getSingleImage"] == 0
    assert not (tmp_path / "m").exists()


@pytest.mark.asyncio
async def test_an_object_that_cannot_be_had_ends_in_exit_code_3_and_is_named(archive, tmp_path):
    lost = min(archive.files())
    archive.faults.add("getSingleImage", status(500, "no"), SOPInstanceUID=lost)
    code, out, err = await run(
        "--all", "--to", "m", "--server", archive.url(), cwd=tmp_path, TCIA_MIRROR_ARCHIVE_ATTEMPTS="1"
    )
    assert code == 3
    assert out.startswith("incomplete after ")
    assert "6 complete, 1 incomplete" in out
    assert lost in out
    assert lost in err


@pytest.mark.asyncio
async def test_a_signal_lets_what_is_in_flight_land_and_the_next_run_goes_on(archive, tmp_path):
    asked, gate = hold_images(archive)
    process = await begin("--all", "--to", "m", "--server", archive.url(), "--json", "--connections", "2", cwd=tmp_path)
    await asked.wait()
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    seen = ""
    while '"stopping"' not in seen:
        seen = (await process.stdout.readline()).decode()
    gate.set()
    out, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
    report = rows(out.decode())[-1]
    assert (report["state"], report["exit_code"]) == ("interrupted", 130)
    landed = report["instances"]["fetched"]
    assert 1 <= landed < 32
    code, out_again, _ = await run("--all", "--to", "m", "--server", archive.url(), "--json", "--quiet", cwd=tmp_path)
    assert code == 0
    (report,) = rows(out_again)
    assert report["state"] == "complete"
    assert report["instances"]["fetched"] == 32 - landed


@pytest.mark.asyncio
async def test_a_second_signal_ends_the_run_at_once(archive, tmp_path):
    asked, gate = hold_images(archive)
    process = await begin("--all", "--to", "m", "--server", archive.url(), "--json", cwd=tmp_path)
    await asked.wait()
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    seen = ""
    while '"stopping"' not in seen:
        seen = (await process.stdout.readline()).decode()
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    gate.set()
    assert (process.returncode, err) == (130, b"")
    report = rows(out.decode())[-1]
    assert (report["state"], report["instances"]["fetched"]) == ("interrupted", 0)
    assert (tmp_path / "m" / ".mirror" / "runs" / f"{report['run']}.json").exists()
    assert list((tmp_path / "m").rglob("*.dcm")) == []


@pytest.mark.asyncio
async def test_two_runs_at_a_time_exit_6_for_the_second(archive, tmp_path):
    asked, gate = hold_images(archive)
    first = await begin("--all", "--to", "m", "--server", archive.url(), "--quiet", cwd=tmp_path)
    await asked.wait()
    code, out, err = await run("--all", "--to", "m", "--server", archive.url(), "--json", cwd=tmp_path)
    gate.set()
    assert code == 6
    assert "held by process" in err
    assert rows(out)[-1]["state"] == "failed"
    assert await first.communicate() == (b"", b"")
    assert first.returncode == 0


@pytest.mark.asyncio
async def test_json_into_a_pipe_that_is_closed_does_not_end_the_run(archive, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "sync", "--all", "--to", "m", "--server", archive.url(), "--json",
        cwd=tmp_path, env=CLEAN | NO_FSYNC, stdout=writer, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(writer)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert len(list((tmp_path / "m").rglob("*.dcm"))) == 32
