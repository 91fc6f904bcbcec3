"""What the server publishes about itself: an OpenAPI 3.1 document, and the schema of the metadata documents.

    /openapi.json            every call that has a route: parameters, forms, answers by format, refusals
    /schemas/metadata.json   the JSON schema of <Call>/metadata (metadata.schema.json beside this file)

Hides OpenAPI. All of it is made from the endpoint table and the fields, for the routes that the app has: a new row of
the table needs no line here. Two habits of the nbia server have no word in OpenAPI, and stand in extensions:
`x-empty-when-no-rows` (status 200, no body and no Content-Type where there are no rows) and `x-plain-text` (plain text
in spite of its Content-Type).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import anyio.to_thread
import msgspec
from aiohttp import web

from mirror.archive.endpoints import Answer, DialectName, Endpoint, Format, Param
from mirror.archive.fields import FIELDS, Kind
from mirror.serve.formats import CONTENT_TYPES
from mirror.serve.parameters import SERVER_FAULT, UNREADABLE_FORM, takes_format

Schema = dict[str, Any]
#: A call as it is routed: the dialect, its row of the table, and its whole path.
Call = tuple[DialectName, Endpoint, str]

OPENAPI_PATH, METADATA_SCHEMA_PATH = "/openapi.json", "/schemas/metadata.json"
_TEXT: Schema = {"type": "string"}
_FORM = "application/x-www-form-urlencoded"
#: Calls that send nulls, where all others leave them out.
_WITH_NULLS = frozenset({"getCollectionDescriptions"})
_WITHOUT_CONTENT = frozenset({"getSeriesQCInfo", "getSeriesMetaData", "getDeniedSeries"})
_LISTS = frozenset({"list", "seriesId", "seriesList"})
_TOO_LARGE: Schema = {"413": {"description": "The form is too large.", "content": {"text/plain": {"schema": _TEXT}}}}
_DECIMALS = r"^-?\d+\.\d{6}$"
_UID = r"^[0-9]+(\.[0-9]+)*$"


class Published:
    """The two documents, as answers; each is made once, when it is first asked for."""

    def __init__(self, calls: Iterable[Call], others: Mapping[str, Schema] | None = None) -> None:
        self._calls = tuple(calls)
        self._others = dict(others or {})
        self._body = b""

    def add_routes(self, router: web.UrlDispatcher, below: str = "") -> None:
        """Add the paths of both, below that path."""
        router.add_get(below + OPENAPI_PATH, self._openapi)
        router.add_get(below + METADATA_SCHEMA_PATH, self._metadata_schema)

    async def _openapi(self, request: web.Request) -> web.Response:
        if not self._body:
            told = await anyio.to_thread.run_sync(document, self._calls, self._others)
            self._body = msgspec.json.encode(told)
        return web.Response(body=self._body, content_type="application/json")

    async def _metadata_schema(self, request: web.Request) -> web.Response:
        told = await anyio.to_thread.run_sync(metadata_schema)
        return web.Response(body=msgspec.json.encode(told), content_type="application/schema+json")


@cache
def metadata_schema() -> Schema:
    """The JSON schema of a metadata document (formats.describe)."""
    text = files(__package__).joinpath("metadata.schema.json").read_bytes()
    schema: Schema = msgspec.json.decode(text)
    return schema


def document(calls: Iterable[Call], others: Mapping[str, Schema] | None = None) -> Schema:
    """The OpenAPI document of a server with these calls. Pure, and the same for the same calls.

    `others`: path -> path item of what it answers besides, which the rooms that answer it know.
    """
    rows: dict[str, Schema] = {}
    paths: dict[str, Schema] = {}
    for dialect, endpoint, path in calls:
        methods = ("get", "post") if dialect == "tcia" else (endpoint.method.lower(),)
        for method in methods:
            paths.setdefault(path, {})[method] = _operation(dialect, endpoint, path, method, rows)
        if dialect == "tcia":
            paths[path + "/metadata"] = {"get": _metadata(endpoint, path)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tcia-mirror",
            "version": version("tcia-mirror"),
            "description": "A mirror of TCIA/NBIA collections, over the archive's v4 API in both of its dialects.",
        },
        # Where the document itself is, whatever proxy stands before it.
        "servers": [{"url": "."}],
        "paths": paths | _own_paths() | dict(others or {}),
        "components": {"schemas": {"Metadata": _embedded(metadata_schema()), **rows}},
    }


def _own_paths() -> dict[str, Schema]:
    def answer(what: str, content_type: str, schema: Schema) -> Schema:
        return {"description": what, "content": {content_type: {"schema": schema}}}

    def get(name: str, what: str, responses: Schema) -> Schema:
        return {"get": {"operationId": name, "summary": what, "tags": ["server"], "responses": responses}}

    unreadable = answer("It cannot be read.", "text/plain", _TEXT)
    thing = {"type": "object"}
    stopping = answer("It cannot be read, or the server stops.", "text/plain", _TEXT)
    return {
        "/readyz": get(
            "readyz",
            "Whether requests should be sent here.",
            {"200": answer("They should.", "text/plain", _TEXT), "503": stopping},
        ),
        "/metrics": get(
            "metrics", "What was answered, for Prometheus.", {"200": answer("Counters.", "text/plain", _TEXT)}
        ),
        "/healthz": get(
            "healthz",
            "Whether the mirror can be read.",
            {"200": answer("It can.", "text/plain", _TEXT), "503": unreadable},
        ),
        OPENAPI_PATH: get(
            "openapi", "This document.", {"200": answer("This document.", "application/json", thing)} | _gate("tcia")
        ),
        METADATA_SCHEMA_PATH: get(
            "metadataSchema",
            "The JSON schema of the metadata documents.",
            {"200": answer("The schema.", "application/schema+json", thing)} | _gate("tcia"),
        ),
    }


def _metadata(endpoint: Endpoint, path: str) -> Schema:
    schema = {"$ref": "#/components/schemas/Metadata"}
    return {
        "operationId": f"{_identifier(path)}_metadata",
        "summary": f"What {endpoint.name} takes and gives.",
        "tags": ["tcia"],
        "responses": {
            "200": {"description": "The document.", "content": {"application/json": {"schema": schema}}},
            **_gate("tcia"),
        },
    }


def _embedded(schema: Schema) -> Schema:
    """A schema as a part of the document, which has a name and a dialect of its own."""
    return {name: value for name, value in schema.items() if name not in ("$schema", "$id")}


def _operation(dialect: DialectName, endpoint: Endpoint, path: str, method: str, rows: dict[str, Schema]) -> Schema:
    told: Schema = {
        "operationId": f"{_identifier(path)}_{method}",
        "summary": endpoint.text,
        "tags": [dialect],
        "responses": _responses(dialect, endpoint, path, method, rows),
        "x-unknown-parameters": "refused" if _refuses_unknown(dialect, endpoint) else "ignored",
    }
    params = [
        # Of a family the first stands for all: criteriaType0.
        (p.wire(dialect) + "0" * p.numbered, p.required, _param_schema(dialect, endpoint, p))
        for p in endpoint.wire_params(dialect)
    ]
    if takes_format(dialect, endpoint):
        params.append(("format", False, {"type": "string", "enum": _formats(dialect, endpoint)}))
    if method == "get":
        told["parameters"] = [
            {"name": name, "in": "query", "required": required, "schema": schema} for name, required, schema in params
        ]
    elif params:
        form: Schema = {"type": "object", "properties": {name: schema for name, _, schema in params}}
        if required := [name for name, needed, _ in params if needed]:
            form["required"] = required
        told["requestBody"] = {"required": bool(required), "content": {_FORM: {"schema": form}}}
    return told


def _identifier(path: str) -> str:
    return "_".join(part.replace("-", "_") for part in path.split("/") if part)


def _refuses_unknown(dialect: DialectName, endpoint: Endpoint) -> bool:
    return dialect != "tcia" and endpoint.method == "GET" and not endpoint.lax


def _param_schema(dialect: DialectName, endpoint: Endpoint, param: Param) -> Schema:
    about = {"description": param.about} if param.about else {}
    match param.kind:
        case Kind.UID:
            return {"type": "string", "pattern": _UID, **about}
        case Kind.DATE if dialect == "tcia":
            return {"type": "string", "format": "date", "description": "A day, YYYY-MM-DD"}
        case Kind.DATE:
            pattern = re.sub("[DMY]{2,}", lambda letters: rf"\d{{{len(letters[0])}}}", endpoint.since.value)
            return {"type": "string", "pattern": f"^{pattern}$", "description": f"A day, {endpoint.since.value}"}
        case Kind.INTEGER:
            return {"type": "integer", "minimum": 0, **about}
        case _ if param.name in _LISTS:
            return {"type": "string", "description": "SeriesInstanceUIDs, separated by commas"}
        case _:
            return {"type": "string", **about}


def _formats(dialect: DialectName, endpoint: Endpoint) -> list[str]:
    """What `format` may be, in lower case; case makes no difference."""
    names = [form.value for form in endpoint.formats]
    if dialect == "tcia":
        return names
    single = len(endpoint.fields(dialect)) == 1
    return [*names, "csv-download"] if single else [*names, "csvquoted", "csv-download"]


# Answers


def _responses(dialect: DialectName, endpoint: Endpoint, path: str, method: str, rows: dict[str, Schema]) -> Schema:
    good: Schema = {"description": "What was asked for.", "content": _content(dialect, endpoint, path, rows)}
    common = {"200": good} | _gate(dialect)
    if endpoint.answer in (Answer.ROWS, Answer.DICOM):
        common["304"] = {"description": "The client has it, by its ETag."}
    if endpoint.answer is Answer.DICOM:
        common["206"] = {"description": "The range that was asked for.", "content": good["content"]}
        common["416"] = {"description": "The range is not in it."}
    if dialect == "tcia":
        return common | _tcia_refusals(endpoint, method)
    if endpoint.answer is Answer.ROWS and not endpoint.empty_list:
        good["description"] += " Without rows there is no body and no Content-Type."
        good["x-empty-when-no-rows"] = True
    return common | _nbia_refusals(dialect, endpoint, method)


def _gate(dialect: DialectName) -> Schema:
    """What any request may be answered with, before anybody looks at what it asks."""
    busy = {"type": "object", "required": ["errorMessage"], "properties": {"errorMessage": _TEXT}}
    told = {"application/json": {"schema": busy}} if dialect == "tcia" else {"text/plain": {"schema": _TEXT}}
    return {
        "401": {"description": "A token is needed.", "content": {"text/plain": {"schema": _TEXT}}},
        "503": {"description": "There is too much to do; Retry-After says when to ask again.", "content": told},
    }


def _content(dialect: DialectName, endpoint: Endpoint, path: str, rows: dict[str, Schema]) -> Schema:
    match endpoint.answer:
        case Answer.ZIP:
            return {"application/zip" if dialect == "tcia" else "application/octet-stream": {"schema": {}}}
        case Answer.DICOM:
            return {"application/dicom": {"schema": {}}}
        case Answer.MANIFEST:
            return {"application/x-nbia-manifest-file": {"schema": _TEXT}}
        case Answer.SEARCH:
            return {"application/json": {"schema": {"type": "object"}}}
        case Answer.DIGEST:
            # Empty for what is not held.
            return {"text/plain": {"schema": {"type": "string", "pattern": "^([0-9a-f]{32})?$"}}}
    # One schema for each shape: a call under several paths has the same row, unless a dialect has its own.
    name = f"{_identifier(path)}_row"
    rows[name] = row_schema(dialect, endpoint)
    content: Schema = {}
    for form in endpoint.formats:
        as_json = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
        content[CONTENT_TYPES[form]] = {"schema": as_json if form is Format.JSON else _TEXT}
    if dialect != "tcia" and takes_format(dialect, endpoint) and len(endpoint.fields(dialect)) == 1:
        content["application/force-download"] = {"schema": _TEXT}
    return content


def row_schema(dialect: DialectName, endpoint: Endpoint) -> Schema:
    """The schema of one row as JSON. No field must be there: null ones are left out. Others may follow at the end."""
    properties = {name: _value_schema(dialect, endpoint, name) for name in endpoint.fields(dialect)}
    return {"type": "object", "description": endpoint.text, "properties": properties}


def _value_schema(dialect: DialectName, endpoint: Endpoint, name: str) -> Schema:
    field = FIELDS.get(endpoint.canonical(name))
    if field is None:
        return dict(_TEXT)
    schema: Schema = {"type": _type(dialect, endpoint, name, field.kind), "description": field.text}
    if field.tag:
        schema["x-dicom-tag"] = field.tag
    if dialect == "tcia" and (field.kind is Kind.DECIMAL or field.name == "TotalSizeInBytes"):
        schema |= {"type": "string", "pattern": _DECIMALS}
    if endpoint.name in _WITH_NULLS:
        schema["type"] = [schema["type"], "null"]
    return schema


def _type(dialect: DialectName, endpoint: Endpoint, name: str, kind: Kind) -> str:
    if dialect != "tcia" and endpoint.numbers is not None and name not in endpoint.numbers:
        return "string"
    return {Kind.INTEGER: "integer", Kind.DECIMAL: "number"}.get(kind, "string")


def _nbia_refusals(dialect: DialectName, endpoint: Endpoint, method: str) -> Schema:
    told: Schema = _TOO_LARGE if method == "post" else {}
    told = told | {
        "500": {
            "description": "A format, file or method that there is not, or a fault of the server.",
            "content": {"text/plain": {"schema": {"type": "string", "pattern": f"^{SERVER_FAULT}"}}},
        }
    }
    texts = [text for text in (endpoint.missing, endpoint.denied) if text]
    content: Schema = {}
    if _refuses_unknown(dialect, endpoint):
        content["text/plain"] = {"schema": {"type": "string", "pattern": "^Invalid query parameter: "}}
    if texts:
        content["application/json"] = {"schema": _TEXT, "x-plain-text": texts}
    if method == "post":
        # A search says what of its criteria is not known.
        unreadable = {"const": UNREADABLE_FORM} if endpoint.answer not in (Answer.SEARCH, Answer.MANIFEST) else {}
        content["text/plain"] = {"schema": {"type": "string", **unreadable}}
    if content:
        told["400"] = {"description": " ".join(["Refused.", *texts]), "content": content}
    if endpoint.name in _WITHOUT_CONTENT:
        told["204"] = {"description": "There is nothing to tell of the series that were named."}
    return told


def _tcia_refusals(endpoint: Endpoint, method: str) -> Schema:
    def refusal(what: str, *keys: str) -> Mapping[str, Any]:
        schema = {"type": "object", "required": list(keys), "properties": dict.fromkeys(keys, _TEXT)}
        return {"description": what, "content": {"application/json": {"schema": schema}}}

    told: Schema = {"500": refusal("What is asked for is not there, or a fault of the server.", "errorMessage")}
    if any(param.required for param in endpoint.wire_params("tcia")):
        keys = ("errorDescription", "suggestedAction", "detailedMessage")
        told["471"] = refusal("A parameter that must be given is missing.", *keys)
    if method == "post":
        told |= _TOO_LARGE | {"400": refusal(UNREADABLE_FORM, "errorMessage")}
    return told
