"""What is in the repository, and what must not be."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mirror
from mirror.cli import healthcheck

PROJECT = Path(__file__).parents[2]
#: What is made on a working machine, for a clone without git.
_MADE = {".git", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "dist", "build"}


def _files() -> list[Path]:
    """What git has and what would be added to it; all that lies here where there is no git."""
    if shutil.which("git") and (PROJECT / ".git").exists():
        listed = subprocess.run(
            ["git", "-c", f"safe.directory={PROJECT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=PROJECT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        found = [PROJECT / name for name in listed.split("\0") if name]
    else:
        found = [p for p in PROJECT.rglob("*") if not _MADE.intersection(p.relative_to(PROJECT).parts)]
    return sorted(path for path in found if path.is_file())


FILES = _files()
TEXTS = {
    str(path.relative_to(PROJECT)): path.read_text("utf-8")
    for path in FILES
    if b"\0" not in path.read_bytes()[:8000] and path != Path(__file__)
}

#: A path of one machine: a home, a work tree, a temporary folder with more behind it.
MACHINE_PATH = re.compile(r"(?<![\w.:/>}])/(home|root|Users|work|tmp|mnt|private)/[\w.]")
#: Where packages and images come from is the affair of whoever installs.
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|index-url|find-links|registry\.npmjs|ghcr\.io|quay\.io|docker\.io|gcr\.io"
    r"|artifactory|nexus\.|proxy\.golang|crates\.io",
    re.IGNORECASE,
)


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine path", "registry"])
def test_nothing_of_one_place(pattern):
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in TEXTS.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_the_patterns_see_what_they_are_for():
    # Put together here, so that no file holds what they look for, this one included.
    for folder in ("home", "root", "Users", "work", "tmp", "mnt", "private"):
        for text in (f"cd /{folder}/someone", f'"/{folder}/.tree"'):
            assert MACHINE_PATH.search(text), text
    for text in ("--tmpfs /tmp", "mountPath: /tmp}", f"a/{'work'}/b", f"https://host/{'home'}/page", "/srv/tcia"):
        assert not MACHINE_PATH.search(text), text
    assert REGISTRY.search(f"pip install --{'index'}-{'url'} somewhere")


def test_no_large_file():
    assert [str(path) for path in FILES if path.stat().st_size > 1_000_000] == []


def test_texts_end_with_one_newline_and_have_no_trailing_blanks():
    bad = [
        name
        for name, text in TEXTS.items()
        if not name.startswith("tests/data/")
        and text
        and (not text.endswith("\n") or re.search(r"[ \t]+$", text, re.MULTILINE))
    ]
    assert bad == []


def test_the_changelog_has_what_is_unreleased_on_top():
    text = (PROJECT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "Unreleased"
    released = [re.fullmatch(r"(\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)", heading) for heading in headings[1:]]
    assert all(released)
    assert "CHANGELOG.md merge=union" in (PROJECT / ".gitattributes").read_text("utf-8")


def test_the_design_can_be_read_in_an_hour():
    assert 50 <= len((PROJECT / "docs" / "design.md").read_text("utf-8").splitlines()) <= 300


def test_public_names():
    assert mirror.__all__ == sorted(mirror.__all__)
    assert len(set(mirror.__all__)) == len(mirror.__all__)
    module = importlib.import_module("mirror")
    missing = [name for name in mirror.__all__ if not (getattr(module, name, None) is not None)]
    assert missing == []
    assert {"sync", "status", "read_manifest", "query", "run"} <= set(mirror.__all__)
    undocumented = [name for name in mirror.__all__ if not (getattr(mirror, name).__doc__ or "").strip()]
    assert undocumented == []


def test_every_tool_s_settings_are_in_pyproject():
    others = {".coveragerc", "mypy.ini", "pytest.ini", "ruff.toml", ".ruff.toml", "setup.cfg", "setup.py", "tox.ini"}
    assert others & {path.name for path in FILES} == set()
    tools = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["tool"]
    assert {"ruff", "mypy", "pytest", "coverage"} <= set(tools)
    assert tools["coverage"]["report"]["fail_under"] >= 80
    assert tools["coverage"]["run"]["branch"] is True


def test_the_licence_is_the_one_that_is_named():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    text = (PROJECT / "LICENSE").read_text("utf-8")
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def _dockerfile() -> list[tuple[str, str]]:
    text = (PROJECT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_the_image_is_made_of_what_is_here():
    ignored = (PROJECT / ".dockerignore").read_text("utf-8").splitlines()
    sources = [
        source
        for instruction, rest in _dockerfile()
        if instruction == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    ]
    assert sources == ["pyproject.toml", "README.md", "LICENSE", "mirror", "mirror/cli/healthcheck.py"]
    for source in sources:
        assert (PROJECT / source).exists()
        assert f"!{source.partition('/')[0]}" in ignored


def test_the_image_runs_our_command_as_nobody_special():
    instructions = _dockerfile()
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    last = {instruction: rest for instruction, rest in instructions}  # noqa: C416 - the last of each counts
    assert last["ENTRYPOINT"] == '["tcia-mirror"]'
    assert "tcia-mirror" in scripts
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert last["VOLUME"] == "/data"
    bases = [rest for instruction, rest in instructions if instruction == "FROM"]
    assert bases == ["python:3.12-slim AS base", "base AS build", "base"]
    order = [instruction for instruction, _ in instructions]
    assert order.index("USER") > max(n for n, instruction in enumerate(order) if instruction == "RUN")


def test_the_image_says_which_version_it_is_and_how_it_does():
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    instructions = _dockerfile()
    assert ("ARG", f"VERSION={version}") in instructions
    assert ("EXPOSE", str(healthcheck.PORT)) in instructions
    assert ("STOPSIGNAL", "SIGTERM") in instructions
    [check] = [rest for instruction, rest in instructions if instruction == "HEALTHCHECK"]
    timeout = re.search(r"--timeout=(\d+)s", check)
    assert timeout is not None
    assert int(timeout[1]) > healthcheck.PATIENCE


def test_the_health_check_stands_alone():
    """It is copied out of the package: it must run without it, and without anything that is installed."""
    script = PROJECT / "mirror" / "cli" / "healthcheck.py"
    program = "import runpy, sys; print(runpy.run_path(sys.argv[1])['PORT'])"
    command = [sys.executable, "-I", "-S", "-c", program, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert (done.stdout, done.stderr) == (f"{healthcheck.PORT}\n", "")


def test_scripts_can_be_run():
    scripts = sorted((PROJECT / ".ci").iterdir())
    assert PROJECT / ".ci" / "run" in scripts
    for script in scripts:
        assert os.access(script, os.X_OK)
    for script in (*scripts, PROJECT / "config" / "slurm.sbatch"):
        done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
