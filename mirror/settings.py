"""Settings: frozen values, handed down by argument."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Transport = Literal["instance", "zip", "auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSettings:
    """[archive]: which server, and how it is asked. Times are in seconds."""

    #: A base URL, or nbia (the live archive), nlst, tcia (retired).
    server: str = "nbia"
    #: auto: told from the URL.
    dialect: Literal["auto", "nbia", "tcia"] = "auto"
    #: Most requests in flight. The number adapts below it.
    connections: int = 8
    #: Most requests per second; 0: no limit.
    rate: float = 0.0
    #: Tries per request, the first included.
    attempts: int = 5
    #: First window of the random wait before another try; it doubles with each.
    retry_wait: float = 1.0
    #: The longest such window.
    retry_max_wait: float = 60.0
    #: No new try of a request after this long.
    deadline: float = 900.0
    connect_timeout: float = 30.0
    #: A request that gives no byte for this long has stalled. There is no limit on a whole body.
    progress_timeout: float = 120.0
    #: More certificate authorities to trust, a PEM file; "" for none.
    ca_file: str = ""
    #: File that holds a bearer token; "" for none. The token itself may come as TCIA_MIRROR_TOKEN.
    token_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """[sync]: how collections are fetched and laid out."""

    #: instance: getSOPInstanceUIDs and getSingleImage. zip: getImage. auto: instance where the server has it.
    transport: Transport = "instance"
    #: uid, classic, descriptive, or a template. Fixed for the life of a mirror.
    layout: str = "uid"
    #: Most series open at a time.
    open_series: int = 8
    #: What to do with an instance whose StudyInstanceUID or PatientID is not that of its series' row.
    on_other_identity: Literal["keep", "refuse"] = "keep"
    #: Flush every file to the disk before it gets its name. Off: faster; a power cut may cost files that verify finds.
    fsync: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeSettings:
    """[scope]: which part of the archive, when the command line does not say."""

    collections: tuple[str, ...] = ()
    all: bool = False
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    #: A .tcia, .csv or .txt file with SeriesInstanceUIDs; "" for none.
    manifest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a run."""

    #: The mirror's folder; "" when the command line names it.
    to: str = ""
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    scope: ScopeSettings = field(default_factory=ScopeSettings)
