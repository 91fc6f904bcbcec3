"""A mirror against an archive, another mirror or a manifest: which series and instances differ, and in what.

    series       two sides' series and what differs between them; the comparison of two ledgers
    archive      the archive's side, by getSeries, getSOPInstanceUIDs and digests
    manifests    a file's side

What is compared is what the ledger says is held; whether the files are still so is verify's question. What comes back
is one list per series that either side has, empty where both are alike: collection by collection the mirror's series
in the manifest's order, then what only the other side has. A series is the same by its UID, wherever either side puts
it. Nothing is written; safe beside a running sync. Memory grows with the instances of one series, not with the mirror.

    Against an archive     what getSeries says, and in the nbia dialect its digests. A series that is withdrawn and
                           kept is told but is no difference: that the archive lacks it is why it is marked so.
    Against a mirror, or a manifest of instances     the SHA-256 of every instance; what is not held is not there.
    Against a manifest of series                     how many instances are held, and bytes.
    Against a list of SeriesInstanceUIDs             whether all of each is held.
"""

from __future__ import annotations

from mirror.diff.archive import against_archive
from mirror.diff.manifests import against_manifest
from mirror.diff.series import Difference, Kind, against_mirror

__all__ = ["Difference", "Kind", "against_archive", "against_manifest", "against_mirror"]
