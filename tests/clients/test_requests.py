"""Clients that cannot be run here: the very requests that their sources send, and in the answers what they read.

Each test is one client's way through the archive, in its words. No line of theirs is here.
"""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
import zipfile
from typing import Any
from urllib.parse import urlencode

import anyio
import pytest
from fakes.archive import FakeArchive
from fakes.asking import Answer, ask, ask_with
from fakes.dicom import instance_uid, uid

ALPHA, BIG = uid(1, 1, 1, 1), uid(2, 1, 2, 1)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

pytestmark = pytest.mark.asyncio


def unzipped(answer: Answer) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(answer.body)) as zipped:
        return {info.filename: zipped.read(info) for info in zipped.infolist() if not info.is_dir()}


def dicom_of(archive: FakeArchive, series: str) -> list[bytes]:
    return sorted(body for of, body in archive.files().values() if of == series)


class Pathfinder:
    """TCIApathfinder 1.0: R's httr, with a key and format=json in each request."""

    def __init__(self, archive: FakeArchive, version: str) -> None:
        self._base = f"{archive.origin}/services/{version}/TCIA/query/"

    async def get(self, call: str, **params: str) -> Answer:
        agent = {"User-Agent": "https://github.com/pamelarussell/TCIApathfinder", "Accept": "application/json, */*"}
        return await ask(self._base + call, headers=agent, format="json", api_key="a-key", **params)

    async def rows(self, call: str, **params: str) -> Any:
        answer = await self.get(call, **params)
        assert answer.status < 400
        assert answer.headers["Content-Type"] == "application/json"
        return answer.rows


@pytest.mark.parametrize("version", ["v3", "v4"])
async def test_tciapathfinder(archive: FakeArchive, version: str) -> None:
    client = Pathfinder(archive, version)
    assert [row["Collection"] for row in await client.rows("getCollectionValues")] == ["Brain Beta", "Lung-Alpha"]
    lung = {"Collection": "Lung-Alpha"}
    for call, key in (("getModalityValues", "Modality"), ("getBodyPartValues", "BodyPartExamined"),
                      ("getManufacturerValues", "Manufacturer"), ("PatientsByModality", "PatientID"),
                      ("NewPatientsInCollection", "PatientID")):  # fmt: skip
        more = {"Modality": "CT"} if "Modality" in call and "Values" not in call else {}
        more |= {"Date": "2014-01-01"} if call.startswith("New") else {}
        assert all(key in row for row in await client.rows(call, **lung, **more))
    patients = await client.rows("getPatient", **lung)
    assert {(row["PatientID"], row["PatientName"], row["Collection"]) for row in patients} == {
        (name, name, "Lung-Alpha") for name in ("S1-001", "S1-002")
    }
    # All studies are those since the first day of the first year.
    studies = await client.rows("NewStudiesInPatientCollection", **lung, Date="0001-01-01", PatientID="S1-001")
    assert [sorted(row) for row in studies] == [["Collection", "PatientID", "StudyInstanceUID"]] * len(studies)
    (study, *_) = await client.rows("getPatientStudy", **lung, StudyInstanceUID=studies[0]["StudyInstanceUID"])
    assert study["SeriesCount"] == 2
    (series,) = await client.rows("getSeries", SeriesInstanceUID=ALPHA)
    assert (series["ImageCount"], float(series["SeriesNumber"])) == (3, 1.0)
    (size,) = await client.rows("getSeriesSize", SeriesInstanceUID=ALPHA)
    assert (float(size["TotalSizeInBytes"]), size["ObjectCount"]) == (sum(map(len, dicom_of(archive, ALPHA))), 3)
    (nothing,) = await client.rows("getSeriesSize", SeriesInstanceUID="1.2.3")
    assert "TotalSizeInBytes" not in nothing
    uids = [row["SOPInstanceUID"] for row in await client.rows("getSOPInstanceUIDs", SeriesInstanceUID=ALPHA)]
    one = await client.get("getSingleImage", SeriesInstanceUID=ALPHA, SOPInstanceUID=uids[0])
    assert one.headers["Content-Disposition"].replace('"', "").split("=")[1] == f"{uids[0]}.dcm"
    assert one.body in dicom_of(archive, ALPHA)
    image = await client.get("getImage", SeriesInstanceUID=ALPHA)
    assert image.headers["Content-Disposition"].replace('"', "").split("=")[1] == "bindaas-blob-download.zip"
    assert sorted(unzipped(image).values()) == dicom_of(archive, ALPHA)
    assert await client.rows("getPatient", Collection="NoSuch") == []
    wrong = await ask(f"{archive.origin}/services/{version}/TCIA/fakeEndpoint", format="json", api_key="a-key")
    assert wrong.status == 404


@pytest.mark.parametrize("base", ["/nbia-api/services/v4", "/services/v4/TCIA/query"])
async def test_orthanc_tcia(archive: FakeArchive, base: str) -> None:
    """1.3 with its option BaseUrl, and 1.2, whose base URL is fixed. It passes on what its page asks."""
    base = archive.origin + base
    collections = (await ask(base + "/getCollectionValues")).rows
    for row in collections:
        where = {"Collection": row["Collection"]}
        for call, key in (("getModalityValues", "Modality"), ("getBodyPartValues", "BodyPartExamined")):
            assert any(key in value for value in (await ask(f"{base}/{call}", **where)).rows)
    brain = {"Collection": "Brain Beta"}
    (patient,) = (await ask(base + "/getPatient", **brain)).rows
    subject = {"PatientID": patient.get("PatientID") or patient["PatientId"]}
    studies = (await ask(base + "/getPatientStudy", **brain, **subject)).rows
    series = (await ask(base + "/getSeries", **brain, **subject)).rows
    assert {row["StudyInstanceUID"] for row in series} == {row["StudyInstanceUID"] for row in studies}
    assert all(isinstance(row["ImageCount"], int) for row in series)
    for row in series:
        answer = await ask(base + "/getImage", SeriesInstanceUID=row["SeriesInstanceUID"])
        files = unzipped(answer)
        files.pop("LICENSE", None)
        assert sorted(files.values()) == dicom_of(archive, row["SeriesInstanceUID"])
        assert len(files) == row["ImageCount"]


async def test_a_cart_for_orthanc_tcia(archive: FakeArchive) -> None:
    """1.3 takes a table with these columns, and whole numbers in two of them."""
    answer = await ask(archive.url() + "getSeriesMetadata", "POST", [("list", f"{ALPHA},{BIG}"), ("format", "csv")])
    cart = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["SeriesInstanceUID"], row["Collection"], row["PatientID"]) for row in cart] == [
        (ALPHA, "Lung-Alpha", "S1-001"),
        (BIG, "Brain Beta", "S2-001"),
    ]
    for row in cart:
        files = dicom_of(archive, row["SeriesInstanceUID"])
        assert (int(row["ImageCount"]), int(row["FileSize"])) == (len(files), sum(map(len, files)))


async def test_the_nbia_data_retriever_s_command_line(archive: FakeArchive) -> None:
    """It has the server from the manifest, and cuts what it gets at line ends and commas."""
    manifest = await ask(archive.url() + "getManifestForCollection", "POST", [("collection", "Lung-Alpha")])
    head, _, listed = manifest.text.partition("ListOfSeriesToDownload=\n")
    properties = dict(line.split("=", 1) for line in head.splitlines())
    assert properties["manifestVersion"].startswith("3.")
    assert properties.get("dataType", "DICOM") == "DICOM"
    server = properties["downloadServerUrl"]
    public = server.replace("nbia-download/servlet/DownloadServlet", "nbia-api/services/v1/")
    assert public != server
    terms = await ask(public + "getUserAgreementTxt")
    assert terms.status != 200  # then there is nothing to agree to
    uids = listed.splitlines()
    assert uids
    denied = f"getDeniedSeries?userName=null&format=csv&seriesList={','.join(uids[:15])}"
    assert (await ask(public + denied, headers={"Accept": "text/csv"})).status == 204
    unknown = await ask(public + denied + ",1.2.3", headers={"Accept": "text/csv"})
    assert (unknown.status, unknown.text.splitlines()[1:]) == (200, ["1.2.3"])
    names = await ask(public + "getAllSOPClassDefinition")
    known = dict(line.split("=", 1) for line in names.text.splitlines())
    for series in uids:
        rows = await ask(
            f"{public}getSeriesMetaData?SeriesInstanceUID={series}&format=csv", headers={"Accept": "text/csv"}
        )
        assert rows.status == 200
        told = rows.text.splitlines()[1].split(",")
        assert (told[0], told[1]) == (series, "Lung-Alpha")
        assert told[11] in known
        files = dicom_of(archive, series)
        assert (int(told[12]), int(told[13]) + int(told[18])) == (len(files), sum(map(len, files)))
        assert '"' not in "".join(told[:19])
        image = await ask(f"{public}getDCMImage?SeriesInstanceUID={series}&IncludeAnnotation=true")
        assert sorted(unzipped(image).values()) == files
        # Java reads a zip as it comes, which it can of what is deflated, and of nothing else that says its length late.
        with zipfile.ZipFile(io.BytesIO(image.body)) as zipped:
            assert {info.compress_type for info in zipped.infolist()} == {zipfile.ZIP_DEFLATED}
    gone = f"{public}getSeriesMetaData?SeriesInstanceUID=1.2.3&format=csv"
    assert (await ask(gone, headers={"Accept": "text/csv"})).status == 204


async def test_the_tcia_data_retriever(archive: FakeArchive) -> None:
    """It has options for its three URLs; it takes names and sums from the table and from md5hashes.csv."""
    login = {"client_id": "NBIA", "grant_type": "password", "password": "", "username": "nbia_guest"}
    token = (await ask_with(archive.origin + "/nbia-api/oauth/token", urlencode(login).encode(), FORM)).rows
    assert token["access_token"]
    assert isinstance(token["expires_in"], int)
    body = urlencode({"format": "csv", "list": f"{ALPHA},{BIG},1.2.3"}).encode()
    table = await ask_with(archive.url() + "getSeriesMetadata", body, FORM)
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["SeriesInstanceUID"] for row in rows] == [ALPHA, BIG]
    assert len(rows[0]) == 40
    for row in rows:
        assert all(row[name] for name in ("Collection", "PatientID", "StudyInstanceUID", "StudyDate", "SeriesNumber"))
        asked = {"IncludeMD5": "Yes", "NewFileNames": "Yes", "SeriesInstanceUID": row["SeriesInstanceUID"]}
        files = unzipped(await ask(f"{archive.url()}getImage?{urlencode(asked)}"))
        sums = dict(csv.reader(io.StringIO(files.pop("md5hashes.csv").decode())))
        assert sums.pop("Filename") == "MD5Hash"
        assert sums == {
            name: hashlib.md5(data, usedforsecurity=False).hexdigest()
            for name, data in files.items()
            if name != "LICENSE"
        }
        assert sum(len(files[name]) for name in sums) == int(row["FileSize"])


async def test_slicer_s_tcia_browser(archive: FakeArchive) -> None:
    """It is tcia_utils but for the files, which it asks for itself, with a header that means nothing any more."""
    answer = await ask(f"{archive.url()}getImage?NewFileNames=Yes&SeriesInstanceUID={BIG}", headers={"api_key": ""})
    files = unzipped(answer)
    assert len(files.pop("LICENSE")) > 0
    assert sorted(files.values()) == dicom_of(archive, BIG)


async def test_curl(archive: FakeArchive) -> None:
    """As docs/clients.md has it, and a file that was cut short goes on where it was cut."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("no curl")

    async def curl(*arguments: str) -> bytes:
        return (await anyio.run_process([program, "-sSf", "-m", "30", *arguments])).stdout

    rows = await curl(archive.url() + "getSeries?Collection=Lung-Alpha")
    assert rows == (await ask(archive.url() + "getSeries", Collection="Lung-Alpha")).body
    sop = instance_uid(ALPHA, 1)
    url = f"{archive.url()}getSingleImage?SeriesInstanceUID={ALPHA}&SOPInstanceUID={sop}"
    whole = await curl(url)
    assert whole == archive.files()[sop][1]
    assert whole[:100] + await curl("-C", "100", url) == whole
    zipped = await curl("--compressed", f"{archive.url()}getImage?SeriesInstanceUID={ALPHA}")
    assert zipfile.ZipFile(io.BytesIO(zipped)).testzip() is None
