"""A synthetic archive as files: true DICOM objects, a zip of each series, and the answer to every call of a dialect.

    <root>/o/<series>/<instance>.dcm      objects
    <root>/z/<series>.zip                 zips, stored: a server sends them as fast as the objects
    <root>/a/<call>/<key>                 answers; a key is the most specific thing that a call may name, or "all"
    <root>/empty                          what the dialect answers where there is nothing
    <root>/urls                           the URL path of every object, one a line

The same seed and size give the same bytes. Objects are one template of a hundred elements, made by pydicom, with
identifiers, numbers and pixels written over it. A zip is what nbia sends for NewFileNames=Yes&IncludeMD5=Yes, whatever
is asked: one file serves the tools that compare MD5s and those that do not, and takes half the memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.template import PATIENT, SERIES_NUMBER, SERIES_UID, SOP_UID, STUDY_UID, template
from mirror.archive.dialects import NBIA_PREFIX, TCIA_PREFIX, encode_row
from mirror.archive.endpoints import ENDPOINTS, DialectName

COLLECTION = "Bench"
PREFIX: dict[DialectName, str] = {"nbia": NBIA_PREFIX, "tcia": TCIA_PREFIX}
_FRAME = 512 * 512 * 2
_POOL = 1 << 20
_SERIES_PER_STUDY, _STUDIES_PER_PATIENT = 4, 2
_RELEASED = "2020-05-17"
_LICENSE = "License Information. The Bench collection is distributed under CC BY 4.0.\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """What an archive is like: `series` of `instances` objects, each of one of `sizes` (side of a frame, frames)."""

    series: int
    instances: int
    sizes: tuple[tuple[int, int], ...]

    def scaled(self, scale: float) -> Shape:
        """The same objects, fewer or more series of them."""
        return Shape(max(1, round(self.series * scale)), self.instances, self.sizes)


SHAPES: dict[str, Shape] = {
    "ct": Shape(46, 125, ((512, 1),)),
    "small": Shape(800, 25, ((112, 1),)),
    "huge": Shape(5, 2, tuple((512, frames) for frames in (115, 381, 160, 340, 230, 270, 130, 190, 250, 224))),
    "single": Shape(20_000, 1, ((112, 1),)),
}


@dataclass(frozen=True, slots=True)
class Object:
    """One object: its identity, length and digests."""

    series: str
    uid: str
    bytes: int
    sha256: str
    md5: str


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that lies at `root`."""

    root: Path
    dialect: DialectName
    objects: tuple[Object, ...]
    series: int

    @property
    def bytes(self) -> int:
        """Bytes of all objects."""
        return sum(o.bytes for o in self.objects)

    def paths(self) -> list[str]:
        """The URL path of each object, in the order of the series."""
        call = PREFIX[self.dialect] + "getSingleImage"
        return [f"{call}?SeriesInstanceUID={o.series}&SOPInstanceUID={o.uid}" for o in self.objects]


def _uid(seed: int, *numbers: int) -> str:
    """A UID of 64 characters, as most of the archive's are; the same for the same numbers."""
    digits = str(int(hashlib.sha256(repr((seed, *numbers)).encode()).hexdigest(), 16))
    return ("1.3.6.1.4.1.14519.5.2.1.1." + "9" + digits)[:64]


def build(root: Path, shape: Shape, dialect: DialectName = "nbia", *, seed: int = 1, workers: int = 1) -> Archive:
    """Write an archive of this shape to the empty or missing folder `root`. `workers`: so many processes."""
    for folder in ("o", "z", "a"):
        (root / folder).mkdir(parents=True)
    make = partial(_write_series, root, shape, dialect, seed)
    with ExitStack() as stack:
        mapped = map
        if workers > 1:
            mapped = partial(stack.enter_context(ProcessPoolExecutor(workers)).map, chunksize=8)  # type: ignore[assignment]
        made = list(mapped(make, range(shape.series)))
    archive = Archive(root, dialect, tuple(o for objects in made for o in objects), shape.series)
    _write_answers(root, dialect, seed, made)
    (root / "urls").write_text("".join(f"{path}\n" for path in archive.paths()))
    (root / "empty").write_bytes(b"" if dialect == "nbia" else b"[]")
    return archive


def _place(number: int) -> tuple[int, int]:
    """(patient, study) of a series."""
    study = number // _SERIES_PER_STUDY
    return study // _STUDIES_PER_PATIENT, study


@cache
def _pool(seed: int) -> bytes:
    return random.Random(seed).randbytes(_POOL + _FRAME)


def _pixels(seed: int, number: int, side: int, frames: int) -> Iterator[memoryview]:
    """Pixels of object `number` of the archive: no two objects, and no two frames of one, are alike."""
    pool = memoryview(_pool(seed))
    for frame in range(frames):
        begin = 2 * (number + 4099 * frame) % _POOL
        yield pool[begin : begin + side * side * 2]


def _write_series(root: Path, shape: Shape, dialect: DialectName, seed: int, number: int) -> list[Object]:
    """Objects and zip of one series."""
    patient, study = _place(number)
    series_uid = _uid(seed, 2, number)
    named = {
        PATIENT: f"BENCH-{patient:05d}".encode(),
        STUDY_UID: _uid(seed, 1, study).encode(),
        SERIES_UID: series_uid.encode(),
        SERIES_NUMBER: b"%-6d" % (number + 1),
    }
    folder = root / "o" / series_uid
    folder.mkdir()
    objects = []
    with zipfile.ZipFile(root / "z" / f"{series_uid}.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(*(("./", b"") if dialect == "tcia" else ("LICENSE", _LICENSE)))
        listed = ["Filename,MD5Hash\n"]
        for n in range(shape.instances):
            ordinal = number * shape.instances + n
            side, frames = shape.sizes[ordinal % len(shape.sizes)]
            head = template(side, frames)
            for blank, value in named.items():
                head = head.replace(blank, value)
            uid = _uid(seed, 3, number, n)
            head = head.replace(SOP_UID, uid.encode()).replace(b"99999 ", b"%-6d" % (n + 1))
            name = f"./{n + 1}-{uid}.dcm" if dialect == "tcia" else f"1-{n + 1:03d}.dcm"
            sha256, md5, length = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
            info = zipfile.ZipInfo(name)
            info.file_size = len(head) + side * side * 2 * frames
            with (folder / f"{uid}.dcm").open("wb") as file, archive.open(info, "w") as member:
                for part in (head, *_pixels(seed, ordinal, side, frames)):
                    for sink in (file.write, member.write, sha256.update, md5.update):
                        sink(part)
                    length += len(part)
            objects.append(Object(series_uid, uid, length, sha256.hexdigest(), md5.hexdigest()))
            listed.append(f"{name},{md5.hexdigest()}\n")
        if dialect == "nbia":
            archive.writestr("md5hashes.csv", "".join(listed))
    return objects


def _over(digests: list[str]) -> str:
    """The archive's digest over the digests below."""
    return hashlib.md5("".join(sorted(digests)).encode(), usedforsecurity=False).hexdigest()


class _Answers:
    """Writes answers, by call and key."""

    def __init__(self, root: Path, dialect: DialectName) -> None:
        self._root = root
        self._dialect = dialect

    def text(self, call: str, key: str, text: str) -> None:
        path = self._root / "a" / call / key
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def rows(self, call: str, key: str, rows: list[dict[str, Any]]) -> None:
        wire = [encode_row(ENDPOINTS[call], self._dialect, row) for row in rows]
        self.text(call, key, json.dumps(wire, separators=(",", ":")))


def _write_answers(root: Path, dialect: DialectName, seed: int, made: list[list[Object]]) -> None:
    answers = _Answers(root, dialect)
    series = [_series_row(seed, number, objects) for number, objects in enumerate(made)]
    digest_of: dict[str, str] = {}
    for row, objects in zip(series, made, strict=True):
        uid = row["SeriesInstanceUID"]
        answers.rows("getSeries", uid, [row])
        answers.rows("getSeriesSize", uid, [{"TotalSizeInBytes": row["FileSize"], "ObjectCount": row["ImageCount"]}])
        answers.rows("getSOPInstanceUIDs", uid, [{"SOPInstanceUID": o.uid} for o in objects])
        if dialect == "nbia":
            digest_of[uid] = _over([o.md5 for o in objects])
            answers.text("getMD5Hierarchy", uid, digest_of[uid])
            for o in objects:
                answers.text("getMD5HashForImage", o.uid, o.md5)
    for call, made_of, below in (
        ("getSeries", lambda rows: rows, "StudyInstanceUID"),
        ("getPatientStudy", _studies, "PatientID"),
    ):
        answers.rows(call, "all", made_of(series))
        answers.rows(call, COLLECTION, made_of(series))
        for key in {"StudyInstanceUID", "PatientID"} if call == "getSeries" else {below, "StudyInstanceUID"}:
            for value, rows in _grouped(series, key).items():
                answers.rows(call, value, made_of(rows))
    for key in ("all", COLLECTION):
        answers.rows("getPatient", key, _patients(series))
        answers.rows("getModalityValues", key, [{"Modality": "CT"}])
        answers.rows("getBodyPartValues", key, [{"BodyPartExamined": "CHEST"}])
        answers.rows("getManufacturerValues", key, [{"Manufacturer": "Acme"}])
    answers.rows("getCollectionValues", "all", [{"Collection": COLLECTION}])
    if dialect == "nbia":
        patients = []
        for patient, rows in _grouped(series, "PatientID").items():
            studies = []
            for study, of_study in _grouped(rows, "StudyInstanceUID").items():
                studies.append(_over([digest_of[row["SeriesInstanceUID"]] for row in of_study]))
                answers.text("getMD5Hierarchy", study, studies[-1])
            patients.append(_over(studies))
            answers.text("getMD5Hierarchy", patient, patients[-1])
        answers.text("getMD5Hierarchy", COLLECTION, _over(patients))


def _series_row(seed: int, number: int, objects: list[Object]) -> dict[str, Any]:
    patient, study = _place(number)
    return {
        "SeriesInstanceUID": objects[0].series,
        "StudyInstanceUID": _uid(seed, 1, study),
        "PatientID": f"BENCH-{patient:05d}",
        "PatientName": f"BENCH-{patient:05d}",
        "PatientSex": "F",
        "Collection": COLLECTION,
        "Modality": "CT",
        "BodyPartExamined": "CHEST",
        "Manufacturer": "Acme",
        "ManufacturerModelName": "Scan 3000",
        "SeriesDate": "2001-02-03",
        "StudyDate": "2001-02-03",
        "StudyDescription": "Thorax",
        "SeriesDescription": "Axial, 1 mm",
        "SeriesNumber": number + 1,
        "ImageCount": len(objects),
        "FileSize": sum(o.bytes for o in objects),
        "MaxSubmissionTimestamp": _RELEASED,
        "DateReleased": _RELEASED,
        "LicenseName": "Creative Commons Attribution 4.0 International License",
        "LicenseURI": "https://creativecommons.org/licenses/by/4.0/",
        "DataDescriptionURI": "https://doi.org/10.0000/bench",
        "ThirdPartyAnalysis": "NO",
        "Authorized": 1,
    }


def _grouped(rows: list[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def _studies(series: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0] | {"SeriesCount": len(rows)} for rows in _grouped(series, "StudyInstanceUID").values()]


def _patients(series: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0] for rows in _grouped(series, "PatientID").values()]


def default_workers() -> int:
    """Processes that build an archive: one for each core."""
    return os.cpu_count() or 1
