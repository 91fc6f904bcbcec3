"""The ledger as files beside the tree. Hides how a file is replaced: whole or not at all.

Rows come in the ledger's fixed order, so the same mirror gives the same bytes. Each file is written beside its target,
flushed to the disk and renamed; after an error or a kill the target is as it was, and what a kill left behind is taken
away by the next export. Nothing here changes the ledger or the tree; it is safe beside a running sync, though files
written then may show neighbouring moments of it.
"""

from __future__ import annotations

import difflib
import fcntl
import glob
import itertools
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, TextIO, TypeVar, get_type_hints

from mirror.archive.dialects import find_server
from mirror.errors import SettingsError, store_errors
from mirror.ledger import Catalogue
from mirror.manifest import (
    InstanceRow,
    SeriesRow,
    columns,
    optional_columns,
    write_citations,
    write_csv,
    write_jsonl,
    write_licenses,
    write_sha256,
    write_tcia,
)
from mirror.model import SeriesState

#: What `export` writes.
EXPORT_FORMATS = ("csv", "jsonl", "parquet", "sha256", "tcia")

_TABLES = ("csv", "jsonl", "parquet")
#: Rows that a reader of Parquet takes in one go; that many texts of Python's own would be 100 MB, so that they are
#: handed over in smaller batches.
_ROW_GROUP = 16_384
_ROW_BATCH = 2048

Write = Callable[[BinaryIO], int]
R = TypeVar("R", InstanceRow, SeriesRow)


def export(root: Path, format: str, output: Path | None = None) -> list[tuple[Path, int]]:
    """Write the mirror's manifest in one of EXPORT_FORMATS; gives back the files and how many rows each has.

    csv, jsonl and parquet are two tables, instances and series: manifest.csv and manifest-series.csv, or `output` and
    its name with "-series" beside it; a link is followed. sha256 is SHA256SUMS, for `sha256sum -c` in the root; tcia
    names the complete series. Raises SettingsError for an unknown format, a folder without a mirror, a missing extra,
    or an output that is there and is no file; StoreFull, StoreDenied or StoreError, naming the path, for what the disk
    refuses. Safe to repeat.
    """
    if format not in EXPORT_FORMATS:
        near = difflib.get_close_matches(format, EXPORT_FORMATS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"format: {format!r} is none of {', '.join(EXPORT_FORMATS)}{hint}")
    if output is not None:
        output = _place(output)
    with Catalogue(root) as catalogue:
        if format in _TABLES:
            return _tables(catalogue, format, output or root / f"manifest.{format}")
        if format == "sha256":
            return [_sums(catalogue, output or root / "SHA256SUMS")]
        return [_tcia(catalogue, output or root / "manifest.tcia")]


def export_standard(root: Path) -> list[tuple[Path, int]]:
    """What a sync writes at its end: the tables as CSV, SHA256SUMS, LICENSES and CITATIONS. As `export` otherwise."""
    with Catalogue(root) as catalogue:
        return [
            *_tables(catalogue, "csv", root / "manifest.csv"),
            _sums(catalogue, root / "SHA256SUMS"),
            _published(root / "LICENSES", _text(lambda file: write_licenses(catalogue.series_rows(), file))),
            _published(root / "CITATIONS", _text(lambda file: write_citations(catalogue.series_rows(), file))),
        ]


def _tables(catalogue: Catalogue, format: str, target: Path) -> list[tuple[Path, int]]:
    instances, series = catalogue.instance_rows, catalogue.series_rows
    writes: tuple[Write, Write]
    if format == "csv":
        writes = (
            _text(lambda file: write_csv(instances(), file, InstanceRow)),
            _text(lambda file: write_csv(series(), file, SeriesRow)),
        )
    elif format == "jsonl":
        writes = _text(lambda file: write_jsonl(instances(), file)), _text(lambda file: write_jsonl(series(), file))
    else:
        arrow, parquet = _pyarrow()
        writes = (
            lambda file: _write_parquet(instances(), file, InstanceRow, arrow, parquet),
            lambda file: _write_parquet(series(), file, SeriesRow, arrow, parquet),
        )
    beside = target.with_name(f"{target.stem}-series{target.suffix}")
    _place(beside)  # refused before the first table is written
    return [_published(target, writes[0]), _published(beside, writes[1])]


def _sums(catalogue: Catalogue, target: Path) -> tuple[Path, int]:
    return _published(target, _text(lambda file: write_sha256(catalogue.instance_rows(), file)))


def _tcia(catalogue: Catalogue, target: Path) -> tuple[Path, int]:
    server = catalogue.meta("server") or ""
    with suppress(SettingsError):  # a ledger from elsewhere: then the live archive is named
        server = find_server(server).base
    complete = (row.series_instance_uid for row in catalogue.series_rows() if row.state == SeriesState.COMPLETE)
    return _published(target, _text(lambda file: write_tcia(complete, file, name=target.stem, server=server)))


# Parquet


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SettingsError("format: parquet needs pyarrow: pip install 'tcia-mirror[parquet]'") from error
    return pyarrow, pyarrow.parquet


def _write_parquet(
    rows: Iterable[InstanceRow] | Iterable[SeriesRow],
    file: BinaryIO,
    row_type: type[InstanceRow] | type[SeriesRow],
    arrow: ModuleType,
    parquet: ModuleType,
) -> int:
    """Write rows in groups of _ROW_GROUP, so that memory does not grow with their number."""
    schema = arrow.schema(
        [
            arrow.field(name, arrow.string() if hint is str else arrow.int64(), name in optional_columns(row_type))
            for name, hint in get_type_hints(row_type).items()
        ]
    )
    source, count = iter(rows), 0

    def batches() -> Iterator[Any]:
        left = _ROW_GROUP
        while some := list(itertools.islice(source, min(left, _ROW_BATCH))):
            left -= len(some)
            columns = [
                arrow.array([getattr(row, name) for row in some], schema.field(name).type) for name in schema.names
            ]
            yield arrow.record_batch(columns, schema=schema)

    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(batches()):
            writer.write_table(arrow.Table.from_batches(group), row_group_size=_ROW_GROUP)
            count += sum(batch.num_rows for batch in group)
    return count


def parquet_columns(file: Path) -> list[str]:
    """The names of a Parquet file's columns. Raises SettingsError for what is none, and for a missing extra."""
    arrow, parquet = _pyarrow()
    with _parquet_errors(file, arrow):
        return list(parquet.read_schema(file).names)


def read_parquet(file: Path, row_type: type[R]) -> Iterator[R]:
    """The rows that an export wrote into a Parquet file, group by group. As `parquet_columns` otherwise."""
    arrow, parquet = _pyarrow()
    with _parquet_errors(file, arrow), parquet.ParquetFile(file) as opened:
        for batch in opened.iter_batches(_ROW_BATCH, columns=list(columns(row_type))):
            for row in batch.to_pylist():
                yield row_type(**row)


@contextmanager
def _parquet_errors(file: Path, arrow: ModuleType) -> Iterator[None]:
    try:
        yield
    except (arrow.ArrowInvalid, TypeError) as error:
        raise SettingsError(f"{file}: not a manifest in Parquet: {error}") from error


# Files, whole or not at all


def _text(write: Callable[[TextIO], int]) -> Write:
    def wrapped(file: BinaryIO) -> int:
        with os.fdopen(file.fileno(), "w", encoding="utf-8", newline="\n", closefd=False) as text:
            return write(text)

    return wrapped


def _place(target: Path) -> Path:
    """Where a file for `target` goes: there, or where a link leads. Raises SettingsError where no file can be."""
    with store_errors(target):
        try:
            mode = target.stat().st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise SettingsError(f"{target}: a folder, not a file")
    if not stat.S_ISREG(mode):
        # Replaced by a file, a device or a pipe would be gone for everybody.
        raise SettingsError(f"{target}: is not a file; an export replaces files, and goes to no device or pipe")
    return Path(os.path.realpath(target)) if target.is_symlink() else target


def _published(target: Path, write: Write) -> tuple[Path, int]:
    """Replace `target` by what `write` writes; gives back the target and the number of rows."""
    place = _place(target)
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(8)}.part")
    with store_errors(target):
        _clear_leftovers(place)
        try:
            with temporary.open("xb") as file:
                _hold(file)
                count = write(file)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(place)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(place.parent)
    return target, count


def _hold(file: BinaryIO) -> None:
    """Mark a temporary file as in use for as long as it is open."""
    with suppress(OSError):  # where files cannot be locked, left-overs stay
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _clear_leftovers(target: Path) -> None:
    """Take away what killed exports of this target left behind: nobody holds those."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
