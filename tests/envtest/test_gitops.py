"""What docs/platforms.md says of tools that apply manifests again and again, with the requests that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from injector import GROUP
from tests.envtest import pods
from tests.envtest.installation import installed
from tests.envtest.webhook import configuration

if TYPE_CHECKING:
    from pathlib import Path

    from tests.envtest.cluster import Cluster

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

CLIENT_SIDE = ("apply",)  # Argo CD's own default
SERVER_SIDE = ("apply", "--server-side", "--force-conflicts")
FLUX = (*SERVER_SIDE, "--field-manager=kustomize-controller")
ARGO_CD = (*SERVER_SIDE, "--field-manager=argocd-controller")
REPLACING = ("replace",)  # Argo CD with Replace=true


def test_who_applies_leaves_the_ca_bundle_and_who_replaces_takes_it_out(cluster: Cluster, tmp_path: Path) -> None:
    manifest = configuration(cluster)
    with installed(cluster, tmp_path) as installation:
        with installation.replica():
            (ours,) = set(installation.ca_bundles())
        for tool in (CLIENT_SIDE, FLUX, ARGO_CD, CLIENT_SIDE):
            applied = cluster.kubectl(*tool, "-f", "-", stdin=manifest)
            assert applied.code == 0, applied.error
            assert set(installation.ca_bundles()) == {ours}, tool
        replaced = cluster.kubectl(*REPLACING, "-f", "-", stdin=manifest)
        assert replaced.code == 0, replaced.error
        assert set(installation.ca_bundles()) == {b""}
        with installation.replica():
            assert set(installation.ca_bundles()) == {ours}


DEPLOYMENT = pods.workload("Deployment", "shop", replicas=1, strategy={"type": "Recreate"})


@pytest.mark.parametrize("tool", [CLIENT_SIDE, FLUX, ARGO_CD], ids=lambda tool: tool[-1])
@pytest.mark.parametrize("manifest", [DEPLOYMENT, pods.pod("alone")], ids=lambda manifest: manifest["kind"])
def test_what_is_applied_again_keeps_what_the_webhook_has_added(
    cluster: Cluster, namespace: str, manifest: pods.Object, tool: tuple[str, ...]
) -> None:
    first, second = (
        cluster.kubectl(*tool, "-o", "json", "-f", "-", stdin=manifest, namespace=namespace).json for _ in range(2)
    )
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert first["metadata"]["labels"][f"{GROUP}/replicates"] == "true"
    if manifest["kind"] == "Pod":
        assert pods.injected(second)
