"""nbiatoolkit: python drive_nbiatoolkit.py FOLDER. Prints what each call gave, as JSON.

Runs in the client's own environment, with nothing of the client exchanged: variables lead it to another server. It asks
for its token and logs out as it always does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from nbiatoolkit import NBIAClient


def main() -> None:
    """Call everything."""
    (folder,) = sys.argv[1:]
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
