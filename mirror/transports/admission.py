"""The door into the tree: a body that came is checked, and only then has a place. Both transports use it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import anyio.to_thread

from mirror.check import Checked, check_instance
from mirror.events import SeriesOpened
from mirror.layout import safe_name
from mirror.model import Digest, Finding, FindingKind, Instance, Verdict
from mirror.transfer import OpenSeries, tolerance
from mirror.tree import Part, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A body that came whole, and what was said about it beforehand. `part` is ended by `admit`."""

    part: Part
    #: The instance that was asked for; None: any of the series (a member of a zip).
    sop_instance_uid: str | None
    #: The length that the transport announced, and the MD5 that the archive gave, or None.
    promised: int | None
    md5: str | None
    source: str
    #: What to call it in quarantine when its header cannot be read.
    label: str


async def receive(store: Store, chunks: AsyncIterator[bytes]) -> Part:
    """A part with all of a body's chunks. Nothing is left behind when the body breaks off."""
    part = store.part()
    try:
        async for chunk in chunks:
            await part.write(chunk)
        await part.finish()
    except BaseException:
        part.discard()
        raise
    return part


async def admit(open_series: OpenSeries, body: Body, *, last_try: bool) -> tuple[Finding, ...]:
    """Check a body and give it its place in the tree, noted with its series. What is seriously wrong comes back.

    Wrong bytes have no place: they are forgotten, or quarantined when no other try follows.
    """
    try:
        if body.sop_instance_uid is None:
            # Nobody asked for this one by its UID: it may be held, or come twice.
            checked, digest = await anyio.to_thread.run_sync(_check, open_series, body)
            uid = checked.header.sop_instance_uid if checked.header and checked.verdict.ok else None
            held = await open_series.held_as(uid) if uid is not None else None
            if held == digest.sha256:
                return ()
            if held is not None:
                said = f"comes with other bytes than are held: SHA-256 {digest.sha256}, held {held}"
                return (open_series.finding(FindingKind.DUPLICATE_INSTANCE, said, uid),)
            instance = await anyio.to_thread.run_sync(_place, open_series, body, checked, digest, last_try)
        else:
            checked, instance = await anyio.to_thread.run_sync(_check_and_place, open_series, body, last_try)
    finally:
        body.part.discard()
    if instance is None:
        return checked.verdict.findings
    for finding in checked.verdict.findings:
        open_series.notice(finding)
    await open_series.published(instance)
    return ()


def _check_and_place(open_series: OpenSeries, body: Body, last_try: bool) -> tuple[Checked, Instance | None]:
    """All that blocks, in one thread hop."""
    checked, digest = _check(open_series, body)
    return checked, _place(open_series, body, checked, digest, last_try)


def _check(open_series: OpenSeries, body: Body) -> tuple[Checked, Digest]:
    """Read the header and hash. Blocks."""
    size, digest = body.part.size, body.part.digest()
    vouched = body.md5 == digest.md5
    # Bytes that are the archive's own by its MD5 are whole: then the length that was announced is what was wrong.
    promised = None if vouched else body.promised
    with body.part.open() as file:
        checked = check_instance(file, size, open_series.todo.series, body.sop_instance_uid, promised)
    checked = tolerance(open_series.kit.settings, checked)
    header = checked.header
    if vouched:
        # A data set that ends too early, but is the archive's own by its digest, is kept as the archive has it.
        checked = Checked(header, replace(checked.verdict, findings=tuple(map(_vouched, checked.verdict.findings))))
    elif body.md5 is not None:
        said = f"the archive says MD5 {body.md5}, the file has {digest.md5}"
        finding = open_series.finding(FindingKind.MD5_DIFFERS, said, header.sop_instance_uid if header else None)
        checked = Checked(header, Verdict((*checked.verdict.findings, finding), strict=True))
    return checked, digest


def _place(open_series: OpenSeries, body: Body, checked: Checked, digest: Digest, last_try: bool) -> Instance | None:
    """Publish what is sound, and quarantine what is not when no other try follows. Blocks."""
    header, part = checked.header, body.part
    if header is None or not checked.verdict.ok:
        if last_try:
            name = safe_name(body.sop_instance_uid or (header.sop_instance_uid if header else "") or body.label)
            folder = safe_name(open_series.todo.series.series_instance_uid)
            part.quarantine(folder, f"{name}.dcm", checked.verdict.findings)
        return None
    name = open_series.kit.layout.file_name(header.sop_instance_uid)
    part.publish(open_series.todo.directory, name)
    how = (("length", body.promised == part.size), ("header", True), ("md5", body.md5 is not None))
    return Instance(
        header=header,
        digest=digest,
        name=name,
        source=body.source,
        fetched_at=int(time.time()),
        verified=",".join(word for word, was in how if was),
    )


def _vouched(finding: Finding) -> Finding:
    if finding.kind is not FindingKind.TRUNCATED:
        return finding
    return replace(finding, kind=FindingKind.MALFORMED, detail=f"{finding.detail}; it is the archive's own by its MD5")


async def tell_opened(open_series: OpenSeries, expected: int = 0) -> None:
    """Say that a series is listed: `expected` instances where the server gives no list."""
    kit, todo = open_series.kit, open_series.todo
    totals = await kit.ledger.run(kit.ledger.totals, todo.id, open_series.listing)
    listed = max(totals.listed, expected)
    kit.sink(
        SeriesOpened(
            series_instance_uid=todo.series.series_instance_uid,
            collection=todo.series.collection,
            listed=listed,
            to_fetch=max(0, listed - totals.held - totals.unlisted),
        )
    )
