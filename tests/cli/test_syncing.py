"""What the sync command does around the engine: signals, errors, the last line. The engine here is a stand-in."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest

from mirror.cli.syncing import Engine, sync_command
from mirror.errors import ExitCode, Locked, SettingsError, Unreachable
from mirror.events import CollectionPlanned, EventSink, Noticed, Planned, RunStarted
from mirror.model import Finding, FindingKind, Scope
from mirror.report import Reporter, RunState
from mirror.settings import ReportSettings, Settings

SCOPE = Scope(collections=("A",))


@pytest.fixture
def command(tmp_path):
    """The sync command with an engine of the test's own."""

    def command(engine: Engine, **options: Any) -> int:
        asked = {"dry_run": False, "as_json": False, "quiet": False} | options
        return sync_command(engine, Settings(to=str(tmp_path)), SCOPE, **asked)

    return command


def begun(sink: EventSink, root: Path) -> Reporter:
    """A reporter that was told, as `sink` is, that a run began in `root`."""
    (root / ".mirror").mkdir(exist_ok=True)
    reporter = Reporter()
    for told in (sink, reporter):
        told(RunStarted(run="r1", server="http://a/", root=str(root), scope="A", connections=2))
    return reporter


def ends(state: RunState, code: ExitCode, *findings: Finding) -> Engine:
    async def engine(root, scope, settings, *, token, sink, stop, dry_run):
        reporter = begun(sink, root)
        for finding in findings:
            reporter(Noticed(finding=finding))
        return reporter.finish(state, code, bytes_held=2_000_000)

    return engine


def fails(error: Exception) -> Engine:
    async def engine(root, scope, settings, *, token, sink, stop, dry_run):
        begun(sink, root)
        raise error

    return engine


def last_row(out: str) -> dict[str, Any]:
    return json.loads(out.splitlines()[-1])


def test_what_the_engine_is_given(command, tmp_path, monkeypatch):
    seen: list[Any] = []

    async def engine(root, scope, settings, *, token, sink, stop, dry_run):
        seen.extend([root, scope, token, stop.is_set(), dry_run])
        return begun(sink, root).finish("complete", ExitCode.COMPLETE)

    monkeypatch.setenv("TCIA_MIRROR_TOKEN", "s3cret")
    assert command(engine, dry_run=True) == 0
    assert seen == [tmp_path, SCOPE, "s3cret", False, True]


def test_the_exit_code_is_the_reports_and_a_summary_ends_the_run(command, capsys):
    found = [Finding(kind=FindingKind.UNAVAILABLE, detail=f"status {n}", sop_instance_uid=f"1.{n}") for n in range(12)]
    assert command(ends("incomplete", ExitCode.INCOMPLETE, *found)) == 3
    out, err = capsys.readouterr()
    assert err.startswith("run r1: A from http://a/ to ")
    lines = out.splitlines()
    assert lines[0].startswith("incomplete after ")
    assert "  bytes      0 B fetched, 2.0 MB held" in lines
    assert "  findings   12" in lines
    assert lines[-3:] == [
        "    unavailable: status 8 [1.8]",
        "    unavailable: status 9 [1.9]",
        "    and 2 more, see .mirror/runs/r1.json",
    ]


def test_quiet_prints_nothing(command, capsys):
    assert command(ends("complete", ExitCode.COMPLETE), quiet=True) == 0
    assert capsys.readouterr() == ("", "")


def test_the_last_json_line_is_the_report(command, capsys):
    assert command(ends("complete", ExitCode.COMPLETE), as_json=True) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out.splitlines()[0])["event"] == "run-started"
    assert (last_row(out)["state"], last_row(out)["exit_code"], last_row(out)["run"]) == ("complete", 0, "r1")


def test_a_run_that_fails_has_a_report_too(command, capsys, tmp_path):
    with pytest.raises(Unreachable, match="no route"):
        command(fails(Unreachable("no route")), as_json=True)
    row = last_row(capsys.readouterr().out)
    assert (row["state"], row["exit_code"], row["error"]) == ("failed", 5, "no route")
    assert json.loads((tmp_path / ".mirror" / "runs" / "r1.json").read_text()) == row


def test_an_error_in_a_group_is_told_as_itself(command):
    group = ExceptionGroup("tasks", [ExceptionGroup("tasks", [Unreachable("one"), Unreachable("two")])])
    with pytest.raises(Unreachable, match="one"):
        command(fails(group), quiet=True)
    with pytest.raises(ZeroDivisionError):
        command(fails(ExceptionGroup("tasks", [ZeroDivisionError()])), quiet=True)


@pytest.mark.parametrize(("error", "dry_run"), [(Locked("held"), False), (Unreachable("gone"), True)])
def test_no_report_is_put_into_a_mirror_that_is_not_this_runs_to_change(command, tmp_path, error, dry_run):
    with pytest.raises(type(error)):
        command(fails(error), quiet=True, dry_run=dry_run)
    assert list((tmp_path / ".mirror").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_the_run_to_stop(command, capsys, number):
    async def engine(root, scope, settings, *, token, sink, stop, dry_run):
        reporter = begun(sink, root)
        os.kill(os.getpid(), number)
        await stop.wait()
        return reporter.finish("interrupted", ExitCode.INTERRUPTED)

    assert command(engine) == 130
    out, err = capsys.readouterr()
    assert "stopping: what is in flight is being finished" in err
    assert out.startswith("interrupted after ")


def test_the_second_signal_ends_it(command, capsys, tmp_path):
    ended: list[str] = []

    async def engine(root, scope, settings, *, token, sink, stop, dry_run):
        begun(sink, root)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await stop.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await anyio.sleep_forever()
        finally:
            ended.append("cleaned up")

    assert command(engine, as_json=True) == 130
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ended == ["cleaned up"]
    assert [row.get("event") for row in rows] == ["run-started", "stopping", None]
    assert (rows[-1]["state"], rows[-1]["exit_code"]) == ("interrupted", 130)
    assert json.loads((tmp_path / ".mirror" / "runs" / "r1.json").read_text()) == rows[-1]


def test_a_dry_run_prints_the_plan(command, capsys):
    async def engine(root, scope, settings, *, token, sink, stop, dry_run):
        reporter = begun(sink, root)
        sink(CollectionPlanned(collection="Z", new=1, objects=None, bytes=None))
        sink(
            CollectionPlanned(collection="A [x]", new=1200, changed=2, unfinished=3, kept=4, objects=5000, bytes=10**9)
        )
        sink(Planned(collections=2, series=1206, kept=4, objects=None, bytes=3 * 10**9, free=2 * 10**9))
        return reporter.finish("planned", ExitCode.COMPLETE)

    assert command(engine, dry_run=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["collection", "new", "changed", "unfinished", "kept", "objects", "bytes"]
    assert lines[2].split() == ["A", "[x]", "1,200", "2", "3", "4", "5,000", "1.0", "GB"]
    assert lines[3].split() == ["Z", "1", "0", "0", "0", "?", "?"]
    assert lines[4:] == [
        "plan: 1,206 series to fetch in 2 collections, ? objects, 3.0 GB; 4 series kept",
        "free space: 2.0 GB, which is not enough",
    ]


def test_a_plan_tells_of_withdrawals_where_there_are_any(command, capsys):
    async def engine(root, scope, settings, *, token, sink, stop, dry_run):
        reporter = begun(sink, root)
        sink(CollectionPlanned(collection="A", kept=4, missing=3, withdraw=2, objects=0, bytes=0))
        sink(Planned(collections=1, series=0, kept=4, objects=0, bytes=0, free=10))
        return reporter.finish("planned", ExitCode.COMPLETE)

    assert command(engine, dry_run=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[4:] == ["kept", "missing", "withdraw", "objects", "bytes"]
    assert lines[2].split() == ["A", "0", "0", "0", "4", "3", "2", "0", "0", "B"]
    assert lines[3] == "plan: 0 series to fetch in 1 collections, 0 objects, 0 B; 4 series kept, 2 to withdraw"


def test_a_dry_run_is_told_to_nobody(tmp_path, capsys):
    metrics = tmp_path / "m.prom"
    watched = ReportSettings(notify_url="http://127.0.0.1:9/", metrics_file=str(metrics))
    settings = Settings(to=str(tmp_path), report=watched)
    engine = ends("planned", ExitCode.COMPLETE)
    assert sync_command(engine, settings, SCOPE, dry_run=True, as_json=False, quiet=True) == 0
    assert (capsys.readouterr().err, metrics.exists()) == ("", False)


def test_a_run_needs_a_folder():
    with pytest.raises(SettingsError, match="--to ROOT"):
        sync_command(ends("complete", ExitCode.COMPLETE), Settings(), SCOPE, dry_run=False, as_json=False, quiet=False)
