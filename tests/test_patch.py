"""The JSON Patch of the webhook, judged by an independent library over any JSON."""

import copy
import json
from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from injector.pod.patch import diff

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, "", "a", "1", "~", "/", "~1"])
KEYS = st.sampled_from(["", "a", "b", "name", "mountPath", "a/b", "~", "~1", "-", "0", "ü"])
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=15
)
NAMED = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["a", "b", "c", "d"])},
        optional={"mountPath": st.sampled_from(["/a", "/b"]), "x": JSON},
    ),
    max_size=6,
)


def exact(value: Any) -> str:
    """A document with its types: 1, 1.0 and true differ."""
    return json.dumps(value, sort_keys=True)


def judge(before: Any, after: Any) -> None:
    one, other = copy.deepcopy(before), copy.deepcopy(after)
    operations = diff(before, after)
    assert exact(jsonpatch.apply_patch(copy.deepcopy(before), copy.deepcopy(operations))) == exact(after)
    assert (exact(before), exact(after)) == (exact(one), exact(other)), "an argument was changed"
    if exact(before) == exact(after):
        assert operations == []


@given(JSON, JSON)
@settings(max_examples=400)
def test_the_patch_turns_any_document_into_any_other(before: Any, after: Any) -> None:
    judge({"doc": before}, {"doc": after})


@pytest.mark.slow
@given(NAMED, NAMED)
@settings(max_examples=300)
def test_the_patch_turns_any_list_of_containers_or_mounts_into_any_other(before: Any, after: Any) -> None:
    judge({"items": before}, {"items": after})


@pytest.mark.slow
@given(NAMED, st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_a_reordered_list_with_shared_items_is_patched(items: Any, random: Any) -> None:
    after = [item for item in items if random.random() < 0.8]
    random.shuffle(after)
    judge({"items": items}, {"items": after})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([1], [True]),
        ([0], [False]),
        ([1], [1.0]),
        ([True, 1], [1, True]),
        ([None], []),
        ([[]], [{}]),
        ([[1], [1]], [[1]]),
        ({"a": 1}, {"a": 1.0}),
        ({"a": [{"name": 1}]}, {"a": [{"name": True}]}),
        ({"": {"": 1}}, {"": {}}),
        ({"a/b~c": 1}, {"a/b~c": 2}),
    ],
)
def test_types_are_kept_apart(before: Any, after: Any) -> None:
    judge({"doc": before}, {"doc": after})
    judge({"doc": after}, {"doc": before})


def test_a_list_that_is_not_ours_is_appended_to_and_not_replaced() -> None:
    item = {"name": "a"}
    assert diff({"l": [item]}, {"l": [item, {"name": "b"}]}) == [{"op": "add", "path": "/l/-", "value": {"name": "b"}}]


def test_only_the_changed_field_of_an_item_is_touched() -> None:
    assert diff({"l": [{"name": "a", "x": 1}]}, {"l": [{"name": "a", "x": 2}]}) == [
        {"op": "replace", "path": "/l/0/x", "value": 2}
    ]
