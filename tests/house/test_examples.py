"""What config/ says of tcia-mirror is so: its commands, variables, settings and exit codes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from usages import check_usage, usages

from mirror.errors import SettingsError
from mirror.settings import CONFIG_VARIABLE, TOKEN_VARIABLE, load_settings, setting_keys, variable_of

PROJECT = Path(__file__).parents[2]
CONFIG = PROJECT / "config"
FILES = sorted(path for path in CONFIG.rglob("*") if path.is_file())
#: Files that need name no command of ours.
SILENT = {
    "default.toml",
    "tcia-mirror.timer",
    "token.conf",
    "configmap.yaml",
    "persistentvolumeclaim.yaml",
    "secret.yaml",
}


def _id(path: Path) -> str:
    return path.relative_to(CONFIG).as_posix()


def _words(text: str) -> list[list[str]]:
    """Commands of a text, those of containers (`args: [...]`, `command: [...]`) included."""
    listed = re.findall(r"^\s*(?:args|command): \[(.*)\]$", text, re.MULTILINE)
    return usages(text) + [[word.strip().strip('"') for word in words.split(",")] for words in listed]


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_commands_have_our_options(path):
    told = _words(path.read_text("utf-8"))
    assert told or path.name in SILENT
    for usage in told:
        check_usage(usage)
    names = {Path(word).name for usage in told for word in usage if word.endswith(".toml")}
    # settings.toml is the ConfigMap's.
    assert names <= {file.name for file in FILES} | {"settings.toml", "tcia-mirror.toml"}


@pytest.mark.parametrize(
    "path", [*FILES, PROJECT / "README.md", *sorted((PROJECT / ".ci").iterdir())], ids=lambda p: p.name
)
def test_variables_are_settings(path):
    known = {TOKEN_VARIABLE, CONFIG_VARIABLE, *map(variable_of, setting_keys())}
    named = set(re.findall(r"\bTCIA_MIRROR_[A-Z][A-Z_]*(?![A-Z_*])", path.read_text("utf-8")))
    assert named - known == set()


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".toml"], ids=_id)
def test_settings_load(path):
    settings = load_settings(path, {}, {})
    assert set(settings.jobs) == set(tomllib.loads(path.read_text("utf-8")).get("jobs", {}))


def test_settings_that_are_commented_out_load_as_well(tmp_path):
    """`# key = value` in any of the files is a setting that one may want."""
    commented = 0
    for path in FILES:
        if path.suffix == ".toml":
            text, number = re.subn(
                r"^# (\[?[a-z_]+(?:\.[\w-]+)?(?:\]| = .*))$", r"\1", path.read_text("utf-8"), flags=re.MULTILINE
            )
            commented += number
            (tmp_path / path.name).write_text(text, "utf-8")
            load_settings(tmp_path / path.name, {}, {})
    assert commented >= 5
    (tmp_path / "wrong.toml").write_text("[archive]\ntokenfile = 'x'\n")
    with pytest.raises(SettingsError, match=r"did you mean archive\.token_file"):
        load_settings(tmp_path / "wrong.toml", {}, {})


def test_jobs_that_are_named_are_in_their_file():
    named = set()
    for path in FILES:
        for words in _words(path.read_text("utf-8")):
            # Those of Kubernetes are in its ConfigMap: see test_kubernetes.
            if "--job" in words and path.parent.name != "kubernetes":
                file = CONFIG / Path(words[words.index("--config") + 1]).name
                assert words[words.index("--job") + 1] in load_settings(file, {}, {}).jobs, path
                named.add(path.name)
    assert named == {"compose.yaml", "crontab.example", "nightly.toml", "tcia-mirror.service"}


# cron

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))


def _wrong_in_crontab(line: str) -> list[str]:
    """What cron would refuse in a user's line, or take for something else than it looks."""
    *fields, command = line.split(None, 5)
    if len(fields) != 5:
        return ["five fields and a command"]
    wrong = []
    for text, (name, low, high) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?", part)
            numbers = [int(n) for n in match.groups()[:2] if n] if match else []
            if not match or numbers != sorted(numbers) or not all(low <= n <= high for n in numbers) or match[3] == "0":
                wrong.append(name)
    if not command.startswith("/"):
        wrong.append("cron's PATH is short: the command by its full path")
    if re.search(r"(?<!\\)%", command):
        wrong.append("cron makes a line end of %")
    return wrong


def test_crontab():
    lines = [
        line
        for line in (CONFIG / "crontab.example").read_text("utf-8").splitlines()
        if line and not line.startswith("#") and not re.match(r"\w+ ?=", line)
    ]
    assert len(lines) >= 2
    assert [(line, wrong) for line in lines if (wrong := _wrong_in_crontab(line))] == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("15 2 * * * tcia-mirror sync", "cron's PATH"),
        ("61 2 * * * /bin/true", "minute"),
        ("0 24 * * * /bin/true", "hour"),
        ("0 0 */0 * * /bin/true", "day"),
        ("0 0 * 5-2 * /bin/true", "month"),
        ("0 0 * * mo-fr /bin/true", "weekday"),
        ("0 0 * * * /bin/date +%F", "line end"),
    ],
    ids=["path", "minute", "hour", "day", "month", "weekday", "percent"],
)
def test_a_wrong_line_of_a_crontab_is_seen(line, wrong):
    assert wrong in " ".join(_wrong_in_crontab(line))
