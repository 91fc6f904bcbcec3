"""Other people's clients, as they come from PyPI, against the demo archive: each answer is the mirror's content."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from fakes.archive import FakeArchive
from fakes.archive_host import archive_host

from mirror.demo import build_archive
from mirror.ledger import Catalogue
from mirror.lists import make_list

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".clients"
BRAIN = {"Collection": "Demo-Brain"}

pytestmark = pytest.mark.asyncio


async def drive(environment: str, driver: str, tmp_path: Path) -> tuple[dict[str, Any], Path, Path]:
    """What a client said of the demo archive, the folder it wrote into, and the archive's root."""
    python = ENVIRONMENTS / environment / "bin" / "python"
    assert python.exists(), f"no environment for {environment}: run `make clients`"
    root, folder = tmp_path / "demo", tmp_path / "client"
    folder.mkdir()
    await asyncio.to_thread(build_archive, root)
    with Catalogue(root) as held:
        listed = [row["SeriesInstanceUID"] for row in held.series(BRAIN)][:2]
    make_list(root, "a list", listed)
    async with FakeArchive(root) as archive, archive_host(archive.origin, tmp_path) as (variables, refused):
        process = await asyncio.create_subprocess_exec(
            python, HERE / driver, folder, env={**os.environ, **variables},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(process.communicate(), 90)
        finally:
            if process.returncode is None:
                process.kill()
    assert (process.returncode, refused) == (0, []), err.decode()
    return json.loads(out), folder, root


def digests(files: list[Path]) -> list[str]:
    return sorted(hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() for file in files)


async def test_tcia_utils(tmp_path: Path) -> None:
    said, folder, root = await drive("tcia_utils-3.3.5", "drive_tcia_utils.py", tmp_path)
    with Catalogue(root) as held:
        series = list(held.series(BRAIN))
        uids = [row["SeriesInstanceUID"] for row in series]
        files = {uid: [row["md5"] for row in held.instances(uid)] for uid in uids}
        first = list(held.instances(uids[0]))
        every = [row["SeriesInstanceUID"] for row in held.series({})]
        studies = [row["StudyInstanceUID"] for row in held.studies(BRAIN)]
        patients = [row["PatientID"] for row in held.patients(BRAIN)]
        collections = held.collections()
        size = held.series_size(uids[0])
        values = {
            "BodyPartExamined": held.values("BodyPartExamined", {}),
            "Modality": held.values("Modality", BRAIN),
            "Manufacturer": held.values("Manufacturer", BRAIN),
        }
        counts = {
            name: held.counts(name, {}) for name in ("Collection", "Modality", "BodyPartExamined", "Manufacturer")
        }
    assert [row["Collection"] for row in said["getCollections"]] == collections
    for call in ("getPatient", "getPatientByCollectionAndModality", "getNewPatientsInCollection"):
        assert [row["PatientId"] for row in said[call]] == patients
    assert [row["StudyInstanceUID"] for row in said["getStudy"]] == studies
    assert {row["PatientID"] for row in said["getNewStudiesInPatient"]} == {"BRAIN 02"}
    for call in ("getSeries", "getSeries df", "getSeriesList"):
        assert [row["SeriesInstanceUID"] for row in said[call]] == uids
        assert [row["FileSize"] for row in said[call]] == [row["FileSize"] for row in series]
    assert [row["SeriesInstanceUID"] for row in said["getUpdatedSeries"]] == every
    for call in (
        "getNewPatientsInCollection later",
        "getUpdatedSeries later",
        "getSeriesSize unknown",
        "getSharedCart unknown",
    ):
        assert said[call] is None
    assert [row["SeriesInstanceUID"] for row in said["getSharedCart"]] == uids[:2]
    for call, name in (
        ("getBodyPart", "BodyPartExamined"),
        ("getModality", "Modality"),
        ("getManufacturer", "Manufacturer"),
    ):
        assert [row.get(name) for row in said[call]] == values[name]
    for call, name in (
        ("getCollectionPatientCounts", "Collection"),
        ("getModalityCounts", "Modality"),
        ("getBodyPartCounts", "BodyPart"),
        ("getManufacturerCounts", "Manufacturer"),
    ):
        told = [(row.get(name), int(row["Count"])) for row in said[call]]
        assert told == counts[{"BodyPart": "BodyPartExamined"}.get(name, name)]
    (described, *_) = said["getCollectionDescriptions"]
    assert described["descriptionURI"] == "https://doi.org/10.5555/tcia-mirror-demo"
    manifest = said["getSimpleSearch manifest"]
    assert [line for line in manifest.splitlines() if line[:1].isdecimal()] == uids
    assert said["getSeriesSize"] == [size]
    assert {row["SOPInstanceUID"] for row in said["getSopInstanceUids"]} == {row["sop_instance_uid"] for row in first}
    tags = {row["element"]: row["data"] for row in said["getDicomTags"]}
    assert tags["(0020,000E)"] == uids[0]
    assert {row["seriesInstanceUID"] for row in said["getDoiMetadata"]} == set(every)
    assert [row["subjectId"] for row in said["getSimpleSearch"]["resultSet"]] == patients
    assert said["getSimpleSearch uids"] == uids
    assert said["getSimpleSearch days"]["totalPatients"] == 0
    assert [row["Collection"] for row in said["reportCollectionSummary"]] == ["Demo-Brain"]
    wanted = sorted(digest for of_series in files.values() for digest in of_series)
    for place in ("plain", "hashed"):
        assert digests(list((folder / place).rglob("*.dcm"))) == wanted
    assert [path.name for path in (folder / "zips").iterdir()] == [f"{uids[0]}.zip"]
    assert set(digests(list((folder / "one").rglob("*.dcm")))) <= set(files[uids[0]]) != set()


async def test_nbiatoolkit(tmp_path: Path) -> None:
    said, folder, root = await drive("nbiatoolkit-1.3.1", "drive_nbiatoolkit.py", tmp_path)
    with Catalogue(root) as held:
        uids = [row["SeriesInstanceUID"] for row in held.series(BRAIN)]
        wanted = sorted(row["md5"] for uid in uids for row in held.instances(uid))
        patients = [row["PatientID"] for row in held.patients(BRAIN)]
        studies = [row["StudyInstanceUID"] for row in held.studies(BRAIN)]
        every = [row["SeriesInstanceUID"] for row in held.series({})]
        collections = held.collections()
        counts = [{"Collection": name, "PatientCount": str(n)} for name, n in held.counts("Collection", {})]
    assert said["token"] == "guest"
    assert [row["Collection"] for row in said["getCollections"]] == collections
    assert said["getCollectionPatientCount"] == counts
    assert [row["DescriptionURI"] for row in said["getCollectionDescriptions"]] == [
        "https://doi.org/10.5555/tcia-mirror-demo"
    ]
    for call in ("getPatients", "getNewPatients", "getPatientsByCollectionAndModality"):
        assert [row["PatientId"] for row in said[call]] == patients
    assert [row["StudyInstanceUID"] for row in said["getStudies"]] == studies
    assert [row["SeriesInstanceUID"] for row in said["getSeries"]] == uids
    assert [row["Series UID"] for row in said["getSeriesMetadata"]] == uids
    assert [row["SeriesInstanceUID"] for row in said["getNewSeries"]] == every
    assert said["getNewSeries later"].startswith("The response content is empty")
    assert {row["element"]: row["data"] for row in said["getDICOMTags"]}["(0020,000E)"] == uids[0]
    assert said["downloadSeries"] is True
    assert digests(list(folder.rglob("*.dcm"))) == wanted
