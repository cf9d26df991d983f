"""One judge: what the webhook answers to an object is what the command line says of the same object in a file."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from injector import cli
from injector.admission import workload
from injector.admission.verdict import Question, judge
from injector.annotations import operator_file
from injector.annotations.defaults import Defaults
from tests import reviews
from tests.test_golden import INPUTS

Object = dict[str, Any]
EXAMPLE = Path(__file__).parent / "golden" / "minimal.yaml"
OWNER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "app", "uid": "1", "controller": True}


OPERATORS = """\
defaults:
  endpoint: http://minio:9000
  bucket: far
  path: /data/far.db
  single-writer: warn
  image: x/litestream:0.5.9
namespaces: {default: {bucket: near, sidecar: container, run-as-user: 7}}
enforce: [secret]
allow: {replica-path: ["{namespace}/**"]}
"""


def defaults(operators: str, namespace: str) -> Defaults:
    """What an operator's file says of a namespace."""
    return operator_file.read(operators, reviews.DEFAULTS).of(namespace)


def objects(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def said(
    obj: Object, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], operators: str = ""
) -> tuple[int, str, str]:
    """Exit code, standard output and what is said of the object, without where it stands."""
    (tmp_path / "defaults.yaml").write_text(operators)
    file = tmp_path / "object.yaml"
    file.write_text(yaml.safe_dump(obj, sort_keys=False))
    code = cli.main([command, "--namespace", "default", "--defaults-file", f"{tmp_path}/defaults.yaml", str(file)])
    captured = capsys.readouterr()
    findings = captured.out if command == "check" else captured.err
    return code, captured.out, re.sub(rf"{re.escape(str(file))}:\d+: (\w+): {obj['kind']} [^:]*: ", r"\1: ", findings)


def lines(obj: Object, operators: str = "") -> list[str]:
    """What the command line has to say, by the webhook's answer."""
    namespace = (obj.get("metadata") or {}).get("namespace") or "default"
    reply = reviews.response(obj, namespace=namespace, defaults=defaults(operators, namespace))
    causes = [] if reply["allowed"] else [cause["message"] for cause in reply["status"]["details"]["causes"]]
    return [*(f"error: {cause}" for cause in causes), *(f"warning: {warning}" for warning in reply.get("warnings", []))]


def inputs() -> list[Any]:
    return [
        pytest.param(obj, id=f"{path.stem}-{obj['kind']}-{number}")
        for path in INPUTS
        for number, obj in enumerate(objects(path))
    ]


def owned(obj: Object) -> Object:
    changed = copy.deepcopy(obj)
    changed["metadata"]["ownerReferences"] = [OWNER]
    return changed


def ending(obj: Object) -> Object:
    changed = copy.deepcopy(obj)
    changed["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z"
    return changed


cases = pytest.mark.parametrize(
    ("change", "operators"),
    [(copy.deepcopy, ""), (owned, ""), (ending, ""), (copy.deepcopy, OPERATORS)],
    ids=["deepcopy", "owned", "ending", "defaults"],
)


@cases
@pytest.mark.parametrize("obj", inputs())
def test_check_says_what_the_webhook_answers(
    obj: Object, change: Any, operators: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = change(obj)
    expected = lines(changed, operators)
    code, _, findings = said(changed, "check", tmp_path, capsys, operators)
    assert code == bool(expected)
    assert all(line in findings for line in expected), findings
    assert len(re.findall("^(?:error|warning): ", findings, re.MULTILINE)) == len(expected)


@cases
@pytest.mark.parametrize("obj", inputs())
def test_inject_writes_what_the_webhook_makes_of_it(
    obj: Object, change: Any, operators: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = change(obj)
    namespace = changed["metadata"].get("namespace") or "default"
    holding = defaults(operators, namespace)
    reply = reviews.response(changed, namespace=namespace, defaults=holding)
    code, output, findings = said(changed, "inject", tmp_path, capsys, operators)
    if not reply["allowed"]:
        assert code == 1
        assert output == ""
        return
    key = (changed["apiVersion"].rpartition("/")[0], changed["kind"])
    if code == 1:  # a template that only the webhook can inject, when each Pod is made
        assert "let the webhook inject them" in findings
        return
    written = yaml.safe_load(output)
    if changed["kind"] == "Pod":
        assert written == reviews.injected(changed, namespace=namespace, defaults=holding)
    elif key in workload.TEMPLATES:
        verdict = judge(Question(key, "CREATE", changed, namespace, defaults=holding), reviews.DEFAULTS)
        assert written == verdict.after
        injected = verdict.outcome == "checked" and verdict.injection is not None
        assert (written != changed) == injected
    else:
        assert written == changed


@pytest.mark.parametrize("operation", ["UPDATE", "DELETE", "CONNECT"])
def test_a_pod_is_judged_when_it_is_created_and_never_again(operation: str) -> None:
    pod = objects(EXAMPLE)[0]
    assert judge(Question(("", "Pod"), operation, pod, "default"), reviews.DEFAULTS)[:3] == ("unchanged", "kind", pod)


def test_a_subresource_is_none_of_our_business() -> None:
    pod = objects(EXAMPLE)[0]
    question = Question(("", "Pod"), "CREATE", pod, "default", subresource="ephemeralcontainers")
    assert judge(question, reviews.DEFAULTS).reason == "subresource"


def test_the_judge_changes_nothing_of_what_it_is_given() -> None:
    pod = objects(EXAMPLE)[0]
    before = copy.deepcopy(pod)
    verdict = judge(Question(("", "Pod"), "CREATE", pod, "default"), reviews.DEFAULTS)
    assert verdict.outcome == "injected"
    assert pod == before
    assert verdict.after != before


def copied(**annotations: str) -> Object:
    """What `kubectl debug --copy-to` makes of an injected Pod: annotations and labels are gone, containers stay."""
    pod = reviews.injected(objects(EXAMPLE)[0])
    pod["metadata"] = {"name": "copy", "annotations": annotations}
    return pod


@pytest.mark.parametrize("annotations", [{}, {"litestream-hook.kaidotio.github.io/inject": "false"}])
def test_a_copy_of_an_injected_pod_is_denied(annotations: dict[str, str]) -> None:
    found = reviews.denied(copied(**annotations))
    assert "would be a second writer of that Pod's replica" in found["spec.initContainers"]


def test_a_pod_that_another_variant_has_injected_is_none_of_our_business() -> None:
    pod = copied(**{"skaffold.litestream-hook.kaidotio.github.io/status": "{}"})
    assert judge(Question(("", "Pod"), "CREATE", pod, "default"), reviews.DEFAULTS).outcome == "unchanged"
    assert reviews.response(objects(EXAMPLE)[0])["allowed"]
