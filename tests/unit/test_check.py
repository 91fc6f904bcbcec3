"""Bytes against what was asked for, and a series against what the archive says of it."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from fakes.dicom import make_series
from fakes.records import a_series
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from mirror.check import Checked, check_instance, check_series, digest_of, read_header, series_digest
from mirror.model import FindingKind, SeriesSize

SOP, SERIES, STUDY = "1.2.3.4.5", "1.2.3.4", "1.2.3"
ROW = a_series(SERIES, study=STUDY, patient="P1")
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, JPEG2000Lossless]


def a_file(syntax: UID = ExplicitVRLittleEndian, *, change: Callable[[Dataset], None] | None = None) -> bytes:
    """A small DICOM file with sequences of both kinds of length, private elements and pixel data."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(SOP)
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, SOP
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientID = STUDY, SERIES, "P1"
    dataset.AcquisitionNumber, dataset.InstanceNumber = 2, 7
    deep, inner = Dataset(), Dataset()
    deep.CodeValue = "T-1"
    inner.CodeMeaning = "inner"
    inner.ConceptCodeSequence = Sequence([deep])
    inner["ConceptCodeSequence"].is_undefined_length = True
    deep.is_undefined_length_sequence_item = inner.is_undefined_length_sequence_item = True
    defined = Dataset()
    defined.CodeMeaning = "defined"
    dataset.ProcedureCodeSequence = Sequence([inner, defined, Dataset()])
    dataset["ProcedureCodeSequence"].is_undefined_length = True
    dataset.AnatomicRegionSequence = Sequence([defined])
    dataset.private_block(0x11, "ACME", create=True).add_new(1, "OB", b"\x01\x02\x03\x04")
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = encapsulate([b"\xff\x4f" * 9, b"\xff\x4f" * 7]) if syntax.is_encapsulated else bytes(range(16))
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    if change is not None:
        change(dataset)
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def check(body: bytes, uid: str | None = SOP, *, promised: int | None = None) -> Checked:
    return check_instance(io.BytesIO(body), len(body), ROW, uid, promised)


def kinds(checked: Checked) -> list[FindingKind]:
    return [finding.kind for finding in checked.verdict.findings]


# Whole


@pytest.mark.parametrize("syntax", [*SYNTAXES, DeflatedExplicitVRLittleEndian], ids=lambda s: s.name)
def test_a_whole_file_is_what_was_asked_for(syntax: UID):
    body = a_file(syntax)
    checked = check(body, promised=len(body))
    assert (checked.verdict.findings, checked.verdict.ok) == ((), True)
    header = checked.header
    assert header is not None
    assert (header.sop_instance_uid, header.series_instance_uid, header.study_instance_uid) == (SOP, SERIES, STUDY)
    assert (header.patient_id, header.sop_class_uid) == ("P1", CTImageStorage)
    assert (header.acquisition_number, header.instance_number) == (2, 7)


def test_any_instance_of_the_series_will_do_where_none_is_named():
    checked = check(a_file(), None)
    assert checked.verdict.ok
    assert checked.header is not None
    assert checked.header.sop_instance_uid == SOP


@pytest.mark.parametrize("padding", [1, 2, 7, 8, 9, 12, 512, 4096])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
def test_zeros_behind_the_data_set_are_padding(syntax: UID, padding: int):
    body = a_file(syntax) + b"\0" * padding
    assert check(body).verdict.findings == ()


def test_the_standards_own_padding_is_an_element():
    def pad(dataset: Dataset) -> None:
        dataset.add_new(0xFFFCFFFC, "OB", b"\0" * 100)

    body = a_file(change=pad)
    assert check(body).verdict.findings == ()
    assert kinds(check(body[:-2])) == [FindingKind.TRUNCATED]


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_file_that_is_implicit_where_it_says_explicit_is_read_as_it_is():
    """Not by the standard, but such files exist, and every reader takes them."""
    body = a_file(ImplicitVRLittleEndian)
    wrong = body.replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0").replace(b"UI\x12\0", b"UI\x14\0", 1)
    length = int.from_bytes(wrong[140:144], "little") + 2
    wrong = wrong[:140] + length.to_bytes(4, "little") + wrong[144:]
    assert read_header(io.BytesIO(wrong), len(wrong))[1] == len(wrong)
    assert kinds(check(wrong[:-3])) == [FindingKind.TRUNCATED]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda s: s.name)
def test_items_of_unknown_vr_are_implicit_little_endian(syntax: UID):
    """PS3.5, 6.2.2: a sequence written by someone who does not know its VR."""
    item = b"\x08\x00\x00\x01" + b"\x04\0\0\0" + b"T-1 "
    value = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + item + b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    order = "little" if syntax == ExplicitVRLittleEndian else "big"
    tag = b"".join(part.to_bytes(2, order) for part in (0x7FE1, 0x1010))
    body = a_file(syntax) + tag + b"UN\0\0\xff\xff\xff\xff" + value
    assert check(body).verdict.findings == ()
    for cut in (1, 8, 9, 16, 20, 24):
        assert kinds(check(body[:-cut])) == [FindingKind.TRUNCATED]


# In memory


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("syntax", [*SYNTAXES, DeflatedExplicitVRLittleEndian], ids=lambda s: s.name)
def test_a_body_in_memory_is_checked_as_a_file_is(syntax: UID, kind: type):
    body = a_file(syntax)
    for given in (body, body[:-3], body[:200], b"", b"<html>", body.replace(SOP.encode(), b"1.2.3.4.6")):
        for promised in (None, len(body)):
            assert check_instance(kind(given), len(given), ROW, SOP, promised) == check(given, promised=promised)


def test_a_body_in_memory_of_another_size_than_was_said():
    body = a_file()
    for size in (len(body) - 3, len(body) + 3):
        assert check_instance(body, size, ROW, SOP) == check_instance(io.BytesIO(body), size, ROW, SOP)
    assert kinds(check_instance(body, len(body) - 3, ROW, SOP)) == [FindingKind.TRUNCATED]


# Cut


def ends_of_elements(body: bytes) -> set[int]:
    """Where the top-level elements end, by pydicom's own reading of the lengths."""
    from pydicom.filereader import data_element_generator, dcmread

    file = io.BytesIO(body)
    file.seek(132)
    ends = {132}
    for _ in data_element_generator(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2):
        ends.add(file.tell())
    syntax = dcmread(io.BytesIO(body), stop_before_pixels=True).file_meta.TransferSyntaxUID
    for _ in data_element_generator(file, syntax.is_implicit_VR, syntax.is_little_endian):
        ends.add(file.tell())
    return ends


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
def test_a_file_cut_anywhere_but_between_elements_is_found(syntax: UID):
    body = a_file(syntax)
    ends = ends_of_elements(body)
    assert len(body) in ends
    missed = {at for at in range(len(body)) if check(body[:at]).verdict.ok}
    # One byte of a big endian tag is a zero, and so looks like padding.
    assert {at for at in missed if not (at - 1 in ends and body[at - 1] == 0)} <= ends
    # The identity comes early: cut before it, nothing is missed at all.
    assert all(at > body.index(SERIES.encode()) for at in missed)


def test_a_deflated_file_cut_anywhere_is_found():
    body = a_file(DeflatedExplicitVRLittleEndian)
    padded = body.endswith(b"\0")
    missed = [at for at in range(len(body)) if check(body[:at]).verdict.ok]
    assert missed in ([], [len(body) - 1] if padded else [])


def deflated_bomb(zeros: int) -> bytes:
    """A small file whose pixels inflate to so many zeros."""
    body = a_file(DeflatedExplicitVRLittleEndian)
    start = 132 + 12 + int.from_bytes(body[140:144], "little")
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body[start:])
    head = inflated[: inflated.index(b"\xe0\x7f\x10\x00")]
    pack = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = [pack.compress(head + b"\xe0\x7f\x10\x00OW\0\0" + zeros.to_bytes(4, "little"))]
    packed += [pack.compress(bytes(1024 * 1024)) for _ in range(zeros // (1024 * 1024))]
    return body[:start] + b"".join(packed) + pack.flush()


def test_a_deflated_file_that_inflates_to_a_thousand_times_its_size_takes_little_memory():
    body = deflated_bomb(256 * 1024 * 1024)
    assert len(body) < 300_000
    for given, expected in ((body, []), (body[:-1000], [FindingKind.TRUNCATED])):
        tracemalloc.start()
        try:
            checked = check(given)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert kinds(checked) == expected
        assert checked.header is not None
        assert (checked.header.sop_instance_uid, checked.header.instance_number) == (SOP, 7)
        assert most < 24 * 1024 * 1024


def test_a_deflated_file_cut_behind_its_header_is_known_by_it():
    checked = check(deflated_bomb(64 * 1024 * 1024)[:-9])
    assert kinds(checked) == [FindingKind.TRUNCATED]
    assert checked.header is not None
    assert checked.header.patient_id == "P1"


def test_a_deflated_file_with_an_identifier_in_another_character_set():
    def rename(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientID = "\u738b\u5c0f\u6771"

    body = a_file(DeflatedExplicitVRLittleEndian, change=rename)
    row = a_series(SERIES, study=STUDY, patient="\u738b\u5c0f\u6771")
    assert check_instance(io.BytesIO(body), len(body), row, SOP).verdict.findings == ()


def test_a_file_cut_in_its_pixels_says_how_much_is_missing():
    body = a_file()
    checked = check(body[:-5])
    assert kinds(checked) == [FindingKind.TRUNCATED]
    assert checked.verdict.findings[0].detail == (
        f"the data set needs at least {len(body)} bytes, the file has {len(body) - 5}"
    )
    assert not checked.verdict.ok


def test_another_length_than_was_announced_is_cut_whatever_is_inside():
    body = a_file()
    for promised in (len(body) - 1, len(body) + 1):
        checked = check(body, promised=promised)
        assert kinds(checked) == [FindingKind.TRUNCATED]
        assert checked.verdict.findings[0].detail == f"{len(body)} bytes of {promised} came"
        assert checked.header is None


# Not DICOM


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the file is empty"),
        (b"<html><body>We will be back soon</body></html>", "no DICOM preamble; it begins with b'<html>"),
        (b"<html>" + b"x" * 10_000, "no DICOM preamble; it begins with b'<html>"),
        (b"\0" * 128 + b"DIC", "no DICOM preamble"),
        (b"\0" * 128 + b"dicm" + b"\0" * 100, "no DICOM preamble"),
        (b"\0" * 100_000, "no DICOM preamble"),
    ],
    ids=["empty", "html", "long html", "131 bytes", "lower case", "zeros"],
)
def test_what_is_no_dicom(body: bytes, said: str):
    checked = check(body)
    assert kinds(checked) == [FindingKind.NOT_DICOM]
    assert said in checked.verdict.findings[0].detail
    assert (checked.header, checked.verdict.ok) == (None, False)


def test_a_preamble_and_nothing_else_is_no_instance():
    assert not check(b"\0" * 128 + b"DICM").verdict.ok


def test_a_directory_file_is_no_instance_of_a_series():
    def empty(dataset: Dataset) -> None:
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"):
            delattr(dataset, keyword)

    checked = check(a_file(change=empty))
    assert kinds(checked)[:2] == [FindingKind.WRONG_INSTANCE, FindingKind.WRONG_SERIES]
    assert checked.verdict.findings[0].detail == "the header says SOPInstanceUID (none)"


@pytest.mark.parametrize("depth", [100, 5_000])
def test_sequences_nested_without_end_are_a_finding_or_none_but_no_crash(depth: int):
    tag = Tag("ProcedureCodeSequence")
    begin = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + b"SQ\0\0\xff\xff\xff\xff"
    begin += b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    body = a_file() + (begin * depth + end * depth).replace(tag.group.to_bytes(2, "little"), b"\xe3\x7f")
    checked = check(body)
    assert checked.verdict.ok is (depth == 100)
    assert not check(body[:-1]).verdict.ok


@pytest.mark.parametrize("broken", [0, 200, 20_000])
@pytest.mark.parametrize("syntax", [*SYNTAXES, DeflatedExplicitVRLittleEndian], ids=lambda s: s.name)
def test_a_disk_that_cannot_be_read_is_not_the_fault_of_the_bytes(broken: int, syntax: UID):
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            end = len(self.getbuffer()) if size is None or size < 0 else min(self.tell() + size, len(self.getbuffer()))
            if end > broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    def lengthen(dataset: Dataset) -> None:
        dataset.private_block(0x19, "ACME", create=True).add_new(1, "OB", random.Random(1).randbytes(30_000))

    body = a_file(syntax, change=lengthen)
    with pytest.raises(OSError, match="Input/output error"):
        check_instance(Broken(body), len(body), ROW, SOP)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_damage_anywhere_in_the_header_is_a_finding_or_none_but_no_crash():
    body = a_file()
    head = body.index(b"\xe0\x7f\x10\x00")
    for at in range(132, head):
        for value in (0x00, 0xFF, body[at] ^ 0x20):
            damaged = body[:at] + bytes([value]) + body[at + 1 :]
            assert check(damaged).verdict is not None
    deflated = a_file(DeflatedExplicitVRLittleEndian)
    for at in range(132, len(deflated)):
        assert check(deflated[:at] + b"\xff" + deflated[at + 1 :]).verdict is not None


# Another object


def changed(keyword: str, value: object) -> bytes:
    return a_file(change=lambda dataset: setattr(dataset, keyword, value))


def test_another_instance_is_never_ok():
    checked = check(changed("SOPInstanceUID", "1.2.3.4.6"))
    assert kinds(checked) == [FindingKind.WRONG_INSTANCE]
    finding = checked.verdict.findings[0]
    assert finding.detail == "the header says SOPInstanceUID 1.2.3.4.6"
    assert (finding.sop_instance_uid, finding.series_instance_uid, finding.collection) == (SOP, SERIES, "A")
    assert not checked.verdict.ok


def test_another_series_is_never_ok_even_where_no_instance_is_named():
    for uid in (SOP, None):
        checked = check(changed("SeriesInstanceUID", "1.2.3.9"), uid)
        assert kinds(checked) == [FindingKind.WRONG_SERIES]
        assert checked.verdict.findings[0].sop_instance_uid == SOP
        assert not checked.verdict.ok


def test_another_study_or_patient_is_told_and_tolerated():
    checked = check(changed("StudyInstanceUID", "1.9"))
    assert kinds(checked) == [FindingKind.OTHER_STUDY]
    assert checked.verdict.findings[0].detail == f"the header says StudyInstanceUID 1.9, the archive {STUDY}"
    assert checked.verdict.ok
    checked = check(changed("PatientID", "p1"))
    assert kinds(checked) == [FindingKind.OTHER_PATIENT]
    assert checked.verdict.findings[0].detail == "the header says PatientID 'p1', the archive 'P1'"
    assert checked.verdict.ok


def test_a_study_that_the_archive_does_not_name_is_not_compared():
    row = a_series(SERIES, study="", patient="P1")
    body = a_file()
    assert check_instance(io.BytesIO(body), len(body), row, SOP).verdict.findings == ()


def test_padding_of_identifiers_is_not_part_of_them():
    for patient in ("P1 ", "P1  ", " P1"):
        assert check(changed("PatientID", patient)).verdict.findings == ()


@pytest.mark.parametrize(
    ("character_set", "patient"),
    [
        ("ISO_IR 100", "M\u00fcller-1"),
        ("ISO_IR 192", "\u738b\u5c0f\u6771"),
        ("ISO_IR 144", "\u041b\u044e\u043ace"),
        (["", "ISO 2022 IR 87"], "\u5c71\u7530"),
        ("GB18030", "\u738b"),
        ("ISO_IR 100", "M\u00fcller\\1"),
    ],
)
def test_an_identifier_in_any_character_set(character_set: str | list[str], patient: str):
    def rename(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = character_set
        dataset.PatientID = patient

    body = a_file(change=rename)
    row = a_series(SERIES, study=STUDY, patient=patient)
    assert check_instance(io.BytesIO(body), len(body), row, SOP).verdict.findings == ()


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("character_set", ["NO SUCH SET", "ISO_IR 192", ""])
def test_an_identifier_that_cannot_be_decoded_is_another_patient(character_set: str):
    def rename(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = character_set
        dataset.PatientID = "XXXX"

    body = a_file(change=rename).replace(b"XXXX", b"M\xfcll")
    checked = check(body)
    assert kinds(checked) == [FindingKind.OTHER_PATIENT]
    assert checked.verdict.ok


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("-1", -1), (" 12 ", 12), ("+5", 5), ("1.5", None), ("x", None), ("9" * 12, 10**12 - 1)],
)
def test_numbers_of_instances(text: str, number: int | None):
    body = a_file(change=lambda d: setattr(d, "InstanceNumber", 99_999)).replace(
        b"IS\x06\x0099999 ", b"IS\x06\x00@@@@@@"
    )
    value = text.encode()
    value += b" " * (len(value) % 2)
    body = body.replace(b"IS\x06\x00@@@@@@", b"IS" + len(value).to_bytes(2, "little") + value)
    header = check(body).header
    assert header is not None
    assert header.instance_number == number


def test_a_number_that_no_ledger_can_hold_is_none():
    body = a_file(change=lambda d: setattr(d, "InstanceNumber", 99_999))
    body = body.replace(b"IS\x06\x0099999 ", b"IS\x1e\x00" + b"9" * 30)
    header = check(body).header
    assert header is not None
    assert header.instance_number is None


def test_a_file_without_numbers():
    def unnumbered(dataset: Dataset) -> None:
        del dataset.AcquisitionNumber
        dataset.InstanceNumber = None

    header = check(a_file(change=unnumbered)).header
    assert header is not None
    assert (header.acquisition_number, header.instance_number) == (None, None)


def test_large_elements_are_stepped_over_not_read():
    class Counting(io.BytesIO):
        read_bytes = 0

        def read(self, size: int | None = -1) -> bytes:
            block = super().read(size)
            self.read_bytes += len(block)
            return block

    (body,) = make_series(instances=1, side=1024, series_uid="1.2.3", study_uid="1.2", patient_id="P1")
    file = Counting(body)
    checked = check_instance(file, len(body), a_series("1.2.3", study="1.2", patient="P1"), None)
    assert checked.verdict.findings == ()
    assert len(body) > 2_000_000
    assert file.read_bytes < 50_000


# A series


def series_kinds(size: SeriesSize | None = None, **given: object) -> list[FindingKind]:
    figures = {"listed": 3, "held": 3, "held_bytes": 300, "unlisted": 0} | given
    verdict = check_series(ROW, size or SeriesSize(object_count=3, total_size_in_bytes=300), **figures)  # type: ignore[arg-type]
    assert verdict.ok is (not verdict.findings), "none of a series' findings is tolerable"
    assert all(f.series_instance_uid == SERIES and f.collection == "A" for f in verdict.findings)
    return [finding.kind for finding in verdict.findings]


def test_a_series_that_adds_up():
    assert series_kinds() == []
    assert series_kinds(digests=("a" * 32, "a" * 32)) == []
    assert series_kinds(SeriesSize(object_count=0, total_size_in_bytes=0), listed=0, held=0, held_bytes=0) == []


@pytest.mark.parametrize(
    ("size", "given", "found"),
    [
        (None, {"held": 2, "held_bytes": 200}, ["instances-missing"]),
        (None, {"unlisted": 1, "held_bytes": 300}, ["unlisted-instance"]),
        (SeriesSize(object_count=4, total_size_in_bytes=300), {}, ["count-differs"]),
        (SeriesSize(object_count=2, total_size_in_bytes=300), {}, ["count-differs"]),
        (SeriesSize(object_count=3, total_size_in_bytes=301), {}, ["size-differs"]),
        (SeriesSize(object_count=3, total_size_in_bytes=299), {}, ["size-differs"]),
        (SeriesSize(object_count=4, total_size_in_bytes=400), {}, ["count-differs", "size-differs"]),
        (SeriesSize(object_count=3), {}, ["size-unknown"]),
        (SeriesSize(object_count=4), {}, ["count-differs", "size-unknown"]),
        (None, {"digests": ("a" * 32, "b" * 32)}, ["digest-differs"]),
        (None, {"held": 2, "held_bytes": 200, "digests": ("a" * 32, "b" * 32)}, ["instances-missing"]),
        (
            SeriesSize(object_count=4, total_size_in_bytes=1),
            {"held": 2, "unlisted": 1},
            ["instances-missing", "unlisted-instance", "count-differs"],
        ),
    ],
)
def test_a_series_that_does_not(size: SeriesSize | None, given: dict[str, object], found: list[str]):
    assert series_kinds(size, **given) == found


def test_a_series_of_unknown_size_is_never_ok():
    verdict = check_series(ROW, None, listed=3, held=3, held_bytes=300, unlisted=0)
    assert [f.kind for f in verdict.findings] == [FindingKind.SIZE_UNKNOWN]
    assert not verdict.ok


def test_findings_say_the_figures():
    verdict = check_series(
        ROW, SeriesSize(object_count=4, total_size_in_bytes=400), listed=3, held=2, held_bytes=200, unlisted=1
    )
    assert [f.detail for f in verdict.findings] == [
        "1 of 3 listed instances are not held",
        "1 held instances are not in the archive's list",
        "getSeriesSize says 4 objects, the list has 3",
    ]


# Digests


def test_the_archives_digest_of_a_series():
    """Against md5sum's own words: md5 of "a", "b" and "c", sorted, joined, and that again."""
    md5s = [
        "0cc175b9c0f1b6a831c399e269772661",  # a
        "4a8a08f09d37b73795649038408b5f33",  # c
        "92eb5ffee6ae2fec3ad71c777531578f",  # b
    ]
    joined = "0cc175b9c0f1b6a831c399e2697726614a8a08f09d37b73795649038408b5f3392eb5ffee6ae2fec3ad71c777531578f"
    assert series_digest(md5s) == hashlib.md5(joined.encode()).hexdigest() == "860acffb1be09462c4bacf573a915314"
    assert series_digest([]) == "d41d8cd98f00b204e9800998ecf8427e"


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024 - 1, 1024 * 1024, 1024 * 1024 + 1, 3_000_000])
def test_the_digest_of_a_file_is_of_all_its_bytes(size: int):
    body = bytes(range(251)) * (size // 251 + 1)
    file = io.BytesIO(body[:size])
    file.seek(size // 2)
    digest = digest_of(file)
    assert digest.bytes == size
    assert digest.sha256 == hashlib.sha256(body[:size]).hexdigest()
    assert digest.md5 == hashlib.md5(body[:size]).hexdigest()
