"""A mirror of a fake archive: how the tests make one, and how they look at what became of it."""

from __future__ import annotations

import io
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import anyio
import pydicom

from fakes.archive import FakeArchive
from mirror.archive.endpoints import DialectName
from mirror.events import Event
from mirror.ledger import Catalogue, Ledger
from mirror.manifest import InstanceRow, SeriesRow
from mirror.model import Finding, FindingKind, Scope, SeriesState, Walk
from mirror.pipeline import sync
from mirror.report import RunReport
from mirror.settings import ArchiveSettings, Settings, SyncSettings

ALL = Scope(all=True)
WHOLE = Walk(full=True)
#: What a sync writes beside the tree.
EXPORTED = {"manifest.csv", "manifest-series.csv", "SHA256SUMS", "LICENSES", "CITATIONS"}


def settings_for(
    archive: FakeArchive,
    dialect: DialectName = "nbia",
    *,
    progress_timeout: float = 30.0,
    connections: int = 8,
    attempts: int = 3,
    **options: Any,
) -> Settings:
    """Settings that wait for nothing; `options` are those of [sync]."""
    return Settings(
        archive=ArchiveSettings(
            server=archive.url(dialect),
            connections=connections,
            attempts=attempts,
            retry_wait=0.01,
            retry_max_wait=0.05,
            progress_timeout=progress_timeout,
        ),
        sync=replace(SyncSettings(fsync=False), **options),
    )


@dataclass
class Mirror:
    """A mirror in `root` and everything its runs have told."""

    root: Path
    events: list[Event] = field(default_factory=list)

    async def sync(
        self,
        archive: FakeArchive,
        dialect: DialectName = "nbia",
        scope: Scope = ALL,
        *,
        stop: anyio.Event | None = None,
        dry_run: bool = False,
        walk: Walk = WHOLE,
        **options: Any,
    ) -> RunReport:
        """One run, which asks for all of its scope if not told otherwise; the record of requests begins anew."""
        archive.requests.clear()
        self.events.clear()
        settings = settings_for(archive, dialect, **options)
        return await sync(self.root, scope, settings, sink=self.events.append, stop=stop, dry_run=dry_run, walk=walk)

    def tree(self) -> dict[str, bytes]:
        """Path below the root -> bytes of every file outside .mirror that is no export."""
        return {
            path: body for path, body in snapshot(self.root).items() if path not in EXPORTED and path[:8] != ".mirror/"
        }

    def instances(self) -> dict[str, bytes]:
        """SOPInstanceUID by its header -> bytes of every file of the tree. Fails where a UID lies there twice."""
        found: dict[str, bytes] = {}
        for path, body in self.tree().items():
            uid = _uid_of(body)
            assert uid not in found, f"{path}: {uid} lies in the tree twice"
            found[uid] = body
        return found

    def rows(self) -> list[InstanceRow]:
        """The manifest's rows by the ledger."""
        with Catalogue(self.root) as catalogue:
            return list(catalogue.instance_rows())

    def series(self) -> dict[str, SeriesRow]:
        """SeriesInstanceUID -> the manifest's row of it."""
        with Catalogue(self.root) as catalogue:
            return {row.series_instance_uid: row for row in catalogue.series_rows()}

    def presence(self, series_instance_uid: str) -> str:
        """What the ledger says of a series being at the archive."""
        with Ledger(self.root) as ledger:
            asked = "SELECT presence FROM series WHERE series_instance_uid = ?"
            return str(ledger.query(asked, series_instance_uid)[0][0])

    def states(self) -> Counter[str]:
        """How many series there are in each state."""
        return Counter(row.state for row in self.series().values())

    def quarantine(self) -> dict[str, bytes]:
        """Path in the quarantine -> bytes of what lies there: bodies, and the reasons in .txt beside each."""
        return snapshot(self.root / ".mirror" / "quarantine")

    def parts(self) -> list[str]:
        """What is left of bodies on their way in."""
        return sorted(snapshot(self.root / ".mirror" / "tmp"))


@lru_cache(maxsize=512)  # tests look at the same few files over and over
def _uid_of(body: bytes) -> str:
    """The SOPInstanceUID by a file's header, as pydicom reads it."""
    return str(pydicom.dcmread(io.BytesIO(body), specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


def snapshot(root: Path) -> dict[str, bytes]:
    """Path below `root` -> bytes of every file; empty where there is no such folder."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def truth(archive: FakeArchive) -> dict[str, bytes]:
    """SOPInstanceUID -> bytes of every file of the archive."""
    return {uid: body for uid, (_, body) in archive.files().items()}


def assert_nothing_wrong(mirror: Mirror, archive: FakeArchive, *, whole: bool = False) -> None:
    """Every file of the tree is byte for byte the archive's, every row of the ledger is its file's, no part is left.

    `whole`: and there is every file that the archive has, all series are complete, and the sums pass.
    """
    true = truth(archive)
    held = mirror.instances()
    for uid, body in held.items():
        assert body == true[uid], f"{uid}: other bytes than the archive's lie in the tree"
    tree = mirror.tree()
    rows = mirror.rows()
    assert sorted(row.path for row in rows) == sorted(tree)
    for row in rows:
        assert tree[row.path] == true[row.sop_instance_uid], f"{row.path}: is not {row.sop_instance_uid}"
    assert mirror.parts() == []
    assert sums_pass(mirror.root)
    if whole:
        assert held == true
        assert set(mirror.states()) == {SeriesState.COMPLETE}


def sums_pass(root: Path) -> bool:
    """What sha256sum itself says of SHA256SUMS."""
    if not (root / "SHA256SUMS").read_bytes():
        return True
    return subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=root, check=False).returncode == 0


def asked(archive: FakeArchive, call: str) -> list[dict[str, str]]:
    """The parameters of every request of that call since the last run began."""
    return [params for name, params in archive.requests if name == call]


def findings(report: RunReport, kind: FindingKind) -> list[Finding]:
    """The report's findings of that kind."""
    return [finding for finding in report.findings if finding.kind is kind]


def kinds(report: RunReport) -> set[FindingKind]:
    """The kinds of the report's findings."""
    return {finding.kind for finding in report.findings}


def some_instance(archive: FakeArchive, series: str, number: int = 0) -> str:
    """A SOPInstanceUID of a series, the `number`th by UID."""
    return sorted(uid for uid, (of, _) in archive.files().items() if of == series)[number]


def dicom_paths(root: Path) -> Iterator[Path]:
    """Every published file of a tree."""
    return (path for path in root.rglob("*.dcm") if ".mirror" not in path.relative_to(root).parts)
