"""aioresponses with the aiohttp of today: statuses and small bodies, for status-to-error tests only.

aioresponses 0.7.9 builds an aiohttp response without an argument that aiohttp 3.14 demands. Its `response_class` is
the way to hand it in; everything with a body worth the name is tested on a real socket instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock

from aiohttp import ClientResponse
from aioresponses import aioresponses

_DEMANDED = "stream_writer"
_DEMANDS = _DEMANDED in inspect.signature(ClientResponse.__init__).parameters


class Answer(ClientResponse):
    """A response that was sent already."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if _DEMANDS:
            kwargs.setdefault(_DEMANDED, Mock(output_size=0))
        super().__init__(*args, **kwargs)


class Canned(aioresponses):
    """aioresponses whose answers are `Answer`s; `asked` counts the requests."""

    def add(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("response_class", Answer)
        super().add(*args, **kwargs)

    @property
    def asked(self) -> int:
        return sum(len(calls) for calls in self.requests.values())


@contextmanager
def canned() -> Iterator[Canned]:
    """No request leaves the process between `with`; those that nothing was added for fail to connect."""
    with Canned() as answers:
        yield answers
