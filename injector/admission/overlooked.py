"""What of our annotations no webhook ever sees: on other kinds, in other places, in text, or of a misspelled group."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from injector import GROUP
from injector.admission import workload
from injector.admission.verdict import JUDGED, NAMESPACE, NO_NAMESPACE_DEFAULTS, POD, key_of
from injector.annotations.table import LABEL, group
from injector.errors import Violation, quoted
from injector.options import Options

DEEPEST = 40  # of what an object holds; deeper than any kind of Kubernetes' own
# Where the API server and kubectl keep copies of the object itself.
COPIES = ("managedFields", "kubectl.kubernetes.io/last-applied-configuration")
LOOKED_AT = "the webhook injects Pods, and checks Deployments, StatefulSets, ReplicaSets, DaemonSets, Jobs and CronJobs"


def asked_for(found: Mapping[str, Any], options: Options) -> bool:
    """Whether an object carries annotations of our group, wherever in it."""
    return any(True for _ in _places(found, options))


def overlooked(found: Mapping[str, Any], options: Options) -> list[Violation]:
    """The annotations of ours in an object that have no effect, or are not checked, where they stand.

    Args:
        found: an object of a manifest.
        options: the operator's.
    """
    our_group, key = group(options.variant), key_of(found)
    seen = _seen(key)
    violations = [
        Violation(f"{path}[{our_group}/…]", None, _why(key, found, path))
        for path, text in _places(found, options)
        if path not in seen and not (text and key in JUDGED) and not (key == NAMESPACE and options.namespace_defaults)
    ]
    violations += [
        Violation(f"{path}[{quoted(near)[1:-1]}]", None, f"is not our group: did you mean {our_group}?")
        for path, near in _misspelled(found, our_group)
    ]
    return violations


def _seen(key: tuple[str, str]) -> Sequence[str]:
    """Where a verdict is on annotations, whether they have an effect there or not; none for a kind that has none."""
    names = workload.TEMPLATES.get(key, ())
    places = [".".join([*names[:count], "metadata", "annotations"]) for count in range(len(names) + 1)]
    return places if key in JUDGED else ()


def _why(key: tuple[str, str], found: Mapping[str, Any], path: str) -> str:
    if key == NAMESPACE:
        return NO_NAMESPACE_DEFAULTS
    if key in JUDGED:
        where = "metadata.annotations" if key == POD else f"{'.'.join(workload.TEMPLATES[key])}.metadata.annotations"
        return f"has no effect there: move it to {where}"
    if workload.is_knative(key[0]):
        return workload.KNATIVE
    what = (
        f"a {key[1]} of {found['apiVersion']}"
        if found.get("apiVersion") and found.get("kind")
        else "what is no Kubernetes object"
    )
    if path == "metadata.annotations" or path.endswith(".metadata.annotations"):
        return (
            f"is on {what}, which nobody looks at: {LOOKED_AT}. If it makes Pods with these annotations, they are "
            "injected unchecked; else write them in a Pod template"
        )
    return (
        f"is a value in {what}, which nobody looks at: {LOOKED_AT}. Check what is made of it, such as the output of "
        "`helm template` or `kubectl kustomize`"
    )


def _places(found: Mapping[str, Any], options: Options) -> Iterator[tuple[str, bool]]:
    """(path, whether it is text) of all that holds keys of ours: mappings, and text that looks like YAML or JSON.

    Our label is no annotation: Pods are selected by it.
    """
    our_group = group(options.variant)
    prefix = f"{our_group}/"
    label, line = prefix + LABEL, _line(our_group)
    for path, value in _walk(found):
        if isinstance(value, str):
            if our_group in (plain := value.replace("\\", "")) and line.search(plain):
                yield path, True
        elif any(str(key).startswith(prefix) and key != label for key in value):
            yield path, False


@functools.cache
def _line(our_group: str) -> re.Pattern[str]:
    """A key of ours in YAML or JSON, or the whole name of a chart's parameter (`podAnnotations.GROUP/KEY`)."""
    key = rf"{re.escape(our_group)}/(?!{LABEL}\b)[a-z-]+"
    return re.compile(rf"""(?:^|[\s{{,"']){key}["']?\s*:|\A[^\s:]*\.["']?{key}["']?(?:=|\Z)""", re.MULTILINE)


def _misspelled(found: Mapping[str, Any], our_group: str) -> Iterator[tuple[str, str]]:
    """(path, what stands there) of each group in an object's keys that is nearly ours."""
    for path, value in _walk(found):
        if isinstance(value, dict):
            groups = {"".join(str(key).rpartition("/")[:2]) or str(key) for key in value}
            yield from ((path, near + "…" * near.endswith("/")) for near in sorted(groups) if _alike(near, our_group))


@functools.lru_cache(maxsize=1024)
def _alike(near: str, our_group: str) -> bool:
    """Whether `GROUP/`, or a key without a slash, was meant to be of ours; that of another variant was not."""
    if near.endswith(f"{GROUP}/") or len(near) > 2 * len(our_group):
        return False
    named = re.fullmatch(r"(?i)litestream-?hook\..*/", near) is not None
    return named or bool(difflib.get_close_matches(near.lower(), [f"{our_group}/"], cutoff=0.85))


def _walk(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any] | str]]:  # noqa: ANN401
    """(path, value) of all mappings and texts in a value."""
    if depth > DEEPEST:
        return
    if isinstance(value, dict):
        yield path, value
        for key, below in value.items():
            if key not in COPIES:
                yield from _walk(below, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _walk(below, f"{path}[{index}]", depth + 1)
    elif isinstance(value, str):
        yield path, value
