"""The manifest: what the mirror holds, as rows, and rows as files.

Hides the file formats. Writers take rows from any iterable and stream them into an open text file: memory does not
grow with their number, and equal rows give equal bytes on every machine and Python. Open files for writing as UTF-8
with newline="\\n", and for reading with newline="". Readers of lists forgive what the programs of the field write.
"""

from __future__ import annotations

import csv
import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, TextIO, TypeVar, get_args, get_type_hints, overload
from urllib.parse import urlsplit

import msgspec

from mirror.errors import SettingsError


class InstanceRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One DICOM file of the mirror. `path` is below the root, with forward slashes; digests are lower-case hex."""

    collection: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    modality: str
    path: str
    bytes: int
    sha256: str
    md5: str
    #: The call it came by: getSingleImage or getImage.
    source: str
    #: UTC, YYYY-MM-DDTHH:MM:SSZ.
    fetched_at: str
    #: What was compared when it came, e.g. "length,header,md5".
    verified: str
    series_state: str


class SeriesRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One series the mirror knows: the archive's facts, and what is held. None: the archive does not say."""

    collection: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    body_part_examined: str
    manufacturer: str
    study_date: str
    study_description: str
    series_number: str
    series_description: str
    #: What the archive says.
    image_count: int | None
    file_size: int | None
    date_released: str
    license_name: str
    license_uri: str
    data_description_uri: str
    #: The series' folder below the root.
    path: str
    #: What is held.
    instances: int
    bytes: int
    state: str
    #: What is wrong, in words, joined with "; ".
    findings: str


R = TypeVar("R", InstanceRow, SeriesRow)

_TO_BE_QUOTED = re.compile(r'[",\r\n]')


def columns(row_type: type[InstanceRow] | type[SeriesRow]) -> tuple[str, ...]:
    """The names of a table's columns, in their order."""
    return tuple(get_type_hints(row_type))


def optional_columns(row_type: type[InstanceRow] | type[SeriesRow]) -> frozenset[str]:
    """Those of them that may have nothing."""
    return frozenset(name for name, hint in get_type_hints(row_type).items() if type(None) in get_args(hint))


def write_csv(rows: Iterable[R], file: TextIO, row_type: type[R]) -> int:
    """Write a header and the rows as CSV (RFC 4180, but "\\n"), None as nothing; gives back how many rows."""
    # Not csv.writer: which fields it quotes, a carriage return for one, differs between versions of Python.
    names = columns(row_type)
    values_of = attrgetter(*names)
    file.write(",".join(names) + "\n")
    count = 0
    # Most of a row is as in the one before, and a mirror has millions of rows.
    before: tuple[str | int | None, ...] = (None,) * len(names)
    cells = [""] * len(names)
    for row in rows:
        values = values_of(row)
        for column, value in enumerate(values):
            if value != before[column]:
                cells[column] = _cell(value)
        before = values
        file.write(",".join(cells) + "\n")
        count += 1
    return count


def _cell(value: str | int | None) -> str:
    text = "" if value is None else str(value)
    if _TO_BE_QUOTED.search(text) or text[:1].isspace() or text[-1:].isspace():
        return '"' + text.replace('"', '""') + '"'
    return text


@overload
def read_csv(file: TextIO) -> Iterator[InstanceRow]: ...
@overload
def read_csv(file: TextIO, row_type: type[R]) -> Iterator[R]: ...
def read_csv(file: TextIO, row_type: type[Any] = InstanceRow) -> Iterator[Any]:
    """The rows that `write_csv` wrote. Columns may come in any order, and more of them than this version knows.

    Raises SettingsError that names file and line for what is no such row.
    """
    optional = optional_columns(row_type)
    reader = csv.DictReader(file, strict=True)
    try:
        header = reader.fieldnames or ()
        for name in columns(row_type):
            if name not in header:
                raise SettingsError(f"{_name_of(file)}: the column {name} is missing")
        for cells in reader:
            values = {name: cells[name] for name in columns(row_type)}
            values |= {name: None for name in optional if not cells[name]}
            yield msgspec.convert(values, row_type, strict=False)
    except (csv.Error, msgspec.ValidationError) as error:
        raise SettingsError(
            f"{_name_of(file)}, line {reader.reader.line_num}: not a row of a manifest: {error}"
        ) from error


def write_jsonl(rows: Iterable[R], file: TextIO) -> int:
    """Write one JSON object per row and line; gives back how many."""
    encode = msgspec.json.Encoder().encode
    count = 0
    for row in rows:
        file.write(encode(row).decode() + "\n")
        count += 1
    return count


@overload
def read_jsonl(file: TextIO) -> Iterator[InstanceRow]: ...
@overload
def read_jsonl(file: TextIO, row_type: type[R]) -> Iterator[R]: ...
def read_jsonl(file: TextIO, row_type: type[Any] = InstanceRow) -> Iterator[Any]:
    """The rows that `write_jsonl` wrote, fields this version does not know left out.

    Raises SettingsError that names file and line for what is no such row.
    """
    decoder = msgspec.json.Decoder(row_type)
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as error:
                raise SettingsError(f"{_name_of(file)}, line {number}: not a row of a manifest: {error}") from error


def _name_of(file: TextIO) -> str:
    return str(getattr(file, "name", "manifest"))


def write_sha256(rows: Iterable[InstanceRow], file: TextIO) -> int:
    """Write what `sha256sum -c` reads in the mirror's root; gives back how many lines."""
    count = 0
    for row in rows:
        escaped = row.path.replace("\\", r"\\").replace("\n", r"\n").replace("\r", r"\r")
        mark = "" if escaped == row.path else "\\"
        file.write(f"{mark}{row.sha256}  {escaped}\n")
        count += 1
    return count


# The NBIA Data Retriever's manifest

_SERVLET = "/nbia-download/servlet/DownloadServlet"
_LIVE_SERVLET = f"https://nbia.cancerimagingarchive.net{_SERVLET}"
_MARKER = re.compile(r"^[ \t]*ListOfSeriesToDownload[ \t]*=", re.IGNORECASE | re.MULTILINE)
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_UID_COLUMNS = frozenset({"seriesinstanceuid", "seriesuid"})


def write_tcia(
    uids: Iterable[str], file: TextIO, *, name: str, server: str = "", origin: str = "", annotations: bool = True
) -> int:
    """Write a `.tcia` file that the NBIA Data Retriever reads; gives back how many series it names.

    `name` is what the retriever calls its folder. `server` is the base URL that the mirror's data came from; unless it
    is an NBIA server that others can reach, the live archive is named. What is no UID is left out: readers keep the
    digits and dots of a line, and would ask for something else. `origin`: scheme, host and port of the server that
    answers with this file, whatever it is.
    """
    servlet = origin + _SERVLET if origin else download_servlet(server)
    basket = re.sub(r"[^A-Za-z0-9._-]+", "-", name.removesuffix(".tcia"))
    file.write(
        f"downloadServerUrl={servlet}\nincludeAnnotation={str(annotations).lower()}\nnoOfrRetry=4\n"
        f"databasketId={basket}.tcia\nmanifestVersion=3.0\nListOfSeriesToDownload=\n"
    )
    count = 0
    for uid in uids:
        if _UID.fullmatch(uid):
            file.write(f"{uid}\n")
            count += 1
    return count


def download_servlet(server: str) -> str:
    """The URL that the NBIA Data Retriever wants for an NBIA server's v4 base URL; else that of the live archive."""
    parts = urlsplit(server)
    before, api, _ = parts.path.partition("/nbia-api/")
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host in ("", "localhost")
    return f"{parts.scheme}://{parts.netloc}{before}{_SERVLET}" if api and not local else _LIVE_SERVLET


def read_series_uids(text: str, source: str) -> list[str]:
    """The SeriesInstanceUIDs of a list, in its order, each once. `source` names the list in errors.

    A list is a `.tcia` manifest (its header and whatever is no UID is skipped), a CSV or TSV table with a column
    SeriesInstanceUID or Series UID, or plain text with one UID per line ("#" begins a comment). Raises SettingsError
    for a row or line without a UID in the latter two, and for a list without any.
    """
    text = text.removeprefix("\ufeff")
    if marker := _MARKER.search(text):
        stripped = (line.strip(" \t,") for line in text[marker.end() :].splitlines())
        uids = [line for line in stripped if _UID.fullmatch(line)]
    else:
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        first = next((number for number, line in enumerate(lines) if line), 0)
        table = _uids_of_table(text.splitlines(keepends=True), first, source)
        uids = _uids_of_lines(lines, source) if table is None else table
    if not uids:
        raise SettingsError(f"{source}: no SeriesInstanceUID in it")
    return list(dict.fromkeys(uids))


def _uids_of_lines(lines: list[str], source: str) -> list[str]:
    uids = []
    for number, line in enumerate(lines, start=1):
        if line:
            uids.append(_checked_uid(line.rstrip(", \t"), source, number))
    return uids


def _uids_of_table(lines: list[str], first: int, source: str) -> list[str] | None:
    """The UIDs of a table whose header is line `first` (from 0), or None where that is no such header."""
    for delimiter in ",\t;":
        header = next(csv.reader(lines[first : first + 1], delimiter=delimiter), [])
        names = [re.sub(r"[\s_]", "", cell).lower() for cell in header]
        column = next((n for n, name in enumerate(names) if name in _UID_COLUMNS), None)
        if column is None:
            continue
        # Strict: a quotation mark that is never closed would swallow rows in silence.
        reader = csv.reader(lines[first + 1 :], delimiter=delimiter, strict=True)
        above = first + 1
        try:
            return [
                _checked_uid(row[column].strip() if column < len(row) else "", source, above + reader.line_num)
                for row in reader
                if any(cell.strip() for cell in row)
            ]
        except csv.Error as error:
            raise SettingsError(
                f"{source}, line {above + reader.line_num}: not readable as a table: {error}"
            ) from error
    return None


def _checked_uid(text: str, source: str, line: int) -> str:
    if not _UID.fullmatch(text):
        raise SettingsError(f"{source}, line {line}: {text[:80]!r} is no SeriesInstanceUID")
    return text


# What users of the data owe

_POLICY = "https://www.cancerimagingarchive.net/data-usage-policies-and-restrictions/"
_ARCHIVE_CITATION = (
    "Clark K, Vendt B, Smith K, Freymann J, Kirby J, Koppel P, et al.\n"
    "  The Cancer Imaging Archive (TCIA): Maintaining and Operating a Public Information Repository.\n"
    "  Journal of Digital Imaging 26 (2013), 1045-1057. https://doi.org/10.1007/s10278-013-9622-7"
)
_DOI_PREFIX = re.compile(r"(https?://)?(dx\.)?doi\.org/|doi:\s*", re.IGNORECASE)


def write_licenses(rows: Iterable[SeriesRow], file: TextIO) -> int:
    """Write the licences of the series that are held, per collection; gives back how many entries.

    Memory grows with the number of collections and their licences, not of series.
    """
    counts = Counter(
        (row.collection, _one_line(row.license_name), _one_line(row.license_uri)) for row in rows if row.instances
    )
    file.write(
        "Licences of the series in this mirror, as the archive states them. A copy of the data keeps its licence.\n"
        f"They are used under TCIA's data usage policy: {_POLICY}\n"
    )
    previous = None
    for (collection, name, uri), count in sorted(counts.items()):
        if collection != previous:
            file.write(f"\n{_one_line(collection)}\n")
        previous = collection
        stated = ", ".join(part for part in (name, uri) if part) or "the archive states no licence"
        file.write(f"  {stated} ({count} series)\n")
    return len(counts)


def write_citations(rows: Iterable[SeriesRow], file: TextIO) -> int:
    """Write what to cite for the series that are held, per collection; gives back how many data sets.

    DOIs that differ only in case or in how they are prefixed are one, in the spelling that comes first. Memory grows
    with the number of collections and their DOIs, not of series.
    """
    counts: Counter[tuple[str, str]] = Counter()
    spelling: dict[tuple[str, str], str] = {}
    for row in rows:
        if row.instances:
            doi = _DOI_PREFIX.sub("", _one_line(row.data_description_uri), count=1)
            key = (row.collection, doi.casefold())
            spelling.setdefault(key, doi)
            counts[key] += 1
    file.write(
        f"Data in this mirror are used under TCIA's data usage policy: {_POLICY}\n"
        "Whoever publishes work with them cites each data set by its DOI, and the archive:\n\n"
        f"  {_ARCHIVE_CITATION}\n"
    )
    previous = None
    for key, count in sorted(counts.items()):
        if key[0] != previous:
            file.write(f"\n{_one_line(key[0])}\n")
        previous = key[0]
        doi = spelling[key]
        link = f"https://doi.org/{doi}" if doi.startswith("10.") else doi
        file.write(f"  {link or 'the archive states no DOI'} ({count} series)\n")
    return len(counts)


def _one_line(text: str) -> str:
    return " ".join(text.split())
