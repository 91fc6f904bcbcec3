"""getSimpleSearch and the manifests, against the rows that getSeries gives for the same archive."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fakes.archive import FakeArchive
from fakes.asking import Answer, ask
from fakes.dicom import make_series, uid
from fakes.servers import asking

from mirror.archive.rows import from_json, to_json
from mirror.ledger import Ledger
from mirror.manifest import read_series_uids

pytestmark = pytest.mark.asyncio

PAGE = {"sortField": "subject", "sortDirection": "ascending", "start": "0", "size": "100"}


async def search(
    archive: FakeArchive, *criteria: tuple[str, str], call: str = "getSimpleSearch", **page: str
) -> Answer:
    form = [(f"criteriaType{n}", kind) for n, (kind, _) in enumerate(criteria)]
    form += [(f"value{n}", value) for n, (_, value) in enumerate(criteria)]
    return await ask(archive.url() + call, "POST", [*form, *(PAGE | page).items()])


def series_of(found: dict[str, Any]) -> set[str]:
    studies = [study for patient in found["resultSet"] for study in patient["studyIdentifiers"]]
    return {uid for study in studies for uid in study["seriesIdentifiers"]}


@pytest.mark.parametrize(
    ("criteria", "where"),
    [
        ([], [{}]),
        ([("CollectionCriteria", "lung-alpha")], [{"Collection": "Lung-Alpha"}]),
        ([("ImageModalityCriteria", "MR")], [{"Modality": "MR"}]),
        ([("AnatomicalSiteCriteria", "BRAIN"), ("ImageModalityCriteria", "CT")],
         [{"BodyPartExamined": "BRAIN", "Modality": "CT"}]),
        ([("CollectionCriteria", "Lung-Alpha"), ("CollectionCriteria", "Brain Beta")],
         [{"Collection": "Lung-Alpha"}, {"Collection": "Brain Beta"}]),
        ([("PatientCriteria", "S2-001")], [{"PatientID": "S2-001"}]),
        ([("SpeciesCriteria", "337915000")], [{}]),
        ([("SpeciesCriteria", "447612001")], []),
        ([("CollectionCriteria", "NoSuch")], []),
        ([("StudyCriteria", uid(1, 1, 1))], [{"StudyInstanceUID": uid(1, 1, 1)}]),
        ([("SeriesCriteria", uid(2, 1, 2, 1))], [{"SeriesInstanceUID": uid(2, 1, 2, 1)}]),
        ([("PatientSexCriteria", "m")], []),
    ],
)  # fmt: skip
async def test_criteria_find_what_get_series_finds(
    archive: FakeArchive, criteria: Sequence[tuple[str, str]], where: Sequence[dict[str, str]]
) -> None:
    rows: list[dict[str, Any]] = []
    for params in where:
        answer = await ask(archive.url() + "getSeries", **params)
        rows += answer.rows if answer.body else []
    found = (await search(archive, *criteria)).rows
    patients = {(row["Collection"], row["PatientID"]) for row in rows}
    assert {(p["project"], p["subjectId"]) for p in found["resultSet"]} == patients
    assert found["totalPatients"] == len(patients)
    assert series_of(found) == {row["SeriesInstanceUID"] for row in rows}
    assert sum(len(s["seriesIdentifiers"]) for p in found["resultSet"] for s in p["studyIdentifiers"]) == len(rows)
    everything = (await ask(archive.url() + "getSeries")).rows
    for patient in found["resultSet"]:
        own = [r for r in everything if (r["Collection"], r["PatientID"]) == (patient["project"], patient["subjectId"])]
        assert patient["totalNumberOfSeries"] == len(own)
        assert patient["totalNumberOfStudies"] == len({r["StudyInstanceUID"] for r in own})
    assert sum(c["count"] for c in found["collections"]) == len(patients)
    for name, field in (("modalities", "Modality"), ("bodyParts", "BodyPartExamined")):
        have = {row[field]: set() for row in rows if row.get(field)}  # type: dict[str, set[Any]]
        for row in rows:
            if row.get(field):
                have[row[field]].add((row["Collection"], row["PatientID"]))
        assert found[name] == [{"value": v, "count": len(p)} for v, p in sorted(have.items())]
    manifest = await search(archive, *criteria, call="getManifestForSimpleSearch")
    assert set(manifest.text.split("ListOfSeriesToDownload=\n")[1].split()) == series_of(found)


async def test_both_modalities_and_the_number_of_studies(archive: FakeArchive) -> None:
    both = [("ImageModalityCriteria", "CT"), ("ImageModalityCriteria", "MR"), ("ModalityAndedSearchCriteria", "all")]
    for site in ("BRAIN", "CHEST"):
        have: dict[str, set[str]] = {}
        for row in (await ask(archive.url() + "getSeries", BodyPartExamined=site)).rows:
            have.setdefault(row["PatientID"], set()).add(row["Modality"])
        found = (await search(archive, ("AnatomicalSiteCriteria", site), *both)).rows
        wanted = {patient for patient, modalities in have.items() if modalities >= {"CT", "MR"}}
        assert {p["subjectId"] for p in found["resultSet"]} == wanted
        assert (wanted == set(have)) == (site == "CHEST")
    two = (await search(archive, ("MinNumberOfStudiesCriteria", "2"))).rows
    assert {p["subjectId"] for p in two["resultSet"]} == {
        p["subjectId"] for p in (await search(archive)).rows["resultSet"] if p["totalNumberOfStudies"] >= 2
    }
    assert two["totalPatients"] < 3


@pytest.mark.parametrize(("days", "patients"), [(("01-31-2020", "01-31-2020"), 2), (("02-01-2020", "03-01-2020"), 0)])
@pytest.mark.parametrize("kind", ["DateRangeCriteria", "Criteria.DateRange"])
async def test_days_of_release_are_included(
    archive: FakeArchive, kind: str, days: tuple[str, str], patients: int
) -> None:
    form = [("criteriaType0", kind), ("fromDate0", days[0]), ("toDate0", days[1]), *PAGE.items()]
    form += [("criteriaType1", "CollectionCriteria"), ("value1", "Lung-Alpha")]
    found = (await ask(archive.url() + "getSimpleSearch", "POST", form)).rows
    assert found["totalPatients"] == patients


TIMED = uid(6, 1, 1)


def stock_timed(archive: FakeArchive) -> None:
    """A patient with a study before a diagnosis and one after, and one who is a phantom."""
    for number, offset in ((1, -3), (2, 40)):
        archive.stock(
            "Brain Beta",
            make_series(
                patient_id="S6-001", study_uid=uid(6, 1, number), series_uid=uid(6, 1, number, 1), instances=1,
                LongitudinalTemporalEventType="DIAGNOSIS", LongitudinalTemporalOffsetFromEvent=offset,
            ),
        )  # fmt: skip


async def test_a_patient_found_is_told_as_the_archive_tells_it(archive: FakeArchive) -> None:
    """The names of its classes PatientSearchResultWithModalityAndBodyPartImpl, StudyIdentifiers, SeriesAndModality."""
    stock_timed(archive)
    (patient,) = (await search(archive, ("PatientCriteria", "S6-001"))).rows["resultSet"]
    assert set(patient) == {
        "id", "subjectId", "project", "studyIdentifiers", "totalNumberOfStudies", "totalNumberOfSeries", "modalities",
        "bodyParts", "species", "timepoints", "authorized",
    }  # fmt: skip
    assert (patient["species"], patient["timepoints"], patient["authorized"]) == (
        ["Homo sapiens"],
        {"DIAGNOSIS": [-3, 40]},
        1,
    )
    first = patient["studyIdentifiers"][0]
    assert first == {
        "studyIdentifier": TIMED,
        "seriesIdentifiers": [uid(6, 1, 1, 1)],
        "seriesAndModality": [{"seriesId": uid(6, 1, 1, 1), "modality": "CT"}],
    }
    (other,) = (await search(archive, ("PatientCriteria", "S2-001"))).rows["resultSet"]
    assert other["timepoints"] == {}


async def test_the_first_and_last_days_are_those_of_everyone_found(archive: FakeArchive) -> None:
    stock_timed(archive)
    everyone = (await search(archive, size="1")).rows
    assert (everyone["minTimepoints"], everyone["maxTimepoints"]) == ({"DIAGNOSIS": -3}, {"DIAGNOSIS": 40})
    one = (await search(archive, ("StudyCriteria", TIMED))).rows
    assert (one["minTimepoints"], one["maxTimepoints"]) == ({"DIAGNOSIS": -3}, {"DIAGNOSIS": -3})
    none = (await search(archive, ("PatientCriteria", "S2-001"))).rows
    assert (none["minTimepoints"], none["maxTimepoints"]) == ({}, {})


async def test_series_without_a_body_part_are_not_specified(archive: FakeArchive) -> None:
    said, unsaid = uid(8, 1, 1), uid(8, 1, 2)
    for series, part in ((said, "HEAD"), (unsaid, None)):
        archive.stock(
            "Brain Beta",
            make_series(
                patient_id="S8", study_uid=uid(8, 1), series_uid=series, instances=1, BodyPartExamined=part,
            ),
        )  # fmt: skip
    assert series_of((await search(archive, ("AnatomicalSiteCriteria", "NOT SPECIFIED"))).rows) == {unsaid}
    both = (await search(archive, ("AnatomicalSiteCriteria", "not specified"), ("AnatomicalSiteCriteria", "head"))).rows
    assert series_of(both) == {said, unsaid}
    # A patient counts there who has no other.
    assert both["bodyParts"] == [{"value": "HEAD", "count": 1}]
    alone = (await search(archive, ("SeriesCriteria", unsaid))).rows
    assert alone["bodyParts"] == [{"value": "NOT SPECIFIED", "count": 1}]
    assert alone["resultSet"][0]["bodyParts"] == []


@pytest.mark.parametrize(
    ("days", "found"),
    [
        ({"fromDay0": "-10", "toDay0": "0"}, {uid(6, 1, 1, 1)}),
        ({"fromDay0": "-3"}, {uid(6, 1, 1, 1), uid(6, 1, 2, 1)}),
        ({"toDay0": "40"}, {uid(6, 1, 1, 1), uid(6, 1, 2, 1)}),
        ({"fromDay0": "41"}, set()),
        ({"fromDay0": "0", "toDay0": "100", "eventType0": "ENROLLMENT"}, set()),
    ],
)
async def test_time_points_are_days_from_an_event(archive: FakeArchive, days: dict[str, str], found: set[str]) -> None:
    stock_timed(archive)
    form = {"criteriaType0": "TimePointCriteria", "eventType0": "DIAGNOSIS"} | days | PAGE
    answer = await ask(archive.url() + "getSimpleSearch", "POST", list(form.items()))
    assert series_of(answer.rows) == found
    manifest = await ask(archive.url() + "getManifestForSimpleSearch", "POST", list(form.items()))
    assert set(manifest.text.split("ListOfSeriesToDownload=\n")[1].split()) == found


async def test_phantoms_are_left_out_or_alone_or_among_all(archive: FakeArchive) -> None:
    archive.stock("Brain Beta", make_series(patient_id="PHANTOM", series_uid=uid(7, 1), study_uid=uid(7), instances=1))
    with Ledger(archive.root) as ledger, ledger.transaction() as db:
        (raw,) = db.execute("SELECT raw FROM patients WHERE patient_id = 'PHANTOM'").fetchone()
        db.execute(
            "UPDATE patients SET raw = ? WHERE patient_id = 'PHANTOM'", (to_json(from_json(raw) | {"Phantom": "YES"}),)
        )
    for value, wanted in (("0", {"PHANTOM"}), ("1", {"S1-001", "S1-002", "S2-001"})):
        found = (await search(archive, ("PhantomCriteria", value))).rows
        assert {p["subjectId"] for p in found["resultSet"]} == wanted
    assert (await search(archive, ("PhantomCriteria", "2"))).rows["totalPatients"] == 4
    assert (await search(archive, ("PhantomCriteria", "some"))).status == 400


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("collection", lambda p: p["project"].lower()),
        ("Subject", lambda p: p["subjectId"].lower()),
        ("study", lambda p: len(p["studyIdentifiers"])),
        ("studies", lambda p: len(p["studyIdentifiers"])),
        ("series", lambda p: sum(len(s["seriesIdentifiers"]) for s in p["studyIdentifiers"])),
        ("totalNumberOfStudies", lambda p: p["totalNumberOfStudies"]),
        ("totalNumberOfSeries", lambda p: p["totalNumberOfSeries"]),
        ("colour", lambda p: p["project"].lower()),
    ],
)
async def test_fields_to_sort_by(archive: FakeArchive, field: str, key: Callable[[dict[str, Any]], Any]) -> None:
    stock_timed(archive)
    page = (await search(archive, ("ImageModalityCriteria", "CT"), sortField=field)).rows
    keys = [key(patient) for patient in page["resultSet"]]
    assert keys == sorted(keys)
    assert page["sort"] == f"{field}-ascending"
    backwards = (await search(archive, ("ImageModalityCriteria", "CT"), sortField=field, sortDirection="down")).rows
    assert [key(patient) for patient in backwards["resultSet"]] == keys[::-1]


async def test_pages_and_order(archive: FakeArchive) -> None:
    everyone = (await search(archive)).rows["resultSet"]
    second = (await search(archive, start="1", size="1")).rows
    assert second["resultSet"] == [everyone[1]]
    assert second["totalPatients"] == 3
    backwards = (await search(archive, sortDirection="descending")).rows["resultSet"]
    assert [p["subjectId"] for p in backwards] == [p["subjectId"] for p in everyone][::-1]
    by_series = (await search(archive, sortField="series")).rows["resultSet"]
    counts = [sum(len(s["seriesIdentifiers"]) for s in p["studyIdentifiers"]) for p in by_series]
    assert counts == sorted(counts)
    assert (await search(archive, size="0")).rows["resultSet"] == []


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ([("criteriaType0", "ExcludeCommercialCriteria"), ("value0", "YES"), *PAGE.items()], "criteriaType0"),
        ([("criteriaType0", "TimePointCriteria"), ("fromDay0", "1"), *PAGE.items()], "eventType0"),
        ([("criteriaType0", "TimePointCriteria"), ("eventType0", "X"), *PAGE.items()], "fromDay0"),
        ([("criteriaType0", "TimePointCriteria"), ("eventType0", "X"), ("toDay0", "a"), *PAGE.items()], "toDay0"),
        ([("criteriaType0", "DateRangeCriteria"), ("fromDate0", "2020-01-01"), *PAGE.items()], "fromDate0"),
        ([*(PAGE | {"start": "x"}).items()], "start"),
        ([("start", "0")], "sortField, sortDirection, start and size"),
    ],
)
async def test_what_cannot_be_judged_is_refused(archive: FakeArchive, form: list[tuple[str, str]], told: str) -> None:
    answer = await ask(archive.url() + "getSimpleSearch", "POST", form)
    assert answer.status == 400
    assert told in answer.text


async def test_a_manifest_of_a_collection_names_this_server_and_its_series(archive: FakeArchive) -> None:
    answer = await ask(archive.url() + "getManifestForCollection", "POST", [("collection", "Lung-Alpha")])
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-nbia-manifest-file")
    head = answer.text.splitlines()[:6]
    assert head[0] == f"downloadServerUrl={archive.origin}/nbia-download/servlet/DownloadServlet"
    assert head[1:3] == ["includeAnnotation=true", "noOfrRetry=4"]
    assert head[3].startswith("databasketId=Lung-Alpha-")
    assert head[4:] == ["manifestVersion=3.0", "ListOfSeriesToDownload="]
    rows = (await ask(archive.url() + "getSeries", Collection="Lung-Alpha")).rows
    assert read_series_uids(answer.text, "answer") == [row["SeriesInstanceUID"] for row in rows]
    plain = await ask(
        archive.url() + "getManifestForCollection",
        "POST",
        [("collection", "Lung-Alpha"), ("includeAnnotation", "false"), ("visibility", "4")],
    )
    assert "includeAnnotation=false\n" in plain.text
    assert plain.text.endswith("ListOfSeriesToDownload=\n")
    missing = await ask(archive.url() + "getManifestForCollection", "POST", [("visibility", "1")])
    assert (missing.status, missing.text) == (400, "A parameter, collection is required for this API call.")


async def test_a_manifest_of_a_search_is_of_its_page_and_without_annotations(archive: FakeArchive) -> None:
    """The server's source: the patients of the page, in its order, and never annotation files."""
    page = {"start": "1", "size": "1", "sortDirection": "descending"}
    (patient,) = (await search(archive, **page)).rows["resultSet"]
    answer = await search(archive, call="getManifestForSimpleSearch", **page)
    listed = [uid for study in patient["studyIdentifiers"] for uid in study["seriesIdentifiers"]]
    assert read_series_uids(answer.text, "answer") == listed
    assert "includeAnnotation=false\n" in answer.text
    assert re.search(r"^databasketId=manifest-\d{13}\.tcia$", answer.text, re.MULTILINE)
    wrong = await search(archive, call="getManifestForSimpleSearch", size="x")
    assert (wrong.status, "size" in wrong.text) == (400, True)


async def test_our_client_asks_them(archive: FakeArchive) -> None:
    async with asking(archive.origin) as client:
        manifest = await client.get_manifest_for_collection(collection="Brain Beta")
        found = await client.get_simple_search(criteriaType0="CollectionCriteria", value0="Brain Beta")
        again = await client.get_manifest_for_simple_search(criteriaType0="CollectionCriteria", value0="Brain Beta")
    uids = set(read_series_uids(manifest, "answer"))
    assert uids == series_of(found) == set(read_series_uids(again, "answer"))
    assert len(uids) == 3
