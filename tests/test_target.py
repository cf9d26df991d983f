"""Which containers use the databases, as which user, and how they get into the bucket."""

from typing import Any

import pytest

from injector import GROUP, options
from injector.pod import target
from tests import reviews

Object = dict[str, Any]


def pod(*contexts: Object | None, user: Object | None = None, **annotations: str) -> Object:
    """A Pod with one container for each securityContext."""
    keys = {f"{GROUP}/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "annotations": {f"{GROUP}/inject": "true", **keys}},
        "spec": {
            "securityContext": user,
            "containers": [
                {"name": f"c{index}", "image": "app:1", "securityContext": context}
                for index, context in enumerate(contexts)
            ],
        },
    }


def users(obj: Object, **rest: Any) -> set[tuple[int, int | None]]:
    ours = [c for c in reviews.injected(obj, **rest)["spec"]["initContainers"] if c["name"].startswith("litestream-")]
    return {(c["securityContext"]["runAsUser"], c["securityContext"].get("runAsGroup")) for c in ours}


def fields(obj: Object, **rest: Any) -> list[str]:
    reply = reviews.response(obj, **rest)
    if reply["allowed"]:
        return []
    return [cause["field"].removeprefix(f"{GROUP}/") for cause in reply["status"]["details"]["causes"]]


def test_known_proxies_are_no_targets_and_a_pod_of_them_alone_is_denied() -> None:
    obj = pod({"runAsUser": 1})
    obj["spec"]["containers"].append({"name": "istio-proxy", "image": "p", "securityContext": {"runAsUser": 1337}})
    assert users(obj) == {(1, None)}
    del obj["spec"]["containers"][0]
    assert fields(obj) == ["containers"]


def test_ambient_credentials_follow_the_identity_of_the_target() -> None:
    obj = pod({"runAsUser": 1}, auth="ambient")
    target = obj["spec"]["containers"][0]
    target["env"] = [
        {"name": "OTHER", "value": "secret"},
        {"name": "AWS_ROLE_ARN", "value": "arn:x"},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/secrets/aws/token"},
    ]
    target["volumeMounts"] = [{"name": "aws", "mountPath": "/var/run/secrets/aws/", "readOnly": True}]
    obj["spec"]["volumes"] = [{"name": "aws", "projected": {"sources": []}}]
    for item in reviews.injected(obj)["spec"]["initContainers"]:
        names = [entry["name"] for entry in item["env"]]
        assert "AWS_ROLE_ARN" in names
        assert not {"OTHER", "AWS_ACCESS_KEY_ID"} & set(names)
        assert [mount["name"] for mount in item["volumeMounts"]].count("aws") == 1


def test_the_token_of_a_session_comes_from_the_same_secret_where_it_is_asked_for() -> None:
    token = {"secretKeyRef": {"name": "mine", "key": "AWS_SESSION_TOKEN"}}
    for auth, expected in (("session", True), ("secret", False)):
        for item in reviews.injected(pod({"runAsUser": 1}, auth=auth, secret="mine"))["spec"]["initContainers"]:
            assert ({"name": "AWS_SESSION_TOKEN", "valueFrom": token} in item["env"]) is expected
            assert "AWS_ACCESS_KEY_ID" in [entry["name"] for entry in item["env"]]


def test_a_key_beside_the_database_is_mounted_once_with_it() -> None:
    obj = pod({"runAsUser": 1}, bucket="gs://my-bucket", auth="ambient", path="/data/app.db")
    app = obj["spec"]["containers"][0]
    app["env"] = [{"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": "/data/key.json"}]
    app["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    obj["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    for item in reviews.injected(obj)["spec"]["initContainers"]:
        assert [mount for mount in item["volumeMounts"] if mount["name"] == "data"] == app["volumeMounts"]


@pytest.mark.parametrize("auth", ["secret", "session", "ambient"])
@pytest.mark.parametrize(
    ("ca", "source"),
    [
        ("secret/own-ca", {"secret": {"secretName": "own-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}),
        ("configmap/own-ca", {"configMap": {"name": "own-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}),
    ],
)
def test_every_container_of_ours_trusts_the_ca_beside_the_systems(auth: str, ca: str, source: Object) -> None:
    obj = pod({"runAsUser": 1}, ca=ca, auth=auth)
    stored = reviews.injected(obj)
    assert {"name": "litestream-hook-ca", **source} in stored["spec"]["volumes"]
    mount = {"name": "litestream-hook-ca", "mountPath": "/etc/litestream-ca", "readOnly": True}
    for item in stored["spec"]["initContainers"]:
        trusted = {"name": "SSL_CERT_DIR", "value": "/etc/ssl/certs:/etc/pki/tls/certs:/etc/litestream-ca"}
        assert trusted in item["env"]
        assert mount in item["volumeMounts"]
    assert mount not in stored["spec"]["containers"][0]["volumeMounts"]
    assert reviews.injected(stored) == stored


@pytest.mark.parametrize("grace", [None, 0, 30, 600])
def test_the_grace_period_is_raised_once_and_never_lowered(grace: int | None) -> None:
    obj = pod({"runAsUser": 1}, path="/d/a.db,/d/b.db")
    obj["spec"]["terminationGracePeriodSeconds"] = grace
    once = reviews.injected(obj)
    assert once["spec"]["terminationGracePeriodSeconds"] >= (30 if grace is None else grace) + 2 * 30
    assert reviews.injected(once) == once


def test_a_container_without_the_databases_volume_has_nothing_to_do_with_it() -> None:
    obj = pod({"runAsUser": 1000}, None, {"runAsUser": 2000}, path="/data/app.db")
    obj["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    obj["spec"]["containers"][2]["volumeMounts"] = [{"name": "other", "mountPath": "/other"}]
    obj["spec"]["volumes"] = [{"name": name, "emptyDir": {}} for name in ("data", "other")]
    assert users(obj) == {(1000, None)}
    after = reviews.injected(obj)["spec"]["containers"]
    assert after == obj["spec"]["containers"]


@pytest.mark.parametrize("policy", ["off", "warn"])
def test_another_litestream_that_is_let_be_is_never_asked_for_its_user(policy: str) -> None:
    obj = pod({"runAsUser": 1000}, None, path="/data/app.db", single_writer=policy)
    obj["spec"]["containers"][1] |= {"image": "litestream/litestream", "args": ["replicate", "/data/app.db", "s3://b"]}
    for item in obj["spec"]["containers"]:
        item["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    obj["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    assert users(obj) == {(1000, None)}
    del obj["spec"]["containers"][0]["volumeMounts"], obj["spec"]["containers"][1]["volumeMounts"]
    assert "volumeMounts" not in reviews.injected(obj)["spec"]["containers"][1]


def test_a_litestream_around_the_application_uses_the_database() -> None:
    obj = pod({"runAsUser": 1000}, {"runAsUser": 2000}, single_writer="off")
    obj["spec"]["containers"][1]["command"] = ["litestream", "replicate", "-exec=/app"]
    assert fields(obj) == ["run-as-user"]


@pytest.mark.parametrize("name", ["daprd", "vault-agent", "otc-container", "redis-exporter", "exporter"])
def test_what_another_webhook_puts_beside_the_application_has_no_part_in_its_databases(name: str) -> None:
    for context in (None, {"runAsUser": 2000}):
        obj = pod({"runAsUser": 1000}, context)
        obj["spec"]["containers"][1]["name"] = name
        assert users(obj) == {(1000, None)}
        assert "volumeMounts" not in reviews.injected(obj)["spec"]["containers"][1]
        obj["metadata"]["annotations"][f"{GROUP}/containers"] = f"c0,{name}"
        assert fields(obj) == ["run-as-user"]


def test_who_only_reads_a_volume_does_not_own_the_database_on_it() -> None:
    obj = pod({"runAsUser": 1000}, None, path="/data/app.db")
    for item in obj["spec"]["containers"]:
        item["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    obj["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    assert fields(obj) == ["run-as-user"]
    obj["spec"]["containers"][1]["volumeMounts"][0]["readOnly"] = True
    assert users(obj) == {(1000, None)}


def test_a_native_sidecar_that_alone_mounts_the_databases_volume_uses_it() -> None:
    obj = pod(None, path="/data/app.db")
    sidecar: Object = {
        "name": "server",
        "image": "s:1",
        "restartPolicy": "Always",
        "securityContext": {"runAsUser": 1000},
    }
    sidecar["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    obj["spec"] |= {"initContainers": [sidecar], "volumes": [{"name": "data", "emptyDir": {}}]}
    assert users(obj) == {(1000, None)}
    after = reviews.injected(obj)["spec"]
    assert "volumeMounts" not in after["containers"][0]
    assert [item["name"] for item in after["initContainers"]][-2:] == ["litestream-hook-replicate", "server"]
    obj["metadata"]["annotations"][f"{GROUP}/init-first"] = "false"
    assert fields(obj) == ["init-first"]


def test_a_similar_name_is_looked_for_the_first_unknown_containers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def look(word: str, _: list[str]) -> str:
        looks.append(word)
        return ""

    monkeypatch.setattr(target, "similar", look)
    names = ",".join(f"unknown-{number}" for number in range(500))
    assert not reviews.response(reviews.pod(containers=names))["allowed"]
    assert len(looks) == target.MOST_MEANT


def test_the_operator_s_proxies_are_litestream_s_and_no_one_else_s() -> None:
    proxies = {"HTTPS_PROXY": "http://proxy:3128", "HTTP_PROXY": "http://proxy:3129", "NO_PROXY": ".svc,10.0.0.0/8"}
    chosen = options.read({f"LITESTREAM_{name}": text for name, text in proxies.items()})
    spec = reviews.injected(pod({"runAsUser": 1000}), options=chosen)["spec"]
    for item in spec["initContainers"]:
        found = {entry["name"]: entry.get("value") for entry in item["env"]}
        assert {name: found[name] for name in proxies} == proxies
    assert "env" not in spec["containers"][0]
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqCd/ujmofumdFTG4loaOEafW2vuVCsXWczqUBXwaji"
    obj = pod({"runAsUser": 1000}, bucket="sftp://me@nas/b", host_key=key)
    assert "PROXY" not in str(reviews.injected(obj, options=chosen)["spec"]), "SSH knows no proxy"


def test_a_ca_and_a_file_of_credentials_go_together() -> None:
    spec = reviews.injected(pod({"runAsUser": 1000}, bucket="gs://my-bucket", ca="configmap/own"))["spec"]
    names = {"litestream-hook-ca", "litestream-hook-credentials"}
    assert names <= {volume["name"] for volume in spec["volumes"]}
    assert names <= {mount["name"] for mount in spec["initContainers"][0]["volumeMounts"]}
