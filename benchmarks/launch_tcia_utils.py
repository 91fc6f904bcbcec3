"""tcia_utils against another server: python launch_tcia_utils.py BASE COLLECTION FOLDER THREADS.

The one thing changed is the base URL, which the tool keeps in a function of its own.
"""

from __future__ import annotations

import logging
import sys

from tcia_utils import nbia


def main() -> None:
    """List the collection's series and download them, as the tool's own notebooks do."""
    base, collection, folder, threads = sys.argv[1:]
    nbia.setApiUrl = lambda endpoint, api_url="": base
    logging.getLogger().setLevel(logging.WARNING)
    nbia.downloadSeries(nbia.getSeries(collection=collection), path=folder, max_workers=int(threads))


if __name__ == "__main__":
    main()
