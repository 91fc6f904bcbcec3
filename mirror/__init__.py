"""tcia-mirror: a verified local mirror of The Cancer Imaging Archive, and the archive's own API over it.

    archive   ask the v4 API (endpoints: every call; dialects: the two APIs of that name; client, pacing)
       |
    crawl     collections -> patients -> studies -> series, into the ledger, each with its planned action (plan)
       |
    pipeline  sync: planned series -> listers -> bounded queue -> fetchers
       |
    transfer  one series: recover, fetch (transports: one by one, or as a zip), judge, commit
       |
    check     is this the object, does the series add up -> Verdict; only then the tree (layout) has it
       |
    ledger    what is held, and what was found        manifest, export   the same as files
       |
    serve     the v4 API over what is held           verification    is it still so on the disk; and mend it

A floor above may use the floors below it, never the other way round; docs/design.md has the plan of the house.
"""

from __future__ import annotations

from mirror.api import query, read_manifest, run, status, sync, verify
from mirror.errors import ArchiveError, ExitCode, LedgerError, MirrorError, SettingsError, StoreError
from mirror.model import Exclude, Scope
from mirror.settings import ArchiveSettings, Settings, SyncSettings

__all__ = [
    "ArchiveError",
    "ArchiveSettings",
    "Exclude",
    "ExitCode",
    "LedgerError",
    "MirrorError",
    "Scope",
    "Settings",
    "SettingsError",
    "StoreError",
    "SyncSettings",
    "query",
    "read_manifest",
    "run",
    "status",
    "sync",
    "verify",
]
