"""The check against the real files that pydicom ships: the whole ones pass, and cut ones do not.

Where elements end is told by pydicom's own reading of their lengths: a cut exactly there leaves a data set that is
whole as far as any reader can tell, and only those cuts may be missed.
"""

from __future__ import annotations

import io
import random
from functools import cache
from pathlib import Path

import pydicom
import pytest
from fakes.records import a_series
from pydicom.filereader import data_element_generator, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from mirror.check import Checked, check_instance, read_header
from mirror.model import FindingKind

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
#: Cut at their source, as their names say.
CUT = ["MR_truncated.dcm", "rtplan_truncated.dcm"]
#: Eight bytes of checksum and length lie behind its deflated data set, which no reader needs.
TRAILER = {"image_dfl.dcm": 8}
CUTS = 10


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and _is_dicom(path))
OTHERS = sorted(path for path in FOLDER.rglob("*.dcm") if not _is_dicom(path))
WHOLE = [path for path in FILES if path.name not in CUT]


def check(path: Path, body: bytes) -> Checked:
    """The body against what the file's own header says."""
    header, _ = _header(path)
    row = a_series(header.series_instance_uid, study=header.study_instance_uid, patient=header.patient_id)
    return check_instance(io.BytesIO(body), len(body), row, header.sop_instance_uid)


@cache
def _header(path: Path):
    body = path.read_bytes()
    return read_header(io.BytesIO(body), len(body))


def name(path: Path) -> str:
    return str(path.relative_to(FOLDER))


def test_there_are_files_of_every_kind():
    syntaxes = {str(dcmread(p, stop_before_pixels=True).file_meta.get("TransferSyntaxUID")) for p in WHOLE}
    assert len(WHOLE) > 100
    assert {f"1.2.840.10008.1.2{kind}" for kind in ("", ".1", ".1.99", ".2", ".4.50", ".5")} <= syntaxes


@pytest.mark.parametrize("path", WHOLE, ids=name)
def test_a_whole_file_passes(path: Path):
    body = path.read_bytes()
    assert check(path, body).verdict.findings == ()
    header, end = _header(path)
    assert end <= len(body)
    dataset = dcmread(path, stop_before_pixels=True)
    assert header.sop_instance_uid == str(dataset.get("SOPInstanceUID", ""))
    assert header.series_instance_uid == str(dataset.get("SeriesInstanceUID", ""))
    assert header.patient_id == str(dataset.get("PatientID", None) or "").strip()


@pytest.mark.parametrize("file", CUT)
def test_a_file_that_was_cut_at_its_source_is_found(file: str):
    path = FOLDER / file
    body = path.read_bytes()
    assert [f.kind for f in check(path, body).verdict.findings] == [FindingKind.TRUNCATED]


@pytest.mark.parametrize("path", OTHERS, ids=name)
def test_a_file_without_a_preamble_is_none(path: Path):
    body = path.read_bytes()
    checked = check_instance(io.BytesIO(body), len(body), a_series(), None)
    assert [f.kind for f in checked.verdict.findings] == [FindingKind.NOT_DICOM]


def _ends(body: bytes) -> set[int]:
    """Where top-level elements end; nothing for a deflated file."""
    file = io.BytesIO(body)
    file.seek(132)
    ends = set()
    for _ in data_element_generator(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2):
        ends.add(file.tell())
    dataset = dcmread(io.BytesIO(body), stop_before_pixels=True)
    if dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return set()
    first = body[file.tell() + 4 : file.tell() + 6]
    implicit = not (first.isalpha() and first.isupper())
    for _ in data_element_generator(file, implicit, bool(dataset.original_encoding[1])):
        ends.add(file.tell())
    return ends


@pytest.mark.parametrize("path", WHOLE, ids=name)
def test_a_cut_file_does_not(path: Path):
    body = path.read_bytes()
    draw = random.Random(path.name)
    places = {draw.randrange(len(body)) for _ in range(CUTS)} | {len(body) - n for n in (1, 2, 8)}
    missed = {at for at in places if check(path, body[:at]).verdict.ok}
    if path.name in TRAILER:
        assert min(missed, default=len(body)) >= len(body) - TRAILER[path.name]
    elif missed:
        ends = _ends(body)
        # One byte of a big endian tag is a zero, and so looks like padding.
        assert {at for at in missed if not (at - 1 in ends and body[at - 1] == 0)} <= ends
