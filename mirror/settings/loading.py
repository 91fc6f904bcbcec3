"""Where settings come from: a TOML file, the environment, the command line, and what is wrong with what was given."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from mirror.errors import SettingsError
from mirror.scope import is_day
from mirror.settings.values import ArchiveSettings, Bandwidth, Day, Duration, Settings, Size, seconds_of
from mirror.timetable import read_timetable

PREFIX = "TCIA_MIRROR_"
TOKEN_VARIABLE = "TCIA_MIRROR_TOKEN"  # noqa: S105 - the name of a variable, not a secret
CONFIG_VARIABLE = "TCIA_MIRROR_CONFIG"
#: Variables of ours that are no settings.
_OTHERS = (TOKEN_VARIABLE, CONFIG_VARIABLE)
#: What is typed on a command line and stands in a crontab without quotes.
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: Kubernetes sets these in every pod beside a Service that is called tcia-mirror, or tcia-mirror-serve: its host, its
#: ports by name, and what Docker's links had. They are not meant for us; the last of them has the name of a setting of
#: ours where the Service is called tcia-mirror-serve, and is told apart by what it says.
_SERVICE_LINKS = re.compile(
    r"TCIA_MIRROR(_\w+)?_(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=.*"
    r"|TCIA_MIRROR(_\w+)?_PORT=(tcp|udp|sctp)://.*"
)


def read_duration(where: str, text: str) -> float:
    """Seconds of a Duration that is no setting. Raises SettingsError, which says `where` it was given."""
    return seconds_of(_convert(where, text, Duration))


def setting_keys() -> dict[str, Any]:
    """Every key by its place (`archive.connections`) with its type, in the order in which the classes name them.

    A job's keys are those of `scope`, in a section of the job's name; they are not among these.
    """
    keys: dict[str, Any] = {}
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        if is_dataclass(hint):
            keys |= {f"{name}.{key}": kind for key, kind in get_type_hints(hint, include_extras=True).items()}
        elif name != "jobs":
            keys[name] = hint
    return keys


def variable_of(key: str) -> str:
    """The environment variable of a key."""
    return PREFIX + key.replace(".", "_").upper()


def load_settings(file: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
    """Settings from the defaults, then `file`, then `environ`, then `overrides` (by key; None: not given).

    In the environment numbers and true/false are spelled out, lists are separated by commas, and an empty variable
    counts as not given. Reads nothing but its arguments. Raises SettingsError.
    """
    kinds = setting_keys()
    given: dict[str, Any] = {}
    if file is not None:
        table = _read_toml(file)
        given["jobs"] = _jobs(file, table.pop("jobs", {}), kinds)
        for key, value in _flat(table):
            if key not in kinds:
                if key in _sections():
                    raise SettingsError(f"{file}: {key}: {value!r} is not right; it should be a section, [{key}]")
                job = "; jobs are sections [jobs.NAME]" if _is_job_misspelt(key, value) else ""
                raise SettingsError(f"{file}: unknown key {key}{job or _nearest(key, kinds)}")
            given[key] = _convert(f"{file}: {key}", value, kinds[key])
    keys = {variable_of(key): key for key in kinds}
    for variable in sorted(environ):
        text = environ[variable]
        if not variable.startswith(PREFIX) or variable in _OTHERS or _SERVICE_LINKS.fullmatch(f"{variable}={text}"):
            continue
        if variable not in keys:
            raise SettingsError(f"unknown environment variable {variable}{_nearest(variable, [*keys, *_OTHERS])}")
        if text.strip():
            kind = kinds[keys[variable]]
            given[keys[variable]] = _convert(f"environment variable {variable}", text, kind, spelled=True)
    for key, value in overrides.items():
        if value is not None:
            option = "--" + key.rpartition(".")[2].replace("_", "-")
            given[key] = _convert(f"option {option}", value, kinds[key])
    return msgspec.convert(_nested(given), Settings)


def read_token(settings: ArchiveSettings, environ: Mapping[str, str]) -> str | None:
    """The bearer token from TCIA_MIRROR_TOKEN or else from `token_file`; None where neither is given.

    Raises SettingsError where the file cannot be read or is empty, or where the token could not stand in a header.
    No message shows the token.
    """
    if token := environ.get(TOKEN_VARIABLE, "").strip():
        return _sound_token(f"environment variable {TOKEN_VARIABLE}", token)
    if not settings.token_file:
        return None
    where = f"archive.token_file: {settings.token_file}"
    try:
        token = Path(settings.token_file).read_text("utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{where}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{where}: holds no text") from None
    if not token:
        raise SettingsError(f"{where}: the file is empty; it should hold a bearer token")
    return _sound_token(where, token)


def _sound_token(where: str, token: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(f"{where}: a token is one word of printable ASCII characters; what is there is not")
    return token


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: cannot read the settings: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: is not valid TOML: {error}") from error


def _sections() -> set[str]:
    return {name for name, hint in get_type_hints(Settings).items() if is_dataclass(hint)}


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The table's leaves by their keys; an empty section that we know has none, any other empty table is a leaf."""
    for name, value in table.items():
        if isinstance(value, dict) and (value or name in _sections()):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _jobs(file: Path, jobs: Any, kinds: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The keys of every job by its name."""
    if not isinstance(jobs, dict):
        raise SettingsError(f"{file}: jobs: {jobs!r} is not right; jobs are sections [jobs.NAME]")
    told: dict[str, dict[str, Any]] = {}
    for name, table in jobs.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{file}: jobs.{name}: {table!r} is not right; jobs are sections [jobs.NAME]")
        if not _JOB_NAME.fullmatch(name):
            raise SettingsError(
                f"{file}: a job named {name!r} is not right; a name has letters, digits, '.', '_' and '-', and begins"
                " with a letter or digit"
            )
        own = {f"jobs.{name}.{key.removeprefix('scope.')}": key for key in kinds if key.startswith("scope.")}
        told[name] = {}
        for key, value in table.items():
            place = f"jobs.{name}.{key}"
            if place not in own:
                raise SettingsError(f"{file}: unknown key {place}{_nearest(place, [*own, *kinds])}")
            told[name][key] = _convert(f"{file}: {place}", value, kinds[own[place]])
    return told


def _is_job_misspelt(key: str, value: Any) -> bool:
    """Whether a key that nobody knows looks like a job in a section of another name, as [job.nightly]."""
    section = key.partition(".")[0]
    return isinstance(value, dict) and bool(difflib.get_close_matches(section, ["jobs"], cutoff=0.6))


def _nested(given: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in given.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return tree


def _nearest(name: str, names: Mapping[str, Any] | list[str]) -> str:
    """What the writer of an unknown name may have meant: the right name in another place, or one spelled alike."""
    leaf = name.rpartition(".")[2]
    near = [n for n in names if n.rpartition(".")[2] == leaf] or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not near:
        near = [n for n in names if difflib.SequenceMatcher(None, leaf, n.rpartition(".")[2]).ratio() > 0.7]
    return f"; did you mean {near[0]}?" if near else f"; the keys are: {', '.join(names)}"


def _convert(where: str, value: Any, kind: Any, *, spelled: bool = False) -> Any:
    """The value as the key's type. `spelled`: it is text from the environment."""
    given = value
    if kind == Day and type(value) is date:
        value = value.isoformat()
    if spelled and isinstance(value, str):
        listed = get_origin(kind) is tuple
        value = [part.strip() for part in value.split(",") if part.strip()] if listed else value.strip()
    try:
        converted = msgspec.convert(value, kind, strict=not spelled)
        sound = not isinstance(converted, float) or math.isfinite(converted)
        sound &= kind != Day or not converted or is_day(converted)
        if kind == Bandwidth and converted:
            read_timetable(converted)
    except msgspec.ValidationError:
        sound = False
    except ValueError as error:
        raise SettingsError(f"{where}: {given!r} is not right: {error}; it should be {_wanted(kind)}") from None
    if not sound:
        raise SettingsError(f"{where}: {given!r} is not right; it should be {_wanted(kind)}")
    return converted


def _wanted(kind: Any) -> str:
    """What would be right for a key of this type, in words."""
    if kind == Day:
        return "a day, YYYY-MM-DD"
    if kind == Bandwidth:
        return 'a rate such as 20MB/s, or rates by the time of day such as "Mon-Fri 08:00-18:00 20MB/s, else full"'
    if get_origin(kind) is Annotated:
        base, meta = get_args(kind)
        if kind == Size:
            return "a number of bytes such as 500MB, 200GB or 1TiB"
        if base is str:
            return "a length of time such as 90m, 23h30m or 7d"
        number = "a whole number" if base is int else "a number"
        if meta.le is not None:
            return f"{number} from {meta.ge} to {meta.le}"
        return f"{number} above 0" if meta.gt is not None else f"{number}, 0 or more"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    return {bool: "true or false", str: "text"}.get(kind, "a list of texts")
