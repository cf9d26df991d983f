"""Shapes: where and how an object is not what Kubernetes would send, and what passes."""

from typing import Any

import pytest

from injector.pod import shapes

CONTAINER = {"name": "app"}


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"containers": [{"name": 1}]}, "spec.containers[0].name"),
        ({"containers": "app"}, "spec.containers"),
        ({"containers": [CONTAINER], "volumes": [{"name": None}]}, "spec.volumes[0].name"),
        ({"containers": [CONTAINER], "securityContext": {"runAsUser": "1000"}}, "spec.securityContext.runAsUser"),
        ({"containers": [CONTAINER], "securityContext": {"runAsUser": 2**63}}, "spec.securityContext.runAsUser"),
        ({}, "spec"),
        (None, "spec"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(spec: Any, where: str) -> None:
    found = shapes.wrong({"spec": spec}, shapes.Pod)
    assert found is not None
    assert found[0] == where
    assert found[1]


def test_fields_that_are_null_or_that_nobody_knows_pass() -> None:
    spec = {"containers": [{**CONTAINER, "env": None, "new": [1]}], "initContainers": None, "new": {"a": 1}}
    assert shapes.wrong({"metadata": None, "spec": spec}, shapes.Pod) is None


def test_the_largest_integer_passes() -> None:
    spec = {"containers": [CONTAINER], "terminationGracePeriodSeconds": 2**63 - 1}
    assert shapes.wrong({"spec": spec}, shapes.Pod) is None


def test_what_is_nested_without_end_is_no_crash() -> None:
    value: dict[str, Any] = {}
    value["spec"] = value
    assert shapes.wrong(value, shapes.Pod) is not None
