"""What the server publishes about itself is so: the schema of the metadata documents, and the OpenAPI document."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import jsonschema
import pytest
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import instance_uid, uid
from fakes.threaded import serving_in_a_thread
from openapi_spec_validator import validate

from mirror.archive.endpoints import ENDPOINTS
from mirror.lists import make_list
from mirror.serve import make_app
from mirror.serve.formats import describe
from mirror.serve.openapi import METADATA_SCHEMA_PATH, OPENAPI_PATH, metadata_schema

Document = dict[str, Any]
SERIES = uid(1, 1, 1, 1)
#: Values that find something in the small archive, by the names that the two dialects have for them.
VALUES = {
    "Collection": "Lung-Alpha", "collectionName": "Lung-Alpha", "PatientID": "S1-001", "PatientId": "S1-001",
    "Modality": "CT", "BodyPartExamined": "CHEST", "StudyInstanceUID": uid(1, 1, 1), "SeriesInstanceUID": SERIES,
    "SeriesUID": SERIES, "SOPInstanceUID": instance_uid(SERIES, 1), "name": "a list",
    "list": f"{SERIES},{uid(2, 1, 2, 1)}", "seriesId": SERIES, "DOI": "https://doi.org/10.1/Lung-Alpha",
    "CollectionOrSeries": "series", "collection": "Lung-Alpha", "sortField": "subject", "sortDirection": "ascending",
    "start": "0", "size": "10", "seriesList": "1.2.3", "userName": "null",
}  # fmt: skip
#: The same day as the calls write it.
DAYS = {
    "A day, YYYY-MM-DD": "2000-01-30", "A day, MM-DD-YYYY": "01-30-2000", "A day, DD/MM/YYYY": "30/01/2000",
    "A day, YYYY/MM/DD": "2000/01/30",
}  # fmt: skip
JSON = "application/json"


async def document_of(archive: FakeArchive) -> Document:
    return (await ask(archive.origin + OPENAPI_PATH)).rows


def validator(document: Document, schema: Document) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def asked(operation: Document, method: str) -> dict[str, tuple[str, bool]]:
    """The operation's parameters but `format`: a value that finds something, and whether it must be given."""
    if method == "get":
        told = {p["name"]: (p["schema"], p["required"]) for p in operation.get("parameters", ())}
    else:
        content = operation.get("requestBody", {}).get("content", {})
        form = content.get("application/x-www-form-urlencoded", {}).get("schema", {})
        told = {name: (of, name in form.get("required", ())) for name, of in form.get("properties", {}).items()}
    values = {
        name: (DAYS.get(of.get("description")) or VALUES.get(name), needed) for name, (of, needed) in told.items()
    }
    return {name: (value, needed) for name, (value, needed) in values.items() if value is not None}


@pytest.mark.asyncio
async def test_it_is_an_openapi_document(archive: FakeArchive) -> None:
    document = await document_of(archive)
    validate(document)
    operations = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(operations)) == len(operations)


@pytest.mark.asyncio
async def test_every_call_of_the_table_is_in_it(archive: FakeArchive) -> None:
    paths = (await document_of(archive))["paths"]
    for endpoint in ENDPOINTS.values():
        for path in (endpoint.nbia, endpoint.tcia):
            if path is not None:
                assert [known for known in paths if known.endswith("/" + path.rpartition("/")[2])], path


@pytest.mark.asyncio
async def test_every_route_is_in_it(archive: FakeArchive) -> None:
    """Whatever the app answers, but for the word that there is no such call, and the page, which is no API."""
    app = make_app(archive.root)
    routed = {resource.canonical for resource in app.router.resources() if "{" not in resource.canonical}
    routed = {path for path in routed if path != "/" and not path.startswith("/_page/")}
    assert set((await document_of(archive))["paths"]) == routed


@pytest.mark.asyncio
async def test_served_rows_are_as_it_says(archive: FakeArchive) -> None:
    """Every call, in every format, with all parameters that it must have, and once more with all that it may have."""
    make_list(archive.root, "a list", [SERIES, uid(2, 1, 2, 1)])
    document = await document_of(archive)
    rows: dict[str, int] = {}
    for path, methods in document["paths"].items():
        if path.endswith(("/oauth/token", "/logout", "/getUserAgreementTxt")):
            continue  # these have no rows, and tests of their own
        for method, operation in methods.items():
            params = asked(operation, method)
            for named in (list(params), [name for name, (_, needed) in params.items() if needed]):
                content = operation["responses"]["200"]["content"]
                for form in ("json", "csv", "xml", "html") if len(content) > 1 else ("",):
                    given = {name: params[name][0] for name in named} | ({"format": form} if form else {})
                    if method == "get":
                        answer = await ask(archive.origin + path, **given)
                    else:
                        answer = await ask(archive.origin + path, "POST", list(given.items()))
                    where = f"{method} {path} {given}: {answer.body[:200]!r}"
                    assert answer.status == 200, where
                    assert answer.body or not given, where
                    told = content[answer.headers["Content-Type"].partition(";")[0]]["schema"]
                    if answer.headers["Content-Type"].partition(";")[0] == JSON:
                        errors = list(validator(document, told).iter_errors(answer.rows))
                        assert errors == [], where
                        rows[path] = rows.get(path, 0) + len(answer.rows)
    assert [path for path, number in rows.items() if not number] == [], "a call whose rows nobody has looked at"


@pytest.mark.asyncio
async def test_a_row_that_is_not_as_it_says_is_seen(archive: FakeArchive) -> None:
    document = await document_of(archive)
    schema = document["paths"]["/nbia-api/services/v4/getSeries"]["get"]["responses"]["200"]["content"][JSON]["schema"]
    assert not validator(document, schema).is_valid([{"ImageCount": "12"}])
    assert not validator(document, schema).is_valid({"ImageCount": 12})
    assert validator(document, schema).is_valid([{"ImageCount": 12, "Unknown": None}])


@pytest.mark.parametrize("name", [e.name for e in ENDPOINTS.values() if e.tcia is not None])
@pytest.mark.asyncio
async def test_every_metadata_document_meets_its_schema(archive: FakeArchive, name: str) -> None:
    schema = (await ask(archive.origin + METADATA_SCHEMA_PATH)).rows
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == metadata_schema()
    path = f"/services/v4/TCIA/query/{ENDPOINTS[name].tcia}/metadata".replace("TCIA/query/../../", "")
    told = (await ask(archive.origin + path)).rows
    jsonschema.validate(told, schema)
    assert told == describe(ENDPOINTS[name])
    assert told["name"] == path.split("/")[-2]


def test_a_metadata_document_that_does_not_meet_it_is_seen() -> None:
    told = describe(ENDPOINTS["getSeries"])
    valid = jsonschema.Draft202012Validator(metadata_schema()).is_valid
    assert valid(told)
    assert not valid({name: value for name, value in told.items() if name != "returnTypes"})
    assert not valid(told | {"returnTypes": ["PDF"]})
    assert not valid(told | {"returnAttributes": [{"name": "Modality"}]})


@pytest.mark.asyncio
async def test_behind_a_proxy_it_is_the_same_below_its_path(archive: FakeArchive) -> None:
    with serving_in_a_thread(archive.root, base_url="https://data.example.org/tcia") as origin:
        plain, below = await ask(origin + OPENAPI_PATH), await ask(origin + "/tcia" + OPENAPI_PATH)
        assert plain.rows == below.rows == await document_of(archive)
        # A client joins its server, ".", and a path to what stands beside the document.
        [server] = below.rows["servers"]
        path = next(iter(below.rows["paths"]))
        assert (await ask(urljoin(origin + "/tcia" + OPENAPI_PATH, server["url"] + path))).status == 200
        assert (await ask(origin + "/tcia" + METADATA_SCHEMA_PATH)).rows == metadata_schema()


@pytest.mark.asyncio
async def test_what_the_server_gives_beyond_the_archive_is_in_it(archive: FakeArchive, tmp_path: Path) -> None:
    document = await document_of(archive)
    (tmp_path / "tokens.toml").write_text(f'[tokens.one]\nsha256 = "{"0" * 64}"\ncollections = ["*"]\n')
    path = "/nbia-api/services/v4/getSingleImage"
    told = document["paths"][path]["get"]["responses"]
    params = {name: VALUES[name] for name in ("SeriesInstanceUID", "SOPInstanceUID")}
    etag = (await ask(archive.origin + path, **params)).headers["ETag"]
    asked = {"206": {"Range": "bytes=0-9"}, "416": {"Range": "bytes=99999999-"}, "304": {"If-None-Match": etag}}
    for status, headers in asked.items():
        answer = await ask(archive.origin + path, headers=headers, **params)
        assert (str(answer.status), status in told) == (status, True)
    with serving_in_a_thread(archive.root, tokens_file=str(tmp_path / "tokens.toml")) as origin:
        for of, operations in document["paths"].items():
            for method, operation in operations.items():
                status = str((await ask(origin + of, method.upper())).status)
                assert status in operation["responses"], f"{method} {of}: {status}"
                assert (status == "401") is ("401" in operation["responses"]), f"{method} {of}: {status}"
