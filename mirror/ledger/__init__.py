"""What the mirror knows: one SQLite file, <root>/.mirror/ledger.sqlite. No other folder holds SQL.

schema      tables and numbered migrations
file        the file open for writing: connection, lock, transactions, one thread at a time
crawls      which crawls there were, how far they know a collection, patients and studies
directories which directory belongs to whom
planning    the archive's series, and what a run is to fetch
paging      series page by page
withdrawing series on their way out of the mirror
history     what came, changed and left, and when
verifying   what was looked at when, what is damaged, and what became of it
ledger      one series' instances, from listed to judged; the class `Ledger` is all of this
reading     a connection that only reads, and what of the mirror it shows
catalogue   questions that only read: status, manifest rows, what serve answers with
browsing    the same for a person who looks, page by page
facts       what a rebuild needs, in a file beside the ledger
rebuilt     a ledger that is made again from a manifest and a tree
found       beside all this: a scratch file of what an adoption found in somebody's folder
comparison  the same for whoever holds the mirror against something else
past        the same for whoever asks what happened

rebuilt, found and past are for one command each, which takes them from there: the others do not wait for them.
"""

from __future__ import annotations

from mirror.ledger.catalogue import Catalogue
from mirror.ledger.comparison import Comparison, KnownSeries, ListedSeries, Scratch
from mirror.ledger.facts import read_facts
from mirror.ledger.ledger import JUDGED, Came, Held, Holding, Ledger, SeriesTotals
from mirror.ledger.lock import take_lock
from mirror.ledger.planning import HeldSeries, Mark, Planned, PlanSize, Todo
from mirror.ledger.verifying import BEGINNING, Damage, HeldFile, HeldFiles, Turn, Whereabouts
from mirror.ledger.withdrawing import OUTSIDE, Leaving

__all__ = [
    "BEGINNING",
    "JUDGED",
    "OUTSIDE",
    "Came",
    "Catalogue",
    "Comparison",
    "Damage",
    "Held",
    "HeldFile",
    "HeldFiles",
    "HeldSeries",
    "Holding",
    "KnownSeries",
    "Leaving",
    "Ledger",
    "ListedSeries",
    "Mark",
    "PlanSize",
    "Planned",
    "Scratch",
    "SeriesTotals",
    "Todo",
    "Turn",
    "Whereabouts",
    "read_facts",
    "take_lock",
]
