"""Calls of the client that only the nbia dialect has: counts, DOIs, elements of an image."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from fakes.archive import FakeArchive
from fakes.dicom import uid
from fakes.servers import asking

from mirror.archive.answers import Rows
from mirror.archive.client import ArchiveClient
from mirror.errors import Refused


@pytest_asyncio.fixture
async def nbia(archive: FakeArchive) -> AsyncIterator[ArchiveClient]:
    async with asking(archive.origin, "nbia") as opened:
        yield opened


async def whole(chunks: AsyncIterator[bytes], length: int | None) -> tuple[bytes, int | None]:
    return b"".join([chunk async for chunk in chunks]), length


@pytest.mark.asyncio
async def test_counts(nbia: ArchiveClient):
    async def counted(name: str, rows: Rows[dict[str, Any]]) -> dict[str | None, int]:
        return {row.get(name): row["Count"] for row in await rows.all()}

    collections = await counted("Collection", await nbia.get_collection_values_and_counts())
    assert collections == {"Brain Beta": 1, "Lung-Alpha": 2}
    beta = {"Collection": "Brain Beta"}
    assert await counted("Modality", await nbia.get_modality_values_and_counts(**beta)) == {"CT": 1, "MR": 1}
    parts = await counted("BodyPartExamined", await nbia.get_body_part_values_and_counts(**beta))
    assert parts == {"BRAIN": 1, "CHEST": 1}
    makers = await counted("Manufacturer", await nbia.get_manufacturer_values_and_counts(**beta, Modality="MR"))
    assert set(makers.values()) == {1}
    assert await counted("SpeciesDescription", await nbia.get_species_values_and_counts()) == {"Homo sapiens": 3}


@pytest.mark.asyncio
async def test_what_a_doi_names(nbia: ArchiveClient):
    doi = "https://doi.org/10.1/Brain Beta"
    (row,) = await (await nbia.get_collection_or_series_for_doi(doi)).all()
    assert row == {"Collection": "Brain Beta", "Authorized": 1}
    series = await (await nbia.get_collection_or_series_for_doi(doi, series=True)).all()
    assert [row["Collection"] for row in series] == ["Brain Beta"] * 3
    assert len({row["SeriesInstanceUID"] for row in series}) == 3
    assert await (await nbia.get_collection_or_series_for_doi("10.1/none")).all() == []


@pytest.mark.asyncio
async def test_elements_and_a_zip_by_numbers(nbia: ArchiveClient):
    tags = await (await nbia.get_dicom_tags(uid(2, 1, 1, 1))).all()
    assert {"element": "(0010,0020)", "name": "Patient ID", "data": "S2-001"} in tags
    body, length = await nbia.get_dcm_image(uid(2, 1, 1, 1), whole, MD5Verification="true")
    assert (body[:4], length) == (b"PK\3\4", None)
    with pytest.raises(Refused, match="is not in public domain"):
        await nbia.get_dcm_image("1.2.3", whole)
