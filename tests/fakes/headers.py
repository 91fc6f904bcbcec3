"""Whole DICOM files with a header as a CT writes it, in any transfer syntax that pydicom can write."""

from __future__ import annotations

import io
from collections.abc import Callable

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from fakes.dicom import uid

_VALUES: dict[str, object] = {
    "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SOPClassUID": CTImageStorage,
    "SOPInstanceUID": uid(7, 1, 1, 1), "StudyDate": "20000101", "SeriesDate": "20000101", "AcquisitionDate": "20000101",
    "ContentDate": "20000101", "StudyTime": "113008", "SeriesTime": "113110.2", "AcquisitionTime": "113130.56",
    "ContentTime": "113131", "AccessionNumber": "2819497684894126", "Modality": "CT", "Manufacturer": "Acme",
    "ReferringPhysicianName": "", "StationName": "CT01", "StudyDescription": "Thorax", "SeriesDescription": "Axial",
    "ManufacturerModelName": "Scan 3000", "PatientName": "Anon^P-001", "PatientID": "P-001", "PatientBirthDate": "",
    "PatientSex": "F", "PatientAge": "061Y", "PatientWeight": "70", "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "DCM:113100/113105/113107/113108/113109/113111", "ContrastBolusAgent": "IV",
    "BodyPartExamined": "CHEST", "ScanOptions": "HELICAL MODE", "SliceThickness": "2.5", "KVP": "120",
    "SpacingBetweenSlices": "2.5", "DataCollectionDiameter": "500", "SoftwareVersions": "07MW18.4",
    "ContrastBolusRoute": "Oral & IV", "ReconstructionDiameter": "360", "DistanceSourceToDetector": "949.075",
    "DistanceSourceToPatient": "541", "GantryDetectorTilt": "0", "TableHeight": "144.4", "RotationDirection": "CW",
    "ExposureTime": "570", "XRayTubeCurrent": "400", "Exposure": "4684", "FilterType": "BODY FILTER",
    "GeneratorPower": "48000", "FocalSpots": "1.2", "ConvolutionKernel": "STANDARD", "PatientPosition": "FFS",
    "RevolutionTime": 0.5, "SingleCollimationWidth": 0.625, "TotalCollimationWidth": 40.0, "TableSpeed": 80.0,
    "SpiralPitchFactor": 0.98, "StudyInstanceUID": uid(7, 1), "SeriesInstanceUID": uid(7, 1, 1), "StudyID": "",
    "SeriesNumber": "3000566", "AcquisitionNumber": "1", "InstanceNumber": "80",
    "ImagePositionPatient": ["-166", "-171.7", "-207.5"], "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "FrameOfReferenceUID": uid(7, 9), "Laterality": "", "PositionReferenceIndicator": "SN", "SliceLocation": "-207.5",
    "ImageComments": "", "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": 512, "Columns": 512,
    "PixelSpacing": ["0.703125", "0.703125"], "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
    "PixelRepresentation": 1, "PixelPaddingValue": -2000, "LongitudinalTemporalInformationModified": "MODIFIED",
    "WindowCenter": "-600", "WindowWidth": "1600", "RescaleIntercept": "-1024", "RescaleSlope": "1",
    "RescaleType": "HU", "PerformedProcedureStepStartDate": "20000101",
}  # fmt: skip


def ct_body(
    syntax: UID = ExplicitVRLittleEndian,
    *,
    pixels: int = 512,
    fragments: int = 1,
    undefined: bool = False,
    change: Callable[[Dataset], None] | None = None,
) -> bytes:
    """A file with so many bytes of pixels, in so many fragments where the syntax is encapsulated.

    `undefined`: its sequences and their items have undefined lengths. `change` is done to the data set last.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(uid(7, 1, 1, 1))
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    for keyword, value in _VALUES.items():
        setattr(dataset, keyword, value)
    for keyword in ("ProcedureCodeSequence", "ReferencedImageSequence", "RequestAttributesSequence"):
        setattr(dataset, keyword, Sequence([_item(undefined), _item(undefined)]))
        dataset[keyword].is_undefined_length = undefined
    block = dataset.private_block(0x13, "CTP", create=True)
    block.add_new(0x10, "LO", "Lung")
    block.add_new(0x13, "LO", "70093692")
    dataset.private_block(0x43, "ACME_PARM", create=True).add_new(0x27, "SH", "/0.5:1")
    data = bytes(range(256)) * (pixels // 256 + 1)
    if syntax.is_encapsulated:
        part = pixels // fragments
        dataset.PixelData = encapsulate([data[:part]] * fragments)
    else:
        dataset.PixelData = data[:pixels]
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    if change is not None:
        change(dataset)
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def _item(undefined: bool) -> Dataset:
    code, item = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-D3000", "SRT", "Chest"
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, uid(7, 1, 1, 5)
    item.PurposeOfReferenceCodeSequence = Sequence([code])
    item["PurposeOfReferenceCodeSequence"].is_undefined_length = undefined
    code.is_undefined_length_sequence_item = item.is_undefined_length_sequence_item = undefined
    return item
