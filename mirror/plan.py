"""Upstream's view of a series against ours: what is to be done, and why. Pure.

A series is fetched when it is new, when it was begun and not finished, when the archive's facts about it moved since it
was judged complete, or when it is there again after it was not. The comparison only decides; what it decides is
written down before it is done.
"""

from __future__ import annotations

from mirror.model import Action, Presence, Series, SeriesState, Why

#: What the archive says about a series that tells of a change. None on either side: it does not say, no change.
STAMPS = ("image_count", "file_size", "max_submission_timestamp", "date_released")


def decide(
    upstream: Series, held: Series | None, state: SeriesState | None, presence: Presence = Presence.PRESENT
) -> Action:
    """The action for one series: `held`, `state` and `presence` are the ledger's; None: it does not know the series."""
    if held is None or state is None:
        return Action(fetch=True, why=Why.NEW)
    news = [
        f"{name} {ours} -> {theirs}"
        for name in STAMPS
        if (ours := getattr(held, name)) is not None
        and (theirs := getattr(upstream, name)) is not None
        and ours != theirs
    ]
    if presence is not Presence.PRESENT:
        # An updated series is hidden until it is released again, and its facts are whole days.
        news.append(f"it is listed again after it was {presence}")
    detail, doubt = ", ".join(news), bool(news)
    if state is not SeriesState.COMPLETE:
        return Action(fetch=True, why=Why.UNFINISHED, detail=detail or f"was {state}", doubt=doubt)
    return Action(fetch=doubt, why=Why.CHANGED if doubt else Why.UNCHANGED, detail=detail, doubt=doubt)
