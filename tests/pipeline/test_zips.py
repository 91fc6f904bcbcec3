"""A series as one zip: what is in it is never taken for what is in the series."""

from __future__ import annotations

import io
import random
import zipfile

import pytest
from fakes.dicom import make_series, uid
from fakes.faults import Fault, cut, edit_rows, empty, flip_in_zip, html, no_such_call, short, short_zip, status, swap
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, findings, kinds, truth
from fakes.zips import Members, bytes_of, claim_size, corrupt_member, is_image, make_zip, members_of, with_other_pixels

from mirror.errors import ExitCode
from mirror.model import FindingKind, Scope, SeriesState

SERIES = uid(2, 1, 2, 1)
OTHER = uid(2, 1, 1, 1)
BRAIN = Scope(collections=("Brain Beta",))


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


def add_md5_of_nothing(members: Members) -> Members:
    """A wrong MD5 in the archive's own list for one member."""
    name, _ = members[1]
    listed = dict(members)["md5hashes.csv"].decode().splitlines()
    wrong = [f"{name},{'0' * 32}" if line.startswith(f"{name},") else line for line in listed]
    return [(n, "\n".join(wrong).encode() if n == "md5hashes.csv" else b) for n, b in members]


#: Fault, how many of the 12 images are held after it, and a kind of finding that must be told.
LASTING: dict[str, tuple[Fault, int, FindingKind]] = {
    "short": (short_zip(3), 9, FindingKind.INSTANCES_MISSING),
    "licence only": (short_zip(12), 0, FindingKind.INSTANCES_MISSING),
    "no member at all": (members_of(lambda _: []), 0, FindingKind.INSTANCES_MISSING),
    "cut": (cut(0.5), 0, FindingKind.UNAVAILABLE),
    "cut, and the end says so": (short(0.5), 0, FindingKind.UNAVAILABLE),
    "empty": (empty(), 0, FindingKind.UNAVAILABLE),
    "html": (html(), 0, FindingKind.UNAVAILABLE),
    "500": (status(500), 0, FindingKind.UNAVAILABLE),
    "400": (status(400, "The user has not been granted the access"), 0, FindingKind.SERIES_REFUSED),
    "another series": (swap(SeriesInstanceUID=OTHER), 0, FindingKind.WRONG_SERIES),
    "a corrupt member": (corrupt_member("00000005.dcm"), 11, FindingKind.TRUNCATED),
    "a flipped pixel": (flip_in_zip(4), 11, FindingKind.MD5_DIFFERS),
    "a wrong MD5": (members_of(add_md5_of_nothing), 11, FindingKind.MD5_DIFFERS),
    "an empty member": (
        members_of(lambda members: [(n, b"" if n == "00000003.dcm" else b) for n, b in members]),
        11,
        FindingKind.NOT_DICOM,
    ),
    "a text among the images": (
        members_of(lambda members: [(n, b"sorry" if n == "00000003.dcm" else b) for n, b in members]),
        11,
        FindingKind.NOT_DICOM,
    ),
    "a short member": (
        members_of(lambda members: [(n, b[:-9] if n == "00000003.dcm" else b) for n, b in members]),
        11,
        FindingKind.TRUNCATED,
    ),
    "a zip in the zip": (members_of(lambda m: [("series.zip", make_zip(m))]), 0, FindingKind.NOT_DICOM),
}


@pytest.mark.parametrize(
    ("name", "lists"),
    [
        *((name, True) for name in sorted(LASTING)),
        *((name, False) for name in ("short", "licence only", "cut", "another series", "a flipped pixel")),
    ],
)
@pytest.mark.asyncio
async def test_a_zip_that_is_wrong_or_short_is_never_a_complete_series(archive, mirror, name, lists):
    fault, held, kind = LASTING[name]
    if not lists:
        archive.faults.add("getSOPInstanceUIDs", no_such_call())
    rule = archive.faults.add("getImage", fault, SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, scope=BRAIN, transport="zip")
    assert (report.exit_code, report.series.complete) == (ExitCode.INCOMPLETE, 2)
    expected = {kind} if lists or kind is not FindingKind.INSTANCES_MISSING else {FindingKind.COUNT_DIFFERS}
    assert expected <= kinds(report)
    assert {f.series_instance_uid for f in report.findings} == {SERIES}
    assert len([u for u in mirror.instances() if u.startswith(SERIES)]) == held
    assert_nothing_wrong(mirror, archive)
    assert mirror.series()[SERIES].state != SeriesState.COMPLETE
    bodies = {body for path, body in mirror.quarantine().items() if path.endswith(".dcm")}
    # What is set aside is wrong, unless the archive's own list said so of a true file.
    true = {body for u, body in truth(archive).items() if u.startswith(SERIES)}
    assert len(bodies & true) == (name == "a wrong MD5")

    archive.faults.rules.remove(rule)
    healed = await mirror.sync(archive, scope=BRAIN, transport="zip")
    assert (healed.exit_code, healed.instances.fetched) == (0, 12 - held)
    assert [params["SeriesInstanceUID"] for params in asked(archive, "getImage")] == [SERIES]
    assert_nothing_wrong(mirror, archive)
    assert mirror.states() == {SeriesState.COMPLETE: 3}


@pytest.mark.parametrize("name", ["short", "cut", "html", "another series", "a corrupt member", "a flipped pixel"])
@pytest.mark.asyncio
async def test_a_zip_that_is_wrong_for_a_moment_is_fetched_again(archive, mirror, name):
    archive.faults.add("getImage", LASTING[name][0], times=1, SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, scope=BRAIN, transport="zip", layout="classic")
    assert (report.exit_code, report.series.complete) == (0, 3)
    assert len([p for p in asked(archive, "getImage") if p["SeriesInstanceUID"] == SERIES]) == 2
    assert_nothing_wrong(mirror, archive)


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_of_two_bodies_for_one_instance_neither_is_kept(archive, mirror, dialect):
    """Nothing tells which of the two is the archive's."""
    archive.faults.add("getImage", members_of(with_other_pixels), SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, dialect, scope=BRAIN, transport="zip")
    assert (report.exit_code, report.series.complete) == (ExitCode.INCOMPLETE, 2)
    assert FindingKind.DUPLICATE_INSTANCE in kinds(report)
    assert len(mirror.instances()) == 19
    assert_nothing_wrong(mirror, archive)
    archive.faults.clear()
    healed = await mirror.sync(archive, dialect, scope=BRAIN, transport="zip")
    assert (healed.exit_code, healed.instances.fetched) == (0, 1)
    assert_nothing_wrong(mirror, archive)


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_two_bodies_for_one_instance_for_a_moment(archive, mirror, dialect):
    archive.faults.add("getImage", members_of(with_other_pixels), times=1, SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, dialect, scope=BRAIN, transport="zip")
    assert (report.exit_code, report.series.complete) == (0, 3)
    assert_nothing_wrong(mirror, archive)


@pytest.mark.asyncio
async def test_the_same_member_twice_is_one_instance(archive, mirror):
    twice = members_of(lambda members: [*members, ("00000099.dcm", members[3][1])])
    archive.faults.add("getImage", twice, SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, scope=BRAIN, transport="zip")
    assert (report.exit_code, report.findings) == (0, ())
    assert_nothing_wrong(mirror, archive)


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_a_member_of_another_length_than_was_said_is_believed_by_its_md5_alone(archive, mirror, dialect):
    archive.faults.add("getImage", claim_size(4, 7), SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, dialect, scope=BRAIN, transport="zip")
    vouched = dialect == "nbia"
    assert report.series.complete == (3 if vouched else 2), report.findings
    assert (FindingKind.TRUNCATED in kinds(report), report.findings == ()) == (not vouched, vouched)
    assert_nothing_wrong(mirror, archive)
    if vouched:
        assert len([row for row in mirror.rows() if row.verified.startswith("header,md5")]) == 1


@pytest.mark.asyncio
async def test_a_member_of_another_series_among_ours(archive, mirror):
    stranger = next(body for u, body in truth(archive).items() if u.startswith(OTHER))
    mixed = members_of(lambda members: [*members, ("00000099.dcm", stranger)])
    archive.faults.add("getImage", mixed, SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, scope=BRAIN, transport="zip")
    # The series itself is whole; what did not belong to it is told, and lies in quarantine.
    assert (report.exit_code, report.series.complete) == (0, 3)
    assert kinds(report) == {FindingKind.WRONG_SERIES, FindingKind.OTHER_STUDY}
    assert_nothing_wrong(mirror, archive)


@pytest.mark.parametrize("code", [400, 500])
@pytest.mark.asyncio
async def test_a_server_without_include_md5(archive, mirror, code):
    words = "Invalid query parameter: 'IncludeMD5'. Allowed parameters are: [SeriesInstanceUID, NewFileNames]"
    rule = archive.faults.add("getImage", status(code, words), IncludeMD5="Yes")
    report = await mirror.sync(archive, scope=BRAIN, transport="zip")
    if code == 400:
        # It is tried once in a run, or once per series that was begun before the first answer came.
        assert (report.exit_code, report.series.complete) == (0, 3)
        assert rule.used <= 3
        assert {row.verified for row in mirror.rows()} == {"length,header,series-size,series-md5"}
    else:
        assert (report.exit_code, report.series.incomplete) == (ExitCode.INCOMPLETE, 3)
    assert_nothing_wrong(mirror, archive)


@pytest.mark.parametrize("name", ["00000099.dcm", "LICENSE", "md5hashes.csv"])
@pytest.mark.asyncio
async def test_a_zip_that_would_fill_the_disk_is_not_unpacked(archive, mirror, name):
    bomb = members_of(lambda members: [*[m for m in members if m[0] != name], (name, bytes(8 * 1024 * 1024))])
    archive.faults.add("getImage", bomb, SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, scope=BRAIN, transport="zip")
    assert (report.exit_code, report.series.complete) == (ExitCode.INCOMPLETE, 2)
    assert "the zip holds" in findings(report, FindingKind.UNAVAILABLE)[0].detail
    assert [u for u in mirror.instances() if u.startswith(SERIES)] == []
    assert_nothing_wrong(mirror, archive)


@pytest.mark.asyncio
async def test_a_zip_that_never_ends_is_not_kept(archive, mirror):
    archive.faults.add("getImage", bytes_of(lambda body: body + bytes(4 * 1024 * 1024)), SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, scope=BRAIN, transport="zip")
    assert (report.exit_code, report.series.complete) == (ExitCode.INCOMPLETE, 2)
    assert "the zip holds" in findings(report, FindingKind.UNAVAILABLE)[0].detail
    assert_nothing_wrong(mirror, archive)


def renamed(*names: str) -> Fault:
    """The images under other names."""

    def change(members: Members) -> Members:
        images = [body for name, body in members if is_image(name)]
        return list(zip([*names, *(f"{n}.dcm" for n in range(len(images)))], images, strict=False))

    return members_of(change)


@pytest.mark.asyncio
async def test_names_of_members_lead_nowhere(archive, mirror, tmp_path):
    archive.faults.add(
        "getImage",
        renamed("../../../escaped.dcm", "/etc/escaped.dcm", "a/b/../../c.dcm", "con", "\u202ename", "x" * 400, "."),
        SeriesInstanceUID=SERIES,
    )
    report = await mirror.sync(archive, scope=BRAIN, transport="zip")
    assert (report.exit_code, report.series.complete) == (0, 3)
    assert_nothing_wrong(mirror, archive)
    assert list(tmp_path.rglob("*escaped*")) == []


@pytest.mark.parametrize(
    "kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=str
)
@pytest.mark.asyncio
async def test_damage_in_any_compression_costs_its_member_only(archive, mirror, kind):
    def pack(body: bytes) -> bytes:
        target = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(body)) as source, zipfile.ZipFile(target, "w", kind) as packed:
            for info in source.infolist():
                packed.writestr(info.filename, source.read(info))
        plain = bytearray(target.getvalue())
        with zipfile.ZipFile(io.BytesIO(bytes(plain))) as packed:
            info = packed.getinfo("00000005.dcm")
        for place in range(40, min(info.compress_size, 400), 3):
            plain[info.header_offset + 30 + len(info.filename) + place] ^= 0x5A
        return bytes(plain)

    archive.faults.add("getImage", bytes_of(pack), SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, scope=BRAIN, transport="zip")
    assert (report.exit_code, report.series.complete) == (ExitCode.INCOMPLETE, 2)
    assert len([u for u in mirror.instances() if u.startswith(SERIES)]) == 11
    assert_nothing_wrong(mirror, archive)


@pytest.mark.asyncio
async def test_any_damage_to_a_zip_is_a_finding_at_most(archive, mirror):
    """A poison zip never stops a run: bytes are changed anywhere, most of all in the zip's own records."""
    chance = random.Random(20261123)
    for number in range(24):
        archive.stock("Poison", make_series(series_uid=uid(6, 1, number), seed=6, instances=2))

    def spoil(body: bytes) -> bytes:
        damaged = bytearray(body)
        with zipfile.ZipFile(io.BytesIO(body)) as source:
            records = [info.header_offset + chance.randrange(60) for info in source.infolist()]
        records += [chance.randrange(len(body) - 400, len(body)) for _ in range(3)]
        for place in chance.sample(records, 3):
            damaged[place] = chance.randrange(256)
        return bytes(damaged)

    archive.faults.add("getImage", bytes_of(spoil))
    report = await mirror.sync(archive, scope=Scope(collections=("Poison",)), transport="zip")
    assert report.series.planned == 24
    assert report.series.complete + report.series.incomplete + report.series.quarantined == 24
    assert report.series.complete < 24
    assert_nothing_wrong(mirror, archive)
    archive.faults.clear()
    assert (await mirror.sync(archive, scope=Scope(collections=("Poison",)), transport="zip")).exit_code == 0
    assert len(mirror.instances()) == 48


def with_records(change: bytes, to: bytes) -> Fault:
    """A zip in which some bytes of its records are others."""
    return bytes_of(lambda body: body.replace(change, to))


@pytest.mark.parametrize(
    "fault",
    [
        # A name that claims to be UTF-8 and is not.
        members_of(lambda members: [(n.replace(".dcm", "ä.dcm"), b) for n, b in members]),
        with_records(b"00000005.dcm", b"0000\xff\xfe05.dcm"),
        # Only one of a name's two records.
        bytes_of(lambda body: body.replace(b"00000005.dcm", b"00000555.dcm", 1)),
        # Lists of MD5s that are none.
        members_of(lambda members: [(n, b'\0\xff"\n,\0' if n == "md5hashes.csv" else b) for n, b in members]),
        members_of(lambda members: [(n, b'"' + b"a" * 200_000 if n == "md5hashes.csv" else b) for n, b in members]),
        bytes_of(lambda body: body + b"trailing"),
        bytes_of(lambda body: b"leading" + body),
    ],
)
@pytest.mark.asyncio
async def test_odd_zips_do_not_end_the_run(archive, mirror, fault):
    archive.faults.add("getImage", fault, SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, scope=BRAIN, transport="zip")
    assert report.series.complete >= 2
    assert report.series.complete + report.series.incomplete + report.series.quarantined == 3
    assert_nothing_wrong(mirror, archive)
    archive.faults.clear()
    assert (await mirror.sync(archive, scope=BRAIN, transport="zip")).exit_code == 0
    assert_nothing_wrong(mirror, archive)


@pytest.mark.parametrize("flags", [0x1, 0x800, 0x8])
@pytest.mark.asyncio
async def test_flags_that_change_what_a_member_means(archive, mirror, flags):
    def flagged(body: bytes) -> bytes:
        changed = bytearray(make_zip([(info, data) for info, data in _members(body)], stored=True))
        with zipfile.ZipFile(io.BytesIO(bytes(changed))) as source:
            info = source.getinfo("00000005.dcm")
        changed[info.header_offset + 6] ^= flags & 0xFF
        changed[info.header_offset + 7] ^= flags >> 8
        central = changed.rindex(b"00000005.dcm") - 46
        changed[central + 8] ^= flags & 0xFF
        changed[central + 9] ^= flags >> 8
        return bytes(changed)

    archive.faults.add("getImage", bytes_of(flagged), SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, scope=BRAIN, transport="zip")
    held = [u for u in mirror.instances() if u.startswith(SERIES)]
    assert len(held) == (11 if flags == 0x1 else 12)
    assert report.exit_code == (ExitCode.INCOMPLETE if flags == 0x1 else ExitCode.COMPLETE)
    assert_nothing_wrong(mirror, archive)


def _members(body: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(body)) as source:
        return [(info.filename, source.read(info)) for info in source.infolist()]


# Which transport a server bears


@pytest.mark.parametrize("missing", ["getSOPInstanceUIDs", "getSingleImage"])
@pytest.mark.parametrize(
    ("dialect", "answer"), [("nbia", no_such_call(500)), ("nbia", html()), ("tcia", no_such_call(404))]
)
@pytest.mark.asyncio
async def test_auto_takes_zips_where_a_call_is_missing(archive, mirror, dialect, missing, answer):
    if (dialect, missing) == ("tcia", "getSingleImage") or missing == "getSOPInstanceUIDs":
        archive.faults.add("getSingleImage", no_such_call(500))
    archive.faults.add(missing, answer)
    report = await mirror.sync(archive, dialect, transport="auto")
    assert (report.exit_code, report.findings) == (0, ())
    assert len(asked(archive, "getImage")) == 7
    assert {row.source for row in mirror.rows()} == {"getImage"}
    assert_nothing_wrong(mirror, archive, whole=True)
    again = await mirror.sync(archive, dialect, transport="auto")
    assert (again.exit_code, again.series.kept) == (0, 7)
    assert asked(archive, "getImage") == []


@pytest.mark.asyncio
async def test_without_a_list_one_more_than_the_count_is_a_doubt(archive, mirror):
    archive.faults.add("getSOPInstanceUIDs", no_such_call())
    archive.faults.add(
        "getSeriesSize",
        edit_rows(lambda rows: [row | {"ObjectCount": 11} for row in rows]),
        SeriesInstanceUID=SERIES,
    )
    report = await mirror.sync(archive, scope=BRAIN, transport="zip")
    assert (report.exit_code, kinds(report)) == (ExitCode.INCOMPLETE, {FindingKind.COUNT_DIFFERS})


@pytest.mark.asyncio
async def test_instances_that_are_held_are_not_written_again(archive, mirror):
    archive.faults.add("getImage", short_zip(3), SeriesInstanceUID=SERIES)
    await mirror.sync(archive, scope=BRAIN, transport="zip")
    stamps = {path: (mirror.root / path).stat().st_mtime_ns for path in mirror.tree()}
    archive.faults.clear()
    await mirror.sync(archive, scope=BRAIN, transport="zip")
    assert {path: (mirror.root / path).stat().st_mtime_ns for path in stamps} == stamps
    assert len(mirror.tree()) == len(stamps) + 3
