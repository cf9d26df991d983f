"""Annotations that no webhook sees, or sees without effect, are told by the command line, with where they stand."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from injector import GROUP, cli

Object = dict[str, Any]
OURS = {f"{GROUP}/inject": "true", f"{GROUP}/path": "/data/app.db"}
SPEC: Object = {"containers": [{"name": "app", "image": "app:1", "securityContext": {"runAsUser": 1000}}]}
TEMPLATE: Object = {"metadata": {"annotations": OURS}, "spec": SPEC}
VALUES = yaml.safe_dump({"podAnnotations": OURS})


def of(kind: str, api: str = "example.com/v1", **fields: Any) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "web", "namespace": "shop"}, **fields}


def pod(metadata: Object, **spec: Any) -> Object:
    return {**of("Pod", "v1", spec={**SPEC, **spec}), "metadata": {"name": "web", "namespace": "shop", **metadata}}


def said(obj: Object, command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    file = folder / "object.yaml"
    file.write_text(yaml.safe_dump(obj))
    code = cli.main([command, str(file)])
    captured = capsys.readouterr()
    return code, captured.out if command == "check" else captured.err


KINDS = [
    (of("Rollout", "argoproj.io/v1alpha1", spec={"template": TEMPLATE}),
     "spec.template.metadata.annotations", "is on a Rollout of argoproj.io/v1alpha1, which nobody looks at"),
    (of("Deployment", "extensions/v1beta1", spec={"template": TEMPLATE}),
     "spec.template.metadata.annotations", "is on a Deployment of extensions/v1beta1, which nobody looks at"),
    ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "annotations": OURS}},
     "metadata.annotations", "else write it in Pods and Pod templates"),
    (of("Service", "serving.knative.dev/v1", spec={"template": TEMPLATE}),
     "spec.template.metadata.annotations", "as a StatefulSet or, with strategy Recreate, a Deployment"),
]  # fmt: skip
VALUES_OF_CHARTS = [
    (of("HelmRelease", "helm.toolkit.fluxcd.io/v2", spec={"values": {"podAnnotations": OURS}}),
     "spec.values.podAnnotations"),
    (of("HelmRelease", "helm.toolkit.fluxcd.io/v2", spec={"values": {"controllers": {"main": {"pod": {"annotations":
      OURS}}}}}), "spec.values.controllers.main.pod.annotations"),
    (of("Application", "argoproj.io/v1alpha1", spec={"source": {"helm": {"values": VALUES}}}),
     "spec.source.helm.values"),
    (of("Application", "argoproj.io/v1alpha1", spec={"sources": [{}, {"helm": {"valuesObject": {"podAnnotations":
      OURS}}}]}), "spec.sources[1].helm.valuesObject.podAnnotations"),
    (of("Application", "argoproj.io/v1alpha1", spec={"source": {"helm": {"parameters": [
      {"name": f"podAnnotations.{GROUP.replace('.', chr(92) + '.')}/inject", "value": "true"}]}}}),
     "spec.source.helm.parameters[0].name"),
    (of("HelmChart", "helm.cattle.io/v1", spec={"valuesContent": VALUES}), "spec.valuesContent"),
    (of("ConfigMap", "v1", data={"values.yaml": "{{ if .on }}\n" + VALUES}), "data.values.yaml"),
    (of("ConfigMap", "v1", data={"pod.json": json.dumps(pod({"annotations": OURS}))}), "data.pod.json"),
    ({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "commonAnnotations": OURS},
     "commonAnnotations"),
    ({"podAnnotations": OURS}, "podAnnotations"),
    (of("Template", "template.openshift.io/v1", objects=[of("Cluster", spec={"podAnnotations": OURS})]),
     "objects[0].spec.podAnnotations"),
]  # fmt: skip
MISPLACED = [
    (of("StatefulSet", "apps/v1", spec={"volumeClaimTemplates": [{"metadata": {"annotations": OURS}}],
     "template": {"spec": SPEC}}), "spec.volumeClaimTemplates[0].metadata.annotations", "spec.template."),
    (of("Deployment", "apps/v1", spec={"template": {"annotations": OURS, "spec": SPEC}}),
     "spec.template.annotations", "spec.template."),
    (of("CronJob", "batch/v1", spec={"template": TEMPLATE, "jobTemplate": {"spec": {"template": {"spec": SPEC}}}}),
     "spec.template.metadata.annotations", "spec.jobTemplate.spec.template."),
    (pod({"labels": OURS}), "metadata.labels", ""),
]  # fmt: skip


@pytest.mark.parametrize("command", ["check", "inject"])
@pytest.mark.parametrize(("obj", "place", "told"), KINDS, ids=range(len(KINDS)))
def test_a_kind_that_nobody_looks_at_is_told(
    obj: Object, place: str, told: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(obj, command, tmp_path, capsys)
    assert code == 1
    assert f"{place}[{GROUP}/…]: " in text
    assert told in text


@pytest.mark.parametrize("command", ["check", "inject"])
@pytest.mark.parametrize(("obj", "place"), VALUES_OF_CHARTS, ids=range(len(VALUES_OF_CHARTS)))
def test_annotations_among_the_values_of_a_chart_or_in_text_are_told(
    obj: Object, place: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(obj, command, tmp_path, capsys)
    assert code == 1
    assert f"{place}[{GROUP}/…]: is a value in " in text
    assert "the output of `helm template`" in text
    assert text.count("is a value in") == 1


@pytest.mark.parametrize("command", ["check", "inject"])
@pytest.mark.parametrize(("obj", "place", "where"), MISPLACED, ids=range(len(MISPLACED)))
def test_annotations_where_they_have_no_effect_are_told_where_to_go(
    obj: Object, place: str, where: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(obj, command, tmp_path, capsys)
    assert code == 1
    assert f"{place}[{GROUP}/…]: has no effect there: move it to {where}metadata.annotations" in text


@pytest.mark.parametrize("command", ["check", "inject"])
@pytest.mark.parametrize(
    "near",
    [
        "litestream-hook.kaidoto.github.io/inject",
        "litestreamhook.kaidotio.github.io/inject",
        "litestream-hook.kaidotio.github.com/inject",
        "litestream-hooks.kaidotio.github.io/inject",
        "litestream.kaidotio.github.io/inject",
        "litestream-hook.kaidotio.io/inject",
        "Litestream-Hook.kaidotio.github.io/inject",
        "litestream-hook.example.com/inject",
        "litestream-hook.kaidotio.github.io.inject",
    ],
)
def test_a_misspelled_group_is_told(
    near: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for obj in (pod({"annotations": {near: "true"}}), of("Rollout", spec={"podAnnotations": {near: "true"}})):
        code, text = said(obj, command, tmp_path, capsys)
        assert code == 1
        assert f"is not our group: did you mean {GROUP}?" in text


@pytest.mark.parametrize(
    "obj",
    [
        *(
            pod({"annotations": {f"{other}/inject": "true"}})
            for other in ("skaffold.litestream-hook.kaidotio.github.io", "prometheus.io", "sidecar.istio.io")
        ),
        of("PodMonitor", spec={"selector": {"matchLabels": {f"{GROUP}/replicates": "true"}}}),
        of("PrometheusRule", spec={"text": f"A Pod with {GROUP}/inject, see {GROUP}."}),
        of("ConfigMap", "v1", data={"litestream-hook.json": "{}"}),
        {**of("Rollout"), "metadata": {"name": "web", "managedFields": [{"f:annotations": {f"f:{GROUP}/inject": {}}}]}},
        {
            **of("Service", "v1"),
            "metadata": {"name": "web", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": VALUES}},
        },
    ],
    ids=range(8),
)
def test_what_is_not_ours_or_no_annotation_is_let_be(
    obj: Object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(obj, "check", tmp_path, capsys) == (0, "")
