"""A mirror made from DICOM files on disk: an archive of one's own, which `serve` then serves like any other.

Hides how headers become rows of getPatient, getPatientStudy and getSeries, and how files and ledger come together.
What is stocked is complete at once: there is no upstream that could know better.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mirror.archive.rows import as_noun
from mirror.check import read_header
from mirror.errors import store_errors
from mirror.headers import PATIENT_FIELDS, SERIES_FIELDS, STUDY_FIELDS, Fields, read_fields, select
from mirror.layout import Layout
from mirror.ledger import Ledger
from mirror.model import Action, Digest, Header, Instance, Patient, Series, SeriesState, Study, Why


@dataclass(frozen=True, slots=True)
class _File:
    """One DICOM file and its identity. Its bytes are read when they are needed."""

    source: Path | bytes
    header: Header

    def body(self) -> bytes:
        """The file's bytes."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def stock(
    root: Path,
    collection: str,
    files: Iterable[Path | bytes],
    *,
    released: str,
    license_name: str = "Creative Commons Attribution 4.0 International License",
    license_uri: str = "https://creativecommons.org/licenses/by/4.0/",
    doi: str = "",
    server: str = "stock",
    extra: Callable[[Fields], Mapping[str, Any]] | None = None,
) -> int:
    """Make a mirror at `root`, or add to one: `files` become series of `collection`, released on that ISO day.

    Series are complete at once; files added to a held series join it. `extra` gives further fields of a series' row,
    or others than those made here. Returns the number of files. Safe to repeat. Raises ValueError for what is no
    DICOM file, StoreError and LedgerError.
    """
    layout = Layout.parse("uid")
    of_series: dict[str, list[_File]] = defaultdict(list)
    for file in _read(files):
        of_series[file.header.series_instance_uid].append(file)
    common: Fields = {
        "Collection": collection,
        "MaxSubmissionTimestamp": released,
        "DateReleased": released,
        "ReleasedStatus": "Yes",
        "LicenseName": license_name,
        "LicenseURI": license_uri,
        "DataDescriptionURI": doi or None,
        "ThirdPartyAnalysis": "NO",
    }
    with Ledger(root) as ledger:
        if ledger.meta("layout") is None:
            ledger.set_meta(server=server, dialect="nbia", layout=layout.name, created_at=str(int(time.time())))
        crawl = ledger.begin_crawl(collection, "stock", int(time.time()))
        for held in of_series.values():
            _stock_series(ledger, root, layout, crawl, common, held, extra)
        ledger.finish_crawl(crawl)
    return sum(map(len, of_series.values()))


def _stock_series(
    ledger: Ledger,
    root: Path,
    layout: Layout,
    crawl: int,
    common: Fields,
    files: list[_File],
    extra: Callable[[Fields], Mapping[str, Any]] | None,
) -> None:
    fields = read_fields(io.BytesIO(files[0].body())) | {"PatientID": files[0].header.patient_id}
    collection = common["Collection"]
    patient = as_noun(Patient, select(fields, PATIENT_FIELDS, {"Collection": collection}))
    study = as_noun(Study, select(fields, STUDY_FIELDS, {"Collection": collection}))
    row = select(fields, SERIES_FIELDS, common)
    row |= {} if extra is None else extra(row)
    series = as_noun(Series, row)
    ledger.put_patients(crawl, [patient])
    ledger.put_studies(crawl, [study])
    uid = series.series_instance_uid
    directory = ledger.directory_of(uid) or ledger.claim_directory(layout.directory(series, study))
    run = f"stock-{crawl}"
    ledger.plan_series(crawl, run, [(series, Action(fetch=True, why=Why.NEW), directory)])
    (todo,) = (item for item in ledger.todo(run, 0, 1) if item.series.series_instance_uid == uid)
    listing = ledger.open_series(todo.id)
    instances = [_publish(root / directory, layout, file) for file in files]
    ledger.record(todo.id, instances)
    held = ledger.held_names(todo.id)
    ledger.list_instances(todo.id, listing, [sop for sop, _, _ in held])
    counted = replace(series, raw=row | {"ImageCount": len(held), "FileSize": sum(size for _, _, size in held)})
    counted = as_noun(Series, counted.raw)
    ledger.plan_series(crawl, run, [(counted, Action(fetch=False, why=Why.UNCHANGED), directory)])
    ledger.judge(todo.id, SeriesState.COMPLETE, ())


def _publish(directory: Path, layout: Layout, file: _File) -> Instance:
    name = layout.file_name(file.header.sop_instance_uid)
    body = file.body()
    with store_errors(directory / name):
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / f".{name}.part"
        partial.write_bytes(body)
        partial.replace(directory / name)
    digest = Digest(
        bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        md5=hashlib.md5(body, usedforsecurity=False).hexdigest(),
    )
    return Instance(
        header=file.header,
        digest=digest,
        name=name,
        source="stock",
        fetched_at=int(time.time()),
        verified="length,header",
    )


def _read(files: Iterable[Path | bytes]) -> Iterator[_File]:
    for number, source in enumerate(files, start=1):
        name = f"file {number}" if isinstance(source, bytes) else str(source)
        body = source if isinstance(source, bytes) else source.read_bytes()
        try:
            header, end = read_header(io.BytesIO(body), len(body))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if end > len(body):
            raise ValueError(f"{name}: the data set is cut off")
        yield _File(source, header)
