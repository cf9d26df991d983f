"""What docs/upgrading.md says of an upgrade, and its commands as they stand there."""

from __future__ import annotations

import io
import json
import re
import shlex
from contextlib import ExitStack, redirect_stdout
from typing import TYPE_CHECKING, Any

import pytest

from injector import cli
from injector.options import DEFAULT_IMAGE
from tests.envtest import pods
from tests.envtest.installation import installed
from tests.envtest.test_rotation import under_load
from tests.envtest.webhook import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.envtest.cluster import Cluster

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

PAGE = (ROOT / "docs" / "upgrading.md").read_text()


def command(start: str) -> list[str]:
    """The one kubectl command of the page that begins so."""
    (line,) = {line for line in re.findall(r"^ *kubectl (.+)$", PAGE, re.MULTILINE) if line.startswith(start)}
    return shlex.split(line.partition("|")[0])


def test_the_pods_that_lose_their_protection_are_listed_and_no_others(cluster: Cluster, namespace: str) -> None:
    cluster.create(pods.pod("replicated"), namespace)
    cluster.create(pods.pod("plain", {}), namespace)
    (line,) = set(re.findall(r"^ *kubectl (get pods -A -l \S+)$", PAGE, re.MULTILINE))
    listed = cluster.kubectl(*shlex.split(line)).output
    rows = [each.split()[:2] for each in listed.splitlines()]
    assert [namespace, "replicated"] in rows
    assert [namespace, "plain"] not in rows


def test_the_litestream_of_each_pod_is_shown(cluster: Cluster, namespace: str) -> None:
    cluster.create(pods.pod("native"), namespace)
    cluster.create(pods.pod("ordinary", pods.asking(sidecar="container", image="example.com/l:0.5.9")), namespace)
    listed = cluster.kubectl(*command("get pods -A -l litestream-hook.kaidotio.github.io/replicates=true -o")).output
    rows = [each.split() for each in listed.splitlines()]
    assert [namespace, "native", DEFAULT_IMAGE, "<none>"] in rows
    assert [namespace, "ordinary", "<none>", "example.com/l:0.5.9"] in rows


def test_check_counts_the_workloads_that_still_ask(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"replicas": 1, "strategy": {"type": "Recreate"}}
    cluster.create(pods.workload("Deployment", "shop", **asked), namespace)

    def annotated() -> int:
        found = cluster.kubectl(*(each for each in command("get deployments") if each != "-A"), namespace=namespace)
        (tmp_path / "workloads.json").write_text(found.output)
        output = io.StringIO()
        with redirect_stdout(output):
            assert cli.main(["check", "-o", "json", str(tmp_path / "workloads.json")]) == 0
        totals: dict[str, int] = json.loads(output.getvalue())["totals"]
        return totals["annotated"]

    assert annotated() == 1
    cluster.kubectl("delete", "deployment", "shop", namespace=namespace)
    cluster.create(pods.workload("Deployment", "shop", {}, **asked), namespace)
    assert annotated() == 0


def test_each_replica_is_replaced_by_a_new_one_and_no_admission_fails(cluster: Cluster, tmp_path: Path) -> None:
    """As the Deployment does it: a new one is ready and has its connections before an old one is told to end."""
    with (
        installed(cluster, tmp_path) as installation,
        ExitStack() as new,
        ExitStack() as first,
        ExitStack() as second,
    ):
        for old in (first, second):
            old.enter_context(installation.replica())
        with under_load(cluster):
            for old in (first, second):
                new.enter_context(installation.replica())
                old.close()
