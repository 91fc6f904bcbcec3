"""Rows as bytes: the shapes that the two servers' sources write."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from mirror.archive.endpoints import ENDPOINTS, DialectName, Format
from mirror.archive.older import OLDER
from mirror.serve.formats import encode_rows, find_format, text_of

MODALITIES: list[dict[str, Any]] = [{}, {"Modality": "CT"}, {"Modality": 'A/B & "C" <d>'}]
SIZES: list[dict[str, Any]] = [{"TotalSizeInBytes": 71599388, "ObjectCount": 136}]


def body(call: str, dialect: DialectName, form: Format, rows: list[dict[str, Any]]) -> str:
    return b"".join(encode_rows(ENDPOINTS[call], dialect, form, rows)).decode()


def test_nbia_json_has_no_spaces_and_leaves_nulls_out() -> None:
    assert body("getModalityValues", "nbia", Format.JSON, MODALITIES[:2]) == '[{},{"Modality":"CT"}]'


def test_nbia_csv_of_one_column_is_not_quoted_and_a_null_is_two_blank_lines() -> None:
    assert body("getModalityValues", "nbia", Format.CSV, MODALITIES) == 'Modality\n\n\nCT\nA/B & "C" <d>\n'


def test_nbia_csv_of_more_columns_is_quoted_and_decimals_keep_their_scale() -> None:
    text = body("getSeriesSize", "nbia", Format.CSV, SIZES)
    assert text == '"TotalSizeInBytes","ObjectCount"\n"71599388.000000","136"\n'
    patients = body("PatientsByModality", "nbia", Format.CSV, [{"PatientId": 'a "b", c'}])
    assert patients == '"PatientId","Authorized"\n"a ""b"", c",""\n'


def test_nbia_xml_is_one_line_with_java_types_and_entities() -> None:
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Results>'
    text = body("getModalityValues", "nbia", Format.XML, MODALITIES)
    assert text == (
        head + "<Row></Row><Row><Modality type='java.lang.String'>CT</Modality></Row>"
        "<Row><Modality type='java.lang.String'>A&#x2f;B &amp; &quot;C&quot; &lt;d&gt;</Modality></Row></Results>"
    )
    assert [row.findtext("Modality") for row in ET.fromstring(text)] == [None, "CT", 'A/B & "C" <d>']
    assert body("getSeriesSize", "nbia", Format.XML, SIZES) == (
        head + "<Row><TotalSizeInBytes type='java.math.BigDecimal'>71599388.000000</TotalSizeInBytes>"
        "<ObjectCount type='java.math.BigInteger'>136</ObjectCount></Row></Results>"
    )


def test_columns_whose_names_no_element_may_have_are_elements_all_the_same() -> None:
    row = {"PixelSpacing(mm)-Row": "0.5", "SliceThickness(mm)": "1", "Modality": "CT"}
    (told,) = ET.fromstring(body("getSeriesMetadata", "nbia", Format.XML, [row]))
    assert {cell.tag: cell.text for cell in told} == {
        "Modality": "CT",
        "PixelSpacing_mm_-Row": "0.5",
        "SliceThickness_mm_": "1",
    }
    older = OLDER["../v1/getSeriesMetaData"]
    rows = [dict.fromkeys(older.nbia_fields, "x")]
    (told,) = ET.fromstring(b"".join(encode_rows(older, "nbia", Format.XML, rows)))
    tags = [cell.tag for cell in told]
    assert tags[:3] == ["Series_UID", "Collection", "_3rd_Party_Analysis"]
    assert len(set(tags)) == len(older.nbia_fields)


def test_nbia_html_is_a_fragment() -> None:
    assert body("getModalityValues", "nbia", Format.HTML, MODALITIES[:2]) == (
        "<P ALIGN='center'><TABLE BORDER=1><TR><TH>Modality</TH></TR><TR><TD>&nbsp;</TD></TR>"
        "<TR><TD>CT</TD></TR></TABLE></P>"
    )


def test_a_control_character_does_not_reach_xml() -> None:
    text = body("getModalityValues", "nbia", Format.XML, [{"Modality": "C\x01T"}])
    assert "C&#xfffd;T" in text


def test_tcia_csv_has_a_line_end_before_each_row_and_script_quoting() -> None:
    wire = [{"TotalSizeInBytes": "149149266.000000", "ObjectCount": 274}, {"ObjectCount": 0}]
    assert body("getSeriesSize", "tcia", Format.CSV, wire) == (
        'TotalSizeInBytes,ObjectCount\n"149149266.000000","274"\n,"0"'
    )
    assert body("getModalityValues", "tcia", Format.CSV, MODALITIES[2:]) == 'Modality\n"A\\/B & \\"C\\" <d>"'
    odd = [{"Modality": "it's\t\\u00e9 é\U0001f600\x7f"}]
    assert body("getModalityValues", "tcia", Format.CSV, odd) == (
        'Modality\n"it\\\'s\\t\\\\u00e9 \\u00E9\\uD83D\\uDE00\x7f"'
    )
    assert body("getModalityValues", "tcia", Format.CSV, []) == "Modality"


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.parametrize("char", ["\ufffe", "\uffff"])
def test_what_is_no_character_of_xml_does_not_reach_it(dialect: DialectName, char: str) -> None:
    rows = [{"Collection": f"a{char}b"}]
    body = b"".join(encode_rows(ENDPOINTS["getCollectionValues"], dialect, Format.XML, rows))
    assert ET.fromstring(body).findtext("Row/Collection") == "a\ufffdb"


def test_tcia_xml_has_sql_types_and_empty_elements_for_nulls() -> None:
    assert body("getModalityValues", "tcia", Format.XML, MODALITIES[:2]) == (
        "<Results>\n<Row>\n<Modality type='VARCHAR' ></Modality>\n</Row>"
        "\n<Row>\n<Modality type='VARCHAR' >CT</Modality>\n</Row>\n</Results>"
    )
    assert body("getModalityValues", "tcia", Format.XML, []) == "<Results>\n</Results>"
    zero = body("getSeriesSize", "tcia", Format.XML, [{"ObjectCount": 0}])
    assert "<ObjectCount type='BIGINT' >0</ObjectCount>" in zero


def test_tcia_html_writes_null_as_a_word() -> None:
    assert body("getModalityValues", "tcia", Format.HTML, MODALITIES[:2]) == (
        "<HTML><BODY><P ALIGN='center'><TABLE id='data' BORDER=1>\n<thead><TR>\n<TH>Modality</TH></TR>\n</thead><tbody>"
        "<TR>\n<TD>null</TD></TR>\n<TR>\n<TD>CT</TD></TR>\n</tbody></TABLE></P></BODY></HTML>"
    )
    assert body("getModalityValues", "tcia", Format.HTML, []) == (
        "<HTML><BODY><P ALIGN='center'><TABLE id='data' BORDER=1>\n<thead><TR>\n<TH>Modality</TH></TR>\n</thead><tbody>"
        "</tbody></TABLE></P></BODY></HTML>"
    )


def test_decimals_as_text() -> None:
    assert text_of(ENDPOINTS["getSeriesMetadata"], "SeriesNumber", 500) == "500.000000"
    assert text_of(ENDPOINTS["getSeriesMetadata"], "SeriesNumber", 2.5) == "2.500000"
    assert text_of(ENDPOINTS["getSeriesMetadata"], "ImageCount", 50) == "50"
    assert text_of(ENDPOINTS["getSeriesMetadata"], "PatientID", "100_HM10395") == "100_HM10395"


@pytest.mark.parametrize(
    ("call", "dialect", "asked", "form", "content_type", "download"),
    [
        ("getSeries", "nbia", None, Format.JSON, "application/json", False),
        ("getSeries", "nbia", "JSON", Format.JSON, "application/json", False),
        ("getSeries", "nbia", "Csv", Format.CSV, "text/csv", False),
        ("getSeries", "nbia", "CSVQUOTED", Format.CSV, "text/csv", False),
        ("getSeries", "nbia", "csv-download", Format.CSV, "text/csv", True),
        ("getCollectionValues", "nbia", "csv-download", Format.CSV, "application/force-download", True),
        ("getSeries", "nbia", "xml", Format.XML, "application/xml", False),
        ("getSeries", "nbia", "html", Format.HTML, "text/html", False),
        ("getSeriesMetadata", "nbia", None, Format.CSV, "text/csv", True),
        ("getSeriesMetadata", "nbia", "json", Format.JSON, "application/json", False),
        ("getSeries", "tcia", "bogus", Format.JSON, "application/json", False),
        ("getSeries", "tcia", "CSV", Format.CSV, "text/csv", False),
    ],
)
def test_the_format_parameter(
    call: str, dialect: DialectName, asked: str | None, form: Format, content_type: str, download: bool
) -> None:
    found, headers = find_format(ENDPOINTS[call], dialect, asked)
    assert (found, headers["Content-Type"]) == (form, content_type)
    assert (headers.get("Content-Disposition") == 'attachment; filename="SeriesMetaData.csv"') is download


@pytest.mark.parametrize(
    ("call", "asked"), [("getSeries", "bogus"), ("getSeries", ""), ("getCollectionValues", "CSVQUOTED")]
)
def test_the_nbia_server_knows_no_other_format(call: str, asked: str) -> None:
    assert find_format(ENDPOINTS[call], "nbia", asked) == (None, {})
