"""Settings: frozen values, handed down by argument.

They come, with increasing force, from the defaults below, a TOML file, TCIA_MIRROR_* variables and the command line.
`load_settings` hides how: a key is named by its place (`archive.connections`), a variable is that name in capitals
(TCIA_MIRROR_ARCHIVE_CONNECTIONS). Whatever is wrong is a SettingsError that says where it was found, what was given
and what would be right. The token is no setting: it never lies in these values, so that no print of them shows it.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from mirror.errors import SettingsError

Transport = Literal["instance", "zip", "auto"]
DialectChoice = Literal["auto", "nbia", "tcia"]

Several = Annotated[int, msgspec.Meta(ge=1, le=64)]
Tries = Annotated[int, msgspec.Meta(ge=1, le=20)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Rate = Annotated[float, msgspec.Meta(ge=0)]

PREFIX = "TCIA_MIRROR_"
TOKEN_VARIABLE = "TCIA_MIRROR_TOKEN"  # noqa: S105 - the name of a variable, not a secret
#: Kubernetes sets these in every pod beside a Service that is called tcia-mirror. They are not meant for us.
_SERVICE_LINKS = re.compile(r"TCIA_MIRROR_(SERVICE_(HOST|PORT)|PORT)(_.+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSettings:
    """[archive]: which server, and how it is asked. Times are in seconds."""

    #: A base URL, or nbia (the live archive), nlst, tcia (retired).
    server: str = "nbia"
    #: auto: told from the URL.
    dialect: DialectChoice = "auto"
    #: Most requests in flight. The number adapts below it.
    connections: Several = 8
    #: Most requests per second; 0: no limit.
    rate: Rate = 0.0
    #: Tries per request, the first included.
    attempts: Tries = 5
    #: First window of the random wait before another try; it doubles with each.
    retry_wait: Seconds = 1.0
    #: The longest such window.
    retry_max_wait: Seconds = 60.0
    #: No new try of a request after this long.
    deadline: Seconds = 900.0
    connect_timeout: Seconds = 30.0
    #: A request that gives no byte for this long has stalled.
    progress_timeout: Seconds = 120.0
    #: A whole request, body included, takes no longer than this: a body that drips must end some time.
    request_timeout: Seconds = 14400.0
    #: More certificate authorities to trust, a PEM file; "" for none.
    ca_file: str = ""
    #: File that holds a bearer token; "" for none. The token itself may come as TCIA_MIRROR_TOKEN.
    token_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """[sync]: how collections are fetched and laid out."""

    #: instance: getSOPInstanceUIDs and getSingleImage. zip: getImage. auto: instance where the server has it.
    transport: Transport = "instance"
    #: uid, classic, descriptive, or a template; fixed for a mirror's life. "": the mirror's own, uid for a new one.
    layout: str = ""
    #: Most series open at a time.
    open_series: Several = 8
    #: What to do with an instance whose StudyInstanceUID or PatientID is not that of its series' row.
    on_other_identity: Literal["keep", "refuse"] = "keep"
    #: Flush every file to the disk before it gets its name. Off: faster; a power cut may cost files that verify finds.
    fsync: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeSettings:
    """[scope]: which part of the archive, when the command line does not say."""

    collections: tuple[str, ...] = ()
    all: bool = False
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    #: A .tcia, .csv or .txt file with SeriesInstanceUIDs; "" for none.
    manifest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a run."""

    #: The mirror's folder; "" when the command line names it.
    to: str = ""
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    scope: ScopeSettings = field(default_factory=ScopeSettings)


def setting_keys() -> dict[str, Any]:
    """Every key by its place (`archive.connections`) with its type, in the order in which the classes name them."""
    keys: dict[str, Any] = {}
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        if is_dataclass(hint):
            keys |= {f"{name}.{key}": kind for key, kind in get_type_hints(hint, include_extras=True).items()}
        else:
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
        for key, value in _flat(_read_toml(file)):
            if key not in kinds:
                if key in _sections():
                    raise SettingsError(f"{file}: {key}: {value!r} is not right; it should be a section, [{key}]")
                raise SettingsError(f"{file}: unknown key {key}{_nearest(key, kinds)}")
            given[key] = _convert(f"{file}: {key}", value, kinds[key])
    keys = {variable_of(key): key for key in kinds}
    for variable in sorted(environ):
        text = environ[variable]
        if not variable.startswith(PREFIX) or variable == TOKEN_VARIABLE or _SERVICE_LINKS.fullmatch(variable):
            continue
        if variable not in keys:
            raise SettingsError(f"unknown environment variable {variable}{_nearest(variable, [*keys, TOKEN_VARIABLE])}")
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
    if spelled and isinstance(value, str):
        listed = get_origin(kind) is tuple
        value = [part.strip() for part in value.split(",") if part.strip()] if listed else value.strip()
    try:
        converted = msgspec.convert(value, kind, strict=not spelled)
        sound = not isinstance(converted, float) or math.isfinite(converted)
    except msgspec.ValidationError:
        sound = False
    if not sound:
        raise SettingsError(f"{where}: {given!r} is not right; it should be {_wanted(kind)}")
    return converted


def _wanted(kind: Any) -> str:
    """What would be right for a key of this type, in words."""
    if get_origin(kind) is Annotated:
        base, meta = get_args(kind)
        number = "a whole number" if base is int else "a number"
        if meta.le is not None:
            return f"{number} from {meta.ge} to {meta.le}"
        return f"{number} above 0" if meta.gt is not None else f"{number}, 0 or more"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    return {bool: "true or false", str: "text"}.get(kind, "a list of texts")
