"""What lies in the directories of a tree: every file is read whole, and held against what the manifest says of it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mirror.archive.rows import as_noun, as_row
from mirror.check import digest_of, read_header
from mirror.errors import SettingsError
from mirror.headers import PATIENT_FIELDS, SERIES_FIELDS, STUDY_FIELDS, Fields, read_fields, select
from mirror.layout import LAYOUTS, Layout
from mirror.ledger.rebuilt import Claim
from mirror.manifest import SeriesRow, columns
from mirror.model import Digest, Finding, FindingKind, Header, Instance, Patient, Series, Study
from mirror.tree import LocalStore

#: How instances came that only this knows of.
SOURCE = "rebuild"
#: The canonical fields that the manifest has.
_COLUMNS = frozenset(as_row(dict.fromkeys(columns(SeriesRow), "given")))
#: Directories by which a layout is recognised.
_SAMPLE = 50


@dataclass(slots=True)
class Reading:
    """What one directory came to."""

    held: list[Instance] = field(default_factory=list)
    #: How many of `held` are what the manifest says.
    equal: int = 0
    changed: int = 0
    foreign: int = 0
    findings: list[Finding] = field(default_factory=list)
    #: What the first good file's header says for the archive's rows.
    fields: Fields = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Records:
    """The rows of one series, its study and its patient, and the parts of its directory."""

    series: Series
    study: Study
    patient: Patient
    parts: list[tuple[str, str]]


def read_directory(
    store: LocalStore, layout: Layout, directory: str, series: Series | None, claims: Sequence[Claim]
) -> Reading:
    """Read a series' directory. `series` None: whichever its first instance is of. Blocks.

    The manifest's SHA-256 decides: a file that has it is held; one that should and has not is set aside. Where the
    manifest says nothing, header and name decide, as when a sync finds a file that it did not write down.
    """
    reading = Reading()
    by_uid = {claim.sop_instance_uid: claim for claim in claims}
    by_name = {claim.name: claim for claim in claims}
    of = series.series_instance_uid if series is not None else ""
    taken: set[str] = set()
    for name in sorted(store.names(directory)):
        if not layout.may_name(name):
            continue
        path = f"{directory}/{name}"
        try:
            with store.open(directory, name) as file:
                digest = digest_of(file)
                header, whole = _header(file, digest.bytes)
                if header is not None and whole and not reading.fields:
                    reading.fields = read_fields(file) | {"PatientID": header.patient_id}
        except OSError as error:
            reading.findings.append(_finding(FindingKind.FILE_UNREADABLE, f"{path}: {error.strerror}", series))
            continue
        of = of or (header.series_instance_uid if header is not None and whole else "")
        claimed = [by_uid.get(header.sop_instance_uid) if header is not None else None, by_name.get(name)]
        claim = next((c for c in claimed if c is not None and c.sha256 == digest.sha256), None)
        if claim is not None:
            by_uid.pop(claim.sop_instance_uid, None)
            reading.held.append(_as_claimed(claim, header, digest, name, of, series))
            reading.equal += 1
        elif any(claimed):
            said = f"{path}: has SHA-256 {digest.sha256}, the manifest says {next(c for c in claimed if c).sha256}"
            finding = _finding(FindingKind.FILE_CHANGED, said, series)
            store.set_aside(directory, name, (finding,))
            reading.findings.append(finding)
            reading.changed += 1
        elif (
            header is None
            or not whole
            or not of
            or header.series_instance_uid != of
            or not layout.may_name(name, header.sop_instance_uid)
            or header.sop_instance_uid in taken
        ):
            reading.findings.append(_finding(FindingKind.FILE_FOREIGN, f"{path}: is no instance of this place", series))
            reading.foreign += 1
        else:
            reading.held.append(
                Instance(
                    header=header, digest=digest, name=name, source=SOURCE, fetched_at=int(time.time()),
                    verified="header",
                )
            )  # fmt: skip
        taken.update(instance.header.sop_instance_uid for instance in reading.held[-1:])
    return reading


def _header(file: BinaryIO, size: int) -> tuple[Header | None, bool]:
    """The header, None where there is none, and whether the data set is whole."""
    try:
        header, end = read_header(file, size)
    except ValueError:
        return None, False
    return header, end <= size and bool(header.sop_instance_uid and header.series_instance_uid)


def _as_claimed(
    claim: Claim, header: Header | None, digest: Digest, name: str, of: str, series: Series | None
) -> Instance:
    if header is None or header.sop_instance_uid != claim.sop_instance_uid:
        # Bytes that came like that, and were kept since the archive's own MD5 vouched for them.
        header = Header(
            sop_instance_uid=claim.sop_instance_uid,
            series_instance_uid=of,
            study_instance_uid=series.study_instance_uid if series is not None else "",
            patient_id=series.patient_id if series is not None else "",
            sop_class_uid=claim.sop_class_uid,
        )
    return Instance(
        header=header, digest=digest, name=name, source=claim.source, fetched_at=claim.fetched_at,
        verified=claim.verified,
    )  # fmt: skip


def _finding(kind: FindingKind, detail: str, series: Series | None) -> Finding:
    return Finding(
        kind=kind,
        detail=detail,
        collection=series.collection if series is not None else None,
        series_instance_uid=series.series_instance_uid if series is not None else None,
    )


# Rows


def records_of(series: Series, fields: Fields, layout: Layout) -> Records:
    """The rows of a series that the manifest knows, with what a header of it says besides."""
    told = {name: fields[name] if str(fields.get(name)) == str(value) else value for name, value in series.raw.items()}
    # What the manifest has a column for and leaves out, the archive left out.
    return _records(dict.fromkeys(_COLUMNS) | told, fields, layout)


def place(layout: Layout, directory: str, header: Header, fields: Fields, known: Iterable[str]) -> Records | None:
    """The rows of a series that no manifest knows, from its headers and its place; None where those do not agree.

    The collection is in no header. It is that one, of the names in the path or of those that are `known`, under which
    the layout gives this very path; where several do, the layout does not tell.
    """
    names = directory.split("/")
    identity = {
        "SeriesInstanceUID": header.series_instance_uid,
        "StudyInstanceUID": header.study_instance_uid,
        "PatientID": header.patient_id,
    }
    for candidates in (names, known):
        fits = []
        for collection in dict.fromkeys(candidates):
            row = select(fields, SERIES_FIELDS, identity | {"Collection": collection})
            records = _records(row, fields, layout)
            wanted = [name for name, _ in records.parts]
            if len(wanted) == len(names) and all(map(_is_name, names, wanted)):
                fits.append(records)
        if fits:
            return fits[0] if len(fits) == 1 else None
    return None


def _records(row: Fields, fields: Fields, layout: Layout) -> Records:
    series = as_noun(Series, select(fields, SERIES_FIELDS, row))
    same = {"Collection": series.collection, "PatientID": series.patient_id}
    study = as_noun(Study, select(fields, STUDY_FIELDS, same | {"StudyInstanceUID": series.study_instance_uid}))
    patient = as_noun(Patient, select(fields, PATIENT_FIELDS, same))
    return Records(series, study, patient, layout.directory(series, study))


def _is_name(found: str, wanted: str) -> bool:
    """As wanted, or as the ledger tells apart what only a disk takes for the same."""
    return found == wanted or re.fullmatch(re.escape(wanted) + "~[0-9a-f]{8}", found) is not None


# The tree


def directories(root: Path) -> Iterator[str]:
    """Every directory of the tree that holds files, below the root; in order, nothing is followed. Blocks."""
    for path, folders, files in os.walk(root, onerror=_raise):
        where = Path(path).relative_to(root).as_posix()
        if where == ".":
            folders[:] = sorted(name for name in folders if name != ".mirror")
            continue
        folders.sort()
        if files:
            yield where


def _raise(error: OSError) -> None:
    raise error


def recognise(store: LocalStore, root: Path) -> Layout:
    """The layout of a tree, by its first directories. Raises SettingsError where it is none of those with a name."""
    samples = []
    for directory in directories(root):
        names = sorted(store.names(directory))[:_SAMPLE]
        headers = []
        for name in names:
            with store.open(directory, name) as file:
                header, whole = _header(file, file.seek(0, 2))
                if header is not None and whole:
                    headers.append((name, header, read_fields(file) | {"PatientID": header.patient_id}))
        if headers:
            samples.append((directory, headers))
        if len(samples) == _SAMPLE:
            break
    for layout in map(Layout.parse, LAYOUTS):
        if samples and all(_fits(layout, where, headers) for where, headers in samples):
            return layout
    raise SettingsError(
        f"{root}: neither {root}/.mirror/format.json nor the tree says which layout it has; give --layout"
    )


def _fits(layout: Layout, directory: str, found: list[tuple[str, Header, Fields]]) -> bool:
    if not all(layout.may_name(name, header.sop_instance_uid) for name, header, _ in found):
        return False
    _, header, fields = found[0]
    return place(layout, directory, header, fields, ()) is not None
