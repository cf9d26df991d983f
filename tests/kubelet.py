"""kubectl with the podrunner's node behind it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from injector.command.kubectl import Kubectl, _Call

if TYPE_CHECKING:
    from tests.podrunner import Run

Object = dict[str, Any]


class Kubelet(Kubectl):
    """Stands in for the program kubectl: an API server without a kubelet, as envtest has it, can't exec.

    `kubectl get` finds the Pods that run on the node, and other objects that are given; `kubectl exec` is the
    podrunner's. What is said where that fails is kubectl's own.
    """

    def __init__(self, *runs: Run, others: Sequence[Object] = (), events: Sequence[Object] = ()) -> None:
        super().__init__()
        object.__setattr__(self, "runs", {run.name: run for run in runs})
        object.__setattr__(self, "others", others)
        object.__setattr__(self, "events", events)

    def _done(
        self, call: _Call, arguments: Sequence[str], given: bytes | None, into: IO[bytes] | None, patience: float
    ) -> subprocess.CompletedProcess[bytes]:
        del given, into
        runs: dict[str, Run] = self.runs  # type: ignore[attr-defined]
        if arguments[0] == "get":
            found = self.events if call.resource == "events" else [*map(living, runs.values()), *self.others]  # type: ignore[attr-defined]
            return _ended(arguments, 0, json.dumps({"items": list(found)}))
        _, name, container, _, *command = arguments
        if name not in runs:
            return _ended(arguments, 1, "", f'Error from server (NotFound): pods "{name}" not found')
        output = runs[name].exec(container.partition("=")[2], command, patience)
        if output.exit_code == 0:
            return _ended(arguments, 0, output.text)
        error = f"{output.text}command terminated with exit code {output.exit_code}"
        return _ended(arguments, output.exit_code, output.text, error)


def living(run: Run) -> Object:
    """A Pod with the status that a kubelet would give it now."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    states = [
        {"name": name, "restartCount": container.lives - 1, "state": {"running": {"startedAt": now}}}
        for name, container in run.containers.items()
        if container.running
    ]
    metadata = {"namespace": "default", "creationTimestamp": now, **run.pod["metadata"]}
    return {**run.pod, "metadata": metadata, "status": {"phase": "Running", "containerStatuses": states}}


def _ended(arguments: Sequence[str], code: int, output: str, error: str = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.CompletedProcess(["kubectl", *arguments], code, output.encode(), error.encode())
