"""The headers that the archive's two servers send besides the body's: the tcia engine's, and leave for pages."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jsonschema
import pytest
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import instance_uid, uid

from mirror.archive.endpoints import ENDPOINTS
from mirror.serve.openapi import metadata_schema
from mirror.settings import ServeSettings

ALPHA = uid(1, 1, 1, 1)
ENGINE = {"metadata", "tags", "responseTime"}
ALWAYS = {"Bindaas-version", "Vendor", "Access-Control-Allow-Origin"}

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("form", ["json", "csv", "xml", "html"])
async def test_a_tcia_answer_brings_its_own_description(archive: FakeArchive, method: str, form: str) -> None:
    given = {"Collection": "Lung-Alpha", "format": form}
    url = archive.url("tcia") + "getPatient"
    answer = await (ask(url, "POST", list(given.items())) if method == "POST" else ask(url, **given))
    assert answer.status == 200
    assert answer.headers.keys() >= ENGINE | ALWAYS
    document = json.loads(answer.headers["metadata"])
    jsonschema.validate(document, metadata_schema())
    assert document == (await ask(url + "/metadata")).rows
    assert json.loads(answer.headers["tags"]) == []
    assert int(answer.headers["responseTime"]) >= 0
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("call", [e.tcia for e in ENDPOINTS.values() if e.tcia is not None])
async def test_every_tcia_call_has_them_and_no_head_is_too_long(archive: FakeArchive, call: str) -> None:
    """nginx takes a page of memory of it, 4096 bytes, and answers 502 for more; clients take 8190 bytes of a line."""
    params = {
        "SeriesInstanceUID": ALPHA, "SOPInstanceUID": instance_uid(ALPHA, 1), "Collection": "Lung-Alpha",
        "Modality": "CT", "Date": "2020-01-01", "name": "none",
    }  # fmt: skip
    answer = await ask(archive.url("tcia") + call, **params)
    assert answer.status == 200
    assert answer.headers.keys() >= ENGINE | ALWAYS
    assert sum(len(name) + len(value) + 4 for name, value in answer.headers.items()) < 3800


@pytest.mark.parametrize("call", ["getSeriesSize", "nosuch", "getImage?SeriesInstanceUID=1.2", "getSeries/metadata"])
async def test_a_refusal_and_a_description_have_those_that_are_always_there(archive: FakeArchive, call: str) -> None:
    answer = await ask(archive.url("tcia") + call)
    assert answer.headers.keys() >= ALWAYS
    assert not ENGINE & answer.headers.keys()


async def test_a_page_of_another_origin_may_read_nbia_answers(archive: FakeArchive) -> None:
    origin = {"Origin": "https://viewer.example"}
    url = archive.url() + "getCollectionValues"
    assert (await ask(url, headers=origin)).headers["Access-Control-Allow-Origin"] == "*"
    plain = await ask(url)  # a cache may give this to a page
    assert (ENGINE | ALWAYS) & plain.headers.keys() == {"Access-Control-Allow-Origin"}
    assert not ALWAYS & (await ask(archive.origin + "/metrics", headers=origin)).headers.keys()
    before = await ask(
        url, "OPTIONS",
        headers=origin | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"},
    )  # fmt: skip
    assert (before.status, before.body, before.headers["Access-Control-Allow-Origin"]) == (200, b"", "*")
    assert "GET" in before.headers["Access-Control-Allow-Methods"]
    assert "authorization" in before.headers["Access-Control-Allow-Headers"].lower()


async def test_where_tokens_are_needed_no_page_of_another_origin_reads(archive: FakeArchive, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[tokens.all]\nsha256 = "{hashlib.sha256(b"all").hexdigest()}"\ncollections = ["*"]\n')
    headers = {"Origin": "https://viewer.example", "Authorization": "Bearer all"}
    async with FakeArchive(archive.root, ServeSettings(tokens_file=str(tokens))) as closed:
        for dialect in ("nbia", "tcia"):
            answer = await ask(closed.url(dialect) + "getCollectionValues", headers=headers)
            assert answer.status == 200
            assert "Access-Control-Allow-Origin" not in answer.headers
