"""Collections -> patients -> studies -> series: the archive's side of a scope, written down as a plan.

    crawler      which collections a scope means; each is asked for whole, or for what was released since its watermark
    collection   one collection, either way; its last rows and its watermark are one transaction
    released     which of the studies that a since-call names have nothing in them that is not known
    listed       series that are asked for by their UIDs
    leaving      which series are to leave the mirror, and who says so
    crawling     what all of these share: how a batch of series becomes planned rows

Rows go into the ledger in batches as they come, each series with the action that plan.decide gives it and with its
directory, so nothing here holds a collection. A collection that cannot be crawled is a finding; the others go on.
"""

from __future__ import annotations

from mirror.crawl.crawler import crawl
from mirror.crawl.crawling import Crawled, Crawling

__all__ = ["Crawled", "Crawling", "crawl"]
