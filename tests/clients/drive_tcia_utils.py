"""tcia_utils: python drive_tcia_utils.py FOLDER. Prints what each call gave, as JSON.

Runs in the client's own environment, with nothing of the client exchanged: variables lead it to another server.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from pathlib import Path

from tcia_utils import nbia


def frame(found):
    """A data frame as rows; absent values left out."""
    return None if found is None else json.loads(found.to_json(orient="records"))


def main() -> None:
    """Call everything."""
    (folder,) = sys.argv[1:]
    logging.getLogger().setLevel(logging.ERROR)
    os.chdir(folder)
    brain = "Demo-Brain"
    series = nbia.getSeries(collection=brain)
    uids = [row["SeriesInstanceUID"] for row in series]
    first = uids[0]
    (sop, *_) = nbia.getSopInstanceUids(first)
    said = {
        "getCollections": nbia.getCollections(),
        "getBodyPart": nbia.getBodyPart(),
        "getModality": nbia.getModality(collection=brain),
        "getManufacturer": nbia.getManufacturer(collection=brain),
        "getPatient": nbia.getPatient(collection=brain),
        "getPatientByCollectionAndModality": nbia.getPatientByCollectionAndModality(brain, "mr"),
        "getNewPatientsInCollection": nbia.getNewPatientsInCollection(brain, "2022/01/31"),
        "getNewPatientsInCollection later": nbia.getNewPatientsInCollection(brain, "2022/02/01"),
        "getStudy": nbia.getStudy(brain),
        "getNewStudiesInPatient": nbia.getNewStudiesInPatient(brain, "BRAIN 02", "2022/01/31"),
        "getSeries": series,
        "getSeries df": frame(nbia.getSeries(collection=brain, format="df")),
        "getUpdatedSeries": nbia.getUpdatedSeries("2022/01/30"),
        "getUpdatedSeries later": nbia.getUpdatedSeries("2022/01/31"),
        "getSeriesList": frame(nbia.getSeriesList(uids)),
        "getSeriesSize": nbia.getSeriesSize(first),
        "getSeriesSize unknown": nbia.getSeriesSize("1.2.3"),
        "getSopInstanceUids": nbia.getSopInstanceUids(first),
        "getSharedCart": nbia.getSharedCart("a list"),
        "getSharedCart unknown": nbia.getSharedCart("no-such-list"),
        "getCollectionDescriptions": nbia.getCollectionDescriptions(),
        "getCollectionPatientCounts": nbia.getCollectionPatientCounts(),
        "getModalityCounts": nbia.getModalityCounts(),
        "getBodyPartCounts": nbia.getBodyPartCounts(),
        "getManufacturerCounts": nbia.getManufacturerCounts(),
        "getDicomTags": frame(nbia.getDicomTags(first)),
        "getDoiMetadata": nbia.getDoiMetadata("https://doi.org/10.5555/tcia-mirror-demo", "series"),
        "getSimpleSearch": nbia.getSimpleSearch(collections=[brain], modalities=["MR"]),
        "getSimpleSearch uids": nbia.getSimpleSearch(collections=[brain], format="uids"),
        "getSimpleSearch manifest": nbia.getSimpleSearch(collections=[brain], format="manifest_text"),
        "getSimpleSearch days": nbia.getSimpleSearch(fromDate="2022/02/01", toDate="2022/03/01"),
        "reportCollectionSummary": frame(nbia.reportCollectionSummary(series)),
        "makeSeriesReport": None,
        "reportDicomTags": frame(nbia.reportDicomTags([first])),
    }
    with contextlib.redirect_stdout(io.StringIO()) as told:
        nbia.makeSeriesReport(series)
    said["makeSeriesReport"] = told.getvalue()
    nbia.downloadSeries(series, path="plain")
    said["downloadSeries hash"] = frame(nbia.downloadSeries(series, path="hashed", hash="y", format="df"))
    nbia.downloadSeries([first, "1.2.3"], input_type="list", path="zips", as_zip=True)
    nbia.downloadImage(first, sop["SOPInstanceUID"], path="one")
    said["files"] = sorted(str(p) for p in Path().rglob("*") if p.is_file())
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
