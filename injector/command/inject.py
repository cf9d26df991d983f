"""`inject`: manifests with Litestream in their Pods and Pod templates, and everything else as it was."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from injector.command import FOUND, UNREADABLE
from injector.command import files as manifest_files
from injector.command.edit import LOST, written
from injector.command.examine import Finding, beside, examine
from injector.command.progress import Progress
from injector.options import Options


def run(names: Sequence[str], namespace: str, chosen: Options) -> int:
    """Print the injected manifests, or what keeps them from being injected: nothing is half done.

    Args:
        names: of files and folders.
        namespace: of objects that name none.
        chosen: the operator's options.
    """
    read = list(manifest_files.read(names))
    if problems := [Finding(file.name, file.line, "error", file.problem) for file in read if file.problem]:
        for problem in problems:
            print(problem, file=sys.stderr)
        return UNREADABLE
    texts, findings = [], []
    with Progress() as progress:
        documents = [(file.name, document) for file in read for document in file.documents]
        others = beside([document for _, document in documents], chosen)
        for name, document in progress.each(documents, "documents"):
            result = examine(name, document, namespace, chosen, others, injecting=True)
            text, kept = written(document, result.after)
            findings += result.findings
            if not kept:
                findings.append(Finding(name, document.line, "warning", LOST))
            texts.append((document, text))
    for finding in findings:
        print(finding, file=sys.stderr)
    if any(finding.severity == "error" for finding in findings):
        print("nothing was injected: see above", file=sys.stderr)
        return FOUND
    sys.stdout.write(manifest_files.joined(texts))
    sys.stdout.flush()
    return 0
