"""The way of a request: bytes in, status and bytes out.

HTTP  what comes                                                 outcome      answer
404   another path than / and /mutate                            bad-request  one sentence
405   not POST                                                   bad-request  one sentence
413   larger than 7 MiB                                          bad-request  one sentence
400   not JSON, no AdmissionReview of admission.k8s.io/v1, no uid bad-request one sentence
200   what verdict.py finds none of our business                 unchanged    allowed
200   a Pod that it injects                                      injected     allowed, JSON Patch, warnings
200   such a Pod, while another one still writes the replica     guarded      code 403
200   a Pod, while its Namespace's defaults can't be determined  guarded      code 403
200   a workload, while they can't                               unchanged    allowed, with a warning
200   a workload that it finds sound                             checked      allowed, a Deployment's label, warnings
200   what it denies                                             denied       code 422, every violation
500   our own fault                                              error        the API server's failurePolicy decides
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from injector.admission import review
from injector.admission.review import Request
from injector.admission.verdict import JUDGED, POD, Question, Verdict, concerns_us, judge, namespace_of
from injector.admission.verdict import Outcome as Judged
from injector.admission.workload import marked
from injector.annotations.defaults import Defaults
from injector.errors import BadReview, quoted
from injector.options import Options
from injector.pod.claim import Claim, Refusal, laid
from injector.pod.inject import Injection
from injector.pod.patch import diff

LARGEST_BODY = 7 * 1024 * 1024  # as controller-runtime: a stored object has at most 3 MiB, and an update sends two
MOST_TOLD = 200  # violations in one answer: more than anyone has made by hand
PATHS = ("", "/mutate")
TEXT = "text/plain; charset=utf-8"

Outcome = Literal[Judged, "guarded", "bad-request", "error"]


class Guard(Protocol):
    """Whoever knows if another Pod writes the same replicas."""

    def ask(self, injection: Injection, *, dry_run: bool) -> Awaitable[Claim | Refusal]:
        """The injected Pod's claim to its replicas, or why it must not be created now."""


class Defaulting(Protocol):
    """Whoever knows what holds in a namespace at this moment."""

    def of(self, namespace: str) -> Awaitable[Defaults | Refusal]:
        """The namespace's defaults and policy, or why they can't be determined."""


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


async def answer(
    method: str,
    path: str,
    body: bytes | None,
    options: Options,
    guard: Guard | None = None,
    defaulting: Defaulting | None = None,
) -> Answer:
    """Answers one HTTP request.

    Args:
        method: of HTTP.
        path: without the query (the API server adds `?timeout=10s`).
        body: as received; None if it was larger than LARGEST_BODY.
        options: the operator's.
        guard: asks the cluster for other writers; None where there is none.
        defaulting: says what holds in a namespace; None where there are but the built-in defaults.
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
        return await _answer(request, options, guard, defaulting)
    except BadReview as bad:
        return Answer(400, str(bad).encode(), TEXT, _record(request, "bad-request", "object"))
    except Exception:  # noqa: BLE001
        # The one catch-all: a fault of ours must not end the server, and the API server's failurePolicy decides.
        _log.exception("admission of uid %s failed", quoted(request["uid"]))
        sentence = b"internal error; the webhook's log has it under the request's uid"
        return Answer(500, sentence, TEXT, _record(request, "error", "internal"))


def _plain(status: int, sentence: str, reason: str) -> Answer:
    return Answer(status, sentence.encode(), TEXT, Record("bad-request", reason))


async def _answer(request: Request, options: Options, guard: Guard | None, defaulting: Defaulting | None) -> Answer:
    question, uid = _question(request), request["uid"]
    if defaulting is not None and concerns_us(question, options):
        defaults = await defaulting.of(question.namespace)
        if isinstance(defaults, Refusal):
            return _without_defaults(request, question, defaults)
        question = question._replace(defaults=defaults)
    verdict = judge(question, options)
    warnings = verdict.warnings
    if verdict.outcome == "denied":
        return _denied(request, verdict)
    if verdict.outcome != "injected" or verdict.injection is None:
        after = question.object if verdict.injection is None else marked(question.key, question.object, options)
        body = review.patched(uid, diff(question.object, after), warnings, {})
        return _reviewed(request, body, verdict.outcome, verdict.reason, warnings)
    injection, claim = verdict.injection, Claim()
    if guard is not None and injection.settings.single_writer != "off":
        answer = await guard.ask(injection, dry_run=bool(request.get("dryRun")))
        if isinstance(answer, Claim):
            claim = answer
            warnings = [*warnings, *_moved(request, injection, claim)]
        elif injection.settings.single_writer == "warn":
            warnings = [*warnings, answer.message]
        else:
            body = review.denied(uid, 403, answer.message, [], warnings)
            return _reviewed(request, body, "guarded", "other-writer", warnings)
    audit = {"databases": msgspec.json.encode(injection.replicas).decode(), "image": injection.settings.image.reference}
    operations = diff(question.object, laid(verdict.after, claim))
    body = review.patched(uid, operations, warnings, audit)
    return _reviewed(request, body, "injected", "patched" if operations else "already-injected", warnings)


def _moved(request: Request, injection: Injection, claim: Claim) -> list[str]:
    """What is to be said of replicas that were elsewhere; in the log too, as few look at what a controller is told."""
    if not claim.moved_from:
        return []
    before, now = (quoted(", ".join(places), 300) for places in (claim.moved_from, injection.replicas.values()))
    text = (
        f"the workload's replica was {before} until now, is {now} in bucket {injection.settings.bucket} from now on, "
        "and nothing of the old one is restored. If a change of defaults did that, write the old endpoint, bucket and "
        "replica-path in the Pod's annotations, or copy the old one's files to the new place before a Pod writes there"
    )
    _log.warning("%s (uid %s)", text, quoted(request["uid"]))
    return [text]


def _without_defaults(request: Request, question: Question, why: Refusal) -> Answer:
    """A Pod waits for its controller's next try; of a workload nothing can be said, and its Pods are judged later."""
    if question.key == POD:
        body = review.denied(request["uid"], 403, why.message)
        return _reviewed(request, body, "guarded", "unknown-defaults", [])
    warnings = [f"nothing was checked: {why.message}"]
    return _reviewed(request, review.allowed(request["uid"], warnings), "unchanged", "unknown-defaults", warnings)


def _question(request: Request) -> Question:
    key = (request["kind"].get("group") or "", request["kind"]["kind"])
    subresource, found = request.get("subResource") or "", request.get("object")
    if found is None and not subresource and request["operation"] in JUDGED.get(key, ()):
        raise BadReview("the AdmissionReview's request has no object")
    found = found or {}
    namespace = request.get("namespace") or namespace_of(found, "default")
    return Question(key, request["operation"], found, namespace, request.get("oldObject"), subresource)


def _denied(request: Request, verdict: Verdict) -> Answer:
    told = verdict.violations[:MOST_TOLD]
    lines = "\n".join(f"- {violation}" for violation in told)
    if len(verdict.violations) > len(told):
        lines += f"\n- and {len(verdict.violations) - len(told)} more"
    message = f"litestream-hook can't do what the annotations ask for:\n{lines}"
    body = review.denied(request["uid"], 422, message, told, verdict.warnings)
    return _reviewed(request, body, "denied", verdict.reason, verdict.warnings)


def _reviewed(request: Request, body: bytes, outcome: Outcome, reason: str, warnings: Sequence[str]) -> Answer:
    return Answer(200, body, "application/json", _record(request, outcome, reason, len(warnings)))


def _record(request: Request, outcome: Outcome, reason: str, warnings: int = 0) -> Record:
    metadata = (request.get("object") or {}).get("metadata")
    named: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
    return Record(
        outcome,
        reason,
        request["uid"],
        request.get("namespace") or "",
        str(request.get("name") or named.get("name") or named.get("generateName") or ""),
        request["kind"]["kind"],
        request["operation"],
        bool(request.get("dryRun")),
        warnings,
    )
