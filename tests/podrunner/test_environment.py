"""Environment and arguments are what Kubernetes would give the container."""

from __future__ import annotations

from typing import Any

import pytest

from tests.podrunner.environment import Facts, InvalidContainer, environment, expand

POD = {
    "metadata": {"name": "app-0", "namespace": "shop", "uid": "u-1", "labels": {"a": "b"}, "annotations": {"x/y": "z"}},
    "spec": {},
}
FACTS = Facts(POD, {"keys": {"ID": "one", "KEY": "two"}}, {"settings": {"level": "info"}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1y2z"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$(MISSING)", "$(MISSING)"),
        ("$()", "$()"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("$$", "$"),
        ("$A ${A}", "$A ${A}"),
        ("$(A$(B))", "$(A$(B))"),
        ("$(NESTED)", "$(A)"),
    ],
)
def test_expansion_follows_the_api_documentation(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2", "NESTED": "$(A)"}) == expected


def test_references_are_resolved_in_order() -> None:
    container: dict[str, Any] = {
        "name": "c",
        "resources": {"limits": {"memory": "256Mi"}},
        "envFrom": [{"prefix": "S_", "secretRef": {"name": "keys"}}, {"configMapRef": {"name": "settings"}}],
        "env": [
            {"name": "EARLY", "value": "$(LATE)"},
            {"name": "LATE", "value": "$(S_ID)-$(level)"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "KEY"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "no", "optional": True}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
            {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['x/y']"}}},
            {"name": "MIB", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        ],
    }
    assert environment(container, FACTS) == {
        "S_ID": "one",
        "S_KEY": "two",
        "level": "info",
        "EARLY": "$(LATE)",
        "LATE": "one-info",
        "KEY": "two",
        "POD": "app-0",
        "IP": "127.0.0.1",
        "LABEL": "b",
        "NOTE": "z",
        "MIB": "256",
    }


@pytest.mark.parametrize(
    "source",
    [
        {"secretKeyRef": {"name": "other", "key": "KEY"}},
        {"secretKeyRef": {"name": "keys", "key": "other"}},
        {"configMapKeyRef": {"name": "settings", "key": "other"}},
        {"fieldRef": {"fieldPath": "spec.secret"}},
        {"resourceFieldRef": {"resource": "limits.memory"}},
    ],
)
def test_a_reference_to_nothing_is_an_error(source: dict[str, Any]) -> None:
    with pytest.raises(InvalidContainer):
        environment({"name": "c", "env": [{"name": "A", "valueFrom": source}]}, FACTS)
