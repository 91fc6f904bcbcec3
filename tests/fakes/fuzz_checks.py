"""Checks for schemathesis, which loads this module by SCHEMATHESIS_HOOKS: its own, with two habits of ours in mind.

A status 500 must be one of those that the archive's servers give too: never an error that nobody saw coming, never one
of the mirror, which is sound.
"""

from __future__ import annotations

import re
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response
from schemathesis.specs.openapi import checks

#: What a status 500 may say: that a format, a method, a call or a file is none that there is.
FORESEEN = re.compile(
    rb"Server was not able to process your request(\n(null|HTTP 40[45] [\w ]+))?"
    rb'|\{"errorMessage":"(java\.lang\.IndexOutOfBoundsException: Index: 0, Size: 0|QueryEndpoint \[.*\] not found)"\}',
    re.DOTALL,
)


@schemathesis.check
def content_type_as_told(ctx: Any, response: Response, case: Any) -> bool | None:
    """schemathesis' own, but for the empty answers that the document tells of."""
    told = case.operation.definition.raw["responses"].get(str(response.status_code), {})
    if told.get("x-empty-when-no-rows") and not response.content and "content-type" not in response.headers:
        return None
    return checks.content_type_conformance(ctx, response, case)


@schemathesis.check
def body_as_told(ctx: Any, response: Response, case: Any) -> bool | None:
    """schemathesis' own, but for plain text under the name of JSON: that is held against the texts there are."""
    told = case.operation.definition.raw["responses"].get(str(response.status_code), {})
    texts = told.get("content", {}).get("application/json", {}).get("x-plain-text")
    if texts and response.headers.get("content-type", [""])[0].startswith("application/json"):
        shapes = (re.escape(text).replace(re.escape("{uid}"), ".*") for text in texts)
        if not any(re.fullmatch(shape, response.content.decode(), re.DOTALL) for shape in shapes):
            raise Failure(operation=case.operation.label, title="Another text", message=response.content[:300].decode())
        return None
    if told.get("x-empty-when-no-rows") and not response.content:
        return None
    return checks.response_schema_conformance(ctx, response, case)


@schemathesis.check
def fault_as_foreseen(ctx: Any, response: Response, case: Any) -> bool | None:
    """A fault is one of those that the archive's servers give."""
    if response.status_code >= 500 and not FORESEEN.fullmatch(response.content):
        raise Failure(operation=case.operation.label, title="A fault of ours", message=response.content[:300].decode())
    return None
