"""The objects that the tests send, and what they look for in the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from injector import GROUP

if TYPE_CHECKING:
    from collections.abc import Mapping

Object = dict[str, Any]
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
DATABASE = "/data/app.db"


def asking(group: str = GROUP, **more: str) -> dict[str, str]:
    """Annotations that ask for injection; `more` in Python's spelling: `replica_path` for `replica-path`."""
    own = {"inject": "true", "path": DATABASE} | {key.replace("_", "-"): value for key, value in more.items()}
    return {f"{group}/{key}": value for key, value in own.items()}


def pod(name: str, asked: Mapping[str, str] | None = None, **spec: Any) -> Object:
    """A Pod with one application container that satisfies the `restricted` standard.

    Args:
        name: of the Pod.
        asked: its annotations; by default those that ask for injection. `{}`: none.
        spec: fields of the spec besides the container.
    """
    metadata = {"name": name, "annotations": dict(asking() if asked is None else asked)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(**spec)}


def owned(deployment: str, asked: Mapping[str, str] | None = None, **spec: Any) -> Object:
    """A Pod as the ReplicaSet of a Deployment makes it: without a name, and with its predecessor's replica."""
    manifest = pod("", asked, **spec)
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": f"{deployment}-5d4f",
        "uid": "1",
        "controller": True,
    }
    labels = {"pod-template-hash": "5d4f"}
    del manifest["metadata"]["name"]
    manifest["metadata"] |= {"generateName": f"{deployment}-5d4f-", "labels": labels, "ownerReferences": [owner]}
    return manifest


def pod_spec(**more: Any) -> Object:
    """The spec of such a Pod."""
    container = {"name": "app", "image": "app:1", "securityContext": RESTRICTED}
    return {"containers": [container], **more}


def workload(kind: str, name: str, asked: Mapping[str, str] | None = None, **spec: Any) -> Object:
    """A workload of the group `apps` whose template asks for injection; `spec` holds what its kind needs."""
    template = {
        "metadata": {"labels": {"app": name}, "annotations": dict(asking() if asked is None else asked)},
        "spec": pod_spec(),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }


def names(stored: Mapping[str, Any], field: str) -> list[str]:
    """The names in a list of a Pod's spec: `initContainers`, `containers`, `volumes`."""
    return [one["name"] for one in stored["spec"].get(field, [])]


def injected(stored: Mapping[str, Any]) -> list[Object]:
    """The containers that the webhook put into a Pod."""
    both = [*stored["spec"].get("initContainers", []), *stored["spec"]["containers"]]
    return [one for one in both if one["name"].startswith("litestream-hook-")]
