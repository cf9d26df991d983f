"""`check`: every error and every warning in manifests, for people, or as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Literal

from injector.admission.overlooked import asked_for
from injector.command import FOUND, UNREADABLE
from injector.command import files as manifest_files
from injector.command.examine import Finding, beside, examine
from injector.command.objects import objects
from injector.command.progress import Progress
from injector.options import Options

SCHEMA = 1  # of the JSON; it changes when a field goes or means something else, not when one is added


def run(
    names: Sequence[str],
    namespace: str,
    chosen: Options,
    *,
    output: str = "text",
    fail_on: str = "warning",
    require_gate: bool = False,
) -> int:
    """Print what is found; the exit code is 1 if that is bad enough, and 2 if a file can't be read.

    Args:
        names: of files and folders.
        namespace: of objects that name none.
        chosen: the operator's options.
        output: `text` or `json`.
        fail_on: the least severity that is bad enough, `warning` or `error`.
        require_gate: whether what asks for injection has to have the scheduling gate.
    """
    with Progress() as progress:
        read = list(manifest_files.read(names))
        documents = [(file.name, document) for file in read for document in file.documents]
        others = beside([document for _, document in documents], chosen)
        found = [
            finding
            for name, document in progress.each(documents, "documents")
            for finding in examine(
                name, document, namespace, chosen, others, injecting=False, require_gate=require_gate
            ).findings
        ]
    unreadable = [Finding(file.name, file.line, "error", file.problem) for file in read if file.problem]
    each = [item for _, document in documents for _, item in objects(document.value)]
    totals = {
        "files": len(read),
        "objects": len(each),
        "annotated": sum(asked_for(item, chosen) for item in each),
        "unreadable": len(unreadable),
        "errors": _count(found, "error"),
        "warnings": _count(found, "warning"),
    }
    if output == "json":
        print(
            json.dumps(
                {"version": SCHEMA, "findings": list(map(_fields, unreadable + found)), "totals": totals}, indent=2
            )
        )
    else:
        _tell(unreadable, found, totals)
    if unreadable:
        return UNREADABLE
    return FOUND if any(fail_on == "warning" or finding.severity == "error" for finding in found) else 0


def _count(found: Sequence[Finding], severity: Literal["error", "warning"]) -> int:
    return sum(finding.severity == severity for finding in found)


def _fields(finding: Finding) -> dict[str, Any]:
    about = finding.about
    return {
        "file": finding.file,
        "line": finding.line,
        "severity": finding.severity,
        "kind": about and about.kind,
        "namespace": about and about.namespace,
        "name": about and about.name,
        "annotation": finding.field if "/" in finding.field and "[" not in finding.field else None,
        "field": finding.field or None,
        "message": finding.message,
    }


def _tell(unreadable: Sequence[Finding], found: Sequence[Finding], totals: dict[str, int]) -> None:
    for finding in found:
        print(finding)
    sys.stdout.flush()
    for problem in unreadable:
        print(problem, file=sys.stderr)
    unread = f", {totals['unreadable']} of them unreadable" if unreadable else ""
    print(
        f"{_counted(totals['files'], 'file')}{unread}, {_counted(totals['objects'], 'object')}, "
        f"{totals['annotated']} with our annotations: "
        f"{_counted(totals['errors'], 'error')}, {_counted(totals['warnings'], 'warning')}",
        file=sys.stderr,
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
