"""The way of a request: bytes in, status and bytes out.

HTTP  what comes                                                 outcome      answer
404   another path than / and /mutate                            bad-request  one sentence
405   not POST                                                   bad-request  one sentence
413   larger than 8 MiB                                          bad-request  one sentence
400   not JSON, no AdmissionReview of admission.k8s.io/v1, no uid bad-request one sentence
200   another kind or operation, subresource, no key of ours     unchanged    allowed
200   Pod CREATE, `inject: "false"`                              unchanged    allowed
200   Pod CREATE, valid                                          injected     allowed, JSON Patch, warnings
200   Pod CREATE, invalid                                        denied       code 422, every violation
200   Pod CREATE, another Pod still writes the replica           guarded      code 403
200   workload CREATE or UPDATE, nothing (new) wrong             checked      allowed, warnings
200   workload CREATE or UPDATE, wrong                           denied       code 422, every violation
500   our own fault                                              error        the API server's failurePolicy decides
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from injector.admission import review, workload
from injector.admission.review import Request
from injector.annotations import settings
from injector.annotations.table import group
from injector.errors import BadReview, InvalidPod, Violation, quoted
from injector.options import Options
from injector.pod import replica, shapes
from injector.pod.inject import Injection, inject
from injector.pod.patch import diff

LARGEST_BODY = 8 * 1024 * 1024
MOST_TOLD = 200  # violations in one answer: more than anyone has made by hand
PATHS = ("", "/mutate")
POD = ("", "Pod")

Outcome = Literal["unchanged", "injected", "checked", "denied", "guarded", "bad-request", "error"]
# Given the namespace, the Pod's name ("" while it has none) and its injection: why another Pod forbids it, or None.
Guard = Callable[[str, str, Injection], Awaitable[str | None]]

_log = logging.getLogger("injector")


class Record(NamedTuple):
    """What the log and the metrics say of one request; `reason` is one of a few words, never a user's text."""

    outcome: Outcome
    reason: str = ""
    uid: str = ""
    namespace: str = ""
    name: str = ""
    kind: str = ""
    operation: str = ""
    dry_run: bool = False
    warnings: int = 0


class Answer(NamedTuple):
    """An HTTP answer, and what to note of it."""

    status: int
    body: bytes
    content_type: str
    record: Record


class Verdict(NamedTuple):
    """The body of the answer to a well-formed request, and what to note of it."""

    body: bytes
    outcome: Outcome
    reason: str = ""
    warnings: int = 0


async def answer(method: str, path: str, body: bytes | None, options: Options, guard: Guard | None = None) -> Answer:
    """Answers one HTTP request.

    Args:
        method: of HTTP.
        path: without the query (the API server adds `?timeout=10s`).
        body: as received; None if it was larger than LARGEST_BODY.
        options: the operator's.
        guard: asks the cluster for other writers; None where there is none.
    """
    if path.rstrip("/") not in PATHS:
        return _plain(404, "only / and /mutate are served here", "path")
    if method != "POST":
        return _plain(405, "send an AdmissionReview by POST", "method")
    if body is None or len(body) > LARGEST_BODY:
        return _plain(413, f"an AdmissionReview has at most {LARGEST_BODY} bytes", "size")
    try:
        request = review.read(body)
    except BadReview as bad:
        return _plain(400, str(bad), "review")
    try:
        verdict = await _judge(request, options, guard)
    except BadReview as bad:
        return Answer(400, str(bad).encode(), TEXT, _record(request, Verdict(b"", "bad-request", "object")))
    except Exception:  # noqa: BLE001
        # The one catch-all: a fault of ours must not end the server, and the API server's failurePolicy decides.
        _log.exception("admission of uid %s failed", quoted(request["uid"]))
        sentence = b"internal error; the webhook's log has it under the request's uid"
        return Answer(500, sentence, TEXT, _record(request, Verdict(b"", "error", "internal")))
    return Answer(200, verdict.body, "application/json", _record(request, verdict))


TEXT = "text/plain; charset=utf-8"


def _plain(status: int, sentence: str, reason: str) -> Answer:
    return Answer(status, sentence.encode(), TEXT, Record("bad-request", reason))


def _record(request: Request, verdict: Verdict) -> Record:
    metadata = (request.get("object") or {}).get("metadata")
    named: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
    return Record(
        verdict.outcome,
        verdict.reason,
        request["uid"],
        request.get("namespace") or "",
        str(request.get("name") or named.get("name") or named.get("generateName") or ""),
        request["kind"]["kind"],
        request["operation"],
        bool(request.get("dryRun")),
        verdict.warnings,
    )


async def _judge(request: Request, options: Options, guard: Guard | None) -> Verdict:
    key = (request["kind"].get("group") or "", request["kind"]["kind"])
    operation = request["operation"]
    if request.get("subResource"):
        return Verdict(review.allowed(request["uid"]), "unchanged", "subresource")
    if key == POD and operation == "CREATE":
        return await _judge_pod(request, options, guard)
    if key in workload.TEMPLATES and operation in ("CREATE", "UPDATE"):
        return _judge_workload(key, request, options)
    return Verdict(review.allowed(request["uid"]), "unchanged", "kind")


def _object(request: Request) -> dict[str, Any]:
    found = request.get("object")
    if found is None:
        raise BadReview("the AdmissionReview's request has no object")
    return found


def _namespace(request: Request, metadata: Mapping[str, Any]) -> str:
    return request.get("namespace") or metadata.get("namespace") or "default"


async def _judge_pod(request: Request, options: Options, guard: Guard | None) -> Verdict:
    uid, pod = request["uid"], _object(request)
    own = settings.ours(pod.get("metadata"), group(options.variant))
    if not settings.asks(own):
        return Verdict(review.allowed(uid), "unchanged", "declined" if own else "not-annotated")
    if problems := malformed(pod, shapes.Pod, own, options):
        return _denied(uid, problems, [], "malformed")
    namespace = _namespace(request, pod["metadata"])
    try:
        injection = inject(pod, replica.of_pod(pod, namespace), options)
    except InvalidPod as invalid:
        return _denied(uid, invalid.violations, invalid.warnings, "annotations")
    warnings = injection.warnings
    if guard is not None and not injection.exclusive and injection.settings.single_writer != "off":
        other = await guard(namespace, pod["metadata"].get("name") or "", injection)
        if other is not None and injection.settings.single_writer == "enforce":
            return Verdict(review.denied(uid, 403, other, [], warnings), "guarded", "other-writer", len(warnings))
        warnings = [*warnings, *([other] if other is not None else [])]
    audit = {"databases": msgspec.json.encode(injection.replicas).decode(), "image": injection.settings.image.reference}
    operations = diff(pod, injection.pod)
    body = review.patched(uid, operations, warnings, audit)
    return Verdict(body, "injected", "patched" if operations else "already-injected", len(warnings))


def _judge_workload(key: tuple[str, str], request: Request, options: Options) -> Verdict:
    uid, found = request["uid"], _object(request)
    if not workload.concerns_us(key, found, options):
        return Verdict(review.allowed(uid), "unchanged", "not-annotated")
    if isinstance(metadata := found.get("metadata"), dict) and metadata.get("deletionTimestamp"):
        return Verdict(review.allowed(uid), "unchanged", "ending")
    pod_metadata = workload.template(key, found).get("metadata")
    own = settings.ours(pod_metadata, group(options.variant))
    if problems := malformed(found, shapes.Workload, own, options):
        return _denied(uid, problems, [], "malformed")
    metadata = found.get("metadata") or {}
    if workload.checked_elsewhere(found):
        return Verdict(review.allowed(uid), "unchanged", "owned")
    namespace = _namespace(request, metadata)
    examination = workload.examine(key, found, namespace, options)
    violations, warnings = examination.violations, examination.warnings
    before = request.get("oldObject")
    if request["operation"] == "UPDATE" and before and shapes.wrong(before, shapes.Workload) is None:
        known = workload.examine(key, before, namespace, options).violations
        new = workload.new_violations(violations, known, group(options.variant))
        denied = set(new)
        warnings = [*(str(violation) for violation in violations if violation not in denied), *warnings]
        violations = new
    if violations:
        return _denied(uid, violations, warnings, "workload")
    return Verdict(review.allowed(uid, warnings), "checked", "", len(warnings))


def malformed(
    found: Mapping[str, Any],
    shape: Any,  # noqa: ANN401 (a TypedDict)
    own: Mapping[str, Any],
    options: Options,
) -> list[Violation]:
    """What keeps an object from being read at all: annotations that are no strings, fields of another type.

    Args:
        found: the object.
        shape: that it should have, one of `shapes`.
        own: its annotations of our group.
        options: the operator's.
    """
    our_group = group(options.variant)
    violations = [
        Violation(f"{our_group}/{key}", json.dumps(value)[:200], f"must be a string: write {_as_string(value)}")
        for key, value in own.items()
        if not isinstance(value, str)
    ]
    if not violations and (problem := shapes.wrong(found, shape)) is not None:
        violations.append(Violation(problem[0] or "the object", None, problem[1]))
    return violations


def _as_string(value: object) -> str:
    return '"…"' if value is None or isinstance(value, (dict, list)) else quoted(json.dumps(value))


def _denied(uid: str, violations: Sequence[Violation], warnings: Sequence[str], reason: str) -> Verdict:
    told = violations[:MOST_TOLD]
    lines = "\n".join(f"- {violation}" for violation in told)
    if len(violations) > len(told):
        lines += f"\n- and {len(violations) - len(told)} more"
    message = f"litestream-hook can't do what the annotations ask for:\n{lines}"
    return Verdict(review.denied(uid, 422, message, told, warnings), "denied", reason, len(warnings))
