"""README.md says what is so: its commands are run, its tables are the code's, its examples parse."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import readme_tables
from fakes.archive import FakeArchive
from fakes.dicom import make_collection
from fakes.process import unmeasured
from usages import check_usage, usages

from mirror.serve.rights import Rights

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text("utf-8")
BIN = Path(sys.executable).parent
CLEAN = {name: value for name, value in unmeasured().items() if not name.startswith("TCIA_MIRROR_")}

#: Commands that need the internet, an engine or another installation. They are held against what they name instead.
ELSEWHERE = re.compile(
    r"make |docker |kubectl |\S+ sbatch |python3 -m venv |"
    r"\.venv/bin/(pip|ruff|mypy|pytest) ?|.*--server (nbia|nlst|tcia|http)"
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the section it is in, and its text."""

    section: str
    language: str
    text: str

    def commands(self) -> list[str]:
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def _blocks(text: str) -> Iterator[Block]:
    section = ""
    for match in re.finditer(r"^## ([^\n]+)$|^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if match[1]:
            section = match[1]
        else:
            yield Block(section, match[2], match[3])


BLOCKS = list(_blocks(README))
COMMANDS = [(block.section, command) for block in BLOCKS if block.language == "sh" for command in block.commands()]
SECTIONS = list(dict.fromkeys(section for section, command in COMMANDS if not ELSEWHERE.match(command)))


def test_every_block_says_its_language():
    assert {block.language for block in BLOCKS} == {"sh", "python", "text", "toml"}


def test_the_file_of_tokens_is_one(tmp_path):
    (block,) = [block for block in BLOCKS if block.language == "toml"]
    (file := tmp_path / "tokens.toml").write_text(block.text, "utf-8")
    rights = Rights.read(str(file))
    assert rights.open_to("Bearer TOKEN") == ("*",)
    assert rights.open_to("Bearer other") == ("CPTAC-*",)


# Tables


def test_tables_are_the_code_s():
    assert readme_tables.with_tables(README) == README, "run: make readme"


def test_every_table_has_its_place():
    assert sorted(readme_tables.named_tables(README)) == sorted(readme_tables.TABLES)


def test_a_table_that_is_not_the_code_s_is_seen():
    assert "| 130 |" in README
    assert readme_tables.with_tables(README.replace("| 130 |", "| 131 |")) == README


# Commands that run


@dataclass(frozen=True)
class Upstream:
    """An archive with two collections that README speaks of, and a mirror of one of them."""

    url: str
    mirror: Path

    def environ(self, folder: Path) -> dict[str, str]:
        return CLEAN | {
            "PATH": f"{BIN}{os.pathsep}{CLEAN['PATH']}",
            "TCIA_MIRROR_ARCHIVE_SERVER": self.url,
            "TCIA_MIRROR_ARCHIVE_RATE": "0",
            "TCIA_MIRROR_TO": str(folder / "configured"),
        }


@contextmanager
def _serving(root: Path) -> Iterator[str]:
    """`tcia-mirror serve` on a free port; yields the base URL of its nbia dialect."""
    command = [str(BIN / "tcia-mirror"), "serve", "--from", str(root), "--port", "0"]
    with subprocess.Popen(command, env=CLEAN, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        dialect, url = process.stdout.readline().split()
        assert dialect == "nbia"
        try:
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def upstream(tmp_path_factory) -> Iterator[Upstream]:
    folder = tmp_path_factory.mktemp("readme")
    archive = FakeArchive(folder / "upstream")
    archive.stock("4D-Lung", make_collection(patients=1, series=2, instances=3, seed=1))
    archive.stock("CPTAC-LUAD", make_collection(patients=1, series=2, instances=2, seed=2))
    with _serving(folder / "upstream") as url:
        made = Upstream(url, folder / "tcia")
        _run("tcia-mirror sync 4D-Lung --to tcia --quiet", folder, made)
        yield made


def _run(command: str, folder: Path, upstream: Upstream) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=upstream.environ(folder),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def folder(upstream, tmp_path) -> Path:
    """Where a reader might stand: in the clone, with the mirror and the downloads that README speaks of."""
    (tmp_path / "config").symlink_to(PROJECT / "config")
    shutil.copytree(upstream.mirror, tmp_path / "tcia")
    shutil.copytree(upstream.mirror / "4D-Lung", tmp_path / "downloads")
    return tmp_path


#: Files in the mirrors that a section's commands end with: all of 4D-Lung and the CT of CPTAC-LUAD; the same from its
#: list; and what files with settings ask for, in "Use 2" and "Jobs" the CT of both collections.
FILES_AFTER = {
    "Use 1: mirror a collection": {"tcia": 8, "copy": 8, "configured": 4},
    "Use 2: every night": {"configured": 5},
    "Jobs": {"configured": 5, "tcia": 5},
    "Take over what you have": {"tcia": 6},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("section", SECTIONS)
def test_commands_of_a_section(upstream, folder, section):
    commands = [c.removeprefix(".venv/bin/") for s, c in COMMANDS if s == section and not ELSEWHERE.match(c)]
    if any(re.match(r"tcia-mirror sync (?!--to ).*--to tcia( |$)", command) for command in commands):
        shutil.rmtree(folder / "tcia")  # the section makes it itself
    for command in commands:
        if served := re.match(r"tcia-mirror serve --from (\S+)", command):
            with _serving(folder / served[1]):
                pass
        else:
            told = _run(command, folder, upstream)
            assert "complete after" in told or " sync " not in command or "--dry-run" in command
    for root, number in FILES_AFTER.get(section, {}).items():
        assert len((folder / root / "manifest.csv").read_text().splitlines()) == 1 + number


def test_sections_with_expectations_exist():
    assert set(FILES_AFTER) <= set(SECTIONS)


def test_what_is_on_disk_is_described(folder):
    described = next(block.text for block in BLOCKS if block.section == "What is on disk" and block.language == "text")
    found = [*(folder / "tcia").iterdir(), *(folder / "tcia" / ".mirror").iterdir()]
    assert {path.name for path in found} - set(re.findall(r"[\w.-]+", described)) == set()


@pytest.mark.parametrize("number", [n for n, block in enumerate(BLOCKS) if block.language == "python"])
def test_python_examples(upstream, folder, number):
    """As they stand, but for the archive behind the name nbia."""
    (folder / "example.py").write_text(BLOCKS[number].text, "utf-8")
    program = (
        "import runpy, sys; from mirror.archive import dialects;"
        " dialects.KNOWN_SERVERS['nbia'] = dialects.Server(sys.argv[1], 'nbia');"
        " names = runpy.run_path('example.py', run_name='__main__');"
        " assert 'rows' not in names or (names['report'].exit_code, len(names['rows'])) == (0, 2)"
    )
    _run(shlex.join([sys.executable, "-W", "error", "-c", program, upstream.url]), folder, upstream)
    assert len((folder / "tcia" / "manifest.csv").read_text().splitlines()) == 1 + 6


# Commands that do not run here


def test_commands_for_elsewhere_have_our_options():
    told = [usage for _, command in COMMANDS if ELSEWHERE.match(command) for usage in usages(command)]
    assert {usage[0] for usage in told} == {"query", "serve", "sync"}
    for usage in told:
        check_usage(usage)


def test_an_option_that_is_not_ours_is_seen():
    [usage] = usages("docker run --rm tcia-mirror sync 4D-Lung --no-such-option")
    with pytest.raises(Exception, match="--no-such-option"):
        check_usage(usage)


def test_files_that_are_named_are_there():
    names = set(re.findall(r"`((?:config|docs)/[\w./-]+)`", README))
    assert len(names) >= 8
    assert [name for name in sorted(names) if not (PROJECT / name).exists()] == []


def test_make_s_targets_and_plain_pip_s_commands_agree():
    makefile = (PROJECT / "Makefile").read_text("utf-8").replace("$(BIN)", ".venv/bin")
    targets = {command.split()[1] for _, command in COMMANDS if command.startswith("make ")}
    assert targets == {"demo", "test"}
    for target, said in (("demo", "tcia-mirror demo"), ("test", "ruff")):
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
        assert recipe is not None
        block = next(b for b in BLOCKS if b.language == "sh" and f".venv/bin/{said}" in b.text)
        plain = [command for command in block.commands() if "/pip " not in command and " -m venv " not in command]
        assert plain == [line.strip() for line in recipe[1].splitlines()]
    assert (PROJECT / ".ci" / "run").read_text("utf-8").rstrip().endswith("\nmake test\nmake container")
