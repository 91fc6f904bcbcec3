"""The walk of `identity` against pydicom's reading: the same header and the same end, or no answer.

Every file that pydicom ships, files of ours, and some twenty thousand variants of both that are nearly right. For more:

    PYTHONPATH=.:tests python tests/unit/test_identity.py --cases 1000000 --seed 7

says every so often how many were read by both, and ends with 1 when it has told of a disagreement.
"""

from __future__ import annotations

import argparse
import io
import itertools
import random
import sys
import time
import warnings
from functools import cache
from pathlib import Path

import pydicom
import pytest
from fakes.damaged import Pieces, put_together_wrongly, take_apart
from fakes.dicom import TRANSFER_SYNTAXES, make_series
from fakes.headers import ct_body
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from mirror.check import read_header
from mirror.identity import HEAD, scan, tables, walk
from mirror.model import Header
from mirror.unusual import read_by_pydicom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
#: pydicom's own files are read whole and in part; of the largest only the first bytes are varied.
LARGEST = 200_000
#: Variants of each file in the suite.
VARIANTS = 100


def no_pixels(dataset: Dataset) -> None:
    del dataset.PixelData


def icon(dataset: Dataset) -> None:
    """Pixel data in an item, before those of the image."""
    item = Dataset()
    item.Rows, item.Columns, item.PixelData = 2, 2, b"\1\2\3\4"
    item["PixelData"].VR = "OB"
    item.is_undefined_length_sequence_item = True
    dataset.IconImageSequence = Sequence([item])
    dataset["IconImageSequence"].is_undefined_length = True


def empty_sequences(dataset: Dataset) -> None:
    """Sequences without items, and items without elements, of both kinds of length."""
    for keyword, items in (("ReferencedImageSequence", 0), ("ProcedureCodeSequence", 2)):
        empty = [Dataset() for _ in range(items)]
        for item in empty[:1]:
            item.is_undefined_length_sequence_item = True
        setattr(dataset, keyword, Sequence(empty))
        dataset[keyword].is_undefined_length = True


def private_sequence(dataset: Dataset) -> None:
    item = Dataset()
    item.PatientID = "another"
    block = dataset.private_block(0x21, "ACME", create=True)
    block.add_new(1, "SQ", Sequence([item]))
    dataset[block.get_tag(1)].is_undefined_length = True


def charset(name: str):
    def change(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = name

    return change


def long_value(dataset: Dataset) -> None:
    """A value that reaches far behind what is read of a file at first, before the UIDs that are wanted."""
    dataset.private_block(0x19, "ACME", create=True).add_new(1, "UN", b"\x08\0\x18\0UI\2\0001\0" * 2_000)


def long_sequence(dataset: Dataset) -> None:
    items = []
    for _ in range(300):
        item = Dataset()
        item.ReferencedSOPInstanceUID = "1.2.3.4"
        item.is_undefined_length_sequence_item = True
        items.append(item)
    dataset.ReferencedStudySequence = Sequence(items)
    dataset["ReferencedStudySequence"].is_undefined_length = True


def lean(dataset: Dataset) -> None:
    """Little but identity and sequences: of such files a great many variants are soon read."""
    for element in list(dataset):
        if element.VR != "SQ" and element.keyword not in LEAN and element.tag.group != 0x7FE0:
            del dataset[element.tag]


LEAN = ["SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID",
        "InstanceNumber", "AcquisitionNumber", "Modality", "Rows"]  # fmt: skip
PLAIN = {
    f"{kind} {how}": ct_body(syntax, undefined=undefined, change=change)
    for kind, syntax in (("explicit", ExplicitVRLittleEndian), ("implicit", ImplicitVRLittleEndian))
    for how, undefined, change in (
        ("defined", False, None),
        ("undefined", True, None),
        ("without pixels", True, no_pixels),
        ("icon", False, icon),
        ("empty sequences", False, empty_sequences),
        ("private sequence", True, private_sequence),
        ("utf-8", False, charset("ISO_IR 192")),
        ("no character set", False, charset("")),
        ("long value", False, long_value),
        ("long sequence", False, long_sequence),
        ("lean", True, lean),
    )
} | {
    f"encapsulated {fragments}": ct_body(JPEG2000Lossless, fragments=fragments, pixels=pixels, undefined=True)
    for fragments, pixels in ((1, 600), (7, 600), (40, 60_000))
}
GENERATED = {f"generated {s.name}": make_series(instances=1, transfer_syntax=UID(s))[0] for s in TRANSFER_SYNTAXES}


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


SHIPPED = {
    str(path.relative_to(FOLDER)): path for path in sorted(FOLDER.rglob("*")) if path.is_file() and _is_dicom(path)
}
ALL = [*PLAIN, *GENERATED, *SHIPPED]
Answer = tuple[Header, int] | None


def body_of(name: str) -> bytes:
    return SHIPPED[name].read_bytes() if name in SHIPPED else (PLAIN | GENERATED)[name]


@cache
def pieces(name: str) -> Pieces:
    body = body_of(name)
    return take_apart(name, body if len(body) <= LARGEST or name in PLAIN else body[:LARGEST])


def by_pydicom(body: bytes, size: int) -> Answer:
    """What was the only way; None where it refuses."""
    try:
        return read_by_pydicom(io.BytesIO(body), size)
    except (Exception, RecursionError):
        return None


def by_read_header(file: io.BytesIO | bytes, size: int) -> Answer:
    try:
        return read_header(file, size)
    except ValueError:
        return None


def disagreement(body: bytes, size: int, head: int) -> str | None:
    """Of a body that is in memory, and of a file of which `head` bytes are read at first and `size` are asked for.

    The empty text: they agree; None: there is nothing to compare, since nothing was scanned.
    """
    if body[128:132] != b"DICM":
        return None
    expected: dict[int, Answer] = {}
    for where, found, of in (
        ("in memory", scan(memoryview(body), len(body)), len(body)),
        ("in a file", scan(body[: min(head, len(body))], size, io.BytesIO(body)), size),
    ):
        if found is not None:
            if of not in expected:
                expected[of] = by_pydicom(body, of)
            if (found, of) != expected[of]:
                return f"{where}: {(found, of)} is scanned, pydicom says {expected[of]}"
    return "" if expected else None


def variant(name: str, seed: str) -> tuple[bytes, int, int]:
    """A body, the size that is asked for, and how much of it is read at first."""
    draw = random.Random(seed)
    body = put_together_wrongly(pieces(name), draw)
    size = len(body) if draw.random() < 0.9 else max(0, len(body) + draw.choice((-20, -9, -8, -1, 1, 8, 9, 300)))
    return body, size, draw.choice((HEAD, HEAD, draw.randrange(132, 3_000)))


# What is read without pydicom


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_are_scanned_in_memory_and_on_disk(name: str):
    body = PLAIN[name]
    expected = by_pydicom(body, len(body))
    assert expected is not None
    assert expected[0].sop_instance_uid
    assert (expected[0].patient_id, expected[0].instance_number) == ("P-001", 80)
    for kind in (bytes, bytearray, memoryview):
        assert (scan(kind(body), len(body)), len(body)) == expected
    assert (scan(body[:HEAD], len(body), io.BytesIO(body)), len(body)) == expected


def test_most_of_what_pydicom_ships_is_scanned():
    scanned = {name for name in SHIPPED if scan(body := body_of(name), len(body)) is not None}
    assert len(SHIPPED) > 100
    assert len(scanned) > 0.6 * len(SHIPPED)
    assert {"CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "JPEG2000.dcm", "rtplan.dcm"} <= scanned


def insert(new: bytes, *, before: bytes) -> bytes:
    """The lean explicit file with something before the element of that tag."""
    parts = list(pieces("explicit lean").pieces)
    at = next(n for n, part in enumerate(parts) if part[:4] == before)
    return b"".join([*parts[:at], new, *parts[at:]])


def replace(new: bytes) -> bytes:
    """The lean explicit file with another element in the place of that with its tag; the first one, not in an item."""
    parts = list(pieces("explicit lean").pieces)
    at = next(n for n, part in enumerate(parts) if part[:4] == new[:4])
    return b"".join([*parts[:at], new, *parts[at + 1 :]])


CHARACTER_SET, PATIENT, PIXELS = b"\x08\0\x05\0", b"\x10\0\x20\0", b"\xe0\x7f\x10\0"
FIRST_OF_META, SYNTAX = b"\2\0\0\0", b"\2\0\x10\0"
SEQUENCE = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff"
ITEM, ITEM_END, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
UNUSUAL = {
    "an element twice": lambda: insert(PATIENT + b"LO\2\0P ", before=PIXELS),
    "not ASCII": lambda: replace(PATIENT + b"LO\2\0P\xfc"),
    "an escape": lambda: replace(PATIENT + b"LO\4\0P\x1b(B"),
    "another VR": lambda: replace(PATIENT + b"SH\2\0P "),
    "a VR that no one knows": lambda: replace(PATIENT + b"XX\2\0P "),
    "an unknown character set": lambda: replace(CHARACTER_SET + b"CS\4\0NONE"),
    "a character set that cannot be looked up": lambda: replace(CHARACTER_SET + b"CS\4\0a\0b "),
    "two character sets": lambda: replace(CHARACTER_SET + b"CS\x10\0\\ISO 2022 IR 87 "),
    "such a character set in an item": lambda: insert(
        SEQUENCE + ITEM + b"\xff" * 4 + CHARACTER_SET + b"CS\4\0a\0b " + ITEM_END + END, before=PATIENT
    ),
    "a command set": lambda: insert(b"\0\0\2\0UI\2\0001\0", before=CHARACTER_SET),
    "no length of the file meta group": lambda: insert(b"", before=FIRST_OF_META).replace(
        pieces("explicit lean").pieces[1], b"", 1
    ),
    "such a length that is none": lambda: replace(FIRST_OF_META + b"UL\2\0\0\0"),
    "a transfer syntax twice": lambda: insert(SYNTAX + b"UI\x12\x001.2.840.10008.1.2\0", before=b"\2\0\x12\0"),
    "a transfer syntax that no one knows": lambda: replace(SYNTAX + b"UI\4\x001.2\0"),
    "a transfer syntax of another VR": lambda: replace(SYNTAX + b"LO\x14\x001.2.840.10008.1.2.1\0"),
    "explicit that says implicit": lambda: replace(SYNTAX + b"UI\x12\x001.2.840.10008.1.2\0"),
    "items of unknown VR": lambda: insert(SEQUENCE.replace(b"SQ", b"UN") + ITEM + b"\0" * 4 + END, before=PATIENT),
    "an item whose element reaches out of it": lambda: insert(
        SEQUENCE + ITEM + b"\x08\0\0\0" + b"\x08\0\x50\x11UI\2\0001\0" + END, before=PATIENT
    ),
    "an item of defined length with a delimiter": lambda: insert(
        SEQUENCE + ITEM + b"\x08\0\0\0" + ITEM_END + END, before=PATIENT
    ),
    "a sequence of what is no item": lambda: insert(SEQUENCE + ITEM_END + END, before=PATIENT),
    "pixel data in an item that are a sequence": lambda: insert(
        SEQUENCE + ITEM + b"\xff" * 4 + PIXELS + SEQUENCE[4:] + ITEM + b"\0" * 4 + END + ITEM_END + END, before=PATIENT
    ),
    "sequences nested too deep": lambda: insert(
        (SEQUENCE + ITEM + b"\xff" * 4) * 9 + (ITEM_END + END) * 9, before=PATIENT
    ),
    "a delimiter of no item": lambda: insert(ITEM_END[:4] + b"OB" + b"\0" * 6, before=PATIENT),
    "padding": lambda: PLAIN["explicit lean"] + b"\0" * 16,
    "cut": lambda: PLAIN["explicit lean"][:-1],
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_what_is_unusual_is_left_to_pydicom(what: str):
    body = UNUSUAL[what]()
    assert body != PLAIN["explicit lean"]
    assert scan(body, len(body)) is None
    assert scan(body[:300], len(body), io.BytesIO(body)) is None
    assert by_read_header(body, len(body)) == by_pydicom(body, len(body))


def test_what_stands_behind_the_pixels_is_no_identity():
    body = PLAIN["explicit lean"] + PATIENT + b"LO\2\0P "
    expected = by_pydicom(body, len(body))
    assert expected is not None
    assert expected[0].patient_id == "P-001"
    assert (scan(body, len(body)), len(body)) == expected


@pytest.mark.parametrize("kind", ["explicit", "implicit"])
def test_a_file_that_is_longer_than_was_said_is_read_to_its_end_by_pydicom(kind: str):
    """Without pixel data there is nothing that ends the reading sooner."""
    body = PLAIN[f"{kind} without pixels"]
    longer = body + PATIENT + (b"LO\2\0Q " if kind == "explicit" else b"\2\0\0\0Q ")
    assert scan(longer[:HEAD], len(body), io.BytesIO(longer)) is None
    header = read_header(io.BytesIO(longer), len(body))[0]
    assert (header.patient_id, header.instance_number) == ("Q", 80)


def test_the_vrs_are_pydicoms():
    assert {vr.to_bytes(2, "little").decode() for vr in tables.SHORT | tables.LONG} == set(STANDARD_VR)
    assert {vr.to_bytes(2, "little").decode() for vr in tables.LONG} == set(EXPLICIT_VR_LENGTH_32)


def test_the_tables_are_pydicoms():
    deflated_or_big = {DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian}
    assert {
        uid.encode(): uid == ImplicitVRLittleEndian for uid in AllTransferSyntaxes if uid not in deflated_or_big
    } == tables.SYNTAXES
    assert set(python_encoding) == tables.CHARACTER_SETS
    assert {dictionary_VR((tag & 0xFFFF) << 16 | tag >> 16) for tag in tables.SEQUENCES} == {"SQ"}
    with pytest.raises(KeyError):  # private tags are not asked for
        dictionary_VR(0x00091001)


# The same as pydicom


@pytest.mark.parametrize("name", ALL)
def test_a_whole_file_is_the_same_to_both(name: str):
    body = body_of(name)
    expected = by_pydicom(body, len(body))
    assert by_read_header(body, len(body)) == expected
    assert by_read_header(io.BytesIO(body), len(body)) == expected
    for head in (132, 1_000, HEAD, len(body)):
        assert not disagreement(body, len(body), head)


def borders(name: str, *around: int) -> list[int]:
    """Where elements, items and fragments begin and end, and so many bytes around it."""
    ends = itertools.accumulate(map(len, pieces(name).pieces))
    return sorted({at for end in ends for n in around if 132 <= (at := end + n) < len(body_of(name))})


@pytest.mark.parametrize("name", ["explicit undefined", "implicit undefined", "encapsulated 7"])
def test_a_file_cut_anywhere_is_the_same_to_both(name: str):
    body = body_of(name)
    places = borders(name, -1, 0, 1, 7)
    assert len(places) > 400
    for at in places:
        assert not disagreement(body[:at], at, HEAD), f"cut at {at}"
        assert not disagreement(body[:at], len(body), at), f"cut at {at}, and said to be longer"
        assert not disagreement(body, at, HEAD), f"said to end at {at}"


@pytest.mark.parametrize("name", ["explicit undefined", "implicit private sequence", "encapsulated 7"])
def test_a_file_with_one_byte_changed_is_the_same_to_both(name: str):
    body = body_of(name)
    compared = 0
    for at in borders(name, 0, 2, 4, 6, 9):
        damaged = body[:at] + bytes([random.Random(f"{name}/{at}").randrange(256)]) + body[at + 1 :]
        said = disagreement(damaged, len(damaged), HEAD)
        assert not said, f"byte {at}"
        compared += said is not None
    assert compared > 100


@pytest.mark.parametrize("name", ALL)
def test_variants_are_the_same_to_both(name: str):
    for number in range(VARIANTS):
        seed = f"{name}/{number}"
        body, size, head = variant(name, seed)
        assert not disagreement(body, size, head), seed
    # That what is not scanned is pydicom's to read is seen at the last one.
    assert by_read_header(body, size) == by_read_header(io.BytesIO(body), size)


@pytest.mark.parametrize("more", [16, 64, 500])
def test_what_is_read_on_in_small_steps_is_the_same(more: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(walk, "_MORE", more)
    scanned = 0
    for name, body in PLAIN.items():
        for head in (200, 333, 1_200):
            found = scan(body[:head], len(body), io.BytesIO(body))
            assert found is None or (found, len(body)) == by_pydicom(body, len(body)), (name, head)
            scanned += found is not None
    assert scanned > len(PLAIN)


def test_variants_are_scanned_often_enough_to_mean_something():
    said = [disagreement(*variant(name, f"{name}/often/{n}")) for name in PLAIN for n in range(20)]
    assert len([one for one in said if one is not None]) > 0.2 * len(said)


def main() -> int:
    """As many variants as one likes."""
    parser = argparse.ArgumentParser(description="Read variants of DICOM files with and without pydicom, and compare")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", default="1")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    draw = random.Random(asked.seed)
    compared = wrong = 0
    few = [name for name in PLAIN if "lean" in name or "encapsulated 7" in name]
    start = time.monotonic()
    for number in range(1, asked.cases + 1):
        name = draw.choice(few if draw.random() < 0.8 else ALL)
        walk._MORE = draw.choice((16, 64, 500, 4096))
        said = disagreement(*variant(name, seed := f"{asked.seed}/{name}/{number}"))
        compared += said is not None
        if said:
            wrong += 1
            sys.stdout.write(f"{seed}: {said}\n")
        if number % 50_000 == 0 or number == asked.cases:
            took = time.monotonic() - start
            sys.stdout.write(f"{number:,} cases, {compared:,} read by both, {wrong} disagreements, {took:.0f} s\n")
            sys.stdout.flush()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
