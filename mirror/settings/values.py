"""What can be set, and what it is by default: frozen values, and the types of their fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

Transport = Literal["instance", "zip", "auto"]
DialectChoice = Literal["auto", "nbia", "tcia"]

Connections = Annotated[int, msgspec.Meta(ge=1, le=256)]
Tries = Annotated[int, msgspec.Meta(ge=1, le=20)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Rate = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
#: A length of time in words: see `seconds_of`.
Duration = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^\s*(?=\d)(\d+(\.\d+)?\s*|" + "".join(rf"(\d+(\.\d+)?\s*{unit}\s*)?" for unit in "wdhms") + ")$"
    ),
]
#: A number of bytes in words: see `bytes_of`.
Size = Annotated[str, msgspec.Meta(pattern=r"^\s*\d+(\.\d+)?\s*(?i:([kmgtp]i?)?b?)\s*$")]
#: A day, YYYY-MM-DD; "" for none.
Day = Annotated[str, msgspec.Meta(pattern=r"^(\d{4}-\d\d-\d\d)?$")]
#: A bandwidth, or a timetable of it; "" for none: see mirror.timetable.
Bandwidth = Annotated[str, "bandwidth"]
_AMOUNTS = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSettings:
    """[archive]: which server, and how it is asked. Times are in seconds."""

    #: A base URL, or nbia (the live archive), nlst, tcia (retired).
    server: str = "nbia"
    #: auto: told from the URL.
    dialect: DialectChoice = "auto"
    #: Most requests in flight. The number adapts below it.
    connections: Connections = 8
    #: Most requests per second; 0: no limit.
    rate: Rate = 0.0
    #: Most bytes per second of all bodies together, by the time of day where it should be; "": no limit.
    bandwidth: Bandwidth = ""
    #: One request at a time and 2 seconds between them, whatever `connections` says.
    polite: bool = False
    #: Tries per request, the first included.
    attempts: Tries = 5
    #: First window of the random wait before another try; it doubles with each.
    retry_wait: Seconds = 1.0
    #: The longest such window.
    retry_max_wait: Seconds = 60.0
    #: No new try of a request after this long.
    deadline: Seconds = 900.0
    connect_timeout: Seconds = 30.0
    #: A request that gives no byte for this long has stalled.
    progress_timeout: Seconds = 120.0
    #: A whole request, body included, takes no longer than this: a body that drips must end some time.
    request_timeout: Seconds = 14400.0
    #: More certificate authorities to trust, a PEM file; "" for none.
    ca_file: str = ""
    #: File that holds a bearer token; "" for none. The token itself may come as TCIA_MIRROR_TOKEN.
    token_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """[sync]: how collections are fetched and laid out."""

    #: instance: getSOPInstanceUIDs and getSingleImage. zip: getImage. auto: which is faster.
    transport: Transport = "instance"
    #: uid, classic, descriptive, or a template; fixed for a mirror's life. "": the mirror's own, uid for a new one.
    layout: str = ""
    #: Most series open at a time. 0: see most_open.
    open_series: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    #: Processes that receive and check instances and zips beside the one that leads the run; 1: that does it itself.
    processes: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    #: What to do with an instance whose StudyInstanceUID or PatientID is not that of its series' row.
    on_other_identity: Literal["keep", "refuse"] = "keep"
    #: Flush every file to the disk before it gets its name. Off: faster; a power cut may cost files that verify finds.
    fsync: bool = True
    #: The since-calls are asked from so long before the watermark: the archive's dates are whole days of some zone.
    overlap: Duration = "2d"
    #: Walk a collection whole, digests included, when the last such walk began so long ago; "0": only when asked.
    reconcile_every: Duration = "7d"
    #: A series is withdrawn when two whole walks so far apart lacked it.
    withdraw_after: Duration = "1d"
    #: What becomes of a withdrawn series' files: they stay, go to .mirror/retired/, or are deleted.
    on_withdrawn: Literal["keep", "retire", "delete"] = "keep"
    #: No run withdraws more series than this, nor more than this part of its scope's (one always may go).
    max_withdraw: Count = 100
    max_withdraw_percent: Percent = 5.0
    #: `prune` deletes what has lain in .mirror/retired/ for longer than this.
    prune_after: Duration = "90d"
    #: A run ends in order, with an exit code of its own, once so many bytes of objects are fetched; "0": no limit.
    max_bytes: Size = "0"
    #: As max_bytes, once it has run for so long, its crawl included.
    max_duration: Duration = "0"

    def most_open(self, connections: int) -> int:
        """Series that may be open at a time beside so many connections."""
        return self.open_series or max(8, connections)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeSettings:
    """[scope] and [jobs.NAME]: which part of the archive. The values mean what those of model.Scope mean."""

    #: Names or patterns.
    collections: tuple[str, ...] = ()
    all: bool = False
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    #: Names or patterns.
    manufacturers: tuple[str, ...] = ()
    #: Only series that were released on this day or later; "" for whenever.
    released_since: Day = ""
    #: A .tcia, .csv or .txt file with SeriesInstanceUIDs; "" for none.
    manifest: str = ""
    #: More such files; the series of all of them are meant.
    manifests: tuple[str, ...] = ()
    #: Names of shared lists.
    lists: tuple[str, ...] = ()
    exclude_collections: tuple[str, ...] = ()
    exclude_patients: tuple[str, ...] = ()
    exclude_modalities: tuple[str, ...] = ()
    exclude_body_parts: tuple[str, ...] = ()
    exclude_manufacturers: tuple[str, ...] = ()
    exclude_series: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """[report]: who is told what a run came to."""

    #: A webhook to which the report is posted; "" for none. It may hold a secret, and is shown in no message.
    notify_url: str = ""
    #: A file of metrics for the Prometheus node exporter's textfile collector; "" for none.
    metrics_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """[serve]: how a mirror is served."""

    host: str = "127.0.0.1"
    #: 0: one that is free.
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8042
    #: Processes that listen on the port together.
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    #: Where clients see it, behind a reverse proxy: a URL, its path included; "": where it listens.
    base_url: str = ""
    #: A TOML file of bearer tokens and the collections that each may see; "": everybody sees everything.
    tokens_file: str = ""
    #: Requests that are answered at a time by a worker; more are told to come again.
    requests: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 512
    #: Zips that are made at a time by a worker; more wait for one to end, and then are told to come again.
    zips: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 16
    #: Seconds after which a client that takes no byte of its answer is cut off.
    progress_timeout: Seconds = 120.0
    #: Seconds after which a client is cut off that has not taken all of a list: while it does, the ledger's log grows
    #: by what a sync writes, since the list is as the mirror was at one moment.
    list_timeout: Seconds = 3600.0
    #: A line for each request.
    access_log: bool = False
    #: Lists are sent packed to clients that take it.
    compress: bool = True
    #: How zips are packed for who does not ask for plain ones (Accept-Encoding: identity). DICOM deflates little.
    zip_method: Literal["deflated", "stored"] = "deflated"
    #: Series that are not complete are shown too, with what is held of them.
    incomplete: bool = False
    #: The since-calls go by the day on which a series came into this mirror, and not by the archive's day of release.
    by_ingest: bool = False
    #: Answers name the servers that the content came from (X-TCIA-Mirror-Source): a mirror of this one then knows its
    #: chain, and finds out where it would be a mirror of itself.
    name_source: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a run."""

    #: The mirror's folder; "" when the command line names it.
    to: str = ""
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    #: What to mirror when the command line does not say.
    scope: ScopeSettings = field(default_factory=ScopeSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)
    #: Parts of the archive by name, for `sync --job NAME`.
    jobs: Mapping[str, ScopeSettings] = field(default_factory=dict)


def seconds_of(duration: str) -> float:
    """Seconds of a Duration: numbers with w, d, h, m or s, the larger first, as in 90m, 23h30m, 7d; bare: seconds."""
    return sum(float(number) * _UNITS[unit] for number, unit in _AMOUNTS.findall(duration))


def bytes_of(size: str) -> int:
    """Bytes of a Size: a number and kB, MB, GB, TB or PB, or in powers of 1024 KiB to PiB; bare: bytes. B may lack."""
    number, unit = _AMOUNTS.findall(size)[0]
    power = "bkmgtp".index(unit[:1].lower() or "b")
    return int(float(number) * (1024 if "i" in unit.lower() else 1000) ** power)
