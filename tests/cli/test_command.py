"""The installed command as a process: what it prints, where, and what it exits with."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.process import unmeasured

from mirror.archive.dialects import NBIA_PREFIX, TCIA_PREFIX

PROGRAM = str(Path(sys.executable).with_name("tcia-mirror"))
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("TCIA_MIRROR_")}


def environ(**variables: str) -> dict[str, str]:
    return CLEAN | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"} | variables


def run(*args: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run to the end, unmeasured: `run_async` and the tests of streams and of sync see the same lines of code."""
    return subprocess.run(
        [PROGRAM, *args], cwd=cwd, env=unmeasured(environ(**variables)), capture_output=True, text=True, timeout=100
    )


async def run_async(*args: str, **variables: str) -> tuple[int, bytes, str]:
    """As `run`, beside an archive that lives in this process."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *args, env=environ(**variables), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out, err.decode()


@pytest.fixture
def mirror(stocked, tmp_path):
    """The folder of a small mirror that nobody serves."""
    return shutil.copytree(stocked, tmp_path / "held")


def test_version(tmp_path):
    done = run("--version", cwd=tmp_path)
    assert done.returncode == 0
    assert re.fullmatch(r"tcia-mirror \d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "sync",
            "--to --server --dialect --all --patient --modality --body-part --manufacturer --released-since"
            " --exclude-collection --exclude-modality --series --manifest --list --job --connections --rate"
            " --bandwidth --polite"
            " --transport --layout --dry-run --config --json --quiet --notify-url --metrics-file",
        ),
        ("log", "--to --since --limit --reverse --json"),
        ("diff", "--to --other --manifest --server --dialect --config --whole --format --instances"),
        ("prune", "--to --older-than --config --dry-run --json"),
        ("export", "--to --format --output"),
        ("status", "--to --json --max-age"),
        ("query", "--server --dialect --format --metadata"),
        ("serve", "--from --host --port"),
        ("demo", "--keep"),
    ],
)
def test_help_names_every_option(tmp_path, command, options):
    done = run(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert set(options.split()) <= set(re.findall(r"--[a-z-]+", done.stdout))
    assert done.stderr == ""


def test_help_names_every_command_and_exit_code(tmp_path):
    done = run("--help", cwd=tmp_path)
    for command in ("sync", "log", "diff", "prune", "export", "status", "query", "serve", "demo"):
        assert re.search(rf"\b{command}\b", done.stdout)
    assert "130 interrupted" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    "args",
    [
        ("sync", "--no-such-option"),
        ("no-such-command",),
        ("export",),
        ("sync", "--connections", "many"),
        ("serve", "--from", ".", "--port", "65536"),
    ],
)
def test_wrong_usage_exits_2_and_says_so_on_stderr(tmp_path, args):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("sync", "--to", "m"), "nothing says which part of the archive to mirror"),
        (("sync", "A"), "nothing says where the mirror is"),
        (("sync", "A", "--all", "--to", "m"), "exclude each other"),
        (
            ("sync", "A", "--to", "m", "--connections", "999"),
            "option --connections: 999 is not right; it should be a whole",
        ),
        (
            ("sync", "A", "--to", "m", "--bandwidth", "08:00-18:00 fast"),
            "option --bandwidth: '08:00-18:00 fast' is not right: 'fast' is no rate",
        ),
        (
            ("sync", "A", "--to", "m", "--transport", "ftp"),
            "option --transport: 'ftp' is not right; it should be one of",
        ),
        (("sync", "A", "--config", "none.toml"), "none.toml: cannot read the settings: No such file"),
        (("sync", "A", "--config", "bad.toml"), "bad.toml: unknown key archive.conections; did you mean"),
        (("sync", "A", "--config", "broken.toml"), "broken.toml: is not valid TOML"),
        (
            ("sync", "A", "--to", "m", "--notify-url", "hooks/s3cret"),
            "report.notify_url: is not the URL of a webhook; it should be http://... or https://...",
        ),
        (("status", "--to", "."), "no mirror here"),
        (("status", "--to", ".", "--max-age", "soon"), "option --max-age: 'soon' is not right; it should be a length"),
        (("export", "--to", ".", "--format", "xls"), "'xls'"),
        (("export", "--to", ".", "--format", "csv"), "no mirror here"),
        (("serve", "--from", ".", "--port", "0"), "no mirror here"),
        (("query", "getSeris"), "did you mean getSeries?"),
        (("query", "getSeries", "Collection"), "'Collection' is no parameter; it should be KEY=VALUE"),
        (("query", "getSeries", "Modality=CT", "Modality=MR"), "the parameter Modality is given twice"),
        (("query", "getSeries", "--format", "yaml"), "option --format: 'yaml'"),
        (("query", "getSeries", "--server", "nbai"), "did you mean 'nbia'?"),
    ],
)
def test_wrong_settings_exit_2_with_one_clear_message(tmp_path, args, words):
    (tmp_path / "bad.toml").write_text("[archive]\nconections = 3\n")
    (tmp_path / "broken.toml").write_text("[archive\n")
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("tcia-mirror: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.toml", "broken.toml"]


def test_a_wrong_variable_exits_2_and_a_token_is_never_shown(tmp_path):
    done = run("sync", "A", "--to", "m", cwd=tmp_path, TCIA_MIRROR_LAYOUT="uid", TCIA_MIRROR_TOKEN="s3cret")
    assert done.returncode == 2
    assert "unknown environment variable TCIA_MIRROR_LAYOUT; did you mean TCIA_MIRROR_SYNC_LAYOUT?" in done.stderr
    done = run("query", "getSeries", cwd=tmp_path, TCIA_MIRROR_TOKEN="s3cret with blanks")
    assert done.returncode == 2
    assert "s3cret" not in done.stdout + done.stderr


def test_status_tells_what_is_held(mirror, tmp_path):
    done = run("status", "--to", str(mirror), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (alpha,) = (line for line in lines if line.startswith("Lung-Alpha"))
    assert alpha.split()[1:7] == ["4", "4", "0", "0", "0", "12"]
    assert lines[-1].split()[:7] == ["total", "7", "7", "0", "0", "0", "32"]


def test_status_in_json_has_raw_numbers(mirror, tmp_path):
    done = run("status", "--json", cwd=tmp_path, TCIA_MIRROR_TO=str(mirror))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert list(told) == [
        "root",
        "server",
        "source_chain",
        "layout",
        "last_complete",
        "age_seconds",
        "collections",
        "total",
    ]
    assert told["root"] == str(mirror)
    assert [c["collection"] for c in told["collections"]] == ["Brain Beta", "Lung-Alpha"]
    size = sum(p.stat().st_size for p in mirror.rglob("*.dcm"))
    assert told["total"]["bytes"] == sum(c["bytes"] for c in told["collections"]) == size > 0
    assert told["collections"][0]["instances"] == 20


def test_export_says_what_it_wrote(mirror, tmp_path):
    done = run("export", "--to", str(mirror), "--format", "sha256", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"wrote {mirror / 'SHA256SUMS'} (32 rows)\n")
    checked = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=mirror, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, b"")


@pytest.mark.asyncio
async def test_query_gives_the_answer_byte_for_byte(archive):
    code, out, err = await run_async("query", "getCollectionValues", "--server", archive.url("tcia"))
    assert (code, err) == (0, "")
    assert json.loads(out) == [{"Collection": "Brain Beta"}, {"Collection": "Lung-Alpha"}]
    uid, (series, body) = next(iter(archive.files().items()))
    code, out, err = await run_async(
        "query", "getSingleImage", f"SeriesInstanceUID={series}", f"SOPInstanceUID={uid}",
        TCIA_MIRROR_ARCHIVE_SERVER=archive.url("nbia"),
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out == body


@pytest.mark.asyncio
async def test_query_says_what_the_server_refused(archive):
    code, out, err = await run_async("query", "getSeries", "Color=red", "--server", archive.url("nbia"))
    assert (code, out) == (2, b"")
    assert "getSeries has no parameter 'Color'; it takes: Collection" in err


@pytest.mark.asyncio
async def test_a_reader_that_leaves_early_is_no_error(archive):
    reader, writer = os.pipe()
    os.close(reader)
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "query", "getSeries", "--server", archive.url("nbia"),
        env=environ(), stdout=writer, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(writer)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


def test_an_archive_that_is_not_there_exits_5(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{taken.getsockname()[1]}"
        waits = {"TCIA_MIRROR_ARCHIVE_RETRY_WAIT": "0.01", "TCIA_MIRROR_ARCHIVE_RETRY_MAX_WAIT": "0.05"}
        done = run("query", "getCollectionValues", "--server", base, cwd=tmp_path, **waits)
    assert done.returncode == 5
    assert done.stderr.startswith("tcia-mirror: getCollectionValues")
    assert len(done.stderr.splitlines()) == 1


def test_serve_tells_both_bases_and_ends_at_a_signal(mirror, tmp_path):
    with subprocess.Popen(
        [PROGRAM, "serve", "--from", str(mirror), "--port", "0"],
        env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        nbia, tcia = (process.stdout.readline().split() for _ in range(2))
        assert (nbia[0], tcia[0]) == ("nbia", "tcia")
        assert nbia[1].endswith(NBIA_PREFIX)
        assert tcia[1].endswith(TCIA_PREFIX)
        for base in (nbia[1], tcia[1]):
            done = run("query", "getCollectionValues", "--server", base, cwd=tmp_path)
            assert [row["Collection"] for row in json.loads(done.stdout)] == ["Brain Beta", "Lung-Alpha"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""


def test_serve_on_a_taken_port_says_which(mirror, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--from", str(mirror), "--port", str(port), cwd=tmp_path)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in done.stderr
