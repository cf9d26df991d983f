"""Whom Litestream runs as, by what the Pod says of it."""

from typing import Any

import pytest

from injector import GROUP, options
from injector.admission.verdict import Question, judge
from tests import reviews
from tests.test_target import fields, pod, users

Object = dict[str, Any]


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
    ("own", "expected"), [(None, {"level": "s0:c1"}), ({}, None), ({"level": "s0:c2"}, {"level": "s0:c2"})]
)
def test_litestream_has_the_label_that_the_kubelet_gives_the_application(own: Object | None, expected: Object) -> None:
    obj = pod({"runAsUser": 1, "seLinuxOptions": own}, user={"seLinuxOptions": {"level": "s0:c1"}})
    contexts = [item["securityContext"] for item in reviews.injected(obj)["spec"]["initContainers"]]
    assert [context.get("seLinuxOptions") for context in contexts] == [expected] * len(contexts)


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


def openshift() -> Object:
    """A Deployment without a uid, as on OpenShift, which gives each Pod one of its namespace's range."""
    template = pod(None, path="/data/app.db")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"strategy": {"type": "Recreate"}, "template": {key: template[key] for key in ("metadata", "spec")}},
    }


LATER = options.read({"DEFAULT_RUN_AS_USER": "pod"})


def test_a_template_whose_pods_are_given_a_user_later_is_warned_of_and_its_pods_must_have_one() -> None:
    assert fields(openshift()) == ["run-as-user"]
    assert "each Pod has to be given one when it is made" in reviews.warned(openshift(), options=LATER)
    assert fields(pod(None), options=LATER) == ["run-as-user"]
    assert users(pod({"runAsUser": 1000680000}), options=LATER) == {(1000680000, None)}


def test_a_user_that_a_template_names_counts_where_others_are_given_theirs_later() -> None:
    obj = openshift()
    obj["spec"]["template"]["metadata"]["annotations"][f"{GROUP}/run-as-user"] = "1000680000"
    assert reviews.warned(obj, options=LATER) == ""


def test_a_template_that_is_injected_leaves_the_user_to_whom_gives_it_and_is_never_root() -> None:
    """The whole way: the command line's output is applied, the Pod gets its user, the webhook finds nothing to do."""
    question = Question(("apps", "Deployment"), "CREATE", openshift(), "shop")
    template = judge(question, LATER).after["spec"]["template"]
    contexts = [item["securityContext"] for item in template["spec"]["initContainers"]]
    assert all("runAsUser" not in context and context["runAsNonRoot"] for context in contexts)

    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-abc", "uid": "1", "controller": True}
    labels = {**template["metadata"]["labels"], "pod-template-hash": "abc"}
    metadata = {**template["metadata"], "labels": labels, "generateName": "web-abc-", "ownerReferences": [reference]}
    made: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    assert fields(made, options=LATER, namespace="shop") == ["run-as-user"]
    for item in [*made["spec"]["initContainers"], *made["spec"]["containers"]]:
        item["securityContext"] = {**(item["securityContext"] or {}), "runAsUser": 1000680000}
    after = reviews.injected(made, options=LATER, namespace="shop")
    assert after["spec"] == made["spec"]


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
    obj = starts_as_root({"PUID": "1000"}, run_as_user="0")
    assert 'write "1000"' in reviews.denied(obj)["run-as-user"]
    assert "warnings" not in reviews.response(obj)
    strict = reviews.response(starts_as_root({"PUID": "1000"}, {"runAsNonRoot": True}, run_as_user="0"))
    assert len(strict["status"]["details"]["causes"]) == 1
    assert users(starts_as_root({"PUID": "1000"}, run_as_user="1000")) == {(1000, None)}


@pytest.mark.parametrize("context", [None, {"runAsUser": 0}])
def test_an_image_that_its_variable_keeps_root_is_no_surprise(context: Object | None) -> None:
    obj = starts_as_root({"PUID": "0", "PGID": "0"}, context)
    assert users(obj) == {(0, 0)}
    assert reviews.warned(obj) == ""
    assert reviews.warned(starts_as_root({"PUID": "0"}, context, run_as_user="0")) == ""
    obj["spec"]["securityContext"] = {"runAsNonRoot": True}
    assert "runAsNonRoot: true" in reviews.denied(obj)["run-as-user"]


def test_root_by_a_security_context_that_forbids_it_is_denied_with_the_field_to_mend() -> None:
    for obj in (pod({"runAsUser": 0, "runAsNonRoot": True}), pod({"runAsNonRoot": True}, user={"runAsUser": 0})):
        assert "write the uid of the user" in reviews.denied(obj)["securityContext.runAsUser"]
    obj = pod({"runAsNonRoot": True})
    found = reviews.denied(obj, options=options.read({"DEFAULT_RUN_AS_USER": "0"}))
    assert "runAsNonRoot: true" in found["run-as-user"]


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
    assert "containers" not in found
    assert f"name the one that uses it in {GROUP}/containers" in reviews.denied(pod(None, None))["run-as-user"]
