"""A bare HTTP request and its answer: the contract is tested without our own client in between."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def rows(self) -> Any:
        return json.loads(self.body)


async def ask(
    url: str,
    method: str = "GET",
    form: Sequence[tuple[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
    unpack: bool = True,
    **params: str,
) -> Answer:
    """One request on a connection of its own; redirects are not followed. `unpack`: a packed body is unpacked."""
    async with (
        aiohttp.ClientSession(auto_decompress=unpack) as session,
        session.request(method, url, params=params, data=form, headers=headers, allow_redirects=False) as answer,
    ):
        return Answer(answer.status, answer.headers.copy(), await answer.read())


async def ask_with(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """A POST of these very bytes, on a connection of its own."""
    async with (
        aiohttp.ClientSession() as session,
        # What says gzip here is none: the client is to send it as it is.
        session.post(url, data=body, headers=headers, compress=False) as answer,
    ):
        return Answer(answer.status, answer.headers.copy(), await answer.read())
