"""What docs/upgrading.md says of an upgrade, and its commands as they stand there."""

from __future__ import annotations

import io
import itertools
import json
import re
import shlex
from contextlib import ExitStack, redirect_stdout
from typing import TYPE_CHECKING

import pytest

from injector import GROUP, cli
from injector.options import DEFAULT_IMAGE
from tests.envtest import pods
from tests.envtest.installation import installed
from tests.envtest.test_rotation import under_load
from tests.envtest.webhook import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.envtest.cluster import Cluster

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

REPLICATED = "kubectl get pods -A -l litestream-hook.kaidotio.github.io/replicates=true"
PAGE = (ROOT / "docs" / "upgrading.md").read_text()


RUN = (
    "kubectl apply -k",
    "kubectl apply -f",
    "helm upgrade",
    "kubectl -n litestream-hook rollout status",
    "kubectl -n litestream-hook rollout undo",
    "helm rollback",
    f"{REPLICATED} -o",
    "kubectl rollout restart",
    REPLICATED,
    "kubectl patch statefulset",
    "kubectl get deployments",
    "litestream-hook check",
    "kubectl delete -k",
    "kubectl delete -f",
    "helm uninstall",
    "kubectl delete namespace",
    "kubectl delete --ignore-not-found -k",
)
"""What the tests of this page run: how each of its commands begins."""


def commands() -> Iterator[str]:
    """Every command of the page's blocks, and those in its text that name an object."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    for text in [*blocks, *re.findall(r"`(kubectl [^`]*NAME)`", PAGE)]:
        lexer = shlex.shlex(text, posix=True, punctuation_chars="\n|&")
        lexer.whitespace, lexer.commenters, lexer.whitespace_split = " ", "", True
        for separates, words in itertools.groupby(lexer, lambda word: set(word) <= set("\n|&")):
            if not separates:
                yield shlex.join(words)


def command(start: str) -> list[str]:
    """The command of the page that is this one or, if none is, begins so: its words behind the program's name."""
    assert start in RUN
    page = set(commands())
    (found,) = page & {start} or {line for line in page if line.startswith(start)}
    _, *words = shlex.split(found)
    return [str(ROOT / word) if word.startswith(("k8s/", "charts/")) else word for word in words]


def test_every_command_of_the_page_is_run_by_a_test() -> None:
    assert [line for line in commands() if not line.startswith(RUN)] == []
    assert [start for start in RUN if not any(line.startswith(start) for line in commands())] == []


def test_the_pods_that_lose_their_protection_are_listed_and_no_others(cluster: Cluster, namespace: str) -> None:
    cluster.create(pods.pod("replicated"), namespace)
    cluster.create(pods.pod("plain", {}), namespace)
    listed = cluster.kubectl(*command(REPLICATED)).output
    rows = [each.split()[:2] for each in listed.splitlines()]
    assert [namespace, "replicated"] in rows
    assert [namespace, "plain"] not in rows


def test_the_litestream_of_each_pod_is_shown(cluster: Cluster, namespace: str) -> None:
    cluster.create(pods.pod("native"), namespace)
    cluster.create(pods.pod("ordinary", pods.asking(sidecar="container", image="example.com/l:0.5.9")), namespace)
    listed = cluster.kubectl(*command(f"{REPLICATED} -o")).output
    rows = [each.split() for each in listed.splitlines()]
    assert [namespace, "native", DEFAULT_IMAGE, "<none>"] in rows
    assert [namespace, "ordinary", "<none>", "example.com/l:0.5.9"] in rows


def annotated(cluster: Cluster, namespace: str, folder: Path) -> int:
    """How many workloads of one namespace still ask, by the page's own commands."""
    found = cluster.kubectl(*(each for each in command("kubectl get deployments") if each != "-A"), namespace=namespace)
    (folder / "workloads.json").write_text(found.output)
    output = io.StringIO()
    with redirect_stdout(output):
        assert cli.main([*command("litestream-hook check"), str(folder / "workloads.json")]) == 0
    totals: dict[str, int] = json.loads(output.getvalue())["totals"]
    return totals["annotated"]


def test_annotations_are_taken_out_as_the_page_says_and_none_is_left(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    shop = pods.workload("StatefulSet", "shop", pods.asking(endpoint="http://minio:9000"))
    shop["spec"]["template"]["spec"]["schedulingGates"] = [{"name": f"{GROUP}/injected"}]
    shop["spec"]["template"]["metadata"]["annotations"]["example.com/kept"] = "yes"
    cluster.create(shop, namespace)
    assert annotated(cluster, namespace, tmp_path) == 1
    take_out = [word.replace("NAME", "shop") for word in command("kubectl patch statefulset")]
    forgotten = cluster.kubectl(*(word.replace("/endpoint", "/bucket") for word in take_out), namespace=namespace)
    assert forgotten.code == 1
    assert f'{GROUP}/inject: is missing: write "true" to ask for injection' in forgotten.error
    done = cluster.kubectl(*take_out, "-o", "json", namespace=namespace).json["spec"]["template"]
    assert done["metadata"]["annotations"] == {"example.com/kept": "yes"}
    assert "schedulingGates" not in done["spec"]
    assert annotated(cluster, namespace, tmp_path) == 0


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
