"""nbiatoolkit against another server: python drive_nbiatoolkit.py ORIGIN FOLDER. Prints what each call gave, as JSON.

Runs in the client's own environment. The base URLs, which the client keeps in an enum, are exchanged from outside; it
asks for its token and logs out as it always does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from nbiatoolkit import NBIAClient
from nbiatoolkit.utils import NBIA_BASE_URLS


def main() -> None:
    """Call everything."""
    origin, folder = sys.argv[1:]
    NBIA_BASE_URLS.NBIA._value_ = f"{origin}/nbia-api/services/"
    NBIA_BASE_URLS._value2member_map_[NBIA_BASE_URLS.NBIA._value_] = NBIA_BASE_URLS.NBIA  # for its worker processes
    NBIA_BASE_URLS.LOGOUT_URL._value_ = f"{origin}/nbia-api/logout"
    os.chdir(folder)
    brain = "Demo-Brain"
    said = {}
    with NBIAClient(log_level="ERROR") as client:
        said["token"] = client.OAuth_client.access_token
        said["getSeries"] = client.getSeries(Collection=brain)
        first = said["getSeries"][0]["SeriesInstanceUID"]
        said |= {
            "getCollections": client.getCollections(),
            "getCollectionDescriptions": client.getCollectionDescriptions(brain),
            "getCollectionPatientCount": client.getCollectionPatientCount(),
            "getModalityValues": client.getModalityValues(Collection=brain),
            "getModalityValues counts": client.getModalityValues(Collection=brain, Counts=True),
            "getPatients": client.getPatients(Collection=brain),
            "getNewPatients": client.getNewPatients(brain, "2022/01/30"),
            "getPatientsByCollectionAndModality": client.getPatientsByCollectionAndModality(brain, "MR"),
            "getBodyPartCounts": client.getBodyPartCounts(Collection=brain),
            "getStudies": client.getStudies(brain),
            "getSeriesMetadata": client.getSeriesMetadata([row["SeriesInstanceUID"] for row in said["getSeries"]]),
            "getNewSeries": client.getNewSeries("2022/01/30"),
            "getDICOMTags": client.getDICOMTags(first),
            "generateFilePathFromDICOMTags": client.generateFilePathFromDICOMTags(first),
        }
        try:
            said["getNewSeries later"] = client.getNewSeries("2022/01/31")
        except ValueError as error:
            said["getNewSeries later"] = str(error)
        uids = [row["SeriesInstanceUID"] for row in said["getSeries"]]
        pattern = "%SeriesInstanceUID/%SOPInstanceUID.dcm"
        said["downloadSeries"] = client.downloadSeries(uids, "download", filePattern=pattern, nParallel=2)
    said["files"] = sorted(str(p) for p in Path().rglob("*") if p.is_file())
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
