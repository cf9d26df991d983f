"""Where a finding stands: the line of what it is about, or of the nearest thing that is there."""

import json

import pytest

from injector import GROUP, manifests
from injector.command.place import Places

TEXT = f"""\
# line 1
apiVersion: v1
kind: List
items:
- kind: ConfigMap
  metadata: {{name: first, annotations: {{{GROUP}/path: /not/this}}}}
- kind: Deployment
  metadata:
    annotations:
      {GROUP}/inject: "true"
  spec:
    replicas: 3
    template:
      metadata:
        annotations:
          other: x
          {GROUP}/path: /data/app.db
      spec:
        terminationGracePeriodSeconds: -1
        containers:
        - name: app
        - name: other
"""


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("", 7),
        ("spec.replicas", 12),
        ("spec.strategy.type", 11),
        ("spec.terminationGracePeriodSeconds", 19),
        ("spec.containers[1].name", 22),
        ("spec.containers[7].name", 20),
        ("the object", 7),
        (f"{GROUP}/path", 17),
        (f"{GROUP}/bucket", 10),
        (f"metadata.annotations[{GROUP}/inject]", 10),
        (f"metadata.annotations[{GROUP}/…]", 10),
        ("metadata.annotations[example.com/…]", 10),
    ],
)
def test_the_line_of_a_field_is_found(field: str, line: int) -> None:
    (document,) = manifests.read(TEXT)
    assert Places(document).line(("items", 1), field, GROUP) == line


def test_lines_are_counted_in_the_file_whatever_stands_before_the_document() -> None:
    documents = manifests.read(f"a: 1\r\n---\r\n\r\n{TEXT}".replace("\n", "\r\n").replace("\r\r", "\r"))
    assert Places(documents[1]).line(("items", 1), "spec.replicas") == 3 + 12


@pytest.mark.parametrize("indent", [2, "\t"])
def test_json_has_lines_too(indent: int | str) -> None:
    text = json.dumps({"kind": "Pod", "metadata": {"annotations": {f"{GROUP}/path": "\t/x"}}}, indent=indent)
    (document,) = manifests.read(text)
    assert Places(document).line((), f"{GROUP}/path") == 5


def test_what_yaml_cannot_read_of_json_is_told_by_its_first_line() -> None:
    (document,) = manifests.read('{\n"kind": "\\ud83d\\ude00"}')
    assert Places(document).line((), "kind") >= 1
