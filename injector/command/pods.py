"""What the API server says of Pods that are injected, ask for it in vain, or are refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from injector.annotations.settings import ours
from injector.annotations.table import STATUS, group
from injector.command import sidecar
from injector.command.kubectl import SHORT_NAMES
from injector.errors import InvalidOptions, cut, escaped, quoted
from injector.pod import gate, replica
from injector.pod.containers import REPLICATE
from injector.values import Object

RECENT = timedelta(hours=1)  # how long Kubernetes keeps events
REPEATED = {"BackOff", "FailedScheduling"}  # events that say what the Pod's status says
MOST_EVENTS = 3  # of a Pod, that are told
BEGINNING = {"PodInitializing", "ContainerCreating"}
LISTS = ("initContainers", "containers")
FINISHED = {"Succeeded", "Failed"}
_RUN = re.compile("(.+)-[0-9]{8,}")  # a CronJob's Job: its name, and the minute in which it was due


class Marks(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of the annotation `status`, also of one that another release wrote."""

    databases: dict[str, str]
    bucket: str = ""
    endpoint: str | None = None

    def url(self, database: str) -> str:
        """Of a database's replica: `s3://bucket/path`, `gs://bucket/path` and so on."""
        bucket = self.bucket if "://" in self.bucket else f"s3://{self.bucket}"
        return f"{bucket}/{self.databases.get(database, '')}"


class Injected(NamedTuple):
    """An injected Pod.

    `hindrances` are why it does not run, `troubles` what happened to its sidecar lately, and `events` what the kubelet
    has warned of, which is old news where the sidecar itself can be asked.
    """

    namespace: str
    name: str
    workload: str
    phase: str
    marks: Marks
    image: str
    way: sidecar.Way
    running: bool
    since: datetime | None
    hindrances: list[str]
    troubles: list[str]
    events: list[str]


class Missing(NamedTuple):
    """A Pod that asks for injection and has none, or an owner whose Pods are refused: why, in a sentence."""

    namespace: str
    kind: str
    name: str
    why: str


def wanted(text: str) -> tuple[str, str]:
    """Kind (empty: any) and name of a workload as people write it: `web`, `deployment/web`, `sts/web`."""
    kind, slash, name = text.rpartition("/")
    kind = SHORT_NAMES.get(kind.lower(), kind.lower())
    plain = kind.partition(".")[0].removesuffix("s")
    if name and plain in (*SHORT_NAMES.values(), "job"):
        kind = plain
    elif slash:
        raise InvalidOptions(f"WORKLOAD: {quoted(text)}: write NAME or KIND/NAME, such as deployment/web or pod/web-0")
    return kind, name


def chosen(pods: Iterable[Object], workload: str) -> list[Object]:
    """The Pods of a workload, or the one of that name; all of them where it is empty."""
    return [pod for pod in pods if _is(workload, _called(pod))] if workload else list(pods)


def _is(workload: str, called: Iterable[tuple[str, str]]) -> bool:
    kind, name = wanted(workload)
    return any(name == each and kind in ("", its) for its, each in called)


def _called(pod: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a Pod goes by: the name of the Deployment behind it, of its controller, its own, and its CronJob's."""
    metadata = pod["metadata"]
    names = [("pod", metadata["name"])]
    if (owner := replica.controller(metadata)) is not None:
        names.insert(0, (owner["kind"].lower(), owner["name"]))
    known = replica.of_pod(pod, metadata["namespace"]).known
    if known.get("kind") == "deployment":
        names.insert(0, ("deployment", known["workload"]))
    return names + [("cronjob", run[1]) for kind, name in names if kind == "job" and (run := _RUN.fullmatch(name))]


def lives(pod: Mapping[str, Any]) -> bool:
    """Whether a Pod is to run, or does."""
    return (pod.get("status") or {}).get("phase") not in FINISHED


def container(pod: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The spec of a Pod's sidecar; None where it has none."""
    spec = pod.get("spec") or {}
    return next((item for key in LISTS for item in spec.get(key) or [] if item["name"] == REPLICATE), None)


def injected(pod: Mapping[str, Any], variant: str, now: datetime, events: Iterable[Mapping[str, Any]] = ()) -> Injected:
    """What is known of a Pod that has a sidecar.

    Args:
        pod: the Pod.
        variant: whose annotations count.
        now: the moment.
        events: warnings, about anything.
    """
    metadata, status = pod["metadata"], pod.get("status") or {}
    own = container(pod) or {}
    try:
        marks = msgspec.json.decode(ours(metadata, group(variant)).get(STATUS, ""), type=Marks)
        unmarked: list[str] = []
    except (msgspec.DecodeError, TypeError, RecursionError):
        marks = Marks({})
        unmarked = ["has our containers, and no status annotation that could be read: who changed it?"]
    states: list[Object] = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    mine: Object = next((each for each in states if each["name"] == REPLICATE), {})
    running = (mine.get("state") or {}).get("running")
    return Injected(
        metadata["namespace"],
        metadata["name"],
        "/".join(_called(pod)[0]),
        "Terminating" if metadata.get("deletionTimestamp") else status.get("phase") or "Pending",
        marks,
        str(own.get("image", "")),
        sidecar.way(own),
        running is not None,
        _time(running.get("startedAt")) if running else None,
        [*unmarked, *_unscheduled(status), *(word for each in states for word in _hindrance(each))],
        _troubles(mine, now),
        _warned(metadata, events, now),
    )


def missing(pod: Mapping[str, Any], variant: str) -> Missing | None:
    """Why a Pod without a sidecar should have one; None if it should not."""
    metadata = pod["metadata"]
    ours_of_it = ours(metadata, group(variant))
    if container(pod) is not None or "inject" not in ours_of_it or ours_of_it["inject"] == "false":
        return None
    if gate.name(group(variant)) in gate.names(pod.get("spec") or {}):
        why = "waits at the scheduling gate, as the webhook was not there: delete it once the webhook is installed"
    else:
        why = (
            "asks for injection and has no Litestream, as the webhook was not there: nothing of it is replicated; "
            "save its databases before you delete it"
        )
    return Missing(metadata["namespace"], "Pod", metadata["name"], why)


def refused(
    events: Iterable[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]], workload: str, variant: str
) -> list[Missing]:
    """Owners whose newest attempt at a Pod the webhook has refused, by the events of their controllers.

    Args:
        events: warnings.
        pods: all Pods: an owner that has made one since is refused no longer.
        workload: that is asked for; empty: all of them.
        variant: whose webhook it is.
    """
    found: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for event in events:
        about = event.get("involvedObject") or {}
        if event.get("reason") != "FailedCreate" or f"{group(variant)}" not in str(event.get("message")):
            continue
        key = (about.get("namespace") or "", about.get("kind") or "", about.get("name") or "")
        if key not in found or _last(event) > _last(found[key]):
            found[key] = event
    made = [
        (pod["metadata"]["namespace"], _owner(pod), _time(pod["metadata"].get("creationTimestamp"))) for pod in pods
    ]
    result = []
    for (namespace, kind, name), event in found.items():
        stem = _stem(kind, name)
        if any(place == namespace and owner == stem and when and when >= _last(event) for place, owner, when in made):
            continue
        if workload and not _is(workload, [stem, (kind.lower(), name)]):
            continue
        said = str(event["message"]).partition("denied the request: ")[2] or str(event["message"])
        why = escaped(cut(" ".join(said.split()), 1000))
        result.append(Missing(namespace, kind, name, f"its Pods are refused: {why}"))
    return result


def _owner(pod: Mapping[str, Any]) -> tuple[str, str]:
    """The controller behind a Pod."""
    owner = replica.controller(pod["metadata"])
    return ("", "") if owner is None else _stem(owner["kind"], owner["name"])


def _stem(kind: str, name: str) -> tuple[str, str]:
    """A controller's kind and name; of a Deployment's ReplicaSets the Deployment's, as they follow one another."""
    if kind == "ReplicaSet" and "-" in name:
        return "deployment", name.rpartition("-")[0]
    return kind.lower(), name


def _unscheduled(status: Mapping[str, Any]) -> list[str]:
    return [
        f"is not scheduled: {escaped(cut(str(each.get('message') or each.get('reason')), 300))}"
        for each in status.get("conditions") or []
        if each.get("type") == "PodScheduled" and each.get("status") == "False"
    ]


def _hindrance(state: Mapping[str, Any]) -> list[str]:
    """Why a container does not run, if it should."""
    name, times = state["name"], state.get("restartCount") or 0
    waiting = (state.get("state") or {}).get("waiting") or {}
    ended = (state.get("state") or {}).get("terminated") or (state.get("lastState") or {}).get("terminated") or {}
    if not waiting.get("reason") and not (state.get("state") or {}).get("terminated"):
        return []
    if waiting.get("reason") in BEGINNING or (not waiting and ended.get("exitCode") == 0):
        return []
    if ended:
        again = f" after {times} restarts" if times > 1 else ""
        said = _last_line(ended.get("message"))
        return [f"{name} ended with {_exit(ended)}{again}{f': {said}' if said else ''}"]
    said = _last_line(waiting.get("message"))
    return [f"{name} does not start: {waiting['reason']}{f': {said}' if said else ''}"]


def _troubles(state: Mapping[str, Any], now: datetime) -> list[str]:
    """That a running sidecar was started again lately."""
    ended = (state.get("lastState") or {}).get("terminated") or {}
    when = _time(ended.get("finishedAt"))
    if "running" not in (state.get("state") or {}) or when is None or now - when > RECENT:
        return []
    return [f"{REPLICATE} was started again at {ended['finishedAt']}: it had ended with {_exit(ended)}"]


def _warned(metadata: Mapping[str, Any], events: Iterable[Mapping[str, Any]], now: datetime) -> list[str]:
    """The newest few warnings about a Pod that its status does not repeat."""
    about = [
        event
        for event in events
        if (event.get("involvedObject") or {}).get("uid") == metadata.get("uid")
        and event.get("reason") not in REPEATED
        and now - _last(event) < RECENT
    ]
    newest = sorted(about, key=_last, reverse=True)
    lines = dict.fromkeys(f"{each.get('reason')}: {_last_line(each.get('message'))}" for each in newest)
    return list(lines)[:MOST_EVENTS]


def _exit(ended: Mapping[str, Any]) -> str:
    reason = ended.get("reason")
    return f"exit code {ended.get('exitCode')}{f' ({reason})' if reason not in (None, 'Error', 'Completed') else ''}"


def _last_line(text: object) -> str:
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return escaped(cut(lines[-1].removeprefix("litestream-hook: "), 500)) if lines else ""


def _last(event: Mapping[str, Any]) -> datetime:
    series = event.get("series") or {}
    for text in (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime")):
        if (when := _time(text)) is not None:
            return when
    return datetime.fromtimestamp(0, UTC)


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
