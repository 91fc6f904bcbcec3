"""The webhook, against servers on real sockets: what it gets, when it is asked again, and what is never shown."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from fakes.clock import Clock
from fakes.servers import serving, serving_raw

from mirror import notify
from mirror.errors import ArchiveError, ExitCode, Refused, ServerFault, SettingsError, Stalled, Throttled, Unreachable
from mirror.events import CollectionPlanned, Noticed, RunStarted, Withdrawn
from mirror.model import Finding, FindingKind
from mirror.notify import check_url, payload_of, post_report
from mirror.report import Reporter, RunReport
from mirror.settings import ArchiveSettings

PATH = "/services/T0/s3cret?token=s3cret"


def a_report() -> RunReport:
    reporter = Reporter()
    reporter(RunStarted(run="r1", server="http://a/", root="/srv/tcia", scope="4D-Lung", connections=4))
    reporter(CollectionPlanned(collection="4D-Lung", kept=1200, withdraw=1))
    reporter(Withdrawn(collection="4D-Lung", series_instance_uid="1", how="keep"))
    reporter(Noticed(finding=Finding(kind=FindingKind.WITHDRAWN, detail="not listed")))
    return reporter.finish("complete", ExitCode.COMPLETE)


async def post(url: str, clock: Clock | None = None, report: RunReport | None = None) -> None:
    await post_report(url, report or a_report(), ArchiveSettings(), sleep=(clock or Clock()).sleep)


def answering(*statuses: int, headers: dict[str, str] | None = None) -> tuple[Any, list[web.Request]]:
    """A webhook that answers with these statuses, the last for ever, and the requests it got."""
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        seen.append(request)
        return web.Response(status=statuses[min(len(seen), len(statuses)) - 1], headers=headers)

    return handler, seen


def test_a_line_for_people_and_the_report_for_programs():
    payload = payload_of(a_report())
    assert payload["text"] == (
        "tcia-mirror: complete (exit code 0): 4D-Lung to /srv/tcia: 0 series complete, 0 incomplete, 0 quarantined,"
        " 0 kept; 0 instances and 0 bytes fetched with 0 requests in 0 s; 1 series withdrawn; 1 findings"
    )
    failed = payload_of(Reporter().finish("failed", ExitCode.LOCKED, error="held by process 7"))
    assert str(failed["text"]).startswith(
        "tcia-mirror: failed (exit code 6): a run to a mirror: held by process 7: 0 series complete"
    )


@pytest.mark.asyncio
async def test_the_report_is_posted_as_json():
    handler, seen = answering(204)
    report = a_report()
    async with serving(handler) as origin:
        await post(origin + PATH, report=report)
    (request,) = seen
    assert (request.method, request.path_qs, request.content_type) == ("POST", PATH, "application/json")
    body = json.loads(await request.text())
    assert sorted(body) == ["report", "text"]
    assert body["report"] == payload_of(report)["report"]
    assert (body["report"]["run"], body["report"]["collections"][0]["withdrawn"]) == ("r1", 1)


@pytest.mark.asyncio
async def test_trouble_is_tried_again_and_over_when_it_is_over():
    handler, seen = answering(503, 500, 200)
    async with serving(handler) as origin:
        await post(origin + PATH)
    assert len(seen) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [(500, ServerFault, 3), (503, ServerFault, 3), (429, Throttled, 3), (404, Refused, 1), (302, Refused, 1)],
)
async def test_a_webhook_that_does_not_take_it(status, kind, tries):
    handler, seen = answering(status, headers={"Location": "https://elsewhere.example/s3cret"})
    async with serving(handler) as origin:
        with pytest.raises(kind, match=rf"^127\.0\.0\.1:\d+: it answered {status}$"):
            await post(origin + PATH)
    assert len(seen) == tries


@pytest.mark.asyncio
async def test_a_wish_to_be_left_alone_is_granted_within_reason():
    handler, seen = answering(429, 200, headers={"Retry-After": "86400"})
    clock = Clock()
    began = clock.now()
    async with serving(handler) as origin:
        await post(origin + PATH, clock)
    assert len(seen) == 2
    assert 10 <= clock.now() - began < 12


@pytest.mark.asyncio
async def test_a_webhook_that_is_not_there():
    async with serving(answering(200)[0]) as origin:
        pass
    with pytest.raises(Unreachable, match=r"^127\.0\.0\.1:\d+: no connection: "):
        await post(origin + PATH)


@pytest.mark.asyncio
async def test_a_webhook_that_says_nothing_and_one_that_talks_nonsense(monkeypatch):
    monkeypatch.setattr(notify, "TIMEOUT", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"s3cret nonsense\r\n\r\n")
        await writer.drain()

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    for behaviour, kind in ((silent, Stalled), (nonsense, Refused), (hasty, Unreachable)):
        async with serving_raw(behaviour) as origin:
            with pytest.raises(ArchiveError) as caught:
                await post(origin + PATH)
        assert caught.type is kind
        assert "s3cret" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://hooks.example/services/s3cret", "hooks.example"),
        ("http://user:s3cret@[::1]:8080/", "::1:8080"),
        ("https://hooks.example:443", "hooks.example:443"),
    ],
)
def test_only_the_host_is_shown(url, host):
    assert check_url(url) == host


@pytest.mark.parametrize("url", ["s3cret", "ftp://s3cret/", "https:///s3cret", "http://[s3cret/", "http://h:s3cret/"])
def test_what_is_no_webhook_is_told_without_showing_it(url):
    with pytest.raises(SettingsError, match=r"^report\.notify_url: is not the URL of a webhook") as caught:
        check_url(url)
    assert "s3cret" not in str(caught.value)
