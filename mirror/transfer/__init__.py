"""One series, from taken up to judged.

    recover   files that an interrupted run left are checked where they lie, and not fetched again
    fetch     the transport lists what the archive has and brings what is not held (transports)
    judge     count, bytes, UIDs and digest against the archive's; a disagreement lists once more, then is a finding
    commit    final names, durable directories, and the verdict in one transaction with the series' state

Instances reach the ledger in batches after they are published. Killed at any point, the ledger knows no file that is
not there, and `recover` finds the files that it does not know.

opened      the series while it is open: what is reported to it, and when rows reach the ledger
recovery    what an interrupted run left
series      the course of it all
"""

from __future__ import annotations

from mirror.transfer.opened import DigestCall, Kit, OpenSeries, Shelf, Transport, tolerance
from mirror.transfer.recovery import meet_placed, withdraw_doubtful
from mirror.transfer.series import SPARE, transfer

__all__ = [
    "SPARE",
    "DigestCall",
    "Kit",
    "OpenSeries",
    "Shelf",
    "Transport",
    "meet_placed",
    "tolerance",
    "transfer",
    "withdraw_doubtful",
]
