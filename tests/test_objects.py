"""The objects in a document: found in Lists to any depth, called by a name that breaks no line, put back in place."""

from typing import Any

from injector.command.objects import name_of, objects, put


def test_items_of_lists_are_found_to_any_depth() -> None:
    pod = {"kind": "Pod", "metadata": {"name": "a"}}
    inner = {"kind": "PodList", "items": [pod, "text", None]}
    assert [found.path for found in objects({"kind": "List", "items": [inner, pod]})] == [
        ("items", 0, "items", 0),
        ("items", 1),
    ]
    assert list(objects([pod])) == []
    assert [found.path for found in objects({"kind": "Other", "items": [pod]})] == [()]


def test_a_name_breaks_no_line() -> None:
    hostile = {"kind": "Pod\n", "metadata": {"name": "a\nb", "namespace": "\x1b[31m"}}
    assert str(name_of(hostile, "")).isprintable()
    assert str(name_of({"kind": "Job", "metadata": {"generateName": "run-"}}, "shop")) == "Job shop/run-"
    assert str(name_of({"kind": "Job"}, "shop")) == "Job shop/nameless"


def test_an_object_is_put_in_place_and_nothing_else_is_copied() -> None:
    before: Any = {"items": [{"a": 1}, {"b": 2}], "other": {}}
    after = put(before, ("items", 1), {"c": 3})
    assert (after["items"], before["items"]) == ([{"a": 1}, {"c": 3}], [{"a": 1}, {"b": 2}])
    assert after["items"][0] is before["items"][0]
    assert put(before, (), "x") == "x"
