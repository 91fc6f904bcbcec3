"""Names are safe and injective, layouts are what they say, whatever the archive sends."""

from __future__ import annotations

import hashlib
import itertools
import random
import unicodedata
from pathlib import PurePosixPath

import pytest

from mirror.errors import SettingsError
from mirror.layout import MAX_NAME_BYTES, PLACEHOLDERS, ROOT_FILES, Layout, number_names, safe_name
from mirror.model import Series, Study

STUDY_UID = "1.3.6.1.4.1.14519.5.2.1.1111.22222"
SERIES_UID = "1.3.6.1.4.1.14519.5.2.1.3333.44444"
DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{d}{n}" for d in ("COM", "LPT") for n in "0123456789¹²³"
}


def a_series(**values) -> Series:
    return Series(
        **{
            "series_instance_uid": SERIES_UID,
            "collection": "TCGA-GBM",
            "patient_id": "TCGA-02-0001",
            "study_instance_uid": STUDY_UID,
            **values,
        }
    )


def a_study(**values) -> Study:
    return Study(**{"collection": "TCGA-GBM", "patient_id": "TCGA-02-0001", "study_instance_uid": STUDY_UID, **values})


def names(layout: str, series: Series, study: Study | None = None) -> list[str]:
    return [name for name, _ in Layout.parse(layout).directory(series, study)]


def mark(text: str) -> str:
    return "~" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


HOSTILE = [
    "", " ", ".", "..", "...", ". .", "/", "\\", "a/b", "a\\b", "../../etc/passwd", "..\\..", "/abs", "C:", "C:\\x",
    ".mirror", ".MIRROR", " .mirror", ".mirror\u200d", "\u202emirror", ".hidden", "~", "a ", " a", "a.", "a. .", "a\n",
    "a\r\n", "a\0b", "\x1b[31m", "a\x7f", "a\x85b", "a\u2028b", "a\u2029b", "\ufeffa", "\u200b", "\u202ea", "\u2066a",
    "\ud800", "a\udfff", "\ud83d", "\uffff", "\U000e0001", "\u00ad", "\u00a0", "\u3000a", "CON", "con", "Nul",
    "NUL.txt", "nul .txt", "com1", "COM1.2.3", "COM¹", "LPT9.dcm", "AUX.", "conin$", "a<b", "a>b", "a:b", 'a"b', "a|b",
    "a?b", "a*b", "cafe\u0301", "\u212b", "\uf900", "x" * 300, "é" * 65, "😀" * 33, "." * 300, "x" * 118 + ".é" * 10,
    "safe~0123abcd", "safe~0123ABCD", "_~e3b0c442", "_CON",
]  # fmt: skip

PLAIN = [
    "GBM_DSC_MRI_DRO_Bo=3T", "ZZ RIDER MR8 1", "TCGA-02-0001", "1.3.6.1.4.1.14519.5.2.1.1", "caf\u00e9", "患者 1",
    "a~b", "a~0123abc", "~", "a..b", "(x) [y] {z} #1 & 100%", "x" * 128, "é" * 64, "CONSOLE", "COM10", "mirror", "😀",
    "-rf", "_",
]  # fmt: skip


@pytest.mark.parametrize("text", PLAIN)
def test_what_every_disk_takes_stays_as_it_is(text):
    assert safe_name(text) == text


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("", "_"),
        ("..", "_"),
        ("../../etc/passwd", "_.._etc_passwd"),
        (".mirror", "mirror"),
        ("a/b", "a_b"),
        ("a\\b", "a_b"),
        (" a. ", "a"),
        ("a\0b\u2028c\u202ed", "a_b_c_d"),
        ("NUL.txt", "_NUL.txt"),
        ("cafe\u0301", "caf\u00e9"),
        ("\ud800", "_"),
        ("x" * 300, "x" * 119),
        ("é" * 65, "é" * 59),
        ("safe~0123abcd", "safe~0123abcd"),
    ],
)
def test_what_is_changed_is_marked_with_the_digest_of_the_original(text, stem):
    assert safe_name(text) == stem + mark(text)


def strings() -> list[str]:
    """Hostile texts, all short texts over nasty characters, every character of the basic plane, and random mixtures."""
    nasty = "a. /\\~\u0301\u202e\ud800_"
    short = ["".join(chars) for size in (1, 2, 3, 4) for chars in itertools.product(nasty, repeat=size)]
    each = [f"{lead}{chr(code)}{tail}" for code in range(0x10000) for lead, tail in (("", ""), ("p", "q"))]
    dice = random.Random(20250506)  # the same texts in every run
    pool = [*HOSTILE, *PLAIN, *nasty]
    mixed = ["".join(dice.choices(pool, k=dice.randint(1, 6))) for _ in range(5000)]
    marked = [safe_name(text) for text in HOSTILE]
    return list(dict.fromkeys([*HOSTILE, *PLAIN, *short, *each, *mixed, *marked]))


def test_every_name_is_one_safe_component_and_no_two_texts_share_one():
    owner: dict[str, str] = {}
    for text in strings():
        name = safe_name(text)
        assert owner.setdefault(name, text) == text
        assert name not in ("", ".", "..")
        assert len(name.encode()) <= MAX_NAME_BYTES
        assert not set(name) & set('/\\<>:"|?*')
        assert not {unicodedata.category(c) for c in name} & {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}
        assert name == name.strip()
        assert not name.startswith(".")
        assert not name.endswith(".")
        assert unicodedata.is_normalized("NFC", name)
        assert PurePosixPath("root", name).parts == ("root", name)
        assert name.split(".")[0].strip().upper() not in DEVICES
        assert name.casefold() != ".mirror"
        assert name == text or name.endswith(mark(text))


def test_a_produced_name_given_as_text_is_marked_again():
    produced = safe_name("a/b")
    assert safe_name(produced) == produced + mark(produced)


@pytest.mark.parametrize(
    ("layout", "numbered", "file"),
    [
        ("uid", False, "1.2.3.dcm"),
        ("classic", True, "1.2.3.dcm"),
        ("descriptive", True, "1.2.3.dcm"),
        ("{PatientID}/IM-{SOPInstanceUID}", False, "IM-1.2.3"),
        ("{PatientID}/x/{Number}.dcm", True, "1.2.3.dcm"),
    ],
)
def test_parse_gives_name_numbering_and_file_name(layout, numbered, file):
    parsed = Layout.parse(layout)
    assert parsed.name == layout
    assert parsed.numbered is numbered
    assert parsed.file_name("1.2.3") == file


def test_equal_text_is_an_equal_layout():
    assert Layout.parse("uid") == Layout.parse("uid")
    assert Layout.parse("uid") != Layout.parse("classic")


@pytest.mark.parametrize("layout", ["uid", "classic"])
def test_uid_and_classic_directories(layout):
    assert Layout.parse(layout).directory(a_series(), None) == [
        ("TCGA-GBM", '[["Collection", "TCGA-GBM"]]'),
        ("TCGA-02-0001", '[["PatientID", "TCGA-02-0001"]]'),
        (STUDY_UID, f'[["StudyInstanceUID", "{STUDY_UID}"]]'),
        (SERIES_UID, f'[["SeriesInstanceUID", "{SERIES_UID}"]]'),
    ]


def test_descriptive_directories_are_those_of_the_nbia_data_retriever():
    series = a_series(series_number="500", series_description="T1/T2 " + "s" * 60, study_date="1997-05-26")
    study = a_study(study_id="MR1", study_description="BRAIN W/O " + "d" * 60)
    assert Layout.parse("descriptive").directory(series, study) == [
        ("TCGA-GBM", '[["Collection", "TCGA-GBM"]]'),
        ("TCGA-02-0001", '[["PatientID", "TCGA-02-0001"]]'),
        (f"05-26-1997-MR1-BRAIN W-O {'d' * 43}-22222", f'[["StudyInstanceUID", "{STUDY_UID}"]]'),
        (f"500.000000-T1-T2 {'s' * 47}-44444", f'[["SeriesInstanceUID", "{SERIES_UID}"]]'),
    ]


@pytest.mark.parametrize(
    ("values", "study_values", "expected"),
    [
        ({}, None, ["22222", "44444"]),
        ({"series_description": "null", "study_description": "null"}, {"study_id": "null"}, ["22222", "44444"]),
        ({"series_description": ""}, {"study_id": "", "study_date": "2000-01-02"}, ["01-02-2000-22222", "44444"]),
        ({"series_number": "2.5"}, {"study_description": "CT"}, ["CT-22222", "2.500000-44444"]),
        ({"series_number": "-1"}, None, ["22222", "-1.000000-44444"]),
        ({"series_number": "7.000000"}, None, ["22222", "7.000000-44444"]),
        ({"series_number": "1e+30", "study_date": "soon"}, None, ["soon-22222", "1e+30-44444"]),
    ],
)
def test_descriptive_leaves_out_what_is_empty_or_null(values, study_values, expected):
    study = None if study_values is None else a_study(**study_values)
    assert names("descriptive", a_series(**values), study)[2:] == expected


def test_descriptive_studies_that_look_alike_have_their_own_identity():
    twin = "9.9.22222"
    layout = Layout.parse("descriptive")
    ours = layout.directory(a_series(study_date="2000-01-01"), None)[2]
    theirs = layout.directory(a_series(study_date="2000-01-01", study_instance_uid=twin), None)[2]
    assert ours[0] == theirs[0] == "01-01-2000-22222"
    assert ours[1] != theirs[1]


def test_a_template_takes_the_series_word_and_else_the_studys():
    layout = "data/{Collection}_{StudyDate}/{StudyDescription}-{StudyID}/{Modality}/{SOPInstanceUID}.dcm"
    series = a_series(study_description="of the series", modality="MR")
    study = a_study(study_description="of the study", study_id="7", study_date="2001-02-03")
    assert Layout.parse(layout).directory(series, study) == [
        ("data", "[]"),
        ("TCGA-GBM_2001-02-03", '[["Collection", "TCGA-GBM"], ["StudyDate", "2001-02-03"]]'),
        ("of the series-7", '[["StudyDescription", "of the series"], ["StudyID", "7"]]'),
        ("MR", f'[["Modality", "MR"], ["SeriesInstanceUID", "{SERIES_UID}"]]'),
    ]


def test_every_placeholder_is_filled_in():
    values = {
        "series_number": "3", "series_description": "sd", "modality": "CT", "body_part_examined": "LUNG",
        "manufacturer": "ACME", "date_released": "2020-01-01", "study_date": "2019-01-01", "study_description": "std",
    }  # fmt: skip
    layout = "/".join(f"{{{name}}}" for name in PLACEHOLDERS) + "/{SOPInstanceUID}.dcm"
    assert dict(zip(PLACEHOLDERS, names(layout, a_series(**values), a_study(study_id="id")), strict=True)) == {
        "Collection": "TCGA-GBM", "PatientID": "TCGA-02-0001", "StudyInstanceUID": STUDY_UID, "StudyDate": "2019-01-01",
        "StudyDescription": "std", "StudyID": "id", "SeriesInstanceUID": SERIES_UID, "SeriesNumber": "3",
        "SeriesDescription": "sd", "Modality": "CT", "BodyPartExamined": "LUNG", "Manufacturer": "ACME",
        "DateReleased": "2020-01-01",
    }  # fmt: skip


def test_a_missing_value_is_filled_in_as_nothing():
    layout = "{PatientID}/{StudyDate}/{StudyDate}-{Modality}/{SOPInstanceUID}.dcm"
    assert names(layout, a_series(patient_id="", modality="MR")) == ["_~e3b0c442", "_~e3b0c442", "-MR"]


def test_identities_keep_what_names_lose():
    layout = Layout.parse("{PatientID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm")
    seen = {layout.directory(a_series(patient_id=p), None)[0][1] for p in ("a", "A", "a ", "a\0", "\ud800", 'a"]')}
    assert len(seen) == 6
    assert all(identity.isascii() and "\0" not in identity for identity in seen)


def test_two_series_in_one_directory_have_their_own_identity():
    layout = Layout.parse("{PatientID}/{SOPInstanceUID}.dcm")
    (ours,) = layout.directory(a_series(), None)
    (theirs,) = layout.directory(a_series(series_instance_uid="1.2"), None)
    assert ours[0] == theirs[0] == "TCGA-02-0001"
    assert ours[1] != theirs[1]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "layout", ["uid", "descriptive", "{PatientID}{Collection}/{StudyDescription}x/{SOPInstanceUID}.dcm"]
)
def test_no_record_leaves_the_root(layout, text):
    hostile = Series(
        series_instance_uid=text, collection=text, patient_id=text, study_instance_uid=text, series_number=text,
        series_description=text, study_description=text, study_date=text,
    )  # fmt: skip
    parsed = Layout.parse(layout)
    parts = [*(name for name, _ in parsed.directory(hostile, None)), parsed.file_name(text)]
    assert PurePosixPath("/root", *parts).parts == ("/", "root", *parts)
    assert all(part == unicodedata.normalize("NFC", part) and not part.startswith(".") for part in parts)
    assert all(len(part.encode()) <= MAX_NAME_BYTES + len(".dcm") for part in parts)


@pytest.mark.parametrize("name", ["manifest.csv", "LICENSES", "licenses", "sha256sums", "Manifest-Series.Parquet"])
def test_no_directory_takes_the_place_of_the_mirrors_own_files(name):
    assert names("uid", a_series(collection=name, patient_id=name))[:2] == [name + mark(name), name]
    assert name.casefold() in ROOT_FILES


@pytest.mark.parametrize(
    ("uid", "expected"),
    [
        ("1.2.840.10008.1", "1.2.840.10008.1.dcm"),
        ("../x", "_x" + mark("../x") + ".dcm"),
        ("ABC", "ABC" + mark("ABC") + ".dcm"),
        ("abc", "abc" + mark("abc") + ".dcm"),
        ("1-1", "1-1" + mark("1-1") + ".dcm"),
        ("1.2\n", "1.2_" + mark("1.2\n") + ".dcm"),
        ("", "_~e3b0c442.dcm"),
    ],
)
def test_file_names_differ_by_more_than_case(uid, expected):
    assert Layout.parse("uid").file_name(uid) == expected


def test_a_file_name_with_a_literal_is_no_device():
    name = Layout.parse("{PatientID}/COM{SOPInstanceUID}.dcm").file_name("1.2.3")
    assert name == "_COM1.2.3" + mark("COM1.2.3") + ".dcm"


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("clasic", "did you mean 'classic'"),
        ("", "none of uid, classic, descriptive"),
        ("{SOPInstanceUID}.dcm", "has no directory"),
        ("{PatientId}/{SOPInstanceUID}.dcm", r"did you mean \{PatientID\}.*\{DateReleased\}"),
        ("{SOPInstanceUID}/{SOPInstanceUID}.dcm", r"unknown placeholder \{SOPInstanceUID\}"),
        ("{qqqqq}/{SOPInstanceUID}.dcm", r"unknown placeholder \{qqqqq\}"),
        ("{}/{SOPInstanceUID}.dcm", r"unknown placeholder \{\}"),
        ("{PatientID/{SOPInstanceUID}.dcm", "unbalanced braces"),
        ("PatientID}/{SOPInstanceUID}.dcm", "unbalanced braces"),
        ("{{PatientID}}/{SOPInstanceUID}.dcm", "unbalanced braces"),
        ("/{PatientID}/{SOPInstanceUID}.dcm", "relative to the root"),
        ("{PatientID}//{SOPInstanceUID}.dcm", "relative to the root"),
        ("../{PatientID}/{SOPInstanceUID}.dcm", "has the component '..'"),
        ("{PatientID}/./{SOPInstanceUID}.dcm", "has the component '.'"),
        (".mirror/{SOPInstanceUID}.dcm", "not a name that every disk takes"),
        (".{Modality}/{SOPInstanceUID}.dcm", "not a name that every disk takes"),
        ("C:/{PatientID}/{SOPInstanceUID}.dcm", "not a name that every disk takes"),
        ("{PatientID}\\x/{SOPInstanceUID}.dcm", "not a name that every disk takes"),
        ("Licenses/{PatientID}/{SOPInstanceUID}.dcm", "one of the mirror's own"),
        ("{PatientID}/", "the file's part"),
        ("{PatientID}/x.dcm", "the file's part"),
        ("{PatientID}/{Number}", "the file's part"),
        ("{PatientID}/{number}.dcm", "the file's part"),
        ("{PatientID}/{Modality}-{SOPInstanceUID}.dcm", "the file's part"),
        ("{PatientID}/{SOPInstanceUID}{SOPInstanceUID}.dcm", "the file's part"),
        ("{PatientID}/{SOPInstanceUID}.dcm" + "x" * 60, "the file's part"),
        ("{PatientID}/{SOPInstanceUID}.", "not a name that every disk takes"),
        ("{PatientID}/{SOPInstanceUID}?.dcm", "not a name that every disk takes"),
    ],
)
def test_a_wrong_layout_says_what_is_wrong(layout, says):
    with pytest.raises(SettingsError, match=says):
        Layout.parse(layout)


def test_number_names_are_run_and_ordinal():
    rows = [("u1", 7, 1), ("u2", 7, 2), ("u3", 9, 3), ("u4", None, 4), ("u5", None, None), ("u6", 7, None)]
    assert number_names(rows) == {
        "u1": "1-1.dcm", "u2": "1-2.dcm", "u3": "2-1.dcm", "u4": "3-1.dcm", "u5": "3-2.dcm", "u6": "4-1.dcm",
    }  # fmt: skip


def test_number_names_are_as_wide_as_the_run():
    assert [*number_names([(str(n), None, n) for n in range(10)]).values()][::9] == ["1-01.dcm", "1-10.dcm"]
    assert [*number_names([(str(n), None, n) for n in range(9)]).values()][::8] == ["1-1.dcm", "1-9.dcm"]


def test_number_names_are_distinct():
    dice = random.Random(7)
    for size in (0, 1, 12, 345):
        rows = [(f"1.{n}", dice.choice([None, 1, 2]), n // 2) for n in range(size)]
        assert len(set(number_names(rows).values())) == size
