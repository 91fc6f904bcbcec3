"""The door into the tree: a body that came is checked, and only then has a place. Both transports use it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Container, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from msgspec import Struct

from mirror.check import Checked, check_instance
from mirror.layout import safe_name
from mirror.ledger import Held
from mirror.model import Digest, Finding, FindingKind, Instance, Verdict
from mirror.transfer import OpenSeries, Shelf, tolerance
from mirror.tree import Part, Store

T = TypeVar("T")

#: An instance that has its place now, and where the bytes lie that it had before; None: there is none.
_Placed = tuple[Instance | None, str | None]


class Body(Struct, frozen=True, kw_only=True):
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
    #: The instance is held, in doubt: other bytes take the place of those.
    doubted: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """What `admit_new` made of a body: it has its place, or it is wrong, or it is to be compared with what is held."""

    checked: Checked
    digest: Digest
    instance: Instance | None
    compare: bool = False


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
    held: Held | None = None
    try:
        if body.sop_instance_uid is not None and not body.doubted:
            checked, (instance, retired) = await _check_and_place(open_series, body, last_try)
        else:
            # Nobody asked for this one by its UID: it may be held, come twice, or be the successor of what was right
            # once. Or it is held in doubt.
            checked, digest = await open_series.kit.threads.run(_check, open_series.shelf, body)
            uid = checked.header.sop_instance_uid if checked.header and checked.verdict.ok else None
            held = await open_series.held(uid) if uid is not None else None
            again = uid in open_series.seen
            if uid is not None and body.sop_instance_uid is None:
                open_series.seen.add(uid)
            if held is not None and held.digest.sha256 == digest.sha256:
                if held.doubted:
                    await open_series.trusted(uid or "", digest.bytes)
                return ()
            if held is not None and (again or not (held.doubted or held.was_right)):
                ours = held.digest.sha256
                said = f"comes with other bytes than are held: SHA-256 {digest.sha256}, held {ours}"
                return (open_series.finding(FindingKind.DUPLICATE_INSTANCE, said, uid),)
            instance, retired = await open_series.kit.threads.run(
                _place, open_series.shelf, body, checked, digest, last_try, held
            )
    finally:
        body.part.discard()
    if instance is None:
        return checked.verdict.findings
    for finding in checked.verdict.findings:
        open_series.notice(finding)
    await open_series.published(instance, retired=retired)
    return ()


def admit_new(shelf: Shelf, body: Body, held: Container[str], seen: set[str], *, last_try: bool) -> Admitted:
    """Check a body that nobody asked for by its UID, and give it its place if it is nowhere yet. Blocks.

    `held` are the instances that the ledger had when the first body came, `seen` those that came since, this one
    included from now on. Follow with `note`, and end the part.
    """
    checked, digest = _check(shelf, body)
    uid = checked.header.sop_instance_uid if checked.header and checked.verdict.ok else None
    if uid is not None:
        if uid in held or uid in seen:
            return Admitted(checked, digest, None, compare=True)
        seen.add(uid)
    return Admitted(checked, digest, _place(shelf, body, checked, digest, last_try, None)[0])


async def note(open_series: OpenSeries, came: Sequence[tuple[T, Admitted]]) -> list[T]:
    """Note with their series what became of bodies, each with what its caller knows it by.

    Those come back, in their order, that `admit` must decide on with their bytes at hand: they are not what is held.
    """
    ledger, compared, undecided = open_series.kit.ledger, [], []
    for known_by, admitted in came:
        if admitted.compare:
            compared.append((known_by, admitted))
            continue
        for finding in admitted.checked.verdict.findings:
            open_series.notice(finding)
        if admitted.instance is not None:
            await open_series.published(admitted.instance)
    if not compared:
        return []
    uids = [admitted.checked.header.sop_instance_uid for _, admitted in compared if admitted.checked.header]
    holdings = await ledger.run(ledger.holdings, open_series.todo.id, uids)
    for uid, (known_by, admitted) in zip(uids, compared, strict=True):
        holding = holdings.get(uid)
        if uid in open_series.seen or holding is None or holding.sha256 != admitted.digest.sha256:
            undecided.append(known_by)
            continue
        open_series.seen.add(uid)
        if holding.doubted:
            await open_series.trusted(uid, admitted.digest.bytes)
    return undecided


async def _check_and_place(open_series: OpenSeries, body: Body, last_try: bool) -> tuple[Checked, _Placed]:
    kit = open_series.kit
    if not kit.inline.suits(body.part.size):
        return await kit.threads.run(check_and_place, open_series.shelf, body, last_try)
    began = time.perf_counter()
    done = check_and_place(open_series.shelf, body, last_try)
    kit.inline.learn(time.perf_counter() - began)
    return done


def check_and_place(shelf: Shelf, body: Body, last_try: bool) -> tuple[Checked, _Placed]:
    """Check a body that was asked for by its UID and is not held, and give it its place. Blocks; end the part."""
    checked, digest = _check(shelf, body)
    return checked, _place(shelf, body, checked, digest, last_try, None)


def _check(shelf: Shelf, body: Body) -> tuple[Checked, Digest]:
    """Read the header and hash. Blocks."""
    size, digest = body.part.size, body.part.digest()
    vouched = body.md5 == digest.md5
    # Bytes that are the archive's own by its MD5 are whole: then the length that was announced is what was wrong.
    promised = None if vouched else body.promised
    with body.part.open() as file:
        checked = check_instance(file, size, shelf.series, body.sop_instance_uid, promised)
    header = checked.header
    # A verdict without findings is the same whatever is tolerated.
    if checked.verdict.findings:
        checked = tolerance(shelf.settings, checked)
    if vouched and checked.verdict.findings:
        # A data set that ends too early, but is the archive's own by its digest, is kept as the archive has it.
        checked = Checked(header, replace(checked.verdict, findings=tuple(map(_vouched, checked.verdict.findings))))
    elif body.md5 is not None and not vouched:
        said = f"the archive says MD5 {body.md5}, the file has {digest.md5}"
        finding = shelf.finding(FindingKind.MD5_DIFFERS, said, header.sop_instance_uid if header else None)
        checked = Checked(header, Verdict((*checked.verdict.findings, finding), strict=True))
    return checked, digest


def _place(shelf: Shelf, body: Body, checked: Checked, digest: Digest, last_try: bool, held: Held | None) -> _Placed:
    """Publish what is sound, and quarantine what is not when no other try follows. Blocks.

    Bytes that the instance has until now go among what is retired first; then one rename replaces them.
    """
    header, part = checked.header, body.part
    if header is None or not checked.verdict.ok:
        if last_try:
            name = safe_name(body.sop_instance_uid or (header.sop_instance_uid if header else "") or body.label)
            folder = safe_name(shelf.series.series_instance_uid)
            part.quarantine(folder, f"{name}.dcm", checked.verdict.findings)
        return None, None
    directory, retired = shelf.directory, None
    if held is None:
        name = shelf.layout.file_name(header.sop_instance_uid)
    else:
        name = held.name
        retired = shelf.store.retire(directory, name, shelf.run)
    part.publish(directory, name)
    how = (("length", body.promised == part.size), ("header", True), ("md5", body.md5 is not None))
    instance = Instance(
        header=header,
        digest=digest,
        name=name,
        source=body.source,
        fetched_at=int(time.time()),
        verified=",".join(word for word, was in how if was),
    )
    return instance, retired


def _vouched(finding: Finding) -> Finding:
    if finding.kind is not FindingKind.TRUNCATED:
        return finding
    return replace(finding, kind=FindingKind.MALFORMED, detail=f"{finding.detail}; it is the archive's own by its MD5")


async def tell_opened(open_series: OpenSeries, expected: int = 0) -> None:
    """Say that a series is listed: `expected` instances where the server gives no list."""
    ledger = open_series.kit.ledger
    totals = await ledger.run(ledger.totals, open_series.todo.id, open_series.listing)
    open_series.tell_opened(totals, expected)
