"""Take over a tree that another tool left, whatever its layout: what checks out becomes the mirror's.

walk       every file of the folder, by its header, into a scratch file (ledger.found)
offered    a transport whose instances come from that folder: the usual check, publish, judge and ledger decide
run        the course of it all: walk, plan, take over, compare what is held already, remove what was moved
report     what it came to
"""

from __future__ import annotations

from mirror.adopt.offered import How
from mirror.adopt.report import Adoption, AdoptionReport
from mirror.adopt.run import adopt

__all__ = ["Adoption", "AdoptionReport", "How", "adopt"]
