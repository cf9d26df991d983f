"""What docs/platforms.md says of tools that apply manifests again and again, with the requests that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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


@pytest.mark.parametrize("tool", [CLIENT_SIDE, FLUX, ARGO_CD], ids=lambda tool: tool[-1])
def test_a_deployment_that_is_applied_again_has_no_difference(
    cluster: Cluster, namespace: str, tool: tuple[str, ...]
) -> None:
    manifest = pods.workload("Deployment", "shop", replicas=1, strategy={"type": "Recreate"})
    seen = []
    for _ in range(2):
        applied = cluster.kubectl(*tool, "-o", "json", "-f", "-", stdin=manifest, namespace=namespace)
        seen.append((applied.json["metadata"]["resourceVersion"], applied.json["metadata"]["labels"]))
    assert seen[0] == seen[1]
    assert seen[0][1], "the webhook's label"
