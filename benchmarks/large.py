"""A synthetic archive of any size, as files of answers, and a server that sends them: for benchmarks/scale.py.

An answer to a call lies in <folder>/<call>/<key>, where the key is the series, study, patient or collection asked for;
where there is none the answer is empty, which in the nbia dialect says "no rows". Objects are made from one template
when they are asked for. The same arguments give the same archive.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

from aiohttp import web

PREFIX = "/nbia-api/services/v4/"
PER_STUDY, PER_PATIENT = 8, 24
OBJECT_BYTES = 2048
_ROOT = "1.3.6.1.4.1.14519.5.2.1"
_LENGTH = 64
_KEYS = ("SeriesInstanceUID", "StudyInstanceUID", "PatientID", "PatientId", "Collection")


def uid(kind: str, number: int) -> str:
    """A UID as long as UIDs may be; the last seven digits are the number."""
    digits = str(int(hashlib.sha256(f"{kind}/{number}".encode()).hexdigest(), 16))
    room = _LENGTH - len(_ROOT) - 10
    return f"{_ROOT}.{1 + int(digits[0]) % 9}{digits[1:room]}.9{number:07d}"


def collections(total: int, number: int) -> list[tuple[str, int]]:
    """Names and numbers of series of so many collections, the largest first, which together have `total` series."""
    weights = [1 / (place + 1) for place in range(number)]
    sizes = [max(1, int(total * weight / sum(weights))) for weight in weights]
    sizes[0] += total - sum(sizes)
    return [(f"Collection-{place:03d}", size) for place, size in enumerate(sizes)]


def make_collections(folder: Path, named: list[tuple[str, int]], released: str) -> None:
    """Answers for whole collections. What a night's since-calls may name waits in <folder>/later."""
    for call in ("getPatient", "getPatientStudy", "getSeries", "later"):
        (folder / call).mkdir(parents=True, exist_ok=True)
    _rows(folder, "getCollectionValues", "all", ({"Collection": name} for name, _ in named))
    first = 0
    for name, size in named:
        numbers = range(first, first + size)
        first += size
        _rows(
            folder, "getPatient", name, (_patient(name, n) for n in numbers if n % PER_PATIENT == 0 or n == numbers[0])
        )
        studies = [n for n in numbers if n % PER_STUDY == 0 or n == numbers[0]]
        _rows(folder, "getPatientStudy", name, (_study(name, n, numbers) for n in studies))
        _rows(folder, "getSeries", name, (_series(name, n, released) for n in numbers))


def make_series(folder: Path, objects: int) -> str:
    """One collection with one series of so many objects, singly and as a zip; gives back the series' UID."""
    series = _series("One", 0, "2022-03-01", objects)
    _rows(folder, "getCollectionValues", "all", [{"Collection": "One"}])
    _rows(folder, "getPatient", "One", [_patient("One", 0)])
    _rows(folder, "getPatientStudy", "One", [_study("One", 0, range(1))])
    _rows(folder, "getSeries", "One", [series])
    key = series["SeriesInstanceUID"]
    _rows(folder, "getSOPInstanceUIDs", key, ({"SOPInstanceUID": uid("object", n)} for n in range(objects)))
    _rows(folder, "getSeriesSize", key, [{"TotalSizeInBytes": objects * OBJECT_BYTES, "ObjectCount": objects}])
    fill = template()
    sums = []
    (folder / "getImage").mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "getImage" / key, "w") as archive:
        archive.writestr("LICENSE", "CC BY 3.0\n")
        for number in range(objects):
            body = fill(number, objects)
            archive.writestr(f"{number + 1:08d}.dcm", body)
            sums.append(hashlib.md5(body).hexdigest())
        listed = "".join(f"{n:08d}.dcm,{md5}\n" for n, md5 in enumerate(sums, start=1))
        archive.writestr("md5hashes.csv", "Filename,MD5Hash\n" + listed)
    write_digest(folder, key, hashlib.md5("".join(sorted(sums)).encode()).hexdigest())
    return key


def write_digest(folder: Path, key: str, digest: str) -> None:
    """The answer of getMD5Hierarchy."""
    (folder / "getMD5Hierarchy").mkdir(exist_ok=True)
    (folder / "getMD5Hierarchy" / key).write_text(digest)


def release(folder: Path, collection: str) -> None:
    """From now on the since-calls name all of a collection, as in the nights after it was released."""
    for call, rows in (
        ("NewPatientsInCollection", f"getPatient/{collection}"),
        ("NewStudiesInPatientCollection", f"getPatientStudy/{collection}"),
        ("getUpdatedSeries", f"getSeries/{collection}"),
    ):
        (folder / call).mkdir(exist_ok=True)
        (folder / call / (collection if call != "getUpdatedSeries" else "all")).symlink_to(folder / rows)


def template() -> Callable[[int, int], bytes]:
    """Gives the file of an object by its number, out of how many; numbers of images are not in the order of UIDs."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.filewriter import dcmwrite
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    series = _series("One", 0, "")
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, uid("object", 0)
    data.Modality, data.PatientID = series["Modality"], series["PatientID"]
    data.StudyInstanceUID, data.SeriesInstanceUID = series["StudyInstanceUID"], series["SeriesInstanceUID"]
    data.InstanceNumber, data.AcquisitionNumber = "123456", "1"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    data.add_new(0x7FE00010, "OB", b"")
    dcmwrite(file, FileDataset("", data, file_meta=meta, preamble=b"\0" * 128), enforce_file_format=True)
    pixels = OBJECT_BYTES - len(file.getvalue())
    data[0x7FE00010].value = bytes(range(256)) * 8
    data[0x7FE00010].value = data[0x7FE00010].value[:pixels]
    file = io.BytesIO()
    dcmwrite(file, FileDataset("", data, file_meta=meta, preamble=b"\0" * 128), enforce_file_format=True)
    body, known, numbered = file.getvalue(), data.SOPInstanceUID.encode(), b"IS\x06\x00123456"
    assert (body.count(known), body.count(numbered)) == (2, 1)

    def fill(number: int, objects: int) -> bytes:
        image = b"IS\x06\x00%-6d" % (1 + number * 7919 % objects)
        return body.replace(numbered, image).replace(known, uid("object", number).encode())

    return fill


def _rows(folder: Path, call: str, key: str, rows: Iterator[dict[str, object]] | list[dict[str, object]]) -> None:
    (folder / call).mkdir(parents=True, exist_ok=True)
    with (folder / call / key).open("w") as file:
        file.write("[")
        for number, row in enumerate(rows):
            file.write(("," if number else "") + json.dumps(row))
        file.write("]")


def _patient(collection: str, number: int) -> dict[str, object]:
    return {
        "PatientId": f"{collection}-{number // PER_PATIENT:06d}", "PatientName": "", "PatientSex": "F",
        "Collection": collection, "Phantom": "NO", "SpeciesCode": "337915000", "SpeciesDescription": "Homo sapiens",
        "Authorized": 1,
    }  # fmt: skip


def _study(collection: str, number: int, numbers: range) -> dict[str, object]:
    begin = number // PER_STUDY * PER_STUDY
    count = min(begin + PER_STUDY, numbers.stop) - max(begin, numbers.start)
    return {
        "StudyInstanceUID": uid("study", number // PER_STUDY), "StudyDate": "01-02-1999",
        "StudyDescription": "CT CHEST W CONTRAST", "PatientAge": "061Y",
        "PatientID": f"{collection}-{number // PER_PATIENT:06d}", "PatientSex": "F", "Collection": collection,
        "SeriesCount": count, "Authorized": 1,
    }  # fmt: skip


def _series(collection: str, number: int, released: str, objects: int = 1) -> dict[str, object]:
    day = "-".join([*released.split("-")[1:], *released.split("-")[:1]])
    return {
        "SeriesInstanceUID": uid("series", number), "StudyInstanceUID": uid("study", number // PER_STUDY),
        "Modality": ("CT", "MR", "CT", "SEG")[number % 4], "ProtocolName": "LUNG SCREEN LOW DOSE",
        "SeriesDate": "01-02-1999", "SeriesDescription": f"0OPA GE LS16 STD 340 {number % 97}",
        "BodyPartExamined": "CHEST", "SeriesNumber": f"{number % PER_STUDY + 1}.000000", "AnnotationsFlag": "false",
        "Collection": collection, "Site": "Institution", "PatientID": f"{collection}-{number // PER_PATIENT:06d}",
        "PatientSex": "F", "PatientAge": "061Y", "Manufacturer": "GE MEDICAL SYSTEMS",
        "ManufacturerModelName": "LightSpeed16", "SoftwareVersions": "LightSpeedApps405.I_H4.0_M4",
        "ImageCount": objects,
        "MaxSubmissionTimestamp": day, "LicenseName": "Creative Commons Attribution 3.0 Unported License",
        "LicenseURI": "http://creativecommons.org/licenses/by/3.0/",
        "DataDescriptionURI": "https://doi.org/10.7937/TCIA.HMQ8-J677", "FileSize": objects * OBJECT_BYTES,
        "ReleasedStatus": "Yes", "DateReleased": day, "StudyDesc": "CT CHEST W CONTRAST", "StudyDate": "01-02-1999",
        "ThirdPartyAnalysis": "NO", "Authorized": 1,
    }  # fmt: skip


def lately() -> str:
    """A day that is over everywhere, and not yet behind the overlap of a nightly run."""
    return (date.today() - timedelta(days=2)).isoformat()


def application(folder: Path, objects: int) -> web.Application:
    """The server."""
    fill = template()

    async def answer(request: web.Request) -> web.StreamResponse:
        call = request.match_info["call"]
        params = {**request.query, **(await request.post() if request.method == "POST" else {})}
        if call == "getSingleImage":
            body = fill(int(params["SOPInstanceUID"][-7:]), objects)
            return web.Response(body=body, content_type="application/dicom")
        key = next((params[name] for name in _KEYS if name in params), "all")
        file = folder / call / key
        return web.FileResponse(file) if file.exists() else web.Response()

    app = web.Application()
    app.router.add_route("*", PREFIX + "{call}", answer)
    return app


async def _serve(folder: Path, objects: int) -> None:
    runner = web.AppRunner(application(folder, objects), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}{PREFIX}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Make an archive, or serve one on a free port, whose URL is printed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("do", choices=["collections", "series", "serve"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=0, help="series of all collections, or objects of the series")
    parser.add_argument("--number", type=int, default=1, help="collections")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if options.do == "collections":
        make_collections(folder, collections(options.size, options.number), lately())
    elif options.do == "series":
        make_series(folder, options.size)
    else:
        asyncio.run(_serve(folder, options.size))


if __name__ == "__main__":
    main()
