"""Which containers use the databases, as which user, and how they get into the bucket."""

from typing import Any

import pytest

from injector import GROUP, options
from injector.pod import target
from injector.pod.plan import LONGEST_GRACE_SECONDS
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
    for item in reviews.injected(obj)["spec"]["initContainers"]:
        names = [entry["name"] for entry in item["env"]]
        assert "AWS_ROLE_ARN" in names
        assert not {"OTHER", "AWS_ACCESS_KEY_ID"} & set(names)
        assert [mount["name"] for mount in item["volumeMounts"]].count("aws") == 1


@pytest.mark.parametrize("grace", [None, 0, 30, 600])
def test_the_grace_period_is_raised_once_and_never_lowered(grace: int | None) -> None:
    obj = pod({"runAsUser": 1}, path="/d/a.db,/d/b.db")
    obj["spec"]["terminationGracePeriodSeconds"] = grace
    once = reviews.injected(obj)
    assert once["spec"]["terminationGracePeriodSeconds"] >= (30 if grace is None else grace) + 2 * 30
    assert reviews.injected(once) == once


def starts_as_root(
    variables: Object, context: Object | None = None, pod_context: Object | None = None, **annotations: str
) -> Object:
    obj = pod(context, user=pod_context, **annotations)
    obj["spec"]["containers"][0]["env"] = [{"name": name, "value": value} for name, value in variables.items()]
    return obj


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PUID": "1000", "PGID": "1001"}, (1000, 1001)),
        ({"PUID": "911"}, (911, None)),
        ({"USER_UID": "1000", "USER_GID": "1000"}, (1000, 1000)),
        ({"USERMAP_UID": "1000", "USERMAP_GID": "100"}, (1000, 100)),
        ({"UID": "1500", "GID": "1500"}, (1500, 1500)),
    ],
    ids=lambda value: "-".join(map(str, value)),
)
@pytest.mark.parametrize("context", [None, {"runAsUser": 0}, {"runAsUser": 0, "runAsGroup": 0}])
def test_litestream_runs_as_whom_the_image_drops_to(
    variables: Object, expected: tuple[int, int | None], context: Object | None
) -> None:
    obj = starts_as_root(variables, context)
    uid, gid = expected
    assert users(obj) == {(uid, 0 if gid is None and context and "runAsGroup" in context else gid)}
    assert f"Litestream runs as user {uid}, to which container c0 drops by its {next(iter(variables))}" in (
        reviews.warned(obj)
    )


@pytest.mark.parametrize("value", ["", "abc", "$(OTHER)", "-1", "1e3", "99999999999"])
def test_what_is_no_plain_number_names_no_user(value: str) -> None:
    assert fields(starts_as_root({"PUID": value})) == ["run-as-user"]


def test_a_users_own_word_and_a_real_uid_beat_the_variable() -> None:
    assert users(starts_as_root({"PUID": "1000"}, {"runAsUser": 2000})) == {(2000, None)}
    obj = starts_as_root({"PUID": "1000", "PGID": "1000"}, run_as_user="3000")
    assert {uid for uid, _ in users(obj)} == {3000}


def test_root_against_the_variable_is_denied_with_what_to_write() -> None:
    found = reviews.denied(starts_as_root({"PUID": "1000"}, run_as_user="0"))["run-as-user"]
    assert 'write "1000"' in found
    assert users(starts_as_root({"PUID": "1000"}, run_as_user="1000")) == {(1000, None)}


@pytest.mark.parametrize("context", [{"runAsNonRoot": True}, {"runAsUser": 0, "runAsNonRoot": True}])
def test_root_where_the_kubelet_would_not_start_it_is_denied(context: Object) -> None:
    assert "runAsNonRoot: true" in reviews.denied(pod(context, run_as_user="0"))["run-as-user"]


def test_root_is_warned_of() -> None:
    assert "drops to another user, nothing is replicated" in reviews.warned(pod({"runAsUser": 0}))
    assert "root" not in reviews.warned(pod({"runAsUser": 1000}))


def test_who_names_no_user_is_told_how_to_find_out() -> None:
    found = reviews.denied(pod(None, path="/config/app.db"))["run-as-user"]
    assert "the user that owns the database file" in found
    assert "kubectl exec … -c c0 -- stat -c %u /config/app.db" in found


def test_a_container_without_the_databases_volume_has_nothing_to_do_with_it() -> None:
    obj = pod({"runAsUser": 1000}, None, {"runAsUser": 2000}, path="/data/app.db")
    obj["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    obj["spec"]["containers"][2]["volumeMounts"] = [{"name": "other", "mountPath": "/other"}]
    obj["spec"]["volumes"] = [{"name": name, "emptyDir": {}} for name in ("data", "other")]
    assert users(obj) == {(1000, None)}
    after = reviews.injected(obj)["spec"]["containers"]
    assert after == obj["spec"]["containers"]


@pytest.mark.parametrize(
    "own",
    [
        {"image": "litestream/litestream:0.3.13", "args": ["replicate"]},
        {"image": "docker.io/litestream/litestream@sha256:" + "0" * 64, "args": ["replicate", "-config", "/x"]},
        {"image": "example.com/tools:1", "command": ["litestream", "replicate"]},
        {"image": "example.com/app:1", "command": ["/usr/local/bin/litestream"], "args": ["replicate", "-exec", "app"]},
        {"image": "example.com/app:1", "command": ["sh", "-c", "exec litestream replicate -exec /app"]},
    ],
    ids=range(5),
)
def test_another_litestream_in_the_pod_is_denied(own: Object) -> None:
    obj = pod({"runAsUser": 1000}, {"runAsUser": 1000})
    obj["spec"]["containers"][1] |= own
    assert "container c1 runs a Litestream of its own" in reviews.denied(obj)["single-writer"]
    annotations = obj["metadata"]["annotations"]
    annotations[f"{GROUP}/single-writer"] = "warn"
    assert "container c1 runs a Litestream of its own" in reviews.warned(obj)
    annotations[f"{GROUP}/single-writer"] = "off"
    assert "Litestream of its own" not in reviews.warned(obj)


@pytest.mark.parametrize(
    "own",
    [
        {"image": "litestream/litestream:0.5.17", "args": ["restore", "/data/app.db"]},
        {"image": "example.com/litestream-exporter:1", "args": ["replicate"]},
        {"image": "example.com/app:1", "args": ["replicate"]},
    ],
    ids=range(3),
)
def test_what_does_not_replicate_is_no_second_litestream(own: Object) -> None:
    obj = pod({"runAsUser": 1000}, {"runAsUser": 1000})
    obj["spec"]["containers"][1] |= own
    assert reviews.response(obj)["allowed"]


@pytest.mark.parametrize(
    "spec",
    [
        {"os": {"name": "windows"}},
        {"nodeSelector": {"kubernetes.io/os": "windows"}},
        {"securityContext": {"runAsUser": 1, "windowsOptions": {"hostProcess": True}}},
    ],
    ids=range(3),
)
def test_a_windows_pod_is_denied_however_it_says_so(spec: Object) -> None:
    obj = pod({"runAsUser": 1000})
    obj["spec"] |= spec
    assert "inject" in reviews.denied(obj)


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        ({"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}}, "spec.resources.limits.memory"),
        ({"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}, "spec.resources.requests.cpu"),
        ({"requests": {"memory": "60Mi"}, "limits": {"memory": "1Gi"}}, "spec.resources.requests.memory"),
    ],
    ids=range(3),
)
def test_resources_of_the_whole_pod_that_litestream_does_not_fit_into_are_told(resources: Object, field: str) -> None:
    obj = pod({"runAsUser": 1000})
    obj["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "90m"}}
    obj["spec"]["resources"] = resources
    assert fields(obj) == [field]


def test_resources_of_the_whole_pod_that_litestream_fits_into_are_fine() -> None:
    obj = pod({"runAsUser": 1000})
    obj["spec"]["resources"] = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    assert fields(obj) == []
    assert reviews.injected(reviews.injected(obj)) == reviews.injected(obj)


def test_a_moment_for_a_database_on_a_lasting_volume_is_warned_of() -> None:
    obj = pod({"runAsUser": 1000}, path="/data/app.db", restore_from="old/{database}")
    obj["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    obj["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    assert "is on its volume already, the Pod waits" in reviews.warned(obj)
    obj["metadata"]["annotations"][f"{GROUP}/local-database"] = "replace"
    assert "the Pod waits" not in reviews.warned(obj)


def test_a_similar_name_is_looked_for_the_first_unknown_containers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def look(word: str, _: list[str]) -> str:
        looks.append(word)
        return ""

    monkeypatch.setattr(target, "similar", look)
    names = ",".join(f"unknown-{number}" for number in range(500))
    assert not reviews.response(reviews.pod(containers=names))["allowed"]
    assert len(looks) == target.MOST_MEANT


@pytest.mark.parametrize("seconds", [-1, 2**30 + 1, 3_000_000_000])
def test_a_grace_period_that_a_second_call_would_not_believe_is_denied_at_the_first(seconds: int) -> None:
    obj = reviews.pod({"terminationGracePeriodSeconds": seconds})
    assert "write seconds from 0" in reviews.denied(obj)["spec.terminationGracePeriodSeconds"]


def test_the_longest_grace_period_is_injected_and_injected_again() -> None:
    once = reviews.injected(reviews.pod({"terminationGracePeriodSeconds": LONGEST_GRACE_SECONDS}))
    assert reviews.injected(once) == once
