"""What the mirror knows: one SQLite file, <root>/.mirror/ledger.sqlite. No other folder holds SQL.

schema      tables and numbered migrations
ledger      the writer: one connection, one thread at a time, one lock per mirror
catalogue   questions that only read: status, manifest rows, what serve answers with
"""

from __future__ import annotations

from mirror.ledger.catalogue import Catalogue
from mirror.ledger.ledger import HeldSeries, Ledger, PlanSize, SeriesTotals, Todo

__all__ = ["Catalogue", "HeldSeries", "Ledger", "PlanSize", "SeriesTotals", "Todo"]
