"""Our fields laid over what is there: what others set is kept, and what is right already is not touched."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from injector.pod import merge
from tests import reviews
from tests.test_patch import JSON, exact

Object = dict[str, Any]
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), JSON)


@settings(max_examples=60)
@given(JSON, JSON)
def test_laid_twice_is_laid_once(theirs: Any, ours: Any) -> None:
    before = exact(theirs), exact(ours)
    once = merge.over(theirs, ours)
    twice = merge.over(once, ours)
    assert twice is once or exact(twice) == exact(once)
    assert (exact(theirs), exact(ours)) == before, "an argument was changed"


@settings(max_examples=40)
@given(OBJECTS, OBJECTS)
def test_every_key_is_kept_and_every_plain_value_of_ours_wins(theirs: Object, ours: Object) -> None:
    after = merge.over(theirs, ours)
    assert after.keys() == theirs.keys() | ours.keys()
    for key, value in ours.items():
        if not isinstance(value, (dict, list)):
            assert exact(after[key]) == exact(value)
    for key in theirs.keys() - ours.keys():
        assert after[key] is theirs[key]


@settings(max_examples=40)
@given(OBJECTS)
def test_what_is_as_it_should_be_stays_the_very_same_object(theirs: Object) -> None:
    assert merge.over(theirs, dict(theirs)) is theirs


def test_lists_are_matched_by_what_names_their_items() -> None:
    theirs = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    assert merge.over(theirs, [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}], "env") == [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "3"},
        {"name": "C", "value": "4"},
    ]
    mounts = [{"name": "x", "mountPath": "/a", "mountPropagation": "None"}]
    assert merge.over(mounts, [{"name": "y", "mountPath": "/a"}], "volumeMounts") == [
        {"name": "y", "mountPath": "/a", "mountPropagation": "None"}
    ]


def test_other_lists_are_ours() -> None:
    assert merge.over(["a", "b"], ["a"], "args") == ["a"]
    assert merge.over(["NET_ADMIN"], ["ALL"], "drop") == ["ALL"]
    same = ["a", "b"]
    assert merge.over(same, ["a", "b"], "command") is same


@pytest.mark.parametrize(
    ("theirs", "ours"), [("1024Mi", "1Gi"), ("0.02", "20m"), (1, "1"), ("1000m", "1"), ("1e3", "1k")]
)
def test_a_quantity_written_another_way_is_the_same(theirs: Any, ours: str) -> None:
    there = {"limits": {"memory": theirs}}
    assert merge.over(there, {"limits": {"memory": ours}}) is there


@pytest.mark.parametrize(("theirs", "ours"), [("1Gi", "2Gi"), ("", "1"), (None, "1"), ([], "1"), ("x", "1")])
def test_another_quantity_is_replaced(theirs: Any, ours: str) -> None:
    assert merge.over({"requests": {"cpu": theirs}}, {"requests": {"cpu": ours}}) == {"requests": {"cpu": ours}}


def test_the_same_text_elsewhere_is_no_quantity() -> None:
    assert merge.over({"value": "1024Mi"}, {"value": "1Gi"}) == {"value": "1Gi"}


@pytest.mark.parametrize(
    ("theirs", "ours"), [(1, True), (0, False), (True, 1), (None, {}), (None, []), ("x", {"a": 1}), ({}, [])]
)
def test_a_value_of_another_type_is_replaced(theirs: Any, ours: Any) -> None:
    assert exact(merge.over({"x": theirs}, {"x": ours})) == exact({"x": ours})


def change(obj: Object, container: str, **fields: Any) -> Object:
    """The Pod after a first call, with other fields in one of our containers, and a second call."""
    first = reviews.injected(obj)
    found = next(item for item in first["spec"]["initContainers"] if item["name"] == container)
    found.update(fields)
    second = reviews.injected(first)
    assert reviews.injected(second) == second
    after: Object = next(item for item in second["spec"]["initContainers"] if item["name"] == container)
    return after


def test_a_secret_that_another_webhook_has_resolved_is_left_resolved() -> None:
    """Webhooks of secret stores put a value into the place of a reference; both together are refused by Kubernetes."""
    env = [
        {"name": "AWS_ACCESS_KEY_ID", "value": "resolved"},
        {"name": "AWS_SECRET_ACCESS_KEY", "value": ">>store:key"},
        {"name": "GOMEMLIMIT", "value": "1"},
        {"name": "EXTRA", "value": "x"},
    ]
    after = change(reviews.pod(), "litestream-hook-replicate", env=env)
    by_name = {entry["name"]: entry for entry in after["env"]}
    assert by_name["AWS_ACCESS_KEY_ID"] == {"name": "AWS_ACCESS_KEY_ID", "value": "resolved"}
    assert by_name["EXTRA"] == {"name": "EXTRA", "value": "x"}
    assert int(by_name["GOMEMLIMIT"]["value"]) > 2**20


def test_the_config_is_ours_whatever_stands_in_its_place() -> None:
    env = [{"name": "LITESTREAM_CONFIG", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    after = change(reviews.pod(), "litestream-hook-init", env=env)
    entry = next(entry for entry in after["env"] if entry["name"] == "LITESTREAM_CONFIG")
    assert "valueFrom" not in entry
    assert '"dbs"' in entry["value"]


def test_a_securer_container_stays_securer_and_a_looser_one_is_tightened() -> None:
    context = {"privileged": True, "readOnlyRootFilesystem": False, "runAsUser": 0, "procMount": "Default"}
    after = change(reviews.pod(), "litestream-hook-replicate", securityContext=context)
    assert after["securityContext"]["readOnlyRootFilesystem"] is True
    assert after["securityContext"]["runAsUser"] == 1000
    assert after["securityContext"]["procMount"] == "Default"
