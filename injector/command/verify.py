"""`verify`: whether the replicas of a workload can be restored, and what is in them; or a CronJob that asks again."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from injector.command import FOUND, UNREADABLE, restoring
from injector.command.kubectl import Kubectl, KubectlError
from injector.command.render import as_yaml
from injector.command.restoring import Told, Unrestored
from injector.command.subject import NoSubject, Subject, subjects
from injector.errors import escaped
from injector.options import Options
from injector.pod import job
from injector.pod.job import Asked
from injector.values import LITESTREAM_IMAGE, Object

SCHEMA = 1  # of the JSON; it changes when a field goes or means something else, not when one is added
MOST_TABLES = 20  # that are named in the text
LATE_SECONDS = 2 * 3600  # after which a run that has not begun is missed, and one that began has failed


class Choice(NamedTuple):
    """What a user asks for: the workload, which of its Pods and databases, how, and in which form."""

    workload: str
    namespace: str | None = None
    pod: str = ""
    database: str = ""
    full: bool = False
    image: str = ""
    seconds: int = 3600
    schedule: str = ""
    output: str = "text"


def run(choice: Choice, kubectl: Kubectl, chosen: Options) -> int:
    """Verify the replicas and print what is in them; 1 if one is not good, 2 if that can't be told of all.

    Args:
        choice: what is asked for.
        kubectl: how the cluster is asked.
        chosen: the operator's options, for a workload whose Pods are all gone.
    """
    if choice.schedule and choice.output == "json":
        print("what --schedule prints is YAML: leave --output json out", file=sys.stderr)
        return UNREADABLE
    try:
        found = [(each, _asked(choice, each)) for each in _subjects(choice, kubectl, chosen)]
        if choice.schedule:
            sys.stdout.write("---\n".join(as_yaml(one) for each, asked in found for one in
                                          scheduled(each, asked, choice.schedule)))  # fmt: skip
            return 0
    except (NoSubject, KubectlError) as error:
        print(escaped(str(error)), file=sys.stderr)
        return UNREADABLE
    verified: list[tuple[Subject, Asked, list[Told]]] = []
    unknown = False
    for each, asked in found:
        try:
            verified.append((each, asked, _verified(kubectl, each, asked)))
        except (Unrestored, KubectlError) as error:
            where = f"{each.name}: " if len(found) > 1 else ""
            print(escaped(f"{where}{error}"), file=sys.stderr)
            unknown = True
            if isinstance(error, KubectlError):
                break
    if not verified:
        return UNREADABLE
    if choice.output == "json":
        print(json.dumps({"version": SCHEMA, "databases": [_fields(*one) for each in verified for one in _flat(*each)]},
                         indent=2))  # fmt: skip
    else:
        sys.stdout.write("\n".join(_text(*one) for each in verified for one in _flat(*each)))
    if any(one.failed for _, _, told in verified for one in told):
        return FOUND
    return UNREADABLE if unknown else 0


def _subjects(choice: Choice, kubectl: Kubectl, chosen: Options) -> list[Subject]:
    found = subjects(kubectl, choice.workload, choice.namespace, chosen, choice.pod)
    having = [each for each in found if choice.database in ("", *each.source.databases)]
    if not having:
        others = ", ".join(dict.fromkeys(path for each in found for path in each.source.databases))
        raise NoSubject(f"{choice.workload} has no database {escaped(choice.database)}: it has {others}")
    return having


def _asked(choice: Choice, subject: Subject) -> Asked:
    check_image(subject, choice.image)
    databases = [path for path in subject.source.databases if choice.database in ("", path)]
    return Asked("verify", databases, "full" if choice.full else "quick", seconds=choice.seconds, image=choice.image)


def check_image(subject: Subject, image: str) -> None:
    """Raises NoSubject if a Job can't use the Pod's image, with what to write."""
    if job.lacks(subject.source.settings, image):
        name = subject.source.settings.image.reference
        raise NoSubject(
            f"image {name} of {subject.name} has no shell, or a Litestream before 0.5.12, so no Job can use it: write "
            f"--image {LITESTREAM_IMAGE}, which reads what older ones have written"
        )


def _verified(kubectl: Kubectl, subject: Subject, asked: Asked) -> list[Told]:
    with restoring.running(kubectl, subject, asked) as running:
        return running.told


def _flat(subject: Subject, asked: Asked, told: Sequence[Told]) -> list[tuple[Subject, Asked, Told]]:
    return [(subject, asked, one) for one in told]


def _fields(subject: Subject, asked: Asked, told: Told) -> dict[str, Any]:
    return {
        "workload": subject.name,
        "namespace": subject.namespace,
        "database": told.path,
        "bucket": subject.source.bucket,
        "replica": subject.source.databases[told.path],
        "good": not told.failed,
        "problem": restoring.problem(told, subject, asked) if told.failed else None,
        "transaction": told.txid or None,
        "changed": told.changed or None,
        "bytes": told.bytes,
        "check": asked.check,
        "seconds": told.seconds,
        "tries": told.tries,
        "tables": [{"name": name, "rows": rows} for name, rows in told.tables.items()],
    }


def _text(subject: Subject, asked: Asked, told: Told) -> str:
    head = f"{subject.name} in {subject.namespace}, {escaped(told.path)}: "
    if told.failed:
        return f"{head}NOT GOOD\n  {restoring.problem(told, subject, asked)}\n"
    again = f", at try {told.tries}, as the writer's retention overtook it" if told.tries > 1 else ""
    rows = [
        ("replica", f"{subject.source.databases[told.path]} in bucket {subject.source.bucket}"),
        ("last change", f"{told.changed or 'unknown'}{_ago(told.changed)}, transaction {told.txid or 'unknown'}"),
        ("size", _size(told.bytes)),
        ("time", f"{told.seconds} s for restore and {asked.check} integrity check{again}"),
        ("tables", tables(told.tables)),
    ]
    return f"{head}good\n" + "".join(f"  {name:<12} {escaped(text)}\n" for name, text in rows)


def tables(tables: Mapping[str, int]) -> str:
    """The rows of each table, the largest first."""
    if not tables:
        return "none, or no sqlite3 in the image that counts them"
    largest = sorted(tables.items(), key=lambda each: -each[1])
    more = f", and {len(tables) - MOST_TABLES} more" if len(tables) > MOST_TABLES else ""
    return ", ".join(f"{escaped(name)} {rows:,}" for name, rows in largest[:MOST_TABLES]) + more + " (rows)"


def _ago(changed: str) -> str:
    try:
        seconds = int((datetime.now(UTC) - datetime.fromisoformat(changed)).total_seconds())
    except (ValueError, TypeError):
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f" ({seconds // length} {unit} ago)"
    return f" ({max(seconds, 0)} s ago)"


def _size(count: int) -> str:
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} bytes"


def scheduled(subject: Subject, asked: Asked, schedule: str) -> list[Object]:
    """The CronJob that verifies the databases, and the alert for it."""
    one = asked.databases[0] if len(asked.databases) < len(subject.source.databases) else ""
    name = restoring.job_name("verify", subject, restoring.LONGEST_CRON_JOB, one)
    place = subject.namespace
    rules = alerts(f'namespace="{place}",cronjob="{name}"', max(LATE_SECONDS, asked.seconds + 3600))
    return [
        job.cron_job(subject.source, asked, name, place, schedule),
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": name, "namespace": place, "labels": dict(job.LABELS)},
            "spec": {"groups": [{"name": name, "rules": rules}]},
        },
    ]


def alerts(which: str, late: int = LATE_SECONDS) -> list[Object]:
    """The rules that tell of a verification that failed, or did not run, by the metrics of kube-state-metrics.

    Args:
        which: the CronJobs, as the matchers of a PromQL selector.
        late: seconds after which a run that began has failed.
    """
    succeeded = f"kube_cronjob_status_last_successful_time{{{which}}} or kube_cronjob_created{{{which}}}"
    where = "{{ $labels.namespace }}/{{ $labels.cronjob }}"
    return [
        {
            "alert": "LitestreamVerifyFailed",
            "expr": f"kube_cronjob_status_last_schedule_time{{{which}}} > ({succeeded})",
            "for": f"{-(-late // 3600)}h",
            "labels": {"severity": "critical"},
            "annotations": {
                "summary": f"The last run of {where} has not found its replicas good",
                "description": "A database could not be restored from its replica, or the Job could not run. The log "
                "of its last Pod says why.",
            },
        },
        {
            "alert": "LitestreamVerifyMissed",
            "expr": f"time() - kube_cronjob_next_schedule_time{{{which}}} > {LATE_SECONDS} "
            f"or kube_cronjob_spec_suspend{{{which}}} == 1",
            "for": "15m",
            "labels": {"severity": "warning"},
            "annotations": {
                "summary": f"{where} does not run",
                "description": "It is suspended, or no Job was made at its time: kubectl describe cronjob says why. "
                "Nobody knows whether the replicas can be restored.",
            },
        },
    ]
