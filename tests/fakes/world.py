"""An archive that lives through a calendar, and the truth about it: what it shows, and all it ever showed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from fakes.archive import FakeArchive
from fakes.calendar import Act, Step
from fakes.dicom import instance_uid, make_series

#: What a series was at some time: (SOPInstanceUID, SHA-256) of its instances.
Content = frozenset[tuple[str, str]]


@dataclass(slots=True)
class Kept:
    """One series of the archive as it is now."""

    collection: str
    patient: str
    study: str
    series: str
    #: SOPInstanceUID -> bytes.
    bodies: dict[str, bytes] = field(default_factory=dict)
    released: str | None = None
    submitted: str = ""
    exists: bool = True
    visible: bool = True
    #: When anything last happened to it, and when last something that the since-calls tell of.
    touched_at: datetime | None = None
    dated_at: datetime | None = None
    #: Since when it has not been shown.
    unseen_since: datetime | None = None
    #: It lost an instance, and no run has seen that yet.
    shrunk: bool = False

    @property
    def shown(self) -> bool:
        """The archive lists it."""
        return self.exists and self.visible

    def content(self) -> Content:
        """What it is now."""
        return frozenset((uid, sha256_of(body)) for uid, body in self.bodies.items())


class World:
    """Applies the steps of a calendar to a fake archive and remembers."""

    def __init__(self, archive: FakeArchive) -> None:
        self.archive = archive
        self.series: dict[str, Kept] = {}
        #: SHA-256 -> SOPInstanceUID of every body that the archive ever had.
        self.bodies: dict[str, str] = {}
        #: SeriesInstanceUID -> everything that it ever was while the archive showed it.
        self.shown: dict[str, set[Content]] = defaultdict(set)
        self.last_step: dict[str, datetime] = {}
        self.steps: list[Step] = []

    def expected(self) -> dict[str, bytes]:
        """SOPInstanceUID -> bytes of all that the archive shows now."""
        return {uid: body for kept in self.series.values() if kept.shown for uid, body in kept.bodies.items()}

    def apply(self, steps: Iterable[Step]) -> None:
        """Let these happen, in their order."""
        for step in steps:
            self._apply(step)
            kept = self.series[step.series]
            kept.touched_at = step.at
            if kept.shown:
                self.shown[step.series].add(kept.content())
                kept.unseen_since = None
                if step.dated:
                    kept.dated_at = step.at
            elif kept.unseen_since is None:
                kept.unseen_since = step.at
            self.last_step[step.collection] = step.at
            self.steps.append(step)

    def collection_of(self, params: dict[str, str]) -> str:
        """The collection that a request with these parameters is about; "" for none."""
        asked = self.series.get(params.get("seriesId", ""))
        if asked is not None and asked.shown:
            # How a run makes sure that the answers about what is gone can be trusted.
            return ""
        uids = [value for name, value in params.items() if name in ("SeriesInstanceUID", "seriesId", "SOPInstanceUID")]
        for uid in uids:
            for series in (uid, uid.rpartition(".")[0]):
                if series in self.series:
                    return self.series[series].collection
        if "StudyInstanceUID" in params:
            return next((s.collection for s in self.series.values() if s.study == params["StudyInstanceUID"]), "")
        return params.get("Collection", "")

    def history(self, series: str) -> str:
        """All that happened to a series, in words."""
        return "; ".join(str(step) for step in self.steps if step.series == series)

    def _apply(self, step: Step) -> None:
        if step.act is Act.ADD:
            self.series[step.series] = Kept(step.collection, step.patient, step.study, step.series)
        kept = self.series[step.series]
        if step.released != "":
            kept.released = step.released
        if step.submitted:
            kept.submitted = step.at.date().isoformat()
        match step.act:
            case Act.ADD | Act.GROW | Act.REPLACE:
                self._put(kept, step)
            case Act.SHRINK:
                gone = [instance_uid(step.series, number) for number in step.numbers]
                for uid in gone:
                    del kept.bodies[uid]
                self.archive.remove(step.series, *gone)
                kept.shrunk = True
            case Act.HIDE:
                kept.visible = False
                self.archive.withdraw(step.series)
            case Act.SHOW:
                kept.visible = True
                self._stamp(kept)
                self.archive.give_back(step.series)
            case Act.DELETE:
                kept.exists = False
                kept.bodies = {}
                self.archive.remove(step.series)
        if step.act in (Act.SHRINK, Act.RELEASE):
            self._stamp(kept)

    def _put(self, kept: Kept, step: Step) -> None:
        files = _files(step)
        for uid, body in files.items():
            kept.bodies[uid] = body
            self.bodies[sha256_of(body)] = uid
        self.archive.stock(
            step.collection,
            files.values(),
            released=kept.submitted,
            extra=lambda row: {"DateReleased": kept.released, "MaxSubmissionTimestamp": kept.submitted},
        )
        if not kept.visible:
            self.archive.withdraw(step.series)

    def _stamp(self, kept: Kept) -> None:
        self.archive.stamp(kept.series, DateReleased=kept.released, MaxSubmissionTimestamp=kept.submitted)


def sha256_of(body: bytes) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(body).hexdigest()


def _files(step: Step) -> dict[str, bytes]:
    """The instances that a step brings: SOPInstanceUID -> bytes, which differ by the step's version."""
    more = {"ImageComments": "x" * step.longer} if step.longer else {}
    first, last = min(step.numbers), max(step.numbers)
    files = make_series(
        patient_id=step.patient,
        study_uid=step.study,
        series_uid=step.series,
        instances=last - first + 1,
        first=first,
        seed=step.version,
        side=24,
        SeriesNumber=int(step.series.rsplit(".", 1)[-1]),
        **more,
    )
    return {instance_uid(step.series, n): files[n - first] for n in step.numbers}
