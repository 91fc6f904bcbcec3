"""Where settings come from, which of two wins, and what is said when one is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mirror.errors import ExitCode, SettingsError
from mirror.settings import (
    ArchiveSettings,
    ScopeSettings,
    Settings,
    bytes_of,
    load_settings,
    read_duration,
    read_token,
    seconds_of,
    setting_keys,
    variable_of,
)

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
    jobs = load_settings(CONFIG / "nightly.toml", {}, {}).jobs
    assert list(jobs) == ["nightly-ct", "weekly-new"]
    assert (jobs["nightly-ct"].modalities, jobs["weekly-new"].released_since) == (("CT",), "2026-01-01")


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
        "PATH": "/bin",
    }
    settings = load_settings(None, environ, {})
    assert settings.to == "/data"
    assert (settings.archive.rate, settings.archive.attempts) == (2.5, 7)
    assert (settings.sync.fsync, settings.sync.open_series, settings.sync.transport) == (False, 0, "zip")
    assert (settings.scope.modalities, settings.scope.all) == (("CT", "MR"), True)
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("service", ["TCIA_MIRROR", "TCIA_MIRROR_SERVE", "TCIA_MIRROR_SYNC", "TCIA_MIRROR_SERVE_2"])
def test_what_kubernetes_sets_beside_a_service_is_not_meant_for_us(service):
    """As its documentation of a Service's environment variables has them, for one with a named port."""
    beside = {
        f"{service}_SERVICE_HOST": "10.0.0.7",
        f"{service}_SERVICE_PORT": "8042",
        f"{service}_SERVICE_PORT_HTTP": "8042",
        f"{service}_PORT": "tcp://10.0.0.7:8042",
        f"{service}_PORT_8042_TCP": "tcp://10.0.0.7:8042",
        f"{service}_PORT_8042_TCP_PROTO": "tcp",
        f"{service}_PORT_8042_TCP_PORT": "8042",
        f"{service}_PORT_8042_TCP_ADDR": "10.0.0.7",
    }
    assert load_settings(None, beside, {}) == Settings()
    # What a pod itself says wins over the link of the same name.
    assert load_settings(None, beside | {"TCIA_MIRROR_SERVE_PORT": "9000"}, {}).serve.port == 9000


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
        ("[archive]\nconnections = 0", "archive.connections", "0", "a whole number from 1 to 256"),
        ("[archive]\nconnections = 257", "archive.connections", "257", "a whole number from 1 to 256"),
        ("[archive]\nconnections = '8'", "archive.connections", "'8'", "a whole number from 1 to 256"),
        ("[archive]\nconnections = true", "archive.connections", "True", "a whole number from 1 to 256"),
        ("[archive]\nattempts = 21", "archive.attempts", "21", "a whole number from 1 to 20"),
        ("[archive]\nrate = -1", "archive.rate", "-1", "a number, 0 or more"),
        ("[archive]\nrate = nan", "archive.rate", "nan", "a number, 0 or more"),
        ("[archive]\ndeadline = 0", "archive.deadline", "0", "a number above 0"),
        ("[archive]\nprogress_timeout = inf", "archive.progress_timeout", "inf", "a number above 0"),
        ("[archive]\ndialect = 'v4'", "archive.dialect", "'v4'", "one of auto, nbia, tcia"),
        ("[sync]\nopen_series = 257", "sync.open_series", "257", "a whole number from 0 to 256"),
        ("[sync]\nfsync = 'yes'", "sync.fsync", "'yes'", "true or false"),
        ("[scope]\ncollections = 'TCGA'", "scope.collections", "'TCGA'", "a list of texts"),
        ("[scope]\ncollections = [1]", "scope.collections", "[1]", "a list of texts"),
        ("[scope]\nmanifests = 'a.tcia'", "scope.manifests", "'a.tcia'", "a list of texts"),
        ("[scope]\nreleased_since = '2026-02-30'", "scope.released_since", "'2026-02-30'", "a day, YYYY-MM-DD"),
        ("[scope]\nreleased_since = 'lately'", "scope.released_since", "'lately'", "a day, YYYY-MM-DD"),
        ("[scope]\nreleased_since = 2026", "scope.released_since", "2026", "a day, YYYY-MM-DD"),
        ("[jobs.a-b]\nall = 'yes'", "jobs.a-b.all", "'yes'", "true or false"),
        ("[jobs.1]\nexclude_series = [1]", "jobs.1.exclude_series", "[1]", "a list of texts"),
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
    message = wrong(overrides={"archive.connections": 999})
    assert message == "option --connections: 999 is not right; it should be a whole number from 1 to 256"


# Jobs


def test_jobs_have_the_keys_of_scope(write):
    file = write(
        "[scope]\ncollections = ['X']\n[jobs.nightly-ct]\ncollections = ['TCGA-*']\nexclude_modalities = ['SR']\n"
        "released_since = 2026-01-31\n[jobs.lists_2]\nlists = ['mine']\nmanifests = ['a.tcia', 'b.csv']\n[jobs.empty]\n"
    )
    settings = load_settings(file, {"TCIA_MIRROR_SCOPE_MODALITIES": "CT"}, {})
    assert settings.jobs == {
        "nightly-ct": ScopeSettings(
            collections=("TCGA-*",), exclude_modalities=("SR",), released_since="2026-01-31"
        ),
        "lists_2": ScopeSettings(lists=("mine",), manifests=("a.tcia", "b.csv")),
        "empty": ScopeSettings(),
    }  # fmt: skip
    assert settings.scope == ScopeSettings(collections=("X",), modalities=("CT",))


def test_a_job_takes_every_key_of_scope(write):
    table = tomllib.loads((CONFIG / "default.toml").read_text("utf-8"))["scope"]
    told = [f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for key, value in table.items()]
    assert load_settings(write("\n".join(["[jobs.all]", *told])), {}, {}).jobs == {"all": ScopeSettings()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[jobs.a]\nmodality = ['CT']", "unknown key jobs.a.modality; did you mean jobs.a.modalities?"),
        ("[jobs.a.exclude]\nseries = ['1']", "unknown key jobs.a.exclude; did you mean jobs.a.exclude_series?"),
        ("[jobs.a]\nconnections = 3", "unknown key jobs.a.connections; did you mean archive.connections?"),
        ("[jobs]\ncollections = ['A']", "jobs.collections: ['A'] is not right; jobs are sections [jobs.NAME]"),
        ("jobs = ['a']", "jobs: ['a'] is not right; jobs are sections [jobs.NAME]"),
        ("[job.a]\nall = true", "unknown key job.a; jobs are sections [jobs.NAME]"),
        ("[jobs.'two words']\nall = true", "a job named 'two words' is not right; a name has letters, digits"),
        ("[jobs.-a]\nall = true", "a job named '-a' is not right"),
        ("[jobs.'']\nall = true", "a job named '' is not right"),
    ],
)
def test_what_is_wrong_with_a_job_is_said(write, text, said):
    file = write(text)
    assert wrong(file).startswith(f"{file}: {said}")


def test_jobs_come_from_the_file_alone_and_the_file_may_be_named_by_a_variable():
    assert "unknown environment variable TCIA_MIRROR_JOBS_A_ALL" in wrong(environ={"TCIA_MIRROR_JOBS_A_ALL": "true"})
    assert load_settings(None, {"TCIA_MIRROR_CONFIG": "read by whoever calls this"}, {}) == Settings()
    assert "did you mean TCIA_MIRROR_CONFIG?" in wrong(environ={"TCIA_MIRROR_CONFG": "x"})


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


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("90m", 5400),
        ("23h30m", 84_600),
        ("1d 12h", 129_600),
        ("1w2d3h4m5s", 788_645),
        ("1.5h", 5400),
        ("45", 45),
        ("0", 0),
    ],
)
def test_lengths_of_time(words, seconds):
    assert seconds_of(words) == read_duration("here", words) == seconds
    assert load_settings(None, {}, {"sync.max_duration": words, "sync.overlap": words}).sync.overlap == words


@pytest.mark.parametrize("words", ["", " ", "8 hours", "30m1h", "1h30", "1h1h", "-1h", "h", "1y", "1h,30m"])
def test_what_is_no_length_of_time(words):
    said = wrong(overrides={"sync.max_duration": words})
    assert (
        said
        == f"option --max-duration: {words!r} is not right; it should be a length of time such as 90m, 23h30m or 7d"
    )


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("0", 0), ("123", 123), ("5B", 5), ("2k", 2000), ("500MB", 500 * 10**6), ("200gb", 200 * 10**9),
        ("1.5 TB", 1_500_000_000_000), ("3P", 3 * 10**15), ("1KiB", 1024), ("1.5MiB", 1_572_864), ("1TiB", 2**40),
    ],
)  # fmt: skip
def test_numbers_of_bytes(words, number):
    assert bytes_of(load_settings(None, {}, {"sync.max_bytes": words}).sync.max_bytes) == number


@pytest.mark.parametrize("words", ["", "GB", "-1GB", "200 gigabytes", "1i", "1GB2MB", "1e9", "nan"])
def test_what_is_no_number_of_bytes(words):
    said = wrong(overrides={"sync.max_bytes": words})
    assert (
        said
        == f"option --max-bytes: {words!r} is not right; it should be a number of bytes such as 500MB, 200GB or 1TiB"
    )
