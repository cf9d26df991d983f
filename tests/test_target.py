"""Which containers use the databases, as which user, and how they get into the bucket."""

from typing import Any

import pytest

from injector import GROUP, options
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


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (pod({"runAsUser": 1000}), (1000, None)),
        (pod({"runAsUser": 0}), (0, None)),
        (pod({"runAsUser": 0}, user={"runAsUser": 1000}), (0, None)),
        (pod(None, user={"runAsUser": 1000, "runAsGroup": 0}), (1000, 0)),
        (pod({"runAsUser": None}, user={"runAsUser": 1000}), (1000, None)),
        (pod({"runAsUser": 1}, {"runAsUser": 2}, run_as_user="2"), (2, None)),
        (pod({"runAsUser": 1}, {"runAsUser": 2}, containers="c1"), (2, None)),
        (pod(None, run_as_user="5", run_as_group="6"), (5, 6)),
    ],
    ids=range(8),
)
def test_litestream_runs_as_the_application(obj: Object, expected: tuple[int, int | None]) -> None:
    assert users(obj) == {expected}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (pod(None), ["run-as-user"]),
        (pod({"runAsUser": 1}, None), ["run-as-user"]),
        (pod({"runAsUser": 1}, {"runAsUser": 2}), ["run-as-user"]),
        (pod({"runAsUser": 1, "runAsGroup": 1}, {"runAsUser": 1, "runAsGroup": 2}), ["run-as-group"]),
        (pod({"runAsUser": 1}, containers="ghost"), ["containers"]),
    ],
    ids=range(5),
)
def test_an_unknown_or_ambiguous_application_is_denied(obj: Object, expected: list[str]) -> None:
    assert fields(obj) == expected


def test_the_operators_default_user_stands_for_unknown_users_only() -> None:
    chosen = options.read({"DEFAULT_RUN_AS_USER": "65532"})
    assert users(pod(None), options=chosen) == {(65532, None)}
    assert users(pod(None, {"runAsUser": 65532}), options=chosen) == {(65532, None)}
    assert users(pod({"runAsUser": 1}), options=chosen) == {(1, None)}
    assert fields(pod({"runAsUser": 1}, None), options=chosen) == ["run-as-user"]


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
    first, *ours = reviews.injected(obj)["spec"]["initContainers"]
    for item in ours:
        names = [entry["name"] for entry in item["env"]]
        assert "AWS_ROLE_ARN" in names
        assert not {"OTHER", "AWS_ACCESS_KEY_ID"} & set(names)
        assert [mount["name"] for mount in item["volumeMounts"]].count("aws") == 1
    assert "AWS_ROLE_ARN" not in [entry["name"] for entry in first["env"]]
    assert "aws" not in [mount["name"] for mount in first["volumeMounts"]]


@pytest.mark.parametrize("grace", [None, 0, 30, 600])
def test_the_grace_period_is_raised_once_and_never_lowered(grace: int | None) -> None:
    obj = pod({"runAsUser": 1}, path="/d/a.db,/d/b.db")
    obj["spec"]["terminationGracePeriodSeconds"] = grace
    once = reviews.injected(obj)
    assert once["spec"]["terminationGracePeriodSeconds"] >= (30 if grace is None else grace) + 2 * 30
    assert reviews.injected(once) == once
