"""A container's environment and arguments, with references resolved and `$(NAME)` expanded as Kubernetes does."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.podrunner.quantity import quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

Objects = dict[str, dict[str, str]]
"""Secrets or ConfigMaps by name: their keys and values."""


class InvalidContainer(Exception):
    """The container can't be made from its specification (Kubernetes: CreateContainerConfigError)."""


class Facts(NamedTuple):
    """What a Pod's references may point at."""

    pod: dict[str, Any]
    secrets: Objects
    config_maps: Objects


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by its value; an unknown name stays as it is written, `$$` becomes `$`.

    The rules are those of the field documentation of `command` in the Pod API.
    """
    out: list[str] = []
    at = 0
    while at < len(text):
        following = text[at + 1 : at + 2]
        if text[at] != "$" or not following:
            out.append(text[at])
            at += 1
        elif following == "$":
            out.append("$")
            at += 2
        elif following == "(" and (end := text.find(")", at)) > 0:
            name = text[at + 2 : end]
            out.append(variables.get(name, text[at : end + 1]))
            at = end + 1
        else:
            out.append(text[at : at + 2])
            at += 2
    return "".join(out)


def environment(container: dict[str, Any], facts: Facts) -> dict[str, str]:
    """The variables that the Pod gives to `container`; InvalidContainer where a reference leads nowhere."""
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        for kind, objects in (("secretRef", facts.secrets), ("configMapRef", facts.config_maps)):
            if reference := source.get(kind):
                data = lookup(objects, kind, reference["name"], optional=reference.get("optional", False))
                found |= {source.get("prefix", "") + key: value for key, value in data.items()}
    for variable in container.get("env") or []:
        if reference := variable.get("valueFrom"):
            value = _referenced(reference, container, facts)
            if value is not None:
                found[variable["name"]] = value
        else:
            found[variable["name"]] = expand(variable.get("value") or "", found)
    return found


def lookup(objects: Objects, kind: str, name: str, *, optional: bool) -> dict[str, str]:
    """The data of the Secret or ConfigMap `name`; empty if it is optional and does not exist."""
    if name not in objects and not optional:
        raise InvalidContainer(f"{kind} {name!r} not found")
    return objects.get(name, {})


def field(path: str, pod: dict[str, Any]) -> str:
    """The value of a fieldRef's `fieldPath`; InvalidContainer for a path that Kubernetes does not offer."""
    metadata, spec = pod["metadata"], pod["spec"]
    plain = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": "localhost",
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        **dict.fromkeys(("status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs"), "127.0.0.1"),
    }
    if path in plain:
        return str(plain[path])
    for kind in ("labels", "annotations"):
        if path.startswith(f"metadata.{kind}['") and path.endswith("']"):
            return str((metadata.get(kind) or {}).get(path[len(f"metadata.{kind}['") : -2], ""))
    raise InvalidContainer(f"fieldPath {path!r} is not implemented")


def _referenced(reference: dict[str, Any], container: dict[str, Any], facts: Facts) -> str | None:
    if "fieldRef" in reference:
        return field(reference["fieldRef"]["fieldPath"], facts.pod)
    if "resourceFieldRef" in reference:
        return _resource(reference["resourceFieldRef"], container)
    for kind, objects in (("secretKeyRef", facts.secrets), ("configMapKeyRef", facts.config_maps)):
        if kind in reference:
            name, key = reference[kind]["name"], reference[kind]["key"]
            optional = reference[kind].get("optional", False)
            data = lookup(objects, kind, name, optional=optional)
            if key not in data and not optional:
                raise InvalidContainer(f"{kind}: no key {key!r} in {name!r}")
            return data.get(key)
    raise InvalidContainer(f"valueFrom {sorted(reference)} is not implemented")


def _resource(reference: dict[str, Any], container: dict[str, Any]) -> str:
    kind, _, name = reference["resource"].partition(".")
    amount = ((container.get("resources") or {}).get(kind) or {}).get(name)
    if amount is None or reference.get("containerName", container["name"]) != container["name"]:
        raise InvalidContainer(f"resourceFieldRef {reference['resource']!r}: the container itself must set it")
    divisor = quantity(reference.get("divisor") or "1")
    return str(ceil(quantity(amount) / (divisor or 1)))
