"""Trees as the tools of the field leave them."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import pydicom

from fakes.archive import FakeArchive
from mirror.ledger import Catalogue

_COLUMNS = (
    "Series UID,Collection,3rd Party Analysis,Data Description URI,Subject ID,Study UID,Study Description,Study Date,"
    "Series Description,Manufacturer,Modality,SOP Class Name,SOP Class UID,Number of Images,File Size,File Location,"
    "Download Timestamp"
)


def by_retriever(folder: Path, archive: FakeArchive, *, descriptive: bool, without: Collection[str] = ()) -> Path:
    """What NBIA Data Retriever leaves: `manifest-.../` with metadata.csv, a LICENSE per collection, and the images.

    Classic: Collection/PatientID/StudyInstanceUID/SeriesInstanceUID; descriptive: dates, descriptions and the ends of
    the UIDs instead. `without` are SOPInstanceUIDs that did not come.
    """
    root = folder / "manifest-1700000000000"
    lines = [_COLUMNS]
    for (collection, series), files in _series(archive).items():
        first = _header(files[0][1])
        if descriptive:
            day = str(first.StudyDate)
            study_folder = f"{day[4:6]}-{day[6:]}-{day[:4]}-{first.StudyID}-{first.StudyDescription}"
            study_folder = f"{study_folder}-{first.StudyInstanceUID[-5:]}"
            series_folder = f"{float(first.SeriesNumber):f}-{first.SeriesDescription}-{series[-5:]}"
        else:
            study_folder, series_folder = first.StudyInstanceUID, series
        where = Path(collection, first.PatientID, study_folder, series_folder)
        (root / where).mkdir(parents=True)
        (root / collection / "LICENSE").write_text("Creative Commons Attribution 4.0 International License\n")
        width = len(str(len(files)))
        for number, (uid, body) in enumerate(files, start=1):
            if uid not in without:
                (root / where / f"1-{number:0{width}}.dcm").write_bytes(body)
        size = sum(len(body) for _, body in files)
        lines.append(
            f"{series},{collection},NO,,{first.PatientID},{first.StudyInstanceUID},{first.StudyDescription},"
            f"{first.StudyDate},{first.SeriesDescription},Acme,{first.Modality},CT Image Storage,{first.SOPClassUID},"
            f"{len(files)},{size / 1000:.2f} KB,./{where.as_posix()},2024-05-06T07:08:09.123"
        )
    (root / "metadata.csv").write_bytes("\r\n".join([*lines, ""]).encode())
    return root


def by_tcia_utils(folder: Path, archive: FakeArchive, *, without: Collection[str] = ()) -> Path:
    """What tcia_utils 3.3.5 leaves: the members of each getImage zip in `<SeriesInstanceUID>/`, LICENSE included."""
    for (_, series), files in _series(archive).items():
        where = folder / "tciaDownload" / series
        where.mkdir(parents=True)
        (where / "LICENSE").write_text("Creative Commons Attribution 4.0 International License\n")
        for number, (uid, body) in enumerate(files, start=1):
            if uid not in without:
                (where / f"1-{number:03}.dcm").write_bytes(body)
    return folder / "tciaDownload"


def _series(archive: FakeArchive) -> dict[tuple[str, str], list[tuple[str, bytes]]]:
    """(collection, SeriesInstanceUID) -> (SOPInstanceUID, bytes) by InstanceNumber."""
    found: dict[tuple[str, str], list[tuple[str, bytes]]] = defaultdict(list)
    with Catalogue(archive.root) as catalogue:
        for row in catalogue.instance_rows():
            body = (archive.root / row.path).read_bytes()
            found[row.collection, row.series_instance_uid].append((row.sop_instance_uid, body))
    return {key: sorted(files, key=lambda f: int(_header(f[1]).InstanceNumber)) for key, files in found.items()}


def _header(body: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(body), stop_before_pixels=True)
