"""One encoded CT header with blanks, made by pydicom: a hundred elements, sequences among them, as scanners write."""

from __future__ import annotations

import io
from functools import cache

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

#: The blanks: as long as what is written over them.
SOP_UID, SERIES_UID, STUDY_UID = (b"1.2.%d." % n + b"1" * 58 for n in (3, 2, 1))
PATIENT, SERIES_NUMBER, INSTANCE_NUMBER = b"BENCH-XXXXX", b"888888", b"99999 "

_FRAME_OF_REFERENCE = "1.3.6.1.4.1.14519.5.2.1.1.7.7"
_TEXTS = {
    "SpecificCharacterSet": "ISO_IR 100",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "InstanceCreationDate": "20010203",
    "InstanceCreationTime": "101112.130000",
    "StudyDate": "20010203",
    "SeriesDate": "20010203",
    "AcquisitionDate": "20010203",
    "ContentDate": "20010203",
    "StudyTime": "101000.000000",
    "SeriesTime": "101100.000000",
    "AcquisitionTime": "101110.120000",
    "ContentTime": "101112.130000",
    "AccessionNumber": "2819497684894126",
    "Modality": "CT",
    "Manufacturer": "Acme",
    "InstitutionName": "Removed",
    "ReferringPhysicianName": "",
    "StationName": "CT01",
    "StudyDescription": "Thorax",
    "SeriesDescription": "Axial, 1 mm",
    "ManufacturerModelName": "Scan 3000",
    "PatientSex": "F",
    "PatientAge": "061Y",
    "PatientWeight": "71.5",
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "Per DICOM PS 3.15 AnnexE. Details in 0012,0064",
    "BodyPartExamined": "CHEST",
    "ScanOptions": "HELICAL MODE",
    "SliceThickness": "1.25",
    "KVP": "120",
    "SpacingBetweenSlices": "1.25",
    "DataCollectionDiameter": "500",
    "SoftwareVersions": "07MW18.4",
    "ProtocolName": "5.1 Thorax routine",
    "ContrastBolusAgent": "ISOVUE300",
    "ReconstructionDiameter": "360",
    "DistanceSourceToDetector": "949.075",
    "DistanceSourceToPatient": "541",
    "GantryDetectorTilt": "0",
    "TableHeight": "144.5",
    "RotationDirection": "CW",
    "ExposureTime": "570",
    "XRayTubeCurrent": "400",
    "Exposure": "22",
    "FilterType": "BODY FILTER",
    "GeneratorPower": "48000",
    "FocalSpots": "1.2",
    "ConvolutionKernel": "STANDARD",
    "PatientPosition": "FFS",
    "RevolutionTime": 0.57,
    "SingleCollimationWidth": 1.25,
    "TotalCollimationWidth": 20.0,
    "TableSpeed": 48.2,
    "SpiralPitchFactor": 1.375,
    "StudyID": "1",
    "AcquisitionNumber": "1",
    "ImagePositionPatient": ["-180.0", "-180.0", "-12.25"],
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "FrameOfReferenceUID": _FRAME_OF_REFERENCE,
    "PositionReferenceIndicator": "SN",
    "SliceLocation": "-12.25",
    "PhotometricInterpretation": "MONOCHROME2",
    "SamplesPerPixel": 1,
    "PixelSpacing": ["0.703125", "0.703125"],
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "WindowCenter": "40",
    "WindowWidth": "400",
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
    "RescaleType": "HU",
}


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


@cache
def template(side: int, frames: int) -> bytes:
    """The bytes of such a file up to its pixels: `frames` of `side` x `side` pixels of 16 bits."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = SOP_UID.decode()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.SourceApplicationEntityTitle = "BENCH"
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    for keyword, value in _TEXTS.items():
        setattr(dataset, keyword, value)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = SOP_UID.decode()
    dataset.StudyInstanceUID = STUDY_UID.decode()
    dataset.SeriesInstanceUID = SERIES_UID.decode()
    dataset.PatientID = dataset.PatientName = PATIENT.decode()
    dataset.SeriesNumber = SERIES_NUMBER.decode()
    dataset.InstanceNumber = INSTANCE_NUMBER.decode()
    dataset.ProcedureCodeSequence = [_code("24627-2", "LN", "Chest CT")]
    dataset.DeidentificationMethodCodeSequence = [
        _code(value, "DCM", meaning)
        for value, meaning in (
            ("113100", "Basic Application Confidentiality Profile"),
            ("113101", "Clean Pixel Data Option"),
            ("113105", "Clean Descriptors Option"),
            ("113107", "Retain Longitudinal With Modified Dates Option"),
        )
    ]
    dataset.Rows = dataset.Columns = side
    if frames > 1:
        dataset.NumberOfFrames = str(frames)
    length = side * side * 2 * frames
    dataset.PixelData = b"\0" * 2
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    head = file.getvalue()[:-6]
    for blank, times in ((SOP_UID, 2), (SERIES_UID, 1), (STUDY_UID, 1), (PATIENT, 2), (SERIES_NUMBER, 1)):
        assert head.count(blank) == times, blank
    assert head.count(INSTANCE_NUMBER) == 1
    return head + length.to_bytes(4, "little")
