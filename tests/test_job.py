"""A Job beside a workload: what it takes of the Pod, and what it must leave alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from injector import GROUP
from injector.admission.verdict import POD, Question, judge
from injector.pod import job
from injector.pod.claim import LEASES, MARK, Claim, laid
from injector.pod.containers import REPLICATE
from injector.pod.job import Asked, NotInjected
from tests import restricted, reviews
from tests.schemas import RELEASES, problems

Object = dict[str, Any]
PATH = "/data/app.db"
CLAIM = {"name": "data", "persistentVolumeClaim": {"claimName": "web-data"}}
MOUNTED = {"name": "app", "image": "a:1", "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "db"}]}


def made(pod: Object, mode: job.Mode = "verify", **asked: Any) -> Object:
    """The Job for a Pod that asks for injection; and all laws that hold for every Job."""
    injected = laid(reviews.injected(pod), Claim("web", "mark", ("a-lease",)))
    found = job.source(injected, reviews.DEFAULTS)
    asked = {"databases": list(found.databases), **asked}
    result = job.job(found, Asked(mode, **asked), "litestream-verify-web-1", "default")
    assert list(problems(result, RELEASES[-1])) == []
    template = {"apiVersion": "v1", "kind": "Pod", **result["spec"]["template"]}
    verdict = judge(Question(POD, "CREATE", template, "default"), reviews.DEFAULTS)
    assert (verdict.outcome, verdict.reason) == ("unchanged", "not-annotated"), "the Job's Pod concerns the webhook"
    (container,) = template["spec"]["containers"]
    assert not container["name"].startswith("litestream-hook-")
    assert not {LEASES, MARK} & {entry["name"] for entry in container["env"]}, "the Job's Pod would hold a Lease"
    return result


def spec_of(result: Object) -> Object:
    found: Object = result["spec"]["template"]["spec"]
    return found


def test_it_has_the_image_user_secret_and_resources_of_the_sidecar() -> None:
    pod = reviews.pod(path=PATH, secret="mine", memory_limit="300Mi", image="docker.io/litestream/litestream:0.5.16")
    injected = reviews.injected(pod)
    (sidecar,) = (one for one in injected["spec"]["initContainers"] if one["name"] == "litestream-hook-replicate")
    (container,) = spec_of(made(pod))["containers"]
    for field in ("image", "securityContext", "resources"):
        assert container[field] == sidecar[field]
    for entry in sidecar["env"]:
        assert entry in container["env"] or entry["name"] == "LITESTREAM_DATABASES"
    assert not {"livenessProbe", "readinessProbe", "lifecycle", "restartPolicy", "ports"} & set(container)


def test_it_never_mounts_the_volumes_of_the_databases() -> None:
    pod = reviews.pod({"containers": [MOUNTED], "volumes": [CLAIM]}, path=f"{PATH},/other/b.db", ca="secret/ca")
    spec = spec_of(made(pod))
    assert [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]] == [
        "/restored",
        "/etc/litestream-ca",
    ]
    assert [volume["name"] for volume in spec["volumes"]] == ["restored", "litestream-hook-ca"]


def test_its_volume_is_as_large_as_the_one_that_the_webhook_adds() -> None:
    assert spec_of(made(reviews.pod(path=PATH, storage="3Gi")))["volumes"][0] == {
        "name": "restored",
        "emptyDir": {"sizeLimit": "3Gi"},
    }
    lasting = spec_of(made(reviews.pod({"containers": [MOUNTED], "volumes": [CLAIM]}, path=PATH)))
    assert lasting["volumes"][0]["emptyDir"] == {}


def test_a_claim_is_filled_where_the_application_has_its_database() -> None:
    pod = reviews.pod({"containers": [MOUNTED], "volumes": [CLAIM]}, path=PATH)
    spec = spec_of(made(pod, "fill", claim="other"))
    assert spec["containers"][0]["volumeMounts"][-1] == {"name": "data", "mountPath": "/data", "subPath": "db"}
    assert spec["volumes"][-1] == {"name": "data", "persistentVolumeClaim": {"claimName": "other"}}
    found = job.source(reviews.injected(pod), reviews.DEFAULTS)
    assert job.claim_of(found, PATH) == "web-data"
    empty = job.source(reviews.injected(reviews.pod(path=PATH)), reviews.DEFAULTS)
    assert job.claim_of(empty, PATH) is None


def test_it_runs_where_as_and_with_what_the_pod_does() -> None:
    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["fast"]}]}
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{**term, **by_name}, by_name]}
        },
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []},
    }
    spec = {
        "serviceAccountName": "shop",
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
        "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["s3"]}],
        "affinity": affinity,
        "nodeName": "node-1",
        "priorityClassName": "high",
        "hostname": "web",
    }
    labels = {"app": "web", "azure.workload.identity/use": "true"}
    result = made(reviews.pod(spec, {"labels": labels}, path=PATH))
    found = spec_of(result)
    for key in (
        "serviceAccountName",
        "nodeSelector",
        "tolerations",
        "imagePullSecrets",
        "securityContext",
        "hostAliases",
    ):
        assert found[key] == spec[key]
    kept = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    assert found["affinity"] == {"nodeAffinity": kept}
    assert not {"nodeName", "hostname", "priorityClassName"} & set(found)
    # No Service sends it requests, and no controller takes it for its own.
    assert result["spec"]["template"]["metadata"]["labels"] == {**job.LABELS, "azure.workload.identity/use": "true"}
    assert found["automountServiceAccountToken"] is False


def test_what_another_webhook_gave_the_pods_containers_it_has_too() -> None:
    token = {"name": "aws-iam-token", "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount"}
    own = {"name": "kube-api-access-x", "mountPath": job.TOKEN, "readOnly": True}
    role = {"name": "AWS_ROLE_ARN", "value": "arn"}
    file = {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": f"{token['mountPath']}/token"}
    container = {"name": "app", "image": "a:1", "env": [role, file], "volumeMounts": [token, own]}
    projected: Object = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    volumes = [{"name": name, **projected} for name in ("aws-iam-token", "kube-api-access-x")]
    spec = spec_of(made(reviews.pod({"containers": [container], "volumes": volumes}, path=PATH, auth="ambient")))
    assert role in spec["containers"][0]["env"]
    assert [volume["name"] for volume in spec["volumes"]] == ["restored", "aws-iam-token"]


def test_it_passes_the_restricted_standard_if_the_application_does() -> None:
    for mode in ("verify", "hold"):
        assert list(restricted.violations(spec_of(made(reviews.pod(path=PATH), mode)))) == []


def test_an_ordinary_sidecar_is_as_good_a_model() -> None:
    (container,) = spec_of(made(reviews.pod(path=PATH, sidecar="container", restore="if-exists")))["containers"]
    assert "AWS_ACCESS_KEY_ID" in {entry["name"] for entry in container["env"]}
    assert not {"lifecycle", "readinessProbe"} & set(container)


def test_a_pod_that_is_not_injected_has_no_source() -> None:
    with pytest.raises(NotInjected):
        job.source(reviews.pod(path=PATH), reviews.DEFAULTS)
    injected = reviews.injected(reviews.pod(path=PATH))
    status = injected["metadata"]["annotations"][f"{GROUP}/status"]
    for forged in (
        reviews.pod(None, {"annotations": {f"{GROUP}/status": "{}"}}, path=PATH),
        reviews.pod(None, {"annotations": {f"{GROUP}/status": status}}, path=PATH),
        reviews.pod(injected["spec"], {"annotations": {f"{GROUP}/status": status.replace(PATH, "/x")}}, path=PATH),
        *without(injected, "env", "resources", "securityContext", "volumeMounts"),
    ):
        with pytest.raises(NotInjected):
            job.source(forged, reviews.DEFAULTS)


def without(injected: Object, *keys: str) -> list[Object]:
    """Pods like this one whose sidecar lacks one of these each."""
    pods = [copy.deepcopy(injected) for _ in keys]
    for key, pod in zip(keys, pods, strict=True):
        del next(one for one in pod["spec"]["initContainers"] if one["name"] == REPLICATE)[key]
    return pods


@pytest.mark.parametrize(
    ("image", "other", "lacks"),
    [
        ("0.5.17", "", False),
        ("0.5.12", "", False),
        ("0.5.10", "", True),
        ("0.5.17-scratch", "", True),
        ("0.3.13", "", True),
        ("0.3.13", "mine:1", False),
    ],
)
def test_an_image_whose_restore_tells_nothing_is_known(image: str, other: str, lacks: bool) -> None:
    pod = reviews.injected(reviews.pod(path=PATH, image=f"docker.io/litestream/litestream:{image}"))
    assert job.lacks(job.source(pod, reviews.DEFAULTS).settings, other) is lacks


def test_a_cron_job_does_not_overlap_and_keeps_what_failed() -> None:
    found = job.source(reviews.injected(reviews.pod(path=PATH)), reviews.DEFAULTS)
    result = job.cron_job(found, Asked("verify", [PATH]), "litestream-verify-web", "default", "0 3 * * *")
    assert list(problems(result, RELEASES[-1])) == []
    assert "ttlSecondsAfterFinished" not in result["spec"]["jobTemplate"]["spec"]
    assert (result["spec"]["concurrencyPolicy"], result["spec"]["failedJobsHistoryLimit"]) == ("Forbid", 3)


def test_it_gets_into_every_store_as_the_sidecar_does() -> None:
    spec = spec_of(made(reviews.pod(path=PATH, bucket="gs://my-bucket", secret="google")))
    (secret,) = (volume["secret"] for volume in spec["volumes"] if volume["name"] == "litestream-hook-credentials")
    assert secret["secretName"] == "google"
    (container,) = spec["containers"]
    assert "/etc/litestream-credentials" in [mount["mountPath"] for mount in container["volumeMounts"]]
    (file,) = (entry for entry in container["env"] if entry["name"] == "GOOGLE_APPLICATION_CREDENTIALS")
    assert file["value"] == "/etc/litestream-credentials/key.json"
    spec = spec_of(made(reviews.pod(path=PATH, bucket="abs://account/backups", secret="azure")))
    (key,) = (entry for entry in spec["containers"][0]["env"] if entry["name"] == "LITESTREAM_AZURE_ACCOUNT_KEY")
    assert key["valueFrom"]["secretKeyRef"] == {"name": "azure", "key": "AZURE_STORAGE_KEY"}
