"""The nbia dialect's counts and DOIs, against the rows that getSeries gives for the same archive."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.dicom import uid

pytestmark = pytest.mark.asyncio

DOI = "https://doi.org/10.1/Brain Beta"


async def patients_by(archive: FakeArchive, field: str, **where: str) -> dict[Any, int]:
    """Value of a field of getSeries -> how many patients have it."""
    rows = (await ask(archive.url() + "getSeries", **where)).rows
    found: dict[Any, set[tuple[str, str]]] = {}
    for row in rows:
        found.setdefault(row.get(field), set()).add((row["Collection"], row["PatientID"]))
    return {value: len(patients) for value, patients in found.items()}


@pytest.mark.parametrize(
    ("call", "name", "field", "where"),
    [
        ("getCollectionValuesAndCounts", "Collection", "Collection", {}),
        ("getModalityValuesAndCounts", "Modality", "Modality", {}),
        ("getModalityValuesAndCounts", "Modality", "Modality", {"Collection": "lung-alpha"}),
        ("getModalityValuesAndCounts", "Modality", "Modality", {"BodyPartExamined": "BRAIN"}),
        ("getManufacturerValuesAndCounts", "Manufacturer", "Manufacturer", {}),
        ("getManufacturerValuesAndCounts", "Manufacturer", "Manufacturer", {"Modality": "MR"}),
    ],
)
async def test_each_value_has_its_number_of_patients(
    archive: FakeArchive, call: str, name: str, field: str, where: dict[str, str]
) -> None:
    answer = await ask(archive.url() + call, **where)
    assert answer.headers["Content-Type"] == "application/json"
    assert {row.get(name): row["Count"] for row in answer.rows} == await patients_by(archive, field, **where)
    assert all(list(row) in ([name, "Count", "Authorized"], ["Count", "Authorized"]) for row in answer.rows)
    assert {row["Authorized"] for row in answer.rows} == {1}


async def test_body_parts_are_counted_in_upper_case(archive: FakeArchive) -> None:
    """One patient has a series of "Brain", and one of another part."""
    answer = await ask(archive.url() + "getBodyPartValuesAndCounts")
    assert [list(row) for row in answer.rows] == [["BodyPart", "Count", "Authorized"]] * 2
    assert {row["BodyPart"]: row["Count"] for row in answer.rows} == {"BRAIN": 1, "CHEST": 3}


async def test_species_of_whom_nothing_is_said_are_people(archive: FakeArchive) -> None:
    answer = await ask(archive.url() + "getSpeciesValuesAndCounts")
    assert answer.body == b'[{"Species":"Homo sapiens","Count":3,"Authorized":1}]'


async def test_what_is_not_there_and_what_is_not_known(archive: FakeArchive) -> None:
    url = archive.url()
    assert (await ask(url + "getModalityValuesAndCounts", Collection="NoSuch")).body == b""
    refused = await ask(url + "getModalityValuesAndCounts", format="json")
    assert refused.status == 400
    assert refused.text.startswith("Invalid query parameter: 'format'. Allowed parameters are: [Collection, Body")
    for lax in ("getCollectionValuesAndCounts", "getSpeciesValuesAndCounts"):
        assert (await ask(url + lax, format="json", whatever="1")).status == 200


async def test_a_doi_names_collections_or_series(archive: FakeArchive) -> None:
    url = archive.url() + "getCollectionOrSeriesForDOI"
    collections = await ask(url, "POST", [("DOI", DOI), ("CollectionOrSeries", "collection")])
    assert collections.body == b'[{"collection":"Brain Beta","authorized":1}]'
    series = await ask(url, "POST", [("DOI", DOI), ("CollectionOrSeries", "series")])
    listed = (await ask(archive.url() + "getSeries", Collection="Brain Beta")).rows
    assert [row["seriesInstanceUID"] for row in series.rows] == [row["SeriesInstanceUID"] for row in listed]
    assert uid(2, 1, 2, 1) in {row["seriesInstanceUID"] for row in series.rows}
    assert series.rows[0] == {
        "collection": "Brain Beta",
        "seriesInstanceUID": listed[0]["SeriesInstanceUID"],
        "thirdPartyAnanlysis": "NO",
        "authorized": 1,
    }


@pytest.mark.parametrize("doi", [DOI.lower(), "https://doi.org/10.1/NoSuch", ""])
async def test_a_doi_is_compared_as_it_stands_and_an_unknown_one_names_nothing(archive: FakeArchive, doi: str) -> None:
    answer = await ask(archive.url() + "getCollectionOrSeriesForDOI", "POST", [("DOI", doi)])
    assert (answer.status, answer.body) == (200, b"[]")
