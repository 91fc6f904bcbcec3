"""Where a series lies: record -> path in the tree. Pure. Hides what makes a name safe and how layouts are written.

A layout is a template: directories of literals and {Placeholders}, then the file's part. Every directory is made
safe as a whole after its placeholders are filled in, so nothing that the archive says can leave the root, name a
hidden file or upset a disk. A missing value is filled in as nothing; a directory that is then empty is named as
`safe_name("")`, which is `_~e3b0c442`. Two records that want the same name are told apart by the ledger, by the
identity that `Layout.directory` gives with each name: where the last directory does not contain the
SeriesInstanceUID, as in `{PatientID}/{SOPInstanceUID}.dcm`, the second series of a patient gets a suffix.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mirror.errors import SettingsError
from mirror.model import Series, Study

#: Names in the root that are the mirror's own, as a disk that folds case sees them; no directory gets one.
ROOT_FILES = frozenset(
    {"manifest.tcia", "sha256sums", "licenses", "citations"}
    | {f"manifest{table}.{kind}" for table in ("", "-series") for kind in ("csv", "jsonl", "parquet")}
)
#: Longest name in bytes of UTF-8. The ledger's suffix and a file's extension come on top; disks bear 255.
MAX_NAME_BYTES = 128

_MARK = re.compile(r"~[0-9a-f]{8}\Z", re.IGNORECASE)
_MARK_BYTES = 9
_FORBIDDEN = frozenset('/\\<>:"|?*')
#: Control, format (bidi, zero width), surrogate, unassigned, line separator, paragraph separator.
_FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})
#: Texts of which nothing is refused or stripped.
_PLAIN = re.compile(r"[A-Za-z0-9_-]+(?:[ .]+[A-Za-z0-9_-]+)*")
_RESERVED = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])\s*(\.|\Z)", re.IGNORECASE)
_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z")
#: What `number_names` gives.
_NUMBERED_NAME = re.compile(r"[0-9]+-[0-9]+\.dcm")


def safe_name(text: str) -> str:
    """One path component that stands for `text` and for no other text.

    A text that any disk takes as it is stays as it is. From any other, what is refused becomes "_", spaces and dots
    at the ends go, the length is cut, and "~" with eight digits of the text's SHA-256 says so; a text that ends like
    that already is marked as well. Names that differ only in case are not told apart here.
    """
    # Every object of a mirror has such a name, and all that follows leaves it as it is.
    if _UID.match(text) and len(text) <= MAX_NAME_BYTES:
        return text
    clean = _clean(text)
    if clean == text and not _MARK.search(text) and len(text.encode()) <= MAX_NAME_BYTES:
        return text
    return _marked(clean, text)


def _clean(text: str) -> str:
    kept = text
    # Nearly all names are plain, and a mirror has millions of them.
    if not _PLAIN.fullmatch(text):
        kept = "".join(
            "_" if char in _FORBIDDEN or unicodedata.category(char) in _FORBIDDEN_CATEGORIES else char
            for char in unicodedata.normalize("NFC", text)
        )
        # Whitespace and dots may stand around each other, so both are stripped at once.
        kept = re.sub(r"\A[\s.]+|[\s.]+\Z", "", kept)
    return f"_{kept}" if not kept or _RESERVED.match(kept) else kept


def _marked(clean: str, text: str) -> str:
    stem = clean.encode()[: MAX_NAME_BYTES - _MARK_BYTES].decode("utf-8", "ignore")
    return f"{stem}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _directory_name(text: str, *, at_root: bool) -> str:
    name = safe_name(text)
    return _marked(name, text) if at_root and name.casefold() in ROOT_FILES else name


#: Placeholder -> attribute of the series, or of the study where the series does not say.
_ATTRIBUTE_OF = {
    "Collection": "collection",
    "PatientID": "patient_id",
    "StudyInstanceUID": "study_instance_uid",
    "StudyDate": "study_date",
    "StudyDescription": "study_description",
    "StudyID": "study_id",
    "SeriesInstanceUID": "series_instance_uid",
    "SeriesNumber": "series_number",
    "SeriesDescription": "series_description",
    "Modality": "modality",
    "BodyPartExamined": "body_part_examined",
    "Manufacturer": "manufacturer",
    "DateReleased": "date_released",
}
#: The directory placeholders of a template.
PLACEHOLDERS = tuple(_ATTRIBUTE_OF)


def _value(placeholder: str, series: Series, study: Study | None) -> str:
    attribute = _ATTRIBUTE_OF[placeholder]
    value = getattr(series, attribute, None)
    if value is None:
        value = getattr(study, attribute, None)
    return "" if value is None else str(value)


# NBIA Data Retriever's descriptive folders: parts that are empty or "null" are left out with their hyphen.

_DESCRIPTION_LENGTH = 53
_UID_TAIL = 5


def _joined(*parts: str) -> str:
    return "-".join(part for part in parts if part and part != "null")


def _description(text: str) -> str:
    return text.replace("/", "-")[:_DESCRIPTION_LENGTH]


def _study_folder(series: Series, study: Study | None) -> str:
    day = re.sub(r"\A([0-9]{4})-([0-9]{2})-([0-9]{2})\Z", r"\2-\3-\1", _value("StudyDate", series, study))
    description = _description(_value("StudyDescription", series, study))
    return _joined(day, _value("StudyID", series, study), description, series.study_instance_uid[-_UID_TAIL:])


def _series_folder(series: Series, study: Study | None) -> str:
    number = _value("SeriesNumber", series, study)
    if match := re.fullmatch(r"(-?[0-9]+)(?:\.([0-9]{1,6})0*)?", number):
        number = f"{match[1]}.{match[2] or '':0<6}"
    description = _description(_value("SeriesDescription", series, study))
    return _joined(number, description, series.series_instance_uid[-_UID_TAIL:])


@dataclass(frozen=True, slots=True)
class _Directory:
    """One directory of a layout: how its name is made, and which values say whose it is."""

    render: Callable[[Series, Study | None], str]
    identity: tuple[str, ...]


def _templated(component: str) -> _Directory:
    def render(series: Series, study: Study | None) -> str:
        return re.sub(r"\{(\w+)\}", lambda match: _value(match[1], series, study), component)

    return _Directory(render, tuple(dict.fromkeys(re.findall(r"\{(\w+)\}", component))))


_UID_DIRECTORIES = "{Collection}/{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}"
_NUMBERED_FILE = "{Number}.dcm"
_TEMPLATES = {
    "uid": f"{_UID_DIRECTORIES}/{{SOPInstanceUID}}.dcm",
    "classic": f"{_UID_DIRECTORIES}/{_NUMBERED_FILE}",
}
#: The layouts that have a name; any other is a template.
LAYOUTS = ("uid", "classic", "descriptive")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where series and their files lie. `parse` makes one."""

    #: What was given; the ledger keeps it.
    name: str
    #: True: once a series is whole, its files are named by `number_names`.
    numbered: bool
    _directories: tuple[_Directory, ...] = field(repr=False, compare=False)
    #: What stands before and after the SOPInstanceUID in a file's name.
    _head: str = field(default="", repr=False, compare=False)
    _tail: str = field(default=".dcm", repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Layout:
        """The layout of that name, or of that template. Raises SettingsError that says what would be right."""
        if text == "descriptive":
            return cls(
                text,
                True,
                (
                    _templated("{Collection}"),
                    _templated("{PatientID}"),
                    _Directory(_study_folder, ("StudyInstanceUID",)),
                    _Directory(_series_folder, ("SeriesInstanceUID",)),
                ),
            )
        template = _TEMPLATES.get(text, text)
        if "/" not in template and "{" not in template:
            near = difflib.get_close_matches(text, LAYOUTS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(
                f"layout: {text!r} is none of {', '.join(LAYOUTS)}, nor a template such as {_TEMPLATES['uid']}{hint}"
            )
        *directories, file = template.split("/")
        if not directories:
            raise SettingsError(f"layout: {text!r} has no directory; for example: {{PatientID}}/{file}")
        for index, component in enumerate(directories):
            _check_component(text, component, PLACEHOLDERS, at_root=index == 0)
        parts = tuple(_templated(component) for component in directories)
        if file == _NUMBERED_FILE:
            return cls(text, True, parts)
        around = re.fullmatch(r"([^{}]*)\{SOPInstanceUID\}([^{}]*)", file)
        if around is None or len(file) > MAX_NAME_BYTES // 2:
            raise SettingsError(
                f"layout: the file's part of {text!r} must hold {{SOPInstanceUID}} once and little else, as in"
                f" {{SOPInstanceUID}}.dcm, or be {_NUMBERED_FILE}; it is {file!r}"
            )
        _check_component(text, file, ("SOPInstanceUID",), at_root=False)
        return cls(text, False, parts, around[1], around[2])

    def directory(self, series: Series, study: Study | None) -> list[tuple[str, str]]:
        """(safe name, identity) of each directory from the root downwards, as Ledger.claim_directory takes them.

        The identity is what the directory stands for: the exact values that its name is made of (in the named
        layouts, the identifier of that level), and for the last one the SeriesInstanceUID. A value comes from the
        series, and from the study where the series does not say.
        """
        last = len(self._directories) - 1
        parts: list[tuple[str, str]] = []
        for index, part in enumerate(self._directories):
            keywords = [*part.identity]
            if index == last and "SeriesInstanceUID" not in keywords:
                keywords.append("SeriesInstanceUID")
            identity = json.dumps([[keyword, _value(keyword, series, study)] for keyword in keywords])
            parts.append((_directory_name(part.render(series, study), at_root=index == 0), identity))
        return parts

    def file_name(self, sop_instance_uid: str) -> str:
        """The name of an instance's file; in a numbered layout, until the series is whole.

        Safe, and never the same for two UIDs of one series, even where the disk folds case: what is no UID is marked.
        """
        stem = self._head + sop_instance_uid
        name = safe_name(stem)
        if name == stem and not _UID.match(sop_instance_uid):
            name = _marked(name, stem)
        return name + self._tail

    def may_name(self, name: str, sop_instance_uid: str | None = None) -> bool:
        """True for a file name that this layout may have given: to that instance, or to any."""
        if self.numbered and _NUMBERED_NAME.fullmatch(name):
            return True
        if sop_instance_uid is not None:
            return name == self.file_name(sop_instance_uid)
        stem = name.removeprefix(self._head).removesuffix(self._tail)
        return name == self._head + stem + self._tail and bool(_UID.match(stem) or _MARK.search(stem))


def _check_component(text: str, component: str, allowed: Sequence[str], *, at_root: bool) -> None:
    """Raise SettingsError unless this component of the template `text` is sound whatever is filled in."""
    if component in ("", ".", ".."):
        raise SettingsError(
            f"layout: {text!r} has the component {component!r}; a template is relative to the root, names every"
            " directory, and leads nowhere else"
        )
    literal = re.sub(r"\{[^{}]*\}", "x", component)
    if "{" in literal or "}" in literal:
        raise SettingsError(f"layout: unbalanced braces in {component!r} of {text!r}")
    for name in re.findall(r"\{([^{}]*)\}", component):
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
            hint = f"; did you mean {{{near[0]}}}?" if near else ""
            have = ", ".join(f"{{{a}}}" for a in allowed)
            raise SettingsError(f"layout: unknown placeholder {{{name}}} in {component!r}{hint} It may be: {have}")
    if _directory_name(literal, at_root=at_root) != literal:
        raise SettingsError(
            f"layout: {component!r} of {text!r} is not a name that every disk takes, or one of the mirror's own"
        )


def number_names(rows: Sequence[tuple[str, int | None, int | None]]) -> dict[str, str]:
    """SOPInstanceUID -> NBIA Data Retriever's file name, `<a>-<n>.dcm`.

    `rows` are (SOPInstanceUID, AcquisitionNumber, InstanceNumber), sorted by InstanceNumber, then UID, each UID once.
    `a` is the ordinal of the run of equal AcquisitionNumbers, `n` the ordinal in the run, as wide as the run's length.
    """
    names: dict[str, str] = {}
    for a, (_, run) in enumerate(itertools.groupby(rows, key=lambda row: row[1]), start=1):
        uids = [uid for uid, _, _ in run]
        width = len(str(len(uids)))
        names |= {uid: f"{a}-{n:0{width}}.dcm" for n, uid in enumerate(uids, start=1)}
    return names
