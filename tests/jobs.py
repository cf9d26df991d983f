"""A cluster for commands that make Jobs: kubectl's place is taken, and what it would start really runs."""

from __future__ import annotations

import copy
import subprocess
from typing import IO, TYPE_CHECKING, Any

from injector.command.kubectl import Answer, Kubectl, MissingRight, NotFound
from tests.podrunner.runc import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.podrunner import Node, Run

Object = dict[str, Any]


class Cluster(Kubectl):
    """Stands in for kubectl and the API server: objects are kept as they come, and a Job's Pod runs on a node.

    A mock: it admits everything, has no controllers but that one Pod of a Job, and an `exec` is runc's. Real are the
    Pod, its containers, and all that they do.

    Attributes:
        objects: by resource and name.
        runs: the Pods of Jobs that were made, by the Job's name.
        deleted: the names of the Jobs that were deleted.
        claims: folders that stand for PersistentVolumeClaims.
        on_exec: called before each `exec`, to disturb it.
        forbidden: what the user may not do, as VERB RESOURCE.
    """

    __setattr__ = object.__setattr__  # kubectl's own attributes never change

    def __init__(self, node: Node | None = None, namespace: str = "default") -> None:
        super().__init__()
        self.node, self.namespace = node, namespace
        self.objects: dict[tuple[str, str], Object] = {}
        self.runs: dict[str, Run] = {}
        self.deleted: list[str] = []
        self.claims: dict[str, Path] = {}
        self.on_exec: Callable[[Sequence[str]], Sequence[str]] = list
        self.forbidden: set[str] = set()

    def put(self, resource: str, found: Object) -> None:
        """There is this object."""
        found = copy.deepcopy(found)
        found["metadata"].setdefault("namespace", self.namespace)
        self.objects[resource, found["metadata"]["name"]] = found

    def require(self, verb: str, resource: str, *, namespace: str | None = None) -> None:
        if f"{verb} {resource}" in self.forbidden:
            raise MissingRight(f"you may not {verb} {resource} in namespace {namespace}", "Forbidden")

    def get(self, resource: str, name: str, *, namespace: str | None = None) -> Object:
        del namespace
        if (resource, name) not in self.objects:
            raise NotFound(f"there is no {resource} {name} in namespace {self.namespace}, or no longer", "NotFound")
        return self.objects[resource, name]

    def find(
        self,
        resource: str,
        *,
        namespace: str | None = None,
        everywhere: bool = False,
        labels: str = "",
        fields: str = "",
    ) -> list[Object]:
        del namespace, everywhere, fields
        key, _, value = labels.partition("=")
        if key == "batch.kubernetes.io/job-name":
            return [self._pod(self.runs[value])] if value in self.runs else []
        found = [each for (kind, _), each in self.objects.items() if kind == resource]
        return [each for each in found if not key or (each["metadata"].get("labels") or {}).get(key) == value]

    def create(self, manifest: Mapping[str, Any], resource: str, *, namespace: str | None = None) -> Object:
        assert (manifest["kind"], resource, namespace) == ("Job", "jobs.batch", self.namespace)
        assert self.node is not None, "nothing runs here"
        name = manifest["metadata"]["name"]
        template = copy.deepcopy(manifest["spec"]["template"])
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"]["name"] = f"{name}-x7k2p"
        self.runs[name] = self.node.start(pod, namespace=self.namespace, claims=self.claims)
        return dict(manifest)

    def delete(self, resource: str, name: str, *, namespace: str | None = None) -> None:
        del namespace
        assert resource == "jobs.batch"
        self.deleted.append(name)
        if name in self.runs:
            self.runs[name].delete()

    def logs(self, pod: str, container: str, *, namespace: str | None = None, lines: int = -1) -> str:
        del namespace, lines
        return next(run for run in self.runs.values() if run.name == pod).logs(container)

    def execute(
        self,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        namespace: str | None = None,
        given: bytes | None = None,
        into: IO[bytes] | None = None,
        patience: float = 60.0,
    ) -> Answer:
        """A mock of `kubectl exec`: runc's own, in the container that runs on this machine."""
        del namespace
        run = next(run for run in self.runs.values() if run.name == pod)
        life = run.containers[container].life
        assert life is not None
        assert given is None
        done = subprocess.run(
            life._runc("exec", life.identifier, *self.on_exec(command)),
            stdin=subprocess.DEVNULL,
            stdout=into or subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=patience,
            env=ENVIRONMENT,
            check=False,
        )
        return Answer(done.returncode, done.stdout or b"", done.stderr.decode())

    @staticmethod
    def _pod(run: Run) -> Object:
        """A Pod as the API would have it, by what the podrunner knows."""
        result = run._result
        phase = "Running" if result is None else result.phase
        status: Object = {"phase": phase}
        if result is not None:
            status |= {"reason": result.reason, "message": result.message}
            status["containerStatuses"] = [
                {"name": name, "state": {"terminated": {"reason": one.reason}}}
                for name, one in result.containers.items()
            ]
        return {"metadata": run.pod["metadata"], "spec": run.pod["spec"], "status": status}
