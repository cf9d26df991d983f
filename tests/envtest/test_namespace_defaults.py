"""Defaults of a file and of a Namespace, with the rights that the components' manifests give, on a real API server."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator

import pytest

from injector import GROUP
from tests.envtest import pods
from tests.envtest.cluster import Cluster
from tests.envtest.installation import Installation, Replica, installed
from tests.envtest.webhook import ROOT, Object

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

OVERLAY = """
resources: [{root}/overlays/self-signed]
components: [{root}/components/namespace-defaults]
"""
FILE = "defaults: {endpoint: 'http://minio:9000', bucket: far}\nenforce: [endpoint]\n"


@pytest.fixture(scope="module")
def installation(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    overlay = tmp_path_factory.mktemp("overlay")
    (overlay / "kustomization.yaml").write_text(OVERLAY.format(root=os.path.relpath(ROOT / "k8s", overlay)))
    file = overlay / "defaults.yaml"
    file.write_text(FILE)
    with installed(cluster, tmp_path_factory.mktemp("defaults"), str(overlay)) as one:
        yield dataclasses.replace(one, environment={**one.environment, "DEFAULTS_FILE": str(file)})


@pytest.fixture(scope="module")
def replica(installation: Installation) -> Iterator[Replica]:
    with installation.replica() as one:
        yield one


@pytest.fixture
def tenant(cluster: Cluster, replica: Replica) -> str:
    """A namespace whose owner has set a bucket and a path in its annotations."""
    del replica  # it only has to run
    name = cluster.namespace()
    mine = (f"{GROUP}/bucket=near", f"{GROUP}/path={pods.DATABASE}")
    assert cluster.kubectl("annotate", "namespace", name, *mine).code == 0
    return name


def alone(name: str, **more: str) -> Object:
    """A Pod that asks for injection, and for little else."""
    return pods.pod(name, {f"{GROUP}/{key}": text for key, text in {"inject": "true", **more}.items()})


def test_inject_alone_is_enough(cluster: Cluster, tenant: str) -> None:
    """The API server calls twice, and the second call keeps what the first has used."""
    stored = cluster.create(alone("app"), tenant)
    status = json.loads(stored["metadata"]["annotations"][f"{GROUP}/status"])
    assert (status["endpoint"], status["bucket"]) == ("http://minio:9000", "near")
    assert status["databases"] == {pods.DATABASE: f"{tenant}/pod/app{pods.DATABASE}"}
    assert status["defaults"] == {"endpoint": "http://minio:9000", "bucket": "near", "path": pods.DATABASE}


def test_a_tenant_is_told_what_the_operator_chooses(cluster: Cluster, tenant: str) -> None:
    refused = cluster.try_create(alone("app", endpoint="http://evil.example.com"), tenant)
    assert refused.code != 0
    assert 'is for the operator to choose, and it is "http://minio:9000" here' in refused.error
