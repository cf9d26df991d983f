"""kube-controller-manager beside the API server, where KUBEBUILDER_ASSETS has it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.envtest.cluster import Cluster, started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

WORKLOADS = (
    "replicaset-controller",
    "deployment-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
)


@contextmanager
def running(cluster: Cluster, folder: Path, names: Sequence[str] = WORKLOADS) -> Iterator[None]:
    """Run these controllers until the block ends; `folder` gets their log."""
    program = cluster.assets / "kube-controller-manager"
    if not os.access(program, os.X_OK):
        pytest.skip("the folder of KUBEBUILDER_ASSETS has no kube-controller-manager")
    command = [
        str(program),
        f"--kubeconfig={cluster.kubeconfig}",
        f"--controllers={','.join(names)}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--secure-port=0",
    ]
    with started(command, folder / "controllers.log"):
        yield
