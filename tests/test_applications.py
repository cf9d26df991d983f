"""Manifests as applications are really run with: what is said at the first try is enough for the second to pass.

Each file of tests/applications begins with what is expected of it when its Pods are given `inject`, `path` and
`endpoint` alone: `write` has by the field of each denial what to write there (nothing: it passes at once), `risks` what
is said of the manifest that passes, a warning each. Nothing else may be asked or said.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

from injector import GROUP, cli
from injector.admission import workload
from injector.admission.verdict import key_of
from tests import reviews, schemas

Object = dict[str, Any]

FILES = sorted((Path(__file__).parent / "applications").glob("*/*.yaml"))
KINDS = {"chown": 6, "others": 6, "puid": 10, "rolling": 6, "root": 6, "several": 6}
# Only the author can find out; the message says how.
KNOWN_TO_THE_AUTHOR = ("run-as-user",)


def template(obj: Object) -> Object:
    found: Object = workload.template(key_of(obj), obj) if key_of(obj) in workload.TEMPLATES else obj
    return found


def annotated(objects: list[Object]) -> Object:
    (one,) = [obj for obj in objects if obj["kind"] == "Pod" or key_of(obj) in workload.TEMPLATES]
    return one


def put(obj: Object, field: str, value: Any) -> None:
    """Writes what a message says to write: an annotation of ours, or a field of the object."""
    if not field.startswith("spec."):
        annotations = template(obj).setdefault("metadata", {}).setdefault("annotations", {})
        annotations[f"{GROUP}/{field}"] = value
        return
    *way, last = field.split(".")
    functools.reduce(lambda found, name: found.setdefault(name, {}), way, obj)[last] = value


@pytest.fixture(params=FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def application(request: pytest.FixtureRequest) -> tuple[Object, list[Object]]:
    """(what is expected, the manifest with the three annotations)."""
    expected, *objects = yaml.safe_load_all(request.param.read_text())
    for key, value in {"inject": "true", "path": expected["path"], "endpoint": "http://minio.minio:9000"}.items():
        put(annotated(objects), key, value)
    return expected, objects


def injected(objects: list[Object], folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """The exit code of `inject`, and what it says, a line each."""
    file = folder / "application.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    code = cli.main(["inject", "--namespace", "default", str(file)])
    return code, capsys.readouterr().err.splitlines()


def test_the_second_try_passes_with_what_the_first_says(
    application: tuple[Object, list[Object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, objects = application
    obj = annotated(objects)
    write = expected.get("write", {})
    if write:
        told = reviews.denied(obj)
        assert told.keys() == write.keys()
        code, lines = injected(objects, tmp_path, capsys)
        assert code == 1
        assert all(any(message in line for line in lines) for message in told.values())
        for field, value in write.items():
            assert "write" in told[field]
            assert field in KNOWN_TO_THE_AUTHOR or str(value) in told[field].partition("write")[2]
            put(obj, field, value)
            if "take rollingUpdate out" in told[field]:
                del obj["spec"]["strategy"]["rollingUpdate"]
    strategy = obj["spec"].get("strategy", {})
    assert strategy.get("type") != "Recreate" or "rollingUpdate" not in strategy, "the API server refuses the two"
    code, lines = injected(objects, tmp_path, capsys)
    assert code == 0, lines
    risks = expected.get("risks", [])
    assert len(lines) == len(risks), lines
    assert all(any(risk in line for line in lines) for risk in risks), lines
    assert reviews.warned(obj).count("\n") == max(len(risks) - 1, 0)


def test_nothing_but_what_is_asked_for_is_changed(application: tuple[Object, list[Object]]) -> None:
    """The Pod that passes keeps its containers; only volumes' mounts are added where there was none."""
    expected, objects = application
    for field, value in expected.get("write", {}).items():
        put(annotated(objects), field, value)
    before = template(annotated(objects))
    pod = {**copy.deepcopy(before), "apiVersion": "v1", "kind": "Pod"}
    pod["metadata"]["name"] = "one"
    after = reviews.injected(pod)["spec"]
    for one, other in zip(before["spec"]["containers"], after["containers"], strict=True):
        assert {**other, "volumeMounts": one.get("volumeMounts")} == {"volumeMounts": None, **one}


def test_the_manifests_are_such_as_kubernetes_takes(application: tuple[Object, list[Object]]) -> None:
    for obj in application[1]:
        assert list(schemas.problems(obj, schemas.RELEASES[-1])) == []


def test_there_are_applications_of_each_kind() -> None:
    found = [path.parent.name for path in FILES]
    assert {kind: found.count(kind) for kind in sorted(set(found))} == KINDS
