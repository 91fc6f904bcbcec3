"""The units in config/: systemd takes them, they may do little, and every exit code has its answer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.errors import ExitCode

CONFIG = Path(__file__).parents[2] / "config"
UNITS = ("tcia-mirror.service", "tcia-mirror.timer")
#: Where the units' command is said to be.
INSTALLED = "/opt/tcia-mirror/bin/tcia-mirror"
#: The highest exposure that we accept, in tenths; the network alone is 8.
EXPOSURE = 13


def _analyze(*arguments: str, units: Path | None = None) -> subprocess.CompletedProcess[str]:
    # The colon at the end: and where units lie by default.
    environ = {"SYSTEMD_UNIT_PATH": f"{units}:", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, env=environ, timeout=100)


def _version() -> int:
    if shutil.which("systemd-analyze") is None:
        return 0
    told = re.match(r"systemd (\d+)", _analyze("--version").stdout)
    return int(told[1]) if told else 0


needs_systemd = pytest.mark.skipif(_version() < 250, reason="no systemd-analyze, or one that cannot look at files")


def _values(name: str, key: str, *, file: str = "tcia-mirror.service") -> list[str]:
    text = (CONFIG / file).read_text("utf-8")
    section = re.search(rf"^\[{name}\]$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    return re.findall(rf"^{key}=(.*)$", section[1], re.MULTILINE)


@pytest.fixture
def units(tmp_path) -> Path:
    """The units as they would be installed, with a command that is there."""
    for name in UNITS:
        text = (CONFIG / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace(INSTALLED, sys.executable), "utf-8")
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("token", [False, True], ids=["plain", "with a token"])
def test_systemd_takes_the_units(units, token):
    if token:
        shutil.copytree(CONFIG / "tcia-mirror.service.d", units / "tcia-mirror.service.d")
    done = _analyze("verify", "--man=no", *(str(units / name) for name in UNITS), units=units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("tcia-mirror.service", "ProtectClock=yes", "ProtectClocks=yes"),
        ("tcia-mirror.service", "Restart=on-failure", "Restart=always"),
        ("tcia-mirror.timer", "02:15", "25:15"),
    ],
    ids=["unknown", "not for oneshot", "no time"],
)
def test_units_that_systemd_does_not_take_are_seen(units, name, right, wrong):
    text = (units / name).read_text("utf-8")
    assert right in text
    (units / name).write_text(text.replace(right, wrong), "utf-8")
    done = _analyze("verify", "--man=no", *(str(units / name) for name in UNITS), units=units)
    assert done.stdout + done.stderr != ""


@needs_systemd
def test_the_service_may_do_little(units):
    command = ("security", "--offline=yes", "--no-pager", f"--threshold={EXPOSURE}")
    done = _analyze(*command, str(units / UNITS[0]), units=units)
    assert done.returncode == 0, done.stdout
    text = (units / UNITS[0]).read_text("utf-8")
    (units / UNITS[0]).write_text(text.replace("NoNewPrivileges=yes\n", "").replace("CapabilityBoundingSet=\n", ""))
    assert _analyze(*command, str(units / UNITS[0]), units=units).returncode != 0


def _codes(key: str) -> set[int]:
    return {int(code) for value in _values("Service", key) for code in value.split()}


def test_every_exit_code_has_its_answer():
    fine, final = _codes("SuccessExitStatus"), _codes("RestartPreventExitStatus")
    assert {ExitCode.LOCKED, ExitCode.INTERRUPTED} <= fine
    assert final == {ExitCode.BUG, ExitCode.USAGE, ExitCode.INCOMPLETE, ExitCode.DAMAGE, ExitCode.DISK}
    assert fine & final == set()
    # What is left is tried again.
    assert {int(code) for code in ExitCode} - fine - final - {0} == {ExitCode.UNREACHABLE}
    assert _values("Service", "Restart") == ["on-failure"]
    assert int(_values("Unit", "StartLimitBurst")[0]) >= 2


def test_a_stop_has_time_to_finish_what_is_in_flight():
    assert _values("Service", "TimeoutStopSec") == ["5min"]
    assert _values("Service", "TimeoutStartSec") == ["infinity"]
    # One signal, to the one process: a second one would end it at once.
    assert _values("Service", "KillMode") == ["mixed"]


def test_the_mirror_s_folder_is_the_one_that_can_be_written():
    [folder] = re.findall(r'^to = "(.+)"$', (CONFIG / "nightly.toml").read_text("utf-8"), re.MULTILINE)
    assert _values("Service", "ReadWritePaths") == _values("Unit", "RequiresMountsFor") == [folder]
    assert _values("Service", "ProtectSystem") == ["strict"]


def test_the_token_is_a_credential():
    file = "tcia-mirror.service.d/token.conf"
    [credential] = _values("Service", "LoadCredential", file=file)
    name, _, _ = credential.partition(":")
    assert _values("Service", "Environment", file=file) == [f"TCIA_MIRROR_ARCHIVE_TOKEN_FILE=%d/{name}"]
