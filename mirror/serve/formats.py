"""Rows as the bytes each dialect's server sends: JSON, CSV, XML and HTML. Pure, and one row at a time.

Hides the two servers' habits of quoting, of nulls and of numbers. Faithful but for faults of theirs, which docs/api.md
lists: what is a comma in a value, a null in the first column or a < is never taken for anything else here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from mirror.archive.endpoints import Answer, DialectName, Endpoint, Format, Param
from mirror.archive.fields import FIELDS, Kind, canonical

Wire = Mapping[str, Any]
Pieces = Generator[bytes, None, None]
Encoder = Callable[[Endpoint, Iterable[Wire]], Pieces]

CONTENT_TYPES = {
    Format.JSON: "application/json",
    Format.CSV: "text/csv",
    Format.XML: "application/xml",
    Format.HTML: "text/html",
}
CSV_DOWNLOAD = 'attachment; filename="SeriesMetaData.csv"'


def find_format(endpoint: Endpoint, dialect: DialectName, asked: str | None) -> tuple[Format | None, dict[str, str]]:
    """The format that a `format` parameter means, and the answer's headers. None: the nbia server knows no such.

    The tcia server takes whatever it does not know for JSON.
    """
    if asked is None or endpoint.formats == (Format.JSON,):
        by_default = Format.CSV if endpoint.name == "getSeriesMetadata" else Format.JSON
        return by_default, _headers(by_default, download=by_default is Format.CSV)
    name = asked.lower()
    if name in endpoint.formats:
        form = Format(name)
        return form, _headers(form, download=form is Format.CSV and endpoint.name == "getSeriesMetadata")
    if dialect == "tcia":
        return Format.JSON, _headers(Format.JSON)
    single = len(endpoint.nbia_fields) == 1
    if name == "csvquoted" and not single:
        return Format.CSV, _headers(Format.CSV)
    if name == "csv-download":
        headers = _headers(Format.CSV, download=True)
        return Format.CSV, headers | ({"Content-Type": "application/force-download"} if single else {})
    return None, {}


def _headers(form: Format, *, download: bool = False) -> dict[str, str]:
    return {"Content-Type": CONTENT_TYPES[form]} | ({"Content-Disposition": CSV_DOWNLOAD} if download else {})


def encode_rows(endpoint: Endpoint, dialect: DialectName, form: Format, rows: Iterable[Wire]) -> Pieces:
    """The body in pieces, one per row and a few more. The nbia server sends no body at all for no rows; see app."""
    return _ENCODERS[dialect, form](endpoint, rows)


def text_of(endpoint: Endpoint, name: str, value: Any) -> str:
    """A value of the nbia server where it is text: decimals keep the scale of their column."""
    field = FIELDS.get(endpoint.canonical(name))
    if field is not None and not isinstance(value, str) and (field.kind is Kind.DECIMAL or name == "TotalSizeInBytes"):
        return f"{value}.000000" if isinstance(value, int) else f"{value:.6f}"
    return str(value)


def describe(endpoint: Endpoint) -> dict[str, Any]:
    """The tcia dialect's metadata document of a call, made from the endpoint table."""
    params = [
        {"name": p.wire("tcia"), "description": _param_text(p), "type": p.kind.value, "required": p.required}
        for p in endpoint.wire_params("tcia")
    ]
    if endpoint.answer is Answer.ROWS:
        params.append({"name": "format", "description": "Format of the answer", "type": "string", "required": False})
    returns = {Answer.ROWS: [f.value.upper() for f in endpoint.formats], Answer.ZIP: ["ZIP"], Answer.DICOM: ["DICOM"]}
    return {
        "name": (endpoint.tcia or endpoint.name).rpartition("/")[2],
        "description": endpoint.text,
        "queryParameters": params,
        "returnTypes": returns.get(endpoint.answer, ["TEXT"]),
        "returnAttributes": [
            {"name": name, "dicomTag": field.tag, "type": field.kind.value, "description": field.text}
            for name in endpoint.tcia_fields
            if (field := FIELDS.get(canonical(name)))
        ],
    }


def _param_text(param: Param) -> str:
    return "Day, YYYY-MM-DD; the day itself is included" if param.kind is Kind.DATE else param.about


# JSON


def _json(endpoint: Endpoint, rows: Iterable[Wire]) -> Pieces:
    encoder = msgspec.json.Encoder()
    lead = b"["
    for row in rows:
        yield lead + encoder.encode(row)
        lead = b","
    yield b"]" if lead == b"," else b"[]"


def _nbia_json(endpoint: Endpoint, rows: Iterable[Wire]) -> Pieces:
    if (numbers := endpoint.numbers) is not None:
        rows = ({k: v if k in numbers else text_of(endpoint, k, v) for k, v in row.items()} for row in rows)
    return _json(endpoint, rows)


# CSV

_SPLITS = re.compile(r'[,\r\n]|^"')


def _nbia_csv(endpoint: Endpoint, rows: Iterable[Wire]) -> Pieces:
    names = endpoint.nbia_fields
    if len(names) == 1:
        yield f"{names[0]}\n".encode()
        for row in rows:
            value = row.get(names[0])
            yield b"\n\n" if value is None else f"{text_of(endpoint, names[0], value)}\n".encode()
        return
    line = _plain if endpoint.older else _quoted
    yield line(names)
    for row in rows:
        yield line(["" if row.get(name) is None else text_of(endpoint, name, row[name]) for name in names])


def _quoted(values: Sequence[str]) -> bytes:
    return (",".join('"' + value.replace('"', '""') + '"' for value in values) + "\n").encode()


def _plain(values: Sequence[str]) -> bytes:
    """Not quoted, as before v4; but where a value would be taken for two, it is."""
    cells = ('"' + v.replace('"', '""') + '"' if _SPLITS.search(v) else v for v in values)
    return (",".join(cells) + "\n").encode()


def _tcia_csv(endpoint: Endpoint, rows: Iterable[Wire]) -> Pieces:
    names = endpoint.tcia_fields
    yield ",".join(names).encode()
    for row in rows:
        values = ("" if row.get(name) is None else _script_quoted(str(row[name])) for name in names)
        yield ("\n" + ",".join(values)).encode()


_SCRIPT = {
    '"': '\\"', "'": "\\'", "\\": "\\\\", "/": "\\/",
    "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
}  # fmt: skip
_NOT_IN_SCRIPT = re.compile(r"""["'\\/]|[^ -\x7f]""")


def _in_script(match: re.Match[str]) -> str:
    if known := _SCRIPT.get(match[0]):
        return known
    units = memoryview(match[0].encode("utf-16-le")).cast("H")
    return "".join(f"\\u{unit:04X}" for unit in units)


def _script_quoted(value: str) -> str:
    return '"' + _NOT_IN_SCRIPT.sub(_in_script, value) + '"'


# XML

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9,.\-_ ]")
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def _entity(match: re.Match[str]) -> str:
    char = match[0]
    if (char < " " and char not in "\t\n\r") or char in "\ufffe\uffff":  # no characters of XML, even so written
        return "&#xfffd;"
    return _NAMED.get(char) or f"&#x{ord(char):x};"


def _escaped(value: str) -> str:
    """Encoded as the nbia server does it: everything but letters, digits and a few marks as an entity."""
    return _NOT_PLAIN.sub(_entity, value)


def _java_type(endpoint: Endpoint, name: str) -> str:
    if endpoint.numbers is not None and name not in endpoint.numbers:
        return "java.lang.String"
    field = FIELDS[endpoint.canonical(name)]
    if field.kind is Kind.DECIMAL or name in ("TotalSizeInBytes", "FileSize"):
        return "java.math.BigDecimal"
    return "java.math.BigInteger" if field.kind is Kind.INTEGER else "java.lang.String"


_NOT_IN_A_TAG = re.compile(r"^(?=\d)|[^A-Za-z0-9_.-]")


def _nbia_xml(endpoint: Endpoint, rows: Iterable[Wire]) -> Pieces:
    # Some columns have names that no element may have: "PixelSpacing(mm)-Row", "3rd Party Analysis".
    tags = {name: _NOT_IN_A_TAG.sub("_", name) for name in endpoint.nbia_fields}
    yield b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Results>'
    for row in rows:
        columns = "".join(
            f"<{tag} type='{_java_type(endpoint, name)}'>{_escaped(text_of(endpoint, name, row[name]))}</{tag}>"
            for name, tag in tags.items()
            if row.get(name) is not None
        )
        yield f"<Row>{columns}</Row>".encode()
    yield b"</Results>"


def _sql_type(name: str) -> str:
    field = FIELDS[canonical(name)]
    if field.kind is Kind.DECIMAL or name == "TotalSizeInBytes":
        return "DECIMAL"
    return {Kind.INTEGER: "BIGINT", Kind.DATE: "DATE"}.get(field.kind, "VARCHAR")


def _tcia_xml(endpoint: Endpoint, rows: Iterable[Wire]) -> Pieces:
    yield b"<Results>"
    for row in rows:
        columns = "".join(
            f"<{name} type='{_sql_type(name)}' >{'' if row.get(name) is None else _escaped(str(row[name]))}</{name}>\n"
            for name in endpoint.tcia_fields
        )
        yield f"\n<Row>\n{columns}</Row>".encode()
    yield b"\n</Results>"


# HTML


def _nbia_html(endpoint: Endpoint, rows: Iterable[Wire]) -> Pieces:
    yield b"<P ALIGN='center'><TABLE BORDER=1>" + _table_row(endpoint.nbia_fields, "TH")
    for row in rows:
        cells = [
            "&nbsp;" if row.get(name) is None else _escaped(text_of(endpoint, name, row[name]))
            for name in endpoint.nbia_fields
        ]
        yield _table_row(cells, "TD")
    yield b"</TABLE></P>"


def _tcia_html(endpoint: Endpoint, rows: Iterable[Wire]) -> Pieces:
    def line(cells: Sequence[str], tag: str) -> bytes:
        return _table_row(cells, tag).replace(b"<TR>", b"<TR>\n", 1) + b"\n"

    yield b"<HTML><BODY><P ALIGN='center'><TABLE id='data' BORDER=1>\n<thead>" + line(endpoint.tcia_fields, "TH")
    yield b"</thead><tbody>"
    for row in rows:
        yield line(["null" if row.get(n) is None else _escaped(str(row[n])) for n in endpoint.tcia_fields], "TD")
    yield b"</tbody></TABLE></P></BODY></HTML>"


def _table_row(cells: Sequence[str], tag: str) -> bytes:
    return ("<TR>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</TR>").encode()


_ENCODERS: dict[tuple[DialectName, Format], Encoder] = {
    ("nbia", Format.JSON): _nbia_json,
    ("nbia", Format.CSV): _nbia_csv,
    ("nbia", Format.XML): _nbia_xml,
    ("nbia", Format.HTML): _nbia_html,
    ("tcia", Format.JSON): _json,
    ("tcia", Format.CSV): _tcia_csv,
    ("tcia", Format.XML): _tcia_xml,
    ("tcia", Format.HTML): _tcia_html,
}
