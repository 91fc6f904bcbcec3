"""What a scope means: in words, for one series, for the archive's collections, and as a text that can be kept. Pure.

A value matches whole and without regard to case, as the archive has it. Those of collections and manufacturers may be
patterns (*, ?, [...]); a value that is there as it is written is that value, whatever signs are in it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import date
from fnmatch import fnmatchcase
from typing import Any

from mirror.errors import SettingsError
from mirror.model import Exclude, Scope, Series

#: (keyword, field of Scope and Exclude, field of Series, whether values may be patterns)
_KINDS = (
    ("Collection", "collections", "collection", True),
    ("PatientID", "patients", "patient_id", False),
    ("Modality", "modalities", "modality", False),
    ("BodyPartExamined", "body_parts", "body_part_examined", False),
    ("Manufacturer", "manufacturers", "manufacturer", True),
)
_SIGNS = frozenset("*?[")
#: So many values are told whole, not only the nearest.
_FEW = 3
#: More values than these make no message clearer.
_MANY = 10


def describe(scope: Scope, collection: str | None = None) -> str:
    """A scope in words, the same words for the same scope. `collection`: only as far as it is about that one."""
    parts = [
        collection or ("all collections" if scope.all else ", ".join(_sorted(scope.collections)) or "listed series")
    ]
    parts += [
        f"{keyword} {' or '.join(_sorted(values))}"
        for keyword, name, _, _ in _KINDS[1:]
        if (values := getattr(scope, name))
    ]
    if scope.released_since:
        parts.append(f"released since {scope.released_since}")
    if scope.series:
        parts.append(f"{len(scope.series)} listed series")
    if scope.lists:
        parts.append(f"shared list {' or '.join(_sorted(scope.lists))}")
    parts += [
        f"without {keyword} {' or '.join(_sorted(values))}"
        for keyword, name, _, _ in _KINDS[1 if collection else 0 :]
        if (values := getattr(scope.exclude, name))
    ]
    if scope.exclude.series:
        parts.append(f"without {len(scope.exclude.series)} listed series")
    return "; ".join(parts)


def outside(series: Series, scope: Scope) -> str:
    """How a series is not of the scope, in words; "" when it is: see `boundary`."""
    return boundary(scope)(series)


def boundary(scope: Scope) -> Callable[[Series], str]:
    """`outside` for many series: the scope is read once.

    `series` and `lists` are not looked at: whoever asks for listed series knows which. A series without a day of
    release is outside of a scope that wants those released since one, as it is for the archive's own since-calls.
    """
    wanted = [(kind, values, matcher(values, kind[3])) for kind in _KINDS if (values := getattr(scope, kind[1]))]
    unwanted = [(kind, matcher(values, kind[3])) for kind in _KINDS if (values := getattr(scope.exclude, kind[1]))]
    excluded = frozenset(scope.exclude.series)
    since = scope.released_since

    def beyond(series: Series) -> str:
        for (keyword, _, field, _), values, matches in wanted:
            if not matches(value := getattr(series, field) or ""):
                return f"its {keyword} is {value or '(none)'}, not {_told(values)}"
        if since and (series.date_released or "") < since:
            return f"its DateReleased is {series.date_released or '(none)'}, not {since} or later"
        for (keyword, _, field, _), matches in unwanted:
            if (value := getattr(series, field)) and matches(value):
                return f"its {keyword} {value} is excluded"
        return "it is excluded by its UID" if series.series_instance_uid in excluded else ""

    return beyond


def names_of(scope: Scope, names: Sequence[str], at: str = "the archive") -> list[str]:
    """Which of the archive's collections (`names`) the scope means, in the archive's spelling.

    Raises SettingsError for a name or pattern that means none, with the nearest, and where the exclusions leave none.
    What is excluded need not be there. `at` says whose names they are.
    """
    found: dict[str, None] = dict.fromkeys(names) if scope.all else {}
    for asked in scope.collections:
        # Two collections may differ in case only: then the exact spelling means one, and any other means both.
        same = [asked] if asked in names else [name for name in names if _same(name, asked)]
        if not same and _is_pattern(asked):
            same = list(filter(matcher((asked,), patterns=True), names))
            if not same:
                raise SettingsError(f"the pattern {asked!r} fits none of the {len(names)} collections of {at}")
        if not same:
            raise SettingsError(f"collection {asked!r} is not among the {len(names)} of {at}{nearest([asked], names)}")
        found |= dict.fromkeys(same)
    excluded = matcher(scope.exclude.collections, patterns=True)
    left = [name for name in found if not excluded(name)]
    if found and not left:
        raise SettingsError(f"the scope excludes every collection that it names: {describe(scope)}")
    return left


def fingerprint(scope: Scope) -> str:
    """Sixteen hex digits that are the same for scopes which take the same series out of any one collection.

    The names of collections are no part of it, so that another collection leaves those that are there as they are.
    """
    within = replace(scope, collections=(), all=False, exclude=replace(scope.exclude, collections=()))
    return hashlib.sha256(_canonical(_given(within, fold=True)).encode()).hexdigest()[:16]


def to_json(scope: Scope) -> str:
    """A scope as a text that `from_json` takes; only what it says, so that a later kind of restriction changes none."""
    return _canonical(_given(scope))


def from_json(text: str) -> Scope:
    """The scope of such a text. Raises SettingsError where it is none."""
    try:
        told: dict[str, Any] = json.loads(text)
        exclude = Exclude(**_tuples(told.pop("exclude", {})))
        return require_sound(Scope(**_tuples(told), exclude=exclude))
    except (ValueError, TypeError, AttributeError) as error:
        raise SettingsError(f"not a scope that this version knows: {text[:200]!r}; give the scope anew") from error


def require_sound(scope: Scope) -> Scope:
    """The scope itself. Raises SettingsError for empty names, for a day that is none, and for names beside `all`."""
    if scope.all and scope.collections:
        named = ", ".join(scope.collections)
        raise SettingsError(f"names of collections ({named}) and --all (scope.all) exclude each other; give one")
    kinds = [*(name for _, name, _, _ in _KINDS), "series"]
    texts = {name: getattr(scope, name) for name in (*kinds, "lists")}
    texts |= {f"exclude_{name}": getattr(scope.exclude, name) for name in kinds}
    for what, values in texts.items():
        if any(not value.strip() for value in values):
            raise SettingsError(f"{what}: an empty name is among those given; leave it out")
    if scope.released_since is not None and not is_day(scope.released_since):
        raise SettingsError(f"released_since: {scope.released_since!r} is not right; it should be a day, YYYY-MM-DD")
    return scope


def is_day(text: str) -> bool:
    """True for a day of the calendar as YYYY-MM-DD."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def nearest(wanted: Sequence[str], known: Sequence[str]) -> str:
    """What of `known` comes near, for the end of a message; of a few, all."""
    if len(known) <= _FEW:
        return f"; the nearest are: {', '.join(sorted(known))}" if known else ""
    by_folded = {name.casefold(): name for name in known}
    near = [n for w in wanted for n in difflib.get_close_matches(w.casefold(), by_folded, n=3, cutoff=0.5)]
    return f"; the nearest are: {', '.join(by_folded[n] for n in dict.fromkeys(near))}" if near else ""


def matcher(wanted: Iterable[str], patterns: bool) -> Callable[[str], bool]:
    """Whether a value is one of those wanted."""
    folded = frozenset(value.casefold() for value in wanted)
    shapes = [value for value in folded if patterns and _is_pattern(value)]
    return lambda value: (low := value.casefold()) in folded or any(fnmatchcase(low, shape) for shape in shapes)


def _is_pattern(text: str) -> bool:
    return not _SIGNS.isdisjoint(text)


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _sorted(values: Iterable[str]) -> list[str]:
    return sorted(dict.fromkeys(values), key=lambda value: (value.casefold(), value))


def _told(values: Sequence[str]) -> str:
    more = f" or {len(values) - _MANY} others" if len(values) > _MANY else ""
    return " or ".join(values[:_MANY]) + more


def _given(scope: Scope, *, fold: bool = False) -> dict[str, Any]:
    """What a scope says, without what it leaves open. `fold`: in one spelling and order."""

    def said(values: dict[str, Any]) -> dict[str, Any]:
        tidy = {
            name: said(value)
            if isinstance(value, dict)
            else sorted({v.casefold() for v in value})
            if fold and isinstance(value, tuple)
            else value
            for name, value in values.items()
        }
        return {name: value for name, value in tidy.items() if value}

    return said(asdict(scope))


def _canonical(told: dict[str, Any]) -> str:
    return json.dumps(told, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _tuples(told: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
