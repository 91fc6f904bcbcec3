"""The webhook: the run report, posted when a run has ended.

The URL of a webhook is a secret as a whole, so that only its host stands in any message.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import aiohttp

from mirror.archive.connection import open_session
from mirror.archive.pacing import Sleep, retrying, seconds_of_retry_after
from mirror.errors import ArchiveError, Refused, ServerFault, SettingsError, Stalled, Throttled, Unreachable
from mirror.report import RunReport
from mirror.settings import ArchiveSettings

#: Seconds for one try.
TIMEOUT = 10.0
#: How a webhook is asked: often enough for one that is just being restarted, and soon over for one that is dead.
_MANNERS = ArchiveSettings(attempts=3, retry_wait=1.0, retry_max_wait=4.0, deadline=40.0)


def check_url(url: str) -> str:
    """The host of a webhook's URL, which is all of it that may be shown. Raises SettingsError where it is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        raise SettingsError("report.notify_url: is not the URL of a webhook; it should be http://... or https://...")
    return f"{host}:{port}" if port else host


def payload_of(report: RunReport) -> dict[str, object]:
    """What is posted: `text`, a line that chat services show, and `report`, the run report's JSON form."""
    series, about = report.series, report.scope or "a run"
    said = f"tcia-mirror: {report.state} (exit code {int(report.exit_code)}): {about} to {report.root or 'a mirror'}"
    if report.error:
        said += f": {report.error}"
    said += (
        f": {series.complete:,} series complete, {series.incomplete:,} incomplete, {series.quarantined:,} quarantined,"
        f" {series.kept:,} kept; {report.instances.fetched:,} instances and {report.bytes.fetched:,} bytes fetched with"
        f" {report.requests.total:,} requests in {report.seconds:,.0f} s"
    )
    if withdrawn := sum(collection.withdrawn for collection in report.collections):
        said += f"; {withdrawn:,} series withdrawn"
    if report.findings_total:
        said += f"; {report.findings_total:,} findings"
    return {"text": said, "report": report.to_json_dict()}


async def post_report(url: str, report: RunReport, settings: ArchiveSettings, *, sleep: Sleep | None = None) -> None:
    """Post a report to a webhook; proxies and certificate authorities are those of the archive's settings.

    A webhook that is down or in trouble is tried three times. It may get a report twice, where its answer was lost.
    Raises ArchiveError where it did not take the report, SettingsError for an unusable URL or ca_file; no message
    shows more of the URL than its host.
    """
    host = check_url(url)
    body = payload_of(report)

    async def once(_number: int) -> None:
        with _mapped(host):
            async with session.post(url, json=body, allow_redirects=False, timeout=timeout) as answer:
                status, wish = answer.status, answer.headers.get("Retry-After")
        if 200 <= status < 300:
            return
        said = f"it answered {status}"
        if status == 429:
            # A wish to wait for longer than a run may hang on its webhook is not granted.
            asked = seconds_of_retry_after(wish, time.time())
            raise Throttled(said, asked=host, retry_after=None if asked is None else min(asked, TIMEOUT))
        raise ServerFault(said, asked=host, status=status) if status >= 500 else Refused(said, asked=host)

    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with open_session(replace(settings, connections=1)) as session:
        await (retrying(once, _MANNERS) if sleep is None else retrying(once, _MANNERS, sleep))


@contextmanager
def _mapped(host: str) -> Iterator[None]:
    """aiohttp's errors as ours. Not as their cause, and in words of our own: theirs show the whole URL."""
    failure: ArchiveError
    try:
        yield
        return
    except TimeoutError:
        failure = Stalled(f"no answer within {TIMEOUT:.0f} s", asked=host)
    except aiohttp.ClientSSLError:
        failure = Refused("its TLS certificate or handshake is not right (see archive.ca_file)", asked=host)
    except aiohttp.ClientConnectorError as error:
        failure = Unreachable(f"no connection: {error.os_error.strerror or 'unknown host'}", asked=host)
    except (aiohttp.ClientConnectionError, OSError):
        failure = Unreachable("the connection broke", asked=host)
    except (aiohttp.ClientError, ValueError):
        failure = Refused("no HTTP as it should be, or a proxy that is none", asked=host)
    raise failure
