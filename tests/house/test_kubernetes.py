"""config/kubernetes/: valid by Kubernetes' own schemas, fit for its restricted profile, and all of one piece."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mirror.errors import ExitCode
from mirror.settings import load_settings

PROJECT = Path(__file__).parents[2]
FILES = sorted((PROJECT / "config" / "kubernetes").iterdir())
DOCUMENTS = {path.name: list(yaml.safe_load_all(path.read_text("utf-8"))) for path in FILES}
CRONJOB, JOB = DOCUMENTS["cronjob.yaml"][0], DOCUMENTS["job.yaml"][0]
JOBS = {"cronjob": CRONJOB["spec"]["jobTemplate"]["spec"], "job": JOB["spec"]}
#: The oldest that has all of what the files use out of alpha, and the newest that is known.
VERSIONS = ("1.29", kubernetes_validate.latest_version())


def _of_kind(kind: str) -> dict[str, Any]:
    [document] = [d for documents in DOCUMENTS.values() for d in documents if d["kind"] == kind]
    return document


def _pod(job: dict[str, Any]) -> dict[str, Any]:
    return job["template"]["spec"]


def test_kinds():
    kinds = {d["kind"] for documents in DOCUMENTS.values() for d in documents}
    assert kinds == {"ConfigMap", "CronJob", "Job", "PersistentVolumeClaim", "Secret"}


@pytest.mark.parametrize("version", ["oldest", "newest"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_valid(name, version):
    assert DOCUMENTS[name], "the file has no document"
    # It raises for one that is not.
    for document in DOCUMENTS[name]:
        kubernetes_validate.validate(document, VERSIONS[version == "newest"], strict=True)


def test_documents_that_are_not_valid_are_seen():
    misspelt, mistyped = copy.deepcopy(JOB), copy.deepcopy(JOB)
    _pod(misspelt["spec"])["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    mistyped["spec"]["backoffLimit"] = "six"
    for document in (misspelt, mistyped):
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, VERSIONS[1], strict=True)


# Security


def _unrestricted(pod: dict[str, Any]) -> set[str]:
    """What the restricted profile of Kubernetes' pod security standards would refuse, and what we want beyond it."""
    wrong = set()
    own = pod.get("securityContext", {})
    if not own.get("runAsNonRoot") or not own.get("runAsUser"):
        wrong.add("runAsNonRoot")
    if own.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        wrong.add("seccompProfile")
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        wrong.add("host")
    if pod.get("automountServiceAccountToken") is not False:
        wrong.add("automountServiceAccountToken")
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    if any(not (volume.keys() - {"name"}) <= allowed for volume in pod["volumes"]):
        wrong.add("volumes")
    for container in pod["containers"]:
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            wrong.add("allowPrivilegeEscalation")
        if context.get("capabilities") != {"drop": ["ALL"]}:
            wrong.add("capabilities")
        if context.get("readOnlyRootFilesystem") is not True:
            wrong.add("readOnlyRootFilesystem")
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources.get("limits", {}):
            wrong.add("resources")
    return wrong


@pytest.mark.parametrize("name", JOBS)
def test_pods_are_restricted(name):
    assert _unrestricted(_pod(JOBS[name])) == set()


def test_pods_that_are_not_restricted_are_seen():
    bare = {"containers": [{"name": "x", "image": "y"}], "volumes": [{"name": "d", "hostPath": {"path": "/"}}]}
    assert _unrestricted(bare | {"hostNetwork": True}) == {
        "runAsNonRoot", "seccompProfile", "host", "automountServiceAccountToken", "volumes", "allowPrivilegeEscalation",
        "capabilities", "readOnlyRootFilesystem", "resources",
    }  # fmt: skip


# What belongs together


def test_the_pods_differ_in_nothing_but_their_job():
    cron, job = (copy.deepcopy(_pod(JOBS[name])) for name in ("cronjob", "job"))
    assert cron["containers"][0].pop("args") != job["containers"][0].pop("args")
    assert cron == job


@pytest.mark.parametrize("name", JOBS)
def test_what_a_pod_uses_is_there(name, tmp_path):
    pod = _pod(JOBS[name])
    [container] = pod["containers"]
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert container["image"] == f"tcia-mirror:{version}"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == volumes.keys()
    settings, secret, claim = _of_kind("ConfigMap"), _of_kind("Secret"), _of_kind("PersistentVolumeClaim")
    assert volumes["settings"]["configMap"]["name"] == settings["metadata"]["name"]
    assert volumes["token"]["secret"]["secretName"] == secret["metadata"]["name"]
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    # A token is a file of the Secret, and only where the settings ask for one.
    assert volumes["token"]["secret"]["optional"] is True
    [key] = secret["stringData"]
    [(file, text)] = settings["data"].items()
    assert f'# token_file = "{mounts["token"]}/{key}"' in text
    # The settings load, with the token and without, and have the job.
    arguments = container["args"]
    assert arguments[arguments.index("--config") + 1] == f"{mounts['settings']}/{file}"
    for number, variant in enumerate((text, text.replace("# token_file", "token_file"))):
        path = tmp_path / f"{number}.toml"
        path.write_text(variant, "utf-8")
        loaded = load_settings(path, {}, {})
        assert bool(loaded.archive.token_file) == bool(number)
        assert loaded.to == mounts["data"]
        assert arguments[arguments.index("--job") + 1] in loaded.jobs


# Ends


def _rules(job: dict[str, Any]) -> dict[str, set[int]]:
    told: dict[str, set[int]] = {}
    for rule in job["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["operator"] == "In"
            assert rule["onExitCodes"]["containerName"] == _pod(job)["containers"][0]["name"]
            told.setdefault(rule["action"], set()).update(rule["onExitCodes"]["values"])
    return told


@pytest.mark.parametrize("name", JOBS)
def test_what_is_tried_again_is_what_another_try_mends(name):
    job = JOBS[name]
    # Without it Kubernetes refuses a podFailurePolicy.
    assert _pod(job)["restartPolicy"] == "Never"
    rules = _rules(job)
    assert rules["Ignore"] == {ExitCode.INTERRUPTED}
    hopeless = {ExitCode.BUG, ExitCode.USAGE, ExitCode.DISK}
    # A night's findings are the next night's; whoever mirrors a collection once has no next night.
    assert rules["FailJob"] == hopeless | ({ExitCode.INCOMPLETE} if name == "cronjob" else set())
    assert job["backoffLimit"] >= 3
    first = job["podFailurePolicy"]["rules"][0]
    assert (first["action"], first["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert _pod(job)["terminationGracePeriodSeconds"] >= 120


def test_nights_do_not_meet():
    spec = CRONJOB["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert re.fullmatch(r"\d+ \d+ \* \* \*", spec["schedule"])
    assert JOBS["cronjob"]["activeDeadlineSeconds"] < 24 * 3600
    assert {"successfulJobsHistoryLimit", "failedJobsHistoryLimit", "startingDeadlineSeconds"} <= spec.keys()
    assert JOBS["job"]["ttlSecondsAfterFinished"] > 0
