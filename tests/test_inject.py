"""Other people's Pods: null fields, defaults written out, tokens, odd containers; injected or denied, never half."""

import copy
from typing import Any

import pytest

from injector import GROUP, options
from injector.pod import claim, inject, replica
from tests import reviews, schemas

Object = dict[str, Any]
OPTIONS = options.read({})


def defaulted() -> Object:
    """A Pod as an API server sends it: defaults written out, a projected token mounted, fields of every kind."""
    token = {
        "name": "kube-api-access-x",
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "readOnly": True,
    }
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    spec = {
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "kube-api-access-x", "projected": {"sources": sources, "defaultMode": 420}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
        "initContainers": [
            {
                "name": "chown",
                "image": "busybox",
                "command": ["chown", "-R", "1000", "/data"],
                "resources": {},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            },
            {"name": "agent", "image": "agent:1", "restartPolicy": "Always", "resources": {}},
        ],
        "containers": [
            {
                "name": "app",
                "image": "ghost:5",
                "ports": [{"containerPort": 2368, "protocol": "TCP"}, {"containerPort": 2368, "protocol": "UDP"}],
                "envFrom": [{"secretRef": {"name": "env", "optional": True}}],
                "env": [{"name": "EMPTY"}, {"name": "URL", "value": "http://$(HOST)"}],
                "resources": {"limits": {"memory": "256Mi"}},
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "shm", "mountPath": "/dev/shm"},
                    token,
                ],
                "livenessProbe": {"httpGet": {"path": "/", "port": 2368, "scheme": "HTTP"}},
                "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
                "terminationMessagePath": "/dev/termination-log",
                "imagePullPolicy": "IfNotPresent",
                "securityContext": {"capabilities": {"drop": ["ALL"]}},
            },
            {"name": "metrics", "image": "exporter:1", "resources": {}},
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {
            "runAsUser": 1000,
            "runAsGroup": 3000,
            "fsGroup": 2000,
            "seLinuxOptions": {"level": "s0:c1"},
        },
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300}],
        "ephemeralContainers": [],
        "enableServiceLinks": True,
    }
    return reviews.pod(
        spec, {"namespace": "shop", "labels": {"app": "ghost"}, "creationTimestamp": None}, path="/data/app.db"
    )


def test_a_pod_as_an_api_server_sends_it_is_injected_once() -> None:
    obj = defaulted()
    once = reviews.injected(obj, namespace="shop")
    assert reviews.injected(once, namespace="shop") == once
    valid = copy.deepcopy(once)
    del valid["spec"]["ephemeralContainers"]
    assert list(schemas.problems(valid, schemas.RELEASES[-1])) == []
    for key in ("containers", "volumes"):
        assert once["spec"][key][: len(obj["spec"][key])] == obj["spec"][key]
    ours = [item for item in once["spec"]["initContainers"] if item["name"].startswith("litestream-hook-")]
    for item in ours:
        context = item["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["seLinuxOptions"]) == (
            1000,
            3000,
            {"level": "s0:c1"},
        )


NULLABLE = [
    ("metadata", "labels"),
    ("metadata", "ownerReferences"),
    ("metadata", "generateName"),
    ("metadata", "namespace"),
    ("spec", "initContainers"),
    ("spec", "ephemeralContainers"),
    ("spec", "volumes"),
    ("spec", "terminationGracePeriodSeconds"),
    ("spec", "affinity"),
    ("spec", "os"),
    ("spec", "hostUsers"),
    ("spec", "containers", 0, "env"),
    ("spec", "containers", 0, "envFrom"),
    ("spec", "containers", 0, "ports"),
    ("spec", "containers", 0, "volumeMounts"),
    ("spec", "containers", 0, "securityContext"),
    ("spec", "containers", 0, "command"),
    ("spec", "containers", 0, "workingDir"),
    ("spec", "containers", 0, "restartPolicy"),
    ("spec", "containers", 0, "resources"),
    ("spec", "containers", 0, "image"),
]


@pytest.mark.parametrize(
    "annotations", [{}, {"auth": "ambient", "metrics_port": "9999", "sidecar": "container"}], ids=str
)
@pytest.mark.parametrize("place", NULLABLE, ids=lambda place: ".".join(map(str, place)))
def test_null_is_what_an_absent_field_is(place: tuple[Any, ...], annotations: dict[str, str]) -> None:
    obj = reviews.pod(path="/data/app.db", **annotations)
    expected = reviews.injected(obj)
    found = obj
    for step in place[:-1]:
        found = found[step]
    absent = place[-1] not in found
    found[place[-1]] = None
    after = reviews.injected(obj)
    assert reviews.injected(after) == after
    if absent:
        for step in place[:-1]:
            after = after[step]
            expected = expected[step]
        assert after.get(place[-1]) == expected.get(place[-1])


@pytest.mark.parametrize("key", ["initContainers", "volumes"])
def test_an_empty_list_is_what_an_absent_one_is(key: str) -> None:
    assert reviews.injected(reviews.pod({key: []})) == reviews.injected(reviews.pod())


@pytest.mark.parametrize("name", ["litestream-hook-", "litestream-hook-x", "litestream-hook-replicate"])
def test_our_names_are_refused_also_for_ephemeral_containers(name: str) -> None:
    obj = reviews.pod({"ephemeralContainers": [{"name": name, "image": "x"}]})
    assert list(reviews.denied(obj)) == ["spec.ephemeralContainers"]


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400, 10**4299])
@pytest.mark.parametrize("field", ["terminationGracePeriodSeconds", "securityContext"])
def test_an_integer_that_kubernetes_can_not_hold_is_denied(number: int, field: str) -> None:
    value: Any = number if field != "securityContext" else {"runAsUser": number}
    assert any(key.startswith(f"spec.{field}") for key in reviews.denied(reviews.pod({field: value})))


def test_the_largest_grace_period_is_no_fault() -> None:
    found = reviews.answer(reviews.pod({"terminationGracePeriodSeconds": 2**63 - 1}))
    assert found.status == 200


def test_a_config_that_no_process_can_be_given_is_denied_by_its_bytes() -> None:
    def paths(count: int, letter: str) -> str:
        return ",".join(f"/data/{letter * 70}{number}" for number in range(count))

    assert reviews.response(reviews.pod(path=paths(200, "a")))["allowed"]
    found = reviews.denied(reviews.pod(path=paths(250, "字")))["path"]
    assert "more databases than one Litestream config can hold" in found
    assert "path" in reviews.denied(reviews.pod(path=paths(450, "a")))


def sidecar_in(owner: Object) -> Object:
    return reviews.pod(
        None, {"ownerReferences": [{**owner, "controller": True}]}, sidecar="container", replica_path="x/{database}"
    )


def test_an_ordinary_sidecar_never_keeps_a_job_from_finishing() -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "name": "import"}
    assert "from ever finishing" in reviews.denied(sidecar_in(job))["sidecar"]
    template = reviews.pod(None, None, sidecar="container", replica_path="x/{database}")
    template = {"metadata": {"annotations": template["metadata"]["annotations"]}, "spec": template["spec"]}
    nameless = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": "i-"},
        "spec": {"template": template},
    }
    assert "sidecar" in reviews.denied(nameless)
    cron = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "n"},
        "spec": {"concurrencyPolicy": "Forbid", "jobTemplate": {"spec": {"template": template}}},
    }
    assert "sidecar" in reviews.denied(cron)


# Identity and ports


def ambient(**fields: Any) -> Object:
    volumes: list[Object] = [{"name": name, "projected": {"sources": []}} for name in ("aws", "eks")]
    container = {"name": "app", "image": "app:1", **fields}
    return reviews.pod({"containers": [container], "volumes": volumes}, None, auth="ambient")


def test_two_token_files_in_one_mount_are_mounted_once() -> None:
    env = [
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/secrets/aws/one/token"},
        {"name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "value": "/var/run/secrets/aws/two/token"},
    ]
    after = reviews.injected(ambient(env=env, volumeMounts=[{"name": "aws", "mountPath": "/var/run/secrets/aws"}]))
    assert list(schemas.problems(after, schemas.RELEASES[-1])) == []
    for item in after["spec"]["initContainers"]:
        mounts = [mount["mountPath"] for mount in item["volumeMounts"]]
        assert len(mounts) == len(set(mounts))


def test_a_variable_that_stands_twice_has_its_last_value_also_after_a_second_call() -> None:
    env = [{"name": "AWS_REGION", "value": "one"}, {"name": "AWS_REGION", "value": "two"}]
    once = reviews.injected(ambient(env=env))
    assert reviews.injected(once) == once
    (sidecar,) = (item for item in once["spec"]["initContainers"] if item["name"] == "litestream-hook-replicate")
    found = [entry["value"] for entry in sidecar["env"] if entry["name"] == "AWS_REGION"]
    assert found == ["two"]


def test_a_web_identity_that_comes_between_two_calls_reaches_litestream() -> None:
    once = reviews.injected(ambient())
    target = once["spec"]["containers"][0]
    target["env"] = [{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/secrets/aws/token"}]
    target.setdefault("volumeMounts", []).append({"name": "aws", "mountPath": "/var/run/secrets/aws", "readOnly": True})
    twice = reviews.injected(once)
    assert reviews.injected(twice) == twice
    for item in twice["spec"]["initContainers"][1:]:
        assert "AWS_WEB_IDENTITY_TOKEN_FILE" in [entry["name"] for entry in item["env"]]
        assert "/var/run/secrets/aws" in [mount["mountPath"] for mount in item["volumeMounts"]]


def test_annotations_that_kubernetes_would_refuse_with_the_status_are_denied() -> None:
    def padded(size: int) -> Object:
        return reviews.pod(None, {"annotations": {"example.com/config": "é" * (size // 2)}})

    def bytes_of(obj: Object) -> int:
        return sum(len(key.encode()) + len(value.encode()) for key, value in obj["metadata"]["annotations"].items())

    room = 256 * 1024 - bytes_of(reviews.injected(padded(0)))
    once = reviews.injected(padded(room - 1))
    assert bytes_of(once) <= 256 * 1024
    assert reviews.injected(once) == once
    message = reviews.response(padded(room + 2))["status"]["message"]
    assert "metadata.annotations: has 262145 bytes together with" in message or "has 262146 bytes" in message


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("taken", "ports"),
    [("9090", [9090]), ("65535", [65535]), ("1024", list(range(1, 40_000)))],
    ids=["one", "last", "all"],
)
def test_a_metrics_port_that_is_taken_is_denied_with_another(taken: str, ports: list[int]) -> None:
    container = {"name": "app", "image": "app:1", "ports": [{"containerPort": port} for port in ports]}
    found = reviews.denied(reviews.pod({"containers": [container]}, None, metrics_port=taken))
    assert "is taken by container app: write another, such as " in found["metrics-port"]
    assert taken != found["metrics-port"].rpartition(" ")[2]


def test_a_metrics_port_is_the_sidecars_own_on_a_second_call() -> None:
    once = reviews.injected(reviews.pod(None, None, metrics_port="9090"))
    assert reviews.injected(once) == once


def test_a_windows_pod_is_denied() -> None:
    assert "Windows" in reviews.denied(reviews.pod({"os": {"name": "windows"}}))["inject"]
    assert reviews.response(reviews.pod({"os": {"name": "linux"}}))["allowed"]


def test_a_password_on_a_workloads_own_metadata_is_not_repeated() -> None:
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {f"{GROUP}/endpoint": "http://key:hunter2@minio"}},
        "spec": {"template": {"spec": {"containers": []}}},
    }
    body = reviews.answer(workload).body
    assert b"has no effect there" in body
    assert b"hunter2" not in body


@pytest.mark.timeout(60)
def test_a_request_with_thousands_of_mistakes_has_an_answer_of_a_few() -> None:
    many = range(1_900)
    ours = reviews.pod({"initContainers": [{"name": f"litestream-hook-{number}"} for number in many]})
    annotated = {f"{GROUP}/x{number}": "1" for number in many}
    misplaced: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "annotations": annotated},
        "spec": {"template": {"spec": {"containers": []}}},
    }
    half = copy.deepcopy(misplaced)
    half["metadata"]["annotations"] = {key: annotated[key] for key in list(annotated)[:5]}
    for reply in (
        reviews.response(ours),
        reviews.response(misplaced),
        reviews.response(misplaced, "UPDATE", oldObject=half),
        reviews.response(misplaced, "UPDATE", oldObject=misplaced),
    ):
        assert len(str(reply)) < 200_000
        if not reply["allowed"]:
            assert " more" in reply["status"]["message"]


def test_a_claim_on_one_pod_is_not_in_the_next() -> None:
    pod, identity = reviews.pod(), replica.of_pod(reviews.pod(), "default")
    once = inject.inject(pod, identity, reviews.DEFAULTS).pod
    before = copy.deepcopy(once)
    claimed = claim.laid(once, claim.Claim("web", "mark", ("lease",)))
    assert claimed != before
    assert inject.inject(pod, identity, reviews.DEFAULTS).pod == once == before
