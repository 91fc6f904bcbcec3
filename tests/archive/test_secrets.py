"""Who is asked for what: the token goes to the named server alone, and no secret shows in anything that is told."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from fakes.clock import Clock
from fakes.servers import Events, asking, serving

from mirror.archive.client import ArchiveClient
from mirror.archive.connection import USER_AGENT
from mirror.archive.dialects import find_server
from mirror.archive.endpoints import ENDPOINTS
from mirror.errors import ArchiveError, BadAnswer, MirrorError, Refused, SettingsError, Unreachable
from mirror.settings import ArchiveSettings, read_token

TOKEN = "tok-3f9a77"
ROWS = b'[{"Collection":"A"}]'


@dataclass
class Recording:
    """A server that keeps the requests it gets, and answers by `answer`."""

    answer: Callable[[web.Request], web.StreamResponse] = lambda request: web.Response(body=ROWS)
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.text())
        return self.answer(request)

    @property
    def tokens(self) -> list[str | None]:
        return [request.headers.get("Authorization") for request in self.requests]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a machine without proxies."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest_asyncio.fixture
async def other() -> AsyncIterator[tuple[Recording, str]]:
    """Another host, as far as HTTP can tell: another port."""
    recording = Recording()
    async with serving(recording) as origin:
        yield recording, origin


# The request itself


@pytest.mark.asyncio
async def test_a_request_names_the_tool_and_where_to_read_about_it():
    server = Recording()
    async with serving(server) as origin, asking(origin) as client:
        await client.get_collection_values()
        await client.rows(ENDPOINTS["getSeriesMetadata"], {"list": "1.2"})
        await client.get_single_image("1.2", "1.2.3", _whole)
    agents = {request.headers["User-Agent"] for request in server.requests}
    assert agents == {USER_AGENT}
    assert f"tcia-mirror/{version('tcia-mirror')} (+https://github.com/tcia-mirror/tcia-mirror)" == USER_AGENT
    assert {request.headers["Accept"] for request in server.requests} == {"*/*"}
    assert server.tokens == [None] * 3
    assert [r.method for r in server.requests] == ["GET", "POST", "GET"]
    assert server.bodies[1] == "list=1.2&format=json"
    # A file is hashed and counted as it is stored: nobody may repack it on the way.
    assert server.requests[2].headers["Accept-Encoding"] == "identity"


async def _whole(chunks: AsyncIterator[bytes], length: int | None) -> bytes:
    return b"".join([chunk async for chunk in chunks])


# The token


@pytest.mark.asyncio
async def test_the_token_goes_with_every_request_to_the_server():
    server = Recording()
    async with serving(server) as origin, asking(origin, token=TOKEN) as client:
        await client.get_collection_values()
        await client.rows(ENDPOINTS["getSeriesMetadata"], {"list": "1.2"})
        assert [chunk async for chunk in client.raw(ENDPOINTS["getSeries"], {})] == [ROWS]
    assert server.tokens == [f"Bearer {TOKEN}"] * 3


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.asyncio
async def test_the_token_does_not_follow_a_redirect_to_another_host(other: tuple[Recording, str], code: int):
    elsewhere, other_origin = other
    server = Recording(lambda r: web.Response(status=code, headers={"Location": other_origin + "/there"}))
    async with serving(server) as origin, asking(origin, token=TOKEN) as client:
        assert await client.get_collection_values() == ["A"]
    assert server.tokens == [f"Bearer {TOKEN}"]
    assert elsewhere.tokens == [None]
    assert TOKEN not in str(elsewhere.requests[0].headers)


@pytest.mark.asyncio
async def test_the_token_of_a_form_does_not_follow_either(other: tuple[Recording, str]):
    elsewhere, other_origin = other
    server = Recording(lambda r: web.Response(status=307, headers={"Location": other_origin + "/there"}))
    async with serving(server) as origin, asking(origin, token=TOKEN) as client:
        await client.get_series_metadata(["1.2"])
    assert elsewhere.requests[0].method == "POST"
    assert elsewhere.tokens == [None]
    assert TOKEN not in elsewhere.bodies[0]


@pytest.mark.asyncio
async def test_the_token_does_not_come_back_with_a_redirect_back(other: tuple[Recording, str]):
    """A server that sends us away and is sent back to is not asked again in our name by somebody else."""
    elsewhere, other_origin = other

    def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/back"):
            return web.Response(body=ROWS)
        return web.Response(status=302, headers={"Location": other_origin + "/there"})

    server = Recording(answer)
    async with serving(server) as origin, asking(origin, token=TOKEN) as client:
        elsewhere.answer = lambda r: web.Response(status=302, headers={"Location": origin + "/back"})
        await client.get_collection_values()
    assert (server.tokens, elsewhere.tokens) == ([f"Bearer {TOKEN}", None], [None])


@pytest.mark.asyncio
async def test_the_token_stays_on_the_same_host():
    def answer(request: web.Request) -> web.StreamResponse:
        moved = request.path.startswith("/moved")
        return web.Response(body=ROWS) if moved else web.Response(status=302, headers={"Location": "/moved"})

    server = Recording(answer)
    async with serving(server) as origin, asking(origin, token=TOKEN) as client:
        assert await client.get_collection_values() == ["A"]
    assert server.tokens == [f"Bearer {TOKEN}"] * 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda r: web.Response(status=401, text="Unauthorized"), Refused),
        (lambda r: web.Response(status=400, text="no"), Refused),
        (lambda r: web.Response(status=503), ArchiveError),
        (lambda r: web.Response(text="<html>login</html>"), BadAnswer),
        (lambda r: web.Response(status=302, headers={"Location": str(r.url)}), BadAnswer),
        (lambda r: web.Response(status=302, headers={"Location": "http://[::1/"}), BadAnswer),
        (lambda r: web.Response(status=302, headers={"Location": "ftp://x/"}), BadAnswer),
    ],
    ids=["401", "400", "503", "html", "loop", "malformed", "ftp"],
)
@pytest.mark.asyncio
async def test_the_token_shows_in_nothing_that_is_told(
    answer: Callable[[web.Request], web.StreamResponse], kind: type[ArchiveError]
):
    events = Events()
    async with (
        serving(Recording(answer)) as origin,
        asking(origin, token=TOKEN, sink=events, clock=Clock()) as client,
    ):
        with pytest.raises(kind) as caught:
            await client.get_series(Collection="A")
        told = [repr(client), str(client.server), repr(client.pace.statistics()), repr(events)]
    assert TOKEN not in "".join([*told, *_all_that_it_says(caught.value)])
    assert events


def _all_that_it_says(error: BaseException | None) -> list[str]:
    """The words of an error and of what caused it."""
    words = []
    while error is not None:
        words += [str(error), repr(error), repr(vars(error)), *getattr(error, "__notes__", [])]
        error = error.__cause__
    return words


@pytest.mark.asyncio
async def test_redirects_without_end_end():
    server = Recording(lambda r: web.Response(status=302, headers={"Location": str(r.url)}))
    async with serving(server) as origin, asking(origin, clock=Clock()) as client:
        with pytest.raises(BadAnswer, match=r"getCollectionValues\(\) at .*: too many redirects"):
            await client.get_collection_values()
    assert len(server.requests) == 20


@pytest.mark.asyncio
async def test_a_redirect_to_a_login_page_is_a_bad_answer():
    def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/login":
            return web.Response(text="<html>Log in</html>", content_type="text/html")
        return web.Response(status=302, headers={"Location": "/login"})

    async with serving(Recording(answer)) as origin, asking(origin, clock=Clock()) as client:
        with pytest.raises(BadAnswer, match="the answer is not JSON; it begins with b'<html>Log in"):
            await client.get_collection_values()


def test_a_token_file_is_not_repeated_in_errors(tmp_path: Path):
    file = tmp_path / "token"
    settings = ArchiveSettings(token_file=str(file))
    file.write_text(f"{TOKEN} and more words\n")
    with pytest.raises(SettingsError, match="one word of printable ASCII") as caught:
        read_token(settings, {})
    assert TOKEN not in "".join(_all_that_it_says(caught.value))
    with pytest.raises(SettingsError, match="environment variable TCIA_MIRROR_TOKEN") as caught:
        read_token(settings, {"TCIA_MIRROR_TOKEN": f"{TOKEN}\x01"})
    assert TOKEN not in "".join(_all_that_it_says(caught.value))
    file.write_text(TOKEN + "\n")
    assert read_token(settings, {}) == TOKEN
    assert read_token(settings, {"TCIA_MIRROR_TOKEN": "env-token"}) == "env-token"


def test_a_client_does_not_show_its_token():
    client = ArchiveClient(find_server("nbia"), ArchiveSettings(), token=TOKEN)
    assert TOKEN not in repr(client)
    assert TOKEN not in str(client)


# The proxy

PASSWORD = "pr0xy-s3cret"


@pytest.mark.asyncio
async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch):
    proxy = Recording()
    async with serving(proxy) as origin:
        monkeypatch.setenv("HTTP_PROXY", origin.replace("//", f"//someone:{PASSWORD}@"))
        events = Events()
        async with asking("http://archive.invalid", token=TOKEN, sink=events) as client:
            assert await client.get_collection_values() == ["A"]
    (request,) = proxy.requests
    assert request.raw_path == "http://archive.invalid/nbia-api/services/v4/getCollectionValues"
    credentials = base64.b64encode(f"someone:{PASSWORD}".encode()).decode()
    assert request.headers["Proxy-Authorization"] == f"Basic {credentials}"
    assert PASSWORD not in repr(events)


@pytest.mark.asyncio
async def test_a_host_that_needs_no_proxy_is_asked_itself(monkeypatch: pytest.MonkeyPatch):
    server = Recording()
    async with serving(server) as origin:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with asking(origin) as client:
            assert await client.get_collection_values() == ["A"]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "proxy",
    [
        "http://someone:{password}@127.0.0.1:1",
        "http://someone:{password}@no-such-proxy.invalid:3128",
        "http://someone:{password}@[::1",
        "http://someone:{password}@127.0.0.1:99999",
        "someone:{password}@127.0.0.1:3128",
    ],
)
@pytest.mark.asyncio
async def test_a_proxy_that_does_not_work_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch, proxy: str):
    monkeypatch.setenv("HTTP_PROXY", proxy.format(password=PASSWORD))
    events = Events()
    async with asking("http://archive.invalid", sink=events, attempts=1) as client:
        with pytest.raises(MirrorError) as caught:
            await client.get_collection_values()
    assert isinstance(caught.value, Unreachable | SettingsError)
    if isinstance(caught.value, SettingsError):
        assert "the proxy of the environment (HTTP_PROXY, HTTPS_PROXY)" in str(caught.value)
    assert PASSWORD not in "".join([*_all_that_it_says(caught.value), repr(events)])


@pytest.mark.parametrize("code", [407, 502, 403])
@pytest.mark.asyncio
async def test_a_proxy_that_refuses_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch, code: int):
    proxy = Recording(lambda r: web.Response(status=code, text="the proxy says no"))
    async with serving(proxy) as origin:
        monkeypatch.setenv("HTTP_PROXY", origin.replace("//", f"//someone:{PASSWORD}@"))
        monkeypatch.setenv("HTTPS_PROXY", origin.replace("//", f"//someone:{PASSWORD}@"))
        for archive in ("http://archive.invalid", "https://archive.invalid"):
            async with asking(archive, attempts=1) as client:
                with pytest.raises(ArchiveError, match=rf"{code}") as caught:
                    await client.get_collection_values()
            assert PASSWORD not in "".join(_all_that_it_says(caught.value))
