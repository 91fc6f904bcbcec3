"""Take series out of the mirror that a run has planned to: the last thing it does, and only when all else went well.

The ledger says first that a series is withdrawn; then its files go where sync.on_withdrawn says; then the ledger
forgets them. A run that is killed in between has decided already, and the next run finishes what it began.
"""

from __future__ import annotations

from typing import Literal

import anyio.to_thread

from mirror.events import EventSink, Withdrawn
from mirror.ledger import OUTSIDE, Leaving, Ledger
from mirror.tree import Store

How = Literal["keep", "retire", "delete"]

_RETIRED = ".mirror/retired"


async def withdraw(ledger: Ledger, store: Store, run: str, how: How, sink: EventSink, scope: str) -> None:
    """Withdraw every series that `run` has planned to; `scope` is the fingerprint of its scope. Safe to repeat.

    Raises StoreError and LedgerError.
    """
    after = 0
    while page := await ledger.run(ledger.leaving, run, after):
        after = page[-1].id
        for leaving in page:
            told = await _take_out(ledger, store, leaving, run, how, scope)
            sink(
                Withdrawn(
                    collection=leaving.series.collection,
                    series_instance_uid=leaving.series.series_instance_uid,
                    how=told,
                )
            )


async def finish_cut_off(ledger: Ledger, store: Store) -> None:
    """Finish what a run that was killed had decided. Bytes that it has not moved yet are retired, never deleted."""
    for run in await ledger.run(ledger.cut_off):
        while page := await ledger.run(ledger.leaving, run, 0, 1):
            (leaving,) = page
            await _take_out(ledger, store, leaving, run, "retire")


async def _take_out(ledger: Ledger, store: Store, leaving: Leaving, run: str, how: How, scope: str = "") -> How:
    # What the archive still has, and the mirror no longer wants, never just stays.
    if leaving.why == OUTSIDE and how == "keep":
        how = "retire"
    retired = f"{_RETIRED}/{run}/{leaving.directory}" if how == "retire" else None
    await ledger.run(ledger.begin_leaving, leaving, run, retired, moves=how != "keep")
    if how != "keep":
        names = [name for _, name, _ in await ledger.run(ledger.held_names, leaving.id)]
        await anyio.to_thread.run_sync(_move, store, leaving.directory, names, run, how)
        await ledger.run(ledger.finish_leaving, leaving, scope)
    return how


def _move(store: Store, directory: str, names: list[str], run: str, how: How) -> None:
    """Blocks. Files that are gone already were moved before."""
    there = store.names(directory)
    for name in names:
        if name in there:
            if how == "retire":
                store.retire(directory, name, run)
            store.remove(directory, name)
