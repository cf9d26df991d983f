"""A Job that restores, from its creation to its end: what it tells, why it does not, and that nothing is left of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from injector.command.kubectl import Kubectl, KubectlError, MissingRight
from injector.command.progress import Progress
from injector.command.subject import Subject
from injector.errors import cut, escaped
from injector.pod import job
from injector.pod.job import CONTAINER, Asked
from injector.values import Object

RESOURCE = "jobs.batch"
POLL_SECONDS = 1.0
MOST_FAULTS = 15  # questions in a row that the cluster does not answer
UNMADE_SECONDS = 15  # without a Pod: something refuses it
STUCK_SECONDS = 45  # that a Pod waits for its image or a Secret: a pull may be tried again
LATE_SECONDS = 60  # after which a Job that should have ended by itself has not
LONGEST_NAME = 63
LONGEST_CRON_JOB = 52
MARK_LENGTH = 6
LARGEST = 2**63 - 1  # number that a line of ours has
ENDED = ("Succeeded", "Failed")
STUCK = ("CreateContainerConfigError", "CreateContainerError", "ErrImagePull", "ImagePullBackOff", "InvalidImageName",
         "RunContainerError")  # fmt: skip
UNSTARTED = ("ContainerCannotRun", "StartError")  # an image without /bin/sh, say


class Unrestored(Exception):
    """The Job could not do its work: why, in one sentence. About a database, that is in its `Told`."""


@dataclass
class Told:
    """What a Job said of one database; `failed` is the script's word for what is wrong with it, `why` a sentence."""

    path: str
    txid: str = ""
    changed: str = ""
    bytes: int = 0
    seconds: int = 0
    tries: int = 0
    sha256: str = ""
    tables: dict[str, int] = field(default_factory=dict)
    failed: str = ""
    why: str = ""


@dataclass(frozen=True)
class Running:
    """A Job that was made, and whose Pod has come so far: what it has told."""

    namespace: str
    pod: str
    told: list[Told]


def job_name(what: str, subject: Subject, longest: int = LONGEST_NAME - 7, database: str = "") -> str:
    """A name for a Job, by whose databases it restores: the same each time.

    That of a StatefulSet or a Pod alone is plain. Where it is cut or changed, or is about one database of several, and
    for other kinds, a digest tells it from the others: a CronJob that is applied would replace one of the same name.

    Args:
        what: is done.
        subject: whose databases they are.
        longest: that the name may be.
        database: the only one, if there are others.
    """
    _, _, last = subject.name.rpartition(" ")
    plain = f"litestream-{what}-{last.partition('/')[2] or last}"
    words = plain.replace(".", "-")
    if subject.name.startswith(("statefulset/", "pod/")) and words == plain and len(words) <= longest and not database:
        return words
    mark = hashlib.sha256(f"{subject.name} {database}".encode()).hexdigest()[:MARK_LENGTH]
    return f"{words[: longest - MARK_LENGTH - 1].rstrip('-')}-{mark}"


@contextlib.contextmanager
def running(
    kubectl: Kubectl, subject: Subject, asked: Asked, done: Callable[[Sequence[Told]], bool] | None = None
) -> Iterator[Running]:
    """Make a Job and wait for what it tells; at the end of the block, however that comes, it is deleted.

    Args:
        kubectl: how the cluster is asked.
        subject: whose databases are restored.
        asked: what is to be done.
        done: whether all has been told that is waited for; None: at the Pod's end.

    Raises:
        Unrestored: the Job's Pod can't be made, does not start, or ends without a word.
        KubectlError: the cluster can't be asked.
    """
    what = "verify" if asked.mode == "verify" else "restore"
    name = f"{job_name(what, subject)}-{secrets.token_hex(3)}"
    manifest = job.job(subject.source, asked, name, subject.namespace)
    refused = False
    with _interruptible():
        try:
            try:
                kubectl.create(manifest, RESOURCE, namespace=subject.namespace)
            except KubectlError as error:
                refused = error.reason not in ("", "Timeout")
                raise
            with Progress() as progress:
                running = _waited(kubectl, subject, asked, name, done, progress)
            yield running
        finally:
            if not refused:
                _delete(kubectl, name, subject.namespace)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM, and a terminal that is closed, end a command as Ctrl-C does: it takes away what it has made."""
    mine = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP) if mine}
    usual = [number for number, handler in before.items() if handler == signal.SIG_DFL]
    for number in usual:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in usual:
            signal.signal(number, signal.SIG_DFL)


def _delete(kubectl: Kubectl, name: str, namespace: str) -> None:
    try:
        kubectl.delete(RESOURCE, name, namespace=namespace)
    except KubectlError as error:
        print(
            f"Job {name} may be left, and goes by itself {job.KEPT_SECONDS} s after its end: {error}", file=sys.stderr
        )


def _waited(
    kubectl: Kubectl,
    subject: Subject,
    asked: Asked,
    name: str,
    done: Callable[[Sequence[Told]], bool] | None,
    progress: Progress,
) -> Running:
    began, place = time.monotonic(), subject.namespace
    stuck_since, seen, last, faults = 0.0, False, "", 0
    while True:
        try:
            pod = _pod_of(kubectl, name, place)
            running = None if pod is None else _told(kubectl, pod, asked, place, done)
            faults = 0
        except KubectlError as error:
            # An API server that is replaced is away for a moment, and the Job goes on.
            faults += 1
            if isinstance(error, MissingRight) or faults > MOST_FAULTS:
                raise
            time.sleep(POLL_SECONDS)
            continue
        if running is not None:
            return running
        passed = time.monotonic() - began
        waits = "" if pod is None else _waits(pod)
        if pod is not None:
            seen, last = True, waits
            stuck_since = (stuck_since or passed) if waits.startswith(STUCK) else 0.0
            if stuck_since and passed - stuck_since > STUCK_SECONDS:
                raise Unrestored(f"the Pod of Job {name} can't start: {waits}")
        elif seen or passed > UNMADE_SECONDS:
            waited = f" ({last})" if last else ""
            what = f"the Pod of Job {name} is gone{waited}" if seen else f"no Pod is made for Job {name}"
            raise Unrestored(f"{what}: {_why_unmade(kubectl, name, place)}")
        if passed > asked.seconds + LATE_SECONDS:
            state = "has no Pod" if pod is None else waits or "has not ended"
            raise Unrestored(f"Job {name} took more than {asked.seconds} s: {state}")
        progress.show(f"Job {name} in {place} restores: {passed:.0f} s {cut(waits, 60)}")
        time.sleep(POLL_SECONDS)


def _told(
    kubectl: Kubectl, pod: Object, asked: Asked, place: str, done: Callable[[Sequence[Told]], bool] | None
) -> Running | None:
    """What the Job's Pod has told, once that is all."""
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    # Beside the container may be one that somebody puts into every Pod, a mesh's proxy, and it does not end by itself.
    ended = status.get("phase") in ENDED or "terminated" in (_own(status).get("state") or {})
    if not ended and (status.get("phase") != "Running" or done is None):
        return None
    try:
        log = kubectl.logs(name, CONTAINER, namespace=place)
    except KubectlError:
        if not ended or not status.get("reason"):
            raise
        log = ""  # of a Pod that was ended before its container began
    told, rest = read(log, asked.databases)
    if ended:
        return Running(place, name, _complete(told, asked, pod, rest))
    return Running(place, name, told) if done is not None and done(told) else None


def _pod_of(kubectl: Kubectl, name: str, place: str) -> Object | None:
    found = kubectl.find("pods", namespace=place, labels=f"batch.kubernetes.io/job-name={name}")
    return found[0] if found else None


def _own(status: Object) -> Object:
    """What a Pod's status says of the container that restores."""
    return next((one for one in status.get("containerStatuses") or [] if one.get("name") == CONTAINER), {})


def _waits(pod: Object) -> str:
    """Why a Pod does not start yet, by what the scheduler and the kubelet say."""
    status = pod.get("status") or {}
    for one in status.get("containerStatuses") or []:
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return _line(f"{waiting['reason']}: {waiting.get('message', '')}").rstrip(": ")
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _line(f"{condition.get('reason')}: {condition.get('message', '')}").rstrip(": ")
    return ""


def _why_unmade(kubectl: Kubectl, name: str, place: str) -> str:
    """What the Job's controller says of a Pod that it can't make or has ended, if one may read that."""
    with contextlib.suppress(KubectlError):
        conditions = (kubectl.get(RESOURCE, name, namespace=place).get("status") or {}).get("conditions") or []
        failed = [one for one in conditions if one.get("type") in ("Failed", "FailureTarget")]
        if failed:
            longer = "; write a longer --timeout" if failed[0].get("reason") == "DeadlineExceeded" else ""
            return f"{_line(failed[0].get('message', ''))}{longer}"
    with contextlib.suppress(KubectlError):
        events = kubectl.find("events", namespace=place, fields=f"involvedObject.kind=Job,involvedObject.name={name}")
        said = [str(event.get("message", "")) for event in events if event.get("type") == "Warning"]
        if said:
            return _line(said[-1])
    return f"`kubectl describe job {name}` says why"


def read(log: str, databases: Sequence[str]) -> tuple[list[Told], str]:
    """What a Job's log tells of each database, in their order, and the last words that belong to none.

    Args:
        log: as kubectl has it: standard output and standard error together.
        databases: the Job's.
    """
    told: dict[int, Told] = {}
    words: list[str] = []
    for line in log.splitlines():
        found = _line_of_ours(line, len(databases))
        if found is None:
            words.append(line)
            continue
        number = found.pop("database")
        one = told.setdefault(number, Told(databases[number]))
        if "table" in found:
            one.tables[found["table"]] = found["rows"]
        elif "failed" in found:
            one.failed, one.why = found["failed"], sentence(words)
        else:
            for key, value in found.items():
                setattr(one, key, value)
        words = []
    return [told[number] for number in sorted(told)], sentence(words)


def _line_of_ours(line: str, count: int) -> dict[str, Any] | None:
    """One of the script's lines; None where it is another, whatever that looks like."""
    if not line.startswith('{"database":'):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    texts, numbers = ("txid", "changed", "sha256", "failed", "table"), ("database", "bytes", "seconds", "tries", "rows")
    known = all(
        (key in texts and isinstance(value, str)) or (key in numbers and type(value) is int and abs(value) <= LARGEST)
        for key, value in found.items()
    )
    whole = set(found) >= {"table", "rows"} or "failed" in found or "txid" in found
    return found if known and whole and 0 <= found["database"] < count else None


def sentence(words: Sequence[str]) -> str:
    """The last thing that Litestream (or a shell) said, without its time, level and name."""
    said = next((word.strip() for word in reversed(words) if word.strip()), "")
    logged = re.search(r'\berror="((?:[^"\\]|\\.)*)"', said) or re.search(r'\bmsg="((?:[^"\\]|\\.)*)"', said)
    return _line(logged[1].replace('\\"', '"') if logged else said.removeprefix("Error: "))


def _complete(told: list[Told], asked: Asked, pod: Object, rest: str) -> list[Told]:
    """What was told, if that is all; else why the Pod ended before."""
    if len([one for one in told if one.failed or one.tries]) == len(asked.databases):
        return told
    status = pod.get("status") or {}
    ended = (_own(status).get("state") or {}).get("terminated") or {}
    killed = ended.get("reason", "")
    if killed == "OOMKilled":
        raise Unrestored("the restore needs more memory than it may have (OOMKilled): write a higher memory-limit")
    if status.get("reason") or status.get("message"):
        raise Unrestored(_line(f"the Pod of the Job was ended ({status.get('reason')}): {status.get('message', '')}"))
    if killed in UNSTARTED:
        raise Unrestored(_line(f"the Pod of the Job can't start ({killed}): {ended.get('message', '')}"))
    raise Unrestored(f"the Pod of the Job ended without an answer: {rest or killed or 'its log is empty'}")


def problem(told: Told, subject: Subject, asked: Asked) -> str:
    """What is wrong with the replica of a database, in one sentence.

    Args:
        told: of the database, which `failed`.
        subject: whose it is.
        asked: what was to be done.
    """
    return escaped(_problem(told, subject, asked))


def _problem(told: Told, subject: Subject, asked: Asked) -> str:
    where = f"{subject.source.databases[told.path]} in bucket {subject.source.bucket}"
    if told.failed == "unreachable":
        return f"bucket {subject.source.bucket} has not answered in {job.PATIENCE_SECONDS} s"
    if told.failed == "unreadable":
        return f"bucket {subject.source.bucket} can't be read: {told.why}"
    if told.failed == "empty":
        hint = "" if subject.living else (
            ": no Pod lives that says where its replica is, so give this command the operator's options, such as "
            "--replica-prefix, if the path is another"
        )  # fmt: skip
        return f"there is no backup at {where} ({told.why}){hint}"
    if told.failed == "exists":
        return f"{told.path} is on PersistentVolumeClaim {asked.claim} already"
    if told.failed == "unwritable":
        return f"{told.path} can't be written on PersistentVolumeClaim {asked.claim}: {told.why}"
    moment = f" to its state at {asked.timestamp}" if asked.timestamp else ""
    return f"the replica at {where} can't be restored{moment}: {told.why}"


def _line(text: str) -> str:
    return escaped(cut(" ".join(text.split()), 300))
