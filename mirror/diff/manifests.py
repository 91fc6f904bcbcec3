"""A mirror against a file: a table that an export wrote, or a list of SeriesInstanceUIDs.

The rows of a file may come in any order: they go into a scratch ledger first, so memory does not grow with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from mirror.diff.series import NOWHERE, Difference, Measure, compare
from mirror.errors import SettingsError
from mirror.export import parquet_columns, read_parquet
from mirror.ledger import Comparison, Scratch
from mirror.manifest import InstanceRow, SeriesRow, read_csv, read_jsonl, read_series_uids
from mirror.model import Series

T = TypeVar("T")
R = TypeVar("R", InstanceRow, SeriesRow)

_AT_A_TIME = 1000
_LONGEST_HEADER = 10_000


def against_manifest(
    here: Comparison, file: Path, collections: Sequence[str] = (), *, instances: bool = False
) -> Iterator[list[Difference]]:
    """What differs between a mirror and a manifest; see the package. `instances`: each that differs, too.

    The file is a table of instances or of series as `export` writes it (.csv, .jsonl, .parquet), or a .tcia, .csv or
    .txt list of SeriesInstanceUIDs. Raises SettingsError for what is none of these, and for a collection that neither
    side knows.
    """
    with Scratch() as there:
        measure = _take(there, file)
        yield from compare(here, there, measure, collections, instances=instances)


def _take(there: Scratch, file: Path) -> Measure:
    """Take in a file, of whatever kind it is; by what it can be compared."""
    try:
        names = _columns(file)
        if "sop_instance_uid" in names:
            _take_instances(there, file, _rows(file, InstanceRow))
            return Measure.INSTANCES
        if {"series_instance_uid", "instances"} <= names:
            _take_series(there, _rows(file, SeriesRow))
            return Measure.COUNTS
        if file.suffix.lower() in (".jsonl", ".parquet"):
            raise SettingsError(f"{file}: not a table of instances or of series as `tcia-mirror export` writes it")
        _take_list(there, file)
    except OSError as error:
        raise SettingsError(f"{file}: cannot read the manifest: {error.strerror or error}") from error
    return Measure.NAMES


def _columns(file: Path) -> set[str]:
    """The names of a table's columns; of what is no table, anything but those."""
    if file.suffix.lower() == ".parquet":
        return set(parquet_columns(file))
    with file.open(encoding="utf-8", newline="", errors="replace") as text:
        line = text.readline(_LONGEST_HEADER)
    return set(re.findall(r"\w+", line))


def _rows(file: Path, row_type: type[R]) -> Iterator[R]:
    if file.suffix.lower() == ".parquet":
        yield from read_parquet(file, row_type)
        return
    read = read_jsonl if file.suffix.lower() == ".jsonl" else read_csv
    with file.open(encoding="utf-8", newline="") as text:
        try:
            yield from read(text, row_type)
        except UnicodeDecodeError as error:
            raise SettingsError(f"{file}: is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _take_instances(there: Scratch, file: Path, rows: Iterable[InstanceRow]) -> None:
    for batch in _batches(rows):
        there.put_series({row.series_instance_uid: _series(row) for row in batch}.values())
        try:
            there.put_instances((row.series_instance_uid, row.sop_instance_uid, row.bytes, row.sha256) for row in batch)
        except ValueError as error:
            raise SettingsError(f"{file}: not a SHA-256 in hex: {error}") from error


def _take_series(there: Scratch, rows: Iterable[SeriesRow]) -> None:
    for batch in _batches(row for row in rows if row.instances):
        there.put_series(_series(row, image_count=row.instances, file_size=row.bytes) for row in batch)


def _take_list(there: Scratch, file: Path) -> None:
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    there.put_series(
        Series(series_instance_uid=uid, collection=NOWHERE, patient_id="", study_instance_uid="")
        for uid in read_series_uids(text, str(file))
    )


def _series(row: InstanceRow | SeriesRow, *, image_count: int | None = None, file_size: int | None = None) -> Series:
    return Series(
        series_instance_uid=row.series_instance_uid,
        collection=row.collection,
        patient_id=row.patient_id,
        study_instance_uid=row.study_instance_uid,
        image_count=image_count,
        file_size=file_size,
    )


def _batches(rows: Iterable[T]) -> Iterator[list[T]]:
    source = iter(rows)
    while batch := list(islice(source, _AT_A_TIME)):
        yield batch
