"""What the webhook would do to the objects of a document, and what is found in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from injector.admission.namespaces import Namespaces
from injector.admission.overlooked import overlooked
from injector.admission.sharing import Sharing
from injector.admission.verdict import POD, Question, Verdict, judge, key_of, namespace_of
from injector.admission.workload import template
from injector.annotations.settings import ours
from injector.annotations.table import group
from injector.command.objects import Name, name_of, objects, put
from injector.command.place import Places
from injector.errors import Violation
from injector.manifests import Document
from injector.options import Options
from injector.pod import gate

Severity = Literal["error", "warning"]


class Finding(NamedTuple):
    """What is wrong (or, as a warning, may go wrong) with one object of a manifest, and where it stands.

    `field` is an annotation's full key or the path of a field, empty where it is about the whole object. `about` is
    None where it is about the file.
    """

    file: str
    line: int | None
    severity: Severity
    message: str
    about: Name | None = None
    field: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.severity}: {'' if self.about is None else f'{self.about}: '}{self.message}"


class Result(NamedTuple):
    """What became of one document: what it would say then, and what was found."""

    after: Any
    findings: list[Finding]


class Beside(NamedTuple):
    """What the objects beside one say of it: the Namespaces of its defaults, and those that share a replica."""

    namespaces: Namespaces
    sharing: Sharing


def beside(documents: Sequence[Document], chosen: Options) -> Beside:
    """What is known of all documents of a call before the first is examined. Raises InvalidDefaults."""
    return Beside(Namespaces((each for one in documents for _, each in objects(one.value)), chosen), Sharing())


def examine(
    file: str,
    document: Document,
    namespace: str,
    chosen: Options,
    others: Beside,
    *,
    injecting: bool,
    require_gate: bool = False,
) -> Result:
    """What the webhook would do to (each object of) a document.

    Args:
        file: name of the manifest, for messages.
        document: of the manifest.
        namespace: of objects that name none; empty: it is not known.
        chosen: the operator's options.
        others: what is known of all documents.
        injecting: whether the document is to be written, which one template for several replicas can't be.
        require_gate: whether what asks for injection has to have the scheduling gate.
    """
    after, findings, places = document.value, [], Places(document)
    our_group = group(chosen.variant)
    for path, found in objects(document.value):
        place = namespace_of(found, namespace or "default")
        question = Question(key_of(found), "CREATE", found, place, defaults=others.namespaces.of(place))
        verdict = judge(question, chosen)
        mistakes, risks = others.namespaces.problems(found)
        wrong = [*verdict.violations, *others.sharing.others(question, verdict), *overlooked(found, chosen), *mistakes]
        if injecting:
            wrong += [*_unplaced(found, namespace, verdict), *([verdict.only_webhook] if verdict.only_webhook else [])]
        if require_gate and (ungated := _ungated(found, verdict, our_group)) is not None:
            wrong.append(ungated)
        about = name_of(found, namespace or "default")
        for violation in wrong:
            line = places.line(path, violation.field, our_group)
            findings.append(Finding(file, line, "error", str(violation), about, violation.field))
        findings += [Finding(file, places.line(path), "warning", each, about) for each in [*verdict.warnings, *risks]]
        if not wrong:
            after = put(after, path, verdict.after)
    return Result(after, findings)


def _ungated(found: Mapping[str, Any], verdict: Verdict, our_group: str) -> Violation | None:
    """What is to be said of a Pod or workload that would start uninjected where the webhook is not installed."""
    if verdict.injection is None:
        return None
    pod = found if key_of(found) == POD else template(key_of(found), found)
    return gate.missing(pod, ours(pod.get("metadata"), our_group), our_group)


def _unplaced(found: Mapping[str, Any], namespace: str, verdict: Verdict) -> list[Violation]:
    """Why an object can't be injected before its namespace is known: in two of them it would share one replica."""
    if verdict.injection is None or namespace_of(found, namespace):
        return []
    settings = verdict.injection.settings
    if "{namespace}" not in settings.replica_path + (settings.restore_from or ""):
        return []
    why = "is needed, as it is a part of the replica's path: write it, or --namespace NAME"
    return [Violation("metadata.namespace", None, why)]
