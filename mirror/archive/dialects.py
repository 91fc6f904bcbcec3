"""The two APIs that are both called v4, and all that differs between them.

    nbia   .../nbia-api/services/v4/<call>       the server of today (NBIA-TCIA source at 865725e0)
    tcia   .../services/v4/TCIA/query/<call>     the retired middleware (Bindaas at 0d3b0af8)

| what                | nbia                                  | tcia                            |
|---------------------|---------------------------------------|---------------------------------|
| no rows, JSON       | 200, empty body, no Content-Type      | 200, `[]`                       |
| dates               | MM-DD-YYYY                            | YYYY-MM-DD                      |
| unknown parameter   | 400                                   | ignored                         |
| missing parameter   | 400, plain text                       | 471, JSON                       |
| decimal columns     | numbers                               | strings with six decimals       |
| patients' key       | PatientId in getPatient, New*         | PatientID                       |

A wire row becomes a canonical one by `decode_row`: canonical names (endpoints.FIELDS), ISO days, numbers as numbers,
fields that the table does not know untouched. `encode_row` is the way back, for `serve`. Both are pure.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any
from urllib.parse import urljoin, urlsplit

from mirror.archive.endpoints import ENDPOINTS, Days, DialectName, Endpoint
from mirror.archive.fields import ALIASES, FIELDS, Kind
from mirror.errors import (
    ArchiveError,
    BadAnswer,
    NotFound,
    Refused,
    ServerFault,
    SettingsError,
    Throttled,
)
from mirror.settings import ArchiveSettings

NBIA_PREFIX = "/nbia-api/services/v4/"
TCIA_PREFIX = "/services/v4/TCIA/query/"

#: Statuses that speak of who asks, not of what is asked for.
_NOT_ALLOWED = frozenset({401, 403})
#: No count and no size is larger, and no ledger holds larger numbers.
_LARGEST = 2**63 - 1
#: Wire name -> canonical name, and how its values are read: text, day or number. A UID is a text.
_READ_AS: dict[str, tuple[str, Kind]] = {
    wire: (name, Kind.TEXT if FIELDS[name].kind is Kind.UID else FIELDS[name].kind)
    for wire, name in (*zip(FIELDS, FIELDS, strict=True), *ALIASES.items())
}
_DAY_FIRST_MONTH = re.compile(r"(\d\d)-(\d\d)-(\d{4})")
_ISO_DAY = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ T].*)?")
_UNNUMBERED = re.compile(r"\d+$")
_ELSEWHERE = (
    "a series may lie on another host: NLST has its own (--server nlst), and the retired host (--server tcia)"
    " and the live one (--server nbia) do not hold the same series"
)


@dataclass(frozen=True, slots=True)
class Server:
    """An archive server: where it is and which dialect it speaks. `base` ends with a slash."""

    base: str
    dialect: DialectName
    #: What the operator should know before trusting it, or "".
    warning: str = ""

    def url(self, endpoint: Endpoint) -> str:
        """The URL of a call; `SettingsError` where the dialect lacks it."""
        path = endpoint.path(self.dialect)
        if path is None:
            raise SettingsError(f"{endpoint.name} does not exist in the {self.dialect} dialect ({self.base})")
        return _join(self.base, path)


@lru_cache(maxsize=256)
def _join(base: str, path: str) -> str:
    return urljoin(base, path)


KNOWN_SERVERS: dict[str, Server] = {
    "nbia": Server("https://nbia.cancerimagingarchive.net" + NBIA_PREFIX, "nbia"),
    "nlst": Server("https://nlst.cancerimagingarchive.net" + NBIA_PREFIX, "nbia"),
    "tcia": Server(
        "https://services.cancerimagingarchive.net" + TCIA_PREFIX,
        "tcia",
        "the host behind --server tcia was retired by TCIA in 2022 and answers with stale data, if at all;"
        " the live archive is --server nbia",
    ),
}


def find_server(text: str, dialect: DialectName | None = None) -> Server:
    """The server that a name of KNOWN_SERVERS or a base URL means.

    The dialect is told from the URL's path; a bare host is taken for nbia unless `dialect` says otherwise.
    Raises SettingsError for anything that is neither, and for a URL with credentials, which it does not repeat.
    """
    text = text.strip()
    if known := KNOWN_SERVERS.get(text.lower()):
        if dialect is not None and dialect != known.dialect:
            raise SettingsError(f"server {text!r} speaks the {known.dialect} dialect, not {dialect}")
        return known
    if "@" in text:
        raise SettingsError("server: give the URL without user and password; a token goes into archive.token_file")
    try:
        parts = urlsplit(text)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        near = difflib.get_close_matches(text.lower(), KNOWN_SERVERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingsError(
            f"server: {text!r} is neither a base URL (http://... or https://...) nor one of"
            f" {', '.join(sorted(KNOWN_SERVERS))}{hint}"
        )
    if parts.query or parts.fragment:
        raise SettingsError(f"server: {text!r} must end with its path; leave out what follows '?' or '#'")
    path = parts.path.rstrip("/")
    if not path:
        path = (TCIA_PREFIX if dialect == "tcia" else NBIA_PREFIX).rstrip("/")
    elif path.lower().endswith("/tcia"):
        path += "/query"
    told: DialectName = "tcia" if path.lower().endswith("/query") else "nbia"
    server = Server(f"{parts.scheme}://{parts.netloc}{path}/", dialect or told)
    return next((k for k in KNOWN_SERVERS.values() if (k.base, k.dialect) == (server.base, server.dialect)), server)


def server_of(settings: ArchiveSettings) -> Server:
    """The server that the settings mean. Raises SettingsError."""
    return find_server(settings.server, None if settings.dialect == "auto" else settings.dialect)


def find_endpoint(call: str) -> Endpoint:
    """The endpoint of that name, in any dialect's spelling; SettingsError names the nearest where there is none."""
    for endpoint in ENDPOINTS.values():
        paths = (path for path in (endpoint.nbia, endpoint.tcia) if path is not None)
        if call in (endpoint.name, *(path.rpartition("/")[2] for path in paths)):
            return endpoint
    near = difflib.get_close_matches(call, ENDPOINTS, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise SettingsError(f"unknown call {call!r}{hint} The calls are: {', '.join(ENDPOINTS)}")


def encode_params(endpoint: Endpoint, dialect: DialectName, params: Mapping[str, str]) -> dict[str, str]:
    """Query parameters as the dialect spells them. Names may be canonical or wire names; days may be ISO.

    Raises SettingsError for a name the call does not have, and for a required one that is missing.
    """
    known, required = _spellings(endpoint.name, dialect)
    numbered = {p.wire(dialect) for p in endpoint.wire_params(dialect) if p.numbered}
    wire: dict[str, str] = {}
    for name, value in params.items():
        if name not in known and _UNNUMBERED.sub("", name) in numbered:
            wire[name] = value
            continue
        if name not in known:
            have = ", ".join(p.wire(dialect) for p in endpoint.wire_params(dialect)) or "none"
            raise SettingsError(f"{endpoint.name} has no parameter {name!r}; it takes: {have}")
        spelled, is_day = known[name]
        wire[spelled] = encode_day(dialect, value) if is_day else value
    for spelled in required:
        if spelled not in wire:
            raise SettingsError(f"{endpoint.name} needs the parameter {spelled}")
    return wire


@cache
def _spellings(call: str, dialect: DialectName) -> tuple[dict[str, tuple[str, bool]], list[str]]:
    """Each name that a parameter of a call may be given by -> its wire name and whether it is a day; those required."""
    known: dict[str, tuple[str, bool]] = {}
    params = ENDPOINTS[call].wire_params(dialect)
    for param in params:
        for name in (param.name, param.wire(dialect)):
            known.setdefault(name, (param.wire(dialect), param.kind is Kind.DATE))
    return known, [param.wire(dialect) for param in params if param.required]


def decode_day(text: str) -> str:
    """An ISO day from any spelling the archive uses; anything else is given back as it is."""
    if match := _DAY_FIRST_MONTH.fullmatch(text):
        month, day, year = match.groups()
        return f"{year}-{month}-{day}"
    if match := _ISO_DAY.fullmatch(text):
        return match[1]
    return text


def encode_day(dialect: DialectName, day: str) -> str:
    """A day as the dialect writes it; what is not an ISO day is given back as it is."""
    if dialect == "nbia" and (match := _ISO_DAY.fullmatch(day)):
        year, month, of_month = match[1].split("-")
        return f"{month}-{of_month}-{year}"
    return day


def decode_row(wire: Mapping[str, Any]) -> dict[str, Any]:
    """A canonical row from a row of either dialect. Raises BadAnswer where a number is none."""
    row: dict[str, Any] = {}
    # A collection has hundreds of thousands of rows with thirty fields each, nearly all of them texts.
    for key, value in wire.items():
        if value is None:
            continue
        name, kind = _READ_AS.get(key, (key, None))
        if kind is Kind.TEXT:
            row[name] = value if type(value) is str else str(value)
        else:
            row[name] = value if kind is None else _decode_value(name, kind, value)
    return row


def _decode_value(name: str, kind: Kind, value: Any) -> Any:
    if kind is Kind.DATE:
        return decode_day(str(value))
    if isinstance(value, str) and not value.strip():
        return None
    try:
        number = float(value)
        whole = int(number) if isinstance(value, float) or "." in str(value) else int(value)
        if kind is Kind.INTEGER and abs(whole) > _LARGEST:
            raise OverflowError
    except (TypeError, ValueError, OverflowError) as error:
        raise BadAnswer(f"{name} is {value!r}, which is not a number") from error
    return whole if kind is Kind.INTEGER or whole == number else number


def encode_row(endpoint: Endpoint, dialect: DialectName, row: Mapping[str, Any]) -> dict[str, Any]:
    """A wire row as the dialect's server sends it: its fields in its order, null ones left out.

    Fields that the table does not know follow at the end: a copy gives back what it was given.
    """
    wire: dict[str, Any] = {}
    for name in endpoint.fields(dialect):
        value = row.get(endpoint.canonical(name))
        if value is not None:
            wire[name] = _encode_value(dialect, endpoint, endpoint.canonical(name), value)
    return wire | {name: value for name, value in row.items() if name not in FIELDS and value is not None}


def _encode_value(dialect: DialectName, endpoint: Endpoint, name: str, value: Any) -> Any:
    if FIELDS[name].kind is Kind.DATE:
        if dialect == "nbia" and endpoint.days is Days.STAMP and (day := _ISO_DAY.fullmatch(str(value))):
            return f"{day[1]} 00:00:00.0"
        return encode_day(dialect, str(value))
    if dialect == "tcia" and (FIELDS[name].kind is Kind.DECIMAL or name == "TotalSizeInBytes"):
        return f"{value}.000000" if isinstance(value, int) else f"{value:.6f}"
    return value


def error_of(
    server: Server,
    endpoint: Endpoint,
    status: int,
    body: bytes,
    *,
    asked: str,
    retry_after: float | None = None,
) -> ArchiveError:
    """The error that a status other than 200 means in the server's dialect, with the server's own words in it."""
    said = _words_of(body)
    if status == 429 or (status == 503 and retry_after is not None):
        wish = "" if retry_after is None else f"; it asks to wait {retry_after:.0f} s"
        message = f"status {status}: {said or 'too many requests'}{wish}"
        return Throttled(message, asked=asked, retry_after=retry_after)
    if status == 404:
        return NotFound(f"status 404: {said or 'not found'}", asked=asked)
    if 400 <= status < 500:
        of_a_series = any(p.name == "SeriesInstanceUID" for p in endpoint.params)
        hint = f"; {_ELSEWHERE}" if of_a_series and status not in _NOT_ALLOWED else ""
        return Refused(f"status {status}: {said or 'refused'}{hint}", asked=asked)
    return ServerFault(f"status {status}: {said or 'server fault'}", asked=asked, status=status)


def unknown_series_hint(server: Server) -> str:
    """What to tell an operator whose series a server does not know."""
    return f"{server.base} does not list it; {_ELSEWHERE}"


def _words_of(body: bytes, limit: int = 300) -> str:
    """The message in an error body: the tcia dialect's JSON fields, or the plain text on one line."""
    text = body.decode("utf-8", "replace")
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if isinstance(told, dict):
        words = [str(told[k]) for k in ("errorDescription", "detailedMessage", "errorMessage") if k in told]
        text = "; ".join(words) or text
    return " ".join(text.split())[:limit]
