"""Short Pods for the runner's own tests, of busybox containers that run shell scripts."""

from __future__ import annotations

from typing import Any

# A script whose shell ends as soon as it is asked to, saying so.
UNTIL_TERM = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
DEAF = "trap 'echo deaf' TERM; echo up; while :; do sleep 0.05; done"


def container(script: str, name: str = "main", **fields: Any) -> dict[str, Any]:
    """A busybox container that runs a shell script."""
    return {"name": name, "image": "busybox:1.37", "command": ["sh", "-c", script], **fields}


def sidecar(script: str, name: str, **fields: Any) -> dict[str, Any]:
    """A native sidecar."""
    return container(script, name, restartPolicy="Always", **fields)


def pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **spec: Any) -> dict[str, Any]:
    """A Pod of these containers that ends within 10 s."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {
            "terminationGracePeriodSeconds": 10,
            "initContainers": list(init),
            "containers": list(containers),
            **spec,
        },
    }


def shell(script: str, **probe: Any) -> dict[str, Any]:
    """A probe (or, without further fields, a hook) that runs a shell script."""
    return {"exec": {"command": ["sh", "-c", script]}, **probe}
