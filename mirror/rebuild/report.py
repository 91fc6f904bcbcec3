"""What a rebuild came to: a run report, and what became of the files of the tree."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from mirror.report import RunReport


@dataclass(slots=True, kw_only=True)
class Rebuilt:
    """Figures of one rebuild, of this run of it where an earlier one was cut off. Files, unless they say series."""

    #: Rows of the manifest that were to be held against the tree; 0: there was none.
    manifest_series: int = 0
    manifest_instances: int = 0
    #: Files that are what the manifest says.
    equal: int = 0
    #: Files that are not; they were set aside, and the next sync fetches them anew.
    changed: int = 0
    #: What the manifest lists and the tree has not, or has not any more.
    missing: int = 0
    #: Files that the manifest does not list and that are instances of the series in whose place they lie.
    unrecorded: int = 0
    #: Files that have a name of ours and are not; they lie where they lay.
    foreign: int = 0
    #: Files of which it cannot be told of which collection they are; the next sync looks at them where they lie.
    unplaced: int = 0
    series_complete: int = 0
    #: Series that the next sync has to look at.
    series_open: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildReport(RunReport):
    """A run report, in which `instances.reused` are those that the ledger knows again, and the figures."""

    rebuilt: Rebuilt

    @classmethod
    def of(cls, report: RunReport, rebuilt: Rebuilt) -> RebuildReport:
        """`report` with the figures."""
        return cls(**{f.name: getattr(report, f.name) for f in fields(report)}, rebuilt=rebuilt)

    def to_json_dict(self) -> dict[str, Any]:
        """The report as JSON values, with the figures as `rebuilt`."""
        # Not super(): dataclasses with slots are made anew, and it would look for the class that was.
        return RunReport.to_json_dict(self) | {"rebuilt": asdict(self.rebuilt)}
