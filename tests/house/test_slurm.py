"""config/slurm.sbatch as a script, with a Slurm that only notes what it is told. `.ci/slurm` has a real one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "config" / "slurm.sbatch"
REQUEUED = "requeue 17\n"


@pytest.fixture
def environ(tmp_path) -> dict[str, str]:
    """A PATH with a scontrol that notes its arguments, and a tcia-mirror that ends at once with what is asked of it, or
    as the real one does at SIGTERM, telling how often it got one.
    """
    (tmp_path / "scontrol").write_text(f'#!/bin/bash\necho "$@" >>"{tmp_path}/told"\n')
    (tmp_path / "tcia-mirror").write_text(
        "#!/bin/bash\n"
        '[[ -z ${ENDS_WITH:-} ]] || exit "$ENDS_WITH"\n'
        "terms=0\n"
        "trap 'terms=$((terms + 1))' TERM\n"
        f'echo "$@" >"{tmp_path}/begun"\n'
        "while ((terms == 0)); do sleep 0.05; done\n"
        "sleep 0.3\n"
        f'echo "$terms" >"{tmp_path}/terms"\n'
        "exit 130\n"
    )
    for name in ("scontrol", "tcia-mirror"):
        (tmp_path / name).chmod(0o755)
    return {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "17"}


def _told(folder: Path) -> str:
    return (folder / "told").read_text() if (folder / "told").exists() else ""


@pytest.mark.parametrize(
    ("code", "restarts", "told"),
    [
        (0, "", ""),
        (1, "", ""),
        (2, "", ""),
        (3, "", ""),
        (5, "", REQUEUED + "update JobId=17 StartTime=now+60minutes\n"),
        (5, "98", REQUEUED + "update JobId=17 StartTime=now+60minutes\n"),
        (5, "99", ""),
        (6, "", ""),
        (7, "", ""),
        (130, "", ""),
    ],
)
def test_the_job_ends_as_the_sync_does_and_comes_back_where_that_helps(environ, tmp_path, code, restarts, told):
    environ |= {"ENDS_WITH": str(code)} | ({"SLURM_RESTART_COUNT": restarts} if restarts else {})
    done = subprocess.run(["bash", str(SCRIPT)], cwd=tmp_path, env=environ, capture_output=True, timeout=60)
    assert (done.returncode, _told(tmp_path)) == (code, told)


def _signalled(environ: dict[str, str], folder: Path, *signals: signal.Signals, group: bool = False) -> int:
    """The job's exit code when it gets these signals at work; `group`: its every process gets them."""
    with subprocess.Popen(["bash", str(SCRIPT)], cwd=folder, env=environ, start_new_session=True) as job:
        while not (folder / "begun").exists():
            assert job.poll() is None
            time.sleep(0.02)
        for number in signals:
            (os.killpg if group else os.kill)(job.pid, number)
        return job.wait(timeout=60)


def test_a_job_whose_time_is_up_stops_the_sync_and_comes_back(environ, tmp_path):
    assert _signalled(environ, tmp_path, signal.SIGUSR1) == 130
    assert _told(tmp_path) == REQUEUED
    assert (tmp_path / "terms").read_text() == "1\n"


def test_a_job_that_is_cancelled_stops_and_does_not_come_back(environ, tmp_path):
    assert _signalled(environ, tmp_path, signal.SIGTERM, group=True) == 130
    assert _told(tmp_path) == ""
    # Slurm's own; one that the script passed on as well would be the second, which ends a sync at once.
    assert (tmp_path / "terms").read_text() == "1\n"


def test_the_sync_is_told_where_and_what(environ, tmp_path):
    environ |= {"TCIA_MIRROR_CONFIG": "a b.toml", "SCRATCH": "/scratch/me"}
    assert _signalled(environ, tmp_path, signal.SIGUSR1) == 130
    assert (tmp_path / "begun").read_text() == "sync --config a b.toml --to /scratch/me/tcia --json\n"


def _directives() -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]


def test_slurm_signals_the_script_alone_and_early_enough():
    directives = _directives()
    [told] = [d for d in directives if d.startswith("--signal=")]
    shell, _, number = told.removeprefix("--signal=").partition(":")
    name, _, seconds = number.partition("@")
    assert (shell, name) == ("B", "USR1")
    assert int(seconds) >= 120
    assert {"--requeue", "--open-mode=append", "--dependency=singleton"} <= set(directives)


def test_directives_stand_before_the_first_command():
    """Slurm reads none after it."""
    lines = SCRIPT.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert first > max(n for n, line in enumerate(lines) if line.startswith("#SBATCH"))
