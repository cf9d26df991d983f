"""The command line: `litestream-hook inject|check|annotations|serve`, in a checkout `python -m injector …`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from injector import __version__, manifests, options
from injector.admission import review
from injector.admission.namespaces import Namespaces
from injector.admission.verdict import Question, Verdict, asked_for, judge, key_of, namespace_of, overlooked
from injector.annotations.table import group as group_of
from injector.annotations.table import table
from injector.errors import BadReview, InvalidOptions, Violation, quoted
from injector.manifests import Document
from injector.options import Options
from injector.pod.patch import Operation, diff

FOUND, UNREADABLE = 1, 2  # exit codes: something is wrong with a Pod; with a file, an option or the call
CORE_OPTIONS = ("VARIANT", "DEFAULT_IMAGE", "INIT_IMAGE", "DEFAULT_RUN_AS_USER", "SKIP_CONTAINERS", "REPLICA_PREFIX",
                "DEFAULTS_FILE", "NAMESPACE_DEFAULTS")  # fmt: skip


class Finding(NamedTuple):
    """What is wrong (or, as a risk, may become wrong) with one object of a manifest."""

    where: str
    text: str
    risk: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {'risk: ' if self.risk else ''}{self.text}"


class Result(NamedTuple):
    """What became of one document: the patch that injects it, and what was found."""

    operations: list[Operation]
    findings: list[Finding]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code (0: fine, 1: something found, 2: unreadable or wrong call)."""
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed, options.read_flags(parsed, os.environ))
    except InvalidOptions as invalid:
        print(invalid, file=sys.stderr)
        return UNREADABLE
    except BrokenPipeError:
        # The reader (head, say) has left: nothing more to write, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m injector" if Path(sys.argv[0]).name == "__main__.py" else "litestream-hook",
        description="Gives SQLite databases in Kubernetes Pods a Litestream replica.",
    )
    parser.add_argument("--version", action="version", version=f"litestream-hook {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace, Options], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(run=run)
        return added

    _add_files(command("inject", _run_inject, "print manifests with their Pods and Pod templates injected, as YAML"))
    _add_files(command("check", _run_check, "report every mistake and risk in manifests; exit code 1 if there is any"))
    listing = command("annotations", _run_annotations, "print the table of annotations")
    listing.add_argument("-n", "--namespace", default="NAMESPACE", help="namespace whose defaults are shown")
    options.add_flags(listing, ("VARIANT", "DEFAULT_IMAGE", "INIT_IMAGE", "DEFAULTS_FILE"))
    _add_files(command("review", _run_review, "print the AdmissionReview that an API server would send for an object"))
    text = "apply a webhook's answer (an AdmissionReview on standard input) to the object in a manifest"
    _add_files(command("apply", _run_apply, text))
    serve = command("serve", _run_serve, "serve the webhook over TLS, as the container does")
    serve.add_argument("--reload", action="store_true", help="start anew when a file of it changes (development)")
    options.add_flags(serve)
    return parser


def _add_files(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", nargs="*", metavar="FILE", help="manifests, YAML or JSON; - or none: standard input")
    command.add_argument("-n", "--namespace", default="", help="namespace of objects that name none")
    options.add_flags(command, CORE_OPTIONS)


def _run_annotations(parsed: argparse.Namespace, chosen: Options) -> int:
    defaults = Namespaces((), chosen).of(parsed.namespace)
    sources = defaults.sources() if chosen.defaults_file else None
    print(f"Annotations of a Pod (or Pod template), each below `{group_of(chosen.variant)}/`:\n")
    print(table({"image": chosen.default_image, "init-image": chosen.init_image, **defaults.under({})}, sources))
    return 0


def _run_serve(parsed: argparse.Namespace, chosen: Options) -> int:
    from injector.serving import server  # the other commands need neither an event loop nor TLS

    return server.serve_reloading(chosen) if parsed.reload else server.serve(chosen)


def _run_inject(parsed: argparse.Namespace, chosen: Options) -> int:
    read = _read_all(parsed.files)
    if read is None:
        return UNREADABLE
    namespaces = _namespaces(read, chosen)
    output: list[str] = []
    findings: list[Finding] = []
    for name, documents in read:
        for document in documents:
            result = examine(name, document, parsed.namespace, chosen, namespaces, injecting=True)
            findings += result.findings
            text, kept = manifests.patched(document, result.operations) if result.operations else (document.text, True)
            if not kept:
                note = "written anew without its comments, as an anchor of it stands for several places"
                findings.append(Finding(f"{name}: document {document.number}", note, risk=True))
            output += [document.separator or ("---\n" if output else ""), text if text.endswith("\n") else text + "\n"]
    for finding in findings:
        print(finding, file=sys.stderr)
    if any(not finding.risk for finding in findings):
        print("nothing was injected: see above", file=sys.stderr)
        return FOUND
    sys.stdout.write("".join(output))
    sys.stdout.flush()
    return 0


def _run_review(parsed: argparse.Namespace, chosen: Options) -> int:
    del chosen
    found = _first_object(parsed.files)
    if found is None:
        return UNREADABLE
    namespace = namespace_of(found[1], parsed.namespace or "default")
    print(json.dumps(review.sent(found[1], namespace), indent=2, ensure_ascii=False))
    return 0


def _run_apply(parsed: argparse.Namespace, chosen: Options) -> int:
    del chosen
    if not parsed.files or "-" in parsed.files:
        print("name the manifest that the answer is for; standard input holds the answer", file=sys.stderr)
        return UNREADABLE
    found = _first_object(parsed.files)
    if found is None:
        return UNREADABLE
    try:
        allowed, message, warnings, operations = review.received(sys.stdin.buffer.read())
    except BadReview as bad:
        print(f"standard input: {bad}", file=sys.stderr)
        return UNREADABLE
    for warning in warnings:
        print(f"Warning: {warning}", file=sys.stderr)
    if not allowed:
        print(message, file=sys.stderr)
        return FOUND
    sys.stdout.write(manifests.patched(found[0], operations)[0])
    return 0


def _first_object(files: Sequence[str]) -> tuple[Document, dict[str, Any]] | None:
    """The first document that is an object; None (and a message) if there is none."""
    read = _read_all(files)
    documents = [document for _, found in read or [] for document in found if isinstance(document.value, dict)]
    if read is not None and not documents:
        print("there is no object in the input", file=sys.stderr)
    return (documents[0], documents[0].value) if documents else None


def _run_check(parsed: argparse.Namespace, chosen: Options) -> int:
    read = _read_all(parsed.files)
    if read is None:
        return UNREADABLE
    namespaces = _namespaces(read, chosen)
    found = [
        finding
        for name, documents in read
        for document in documents
        for finding in examine(name, document, parsed.namespace, chosen, namespaces, injecting=False).findings
    ]
    for finding in found:
        print(finding)
    objects = [each for _, documents in read for document in documents for _, each in _objects(document.value)]
    annotated = sum(bool(asked_for(each, chosen)) for each in objects)
    risks = sum(finding.risk for finding in found)
    print(
        f"{_count(len(read), 'file')}, {_count(len(objects), 'object')}, {annotated} with our annotations: "
        f"{_count(len(found) - risks, 'mistake')}, {_count(risks, 'risk')}",
        file=sys.stderr,
    )
    return FOUND if found else 0


def _namespaces(read: Sequence[tuple[str, Sequence[Document]]], chosen: Options) -> Namespaces:
    """What holds in each namespace, by the operator's file and the Namespaces in the manifests."""
    found = (each for _, documents in read for document in documents for _, each in _objects(document.value))
    return Namespaces(found, chosen)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _read_all(files: Sequence[str]) -> list[tuple[str, list[Document]]] | None:
    """The documents of all files; None (and a message for each) if any can't be read."""
    read = []
    failed = False
    for file in files or ["-"]:
        name = "standard input" if file == "-" else file
        try:
            text = sys.stdin.buffer.read().decode() if file == "-" else Path(file).read_bytes().decode()
            read.append((name, manifests.read(text)))
        except (OSError, UnicodeDecodeError, manifests.UnreadableManifest) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            print(f"{name}: {reason}", file=sys.stderr)
            failed = True
    return None if failed else read


def examine(
    file: str, document: Document, namespace: str, chosen: Options, namespaces: Namespaces, *, injecting: bool
) -> Result:
    """What the webhook would do to (each object of) a document.

    Args:
        file: name of the manifest, for messages.
        document: of the manifest.
        namespace: of objects that name none; empty: it is not known.
        chosen: the operator's options.
        namespaces: what holds in each.
        injecting: whether the patch is wanted, which one template for several replicas can't have.
    """
    operations: list[Operation] = []
    findings: list[Finding] = []
    for path, found in _objects(document.value):
        place = namespace_of(found, namespace or "default")
        verdict = judge(Question(key_of(found), "CREATE", found, place, defaults=namespaces.of(place)), chosen)
        mistakes, risks = namespaces.problems(found)
        wrong = [*verdict.violations, *overlooked(found, chosen), *mistakes]
        if injecting:
            wrong += [*_unplaced(found, namespace, verdict), *([verdict.only_webhook] if verdict.only_webhook else [])]
        where = f"{file}: document {document.number}{_place(path)} ({_title(found, namespace or 'default')})"
        findings += [Finding(where, str(violation)) for violation in wrong]
        findings += [Finding(where, warning, risk=True) for warning in [*verdict.warnings, *risks]]
        if not wrong:
            operations += [{**each, "path": path + each["path"]} for each in diff(found, verdict.after)]
    return Result(operations, findings)


def _unplaced(found: Mapping[str, Any], namespace: str, verdict: Verdict) -> list[Violation]:
    """Why an object can't be injected before its namespace is known: in two of them it would share one replica."""
    injection = verdict.injection
    if injection is None or "{namespace}" not in injection.settings.replica_path or namespace_of(found, namespace):
        return []
    why = "is needed, as it is a part of the replica's path: write it, or --namespace NAME"
    return [Violation("metadata.namespace", None, why)]


def _place(path: str) -> str:
    return ", items[" + "].items[".join(path.split("/")[2::2]) + "]" if path else ""


def _title(found: Mapping[str, Any], namespace: str) -> str:
    metadata = found.get("metadata") or {}
    name = metadata.get("name") or metadata.get("generateName") or "nameless"
    return f"{found.get('kind')} {quoted(str(metadata.get('namespace') or namespace))[1:-1]}/{quoted(str(name))[1:-1]}"


def _objects(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401 (any YAML value)
    """(JSON pointer, object) of a document that is one, or of each in a List, to any depth."""
    if not isinstance(value, dict):
        return
    if isinstance(value.get("items"), list) and str(value.get("kind", "")).endswith("List"):
        for index, item in enumerate(value["items"]):
            yield from _objects(item, f"{path}/items/{index}")
    elif isinstance(value.get("metadata") or {}, dict):
        yield path, value
