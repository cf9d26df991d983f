"""One API server and one webhook for all tests of this folder, a namespace for each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.envtest import webhook as webhooks
from tests.envtest.cluster import PROGRAMS, Cluster, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.envtest.webhook import Webhook


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder that KUBEBUILDER_ASSETS names; without it the test is skipped."""
    named = os.environ.get("KUBEBUILDER_ASSETS")
    if not named:
        pytest.skip(
            "KUBEBUILDER_ASSETS is not set: `setup-envtest use -p path` prints a folder with "
            "etcd, kube-apiserver and kubectl"
        )
    folder = Path(named)
    missing = [program for program in PROGRAMS if not os.access(folder / program, os.X_OK)]
    assert not missing, f"KUBEBUILDER_ASSETS={folder} lacks {', '.join(missing)}"
    return folder


@pytest.fixture(scope="session")
def cluster(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The API server. AlwaysPullImages is on, because it changes the containers that were injected."""
    with running(assets, tmp_path_factory.mktemp("cluster"), plugins=["AlwaysPullImages"]) as started:
        yield started


@pytest.fixture(scope="session")
def webhook(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:  # noqa: ARG001
    """The webhook with the default options, running but not yet registered."""
    with webhooks.serving(tmp_path_factory.mktemp("webhook")) as serving:
        yield serving


@pytest.fixture
def empty(cluster: Cluster) -> str:
    """A fresh namespace whose Pods no webhook sees."""
    return cluster.namespace()


@pytest.fixture
def namespace(cluster: Cluster, webhook: Webhook, empty: str) -> Iterator[str]:
    """A fresh namespace whose Pods and workloads the webhook sees."""
    with webhooks.registered(cluster, empty, webhook.url, webhook.ca):
        yield empty
