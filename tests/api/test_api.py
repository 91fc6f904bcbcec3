"""The public functions, as a program and as a notebook call them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fakes.archive import FakeArchive
from fakes.faults import edit_rows
from fakes.servers import serving

import mirror


@pytest.mark.asyncio
async def test_sync_status_manifest_and_query_in_a_running_loop(archive: FakeArchive, tmp_path: Path) -> None:
    root = tmp_path / "mirror"
    report = await mirror.sync("lung-alpha", to=root, server=archive.url("nbia"))
    assert (report.state, report.exit_code) == ("complete", mirror.ExitCode.COMPLETE)

    (held,) = await mirror.status(root)
    assert held.collection == "Lung-Alpha"
    assert held.series == held.complete == report.series.complete

    rows = list(mirror.read_manifest(root))
    assert len(rows) == held.instances == report.instances.fetched
    assert all((root / row.path).stat().st_size == row.bytes for row in rows)

    patients = await mirror.query("getPatient", {"Collection": "Lung-Alpha"}, server=archive.url("tcia"))
    assert {row["PatientID"] for row in patients} == {row.patient_id for row in rows}


@pytest.mark.asyncio
async def test_run_works_inside_a_running_loop(archive: FakeArchive) -> None:
    # As in a notebook: the loop runs, and a plain call is made. The archive needs the loop meanwhile.
    asked = mirror.query("getCollectionValues", server=archive.url())
    rows = await asyncio.to_thread(mirror.run, asked)
    assert [row["Collection"] for row in rows] == ["Brain Beta", "Lung-Alpha"]

    async def answer() -> int:
        return 42

    assert mirror.run(answer()) == 42


def test_run_works_in_plain_code() -> None:
    async def answer() -> str:
        await asyncio.sleep(0)
        return "done"

    assert mirror.run(answer()) == "done"


@pytest.mark.asyncio
async def test_a_dry_run_leaves_no_trace(archive: FakeArchive, tmp_path: Path) -> None:
    report = await mirror.sync(all=True, to=tmp_path / "mirror", server=archive.url(), dry_run=True)
    assert report.state == "planned"
    assert report.series.planned == 7
    assert not (tmp_path / "mirror").exists()


@pytest.mark.asyncio
async def test_which_part_by_arguments_and_by_a_scope(archive: FakeArchive, tmp_path: Path) -> None:
    async def planned(**part: Any) -> int:
        report = await mirror.sync(to=tmp_path / "m", server=archive.url(), dry_run=True, **part)
        return report.series.planned

    assert await planned(all=True, manufacturers=["no-such*", "*"], released_since="2021-06-15") == 3
    scope = mirror.Scope(collections=("*",), exclude=mirror.Exclude(modalities=("MR",)))
    assert await planned(scope=scope) == 3
    archive.faults.add(
        "ContentsByName", edit_rows(lambda _: [{"SeriesInstanceUID": "1.2", "Collection": "A", "PatientID": "P"}])
    )
    assert await planned(lists=["mine"]) == 0


@pytest.mark.asyncio
async def test_what_is_wrong_is_said(archive: FakeArchive, tmp_path: Path) -> None:
    with pytest.raises(mirror.SettingsError, match="scope is empty"):
        await mirror.sync(to=tmp_path / "m", server=archive.url())
    with pytest.raises(mirror.SettingsError, match="leave the other arguments"):
        await mirror.sync("A", scope=mirror.Scope(all=True), to=tmp_path / "m", server=archive.url())
    with pytest.raises(mirror.SettingsError, match="released_since: '2021' is not right"):
        await mirror.sync(all=True, released_since="2021", to=tmp_path / "m", server=archive.url())
    with pytest.raises(mirror.SettingsError, match="no mirror here"):
        await mirror.status(tmp_path / "m")
    with pytest.raises(mirror.SettingsError, match="no manifest here"):
        list(mirror.read_manifest(tmp_path / "m"))
    with pytest.raises(mirror.SettingsError, match="answers no rows"):
        await mirror.query("getImage", {"SeriesInstanceUID": "1.2"}, server=archive.url())


@pytest.mark.asyncio
async def test_a_query_goes_where_its_settings_say_with_the_token_of_their_file(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response([{"Collection": "Only-Here"}])

    (tmp_path / "token").write_text("s3cret\n")
    async with serving(answer) as origin:
        settings = mirror.ArchiveSettings(server=origin, dialect="tcia", token_file=str(tmp_path / "token"))
        rows = await mirror.query("getCollectionValues", settings=settings)
    assert rows == [{"Collection": "Only-Here"}]
    assert seen == ["Bearer s3cret"]


def test_importing_the_package_is_cheap() -> None:
    heavy = "{'aiohttp', 'pydicom', 'rich', 'typer'} & set(sys.modules)"
    code = f"import sys, mirror; print(sorted({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
