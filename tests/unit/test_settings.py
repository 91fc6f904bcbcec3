"""Where settings come from, which of two wins, and what is said when one is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mirror.errors import ExitCode, SettingsError
from mirror.settings import ArchiveSettings, Settings, load_settings, read_token, setting_keys, variable_of

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        file = tmp_path / "some.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def wrong(file=None, environ=None, overrides=None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environ or {}, overrides or {})
    assert caught.value.exit_code is ExitCode.USAGE
    return str(caught.value)


def test_nothing_given_gives_the_defaults():
    assert load_settings(None, {}, {}) == Settings()


def test_default_toml_names_every_key_with_its_default():
    file = CONFIG / "default.toml"
    table = tomllib.loads(file.read_text("utf-8"))
    named = [f"{k}.{inner}" for k, v in table.items() if isinstance(v, dict) for inner in v]
    named += [k for k, v in table.items() if not isinstance(v, dict)]
    assert sorted(named) == sorted(setting_keys())
    assert load_settings(file, {}, {}) == Settings()


def test_every_example_in_config_loads_and_says_something():
    examples = sorted(set(CONFIG.glob("*.toml")) - {CONFIG / "default.toml"})
    assert [e.name for e in examples] == ["container.toml", "full-collection.toml", "nightly.toml"]
    for example in examples:
        settings = load_settings(example, {}, {})
        assert settings.to
        assert settings != Settings(to=settings.to)
    assert load_settings(CONFIG / "nightly.toml", {}, {}).scope.collections


def test_the_nearer_source_wins(write):
    file = write("to = 'file'\n[archive]\nconnections = 2\nrate = 2\nattempts = 2")
    environ = {"TCIA_MIRROR_ARCHIVE_CONNECTIONS": "3", "TCIA_MIRROR_ARCHIVE_RATE": "3"}
    settings = load_settings(file, environ, {"archive.connections": 4, "archive.attempts": None})
    assert settings.to == "file"
    assert settings.archive == ArchiveSettings(connections=4, rate=3.0, attempts=2)


def test_variables_are_read_by_the_type_of_their_key():
    environ = {
        "TCIA_MIRROR_TO": "/data",
        "TCIA_MIRROR_ARCHIVE_RATE": "2.5",
        "TCIA_MIRROR_ARCHIVE_ATTEMPTS": " 7 ",
        "TCIA_MIRROR_SYNC_FSYNC": "false",
        "TCIA_MIRROR_SYNC_OPEN_SERIES": "",
        "TCIA_MIRROR_SYNC_TRANSPORT": "zip",
        "TCIA_MIRROR_SCOPE_MODALITIES": "CT, MR,",
        "TCIA_MIRROR_SCOPE_ALL": "true",
        "TCIA_MIRROR_TOKEN": "secret",
        "TCIA_MIRROR_SERVICE_PORT_HTTP": "8042",
        "TCIA_MIRROR_PORT_8042_TCP_ADDR": "10.0.0.7",
        "PATH": "/bin",
    }
    settings = load_settings(None, environ, {})
    assert settings.to == "/data"
    assert (settings.archive.rate, settings.archive.attempts) == (2.5, 7)
    assert (settings.sync.fsync, settings.sync.open_series, settings.sync.transport) == (False, 8, "zip")
    assert (settings.scope.modalities, settings.scope.all) == (("CT", "MR"), True)
    assert "secret" not in repr(settings)


def test_every_key_has_a_variable_of_its_own():
    variables = [variable_of(key) for key in setting_keys()]
    assert len(set(variables)) == len(variables)
    assert variable_of("archive.connections") == "TCIA_MIRROR_ARCHIVE_CONNECTIONS"


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("[archive]\nconections = 3", "archive.conections", "archive.connections"),
        ("connections = 3", "connections", "archive.connections"),
        ("[sync]\nrate = 3", "sync.rate", "archive.rate"),
        ("[archve]\nrate = 3", "archve.rate", "archive.rate"),
        ("[archive]\ntoken = 's3cret'", "archive.token", "archive.token_file"),
    ],
)
def test_an_unknown_key_of_the_file_is_named_with_the_nearest_right_one(write, text, key, nearest):
    file = write(text)
    message = wrong(file)
    assert message.startswith(f"{file}: unknown key {key}; did you mean {nearest}?")
    assert "s3cret" not in message


def test_an_unknown_empty_section_is_an_error_and_a_known_one_is_not(write):
    assert "unknown key zzz" in wrong(write("[zzz]"))
    assert load_settings(write("[archive]\n[scope]"), {}, {}) == Settings()


def test_an_unknown_variable_is_named_with_the_nearest_right_one_and_without_its_value():
    message = wrong(environ={"TCIA_MIRROR_TOKN": "s3cret"})
    assert "TCIA_MIRROR_TOKN" in message
    assert "did you mean TCIA_MIRROR_TOKEN?" in message
    assert "s3cret" not in message
    assert "did you mean TCIA_MIRROR_SYNC_LAYOUT?" in wrong(environ={"TCIA_MIRROR_LAYOUT": "uid"})


@pytest.mark.parametrize(
    ("text", "key", "given", "right"),
    [
        ("[archive]\nconnections = 0", "archive.connections", "0", "a whole number from 1 to 64"),
        ("[archive]\nconnections = 65", "archive.connections", "65", "a whole number from 1 to 64"),
        ("[archive]\nconnections = '8'", "archive.connections", "'8'", "a whole number from 1 to 64"),
        ("[archive]\nconnections = true", "archive.connections", "True", "a whole number from 1 to 64"),
        ("[archive]\nattempts = 21", "archive.attempts", "21", "a whole number from 1 to 20"),
        ("[archive]\nrate = -1", "archive.rate", "-1", "a number, 0 or more"),
        ("[archive]\nrate = nan", "archive.rate", "nan", "a number, 0 or more"),
        ("[archive]\ndeadline = 0", "archive.deadline", "0", "a number above 0"),
        ("[archive]\nprogress_timeout = inf", "archive.progress_timeout", "inf", "a number above 0"),
        ("[archive]\ndialect = 'v4'", "archive.dialect", "'v4'", "one of auto, nbia, tcia"),
        ("[sync]\nopen_series = 100", "sync.open_series", "100", "a whole number from 1 to 64"),
        ("[sync]\nfsync = 'yes'", "sync.fsync", "'yes'", "true or false"),
        ("[scope]\ncollections = 'TCGA'", "scope.collections", "'TCGA'", "a list of texts"),
        ("[scope]\ncollections = [1]", "scope.collections", "[1]", "a list of texts"),
        ("to = 3", "to", "3", "text"),
        ("archive = 3", "archive", "3", "a section, [archive]"),
    ],
)
def test_a_wrong_value_says_where_what_was_given_and_what_would_be_right(write, text, key, given, right):
    file = write(text)
    assert wrong(file) == f"{file}: {key}: {given} is not right; it should be {right}"


def test_a_wrong_variable_or_option_is_named_as_the_user_wrote_it():
    message = wrong(environ={"TCIA_MIRROR_ARCHIVE_CONNECTIONS": "many"})
    assert message.startswith("environment variable TCIA_MIRROR_ARCHIVE_CONNECTIONS: 'many' is not right")
    message = wrong(overrides={"archive.connections": 99})
    assert message == "option --connections: 99 is not right; it should be a whole number from 1 to 64"


def test_broken_toml_names_file_and_line(write):
    file = write("to = 'x'\n[archive\n")
    message = wrong(file)
    assert str(file) in message
    assert "line 2" in message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert "No such file" in wrong(tmp_path / "none.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes("to = 'é'".encode("latin-1"))
    assert "not UTF-8" in wrong(latin)


def test_the_token_comes_from_the_environment_before_the_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("from-file\n")
    settings = ArchiveSettings(token_file=str(file))
    assert read_token(settings, {}) == "from-file"
    assert read_token(settings, {"TCIA_MIRROR_TOKEN": " from-env\n"}) == "from-env"
    assert read_token(settings, {"TCIA_MIRROR_TOKEN": " "}) == "from-file"
    assert read_token(ArchiveSettings(), {}) is None


def test_a_token_file_that_gives_no_token_is_an_error_that_shows_no_token(tmp_path):
    empty, two, binary = tmp_path / "empty", tmp_path / "two", tmp_path / "binary"
    empty.write_text(" \n")
    two.write_text("s3cret\ns3cret2")
    binary.write_bytes(b"\xff\xfe")
    for file, words in [
        (empty, "is empty"),
        (two, "one word"),
        (binary, "no text"),
        (tmp_path / "none", "No such file"),
    ]:
        with pytest.raises(SettingsError, match=words) as caught:
            read_token(ArchiveSettings(token_file=str(file)), {})
        assert str(file) in str(caught.value)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(SettingsError, match="TCIA_MIRROR_TOKEN") as caught:
        read_token(ArchiveSettings(), {"TCIA_MIRROR_TOKEN": "s3cret\r\nX-Evil: 1"})
    assert "s3cret" not in str(caught.value)
