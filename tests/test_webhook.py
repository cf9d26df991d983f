"""Whatever JSON stands wherever: the webhook answers 200 or 400, and never fails."""

import asyncio
import copy
import json
from pathlib import Path
from typing import Any

import jsonpatch
import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from injector import GROUP
from injector.admission import webhook
from injector.pod.claim import Claim, Refusal, carried
from injector.pod.inject import Injection
from tests import reviews
from tests.test_workload import RECREATE, workload

Object = dict[str, Any]
FULL = yaml.safe_load(
    f"""
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {{app: web, pod-template-hash: abc}}
  ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: web-abc, uid: "1", controller: true}}]
  annotations: {{{GROUP}/inject: "true", {GROUP}/path: "/data/a.db,/new/b.db", {GROUP}/auth: ambient, {GROUP}/metrics-port: "9090"}}
spec:
  os: {{name: linux}}
  terminationGracePeriodSeconds: 5
  affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{{matchFields: [{{key: metadata.name, operator: In, values: [n1]}}]}}]}}}}}}
  securityContext: {{runAsUser: 1000, runAsGroup: 1000, seLinuxOptions: {{level: s0}}}}
  ephemeralContainers: [{{name: debug, image: x}}]
  initContainers: [{{name: istio-proxy, image: x, restartPolicy: Always}}, {{name: migrate, image: x}}]
  containers:
  - name: app
    image: x
    command: [/app/run]
    workingDir: /app
    ports: [{{containerPort: 80}}]
    env: [{{name: A, value: $(B)}}, {{name: B, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}, {{name: AWS_WEB_IDENTITY_TOKEN_FILE, value: /token/t}}]
    envFrom: [{{secretRef: {{name: s}}}}]
    volumeMounts: [{{name: data, mountPath: /data/, subPathExpr: $(A)}}, {{name: token, mountPath: /token}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: c}}}}, {{name: token, projected: {{sources: []}}}}]
"""  # noqa: E501
)
TEMPLATE = {"metadata": {"annotations": FULL["metadata"]["annotations"]}, "spec": FULL["spec"]}
OBJECTS = [
    FULL,
    reviews.injected(FULL),
    {**workload("StatefulSet", {"ordinals": {"start": 1}, "replicas": 2}), "extra": 1},
    workload("Deployment", {**RECREATE, "template": TEMPLATE}),
    workload("CronJob", {"concurrencyPolicy": "Forbid", "template": TEMPLATE}),
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "/", "$(A)", "litestream-hook-x", "é\u2028", "true", "a" * 3000])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "a", "", "kind"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


REVIEWS = [
    *(reviews.review(obj) for obj in OBJECTS),
    *(reviews.review(obj, "UPDATE", oldObject=copy.deepcopy(obj)) for obj in OBJECTS if obj["kind"] != "Pod"),
]
PLACES = [(review, place) for review in REVIEWS for place in places(review)]


def ask(body: bytes) -> webhook.Answer:
    return asyncio.run(webhook.answer("POST", "/mutate", body, reviews.DEFAULTS))


@pytest.mark.slow
@given(st.lists(st.sampled_from(range(len(PLACES))), min_size=1, max_size=1), JSON)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_at_any_place_is_answered(chosen: list[int], value: Any) -> None:
    review, place = PLACES[chosen[0]]
    body = copy.deepcopy(review)
    inner: Any = body
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    answer = ask(json.dumps(body).encode())
    assert answer.status in (200, 400), (place, value)


@pytest.mark.parametrize("value", [None, True, -1, "", "x", [None], {}], ids=repr)
def test_each_wrong_type_at_each_place_is_answered(value: Any) -> None:
    async def sweep() -> None:
        for review, place in PLACES:
            inner: Any = review
            for key in place[:-1]:
                inner = inner[key]
            kept, inner[place[-1]] = inner[place[-1]], value
            try:
                answer = await webhook.answer("POST", "/mutate", msgspec.json.encode(review), reviews.DEFAULTS)
            finally:
                inner[place[-1]] = kept
            assert answer.status in (200, 400), (place, value)

    asyncio.run(sweep())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"null",
        b"1e999",
        b'"\\ud800"',
        b"[" * 100_000,
        b'{"request":' * 5000,
        b"{}",
        b"\x00",
        b"\xef\xbb\xbf{}",
    ],
    ids=range(12),
)
def test_what_is_no_review_is_refused_in_one_sentence(body: bytes) -> None:
    answer = ask(body)
    assert answer.status == 400
    assert b"\n" not in answer.body
    assert 0 < len(answer.body) < 500


@pytest.mark.parametrize("text", [b"\\ud800", b"\\u0000", b"\\u001b[31m", b"\\u2028"])
def test_strange_characters_in_names_and_annotations_are_answered(text: bytes) -> None:
    plain = json.dumps(reviews.review(FULL)).encode()
    for old in (
        b'"web"',
        b'"app"',
        b'"data"',
        b"/new/b.db",
        b"/data/",
        b'"web-abc"',
        b"ambient",
        b"metrics-port",
        b"$(A)",
    ):
        assert ask(plain.replace(old, old[:-1] + text + old[-1:])).status in (200, 400)


@pytest.mark.timeout(60)
def test_a_hundred_thousand_mistakes_are_answered_soon() -> None:
    """What grew with the square took minutes, which the test's own time limit ends."""
    many = 40_000
    for annotations in (
        {f"{GROUP}/key-{index}": "" for index in range(many)},
        {f"{GROUP}/path": ",".join(f"/d/{index}" for index in range(many))},
        {f"{GROUP}/path": ",".join("/d/a" for _ in range(many))},
        {f"{GROUP}/containers": ",".join(f"c{index}" for index in range(many))},
        {f"{GROUP}/path": "/d/" * many},
    ):
        pod = {**FULL, "metadata": {"name": "web", "annotations": {f"{GROUP}/inject": "true", **annotations}}}
        answer = reviews.answer(pod)
        assert answer.status == 200
        assert len(answer.body) < 200_000


@pytest.mark.parametrize("path", sorted(Path("examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_accepted(path: Path) -> None:
    for obj in yaml.safe_load_all(path.read_text()):
        assert reviews.response(obj)["allowed"], obj


@pytest.mark.parametrize(
    "version", [b"0.2.0", b"0.3.0", b"0.3", b"v0.5", b"0.6.0", b"1.0", b"latest", b"99999.1", b"0.5.99999"]
)
def test_any_tag_of_an_image_is_answered(version: bytes) -> None:
    pod = copy.deepcopy(FULL)
    pod["metadata"]["annotations"][f"{GROUP}/image"] = f"litestream/litestream:{version.decode()}"
    assert reviews.answer(pod).status == 200


class Answering:
    """A guard that always says the same, and notes what it was asked."""

    def __init__(self, answer: Claim | Refusal) -> None:
        self.answer = answer
        self.asked: list[tuple[Injection, bool]] = []

    async def ask(self, injection: Injection, *, dry_run: bool) -> Claim | Refusal:
        self.asked.append((injection, dry_run))
        return self.answer


CLAIM = Claim("web-x2z4b", "a mark", ("replica-a",))
REFUSAL = Refusal("another Pod still writes")


def guarded(guard: Answering, pod: Object, **request: Any) -> tuple[Object, webhook.Record]:
    body = json.dumps(reviews.review(pod, **request)).encode()
    answer = asyncio.run(webhook.answer("POST", "/mutate", body, reviews.DEFAULTS, guard))
    response: Object = json.loads(answer.body)["response"]
    return response, answer.record


@pytest.mark.parametrize("template", ["{namespace}/{kind}/{workload}/{database}", "shared/{database}"])
def test_the_guard_is_asked_whatever_the_path_is(template: str) -> None:
    guard = Answering(CLAIM._replace(name="web"))
    pod = reviews.pod(replica_path=template)
    response, record = guarded(guard, pod)
    patched = jsonpatch.apply_patch(pod, reviews.operations(response))
    assert carried(patched) == guard.answer
    assert record.outcome == "injected"
    ((injection, dry_run),) = guard.asked
    assert injection.replicas["/mnt/litestream.db"].startswith(("default/pod/web/", "shared/"))
    assert not dry_run


def test_a_nameless_pod_gets_the_name_that_the_guard_gives() -> None:
    pod = reviews.pod(None, {"name": "", "generateName": "web-"}, replica_path="shared/{database}")
    del pod["metadata"]["name"]
    response, _ = guarded(Answering(CLAIM), pod)
    patched = jsonpatch.apply_patch(pod, reviews.operations(response))
    assert patched["metadata"]["name"] == CLAIM.name
    assert patched["metadata"]["generateName"] == "web-"


def test_a_replica_that_was_elsewhere_until_now_is_told_to_the_author_and_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = Answering(CLAIM._replace(moved_from=("minio:9000/old/default/pod/web/mnt/litestream.db",)))
    response, record = guarded(guard, reviews.pod(None, {"name": CLAIM.name}))
    assert response["allowed"]
    (warning,) = response["warnings"]
    assert 'replica was "minio:9000/old/default/pod/web/mnt/litestream.db" until now' in warning
    assert "in bucket litestream from now on, and nothing of the old one is restored" in warning
    assert warning in caplog.text
    assert record.warnings == 1


def test_a_second_call_changes_the_mark_alone() -> None:
    first = jsonpatch.apply_patch(
        pod := reviews.pod(), reviews.operations(guarded(Answering(CLAIM._replace(name="web")), pod)[0])
    )
    guard = Answering(CLAIM._replace(name="web", mark="another"))
    operations = reviews.operations(guarded(guard, first)[0])
    assert [(each["op"], each["value"]) for each in operations] == [("replace", "another")]
    assert carried(guard.asked[0][0].pod).mark == CLAIM.mark


def test_a_refusal_is_told_with_403() -> None:
    response, record = guarded(Answering(REFUSAL), reviews.pod())
    assert not response["allowed"]
    assert response["status"] == {"status": "Failure", "code": 403, "message": REFUSAL.message}
    assert (record.outcome, record.reason) == ("guarded", "other-writer")


def test_single_writer_warn_makes_a_refusal_a_warning_and_claims_what_it_gets() -> None:
    pod = reviews.pod(single_writer="warn")
    response, _ = guarded(Answering(REFUSAL), pod)
    assert response["allowed"]
    assert REFUSAL.message in response["warnings"]
    assert carried(jsonpatch.apply_patch(pod, reviews.operations(response))).leases == ()
    response, _ = guarded(Answering(CLAIM._replace(name="web")), pod)
    assert carried(jsonpatch.apply_patch(pod, reviews.operations(response))).leases == CLAIM.leases


def test_single_writer_off_asks_nobody() -> None:
    guard = Answering(REFUSAL)
    response, _ = guarded(guard, reviews.pod(single_writer="off"))
    assert response["allowed"]
    assert guard.asked == []


def test_what_is_denied_or_not_ours_is_not_asked_about() -> None:
    guard = Answering(CLAIM)
    guarded(guard, reviews.pod(path="relative"))
    guarded(guard, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"}, "spec": {"containers": []}})
    guarded(guard, workload("Deployment", RECREATE))
    assert guard.asked == []


def test_a_dry_run_is_told_to_the_guard() -> None:
    guard = Answering(Claim())
    assert guarded(guard, reviews.pod(), dryRun=True)[0]["allowed"]
    assert [dry_run for _, dry_run in guard.asked] == [True]


def test_a_body_of_more_than_seven_mebibytes_is_refused() -> None:
    body = b" " * (7 * 2**20 + 1)
    assert asyncio.run(webhook.answer("POST", "/mutate", body, reviews.DEFAULTS)).status == 413
    assert asyncio.run(webhook.answer("POST", "/mutate", body[:-1], reviews.DEFAULTS)).status == 400
