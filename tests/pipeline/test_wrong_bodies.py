"""Wrong bodies of single instances: none of them stays in the tree, and what is true is fetched when it can be had."""

from __future__ import annotations

import pytest
from fakes.dicom import instance_uid, uid
from fakes.faults import Fault, cut, empty, flip, html, short, stall, status, swap
from fakes.manners import gone
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, findings, truth

from mirror.errors import ExitCode
from mirror.events import RequestDone
from mirror.model import FindingKind, SeriesState

SERIES = uid(2, 1, 2, 1)
OTHER = uid(2, 1, 1, 1)
VICTIM = f"{SERIES}.10005"

FAULTS: dict[str, Fault] = {
    "cut": cut(0.5),
    "cut before the first byte": cut(0.0),
    "short": short(0.6),
    "short by a byte": short(0.9999),
    "preamble only": short(0.08),
    "another instance": swap(SOPInstanceUID=f"{SERIES}.10001"),
    "another series": swap(SeriesInstanceUID=OTHER, SOPInstanceUID=f"{OTHER}.10001"),
    "html": html(),
    "empty": empty(),
    "flipped preamble": flip(130),
    "flipped pixel": flip(-1),
    "stall": stall(0.5),
    "no answer": gone(),
    "500": status(500, "Server was not able to process your request\nnull"),
    "503": status(503),
    "429": status(429, headers={"Retry-After": "0"}),
    "404": status(404),
    "400": status(400, "no"),
}
#: What a fault that stays is told as.
FOR_EVER = {
    "cut": FindingKind.UNAVAILABLE,
    "cut before the first byte": FindingKind.UNAVAILABLE,
    "short": FindingKind.TRUNCATED,
    "short by a byte": FindingKind.TRUNCATED,
    "preamble only": FindingKind.NOT_DICOM,
    "another instance": FindingKind.WRONG_INSTANCE,
    "another series": FindingKind.WRONG_INSTANCE,
    "html": FindingKind.NOT_DICOM,
    "empty": FindingKind.NOT_DICOM,
    "flipped preamble": FindingKind.NOT_DICOM,
    "flipped pixel": FindingKind.MD5_DIFFERS,
    "stall": FindingKind.UNAVAILABLE,
    "no answer": FindingKind.UNAVAILABLE,
    "500": FindingKind.UNAVAILABLE,
    "503": FindingKind.UNAVAILABLE,
    "429": FindingKind.UNAVAILABLE,
    "404": FindingKind.UNAVAILABLE,
    "400": FindingKind.UNAVAILABLE,
}
#: Answers that say that there is no use in asking again.
FINAL = {"404", "400"}


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


def timeout(name: str) -> float:
    return 0.3 if name == "stall" else 30.0


def victims() -> dict[str, str]:
    """Fault -> an instance to suffer it, spread over two series."""
    uids = [f"{SERIES}.{n}" for n in range(10001, 10013)] + [f"{OTHER}.{n}" for n in range(10001, 10005)]
    uids += [f"{uid(1, 1, 1, 1)}.10001", f"{uid(1, 1, 1, 2)}.10002"]
    return dict(zip(FAULTS, uids, strict=True))


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_a_moments_fault_of_each_kind_is_mended_within_the_run(archive, mirror, dialect):
    for name, victim in victims().items():
        if name not in FINAL and (dialect, name) != ("tcia", "flipped pixel"):
            archive.faults.add("getSingleImage", FAULTS[name], times=1, SOPInstanceUID=victim)
    # No true answer takes as long as this on a busy machine: it would be asked for twice.
    report = await mirror.sync(archive, dialect, layout="classic", progress_timeout=2.0, attempts=5)
    assert [rule.used for rule in archive.faults.rules] == [1] * len(archive.faults.rules)
    assert (report.exit_code, report.series.complete, report.instances.failed) == (ExitCode.COMPLETE, 7, 0)
    assert len(asked(archive, "getSingleImage")) == 32 + len(archive.faults.rules)
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_a_lasting_fault_of_each_kind_costs_its_object_only(archive, mirror, dialect):
    lost = {name: victim for name, victim in victims().items() if name != "flipped pixel"}
    for name, victim in lost.items():
        archive.faults.add("getSingleImage", FAULTS[name], SOPInstanceUID=victim)
    report = await mirror.sync(archive, dialect, progress_timeout=0.5)
    assert (report.exit_code, report.instances.failed) == (ExitCode.INCOMPLETE, len(lost))
    told = {f.sop_instance_uid: (f.kind, f.attempts) for f in report.findings if f.attempts}
    assert told == {victim: (FOR_EVER[name], 1) for name, victim in lost.items()}
    assert_nothing_wrong(mirror, archive)
    assert set(truth(archive)) - set(mirror.instances()) == set(lost.values())

    archive.faults.clear()
    healed = await mirror.sync(archive, dialect)
    assert (healed.exit_code, healed.instances.fetched) == (0, len(lost))
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("name", ["another series", "cut", "flipped pixel", "html", "short by a byte", "stall", "500"])
@pytest.mark.asyncio
async def test_a_lasting_fault_costs_its_object_only_and_heals_with_the_archive(archive, mirror, name):
    archive.faults.add("getSingleImage", FAULTS[name], SOPInstanceUID=VICTIM)
    report = await mirror.sync(archive, progress_timeout=timeout(name))

    assert (report.state, report.exit_code) == ("incomplete", ExitCode.INCOMPLETE)
    assert report.series.complete == 6
    assert_nothing_wrong(mirror, archive)
    assert sorted(mirror.instances()) == sorted(set(archive.files()) - {VICTIM})
    (told,) = [f for f in report.findings if f.sop_instance_uid == VICTIM]
    assert (told.kind, told.attempts) == (FOR_EVER[name], 1)
    assert told.next_try is not None
    assert [f.detail for f in findings(report, FindingKind.INSTANCES_MISSING)] == [
        "1 of 12 listed instances are not held"
    ]
    bad_bytes = FOR_EVER[name] is not FindingKind.UNAVAILABLE
    assert mirror.series()[SERIES].state == (SeriesState.QUARANTINED if bad_bytes else SeriesState.INCOMPLETE)
    assert FOR_EVER[name] in mirror.series()[SERIES].findings
    reasons = [body.decode() for path, body in mirror.quarantine().items() if path.endswith(".txt")]
    # A flipped pixel shows by the digest only, in each of two rounds: both bodies that came are kept.
    assert len(reasons) == (2 if name == "flipped pixel" else bad_bytes)
    assert all(FOR_EVER[name] in text for text in reasons)

    archive.faults.clear()
    healed = await mirror.sync(archive)
    assert (healed.exit_code, healed.instances.fetched, healed.instances.reused) == (0, 1, 0)
    assert [params["SOPInstanceUID"] for params in asked(archive, "getSingleImage")] == [VICTIM]
    assert asked(archive, "getSOPInstanceUIDs") == [{"SeriesInstanceUID": SERIES}]
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_what_cannot_be_had_is_tried_less_and_less_often(archive, mirror, monkeypatch):
    archive.faults.add("getSingleImage", status(500), SOPInstanceUID=VICTIM)
    day = 86_400
    now = 1_800_000_000
    monkeypatch.setattr("time.time", lambda: now)
    waits = []
    for attempts in range(1, 7):
        report = await mirror.sync(archive)
        (told,) = findings(report, FindingKind.UNAVAILABLE)
        assert (told.sop_instance_uid, told.attempts, report.exit_code) == (VICTIM, attempts, ExitCode.INCOMPLETE)
        assert told.next_try is not None
        waits.append(told.next_try - now)
        if attempts >= 3:
            # It is not due: the run does not ask for it, and says what it knows.
            now = told.next_try - 1
            idle = await mirror.sync(archive)
            assert asked(archive, "getSingleImage") == []
            assert (idle.exit_code, idle.series.incomplete) == (ExitCode.INCOMPLETE, 1)
            (known,) = findings(idle, FindingKind.UNAVAILABLE)
            assert (known.attempts, known.next_try) == (attempts, told.next_try)
        now = told.next_try
    assert waits == [0, 0, day, 2 * day, 4 * day, 7 * day]
    archive.faults.clear()
    healed = await mirror.sync(archive)
    assert (healed.exit_code, healed.instances.fetched) == (0, 1)
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("fault", [gone(), stall(0.5)])
@pytest.mark.asyncio
async def test_a_poison_object_that_is_all_that_is_left_is_no_archive_that_is_down(archive, mirror, fault):
    archive.faults.add("getSingleImage", fault, SOPInstanceUID=VICTIM)
    for attempts in (1, 2):
        report = await mirror.sync(archive, progress_timeout=0.3)
        assert report.exit_code == ExitCode.INCOMPLETE
        assert [f.attempts for f in report.findings if f.sop_instance_uid == VICTIM] == [attempts]


@pytest.mark.asyncio
async def test_every_object_of_a_series_may_be_poison(archive, mirror):
    archive.faults.add("getSingleImage", status(500), SeriesInstanceUID=SERIES)
    archive.faults.add("getSingleImage", html(), SeriesInstanceUID=OTHER)
    report = await mirror.sync(archive)
    assert (report.exit_code, report.series.complete, report.series.incomplete, report.series.quarantined) == (
        ExitCode.INCOMPLETE, 5, 1, 1,
    )  # fmt: skip
    assert (report.instances.fetched, report.instances.failed) == (16, 16)
    assert {f.sop_instance_uid for f in report.findings if f.attempts} == {
        uid for uid, (series, _) in archive.files().items() if series in (SERIES, OTHER)
    }
    assert_nothing_wrong(mirror, archive)


@pytest.mark.asyncio
async def test_a_429_with_retry_after_holds_back_every_request_once(archive, mirror):
    rule = archive.faults.add("getSingleImage", status(429, headers={"Retry-After": "1"}), times=1)
    report = await mirror.sync(archive, connections=1)
    assert rule.used == 1
    assert (report.exit_code, report.requests.retried) == (0, 1)
    # With one connection, the second try is the next request of all.
    calls = [(call, params.get("SOPInstanceUID")) for call, params in archive.requests]
    first = next(number for number, (call, _) in enumerate(calls) if call == "getSingleImage")
    assert calls.count(calls[first]) == 2
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_every_call_may_fail_a_few_times(archive, mirror, dialect):
    calls = ["getCollectionValues", "getPatient", "getPatientStudy", "getSeries", "getSeriesSize", "getSOPInstanceUIDs"]
    for call in (*calls, "getMD5Hierarchy", "getSingleImage"):
        archive.faults.add(call, status(503), times=2)
        archive.faults.add(call, cut(0.3), times=1)
    report = await mirror.sync(archive, dialect, attempts=5)
    assert (report.exit_code, report.findings) == (0, ())
    failed = [event for event in mirror.events if isinstance(event, RequestDone) and event.error]
    assert len(failed) == sum(rule.used for rule in archive.faults.rules) == report.requests.retried
    assert_nothing_wrong(mirror, archive, whole=True)


@pytest.mark.asyncio
async def test_two_wrong_bodies_of_one_identity_are_both_kept_for_a_person_to_look_at(archive, mirror):
    series = uid(1, 1, 1, 1)
    first, second = ({"SeriesInstanceUID": series, "SOPInstanceUID": instance_uid(series, number)} for number in (1, 2))
    archive.faults.add("getSingleImage", short(), **first)
    archive.faults.add("getSingleImage", swap(**first), **second)
    await mirror.sync(archive)
    names = {path.rpartition("/")[2] for path in mirror.quarantine()}
    assert {f"{first['SOPInstanceUID']}.dcm", f"{second['SOPInstanceUID']}.dcm"} <= names
