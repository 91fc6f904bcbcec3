"""getDeniedSeries, and what the NBIA Data Retriever asks before its series, against the server's source."""

from __future__ import annotations

import re

import pytest
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import uid
from fakes.servers import asking

ALPHA, BETA = uid(1, 1, 1, 1), uid(2, 1, 1, 1)
V1, V4 = "../v1/", ""

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("version", [V1, V4])
async def test_those_that_are_not_there_or_not_shown_are_named(archive: FakeArchive, version: str) -> None:
    archive.withdraw(BETA)
    url = archive.url() + version + "getDeniedSeries"
    answer = await ask(url, seriesList=f"{ALPHA},1.2.3,{BETA},1.2.3", userName="null")
    assert answer.rows == [{"SeriesInstanceUID": "1.2.3"}, {"SeriesInstanceUID": BETA}]
    as_csv = await ask(url, seriesList=f"{ALPHA},1.2.3", userName="null", format="csv", headers={"Accept": "text/csv"})
    assert (as_csv.headers["Content-Type"], as_csv.text) == ("text/csv", "SeriesInstanceUID\n1.2.3\n")


@pytest.mark.parametrize("version", [V1, V4])
async def test_where_none_is_denied_there_is_no_content(archive: FakeArchive, version: str) -> None:
    answer = await ask(archive.url() + version + "getDeniedSeries", seriesList=ALPHA)
    assert (answer.status, answer.body) == (204, b"")
    missing = await ask(archive.url() + version + "getDeniedSeries")
    told = "A parameter, seriesList,  a list of SeriesInstanceUID is required for this API call."
    assert (missing.status, missing.text) == (400, told)


async def test_the_newer_one_alone_refuses_what_it_does_not_know(archive: FakeArchive) -> None:
    refused = await ask(archive.url() + "getDeniedSeries", seriesList=ALPHA, x="1")
    allowed = "[seriesList, userName, format]"
    assert (refused.status, refused.text) == (400, f"Invalid query parameter: 'x'. Allowed parameters are: {allowed}")
    assert (await ask(archive.url() + V1 + "getDeniedSeries", seriesList=ALPHA, x="1")).status == 204


async def test_names_of_sop_classes_are_a_properties_file(archive: FakeArchive) -> None:
    answer = await ask(archive.url() + V1 + "getAllSOPClassDefinition")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/octet-stream")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="UIDNames.properties"'
    lines = answer.body.decode("ascii").splitlines()
    assert all(re.fullmatch(r"[0-9.]+=[^=].*", line) for line in lines)
    names = dict(line.split("=", 1) for line in lines)
    assert len(names) == len(lines)
    assert names["1.2.840.10008.5.1.4.1.1.2"] == "CT Image Storage"
    (row,) = (await ask(archive.url() + V1 + "getSeriesMetaData", SeriesInstanceUID=ALPHA)).rows
    assert row["SOP Class UID"] in names


async def test_there_are_no_terms_to_agree_to(archive: FakeArchive) -> None:
    answer = await ask(archive.url() + V1 + "getUserAgreementTxt")
    assert (answer.status, answer.text) == (404, "No user agreement file found.")
    assert answer.headers["Content-Type"] == "application/octet-stream"


async def test_our_client_asks_it(archive: FakeArchive) -> None:
    async with asking(archive.origin) as client:
        assert await (await client.get_denied_series([ALPHA, "1.2.3"])).all() == [{"SeriesInstanceUID": "1.2.3"}]
        assert await (await client.get_denied_series([ALPHA])).all() == []
