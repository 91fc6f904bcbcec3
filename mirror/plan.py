"""Upstream's view of a series against ours: what is to be done, and why. Pure.

A series is fetched when it is new, when it was begun and not finished, or when the archive's facts about it moved
since it was judged complete. The comparison only decides; what it decides is written down before it is done.
"""

from __future__ import annotations

from mirror.model import Action, Series, SeriesState, Why

#: What the archive says about a series that tells of a change. None on either side: it does not say, no change.
STAMPS = ("image_count", "file_size", "max_submission_timestamp", "date_released")


def decide(upstream: Series, held: Series | None, state: SeriesState | None) -> Action:
    """The action for one series: `held` and `state` are the ledger's, None when it does not know the series."""
    if held is None or state is None:
        return Action(fetch=True, why=Why.NEW)
    if state is not SeriesState.COMPLETE:
        return Action(fetch=True, why=Why.UNFINISHED, detail=f"was {state}")
    moved = [
        f"{name} {ours} -> {theirs}"
        for name in STAMPS
        if (ours := getattr(held, name)) is not None
        and (theirs := getattr(upstream, name)) is not None
        and ours != theirs
    ]
    if moved:
        return Action(fetch=True, why=Why.CHANGED, detail=", ".join(moved))
    return Action(fetch=False, why=Why.UNCHANGED)
