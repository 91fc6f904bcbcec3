"""Small valid DICOM files (PS3.10), the same for the same seed.

One data set per series is encoded; its instances differ in SOPInstanceUID, InstanceNumber and pixels, which have a
fixed place and length in the encoded bytes and are written over it. 2,000 files take well under a second.
"""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Sequence

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    PYDICOM_ROOT_UID,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
_ROOT = PYDICOM_ROOT_UID.rstrip(".")
_FIRST = 10_000  # so that every number of an instance has five digits


def uid(*parts: int) -> str:
    """A UID below a root of ours."""
    return ".".join([_ROOT, *map(str, parts)])


def make_series(
    *,
    patient_id: str = "P-001",
    study_uid: str = uid(1, 1),
    series_uid: str = uid(1, 1, 1),
    instances: int = 4,
    first: int = 1,
    seed: int = 0,
    side: int = 16,
    transfer_syntax: UID = ExplicitVRLittleEndian,
    acquisitions: Sequence[int] = (1,),
    **elements: object,
) -> list[bytes]:
    """The files of a series, `side` x `side` pixels of 16 bits each, numbered from `first`.

    `acquisitions` are AcquisitionNumbers, dealt out in turn; `elements` are further DICOM keywords, None to leave
    one out. A file depends on its number and the arguments, not on how many others there are.
    """
    length = side * side * 2
    deflated = transfer_syntax == DeflatedExplicitVRLittleEndian
    written_as = ExplicitVRLittleEndian if deflated else transfer_syntax
    templates = {
        number: _Template(_dataset(patient_id, study_uid, series_uid, side, number, elements), written_as, length)
        for number in set(acquisitions)
    }
    files = []
    for number in range(first, first + instances):
        template = templates[acquisitions[(number - 1) % len(acquisitions)]]
        pixels = random.Random(f"{seed}/{series_uid}/{number}").randbytes(length)
        body = template.fill(instance_uid(series_uid, number), number, pixels)
        files.append(_deflate(body) if deflated else body)
    return files


def instance_uid(series_uid: str, number: int) -> str:
    """The SOPInstanceUID of the file with that InstanceNumber."""
    return f"{series_uid}.{_FIRST + number}"


def make_collection(
    *, patients: int = 2, studies: int = 1, series: int = 2, instances: int = 3, seed: int = 1, side: int = 16
) -> list[bytes]:
    """The files of a collection: so many patients, studies of each, series of each study, instances of each series."""
    files: list[bytes] = []
    modalities = ("CT", "MR", "PT")
    for p in range(1, patients + 1):
        for t in range(1, studies + 1):
            for s in range(1, series + 1):
                files += make_series(
                    patient_id=f"S{seed}-{p:03d}",
                    study_uid=uid(seed, p, t),
                    series_uid=uid(seed, p, t, s),
                    instances=instances,
                    seed=seed,
                    side=side,
                    Modality=modalities[(s - 1) % len(modalities)],
                    SeriesNumber=s,
                    StudyID=str(t),
                    StudyDate=f"2001{t % 12 + 1:02d}{p % 28 + 1:02d}",
                )
    return files


class _Template:
    """An encoded data set with blanks for SOPInstanceUID (in file meta and data set), InstanceNumber and pixels."""

    def __init__(self, dataset: FileDataset, written_as: UID, length: int) -> None:
        dataset.file_meta.TransferSyntaxUID = written_as
        self._uid = str(dataset.SOPInstanceUID).encode()
        file = io.BytesIO()
        dcmwrite(file, dataset, enforce_file_format=True)
        self._head = file.getvalue()[:-length]
        assert self._head.count(self._uid) == 2
        assert self._head.count(b"99999 ") == 1

    def fill(self, sop_uid: str, number: int, pixels: bytes) -> bytes:
        assert len(sop_uid) == len(self._uid)
        return self._head.replace(self._uid, sop_uid.encode()).replace(b"99999 ", b"%-6d" % number) + pixels


def _dataset(
    patient_id: str, study_uid: str, series_uid: str, side: int, acquisition: int, elements: dict[str, object]
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(instance_uid(series_uid, 89_999))
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    values: dict[str, object] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": study_uid,
        "SeriesInstanceUID": series_uid,
        "PatientID": patient_id,
        "PatientName": patient_id,
        "PatientSex": "F",
        "PatientAge": "061Y",
        "StudyDate": "20010203",
        "StudyDescription": "Thorax",
        "StudyID": "1",
        "SeriesDate": "20010203",
        "SeriesDescription": "Axial, 1 mm",
        "SeriesNumber": 1,
        "Modality": "CT",
        "BodyPartExamined": "CHEST",
        "Manufacturer": "Acme",
        "ManufacturerModelName": "Scan 3000",
        "SoftwareVersions": "1.0",
        "AcquisitionNumber": acquisition,
        "InstanceNumber": "99999 ",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelSpacing": [0.5, 0.5],
        "SliceThickness": 1,
        "Rows": side,
        "Columns": side,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    }
    for keyword, value in (values | elements).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.PixelData = b"\0" * (side * side * 2)
    dataset["PixelData"].VR = "OW"
    return dataset


def _deflate(body: bytes) -> bytes:
    """An explicit little endian file as a deflated one (PS3.5, A.5): another transfer syntax, the data set deflated."""
    plain, deflated = (UID(s).encode() for s in (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian))
    end = 132 + 12 + int.from_bytes(body[140:144], "little")  # behind the file meta group
    # The UIDs' padded lengths differ by two: 1.2.840.10008.1.2.1 (19 + 1) and 1.2.840.10008.1.2.1.99 (22).
    old, new = b"UI\x14\0" + plain + b"\0", b"UI\x16\0" + deflated
    meta = body[132:end].replace(old, new)
    assert len(meta) == end - 132 + 2
    meta = meta[:8] + (int.from_bytes(meta[8:12], "little") + 2).to_bytes(4, "little") + meta[12:]
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(body[end:]) + packer.flush()
    return body[:132] + meta + packed + b"\0" * (len(packed) % 2)
