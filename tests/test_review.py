"""AdmissionReview: what is read of it, and the answers as an API server understands them."""

import base64
import json
from typing import Any

import pytest

from injector.admission import review
from injector.errors import BadReview, Violation

Object = dict[str, Any]
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": []}}


def body(**fields: Any) -> bytes:
    return json.dumps({**review.sent(POD, "shop"), **fields}).encode()


def response(answer: bytes) -> Object:
    whole = json.loads(answer)
    assert (whole["kind"], whole["apiVersion"]) == ("AdmissionReview", review.API_VERSION)
    found: Object = whole["response"]
    return found


def test_what_is_sent_is_read() -> None:
    request = review.read(body())
    assert (request["operation"], request["namespace"], request["name"]) == ("CREATE", "shop", "web")
    assert request["kind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert request["object"] == POD


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"request":' * 40_000, "nested too deeply"),
        (b"{}", "not an AdmissionReview"),
        (body(kind="Pod"), "not an AdmissionReview"),
        (body(apiVersion="admission.k8s.io/v1beta1"), "not an AdmissionReview"),
        (body(request=None), "no request with a uid"),
        (body(request={"uid": "", "kind": {"kind": "Pod"}, "operation": "CREATE"}), "no request with a uid"),
        (body(request={"uid": "1"}), "not an AdmissionReview"),
    ],
    ids=range(9),
)
def test_anything_else_is_a_bad_call_in_one_sentence(given: bytes, words: str) -> None:
    with pytest.raises(BadReview, match=words) as caught:
        review.read(given)
    assert "\n" not in str(caught.value)


def test_an_object_without_changes_is_allowed_without_a_patch() -> None:
    assert response(review.allowed("7")) == {"uid": "7", "allowed": True}
    assert response(review.patched("7", [], [], {})) == {"uid": "7", "allowed": True}


def test_a_patch_is_json_in_base64() -> None:
    operations = [{"op": "add", "path": "/a", "value": 1}]
    found = response(review.patched("7", operations, ["a risk"], {"outcome": "injected"}))
    assert json.loads(base64.b64decode(found["patch"])) == operations
    assert (found["patchType"], found["warnings"]) == ("JSONPatch", ["a risk"])
    assert found["auditAnnotations"] == {"outcome": "injected"}


def test_a_denial_has_a_cause_for_every_violation_and_no_reason() -> None:
    violation = Violation("spec.replicas", "2", "write 1")
    status = response(review.denied("7", 422, "two writers", [violation]))["status"]
    assert status["details"]["causes"] == [{"field": "spec.replicas", "message": str(violation)}]
    assert (status["code"], status["message"]) == (422, "two writers")
    assert "reason" not in status, "kubectl prints only a part of the message then"


def test_warnings_are_bounded_in_number_and_length() -> None:
    warnings = response(review.allowed("7", ["w" * 5000] * 1000))["warnings"]
    assert (len(warnings), {len(each) for each in warnings}) == (review.MOST_WARNINGS, {review.LONGEST_WARNING})


def test_an_answer_is_read_as_it_was_given() -> None:
    operations = [{"op": "remove", "path": "/a"}]
    assert review.received(review.patched("7", operations, ["a risk"], {})) == (True, "", ["a risk"], operations)
    assert review.received(review.denied("7", 403, "no")) == (False, "no", [], [])
    with pytest.raises(BadReview, match="not the answer of a webhook"):
        review.received(body())
