"""The endpoint table agrees with itself and names every call that the project promises."""

from __future__ import annotations

import re

import pytest

from mirror.archive.endpoints import ENDPOINTS, Answer, DialectName, Endpoint, Format
from mirror.archive.fields import ALIASES, FIELDS, Kind, canonical

each = pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=list(ENDPOINTS))
DIALECTS: tuple[DialectName, ...] = ("nbia", "tcia")

BOTH = [
    "getCollectionValues", "getModalityValues", "getBodyPartValues", "getManufacturerValues", "getPatient",
    "PatientsByModality", "getPatientStudy", "getSeries", "getSeriesSize", "getImage", "NewPatientsInCollection",
    "NewStudiesInPatientCollection", "getSOPInstanceUIDs", "getSingleImage", "ContentsByName",
]  # fmt: skip
NBIA_ONLY = [
    "getUpdatedSeries", "getSeriesMetadata", "getSeriesQCInfo", "getMD5HashForImage", "getMD5Hierarchy",
    "getImageWithMD5Hash", "getCollectionDescriptions", "getCollectionValuesAndCounts", "getModalityValuesAndCounts",
    "getBodyPartValuesAndCounts", "getManufacturerValuesAndCounts", "getSpeciesValuesAndCounts",
    "getCollectionOrSeriesForDOI", "getDCMImage", "getDicomTags", "getManifestForCollection",
    "getManifestForSimpleSearch", "getSimpleSearch", "getDeniedSeries",
]  # fmt: skip


def test_every_promised_call_is_there_and_no_other():
    assert sorted(ENDPOINTS) == sorted(BOTH + NBIA_ONLY)
    assert all(ENDPOINTS[name].nbia and ENDPOINTS[name].tcia for name in BOTH)
    assert all(ENDPOINTS[name].nbia and ENDPOINTS[name].tcia is None for name in NBIA_ONLY)


@each
def test_a_call_is_found_by_its_own_name(endpoint: Endpoint):
    assert ENDPOINTS[endpoint.name] is endpoint
    assert endpoint.text


@pytest.mark.parametrize("dialect", DIALECTS)
@each
def test_every_wire_field_is_a_field_that_is_known(endpoint: Endpoint, dialect: DialectName):
    names = endpoint.fields(dialect)
    assert [name for name in names if canonical(name) not in FIELDS] == []
    assert len(set(names)) == len(names)
    assert len({canonical(name) for name in names}) == len(names), "two wire names would become one field"
    if endpoint.path(dialect) is not None:
        assert bool(names) == (endpoint.answer is Answer.ROWS)


@pytest.mark.parametrize("dialect", DIALECTS)
@each
def test_no_two_parameters_share_a_name(endpoint: Endpoint, dialect: DialectName):
    canonical_names = [param.name for param in endpoint.params]
    wire = [param.wire(dialect) for param in endpoint.wire_params(dialect)]
    assert len(set(canonical_names)) == len(canonical_names)
    assert len(set(wire)) == len(wire)
    assert "" not in wire
    assert "format" not in wire


@each
def test_only_calls_that_answer_rows_have_formats(endpoint: Endpoint):
    assert bool(endpoint.formats) == (endpoint.answer is Answer.ROWS)
    if endpoint.formats:
        assert Format.JSON in endpoint.formats


@each
def test_a_call_with_a_required_parameter_has_words_for_its_absence(endpoint: Endpoint):
    # The server answers nothing, or a status without words.
    silent = {"getMD5HashForImage", "getSeriesQCInfo", "getCollectionOrSeriesForDOI"}
    required = any(param.required for param in endpoint.params)
    assert bool(endpoint.missing) == (required and endpoint.name not in silent)


def test_paths_are_each_used_once():
    for dialect in DIALECTS:
        paths = [path for e in ENDPOINTS.values() if (path := e.path(dialect)) is not None]
        assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("field", FIELDS.values(), ids=list(FIELDS))
def test_every_field_is_described(field):
    assert field.text
    assert FIELDS[field.name] is field
    assert field.tag is None or re.fullmatch(r"[0-9A-F]{4},[0-9A-F]{4}", field.tag)


def test_fields_that_are_dicom_attributes_have_the_standards_tags():
    from pydicom.datadict import keyword_dict

    known = {name: f"{tag >> 16:04X},{tag & 0xFFFF:04X}" for name, tag in keyword_dict.items()}
    other_meaning = {"SpeciesCode", "SpeciesDescription", "EthnicGroup"}
    for field in FIELDS.values():
        if field.name in known and field.name not in other_meaning:
            assert field.tag == known[field.name], field.name


def test_an_alias_leads_to_a_field_and_hides_none():
    assert [name for name in ALIASES.values() if name not in FIELDS] == []
    assert [name for name in ALIASES if name in FIELDS] == []
    assert canonical("PatientId") == canonical("PatientID") == "PatientID"
    assert canonical("NoSuchField") == "NoSuchField"


def test_how_the_dialects_differ():
    assert ENDPOINTS["PatientsByModality"].path("nbia") == "getPatientByCollectionAndModality"
    assert ENDPOINTS["PatientsByModality"].path("tcia") == "PatientsByModality"
    assert [p.wire("nbia") for p in ENDPOINTS["NewPatientsInCollection"].wire_params("nbia")] == [
        "Collection",
        "fromDate",
    ]
    assert [p.wire("tcia") for p in ENDPOINTS["NewPatientsInCollection"].wire_params("tcia")] == ["Collection", "Date"]
    assert [p.name for p in ENDPOINTS["getImage"].wire_params("tcia")] == ["SeriesInstanceUID"]
    assert len(ENDPOINTS["getSeries"].fields("nbia")) == 30
    assert "FileSize" not in ENDPOINTS["getSeries"].fields("tcia")
    assert ENDPOINTS["getPatient"].fields("nbia")[0] == "PatientId"
    assert ENDPOINTS["getPatient"].fields("tcia")[0] == "PatientID"
    assert [name for name, e in ENDPOINTS.items() if e.method == "POST"] == [
        "getSeriesMetadata", "getSeriesQCInfo", "getMD5Hierarchy", "getCollectionOrSeriesForDOI",
        "getManifestForCollection", "getManifestForSimpleSearch", "getSimpleSearch",
    ]  # fmt: skip
    assert Kind.DATE is FIELDS["DateReleased"].kind
