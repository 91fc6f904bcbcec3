"""Rows and instances for ledgers, without an archive."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mirror.archive.rows import as_noun
from mirror.ledger import Ledger, Todo
from mirror.model import (
    Action,
    Digest,
    Finding,
    FindingKind,
    Header,
    Instance,
    Patient,
    Series,
    SeriesState,
    Study,
    Why,
)

FETCH = Action(fetch=True, why=Why.NEW)
KEEP = Action(fetch=False, why=Why.UNCHANGED)


def a_series(
    uid: str = "1.2.3", *, collection: str = "A", patient: str = "P1", study: str = "1.2", **fields: object
) -> Series:
    """A series by its canonical row; `fields` are further canonical fields, None to leave one out."""
    row = {"SeriesInstanceUID": uid, "Collection": collection, "PatientID": patient, "StudyInstanceUID": study}
    row |= {name: value for name, value in fields.items() if value is not None}
    return as_noun(Series, row)


def a_patient(patient: str = "P1", *, collection: str = "A", **fields: object) -> Patient:
    return as_noun(Patient, {"PatientID": patient, "Collection": collection} | fields)


def a_study(study: str = "1.2", *, patient: str = "P1", collection: str = "A", **fields: object) -> Study:
    row = {"StudyInstanceUID": study, "PatientID": patient, "Collection": collection} | fields
    return as_noun(Study, row)


def an_instance(uid: str, *, series: str = "1.2.3", body: bytes | None = None, number: int | None = 1) -> Instance:
    """An instance whose bytes are its UID, or `body`."""
    content = uid.encode() if body is None else body
    return Instance(
        header=Header(
            sop_instance_uid=uid, series_instance_uid=series, study_instance_uid="1.2", patient_id="P1",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2", acquisition_number=1, instance_number=number,
        ),
        digest=Digest(
            bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), md5=hashlib.md5(content).hexdigest()
        ),
        name=f"{uid}.dcm",
        source="getSingleImage",
        fetched_at=1_700_000_000,
        verified="length,header",
    )  # fmt: skip


def a_loss(uid: str, *, next_try: int = 0) -> Finding:
    return Finding(kind=FindingKind.UNAVAILABLE, detail="status 500", sop_instance_uid=uid, next_try=next_try)


def plan(ledger: Ledger, *series: Series, run: str = "r1", action: Action = FETCH) -> None:
    """Write series with their action, each in a directory of its own."""
    planned = [(s, action, f"{s.collection}/{s.series_instance_uid}") for s in series]
    ledger.plan_series(1, run, planned)


def the_todo(ledger: Ledger, uid: str = "1.2.3", run: str = "r1") -> Todo:
    (todo,) = (t for t in ledger.todo(run, 0, 1000) if t.series.series_instance_uid == uid)
    return todo


def hold(
    ledger: Ledger, series: Series, uids: Sequence[str], *, state: SeriesState = SeriesState.COMPLETE, run: str = "r1"
) -> int:
    """Plan a series, hold these instances of it and judge it; the ledger's number of it comes back."""
    plan(ledger, series, run=run)
    id_ = the_todo(ledger, series.series_instance_uid, run).id
    listing = ledger.open_series(id_)
    ledger.list_instances(id_, listing, uids)
    ledger.record(id_, [an_instance(u, series=series.series_instance_uid, number=n) for n, u in enumerate(uids, 1)])
    ledger.judge(id_, state, ())
    return id_
