"""`review` and `apply`: what an API server does around a call of the webhook, to try one by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jsonpatch

from injector.admission import review, workload
from injector.admission.verdict import POD, key_of, namespace_of
from injector.command import FOUND, UNREADABLE
from injector.command import files as manifest_files
from injector.command.edit import LOST, anew, written
from injector.command.examine import Finding
from injector.command.made import pod_of
from injector.command.objects import Path, objects, put
from injector.errors import BadReview
from injector.manifests import Document


class _Subject(NamedTuple):
    """The object that a review is about, and where it stands among the documents."""

    documents: list[Document]
    number: int
    path: Path
    value: dict[str, Any]
    made: bool


def run_review(names: Sequence[str], namespace: str, *, as_pod: bool = False) -> int:
    """Print the AdmissionReview that an API server sends when the first Pod or workload of the files is created.

    Args:
        names: of files and folders.
        namespace: of an object that names none.
        as_pod: whether it is about the Pod that a workload makes.
    """
    subject = _subject(names, as_pod=as_pod)
    if subject is None:
        return UNREADABLE
    sent = review.sent(subject.value, namespace_of(subject.value, namespace or "default"))
    print(json.dumps(sent, indent=2, ensure_ascii=False))
    return 0


def run_apply(names: Sequence[str], *, as_pod: bool = False) -> int:
    """Print the files with an answer's patch on the object that the review was about; the answer is standard input.

    Args:
        names: of files and folders, those of the review.
        as_pod: as of the review; the Pod then stands where the workload did.
    """
    if not names or "-" in names:
        print("name the manifest that the answer is for; standard input holds the answer", file=sys.stderr)
        return UNREADABLE
    subject = _subject(names, as_pod=as_pod)
    if subject is None:
        return UNREADABLE
    try:
        allowed, message, warnings, operations = review.received(sys.stdin.buffer.read())
        after = jsonpatch.apply_patch(subject.value, operations)
    except BadReview as bad:
        print(f"{manifest_files.STANDARD_INPUT}: {bad}", file=sys.stderr)
        return UNREADABLE
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as problem:
        why = (
            "its patch does not fit the object: was the review made of the same files, and with --as-pod or without it?"
        )
        print(f"{manifest_files.STANDARD_INPUT}: {why} ({problem})", file=sys.stderr)
        return UNREADABLE
    for warning in warnings:
        print(f"Warning: {warning}", file=sys.stderr)
    if not allowed:
        print(message, file=sys.stderr)
        return FOUND
    texts = [(document, document.text) for document in subject.documents]
    document = subject.documents[subject.number]
    whole = put(document.value, subject.path, after)
    text, kept = (anew(document, whole), True) if subject.made else written(document, whole)
    if not kept:
        print(f"Warning: line {document.line}: {LOST}", file=sys.stderr)
    texts[subject.number] = (document, text)
    sys.stdout.write(manifest_files.joined(texts))
    sys.stdout.flush()
    return 0


def _subject(names: Sequence[str], *, as_pod: bool) -> _Subject | None:
    """The first Pod or workload; None (and a message) if there is none, or a file can't be read."""
    read = list(manifest_files.read(names))
    for file in read:
        if file.problem:
            print(Finding(file.name, file.line, "error", file.problem), file=sys.stderr)
    if any(file.problem for file in read):
        return None
    documents = [document for file in read for document in file.documents]
    for number, document in enumerate(documents):
        for path, value in objects(document.value):
            if key_of(value) == POD or (key_of(value) in workload.TEMPLATES and not as_pod):
                return _Subject(documents, number, path, value, made=False)
            if key_of(value) in workload.TEMPLATES:
                return _Subject(documents, number, path, pod_of(value), made=True)
    kinds = ", ".join(["Pod", *(kind for _, kind in workload.TEMPLATES)])
    print(f"none of these is in the input: {kinds}", file=sys.stderr)
    return None
