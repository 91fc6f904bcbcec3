"""Make a lost or damaged ledger again, from the tree and the last manifest.

reading    what lies in one directory, held against what the manifest says of it; where a series of unknown origin lies
run        the course of it all: load the manifest, read every file, put the ledger in its place
report     what it came to
"""

from __future__ import annotations

from mirror.rebuild.report import RebuildReport, Rebuilt
from mirror.rebuild.run import rebuild

__all__ = ["RebuildReport", "Rebuilt", "rebuild"]
