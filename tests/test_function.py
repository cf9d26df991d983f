"""Plain `functions-framework --target mutate`, a real process asked by real HTTP: every outcome, and hostile calls."""

import base64
import http.client
import json
from collections.abc import Iterator
from typing import Any

import jsonpatch
import pytest

from injector import GROUP
from injector.admission.webhook import LARGEST_BODY
from tests import demo, reviews

pytestmark = pytest.mark.slow
Object = dict[str, Any]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with demo.webhook() as url:
        yield url.removeprefix("http://")


def ask(address: str, body: bytes, method: str = "POST", path: str = "/mutate") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request(method, path, body or None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def response(address: str, obj: Object, operation: str = "CREATE", **request: Any) -> Object:
    status, body = ask(address, json.dumps(reviews.review(obj, operation, **request)).encode())
    assert status == 200, body
    reply: Object = json.loads(body)["response"]
    assert reply["uid"] == "705ab4f5-6393-11e8-b7cc-42010a800002"
    return reply


def pod(**annotations: str) -> Object:
    keys = {f"{GROUP}/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "annotations": keys},
        "spec": {"securityContext": {"runAsUser": 1000}, "containers": [{"name": "app", "image": "app:1"}]},
    }


def deployment(**spec: Any) -> Object:
    template = pod(inject="true")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"template": {"metadata": template["metadata"], "spec": template["spec"]}, **spec},
    }


@pytest.mark.parametrize("path", ["/", "/mutate", "/mutate?timeout=10s", "/?timeout=10s"])
def test_a_valid_pod_is_patched(address: str, path: str) -> None:
    status, body = ask(address, json.dumps(reviews.review(pod(inject="true"))).encode(), path=path)
    reply = json.loads(body)["response"]
    assert (status, reply["allowed"], reply["patchType"]) == (200, True, "JSONPatch")
    patched = jsonpatch.apply_patch(pod(inject="true"), json.loads(base64.b64decode(reply["patch"])))
    assert patched == reviews.injected(pod(inject="true"))
    assert reply["auditAnnotations"]["image"] == "docker.io/litestream/litestream:0.5.17"


def test_an_invalid_pod_is_denied_with_every_violation(address: str) -> None:
    status = response(address, pod(inject="yes", bucket="B", storage="500m"))["status"]
    assert status["code"] == 422
    assert "reason" not in status
    fields = [cause["field"] for cause in status["details"]["causes"]]
    assert fields == [f"{GROUP}/{key}" for key in ("inject", "bucket", "storage")]
    assert all(field in status["message"] for field in fields)


@pytest.mark.parametrize(
    ("obj", "operation", "request_fields"),
    [
        (pod(), "CREATE", {}),
        (pod(inject="false", bucket="B"), "CREATE", {}),
        (pod(inject="true"), "UPDATE", {}),
        (pod(inject="true"), "DELETE", {}),
        (pod(inject="true"), "CREATE", {"subResource": "ephemeralcontainers"}),
        ({**pod(inject="true"), "kind": "ConfigMap"}, "CREATE", {}),
        ({**deployment(), "apiVersion": "other.example.com/v1"}, "CREATE", {}),
    ],
)
def test_what_is_not_ours_to_change_passes_without_a_patch(
    address: str, obj: Object, operation: str, request_fields: Object
) -> None:
    reply = response(address, obj, operation, **request_fields)
    assert reply["allowed"]
    assert reply.keys() == {"uid", "allowed"}


def test_a_workload_is_denied_or_warned_of_and_only_a_deployment_s_label_is_set(address: str) -> None:
    denied = response(address, deployment(replicas=2))
    assert denied["status"]["code"] == 422
    assert {cause["field"] for cause in denied["status"]["details"]["causes"]} == {
        "spec.replicas",
        "spec.strategy.type",
    }
    kept = response(address, deployment(replicas=2), "UPDATE", oldObject=deployment(replicas=3))
    assert kept["allowed"]
    assert len(kept["warnings"]) == 2
    labelled = response(address, deployment(strategy={"type": "Recreate"}))
    (operation,) = json.loads(base64.b64decode(labelled["patch"]))
    assert operation["path"].startswith("/metadata/labels")


def test_a_dry_run_is_judged_like_any_other_call(address: str) -> None:
    assert "patch" in response(address, pod(inject="true"), dryRun=True)


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/mutate", b"", 405),
        ("PUT", "/", b"{}", 405),
        ("POST", "/other", b"{}", 404),
        ("POST", "/mutate", b"", 400),
        ("POST", "/mutate", b"not json", 400),
        ("POST", "/mutate", b"[]", 400),
        ("POST", "/mutate", b"null", 400),
        ("POST", "/mutate", b'{"kind":"AdmissionReview"}', 400),
        ("POST", "/mutate", b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1"}', 400),
        ("POST", "/mutate", b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}', 400),
        ("POST", "/mutate", json.dumps(reviews.review(pod(), uid="")).encode(), 400),
        ("POST", "/mutate", json.dumps(reviews.review(None)).encode(), 400),
        ("POST", "/mutate", json.dumps(reviews.review(pod(inject="true"))).encode()[:-20], 400),
        ("POST", "/mutate", b"[" * 200_000, 400),
        ("POST", "/mutate", b'{"a":' * 200_000, 400),
        ("POST", "/mutate", b'{"kind":"\xff\xfe"}', 400),
        ("POST", "/mutate", json.dumps(reviews.review(pod())).encode("utf-16"), 400),
        ("POST", "/mutate", b'{"a":1e999}', 400),
        ("POST", "/mutate", b" " * (LARGEST_BODY + 1), 413),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_call_gets_one_sentence_and_the_process_lives(
    address: str, method: str, path: str, body: bytes, expected: int
) -> None:
    status, text = ask(address, body, method, path)
    assert status == expected
    assert 0 < len(text) < 500
    assert b"Traceback" not in text
    assert response(address, pod())["allowed"]


def test_a_body_of_the_largest_size_is_read_and_a_chunked_one_is_cut_off(address: str) -> None:
    review = json.dumps(reviews.review(pod(inject="true"))).encode()
    assert ask(address, review.ljust(LARGEST_BODY))[0] == 200
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request(
        "POST", "/mutate", iter([b" " * 65536] * 160), encode_chunked=True, headers={"transfer-encoding": "chunked"}
    )
    assert connection.getresponse().status == 413
    connection.close()


def test_of_a_key_that_stands_twice_the_last_one_counts_as_for_the_api_server(address: str) -> None:
    text = json.dumps(reviews.review(pod(inject="false")))
    twice = text.replace(f'"{GROUP}/inject": "false"', f'"{GROUP}/inject": "false", "{GROUP}/inject": "true"')
    assert twice != text
    status, body = ask(address, twice.encode())
    assert status == 200
    assert "patch" in json.loads(body)["response"]


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "text", [], ["a"], {}, {"a": 1}], ids=repr)
@pytest.mark.parametrize(
    "place",
    ["metadata", "spec", "metadata.annotations", "metadata.labels", "metadata.ownerReferences", "spec.containers",
     "spec.initContainers", "spec.volumes", "spec.securityContext", "spec.terminationGracePeriodSeconds",
     "spec.affinity", f"metadata.annotations.{GROUP}/path"],
)  # fmt: skip
def test_wrong_types_get_a_clear_answer(address: str, place: str, value: Any) -> None:
    obj = pod(inject="true")
    *parents, last = place.split(".", 2) if GROUP in place else place.split(".")
    found = obj
    for name in parents:
        found = found[name]
    found[last] = value
    status, body = ask(address, json.dumps(reviews.review(obj)).encode())
    assert status == 200, body
    reply = json.loads(body)["response"]
    if not reply["allowed"]:
        assert reply["status"]["code"] == 422
        assert reply["status"]["message"].count("\n") >= 1
