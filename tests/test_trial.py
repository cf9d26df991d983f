"""`review` and `apply`: the calls that an API server makes, by hand, with the webhook in between."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from injector import GROUP
from injector.admission import webhook
from tests import reviews
from tests.terminal import piped

pytestmark = pytest.mark.slow  # each starts the command

Object = dict[str, Any]
CONFIG = "# first\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
POD = f"""\
apiVersion: v1
kind: Pod # a Pod
metadata: {{name: web, annotations: {{{GROUP}/inject: "true"}}}}
spec:
  securityContext: {{runAsUser: 1000}}
  containers:
    - {{name: app, image: "a:1"}}
"""
EXAMPLES = Path(__file__).parent.parent / "examples"


def answer(review: str) -> str:
    """The webhook's."""
    return asyncio.run(webhook.answer("POST", "/mutate", review.encode(), reviews.DEFAULTS)).body.decode()


def tried(*arguments: str | Path) -> str:
    """What comes out of `review … | curl … | apply …`."""
    review = piped("review", *arguments)
    assert (review.returncode, review.stderr) == (0, "")
    applied = piped("apply", *arguments, text=answer(review.stdout))
    assert (applied.returncode, applied.stderr) == (0, "")
    return applied.stdout


def test_the_first_pod_or_workload_is_reviewed_whatever_stands_before_it(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(f"{CONFIG}---\n{POD}---\n{POD.replace('web', 'second')}")
    request = json.loads(piped("review", "-n", "shop", file).stdout)["request"]
    assert (request["kind"]["kind"], request["name"], request["namespace"]) == ("Pod", "web", "shop")


def test_all_documents_are_printed_and_only_the_reviewed_one_is_changed(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    second = POD.replace("web", "second")
    file.write_text(f"{CONFIG}---\n{POD}---\n{second}")
    first, middle, last = tried(file).split("---\n")
    assert (first, last) == (CONFIG, second)
    assert "kind: Pod # a Pod\n" in middle
    assert yaml.safe_load(middle) == reviews.injected(yaml.safe_load(POD))


def test_json_and_items_of_lists_are_tried_too(tmp_path: Path) -> None:
    file = tmp_path / "it.json"
    listed = {"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(CONFIG), yaml.safe_load(POD)]}
    file.write_text(json.dumps(listed))
    found = json.loads(tried(file))
    assert found["items"] == [yaml.safe_load(CONFIG), reviews.injected(yaml.safe_load(POD))]


@pytest.mark.parametrize("name", ["01-pod", "02-statefulset", "03-deployment", "04-job", "05-cronjob"])
def test_of_a_workload_the_pod_that_it_would_make_is_injected(name: str) -> None:
    """As the line that `make run` prints shows it."""
    documents = list(yaml.safe_load_all(tried("--as-pod", EXAMPLES / f"{name}.yaml")))
    originals = list(yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text()))
    (pod,) = (document for document in documents if document["kind"] == "Pod")
    assert "litestream-hook-replicate" in [each["name"] for each in pod["spec"]["initContainers"]]
    assert len(documents) == len(originals)
    assert sum(document in originals for document in documents) == len(documents) - 1


def test_without_as_pod_a_workload_is_checked_and_not_injected() -> None:
    documents = list(yaml.safe_load_all(tried(EXAMPLES / "02-statefulset.yaml")))
    assert documents == list(yaml.safe_load_all((EXAMPLES / "02-statefulset.yaml").read_text()))


def test_a_denial_is_told_as_kubectl_would_tell_it(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(POD.replace("inject: ", f"bucket: My, {GROUP}/inject: "))
    done = piped("apply", file, text=answer(piped("review", file).stdout))
    assert (done.returncode, done.stdout) == (1, "")
    assert f'- {GROUP}/bucket: "My": write an S3 bucket name' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text", "says"),
    [
        (["review"], CONFIG, "none of these is in the input: Pod, Deployment, StatefulSet"),
        (["review"], "a: [}\n", "standard input:1: error: "),
        (["review", "nowhere.yaml"], "", "nowhere.yaml: error: No such file or directory"),
        (["apply"], "{}", "name the manifest that the answer is for; standard input holds the answer"),
        (["apply", "examples/01-pod.yaml"], "not JSON", "standard input: not the answer of a webhook: not JSON"),
        (["apply", "examples/02-statefulset.yaml"], answer(json.dumps(reviews.review(reviews.pod()))),
         "its patch does not fit the object: was the review made of the same files, and with --as-pod or without it?"),
    ],
)  # fmt: skip
def test_what_can_not_be_tried_is_told_in_a_sentence(arguments: list[str], text: str, says: str) -> None:
    done = piped(*arguments, text=text)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
