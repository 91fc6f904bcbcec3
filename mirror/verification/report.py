"""What a verification came to, folded while it goes on. Its JSON form is an interface."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from mirror.errors import ExitCode
from mirror.events import DamageEnded, Event, EventSink, FilesVerified, Noticed, RequestDone
from mirror.model import TOLERABLE, Finding
from mirror.report import FINDINGS_KEPT, finding_to_json_dict

VerifyState = Literal["sound", "damaged", "repaired", "interrupted", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was looked at, what was found, and what became of it. `findings` may be fewer than `found` counts."""

    state: VerifyState
    exit_code: ExitCode
    #: All of it, and until the last file was read: the rest is a repair's.
    seconds: float
    reading_seconds: float
    #: Series looked at whole, files of them, and bytes of sound files that were read (quick: that are there).
    series: int
    files: int
    bytes: int
    #: Series that this run did not come to: a budget or a stop ended it. The next run begins with them.
    series_left: int
    #: Findings by kind.
    found: dict[str, int]
    #: What was done about them: by what it was.
    mended: dict[str, int]
    #: Findings that are still as they were found, and damages of earlier runs that are open still.
    open: int
    #: Series whose digest the archive was asked for (deep, with a server).
    digests: int
    #: Entries of the root that are none of the mirror's.
    not_ours: int
    #: Requests to the archive.
    requests: int
    findings: tuple[Finding, ...]
    run: str
    root: str
    depth: str
    repair: bool
    version: str
    #: Why the archive could not be asked.
    error: str | None

    def to_json_dict(self) -> dict[str, Any]:
        """The report as JSON values, in a fixed order of keys."""
        return {
            "state": self.state,
            "exit_code": int(self.exit_code),
            "seconds": round(self.seconds, 3),
            "reading_seconds": round(self.reading_seconds, 3),
            "series": self.series,
            "files": self.files,
            "bytes": self.bytes,
            "series_left": self.series_left,
            "found": self.found,
            "mended": self.mended,
            "open": self.open,
            "digests": self.digests,
            "not_ours": self.not_ours,
            "requests": self.requests,
            "findings": [finding_to_json_dict(finding) for finding in self.findings],
            "findings_total": sum(self.found.values()),
            "run": self.run,
            "root": self.root,
            "depth": self.depth,
            "repair": self.repair,
            "version": self.version,
            "error": self.error,
        }


@dataclass(slots=True)
class Tally:
    """Counts what a run finds and mends, and hands it on to who listens. Memory does not grow with the findings."""

    sink: EventSink
    series: int = 0
    files: int = 0
    bytes: int = 0
    digests: int = 0
    requests: int = 0
    #: Serious findings, and those that nothing can be done about here.
    serious: int = 0
    stuck: int = 0
    found: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _looked_at: float | None = None

    def looked(self, files: int, size: int) -> None:
        """Some files were looked at."""
        self.files += files
        self.bytes += size
        self._looked_at = time.monotonic()
        self.sink(FilesVerified(files=files, bytes=size))

    def find(self, finding: Finding) -> None:
        """Something is not as it should be."""
        self.found[finding.kind] += 1
        self.serious += finding.kind not in TOLERABLE
        if len(self.findings) < FINDINGS_KEPT:
            self.findings.append(finding)
        self.sink(Noticed(finding=finding))

    def mend(self, what: str, path: str) -> None:
        """Something that was found is not so any more."""
        self.mended[what] += 1
        self.sink(DamageEnded(what=what, path=path))

    def overhear(self, event: Event) -> None:
        """Count requests to the archive, and hand every event on."""
        self.requests += isinstance(event, RequestDone)
        self.sink(event)

    def report(
        self,
        *,
        interrupted: bool,
        repair: bool,
        still_open: int,
        series_left: int,
        not_ours: int,
        run: str,
        root: str,
        depth: str,
        error: str | None,
    ) -> VerifyReport:
        """The report of the run as far as it came."""
        open_ones = self.stuck + still_open if repair else self.serious
        state: VerifyState = "repaired" if self.serious else "sound"
        code = ExitCode.COMPLETE
        if interrupted:
            state, code = "interrupted", ExitCode.INTERRUPTED
        elif error is not None:
            state, code = "failed", ExitCode.UNREACHABLE
        elif open_ones:
            state, code = "damaged", ExitCode.DAMAGE
        return VerifyReport(
            state=state,
            exit_code=code,
            seconds=time.monotonic() - self._began,
            reading_seconds=(self._looked_at or time.monotonic()) - self._began,
            series=self.series,
            files=self.files,
            bytes=self.bytes,
            series_left=series_left,
            found=dict(sorted(self.found.items())),
            mended=dict(sorted(self.mended.items())),
            open=open_ones,
            digests=self.digests,
            not_ours=not_ours,
            requests=self.requests,
            findings=tuple(self.findings),
            run=run,
            root=root,
            depth=depth,
            repair=repair,
            version=version("tcia-mirror"),
            error=error,
        )
