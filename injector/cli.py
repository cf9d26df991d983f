"""The command line: `litestream-hook inject|check|annotations|…`, in a checkout `python -m injector …`.

Each command imports what it needs when it runs, so that `--help` and completion are there at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from injector import __version__, options, values
from injector.command import UNREADABLE
from injector.errors import InvalidOptions, quoted
from injector.options import Options

NAME = "litestream-hook"
CORE_OPTIONS = ("VARIANT", "DEFAULT_IMAGE", "INIT_IMAGE", "DEFAULT_RUN_AS_USER", "SKIP_CONTAINERS", "REPLICA_PREFIX",
                "DEFAULTS_FILE", "NAMESPACE_DEFAULTS", "LITESTREAM_HTTPS_PROXY", "LITESTREAM_HTTP_PROXY",
                "LITESTREAM_NO_PROXY")  # fmt: skip
CALLED = {"__main__.py": "python -m injector", "kubectl-litestream": "kubectl litestream"}  # by the file that is run
INTERRUPTED = 130  # as a shell has it
Run = Callable[[argparse.Namespace, Options], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code (0: fine, 1: something found, 2: unreadable or wrong call)."""
    parsed = parser(CALLED.get(Path(sys.argv[0]).name, NAME)).parse_args(arguments)
    try:
        code: int = parsed.run(parsed, options.read_flags(parsed, os.environ))
        sys.stdout.flush()
    except InvalidOptions as invalid:
        print(invalid, file=sys.stderr)
        return UNREADABLE
    except BrokenPipeError:
        # The reader (head, say) has left: nothing more to write, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def parser(program: str, completion: Mapping[str, object] | None = None) -> argparse.ArgumentParser:
    """What can be written on the command line.

    Args:
        program: what it is called in `--help`.
        completion: of names of files, by shell, as shtab has it.
    """
    whole = argparse.ArgumentParser(
        prog=program, description="Gives SQLite databases in Kubernetes Pods a Litestream replica."
    )
    whole.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(run=run)
        return added

    def on_files(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        added = command(name, run, text)
        files = "manifests, YAML or JSON, and folders of them; - or none: standard input"
        action = added.add_argument("files", nargs="*", metavar="FILE", help=files)
        action.complete = completion  # type: ignore[attr-defined] # shtab looks there
        added.add_argument("-n", "--namespace", default="", help="namespace of objects that name none")
        options.add_flags(added, CORE_OPTIONS)
        return added

    def on_cluster(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        added = command(name, run, text)
        added.add_argument("-n", "--namespace", help="namespace; default: that of the kubeconfig's context")
        added.add_argument("--context", default="", help="context of the kubeconfig")
        action = added.add_argument("--kubeconfig", default="", metavar="FILE", help="kubeconfig, as kubectl has it")
        action.complete = completion  # type: ignore[attr-defined] # shtab looks there
        return added

    on_files("inject", _inject, "print manifests with their Pods and Pod templates injected")
    check = on_files("check", _check, "report every error and every warning in manifests")
    check.add_argument("-o", "--output", choices=("text", "json"), default="text", help="for people, or for programs")
    text = "what makes the exit code 1: errors, or warnings as well (the default)"
    check.add_argument("--fail-on", choices=("error", "warning"), default="warning", help=text)
    text = "what asks for injection must have the scheduling gate that holds it back where the webhook is not installed"
    check.add_argument("--require-gate", action="store_true", help=text)
    verify = on_cluster("verify", _verify, "restore the newest state of a workload's replicas in a Job, and check it")
    _of_workload(verify)
    verify.add_argument("--full", action="store_true", help="run SQLite's full integrity check, not the quick one")
    text = "print a CronJob that verifies at these times, and the alert for it, instead of verifying now"
    verify.add_argument("--schedule", default="", metavar="CRON", help=text)
    verify.add_argument("-o", "--output", choices=("text", "json"), default="text", help="for people, or for programs")
    text = (
        "restore a workload's database to a file here or a volume, or print how the workload itself goes back in time"
    )
    restore = on_cluster("restore", _restore, text)
    _of_workload(restore)
    action = restore.add_argument("--to", default="", metavar="FILE", help="file on this machine, through the cluster")
    action.complete = completion  # type: ignore[attr-defined] # shtab looks there
    text = "PersistentVolumeClaim that no Pod uses: the database is put where the workload has it"
    restore.add_argument("--pvc", default="", metavar="NAME", help=text)
    text = "moment (RFC 3339, such as 2026-01-31T12:00:00Z) instead of the newest state; alone: print a rollback"
    restore.add_argument("--at", type=_checked("timestamp"), metavar="TIME", help=text)
    restore.add_argument("--yes", action="store_true", help="replace or move aside what is there, without being asked")
    listing = command("annotations", _annotations, "print the table of annotations")
    listing.add_argument("-n", "--namespace", default="NAMESPACE", help="namespace whose defaults are shown")
    options.add_flags(listing, ("VARIANT", "DEFAULT_IMAGE", "INIT_IMAGE", "DEFAULTS_FILE"))
    text = "print the AdmissionReview that an API server would send for the first Pod or workload in manifests"
    review = on_files("review", _review, text)
    text = "print manifests with a webhook's answer (an AdmissionReview on standard input) applied to that object"
    apply = on_files("apply", _apply, text)
    for each in (review, apply):
        each.add_argument(
            "--as-pod", action="store_true", help="instead of a workload, take the Pod that it would make"
        )
    status = on_cluster("status", _status, "say whether each database in the cluster is in its replica")
    text = "only this workload's Pods: NAME or KIND/NAME, such as deployment/web"
    status.add_argument("workload", nargs="?", default="", metavar="WORKLOAD", help=text)
    status.add_argument("-A", "--all-namespaces", action="store_true", help="look in all namespaces")
    text = "more columns, or a document for programs"
    status.add_argument("-o", "--output", choices=("text", "wide", "json", "yaml"), default="text", help=text)
    text = "how long what was written may wait for its upload before it is an error (default: 5m)"
    status.add_argument("--max-age", type=_seconds, default="5m", metavar="DURATION", help=text)
    options.add_flags(status, ("VARIANT", "DEFAULT_IMAGE"))
    shell = command("completion", _completion, "print a script that completes this command in a shell")
    shell.add_argument("shell", choices=("bash", "zsh", "fish"))
    serve = command("serve", _serve, "serve the webhook over TLS, as the container does")
    serve.add_argument("--reload", action="store_true", help="start anew when a file of it changes (development)")
    options.add_flags(serve)
    return whole


def _of_workload(added: argparse.ArgumentParser) -> None:
    """The arguments of what a Job restores of a workload."""
    added.add_argument("workload", metavar="KIND/NAME", help="such as statefulset/web, deployment/web or pod/web-0")
    added.add_argument("--pod", default="", metavar="NAME", help="one of its Pods, where each has its own databases")
    added.add_argument("--database", default="", metavar="PATH", help="one of several databases")
    text = "Litestream image of the Job; default: the Pod's own"
    added.add_argument("--image", type=_checked("image"), help=text)
    text = "how long the Job may take (default: 1h)"
    added.add_argument("--timeout", default=3600, type=_checked("duration"), metavar="DURATION", help=text)
    options.add_flags(added, CORE_OPTIONS)


def _checked(grammar: str) -> Callable[[str], Any]:
    """A reader of a flag by one of the grammars of annotations."""

    def read(text: str) -> Any:  # noqa: ANN401 (what argparse wants)
        try:
            value = getattr(values, grammar)(text)
        except ValueError as right:
            raise argparse.ArgumentTypeError(f"{quoted(text)}: {right}") from None
        return max(1, int(value.seconds)) if grammar == "duration" else text

    return read


def _verify(parsed: argparse.Namespace, chosen: Options) -> int:
    from injector.command import verify
    from injector.command.kubectl import Kubectl

    choice = verify.Choice(
        parsed.workload,
        parsed.namespace,
        parsed.pod,
        parsed.database,
        parsed.full,
        parsed.image or "",
        parsed.timeout,
        parsed.schedule,
        parsed.output,
    )
    return verify.run(choice, Kubectl(parsed.context, parsed.kubeconfig), chosen)


def _restore(parsed: argparse.Namespace, chosen: Options) -> int:
    from injector.command import restore
    from injector.command.kubectl import Kubectl

    choice = restore.Choice(
        parsed.workload,
        parsed.namespace,
        parsed.pod,
        parsed.database,
        parsed.image or "",
        parsed.timeout,
        parsed.to,
        parsed.pvc,
        parsed.at or "",
        parsed.yes,
    )
    return restore.run(choice, Kubectl(parsed.context, parsed.kubeconfig), chosen)


def _inject(parsed: argparse.Namespace, chosen: Options) -> int:
    from injector.command import inject

    return inject.run(parsed.files, parsed.namespace, chosen)


def _check(parsed: argparse.Namespace, chosen: Options) -> int:
    from injector.command import check

    return check.run(
        parsed.files,
        parsed.namespace,
        chosen,
        output=parsed.output,
        fail_on=parsed.fail_on,
        require_gate=parsed.require_gate,
    )


def _annotations(parsed: argparse.Namespace, chosen: Options) -> int:
    from injector.annotations import operator_file
    from injector.annotations.table import group, table

    defaults = operator_file.load(chosen.defaults_file, chosen).of(parsed.namespace)
    sources = defaults.sources() if chosen.defaults_file else None
    print(f"Annotations of a Pod (or Pod template), each below `{group(chosen.variant)}/`:\n")
    print(table({"image": chosen.default_image, "init-image": chosen.init_image, **defaults.under({})}, sources))
    return 0


def _review(parsed: argparse.Namespace, chosen: Options) -> int:
    from injector.command import trial

    del chosen
    return trial.run_review(parsed.files, parsed.namespace, as_pod=parsed.as_pod)


def _apply(parsed: argparse.Namespace, chosen: Options) -> int:
    from injector.command import trial

    del chosen
    return trial.run_apply(parsed.files, as_pod=parsed.as_pod)


def _status(parsed: argparse.Namespace, chosen: Options) -> int:
    from injector.command import status
    from injector.command.kubectl import Kubectl

    return status.run(
        Kubectl(parsed.context, parsed.kubeconfig),
        chosen,
        namespace=parsed.namespace,
        everywhere=parsed.all_namespaces,
        workload=parsed.workload,
        output=parsed.output,
        max_age=parsed.max_age,
    )


def _seconds(text: str) -> float:
    try:
        return float(values.duration(text).seconds)
    except ValueError as right:
        raise argparse.ArgumentTypeError(f'"{text}": {right}') from None


def _completion(parsed: argparse.Namespace, chosen: Options) -> int:
    import shtab

    del chosen
    print(shtab.complete(parser(NAME, shtab.FILE), parsed.shell))
    return 0


def _serve(parsed: argparse.Namespace, chosen: Options) -> int:
    from injector.serving import server

    return server.serve_reloading(chosen) if parsed.reload else server.serve(chosen)
