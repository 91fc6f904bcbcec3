"""Headers that are laid out like one that was walked: the same answer as the walk's, whatever they hold."""

from __future__ import annotations

import io

import pytest
from fakes.headers import ct_body
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from mirror.identity import HEAD, familiar
from mirror.identity.familiar import scan
from mirror.identity.walk import header_by_walk
from mirror.model import Header

SYNTAXES = {"explicit": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian}
BODIES = {
    f"{kind}, {how} lengths": ct_body(syntax, undefined=how == "undefined")
    for kind, syntax in SYNTAXES.items()
    for how in ("defined", "undefined")
}
EVERY = pytest.mark.parametrize("name", BODIES)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(familiar, "_KNOWN", {})


def know(body: bytes) -> Header:
    """Have a body walked as often as it takes to know it."""
    for _ in range(2):
        header = scan(body, len(body))
    assert header is not None
    return header


def walks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the files that are walked from now on."""
    walked: list[int] = []

    def note(head, size, file=None):
        walked.append(size)
        return header_by_walk(head, size, file)

    monkeypatch.setattr(familiar, "header_by_walk", note)
    return walked


@EVERY
def test_another_with_the_same_outline_is_not_walked(name: str, monkeypatch: pytest.MonkeyPatch):
    body = BODIES[name]
    header = know(body)
    walked = walks(monkeypatch)
    last = header.sop_instance_uid.encode()
    other = body.replace(last, last[:-1] + (b"7" if last[-1:] != b"7" else b"8"))
    expected = header_by_walk(other, len(other))
    assert expected is not None
    assert expected.sop_instance_uid != header.sop_instance_uid
    assert scan(memoryview(other), len(other)) == expected
    assert scan(other[:HEAD], len(other), io.BytesIO(other)) == expected
    assert scan(body, len(body)) == header
    assert walked == []


@EVERY
def test_with_any_byte_changed_the_answer_is_the_walk_s(name: str, monkeypatch: pytest.MonkeyPatch):
    body = BODIES[name]
    know(body)
    monkeypatch.setattr(familiar, "_learn", lambda *_: None)  # nothing that is damaged takes its place
    behind = body.index(b"\xe0\x7f\x10\x00") + 24
    walked, refused = walks(monkeypatch), 0
    for at in range(132, behind):
        for change in (1, 0x80):
            damaged = bytearray(body)
            damaged[at] ^= change
            found = scan(damaged, len(damaged))
            assert found == header_by_walk(damaged, len(damaged)), (at, change)
            refused += found is None
    assert len(walked) > 500, "changes of the outline are walked"
    assert len(walked) < 0.8 * 2 * (behind - 132), "changes of values are not"
    assert refused > 100


@EVERY
def test_a_part_of_it_is_the_walk_s(name: str):
    body = BODIES[name]
    know(body)
    for end in range(132, len(body), 41):
        assert scan(body[:end], len(body)) is None
        assert scan(body[:end], end) == header_by_walk(body[:end], end)
        file = io.BytesIO(body)
        assert scan(body[:end], len(body), file) == header_by_walk(body[:end], len(body), io.BytesIO(body)), end
    longer = body + b"\0" * 8
    assert scan(longer, len(body)) is None
    assert scan(longer, len(body), io.BytesIO(longer)) is None


@pytest.mark.parametrize(
    "body",
    [ct_body(JPEG2000Lossless, fragments=3, undefined=True), BODIES["explicit, defined lengths"][:-2] + b"\0" * 10],
    ids=["encapsulated", "something behind the pixels"],
)
def test_what_does_not_end_with_pixels_is_never_known(body: bytes):
    for _ in range(5):
        assert scan(body, len(body)) == header_by_walk(body, len(body))
    assert all(not known.outlines for known in familiar._KNOWN.values())


def test_sizes_and_outlines_are_bounded(monkeypatch: pytest.MonkeyPatch):
    for pixels in range(600, 600 + 2 * 3 * familiar._SIZES, 2):
        know(ct_body(ExplicitVRLittleEndian, pixels=pixels))
    assert 0 < len(familiar._KNOWN) <= familiar._SIZES
    assert all(len(known.outlines) <= familiar._OUTLINES for known in familiar._KNOWN.values())


def test_of_files_that_are_all_laid_out_anew_nothing_more_is_learned():
    body = BODIES["explicit, defined lengths"]
    at = body.index(b"\x28\x00\x10\x00US")  # Rows: as another element of the group
    for element in range(0x10, 0x10 + 40):
        other = body[: at + 2] + bytes([element]) + body[at + 3 :]
        assert scan(other, len(other)) == header_by_walk(other, len(other))
    known = familiar._KNOWN[len(body)]
    assert (len(known.outlines), known.missed) == (familiar._OUTLINES, 39)
    first = known.outlines
    other = body[: at + 2] + b"\x77" + body[at + 3 :]
    scan(other, len(other))
    assert known.outlines is first
