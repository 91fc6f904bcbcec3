"""What every request passes: limits, rights, counts, and what no answer tells."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import logging
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import instance_uid, uid
from prometheus_client.parser import text_string_to_metric_families

from mirror.errors import SettingsError
from mirror.ledger import browsing
from mirror.serve import make_app
from mirror.serve.bodies import Bodies
from mirror.serve.rights import Rights
from mirror.settings import ServeSettings

V4 = "/nbia-api/services/v4/"
ALPHA, BETA = uid(1, 1, 1, 1), uid(2, 1, 2, 1)


@asynccontextmanager
async def serving(archive: FakeArchive, middlewares=(), **settings):
    """The mirror of an archive, served with other settings: its origin."""
    runner = web.AppRunner(make_app(archive.root, ServeSettings(**settings), middlewares), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokens.toml"
    file.write_text(
        f"""
        [anonymous]
        collections = ["nothing-*"]
        [tokens.all]
        sha256 = "{sha256("everything")}"
        collections = ["*"]
        [tokens.lung]
        sha256 = "{sha256("lung")}"
        collections = ["Lung-*"]
        """
    )
    return str(file)


# Limits


@pytest.mark.asyncio
async def test_more_requests_than_there_may_be_are_told_to_come_again(archive):
    go, waiting = asyncio.Event(), asyncio.Event()

    @web.middleware
    async def slow(request, handler):
        if request.path.startswith(V4):
            waiting.set()
            await go.wait()
        return await handler(request)

    async with serving(archive, [slow], requests=1) as origin:
        first = asyncio.create_task(ask(origin + V4 + "getCollectionValues"))
        await waiting.wait()
        for base in (V4, "/services/v4/TCIA/query/"):
            second = await ask(origin + base + "getCollectionValues")
            assert (second.status, second.headers["Retry-After"]) == (503, "2")
        # Whoever watches the server must see that it lives.
        assert (await ask(origin + "/healthz")).status == 200
        assert "tcia_mirror_serve_refused_busy_total 2.0" in (await ask(origin + "/metrics")).text
        go.set()
        assert (await first).status == 200
        assert (await ask(origin + V4 + "getCollectionValues")).status == 200


@pytest.mark.asyncio
async def test_a_zip_waits_for_room_and_then_comes_again(archive, monkeypatch):
    monkeypatch.setattr("mirror.serve.answers._PATIENCE", 0.2)
    begun, go = asyncio.Event(), asyncio.Event()

    stream = Bodies.stream

    async def held(self, request, *args, **options):
        begun.set()
        await go.wait()
        return await stream(self, request, *args, **options)

    monkeypatch.setattr(Bodies, "stream", held)
    async with serving(archive, zips=1) as origin:
        first = asyncio.create_task(ask(origin + V4 + "getImage", SeriesInstanceUID=ALPHA))
        await begun.wait()
        second = await ask(origin + V4 + "getImage", SeriesInstanceUID=ALPHA)
        assert second.status == 503
        assert "Retry-After" in second.headers
        assert (await ask(origin + V4 + "getCollectionValues")).status == 200
        go.set()
        assert (await first).status == 200
        assert (await ask(origin + V4 + "getImage", SeriesInstanceUID=ALPHA)).status == 200


@pytest.mark.asyncio
async def test_a_form_that_is_too_large(archive):
    body = io.BytesIO(b"list=" + b"1" * 17 * 1024 * 1024)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with (
        serving(archive) as origin,
        aiohttp.ClientSession() as session,
        session.post(origin + V4 + "getSeriesMetadata", data=body, headers=headers) as answer,
    ):
        assert answer.status == 413


# Counts, and what is not told


@pytest.mark.asyncio
async def test_requests_are_counted_by_call_and_status(archive):
    async with serving(archive) as origin:
        body = (await ask(origin + V4 + "getSeries", headers={"Accept-Encoding": "identity"})).body
        await ask(origin + V4 + "getSeries", bogus="1")
        await ask(origin + V4 + "getBogus")
        await ask(origin + "/nbia-api/services/v1/getSeriesMetaData", SeriesInstanceUID=ALPHA)
        text = (await ask(origin + "/metrics")).text
    told = {
        (s.name, *sorted(s.labels.values())): s.value for f in text_string_to_metric_families(text) for s in f.samples
    }
    assert told["tcia_mirror_serve_requests_total", "200", "getSeries"] == 1
    assert told["tcia_mirror_serve_requests_total", "400", "getSeries"] == 1
    assert told["tcia_mirror_serve_requests_total", "500", "other"] == 1
    assert told["tcia_mirror_serve_requests_total", "200", "getSeriesMetaData"] == 1
    refusal = "Invalid query parameter"
    assert len(body) < told["tcia_mirror_serve_body_bytes_total", "getSeries"] < len(body) + 20 * len(refusal)
    assert told["tcia_mirror_serve_request_seconds_count", "getSeries"] == 2
    assert told[("tcia_mirror_serve_in_flight",)] == 0


@pytest.mark.asyncio
async def test_of_every_kind_of_answer_the_bytes_of_the_body_are_logged(archive, caplog):
    caplog.set_level(logging.INFO, "access")
    plain = {"Accept-Encoding": "identity"}
    image = {"SeriesInstanceUID": ALPHA, "SOPInstanceUID": instance_uid(ALPHA, 1)}
    bodies = []
    async with serving(archive, access_log=True) as origin:
        for call, headers, params in (
            ("getSeries", plain, {}),
            ("getSeries", {"Accept-Encoding": "gzip"}, {}),
            ("getSingleImage", plain, image),
            ("getSingleImage", {"Range": "bytes=10-19"}, image),
            ("getImage", plain, {"SeriesInstanceUID": ALPHA}),
            ("getSeries", plain, {"bogus": "1"}),
        ):
            bodies.append((await ask(origin + V4 + call, headers=headers, unpack=False, **params)).body)
        await ask(origin + V4 + "getSingleImage", "HEAD", **image)
        bodies.append(b"")
    lines = [record.getMessage().split() for record in caplog.records if record.name == "access"]
    assert [int(size) for *_, size, _ in lines] == [len(body) for body in bodies]


@pytest.mark.asyncio
async def test_the_access_log_has_a_line_for_each_request_and_no_token(archive, caplog):
    caplog.set_level(logging.INFO, "access")
    async with serving(archive, access_log=True) as origin:
        await ask(origin + V4 + "getSeries", headers={"Authorization": "Bearer secret"}, Collection="Lung-Alpha")
        await ask(origin + "/healthz")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "access"]
    assert line.startswith("127.0.0.1 GET /nbia-api/services/v4/getSeries?Collection=Lung-Alpha 200 ")
    assert "secret" not in line


@pytest.mark.asyncio
async def test_no_answer_names_the_software(archive):
    for url in (archive.origin + "/", archive.url() + "getSeries", archive.origin + "/healthz", archive.url() + "x"):
        assert (await ask(url)).headers["Server"] == "tcia-mirror"


@pytest.mark.asyncio
async def test_it_is_not_ready_any_more_once_it_stops(archive):
    app = make_app(archive.root)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    assert (await ask(origin + "/readyz")).text == "ok\n"
    await app.shutdown()
    assert (await ask(origin + "/readyz")).status == 503
    assert (await ask(origin + "/healthz")).status == 200
    await runner.cleanup()


@pytest.mark.asyncio
async def test_behind_a_proxy_that_passes_its_part_of_the_path_on(archive):
    async with serving(archive, base_url="https://example.org/tcia/") as origin:
        for below in ("", "/tcia"):
            assert len((await ask(origin + below + V4 + "getCollectionValues")).rows) == 2
            assert (await ask(origin + below + "/services/v4/TCIA/query/getSeries/metadata")).status == 200
            assert (await ask(origin + below + "/readyz")).status == 200
        assert (await ask(origin + "/other" + V4 + "getCollectionValues")).status == 404


# Rights


@pytest.mark.asyncio
async def test_without_a_token_that_opens_something_nothing_is_said(archive, tmp_path):
    file = tmp_path / "t.toml"
    file.write_text(f'[tokens.x]\nsha256 = "{sha256("x")}"\ncollections = ["*"]\n')
    async with serving(archive, tokens_file=str(file)) as origin:
        for headers in ({}, {"Authorization": "Bearer y"}, {"Authorization": "Basic ???"}, {"Authorization": "x"}):
            answer = await ask(origin + V4 + "getCollectionValues", headers=headers)
            assert answer.status == 401
            assert "Bearer" in answer.headers["WWW-Authenticate"]
            assert b"Lung" not in answer.body
        assert (await ask(origin + V4 + "getCollectionValues", headers={"Authorization": "Bearer x"})).status == 200
        assert (await ask(origin + "/healthz")).status == 200


@pytest.mark.asyncio
async def test_a_token_opens_its_collections_and_no_call_shows_others(archive, tokens):
    of_beta = {"SeriesInstanceUID": BETA}
    image = {**of_beta, "SOPInstanceUID": instance_uid(BETA, 1)}
    asked = [
        ("getCollectionValues", {}), ("getPatient", {}), ("getPatientStudy", {}), ("getSeries", {}),
        ("getSeriesSize", of_beta), ("getSOPInstanceUIDs", of_beta), ("getUpdatedSeries", {}),
        ("getCollectionValuesAndCounts", {}), ("getImage", of_beta),
        ("getSingleImage", image), ("getMD5HashForImage", {"SOPInstanceUID": image["SOPInstanceUID"]}),
    ]  # fmt: skip
    everything = {"Authorization": "Basic " + base64.b64encode(b"anyone:everything").decode()}
    lung = {"Authorization": "Bearer lung"}
    async with serving(archive, tokens_file=tokens) as origin:
        for call, params in asked:
            all_of_it = await ask(origin + V4 + call, headers=everything, **params)
            assert all_of_it.status == 200
            assert all_of_it.body
            some = await ask(origin + V4 + call, headers=lung, **params)
            assert some.body != all_of_it.body, call
            nobody = await ask(origin + V4 + call, **params)
            assert nobody.status >= 400 or not nobody.body, call
        names = await ask(origin + V4 + "getCollectionValues", headers=lung)
        assert names.rows == [{"Collection": "Lung-Alpha"}]
        metadata = await ask(origin + V4 + "getSeriesMetadata", "POST", form=[("list", BETA)], headers=lung)
        assert metadata.body == b""
        # The pool's connections are used by turns: none keeps another's rights.
        assert (await ask(origin + V4 + "getCollectionValues", headers=everything)).rows[1:]


@pytest.mark.asyncio
async def test_a_browser_is_asked_for_a_token_where_it_could_do_without(archive, tokens):
    async with serving(archive, tokens_file=tokens) as origin:
        asked = await ask(origin + "/?sign-in")
        assert (asked.status, "Basic" in asked.headers["WWW-Authenticate"]) == (401, True)
        assert b'"sign_in":true' in (await ask(origin + "/_page/rights")).body
        known = await ask(origin + "/?sign-in", headers={"Authorization": "Bearer lung"})
        assert (known.status, known.headers["Location"]) == (302, "./")


@pytest.mark.asyncio
async def test_a_search_of_what_is_closed_tells_nothing_of_its_size(archive, tokens, monkeypatch):
    monkeypatch.setattr(browsing, "_STEP", 1)
    async with serving(archive, tokens_file=tokens) as origin:
        for token, ends in (("everything", False), ("lung", True)):
            headers = {"Authorization": f"Bearer {token}"}
            told = await ask(origin + "/_page/search", headers=headers, collection="Brain Beta", words="nothing")
            assert (b'"after":null' in told.body) == ends


@pytest.mark.asyncio
async def test_the_page_shows_who_asks_what_they_may_see(archive, tokens):
    instance = {"uid": BETA, "instance": instance_uid(BETA, 1)}
    hidden = [
        ("patients", {"collection": "Brain Beta"}), ("series", {"collection": "Brain Beta", "patient": "S2-001"}),
        ("search", {"collection": "Brain Beta", "words": "axial"}), ("unfinished", {"collection": "Brain Beta"}),
        ("find", {"text": "Brain"}), ("find", {"text": "S2"}), ("find", {"text": BETA}), ("find", {"text": BETA[:-2]}),
        ("find", {"text": instance["instance"]}), ("one", instance), ("instances", instance), ("tags", instance),
        ("preview", instance), ("manifest", instance),
    ]  # fmt: skip
    nothing = (b"[]", b'{"rows":[],"after":null}')
    async with serving(archive, tokens_file=tokens, base_url="https://example.org/x") as origin:

        async def page(token: str, name: str, **params: str):
            return await ask(f"{origin}/_page/{name}", headers={"Authorization": f"Bearer {token}"}, **params)

        assert [row["collection"] for row in (await page("lung", "collections")).rows] == ["Lung-Alpha"]
        for name, params in hidden:
            all_of_it, some = await page("everything", name, **params), await page("lung", name, **params)
            assert (all_of_it.status, some.status) in ((200, 200), (200, 404)), name
            assert name == "unfinished" or all_of_it.body not in nothing, (name, params)
            assert some.status == 404 or some.body in nothing, (name, params)
        for name in ("runs", "run", "events"):
            assert (await page("lung", name)).status == 401
        assert (await page("lung", "rights")).body == b'{"everything":false,"sign_in":false}'
        assert (await page("everything", "rights")).body == b'{"everything":true,"sign_in":false}'
        for path in ("/", "/x/", "/x/_page/static/page.js"):
            assert (await ask(origin + path, headers={"Authorization": "Bearer lung"})).status == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "unknown 'x'"),
        ("[tokens", "is not valid TOML"),
        ("tokens = 1", "should be sections"),
        ('[tokens.a]\ncollections = ["*"]', "sha256: should be 64 hex digits"),
        ('[tokens.a]\nsha256 = "00"\ncollections = ["*"]', "sha256: should be 64 hex digits"),
        (f'[tokens.a]\nsha256 = "{"0" * 64}"\ncollections = []', "should be a list of names"),
        (f'[tokens.a]\nsha256 = "{"0" * 64}"\ncollections = "*"', "should be a list of names"),
        (f'[tokens.a]\nsha256 = "{"0" * 64}"\ncollections = ["*"]\nrole = "x"', "and no more"),
        ("anonymous = 1", "and no more"),
        (
            f'[tokens.a]\nsha256 = "{"0" * 64}"\ncollections = ["*"]\n[tokens.b]\nsha256 = "{"0" * 64}"\n'
            'collections = ["*"]',
            "another section has the same",
        ),
    ],
)
def test_a_file_of_tokens_that_is_not_right(tmp_path, text, said):
    file = tmp_path / "tokens.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"serve\.tokens_file") as caught:
        Rights.read(str(file))
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_of_tokens_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        Rights.read(str(tmp_path / "none.toml"))
