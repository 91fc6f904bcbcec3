"""Bodies as rows: small ones in memory, large ones from a file, the same rows and the same errors from both."""

from __future__ import annotations

import gc
import json
import random
import tracemalloc
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mirror.archive import answers
from mirror.archive.answers import Rows, read_digest, read_limited, spool_rows
from mirror.archive.endpoints import DialectName
from mirror.errors import BadAnswer, BodyCut

ASKED = "getSeries(Collection=A) at http://x/"


async def chunks(body: bytes, size: int = 7, error: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
    if error is not None:
        raise error


async def read(body: bytes, dialect: DialectName = "nbia") -> list[dict[str, Any]]:
    """The rows of a body, by the way a client takes."""
    return await Rows(await spool_rows(chunks(body), dialect, ASKED), lambda row: row, ASKED).all()


@pytest.fixture(params=["in memory", "from a file"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of a body: the limit of what stays in memory is lowered for the second."""
    if request.param == "from a file":
        monkeypatch.setattr(answers, "_IN_MEMORY", 0)
    return str(request.param)


ROWS = [
    {"SeriesInstanceUID": "1.2.3", "ImageCount": 57, "FileSize": 165975906, "SeriesNumber": 5.5},
    {"SeriesDescription": 'Ångström "quoted" \\ \u2028 \U0001f600', "Nested": {"a": [1, None, True]}},
    {},
]


@pytest.mark.asyncio
async def test_rows_come_as_they_were_sent(size: str):
    for body in (json.dumps(ROWS), json.dumps(ROWS, ensure_ascii=False), json.dumps(ROWS, indent=2) + "\r\n"):
        got = await read(body.encode())
        assert got == ROWS
        assert [type(v) for v in got[0].values()] == [str, int, int, float]


@pytest.mark.asyncio
async def test_an_escaped_slash_is_a_slash(size: str):
    assert await read(b'[{"LicenseURI":"http:\\/\\/x\\/y"}]') == [{"LicenseURI": "http://x/y"}]


@pytest.mark.asyncio
async def test_an_empty_array_is_no_rows_in_both_dialects(size: str):
    assert await read(b"[]", "nbia") == []
    assert await read(b" [ ] \n", "tcia") == []


@pytest.mark.parametrize("body", [b"", b"\r\n", b"   "])
@pytest.mark.asyncio
async def test_an_empty_body_is_no_rows_in_the_nbia_dialect_only(body: bytes):
    assert await read(body, "nbia") == []
    with pytest.raises(BadAnswer, match="the body is empty where JSON is due") as caught:
        await read(body, "tcia")
    assert caught.value.asked == ASKED


BAD = {
    "html": b"<html><body>Maintenance</body></html>",
    "text": b"Server was not able to process your request",
    "cut": b'[{"SeriesInstanceUID":"1.2.3"},{"Series',
    "cut behind a row": b'[{"SeriesInstanceUID":"1.2.3"}',
    "cut behind a comma": b'[{"SeriesInstanceUID":"1.2.3"},',
    "two arrays": b'[{"a":1}][{"a":2}]',
    "text behind": b'[{"a":1}] and so on',
    "numbers": b"[1,2,3]",
    "strings": b'["a"]',
    "nulls": b"[null]",
    "arrays": b'[["a"]]',
    "one string": b'"abc"',
    "one number": b"17",
    "not UTF-8": b'[{"a":"\xff\xfe"}]',
    "no quotes": b"[{a:1}]",
    "nested without end": b'[{"a":' + b"[" * 5_000 + b"}]",
    "control character": b'[{"a":"\x01"}]',
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
@pytest.mark.asyncio
async def test_what_is_no_array_of_objects_is_a_bad_answer(size: str, body: bytes):
    with pytest.raises(BadAnswer) as caught:
        await read(body)
    assert caught.value.asked == ASKED
    assert str(caught.value).startswith(ASKED)


@pytest.mark.parametrize("name", ["html", "text", "cut", "cut behind a row", "cut behind a comma", "text behind"])
@pytest.mark.asyncio
async def test_a_body_that_is_not_whole_is_refused_before_anyone_sees_a_row_of_it(size: str, name: str):
    with pytest.raises(BadAnswer):
        await spool_rows(chunks(BAD[name]), "nbia", ASKED)


@pytest.mark.asyncio
async def test_a_page_in_place_of_rows_is_quoted_but_not_whole(size: str):
    with pytest.raises(BadAnswer, match=r"begins with b'<html>") as caught:
        await read(b"\n<html>" + b"x" * 10_000)
    assert len(str(caught.value)) < 200


@pytest.mark.asyncio
async def test_one_object_is_one_row():
    assert await read(b'{"SeriesInstanceUID":"1.2.3"}') == [{"SeriesInstanceUID": "1.2.3"}]


@pytest.mark.asyncio
async def test_rows_come_in_batches_and_only_once():
    rows = Rows(iter([{"n": n} for n in range(5)]), lambda row: row["n"], ASKED)
    assert [batch async for batch in rows.batches(2)] == [[0, 1], [2, 3], [4]]
    assert await rows.all() == []


@pytest.mark.asyncio
async def test_a_row_that_cannot_be_read_names_the_request():
    def read_row(row: dict[str, Any]) -> int:
        raise BadAnswer("a row of Series is not usable")

    rows = Rows(iter([{}]), read_row, ASKED)
    with pytest.raises(BadAnswer, match="a row of Series is not usable") as caught:
        await rows.all()
    assert caught.value.asked == ASKED


@pytest.mark.asyncio
async def test_a_large_body_that_breaks_off_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "_IN_MEMORY", 10)
    opened = []
    make = answers.tempfile.TemporaryFile

    def remember(*args: Any, **kwargs: Any) -> Any:
        opened.append(make(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(answers.tempfile, "TemporaryFile", remember)
    for body, error in ((b'[{"a":1},' * 10, BodyCut("cut")), (b"<html>" * 10, None), (b'[{"a":1},' * 10, None)):
        with pytest.raises((BodyCut, BadAnswer)):
            await spool_rows(chunks(body, 20, error), "nbia", ASKED)
    rows = await spool_rows(chunks(b'[{"a":1}, {"a":2}]'), "nbia", ASKED)
    assert list(rows) == [{"a": 1}, {"a": 2}]
    assert len(opened) == 3
    assert all(file.closed for file in opened)


@pytest.mark.asyncio
async def test_rows_that_nobody_reads_are_let_go_of(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "_IN_MEMORY", 10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await spool_rows(chunks(b'[{"a":1}, {"a":2}]'), "nbia", ASKED)
        rows = await spool_rows(chunks(b'[{"a":1}, {"a":2}]'), "nbia", ASKED)
        next(rows)
        del rows
        gc.collect()
    assert caught == []


#: Texts that look like the place between two rows, or like the end of a string.
_TRICKY = ["},{", '"},{"', "}, {", "\\", '\\"', "[{}]", "}" * 30, "\u00c5\U0001f600", "", "x" * 300]


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("indent", [None, 1], ids=["compact", "indented"])
@pytest.mark.asyncio
async def test_a_large_body_is_cut_between_rows_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, block: int, indent: int | None
):
    monkeypatch.setattr(answers, "_IN_MEMORY", 0)
    monkeypatch.setattr(answers, "_BLOCK", block)
    dice = random.Random(block)
    rows = [
        {
            f"{dice.choice(_TRICKY)}{n}": dice.choice([*_TRICKY, n, None, [], {"a": {"},": "{"}}, [{"b": 1}, {}]])
            for n in range(dice.randrange(4))
        }
        for _ in range(200)
    ]
    for length in (0, 1, 2, 200):
        assert await read(json.dumps(rows[:length], indent=indent).encode()) == rows[:length]


@pytest.mark.parametrize("block", [1, 8, 64])
@pytest.mark.parametrize(
    "end", [b",]", b" , ]", b",,{}]", b"{}]", b",null]", b',{"a":"\xff"}]', b"}]", b"]]", b',{"a"}]'], ids=repr
)
@pytest.mark.asyncio
async def test_what_is_wrong_behind_many_rows_is_a_bad_answer(monkeypatch: pytest.MonkeyPatch, block: int, end: bytes):
    monkeypatch.setattr(answers, "_IN_MEMORY", 0)
    monkeypatch.setattr(answers, "_BLOCK", block)
    with pytest.raises(BadAnswer):
        await read(b"[" + b",".join([b'{"a": 1}'] * 40) + end)


@pytest.mark.asyncio
async def test_an_answer_without_rows_is_given_up_before_all_of_it_is_in_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "_IN_MEMORY", 0)
    monkeypatch.setattr(answers, "_BLOCK", 100)
    monkeypatch.setattr(answers, "_LONGEST", 1000)
    read_so_far = []
    whole = answers._whole_rows
    monkeypatch.setattr(answers, "_whole_rows", lambda text: read_so_far.append(len(text)) or whole(text))
    with pytest.raises(BadAnswer):
        await read(b"[" + b"1," * 50_000 + b"1]")
    assert max(read_so_far) < 3000


@pytest.mark.asyncio
async def test_memory_does_not_grow_with_the_number_of_rows():
    row = json.dumps({f"Field{n}": "x" * 20 for n in range(30)}).encode()

    async def body(count: int) -> AsyncIterator[bytes]:
        yield b"[" + row
        for _ in range(count // 100):
            yield (b"," + row) * 100
        yield b"]"

    async def most(count: int) -> int:
        """The most memory that Python objects took while so many rows were read."""
        tracemalloc.start()
        try:
            rows = Rows(await spool_rows(body(count), "nbia", ASKED), lambda row: row, ASKED)
            assert sum([len(batch) async for batch in rows.batches()]) == count + 1
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert await most(60_000) < await most(6_000) + 1024 * 1024


@pytest.mark.asyncio
async def test_digests():
    digest = "0123456789abcdef0123456789abcdef"
    assert await read_digest(chunks(digest.encode()), ASKED) == digest
    assert await read_digest(chunks(digest.upper().encode() + b"\n"), ASKED) == digest
    assert await read_digest(chunks(b""), ASKED) is None
    assert await read_digest(chunks(b" \n"), ASKED) is None


@pytest.mark.parametrize("body", [b"<html>", b"null", b"0123", b"g" * 32, b"0" * 33, b"\xff" * 32, b"0" * 10_000])
@pytest.mark.asyncio
async def test_what_is_no_digest_is_a_bad_answer(body: bytes):
    with pytest.raises(BadAnswer, match="the answer is not an MD5 digest"):
        await read_digest(chunks(body), ASKED)


@pytest.mark.asyncio
async def test_no_more_of_a_body_is_read_than_asked_for():
    seen = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal seen
        while True:
            seen += 1
            yield b"x" * 1000

    assert await read_limited(endless(), 4096) == b"x" * 4096
    assert seen == 5
    assert await read_limited(chunks(b"short"), 4096) == b"short"
