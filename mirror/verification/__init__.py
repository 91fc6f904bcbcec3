"""The tree at rest: is every file that the ledger knows there, as it came, and nothing else? And mending what is not.

files    one directory and one file against the ledger; the one place where held files are read
scan     every file that is held, least recently verified series first, on all cores, within a budget
strays   files without rows: whose are they?
repair   out of the tree, out of the ledger, fetched again, proved
report   what was found and what became of it
run      the course of it all
"""

from __future__ import annotations

from mirror.verification.files import Depth
from mirror.verification.report import VerifyReport
from mirror.verification.run import verify
from mirror.verification.scan import Budget

__all__ = ["Budget", "Depth", "VerifyReport", "verify"]
