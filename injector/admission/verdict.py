"""`judge`: what becomes of one object. The webhook encodes the verdict, the command line prints it.

Nothing else decides:

what comes                                                  outcome    what is in the verdict
a subresource, another kind or operation, no key of ours    unchanged  nothing
Pod CREATE, `inject: "false"`                               unchanged  nothing
Pod CREATE, a copy of an injected one that does not ask     denied     what to take out
Pod CREATE, one that does not ask, with the gate            denied     what to take out
Pod CREATE, valid                                           injected   the Pod with Litestream in it, warnings
Pod CREATE, invalid                                         denied     every violation, warnings
workload CREATE or UPDATE, ending, or of a checked owner    unchanged  nothing
workload CREATE or UPDATE, nothing (new) wrong              checked    the workload with its template injected, warnings
workload CREATE or UPDATE, wrong                            denied     every (new) violation, warnings
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from injector import GROUP
from injector.admission import workload
from injector.annotations.defaults import NONE, Defaults
from injector.annotations.settings import asks, ours, written
from injector.annotations.table import STATUS, group
from injector.errors import InvalidPod, Violation, quoted
from injector.options import Options
from injector.pod import gate, replica, shapes
from injector.pod.inject import Injection, inject
from injector.pod.volumes import PREFIX

POD = ("", "Pod")
NAMESPACE = ("", "Namespace")
NO_NAMESPACE_DEFAULTS = (
    "is on a Namespace, where it is a default for Pods only if the operator has set NAMESPACE_DEFAULTS to true: then "
    "add --namespace-defaults true to the command; else write it in Pods and Pod templates"
)
# The operations on which each kind is judged.
JUDGED = {POD: ("CREATE",), **dict.fromkeys(workload.TEMPLATES, ("CREATE", "UPDATE"))}

Outcome = Literal["unchanged", "injected", "checked", "denied"]


class Question(NamedTuple):
    """What is to be judged: an operation on an object, as an API server asks about it.

    `key` is the object's API group and kind. `old` is what is stored before an UPDATE, `defaults` what holds in the
    namespace.
    """

    key: tuple[str, str]
    operation: str
    object: dict[str, Any]
    namespace: str
    old: dict[str, Any] | None = None
    subresource: str = ""
    defaults: Defaults = NONE


class Verdict(NamedTuple):
    """What becomes of it.

    `reason` is one of a few words. `after` is the object as it would be; for a workload, whose template the
    webhook leaves alone, as the command line writes it. `only_webhook` says why one template can't be injected for all
    Pods of a workload: then only the webhook can, when each Pod is made.
    """

    outcome: Outcome
    reason: str
    after: dict[str, Any]
    violations: Sequence[Violation] = ()
    warnings: Sequence[str] = ()
    injection: Injection | None = None
    only_webhook: Violation | None = None


def judge(question: Question, options: Options) -> Verdict:
    """The verdict on an object; pure, and the same for a request and for a manifest.

    Args:
        question: the object and what is done to it.
        options: the operator's.
    """
    if question.subresource:
        return Verdict("unchanged", "subresource", question.object)
    if question.operation not in JUDGED.get(question.key, ()):
        return Verdict("unchanged", "kind", question.object)
    return _judge_pod(question, options) if question.key == POD else _judge_workload(question, options)


def concerns_us(question: Question, options: Options) -> bool:
    """Whether the verdict depends on what holds in the object's namespace."""
    if question.subresource or question.operation not in JUDGED.get(question.key, ()):
        return False
    if question.key == POD:
        return asks(ours(question.object.get("metadata"), group(options.variant)))
    return workload.concerns_us(question.key, question.object, options)


def key_of(found: Mapping[str, Any]) -> tuple[str, str]:
    """The API group and kind of an object of a manifest, as a question names them."""
    return str(found.get("apiVersion") or "").rpartition("/")[0], str(found.get("kind"))


def namespace_of(found: Mapping[str, Any], default: str) -> str:
    """The namespace that an object names, else the default."""
    metadata = found.get("metadata")
    named = metadata.get("namespace") if isinstance(metadata, dict) else None
    return named if isinstance(named, str) and named else default


def _judge_pod(question: Question, options: Options) -> Verdict:
    pod = question.object
    own = ours(pod.get("metadata"), group(options.variant))
    if not asks(own):
        if not _of_another_variant(pod, options) and (copied := _containers_of_ours(pod)):
            return Verdict("denied", "copy", pod, [_no_copy(copied)])
        if useless := gate.useless(pod, group(options.variant)):
            return Verdict("denied", "gate", pod, useless)
        return Verdict("unchanged", "declined" if own else "not-annotated", pod)
    if problems := _malformed(pod, shapes.Pod, own, options):
        return Verdict("denied", "malformed", pod, problems)
    if options.default_run_as_user == "pod":  # what gives Pods their user comes before any webhook
        options = _without_default_user(options)
    try:
        injection = inject(pod, replica.of_pod(pod, question.namespace), options, question.defaults)
    except InvalidPod as invalid:
        return Verdict("denied", "annotations", pod, invalid.violations, invalid.warnings)
    return Verdict("injected", "", injection.pod, (), injection.warnings, injection)


@functools.lru_cache(maxsize=8)
def _without_default_user(options: Options) -> Options:
    return dataclasses.replace(options, default_run_as_user=None)


def _containers_of_ours(pod: Mapping[str, Any]) -> list[str]:
    """Names of ours in a Pod of any shape."""
    spec = pod.get("spec")
    lists = [spec.get(key) for key in ("initContainers", "containers")] if isinstance(spec, dict) else []
    items = [item for found in lists if isinstance(found, list) for item in found if isinstance(item, dict)]
    return [name for item in items if isinstance(name := item.get("name"), str) and name.startswith(PREFIX)]


def _of_another_variant(pod: Mapping[str, Any], options: Options) -> bool:
    """Whether another installation has injected the Pod, by a status of its group."""
    keys = map(str, written(pod.get("metadata")))
    return any(key.endswith(f"{GROUP}/{STATUS}") and key != f"{group(options.variant)}/{STATUS}" for key in keys)


def _no_copy(names: Sequence[str]) -> Violation:
    return Violation(
        "spec.initContainers",
        ", ".join(names),
        "are of an injected Pod, but nothing here asks for injection, as in a copy of one (kubectl debug --copy-to): "
        "it would be a second writer of that Pod's replica; remove these containers, or debug the Pod itself",
    )


def _judge_workload(question: Question, options: Options) -> Verdict:
    key, found = question.key, question.object
    template = workload.template(key, found)
    if not workload.concerns_us(key, found, options) and not gate.useless(template, group(options.variant)):
        return Verdict("unchanged", "not-annotated", found)
    if isinstance(metadata := found.get("metadata"), dict) and metadata.get("deletionTimestamp"):
        return Verdict("unchanged", "ending", found)
    own = ours(template.get("metadata"), group(options.variant))
    if problems := _malformed(found, shapes.Workload, own, options):
        return Verdict("denied", "malformed", found, problems)
    if workload.checked_elsewhere(found):
        return Verdict("unchanged", "owned", found)
    examination = workload.examine(key, found, question.namespace, options, question.defaults)
    violations, warnings, injection = examination.violations, examination.warnings, examination.injection
    if question.operation == "UPDATE" and question.old and shapes.wrong(question.old, shapes.Workload) is None:
        known = workload.examine(key, question.old, question.namespace, options, question.defaults).violations
        new = workload.new_violations(violations, known, group(options.variant))
        denied = set(new)
        warnings = [*(str(violation) for violation in violations if violation not in denied), *warnings]
        violations = new
    if violations:
        return Verdict("denied", "workload", found, violations, warnings)
    if injection is None:
        return Verdict("checked", "", found, (), warnings)
    return Verdict(
        "checked",
        "",
        workload.with_template(key, found, injection.pod),
        (),
        warnings,
        injection,
        workload.own_replica_each(key, found, injection.settings.replica_path),
    )


def _malformed(
    found: Mapping[str, Any],
    shape: Any,  # noqa: ANN401 (a TypedDict)
    own: Mapping[str, Any],
    options: Options,
) -> list[Violation]:
    """What keeps an object from being read at all: annotations that are no strings, fields of another type."""
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
