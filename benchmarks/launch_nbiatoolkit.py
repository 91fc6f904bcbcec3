"""nbiatoolkit against another server: python launch_nbiatoolkit.py BASE COLLECTION FOLDER PROCESSES.

The base URL, which the tool keeps in an enum, is exchanged, and there is nobody to log in to.
"""

from __future__ import annotations

import sys

from nbiatoolkit import NBIAClient
from nbiatoolkit.auth import OAuth2
from nbiatoolkit.utils import NBIA_BASE_URLS


def main() -> None:
    """List the collection's series and download them, as the tool's own command does."""
    base, collection, folder, processes = sys.argv[1:]
    services = base.removesuffix("v4/")
    NBIA_BASE_URLS.NBIA._value_ = services
    NBIA_BASE_URLS._value2member_map_[services] = NBIA_BASE_URLS.NBIA
    OAuth2.access_token = property(lambda self: "none")  # type: ignore[method-assign,assignment]
    OAuth2.logout = lambda self: None  # type: ignore[method-assign]
    client = NBIAClient(log_level="ERROR")
    uids = [row["SeriesInstanceUID"] for row in client.getSeries(Collection=collection)]
    if not client.downloadSeries(uids, folder, nParallel=int(processes)):
        raise SystemExit("a series could not be downloaded")


if __name__ == "__main__":
    main()
