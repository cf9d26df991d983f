"""Golden files: whole Pods, before and after, read by people. `make golden` rewrites the expected side."""

import copy
import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from injector import cli
from injector.admission import workload
from injector.annotations.table import ANNOTATIONS
from tests import restricted, reviews, schemas

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
INPUTS = [
    *sorted((HERE / "golden").glob("*.yaml")),
    *sorted(EXAMPLES.glob("[0-9]*.yaml")),
    *sorted((EXAMPLES / "apps").glob("*.yaml")),
]
EXPECTED = HERE / "golden" / "expected"
UID = "0ea2c4bb-4b8e-4ed2-a3a1-11d7a7ab1b86"
Object = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _ours(path: Path) -> list[Object]:
    """The Pods and workloads in a file."""
    found = [document for document in yaml.safe_load_all(path.read_text()) if document]
    return [document for document in found if document["kind"] == "Pod" or _key(document) in workload.TEMPLATES]


def _key(obj: Object) -> tuple[str, str]:
    return obj["apiVersion"].rpartition("/")[0], obj["kind"]


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", "default"))


def _pod_of(obj: Object) -> Object:
    """The Pod that a controller makes of a workload's template, as the API server presents it for admission."""
    key, name = _key(obj), obj["metadata"]["name"]
    template = copy.deepcopy(workload.template(key, obj))
    api_version, kind = obj["apiVersion"], obj["kind"]
    if kind == "Deployment":
        template["metadata"].setdefault("labels", {})["pod-template-hash"] = "5b8c7d9f4"
        api_version, kind, name = "apps/v1", "ReplicaSet", f"{name}-5b8c7d9f4"
    elif kind == "CronJob":
        kind, name = "Job", f"{name}-29000000"
    owner = {"apiVersion": api_version, "kind": kind, "name": name, "uid": UID, "controller": True}
    naming = {"name": f"{name}-0"} if kind == "StatefulSet" else {"generateName": f"{name}-"}
    metadata = {**naming, **template["metadata"], "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _by_command_line(path: Path) -> tuple[int, list[Object]]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(io.StringIO()):
        code = cli.main(["inject", "--namespace", "default", str(path)])
    return code, [document for document in yaml.safe_load_all(output.getvalue()) if document]


def _outcome(obj: Object) -> Object:
    """What the webhook makes of an object (and of the Pod that a workload makes), as it stands in the golden file."""
    reply = reviews.response(obj, namespace=_namespace(obj))
    outcome: Object = {"warnings": reply["warnings"]} if "warnings" in reply else {}
    if not reply["allowed"]:
        return {**outcome, "denied": reply["status"]["message"]}
    if obj["kind"] != "Pod":
        return {**outcome, "pod": reviews.injected(_pod_of(obj), namespace=_namespace(obj))}
    return {**outcome, "pod": reviews.injected(obj, namespace=_namespace(obj))}


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.stem)
def test_whole_pods_come_out_as_reviewed(path: Path, request: pytest.FixtureRequest) -> None:
    outcomes = [_outcome(obj) for obj in _ours(path)]
    expected = EXPECTED / path.name
    text = yaml.dump_all(outcomes, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    if request.config.getoption("--update"):
        expected.parent.mkdir(exist_ok=True)
        expected.write_text(text)
    assert text == expected.read_text()
    assert list(yaml.safe_load_all(text)) == outcomes


def test_every_expected_file_has_an_input() -> None:
    assert {path.name for path in EXPECTED.glob("*.yaml")} == {path.name for path in INPUTS}


def test_the_file_of_every_annotation_has_every_annotation_that_s3_takes() -> None:
    (pod,) = _ours(HERE / "golden" / "every-annotation.yaml")
    known = [row.key for row in ANNOTATIONS if row.key != "host-key"]
    assert [key.partition("/")[2] for key in pod["metadata"]["annotations"]] == known


PODS = [
    pytest.param(outcome["pod"], id=f"{path.stem}-{index}")
    for path in INPUTS
    for index, outcome in enumerate(map(_outcome, _ours(path)))
    if "pod" in outcome
]


@pytest.mark.parametrize("release", schemas.IN_TURN)
def test_injected_pods_are_valid_for_kubernetes(release: str) -> None:
    pods: list[Any] = [param.values[0] for param in PODS]
    assert len(pods) > 30
    assert [problem for pod in pods for problem in schemas.problems(pod, release)] == []


def test_the_schemas_start_at_the_floor_and_refuse_what_is_wrong() -> None:
    """The judge of the test above is one: it knows 1.30 and finds an unknown field."""
    assert schemas.RELEASES[0] == "1.30"
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a", "image": "b", "imagePolicy": "x"}]}}
    assert any("imagePolicy" in problem for problem in schemas.problems(pod, "1.30"))


@pytest.mark.parametrize("pod", PODS)
def test_a_restricted_application_stays_restricted(pod: Object) -> None:
    own = [item for item in pod["spec"]["containers"] if not item["name"].startswith("litestream-hook-")]
    application = {**pod["spec"], "initContainers": [], "containers": own}
    if not list(restricted.violations(application)):
        assert list(restricted.violations(pod["spec"])) == []


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.stem)
def test_the_command_line_and_the_webhook_agree(path: Path) -> None:
    """Pods are equal; a template is equal to the Pod that its controller makes, but for what the controller sets."""
    objects = _ours(path)
    outcomes = [_outcome(obj) for obj in objects]
    code, written = _by_command_line(path)
    assert code == (1 if any("denied" in outcome for outcome in outcomes) else 0)
    if code:
        return
    ours = [obj for obj in written if obj["kind"] == "Pod" or _key(obj) in workload.TEMPLATES]
    for obj, outcome in zip(ours, outcomes, strict=True):
        pod = outcome["pod"]
        if obj["kind"] == "Pod":
            assert obj == pod
        else:
            template = workload.template(_key(obj), obj)
            assert template["spec"] == pod["spec"]
            assert template["metadata"]["annotations"] == pod["metadata"]["annotations"]
            assert template["metadata"]["labels"].items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.stem)
def test_what_the_command_line_injected_is_left_alone_by_the_webhook(path: Path) -> None:
    code, written = _by_command_line(path)
    if code:
        return
    for obj in written:
        if obj["kind"] == "Pod":
            assert reviews.injected(obj, namespace=_namespace(obj)) == obj
        elif _key(obj) in workload.TEMPLATES:
            assert reviews.response(obj, namespace=_namespace(obj))["allowed"]
            pod = _pod_of(obj)
            assert reviews.injected(pod, namespace=_namespace(obj)) == pod
