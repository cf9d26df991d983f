"""`restore`: a workload's database as a file here, on a PersistentVolumeClaim, or the workload's own way back."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import BufferedRandom
from pathlib import Path
from typing import NamedTuple

from injector.admission.verdict import Question, judge, key_of
from injector.admission.workload import TEMPLATES
from injector.annotations.table import group
from injector.command import FOUND, UNREADABLE, restoring, verify
from injector.command.kubectl import Kubectl, KubectlError, NotFound
from injector.command.progress import Progress
from injector.command.render import as_yaml
from injector.command.restoring import Running, Told, Unrestored
from injector.command.subject import NoSubject, Subject, subjects
from injector.errors import escaped, quoted
from injector.options import Options
from injector.pod import job, merge, replica
from injector.pod.job import Asked
from injector.values import SIDE_FILES, Object

MOST_STALLS = 5  # connections in a row that bring nothing


class Declined(Exception):
    """Nothing was done, as something would be overwritten: what, and how to say yes."""


class Choice(NamedTuple):
    """What a user asks for: whose database, of which moment, and where to."""

    workload: str
    namespace: str | None = None
    pod: str = ""
    database: str = ""
    image: str = ""
    seconds: int = 3600
    to: str = ""
    claim: str = ""
    at: str = ""
    yes: bool = False


def run(choice: Choice, kubectl: Kubectl, chosen: Options) -> int:
    """Restore; 1 if the replica does not give what is asked for, 2 if nothing can be or was to be done.

    Args:
        choice: what is asked for.
        kubectl: how the cluster is asked.
        chosen: the operator's options, for a workload whose Pods are all gone.
    """
    if (choice.to and choice.claim) or not (choice.to or choice.claim or choice.at):
        print("write one of --to FILE and --pvc NAME, or --at TIME alone for a rollback of the workload itself",
              file=sys.stderr)  # fmt: skip
        return UNREADABLE
    try:
        found = subjects(kubectl, choice.workload, choice.namespace, chosen, choice.pod)
        if choice.to:
            return _to_file(choice, kubectl, *_one(choice, found))
        if choice.claim:
            return _to_claim(choice, kubectl, *_one(choice, found))
        return _rollback(choice, kubectl, found, chosen)
    except (NoSubject, Unrestored, KubectlError, Declined) as error:
        print(escaped(str(error)), file=sys.stderr)
        return UNREADABLE
    except OSError as error:
        print(f"{quoted(str(error.filename or choice.to))[1:-1]}: {error.strerror}", file=sys.stderr)
        return UNREADABLE


def _one(choice: Choice, found: Sequence[Subject]) -> tuple[Subject, str]:
    """The one database that is asked for."""
    if len(found) > 1:
        names = ", ".join(each.name.rpartition(" ")[2] for each in found)
        raise NoSubject(f"each Pod of {choice.workload} has databases of its own: name one in --pod: {names}")
    (subject,) = found
    databases = list(subject.source.databases)
    if choice.database and choice.database not in databases:
        raise NoSubject(f"{subject.name} has no database {escaped(choice.database)}: it has {', '.join(databases)}")
    if not choice.database and len(databases) > 1:
        raise NoSubject(f"{subject.name} has several databases: name one in --database: {', '.join(databases)}")
    verify.check_image(subject, choice.image)
    return subject, choice.database or databases[0]


def _agree(question: str, choice: Choice) -> None:
    """Raises Declined unless the user says yes, now or before."""
    if choice.yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Declined(f"{question}: nothing was done; --yes says yes to that")
    print(f"{question}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Declined("nothing was done")


def _to_file(choice: Choice, kubectl: Kubectl, subject: Subject, database: str) -> int:
    """A restored database, through the cluster, to a file here."""
    target = Path(choice.to)
    if target.is_dir():
        raise Declined(f"{choice.to} is a folder: write the name of a file")
    if os.path.lexists(target) and not target.is_file():
        raise Declined(f"{choice.to} is no regular file: write the name of one")
    if not target.parent.is_dir():
        raise Declined(f"there is no folder {target.parent}")
    for side in SIDE_FILES:
        if (left := Path(f"{choice.to}{side}")).exists():
            raise Declined(f"{left} lies there, and SQLite would replay it into another database: take it away first")
    if target.exists():
        _agree(f"{choice.to} is there already and would be replaced", choice)
    kubectl.require("create", "pods/exec", namespace=subject.namespace)  # by which the database comes here
    asked = Asked("hold", [database], timestamp=choice.at, seconds=choice.seconds, image=choice.image)
    with _temporary(target) as (file, temporary):
        with restoring.running(kubectl, subject, asked, lambda told: bool(told and told[0].sha256)) as running:
            (told,) = running.told
            if told.failed:
                print(restoring.problem(told, subject, asked), file=sys.stderr)
                return FOUND
            with Progress() as progress:
                _fetch(kubectl, running, told, file, progress)
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(target)
    what = f"{_state(told)} of {database} of {subject.name}, {told.bytes} bytes, sha256 {told.sha256}"
    print(escaped(f"{choice.to}: {what}"))
    return 0


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[BufferedRandom, Path]]:
    """A new file beside the target, for its owner alone; gone at the end, unless it took the target's place."""
    path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file, path
    finally:
        path.unlink(missing_ok=True)


def _fetch(kubectl: Kubectl, running: Running, told: Told, file: BufferedRandom, progress: Progress) -> None:
    """The database from the Job's Pod. Where a connection ends too early, as kubectl's can, the next one goes on."""
    place, stalls = f"{job.DIRECTORY}/0.db", 0
    while (there := file.seek(0, os.SEEK_END)) < told.bytes:
        progress.show(f"{there:,} of {told.bytes:,} bytes are here")
        command = ["tail", "-c", f"+{there + 1}", place]
        why = "the connection ended"
        try:
            answer = kubectl.execute(running.pod, job.CONTAINER, command, namespace=running.namespace, into=file)
            if answer.code:
                why = restoring.sentence(answer.error.splitlines())
        except NotFound:
            raise Unrestored(
                f"Pod {running.pod} is gone, with {there:,} of {told.bytes:,} bytes fetched: if the Job's time was "
                "over, write a longer --timeout"
            ) from None
        except KubectlError as error:
            if error.reason not in ("", "Timeout"):
                raise
            why = str(error)
        stalls = 0 if file.seek(0, os.SEEK_END) > there else stalls + 1
        if stalls >= MOST_STALLS:
            raise Unrestored(f"the database can't be fetched from Pod {running.pod}: {why}")
    file.seek(0)
    if there != told.bytes or hashlib.file_digest(file, "sha256").hexdigest() != told.sha256:
        raise Unrestored(f"what came from Pod {running.pod} is not what was sent: its size or digest is another")


def _state(told: Told) -> str:
    return f"the state of {told.changed or 'an unknown time'} (transaction {told.txid or 'unknown'})"


def _to_claim(choice: Choice, kubectl: Kubectl, subject: Subject, database: str) -> int:
    """A restored database, on a PersistentVolumeClaim, where the workload's Pods have it."""
    claim, place = choice.claim, subject.namespace
    kubectl.get("persistentvolumeclaims", claim, namespace=place)
    if users := _users(kubectl, claim, place):
        raise Declined(
            f"Pod {users[0]} uses PersistentVolumeClaim {claim}, and a database must not be put under an application "
            "that runs: scale its workload to 0 first"
        )
    asked = Asked("fill", [database], "full", choice.at, claim, seconds=choice.seconds, image=choice.image)
    told = _filled(kubectl, subject, asked)
    if told.failed == "exists":
        problem = restoring.problem(told, subject, asked)
        _agree(f"{problem}, and would be moved aside, to a name with the date", choice)
        asked = asked._replace(overwrite=True)
        told = _filled(kubectl, subject, asked)
    if told.failed:
        print(restoring.problem(told, subject, asked), file=sys.stderr)
        return FOUND
    print(escaped(f"{database} on PersistentVolumeClaim {claim}: {_state(told)} of {subject.name}, {told.bytes} bytes"))
    if choice.at:
        print(
            "It is older than its replica, so a Pod that starts with it waits: write the annotation local-database "
            '"keep" for one start, which makes it the newest state of the replica'
        )
    return 0


def _filled(kubectl: Kubectl, subject: Subject, asked: Asked) -> Told:
    with restoring.running(kubectl, subject, asked) as running:
        return running.told[0]


def _users(kubectl: Kubectl, claim: str, place: str) -> list[str]:
    """The Pods that use a PersistentVolumeClaim, and have not ended."""
    return [
        pod["metadata"]["name"]
        for pod in kubectl.find("pods", namespace=place)
        if (pod.get("status") or {}).get("phase") not in restoring.ENDED
        and any(
            (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim
            for volume in pod["spec"].get("volumes") or []
        )
    ]


def _rollback(choice: Choice, kubectl: Kubectl, found: Sequence[Subject], chosen: Options) -> int:
    """The annotations that start a workload from a moment, as a patch of it, and what will happen, as its comments.

    The moment is restored first: what can't be restored is not printed.
    """
    workload = found[0].workload
    if choice.database or not (found[0].alone or len(found) > 1):
        raise NoSubject("one template makes all databases of all Pods go back: leave --pod and --database out")
    if (owner := replica.controller(workload["metadata"])) is not None:
        raise NoSubject(f"{choice.workload} belongs to {owner['kind']} {owner['name']}: name that")
    states = []
    for subject in found:
        verify.check_image(subject, choice.image)
        databases = list(subject.source.databases)
        asked = Asked("verify", databases, timestamp=choice.at, seconds=choice.seconds, image=choice.image)
        with restoring.running(kubectl, subject, asked) as running:
            told = running.told
        if wrong := [restoring.problem(one, subject, asked) for one in told if one.failed]:
            print("\n".join(wrong), file=sys.stderr)
            return FOUND
        states += [(subject, one) for one in told]
    annotations = rollback(found, choice.at, datetime.now(UTC), chosen)
    patch: Object = {"metadata": {"annotations": annotations}}
    for name in reversed(TEMPLATES.get(key_of(workload), ())):
        patch = {name: patch}
    _check(workload, patch, found[0].namespace, chosen)
    comments = _prospect(choice, kubectl, found, states, annotations)
    sys.stdout.write("".join(f"# {escaped(line)}\n" for line in comments) + as_yaml(patch))
    return 0


def _check(workload: Object, patch: Object, place: str, chosen: Options) -> None:
    """Raises NoSubject if the webhook would deny the patched workload."""
    after = merge.over(workload, patch)
    verdict = judge(Question(key_of(workload), "UPDATE", after, place, old=workload), chosen)
    if verdict.violations:
        raise NoSubject(f"a rollback would be denied: {'; '.join(map(str, verdict.violations))}")


def rollback(found: Sequence[Subject], moment: str, now: datetime, chosen: Options) -> dict[str, str]:
    """The annotations with which a workload starts from a moment of its replicas, and goes on in new ones.

    Args:
        found: all Pods of it that have replicas of their own.
        moment: RFC 3339.
        now: for the new replicas' paths, which must be of nobody yet.
        chosen: the operator's options.

    Raises:
        NoSubject: one value of `restore-from` does not lead to all of their replicas.
    """
    first = found[0].source
    sources = {
        _template(each, database, path, found) for each in found for database, path in each.source.databases.items()
    }
    if len(sources) > 1:
        raise NoSubject(
            "no one restore-from leads to the replicas of all its databases: roll back each by --to or --pvc"
        )
    base = re.sub(r"-since-\d{8}T\d{6}Z$", "", first.settings.replica_path)
    own = {
        "restore-from": sources.pop(),
        "restore-timestamp": moment,
        "replica-path": f"{base}-since-{now:%Y%m%dT%H%M%SZ}",
    }
    if any(job.lasts(each.source, database) for each in found for database in each.source.databases):
        own["local-database"] = "replace"
    return {f"{group(chosen.variant)}/{key}": text for key, text in own.items()}


def _template(subject: Subject, database: str, path: str, found: Sequence[Subject]) -> str:
    """A replica's whole path, with placeholders where that of another database or Pod differs."""
    if len(subject.source.databases) > 1:
        path = path.replace(database[1:], "{database}")
    if len(found) > 1:
        return path.replace(subject.name.rpartition(" ")[2], "{pod}")
    spec, (_, kind) = subject.workload.get("spec") or {}, key_of(subject.workload)
    if kind != "StatefulSet" or spec.get("replicas") != 0:
        return path
    # Scaled to zero, nobody knows how many Pods it has else: all of them would start from the replica of the first.
    first = f"{subject.workload['metadata']['name']}-{(spec.get('ordinals') or {}).get('start') or 0}"
    return "/".join("{pod}" if part == first else part for part in path.split("/"))


def _prospect(
    choice: Choice,
    kubectl: Kubectl,
    found: Sequence[Subject],
    states: Sequence[tuple[Subject, Told]],
    annotations: dict[str, str],
) -> Iterator[str]:
    """What will happen, a line each."""
    own = {key.rpartition("/")[2]: text for key, text in annotations.items()}
    yield f"{choice.workload} then starts from the last sync before {choice.at}, which was restored for a test:"
    for subject, told in states:
        yield f"- {told.path} of {subject.name}: {_state(told)}, {told.bytes} bytes"
        yield f"  tables: {verify.tables(told.tables)}"
    yield "Later rows are missing then. They stay in the replica as it is now, to which nobody writes any more:"
    for subject in found:
        yield from (f"- {path} in bucket {subject.source.bucket}" for path in subject.source.databases.values())
    yield "New rows go to the new replica-path. Once something is there the moment counts no longer, so the"
    yield "annotations can stay: a restart rewinds nothing."
    if "local-database" in own:
        yield "The database on the volume is moved aside, to a name with the date. Take local-database out after"
        yield "that start: it would decide the next time too."
    if key_of(found[0].workload) in TEMPLATES:
        kind, _, name = choice.workload.partition("/")
        yield "Apply it, and write it into the manifests that the workload comes from:"
        yield kubectl.typed("patch", kind, name, "--namespace", found[0].namespace, "--patch-file", "FILE")
    else:
        yield "A Pod's annotations count when it is made: delete it, and make it again with these."
