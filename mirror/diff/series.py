"""Series of two sides, and what differs between them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from heapq import merge
from itertools import groupby

from mirror.errors import SettingsError
from mirror.ledger import Comparison, KnownSeries
from mirror.model import Presence, SeriesState
from mirror.plan import STAMPS

#: SOPInstanceUID and digest, by UID; None: the digest is not known.
Instances = Iterable[tuple[str, str | None]]
Pair = tuple[KnownSeries | None, KnownSeries | None]

_IDENTITY = {"collection": "Collection", "patient_id": "PatientID", "study_instance_uid": "StudyInstanceUID"}
_STAMPS = dict(zip(STAMPS, ("ImageCount", "FileSize", "MaxSubmissionTimestamp", "DateReleased"), strict=True))
#: The collection of series of which nothing but the UID is known.
NOWHERE = ""


class Kind(StrEnum):
    """In what way two sides differ. The value is the word in JSON and CSV."""

    ONLY_HERE = "only-here"
    ONLY_THERE = "only-there"
    DIFFERS = "differs"
    #: The other side has it, and the mirror knows that it does not hold all of it yet.
    INCOMPLETE = "incomplete"
    #: Held, and the archive has taken it back: told, but no difference.
    WITHDRAWN = "withdrawn"


class Measure(Enum):
    """By what series are compared."""

    ARCHIVE = "what the archive says of them"
    INSTANCES = "their instances"
    COUNTS = "how much is held"
    NAMES = "being named"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that differs: a series, or one instance of a series that differs. `what` says how, in words."""

    kind: Kind
    collection: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str | None = None
    what: str = ""


def against_mirror(
    here: Comparison, there: Comparison, collections: Sequence[str] = (), *, instances: bool = False
) -> Iterator[list[Difference]]:
    """What differs between two mirrors; see the package. `instances`: each that differs, too.

    `collections` match without regard to case. Raises SettingsError for one that neither side knows.
    """
    return compare(here, there, Measure.INSTANCES, collections, instances=instances)


def compare(
    here: Comparison, there: Comparison, measure: Measure, collections: Sequence[str] = (), *, instances: bool = False
) -> Iterator[list[Difference]]:
    """Two sides by any measure but the archive's."""
    for ours, theirs in pairs(here, there, names_of(here, there, collections), measure):
        found = differs(ours, theirs, measure)
        if measure is Measure.INSTANCES and ours is not None and theirs is not None:
            mine, others = here.held_sums(ours.id), there.held_sums(theirs.id)
            yield with_instances(ours, theirs, found, mine, others, "SHA-256", each=instances)
        else:
            yield [] if found is None else [found]


def names_of(here: Comparison, there: Comparison, collections: Sequence[str]) -> list[str]:
    """The collections that are compared, as either side spells them, in order; all of them where none is named."""
    known = sorted({*here.all_collections(), *there.all_collections()})
    if not collections:
        return known
    chosen: set[str] = set()
    for asked in collections:
        spelled = {name for name in known if name.casefold() == asked.casefold()}
        if not spelled:
            near = difflib.get_close_matches(asked, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"collection {asked!r}: neither side has a series of it{hint}")
        chosen |= spelled
    return sorted(chosen | ({NOWHERE} & set(known)))


def pairs(here: Comparison, there: Comparison, names: Sequence[str], measure: Measure) -> Iterator[Pair]:
    """Ours and theirs of every series that either side has in these collections; None: that side does not have it."""

    def has(series: KnownSeries | None, *, planned: bool) -> KnownSeries | None:
        return series if series is not None and (series.instances or planned) else None

    for name in names:
        for known in here.known_series(name):
            # What is planned here is ours only where they have it.
            theirs = has(there.find_series(known.series_instance_uid), planned=measure is not Measure.INSTANCES)
            ours = has(known, planned=theirs is not None and known.state is not SeriesState.COMPLETE)
            if ours is not None or theirs is not None:
                yield ours, theirs
        for known in there.known_series(name):
            theirs = has(known, planned=measure is not Measure.INSTANCES)
            elsewhere = here.find_series(known.series_instance_uid)
            if theirs is None or (elsewhere is not None and (name == NOWHERE or elsewhere.collection in names)):
                continue
            yield has(elsewhere, planned=elsewhere is not None and elsewhere.state is not SeriesState.COMPLETE), theirs


def differs(ours: KnownSeries | None, theirs: KnownSeries | None, measure: Measure) -> Difference | None:
    """What differs as far as the two rows tell; None: nothing. Pure."""
    if ours is None:
        return None if theirs is None else difference(Kind.ONLY_THERE, theirs)
    if theirs is None:
        held = f"{ours.instances} instance{'' if ours.instances == 1 else 's'}, {ours.bytes} bytes"
        if measure is Measure.ARCHIVE and ours.presence is Presence.WITHDRAWN:
            return difference(Kind.WITHDRAWN, ours, f"{held} are kept")
        return difference(Kind.ONLY_HERE, ours, held)
    whole = ours.state is SeriesState.COMPLETE
    what = _unlike(ours, theirs, _IDENTITY) if theirs.collection != NOWHERE else []
    if measure is Measure.ARCHIVE and whole:
        what += _unlike(ours, theirs, _STAMPS)
        if theirs.doubted:
            what.append("the MD5 over its instances")
    if measure is Measure.COUNTS:
        for keyword, mine, other in (
            ("instances", ours.instances, theirs.image_count),
            ("bytes", ours.bytes, theirs.file_size),
        ):
            if mine != other:
                what.append(f"{keyword}: {mine} here, {other} there")
    if not whole and (what or measure in (Measure.ARCHIVE, Measure.NAMES)):
        of = "" if theirs.image_count is None else f" of {theirs.image_count}"
        return difference(Kind.INCOMPLETE, ours, "; ".join([f"{ours.instances}{of} instances are held", *what]))
    return difference(Kind.DIFFERS, ours, "; ".join(what)) if what else None


def _unlike(ours: KnownSeries, theirs: KnownSeries, keywords: dict[str, str]) -> list[str]:
    """Keywords whose values are not the same; what one side does not say is no difference."""
    return [
        f"{keyword}: {mine} here, {other} there"
        for name, keyword in keywords.items()
        if (mine := getattr(ours, name)) is not None and (other := getattr(theirs, name)) is not None and mine != other
    ]


def with_instances(
    ours: KnownSeries,
    theirs: KnownSeries,
    found: Difference | None,
    mine: Instances,
    others: Instances,
    digest: str,
    *,
    each: bool,
) -> list[Difference]:
    """`found` and what differs among the instances, which is named with `each`. `digest` is what theirs are called."""
    unlike = list(_unlike_instances(mine, others))
    if not unlike:
        return [] if found is None else [found]
    count = Counter(kind for kind, _ in unlike)
    words = {Kind.ONLY_HERE: "only here", Kind.ONLY_THERE: "only there", Kind.DIFFERS: f"differ in {digest}"}
    counted = "instances: " + ", ".join(f"{count[kind]} {word}" for kind, word in words.items() if count[kind])
    if found is None:
        kind = Kind.DIFFERS if ours.state is SeriesState.COMPLETE else Kind.INCOMPLETE
        found = difference(kind, ours, counted)
    else:
        found = difference(found.kind, ours, f"{found.what}; {counted}")
    if not each:
        return [found]
    return [
        found,
        *(difference(kind, ours if kind is not Kind.ONLY_THERE else theirs, "", uid) for kind, uid in unlike),
    ]


def _unlike_instances(mine: Instances, others: Instances) -> Iterator[tuple[Kind, str]]:
    """The SOPInstanceUIDs that one side lacks, or whose digests differ; both sides come by UID."""
    here = ((uid, True, digest) for uid, digest in mine)
    there = ((uid, False, digest) for uid, digest in others)
    for uid, sides in groupby(merge(here, there, key=lambda side: side[0]), key=lambda side: side[0]):
        match list(sides):
            case [(_, is_ours, _)]:
                yield Kind.ONLY_HERE if is_ours else Kind.ONLY_THERE, uid
            case [(_, _, a), (_, _, b)] if a is not None and b is not None and a != b:
                yield Kind.DIFFERS, uid


def difference(kind: Kind, of: KnownSeries, what: str = "", sop_instance_uid: str | None = None) -> Difference:
    """A difference that is about this series, or about an instance of it."""
    return Difference(
        kind=kind,
        collection=of.collection,
        patient_id=of.patient_id,
        study_instance_uid=of.study_instance_uid,
        series_instance_uid=of.series_instance_uid,
        sop_instance_uid=sop_instance_uid,
        what=what,
    )
