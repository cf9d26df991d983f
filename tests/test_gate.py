"""The scheduling gate: a Pod waits for the webhook, and for nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from injector import GROUP, cli
from injector.admission import workload
from injector.pod import gate
from tests import reviews

Object = dict[str, Any]
GATE = {"name": f"{GROUP}/injected"}
OTHER = {"name": "example.com/quota"}
DEPLOYMENT = ("apps", "Deployment")


def gated(*gates: Object, **annotations: str) -> Object:
    return reviews.pod({"schedulingGates": [*gates], "containers": [{"name": "app", "image": "app:1"}],
                        "securityContext": {"runAsUser": 1000}}, **annotations)  # fmt: skip


def deployment(pod: Object) -> Object:
    template = {"metadata": {"labels": {"app": "web"}, "annotations": pod["metadata"]["annotations"]}}
    spec = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"app": "web"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {**spec, "template": {**template, "spec": pod["spec"]}},
    }


def said(tmp_path: Path, obj: Object, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    file = tmp_path / "object.yaml"
    file.write_text(yaml.safe_dump(obj, sort_keys=False))
    code = cli.main([*arguments, "--namespace", "default", str(file)])
    return code, capsys.readouterr().out


def test_what_is_injected_is_let_go_and_a_second_call_changes_nothing() -> None:
    pod = reviews.injected(gated(GATE))
    assert "schedulingGates" not in pod["spec"]
    assert reviews.operations(reviews.response(pod)) == []


def test_gates_of_others_stay() -> None:
    assert reviews.injected(gated(OTHER, GATE, {"name": "z/z"}))["spec"]["schedulingGates"] == [OTHER, {"name": "z/z"}]
    assert reviews.injected(gated(OTHER))["spec"]["schedulingGates"] == [OTHER]


def test_what_is_denied_is_not_let_go() -> None:
    assert reviews.denied(gated(GATE, bucket="My")).keys() == {"bucket"}


def test_a_pod_that_declines_and_has_the_gate_is_told_that_it_would_never_start() -> None:
    assert "keeps the Pod from ever starting" in reviews.denied(gated(GATE, inject="false"))["spec.schedulingGates"]
    assert reviews.response(gated(OTHER, inject="false"))["allowed"]


def test_a_template_without_annotations_and_with_the_gate_is_told_too() -> None:
    assert "spec.schedulingGates" in reviews.denied(deployment(gated(GATE, inject="false")))
    plain = gated(GATE)
    plain["metadata"]["annotations"] = {}
    assert "spec.schedulingGates" in reviews.denied(deployment(plain))
    assert "spec.schedulingGates" in reviews.denied(plain)


def test_a_gate_of_ours_that_nobody_takes_out_is_denied() -> None:
    wrong = {"name": f"{GROUP}/inject"}
    assert f"write {GROUP}/injected" in reviews.denied(gated(wrong))["spec.schedulingGates"]


def test_the_gate_stays_in_a_template_that_is_applied() -> None:
    reply = reviews.response(deployment(gated(GATE)))
    assert all(not each["path"].startswith("/spec") for each in reviews.operations(reply))


def test_inject_takes_it_out_of_a_template_as_nobody_else_will(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = said(tmp_path, deployment(gated(GATE)), capsys, "inject")
    assert code == 0
    assert "schedulingGates" not in workload.template(DEPLOYMENT, yaml.safe_load(output))["spec"]


def test_a_variant_has_a_gate_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pod = gated(GATE, {"name": f"x.{GROUP}/injected"})
    pod["metadata"]["annotations"] = {f"x.{GROUP}/inject": "true"}
    _, output = said(tmp_path, pod, capsys, "inject", "--variant", "x")
    assert yaml.safe_load(output)["spec"]["schedulingGates"] == [GATE]


def test_a_node_that_is_named_is_told_of() -> None:
    pod = gated(GATE)
    pod["spec"]["nodeName"] = "a"
    assert "the API server refuses it" in reviews.warned(pod)
    assert "schedulingGates" not in reviews.injected(pod)["spec"]
    del pod["spec"]["schedulingGates"]
    assert "refuses" not in reviews.warned(pod)


@pytest.mark.parametrize("make", [dict, deployment], ids=["Pod", "Deployment"])
def test_check_asks_for_it_where_it_is_told_to(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require = ("check", "--require-gate")
    assert said(tmp_path, make(gated()), capsys, "check") == (0, "")
    code, output = said(tmp_path, make(gated()), capsys, *require)
    assert code == 1
    assert "spec.schedulingGates: is needed: without the webhook the Pod would start without its rows" in output
    assert said(tmp_path, make(gated(GATE)), capsys, *require) == (0, "")
    assert said(tmp_path, make(gated(inject="false")), capsys, *require) == (0, "")


def test_what_the_command_line_has_injected_needs_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(tmp_path, reviews.injected(gated()), capsys, "check", "--require-gate") == (0, "")


@pytest.mark.parametrize("gates", [None, {}, "x", [1], [{}], [{"name": None}]])
def test_gates_of_any_shape_are_read(gates: object) -> None:
    assert gate.names({"schedulingGates": gates}) == []
    assert gate.useless({"spec": {"schedulingGates": gates}}, GROUP) == []
    assert gate.without({"schedulingGates": gates}, GROUP) == {"schedulingGates": gates}
