"""What the mirror knows: one SQLite file, <root>/.mirror/ledger.sqlite. No other folder holds SQL.

schema      tables and numbered migrations
file        the file open for writing: connection, lock, transactions, one thread at a time
planning    crawls, the archive's rows, directories, and what a run is to fetch
ledger      one series' instances, from listed to judged; the class `Ledger` is all of this
catalogue   questions that only read: status, manifest rows, what serve answers with
"""

from __future__ import annotations

from mirror.ledger.catalogue import Catalogue
from mirror.ledger.ledger import Ledger, SeriesTotals
from mirror.ledger.planning import HeldSeries, PlanSize, Todo

__all__ = ["Catalogue", "HeldSeries", "Ledger", "PlanSize", "SeriesTotals", "Todo"]
