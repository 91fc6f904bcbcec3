"""Delete what was retired long ago: bytes that the archive replaced or took back, and that were kept for a while.

What a run retired is of the age of that run, and goes as a whole. The ledger forgets first where the bytes lie, so
that its history promises none that are gone; a prune that is killed leaves part of a run's folder to the next one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mirror.ledger import Ledger
from mirror.tree import Store

#: How a run is named: see pipeline.
_RUN = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{6}")
_RETIRED = ".mirror/retired"


@dataclass(frozen=True, slots=True)
class RetiredRun:
    """What one run has retired."""

    run: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What is to be deleted, how many runs are too young for it, and what is no run's and so is left alone."""

    due: tuple[RetiredRun, ...]
    younger: int
    strange: tuple[str, ...]


def plan_prune(store: Store, older_than: float, now: float) -> PrunePlan:
    """What to delete of what was retired by runs that began more than `older_than` seconds before `now`.

    Blocks: every file that is due is looked at. `now` is in seconds since 1970. Raises StoreError.
    """
    begun = {name: _began(name) if is_folder else None for name, is_folder in store.retired().items()}
    due = [run for run, at in begun.items() if at is not None and now - at > older_than]
    strange = tuple(name for name, at in begun.items() if at is None)
    return PrunePlan(
        due=tuple(RetiredRun(run, *store.retired_size(run)) for run in due),
        younger=len(begun) - len(due) - len(strange),
        strange=strange,
    )


def prune(ledger: Ledger, store: Store, plan: PrunePlan, told: Callable[[RetiredRun], None]) -> None:
    """Delete what is due; `told` is called with each run that is gone. Blocks. Safe to repeat, and to kill.

    Raises StoreError and LedgerError.
    """
    for retired in plan.due:
        ledger.forget_retired(f"{_RETIRED}/{retired.run}", f"retired by the run {retired.run}")
        store.drop_retired(retired.run)
        told(retired)


def _began(run: str) -> float | None:
    """When a run began, seconds since 1970; None for what is no run's name."""
    if (named := _RUN.fullmatch(run)) is None:
        return None
    try:
        return datetime.strptime(named[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
