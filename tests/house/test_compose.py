"""config/compose.yaml: valid by the schema of the Compose specification, and two containers that go together."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
FILE = PROJECT / "config" / "compose.yaml"
COMPOSE = yaml.safe_load(FILE.read_text("utf-8"))


def _check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_the_file_is_valid():
    done = _check(FILE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_that_is_not_valid_is_seen(tmp_path):
    wrong = copy.deepcopy(COMPOSE)
    wrong["services"]["serve"]["stop_grace_periode"] = "30s"
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(wrong), "utf-8")
    done = _check(tmp_path / "compose.yaml")
    assert done.returncode == 1
    assert "stop_grace_periode" in done.stdout + done.stderr


def _composes() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _composes(), reason="no docker compose")
def test_docker_takes_the_file():
    command = ["docker", "compose", "--file", str(FILE), "--profile", "sync", "config", "--services"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, set(done.stdout.split())) == (0, {"sync", "serve"}), done.stderr


@pytest.mark.parametrize("name", ["sync", "serve"])
def test_containers_are_shut_in(name):
    service = COMPOSE["services"][name]
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert service["image"] == f"tcia-mirror:{version}"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.search(r":-[1-9]\d*:[1-9]\d*}$", service["user"])
    assert {"mem_limit", "pids_limit", "stop_grace_period"} <= service.keys()
    assert (FILE.parent / service["build"]["context"] / "Dockerfile").exists()


def test_both_have_the_same_mirror():
    sync, serve = (COMPOSE["services"][name] for name in ("sync", "serve"))
    [data] = [volume for volume in sync["volumes"] if volume["target"] == "/data"]
    assert sync["environment"]["TCIA_MIRROR_TO"] == "/data"
    # A reader of a ledger that is written has to take part in its locks: not read_only.
    assert serve["volumes"] == [data]
    assert "read_only" not in data
    assert serve["command"][serve["command"].index("--from") + 1] == "/data"
    [settings] = [volume for volume in sync["volumes"] if volume is not data]
    assert settings["read_only"] is True
    assert (FILE.parent / settings["source"]).exists()
    assert sync["command"][sync["command"].index("--config") + 1] == settings["target"]


def test_only_this_machine_is_served():
    serve = COMPOSE["services"]["serve"]
    [port] = serve["ports"]
    assert port == f"127.0.0.1:8042:{serve['command'][serve['command'].index('--port') + 1]}"
    assert serve["restart"] == "unless-stopped"
    # A sync that failed for good must not come back at once, again and again.
    assert COMPOSE["services"]["sync"]["restart"] == "no"


def test_without_a_token_none_is_asked_for():
    [secret] = COMPOSE["services"]["sync"]["secrets"]
    given = COMPOSE["services"]["sync"]["environment"]["TCIA_MIRROR_ARCHIVE_TOKEN_FILE"]
    assert given == f"${{TCIA_TOKEN_FILE:+/run/secrets/{secret}}}"
    assert COMPOSE["secrets"] == {secret: {"file": "${TCIA_TOKEN_FILE:-/dev/null}"}}
