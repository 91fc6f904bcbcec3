"""Rows survive every format, and the files are what the field's programs read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import subprocess
import tracemalloc

import pytest
from msgspec.structs import astuple, replace

from mirror.errors import SettingsError
from mirror.manifest import (
    InstanceRow,
    SeriesRow,
    columns,
    download_servlet,
    read_csv,
    read_jsonl,
    read_series_uids,
    write_citations,
    write_csv,
    write_jsonl,
    write_licenses,
    write_sha256,
    write_tcia,
)

INSTANCE = InstanceRow(
    collection="TCGA-GBM", patient_id="TCGA-02-0001", study_instance_uid="1.2", series_instance_uid="1.2.3",
    sop_instance_uid="1.2.3.4", sop_class_uid="1.2.840.10008.5.1.4.1.1.4", modality="MR",
    path="TCGA-GBM/TCGA-02-0001/1.2/1.2.3/1.2.3.4.dcm", bytes=1234, sha256="ab" * 32, md5="cd" * 16,
    source="getSingleImage", fetched_at="2025-05-06T07:08:09Z", verified="length,header,md5", series_state="complete",
)  # fmt: skip
SERIES = SeriesRow(
    collection="TCGA-GBM", patient_id="TCGA-02-0001", study_instance_uid="1.2", series_instance_uid="1.2.3",
    modality="MR", body_part_examined="BRAIN", manufacturer="GE", study_date="1997-05-26", study_description="BRAIN",
    series_number="5", series_description="T1", image_count=2, file_size=2468, date_released="2014-01-02",
    license_name="CC BY 3.0", license_uri="http://creativecommons.org/licenses/by/3.0/",
    data_description_uri="https://doi.org/10.7937/K9/TCIA.2016.RNYFUYE9", path="TCGA-GBM/TCGA-02-0001/1.2/1.2.3",
    instances=1, bytes=1234, state="incomplete", findings="",
)  # fmt: skip
NASTY = [
    "",
    " lead",
    "trail ",
    'quo"te',
    "com,ma",
    "line\nfeed",
    "carriage\rreturn",
    "\r\n",
    "\t",
    "é患😀",
    "\u2028",
    "#x",
    "\0",
]


def nasty_series() -> list[SeriesRow]:
    rows = [replace(SERIES, series_description=text, findings=text, image_count=None, file_size=None) for text in NASTY]
    return [SERIES, *rows]


def nasty_instances() -> list[InstanceRow]:
    return [INSTANCE, *(replace(INSTANCE, patient_id=text, path=text) for text in NASTY)]


def test_csv_is_a_header_and_a_line_per_row():
    file = io.StringIO(newline="")
    assert write_csv(iter([INSTANCE]), file, InstanceRow) == 1
    assert file.getvalue() == (
        "collection,patient_id,study_instance_uid,series_instance_uid,sop_instance_uid,sop_class_uid,modality,path,bytes,"
        "sha256,md5,source,fetched_at,verified,series_state\n"
        "TCGA-GBM,TCGA-02-0001,1.2,1.2.3,1.2.3.4,1.2.840.10008.5.1.4.1.1.4,MR,"
        f"TCGA-GBM/TCGA-02-0001/1.2/1.2.3/1.2.3.4.dcm,1234,{'ab' * 32},{'cd' * 16},getSingleImage,2025-05-06T07:08:09Z,"
        '"length,header,md5",complete\n'
    )


def test_an_empty_csv_has_its_header():
    file = io.StringIO(newline="")
    assert write_csv(iter(()), file, SeriesRow) == 0
    assert file.getvalue() == ",".join(columns(SeriesRow)) + "\n"
    file.seek(0)
    assert list(read_csv(file, SeriesRow)) == []


@pytest.mark.parametrize("rows", [nasty_instances(), nasty_series()], ids=["instances", "series"])
def test_rows_survive_csv_and_any_csv_reader_sees_the_same(rows):
    file = io.StringIO(newline="")
    assert write_csv(iter(rows), file, type(rows[0])) == len(rows)
    file.seek(0)
    assert list(read_csv(file, type(rows[0]))) == rows
    file.seek(0)
    cells = [tuple("" if value is None else str(value) for value in astuple(row)) for row in rows]
    assert [tuple(line) for line in csv.reader(file)][1:] == cells


@pytest.mark.parametrize("rows", [nasty_instances(), nasty_series()], ids=["instances", "series"])
def test_rows_survive_json_lines(rows):
    file = io.StringIO(newline="")
    assert write_jsonl(iter(rows), file) == len(rows)
    file.seek(0)
    assert list(read_jsonl(file, type(rows[0]))) == rows
    lines = file.getvalue().split("\n")
    assert lines.pop() == ""
    assert [tuple(json.loads(line)) for line in lines] == [columns(type(rows[0]))] * len(rows)
    assert [tuple(json.loads(line).values()) for line in lines] == [astuple(row) for row in rows]


def test_reading_takes_columns_in_any_order_and_more_of_them():
    names = [*reversed(columns(InstanceRow)), "new_in_2030"]
    values = {**dict(zip(columns(InstanceRow), astuple(INSTANCE), strict=True)), "new_in_2030": "x"}
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, names)
    writer.writeheader()
    writer.writerow(values)
    table.seek(0)
    assert list(read_csv(table)) == [INSTANCE]
    assert list(read_jsonl(io.StringIO(json.dumps(values) + "\n\n"))) == [INSTANCE]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "manifest: the column collection is missing"),
        ("collection,path\nA,b\n", "manifest: the column patient_id is missing"),
        (",".join(columns(InstanceRow)) + "\nA\n", "manifest, line 2: not a row"),
        (",".join(columns(InstanceRow)) + "\n" + ",".join("x" * 15) + "\n", "manifest, line 2: .*bytes"),
        (",".join(columns(InstanceRow)) + '\nA,"unclosed\n', "manifest, line 2: not a row"),
    ],
)
def test_a_broken_csv_is_named(text, says):
    with pytest.raises(SettingsError, match=says):
        list(read_csv(io.StringIO(text, newline="")))


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"collection": 1}'])
def test_a_broken_json_line_is_named(line):
    good = io.StringIO()
    write_jsonl([INSTANCE], good)
    with pytest.raises(SettingsError, match="manifest, line 2: not a row"):
        list(read_jsonl(io.StringIO(good.getvalue() + line + "\n")))


def test_writing_and_reading_take_no_memory_per_row(tmp_path):
    def peak(rows: int) -> int:
        many = (replace(INSTANCE, sop_instance_uid=f"1.{n}", sha256=f"{n:064x}") for n in range(rows))
        path = tmp_path / f"{rows}.csv"
        tracemalloc.start()
        with path.open("w", encoding="utf-8", newline="\n") as file:
            write_csv(many, file, InstanceRow)
        with path.open(encoding="utf-8", newline="") as file:
            assert sum(1 for _ in read_csv(file)) == rows
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(4000) < peak(250) + 500_000
    assert (tmp_path / "4000.csv").stat().st_size > 1_000_000


def test_sha256sum_itself_accepts_every_name(tmp_path):
    rows = []
    names = [
        "plain.dcm",
        "with space.dcm",
        "é患😀.dcm",
        "back\\slash.dcm",
        "\\n.dcm",
        "new\nline.dcm",
        "cr\r.dcm",
        "*star",
        " x",
    ]
    for name in names:
        content = name.encode() * 3
        (tmp_path / name).write_bytes(content)
        rows.append(replace(INSTANCE, path=name, sha256=hashlib.sha256(content).hexdigest()))
    with (tmp_path / "SHA256SUMS").open("w", encoding="utf-8", newline="\n") as file:
        assert write_sha256(iter(rows), file) == len(names)
    check = ["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    (tmp_path / "back\\slash.dcm").write_bytes(b"other")
    damaged = subprocess.run(check, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert damaged.returncode == 1
    assert "slash.dcm: FAILED" in damaged.stdout


def test_tcia_manifest_is_what_the_nbia_data_retriever_writes():
    file = io.StringIO()
    hostile = ["1.2.3", "1.2\n9.9", "drop table", "1.2.4", "1,5"]
    assert (
        write_tcia(
            hostile, file, name="my mirror:1.tcia", server="https://nlst.cancerimagingarchive.net/nbia-api/services/v4/"
        )
        == 2
    )
    assert file.getvalue() == (
        "downloadServerUrl=https://nlst.cancerimagingarchive.net/nbia-download/servlet/DownloadServlet\n"
        "includeAnnotation=true\n"
        "noOfrRetry=4\n"
        "databasketId=my-mirror-1.tcia\n"
        "manifestVersion=3.0\n"
        "ListOfSeriesToDownload=\n"
        "1.2.3\n"
        "1.2.4\n"
    )
    assert read_series_uids(file.getvalue(), "x.tcia") == ["1.2.3", "1.2.4"]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("https://nbia.example.org:8443/nbia-api/services/v4/", "https://nbia.example.org:8443/nbia-download"),
        ("https://example.org/a/nbia-api/services/v4/", "https://example.org/a/nbia-download"),
        ("http://10.0.0.7/nbia-api/services/v4/", "http://10.0.0.7/nbia-download"),
        ("http://127.0.0.1:4711/nbia-api/services/v4/", "https://nbia.cancerimagingarchive.net/nbia-download"),
        ("http://[::1]:4711/nbia-api/services/v4/", "https://nbia.cancerimagingarchive.net/nbia-download"),
        ("http://localhost/nbia-api/services/v4/", "https://nbia.cancerimagingarchive.net/nbia-download"),
        (
            "https://services.cancerimagingarchive.net/services/v4/TCIA/query/",
            "https://nbia.cancerimagingarchive.net/nbia-download",
        ),
        ("", "https://nbia.cancerimagingarchive.net/nbia-download"),
    ],
)
def test_the_retriever_is_sent_to_a_server_that_it_can_use(server, expected):
    assert download_servlet(server) == expected + "/servlet/DownloadServlet"


HEAD = "downloadServerUrl=https://x/servlet\r\nincludeAnnotation=true\r\n"


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "ListOfSeriesToDownload=\r\n1.2.3\r\n1.2.4\r\n",
        "\ufeff" + HEAD + "listofseriestodownload=\n\n 1.2.3, \n1.2.3\nnoise 7\n1.2.4",
        "ListOfSeriesToDownload=1.2.3\n1.2.4",
        "1.2.3\n1.2.4\n",
        "# a comment\n\n  1.2.3  # first\r\n1.2.4,\n1.2.3\n",
        "\ufeffSeriesInstanceUID\n1.2.3\n1.2.4\n",
        "# made by hand\nCollection,seriesinstanceuid\nA,1.2.3\n\nB,1.2.4\n",
        'Collection\tSeries UID\n"A\nB"\t1.2.3\nB\t 1.2.4\n',
        '"series_instance_uid";x\r\n1.2.3;"a;b"\r\n1.2.4;\r\n',
    ],
)
def test_series_lists_in_every_shape(text):
    assert read_series_uids(text, "list") == ["1.2.3", "1.2.4"]


def test_our_own_manifest_is_a_series_list():
    file = io.StringIO(newline="")
    write_csv([*nasty_series(), replace(SERIES, series_instance_uid="9.9")], file, SeriesRow)
    assert read_series_uids(file.getvalue(), "manifest-series.csv") == ["1.2.3", "9.9"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "list: no SeriesInstanceUID"),
        ("# nothing\n", "list: no SeriesInstanceUID"),
        (HEAD + "ListOfSeriesToDownload=\n", "list: no SeriesInstanceUID"),
        ("SeriesInstanceUID\n", "list: no SeriesInstanceUID"),
        (HEAD + "1.2.3\n", "list, line 1: 'downloadServerUrl=https://x/servlet' is no"),
        ("1.2.3\n\nTCGA-GBM\n", "list, line 3: 'TCGA-GBM' is no"),
        ("1.2.3 1.2.4\n", "list, line 1: '1.2.3 1.2.4' is no"),
        ("123\n", "list, line 1: '123' is no"),
        ("1.2..3\n", "list, line 1"),
        ("#\nSeriesInstanceUID,x\n1.2.3,y\n,z\n", "list, line 4: '' is no"),
        ("x,SeriesInstanceUID\ny,1.2.3\nshort\n", "list, line 3: '' is no"),
        ('SeriesInstanceUID,x\n1.2.3,"unclosed\n1.2.4,y\n', "list, line 3: not readable as a table"),
        ("StudyInstanceUID,x\n1.2.3,y\n", "list, line 1: 'StudyInstanceUID,x' is no"),
    ],
)
def test_what_is_no_series_list_is_named_with_its_line(text, says):
    with pytest.raises(SettingsError, match=says):
        read_series_uids(text, "list")


def owed() -> list[SeriesRow]:
    by4 = {"license_name": "CC BY 4.0", "license_uri": "https://creativecommons.org/licenses/by/4.0/"}
    rows = [
        SERIES,
        replace(SERIES, data_description_uri="http://dx.doi.org/10.7937/k9/tcia.2016.rnyfuye9"),
        replace(SERIES, **by4, data_description_uri="10.7937/other"),
        replace(SERIES, collection="A\nB", license_name="", license_uri="", data_description_uri=""),
        replace(
            SERIES, collection="QIN", license_name=" line\nbreak ", data_description_uri="https://example.org/about"
        ),
    ]
    nothing_held = replace(SERIES, collection="NOT-HELD", instances=0)
    return [*rows, nothing_held]


def test_licences_per_collection_with_series_counts():
    file = io.StringIO()
    assert write_licenses(owed(), file) == 4
    head, body = file.getvalue().split("\n\n", 1)
    assert "https://www.cancerimagingarchive.net/data-usage-policies-and-restrictions/" in head
    assert body == (
        "A B\n"
        "  the archive states no licence (1 series)\n"
        "\n"
        "QIN\n"
        "  line break, http://creativecommons.org/licenses/by/3.0/ (1 series)\n"
        "\n"
        "TCGA-GBM\n"
        "  CC BY 3.0, http://creativecommons.org/licenses/by/3.0/ (2 series)\n"
        "  CC BY 4.0, https://creativecommons.org/licenses/by/4.0/ (1 series)\n"
    )


def test_citations_per_collection_and_the_archives_own():
    file = io.StringIO()
    assert write_citations(owed(), file) == 4
    head, body = file.getvalue().split("\n\nA B", 1)
    assert "https://www.cancerimagingarchive.net/data-usage-policies-and-restrictions/" in head
    assert "https://doi.org/10.1007/s10278-013-9622-7" in head
    assert "1045-1057" in head
    assert body == (
        "\n"
        "  the archive states no DOI (1 series)\n"
        "\n"
        "QIN\n"
        "  https://example.org/about (1 series)\n"
        "\n"
        "TCGA-GBM\n"
        "  https://doi.org/10.7937/K9/TCIA.2016.RNYFUYE9 (2 series)\n"
        "  https://doi.org/10.7937/other (1 series)\n"
    )


@pytest.mark.parametrize("write", [write_licenses, write_citations])
def test_what_is_owed_is_the_same_whatever_the_order_of_collections(write):
    rows = sorted(owed(), key=lambda row: row.collection)
    texts = set()
    for seed in range(5):
        order = ["A\nB", "NOT-HELD", "QIN", "TCGA-GBM"]
        random.Random(seed).shuffle(order)
        file = io.StringIO()
        write(sorted(rows, key=lambda row: order.index(row.collection)), file)
        texts.add(file.getvalue())
    assert len(texts) == 1


@pytest.mark.parametrize("write", [write_licenses, write_citations])
def test_a_mirror_that_holds_nothing_owes_nothing(write):
    file = io.StringIO()
    assert write([], file) == 0
    assert "cancerimagingarchive.net" in file.getvalue()
