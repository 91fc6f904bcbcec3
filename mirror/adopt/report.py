"""What an adoption came to: a run report, and what became of the files that were found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mirror.report import RunReport

#: So many files that are no DICOM are named.
NAMED = 5


@dataclass(slots=True, kw_only=True)
class Adoption:
    """Figures of one adoption. Every DICOM file is adopted, held, refused, or of a series that is unknown.

    One that was adopted before the archive's MD5 disproved it counts as refused as well.
    """

    folder: str = ""
    how: str = ""
    #: All files, those that are DICOM instances, and of the others zips, symbolic links, and the rest.
    files: int = 0
    dicom: int = 0
    zips: int = 0
    links: int = 0
    other: int = 0
    #: The first of `other` by their paths, but for what tools leave beside images.
    other_named: list[str] = field(default_factory=list)
    series_known: int = 0
    series_unknown: int = 0
    #: Files of series that the archive does not give.
    unknown: int = 0
    adopted: int = 0
    #: How those came: by a second name for the same bytes, or by a copy of them.
    linked: int = 0
    copied: int = 0
    #: Files whose bytes the mirror had already, a second copy in the folder included.
    held: int = 0
    #: Files that do not check out; they lie where they lay, and each has a finding.
    refused: int = 0
    #: Instances of the known series that the archive lists and nobody has: the next sync fetches them.
    missing: int = 0
    #: Files that are gone from the folder, since the mirror has them (--move).
    removed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionReport(RunReport):
    """A run report, in which `instances.fetched` are those that were adopted, and the figures of the adoption."""

    adoption: Adoption

    @classmethod
    def of(cls, report: RunReport, adoption: Adoption) -> AdoptionReport:
        """`report` with the figures."""
        return cls(**{f.name: getattr(report, f.name) for f in fields(report)}, adoption=adoption)

    def to_json_dict(self) -> dict[str, Any]:
        """The report as JSON values, with the figures as `adoption`."""
        # Not super(): dataclasses with slots are made anew, and it would look for the class that was.
        return RunReport.to_json_dict(self) | {"adoption": asdict(self.adoption)}
